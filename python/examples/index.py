"""Build an inverted index of Python sources, larger than the server's memory, and search it.

    python index.py [FOLDER] [WORD…]

The folder is the standard library unless one is given. The server is inside this program.
"""

import re
import sys
import sysconfig
import tempfile
import time
from collections import Counter
from itertools import islice
from math import log
from pathlib import Path

from mivrhash import RHash, serve

WORD = re.compile(r"\w+")


def build(folder, postings, documents):
    """Appends (document, count) to the posting list of each word of each file."""
    paths = (path for path in folder.rglob("*.py") if "site-packages" not in path.parts)
    for number, path in enumerate(sorted(paths)):
        words = Counter(WORD.findall(path.read_text("utf-8", "replace").lower()))
        documents[number] = (str(path.relative_to(folder)), sum(words.values()))
        for word, count in words.items():
            postings.append(word, (number, count))
    postings.flush()


def search(words, postings, documents):
    """The five files that fit these words best, ranked by BM25."""
    number, length = len(documents), 1 + sum(words for _, words in documents.values())
    scores = Counter()
    for found in postings.get_many(words, ()):
        weight = log(1 + (number - len(found) + 0.5) / (len(found) + 0.5))
        for (document, count), (_, words) in zip(found, documents.get_many(d for d, _ in found)):
            scores[document] += weight * 2.2 * count / (count + 0.3 + 0.9 * words * number / length)
    best = [document for document, _ in scores.most_common(5)]
    return [name for name, _ in documents.get_many(best)]


def main(folder=sysconfig.get_paths()["stdlib"], *words):
    with tempfile.TemporaryDirectory() as data, serve(data=data, mem_limit="24M") as server:
        with RHash(server.address, kind="lists") as postings, RHash(server.address) as documents:
            began = time.perf_counter()
            build(Path(folder), postings, documents)
            seconds = time.perf_counter() - began
            print(f"{len(documents)} files, {len(postings)} words in {seconds:.1f} s")
            print("some words:", *sorted(islice(postings, 5)))
            for name in search(words or ("mutablemapping", "abstractmethod"), postings, documents):
                print(name)


if __name__ == "__main__":
    main(*sys.argv[1:])
