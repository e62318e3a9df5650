"""What a term is: the rule of `rhash index`, written down a second time.

A document is a file whose bytes are UTF-8 and hold no NUL. Its terms are the maximal runs of word
characters, each run lower-cased as a whole, and kept if it is then 2 to 64 code points long.

Word characters are '_' and what Unicode calls alphanumeric: the Alphabetic property and the
categories Nd, Nl and No. Python's own idea of a word differs, so it is not used:
- str.isalnum and \\w take the categories L* and N*. They miss Other_Alphabetic: vowel signs and other
  marks (U+0345), circled letters (U+24B6, category So).
- Python's tables may be older than Rust's. word_ranges.txt therefore holds the whole set.

Lower-casing is Unicode's full mapping, as str.lower does it: a capital sigma that ends a run becomes
U+03C2, U+0130 becomes two code points (so that a term may hold U+0307, which is no word character).
Here only Python's tables are at hand: a capital letter younger than them stays as it is. Terms that
hold any character younger than Python's tables are counted apart and shown, see `is_newer`.
"""

import re
import unicodedata
from pathlib import Path

LENGTH_MIN = 2
LENGTH_MAX = 64

UNDERSCORE = ord("_")


def _read_ranges():
    ranges = [(UNDERSCORE, UNDERSCORE)]
    text = Path(__file__).with_name("word_ranges.txt").read_text(encoding="ascii")
    for line in text.splitlines():
        if line and not line.startswith("#"):
            first, last = line.split()
            ranges.append((int(first, 16), int(last, 16)))
    return sorted(ranges)


WORD_RANGES = _read_ranges()
_WORD = re.compile(
    "[" + "".join(f"{re.escape(chr(a))}-{re.escape(chr(b))}" for a, b in WORD_RANGES) + "]+"
)


def _byte_table():
    """Maps each ASCII byte to its lower-case form if it is of a word, else to a blank. Bytes of other
    characters stay, so that a piece between blanks is a run, or holds characters beyond ASCII."""
    table = bytearray(b" " * 128) + bytes(range(128, 256))
    for first, last in WORD_RANGES:
        for code in range(first, min(last, 127) + 1):
            table[code] = ord(chr(code).lower())
    return bytes(table)


_BYTE_TABLE = _byte_table()

# Word characters that this Python does not know: it cannot lower-case them.
_NEWER = frozenset(
    chr(code)
    for first, last in WORD_RANGES
    for code in range(max(first, 128), last + 1)
    if unicodedata.category(chr(code)) == "Cn"
)


class NotText(Exception):
    """The bytes are not a document: they are not UTF-8, or they hold a NUL."""


def runs(data):
    """All runs of word characters in a file's bytes, lower-cased, of any length, as UTF-8, in no order."""
    if b"\0" in data:
        raise NotText("holds a NUL byte")
    pieces = data.translate(_BYTE_TABLE).split()
    if data.isascii():
        return pieces
    try:
        data.decode("utf-8")
    except UnicodeDecodeError as error:
        raise NotText(f"not UTF-8: {error}") from error
    found = list(filter(bytes.isascii, pieces))
    wide = b"\n".join([piece for piece in pieces if not piece.isascii()]).decode("utf-8")
    # One call lower-cases them all: a line feed is neither a letter nor ignored between letters, so
    # what stands behind it cannot change how a run's last sigma is written. That ASCII letters are
    # small already changes nothing either.
    wide = _WORD.findall(wide)
    if wide:
        found += "\n".join(wide).lower().encode("utf-8").split(b"\n")
    return found


def is_kept(run):
    """Whether a lower-cased run is a term."""
    return LENGTH_MIN <= len(run) <= LENGTH_MAX


def terms(data):
    """The terms of a file's bytes, in no order."""
    return [run for run in map(bytes.decode, runs(data)) if is_kept(run)]


def is_newer(term):
    """Whether the term holds a word character that this Python's Unicode does not have."""
    return not term.isascii() and not _NEWER.isdisjoint(term)


def is_delicate(term):
    """Whether the term holds a trace of letters whose lower case depends on how one asks for it:
    a final sigma, or the dot that U+0130 leaves behind."""
    return "\u03c2" in term or "\u0307" in term
