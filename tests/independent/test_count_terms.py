"""The independent counter on small directories, against counts made by hand and by brute force."""

import json
import os
import random
import subprocess
import sys
import tempfile
import unittest
from collections import Counter
from pathlib import Path
from unittest import mock

import count_terms

PROGRAM = Path(__file__).with_name("count_terms.py")


class CountTerms(unittest.TestCase):
    def setUp(self):
        directory = tempfile.TemporaryDirectory()
        self.addCleanup(directory.cleanup)
        self.root = Path(directory.name) / "root"
        self.root.mkdir()

    def write(self, name, data):
        path = self.root / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(data.encode() if isinstance(data, str) else data)
        return path

    def count(self, *roots, sample=100, seed=5, terms=None):
        roots = [str(root) for root in roots] or [str(self.root)]
        return count_terms.count(roots, sample, seed, 2, 60, terms)

    def test_documents_and_occurrences(self):
        self.write("a.txt", "one two two THREE three Three")
        self.write("sub/b.txt", "two one_two x")
        result = self.count()
        self.assertEqual(
            result["terms"], {"one": [1, 1], "two": [2, 3], "three": [1, 3], "one_two": [1, 1]}
        )
        self.assertEqual(result["totals"]["documents"], 2)
        self.assertEqual(result["totals"]["occurrences"], 8)
        self.assertEqual(result["totals"]["runs_not_kept"], 1)
        self.assertEqual(result["totals"]["postings"], 5)

    def test_files_that_are_not_text_are_skipped(self):
        self.write("nul", b"word\0word")
        self.write("latin", "caf\u00e9 word".encode("latin-1"))
        self.write("empty", b"")
        self.write("good", "word")
        result = self.count()
        self.assertEqual(result["terms"], {"word": [1, 1]})
        self.assertEqual(result["totals"]["skipped"], 2)
        self.assertEqual(result["totals"]["documents"], 2)
        self.assertEqual(result["totals"]["empty_documents"], 1)

    def test_hidden_entries_and_links_are_left_out(self):
        target = self.write("plain", "plain")
        self.write(".hidden", "hidden")
        self.write(".dir/file", "hidden")
        self.write(".gitignore", "plain")
        os.symlink(target, self.root / "link")
        os.symlink(self.root, self.root / "loop")
        os.mkfifo(self.root / "pipe")
        self.assertEqual(self.count()["terms"], {"plain": [1, 1]})

    def test_a_hidden_root_is_counted(self):
        self.write(".dir/file", "inside")
        self.write(".dir/.file", "hidden")
        self.write(".single", "single")
        result = self.count(self.root / ".dir", self.root / ".single")
        self.assertEqual(result["terms"], {"inside": [1, 1], "single": [1, 1]})

    def test_ignore_files_have_no_effect(self):
        self.write(".git/HEAD", "ref")
        self.write(".gitignore", "built/")
        self.write("built/file", "built")
        self.assertEqual(self.count()["terms"], {"built": [1, 1]})

    def test_given_terms_are_counted_and_absent_ones_are_zero(self):
        self.write("a", "one two")
        result = self.count(terms=["two", "none"])
        self.assertEqual(result["terms"], {"two": [1, 1], "none": [0, 0]})

    def test_a_large_corpus_equals_brute_force_and_the_sample_does_not_depend_on_the_jobs(self):
        generator = random.Random(11)
        vocabulary = [f"w{number:x}" for number in range(3000)] + ["\u00fcber", "stra\u00dfe"]
        documents, occurrences = Counter(), Counter()
        for number in range(60):
            words = [vocabulary[int(len(vocabulary) * generator.random() ** 3)] for _ in range(400)]
            documents.update(set(words))
            occurrences.update(words)
            self.write(f"{number % 7}/{number}", " ".join(words))
        with (
            mock.patch.object(count_terms, "CHUNK_BYTES", 5000),
            mock.patch.object(count_terms, "CANDIDATES_MAX", 400),
        ):
            results = [
                count_terms.count([str(self.root)], 300, 3, jobs, 60) for jobs in (1, 2, 3)
            ]
        for result in results:
            self.assertEqual(result, results[0])
            self.assertEqual(len(result["terms"]), 300)
            for term, counts in result["terms"].items():
                self.assertEqual(counts, [documents[term], occurrences[term]], term)
            self.assertEqual(result["totals"]["occurrences"], occurrences.total())
        for term, _ in occurrences.most_common(10):
            self.assertIn(term, results[0]["terms"])

    def test_newer_characters_are_reported_and_not_hidden(self):
        with mock.patch.object(count_terms.word_rule, "_NEWER", frozenset("\u00fe")):
            self.write("a", "ab\u00fe ab\u00fe cd")
            result = self.count()
        self.assertEqual(result["totals"]["newer_occurrences"], 2)
        self.assertEqual(result["newer_terms"], {"ab\u00fe": 2})
        self.assertEqual(result["newer_in_sample"], ["ab\u00fe"])

    def test_an_unreadable_file_is_named(self):
        path = self.write("a", "word")
        self.write("b", "word")
        real_open = open

        def refusing_open(name, *rest, **more):
            if name == str(path):
                raise PermissionError(13, "Permission denied", name)
            return real_open(name, *rest, **more)

        with mock.patch("builtins.open", refusing_open):
            totals, unreadable, documents, _ = count_terms.count_chunk([str(path), str(self.root / "b")])
        self.assertEqual((totals["unreadable"], totals["documents"]), (1, 1))
        self.assertEqual(unreadable, [f"{path}: Permission denied"])
        self.assertEqual(documents, {b"word": 1})

    def test_the_program_writes_json(self):
        self.write("a", "one \u00dcBER")
        output = self.root.parent / "counts.json"
        command = [sys.executable, str(PROGRAM), str(self.root), "--output", str(output)]
        subprocess.run(command, check=True, timeout=60)
        result = json.loads(output.read_text(encoding="utf-8"))
        self.assertEqual(result["terms"], {"one": [1, 1], "\u00fcber": [1, 1]})

    def test_a_missing_path_is_an_error(self):
        command = [sys.executable, str(PROGRAM), str(self.root / "missing")]
        done = subprocess.run(command, capture_output=True, text=True, timeout=60)
        self.assertEqual(done.returncode, 1)
        self.assertIn("missing", done.stderr)


if __name__ == "__main__":
    unittest.main()
