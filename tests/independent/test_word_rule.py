"""The rule of terms: literal cases, and a slow reading of it on random text."""

import random
import unicodedata
import unittest

import word_rule


def slow_runs(text):
    """The rule once more, a character at a time, for characters of which Python knows enough."""
    runs, run = [], ""
    for character in text + " ":
        if character == "_" or unicodedata.category(character)[0] in "LN":
            run += character
        elif run:
            runs.append(run.lower())
            run = ""
    return runs


class WordRule(unittest.TestCase):
    def check(self, text, *expected):
        self.assertEqual(sorted(word_rule.terms(text.encode())), sorted(expected))

    def test_ascii_runs_are_cut_and_lower_cased(self):
        self.check("Hello, WORLD_2 it's x  a1\n", "hello", "world_2", "it", "a1")

    def test_the_two_paths_agree_on_ascii(self):
        text = bytes(range(1, 128)).decode() + " One_2 three-FOUR"
        with_other = word_rule.terms((text + " \u00fc\u00fc").encode())
        self.assertEqual(sorted([*word_rule.terms(text.encode()), "\u00fc\u00fc"]), sorted(with_other))

    def test_lengths_from_2_to_64_code_points_are_kept(self):
        self.check("a " + "b" * 64 + " " + "c" * 65 + " \u00e9" + "\u00e9" * 63, "b" * 64, "\u00e9" * 64)

    def test_length_is_measured_after_lower_casing(self):
        # One capital letter, two code points when lower-cased.
        self.check("\u0130", "i\u0307")
        self.check("\u0130" * 33)

    def test_capital_sigma_is_final_at_the_end_of_a_run(self):
        self.check("\u039f\u03a3 \u039f\u03a3\u0391", "\u03bf\u03c2", "\u03bf\u03c3\u03b1")
        # The apostrophe ends the run, although letters follow it.
        self.check("\u039f\u03a3'\u0391\u0391", "\u03bf\u03c2", "\u03b1\u03b1")

    def test_other_alphabetic_and_all_numbers_are_of_words(self):
        self.check("\u24b6\u24b7", "\u24d0\u24d1")  # circled letters, category So
        self.check("\u0915\u093e", "\u0915\u093e")  # a vowel sign, category Mc
        self.check("x\u0345y", "x\u0345y")  # iota below, category Mn
        self.check("x\u00bd \u2167\u2168 \u0664\u0665", "x\u00bd", "\u2177\u2178", "\u0664\u0665")

    def test_ascii_and_other_letters_make_one_run(self):
        self.check("Na\u00efVE\u2014x2 \u00c9t\u00c9_1", "na\u00efve", "x2", "\u00e9t\u00e9_1")

    def test_marks_that_are_not_alphabetic_end_a_run(self):
        self.check("caf\u0065\u0301s", "cafe")  # combining acute
        self.check("na\u200dme", "na", "me")  # joiner
        self.check("ab\u203fcd", "ab", "cd")  # a connector that \w does not hold in Rust

    def test_not_text_is_told(self):
        for data in (b"ab\0cd", b"\xff\xfeab", b"\xed\xa0\x80", b"\xc0\x80", b"ab\xe2\x82"):
            with self.assertRaises(word_rule.NotText):
                word_rule.terms(data)

    def test_nothing_in_nothing_out(self):
        self.check("")
        self.check("\u2014 \u2026 !")
        self.assertEqual(word_rule.runs("\u2014".encode()), [])

    def test_random_text_equals_the_slow_reading(self):
        seed = 77
        generator = random.Random(seed)
        known = [
            chr(code)
            for code in [*range(1, 0x2FFF), *range(0xFF00, 0xFFFF), *range(0x10400, 0x10450)]
            if unicodedata.category(chr(code))[0] in "LNPZCS"
            and unicodedata.category(chr(code)) not in ("Cn", "Cs")
            and not 0x249C <= code <= 0x24E9  # alphabetic symbols, tested above
        ]
        for _ in range(300):
            pool = generator.sample(known, 12) + list("aZ_ 9\u03a3")
            text = "".join(generator.choices(pool, k=200))
            found = [run.decode() for run in word_rule.runs(text.encode())]
            self.assertEqual(sorted(found), sorted(slow_runs(text)), f"seed {seed}")

    def test_the_ranges_hold_all_letters_and_numbers_that_python_knows(self):
        inside = {c for first, last in word_rule.WORD_RANGES for c in range(first, last + 1)}
        for code in range(0x110000):
            category = unicodedata.category(chr(code))
            if category[0] in "LN":
                self.assertIn(code, inside)
            elif category[0] in "PZC" and category != "Cn" and code != ord("_"):
                self.assertNotIn(code, inside)

    def test_characters_newer_than_python_are_told(self):
        self.assertFalse(word_rule.is_newer("abc\u00e9\u24d0"))
        newer = [
            first
            for first, _ in word_rule.WORD_RANGES
            if unicodedata.category(chr(first)) == "Cn"
        ]
        for code in newer:
            self.assertTrue(word_rule.is_newer("ab" + chr(code)))


if __name__ == "__main__":
    unittest.main()
