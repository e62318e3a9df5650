#!/usr/bin/env python3
"""Counts documents and occurrences per term over PATHs, for a sample of the terms.

It follows the rules of `rhash index` and shares no code with it, so that the two can be held against
each other. Which files are documents is said in `walk`, which words are terms in word_rule.py.

Two passes, in bounded memory. The first draws the sample: every term whose keyed hash falls into a
share of the hash space (the share halves as often as needed to stay under CANDIDATES_MAX), and, as
such a share rarely holds the few most frequent terms, those too. The second counts the chosen terms
anew, all of them exactly. Where both passes counted a term, the counts must agree.
"""

import argparse
import heapq
import json
import multiprocessing
import os
import random
import sys
import time
import unicodedata
import zlib
from collections import Counter

import word_rule

CHUNK_BYTES = 8 << 20  # text counted by one task; a larger file is a task by itself
CHUNK_FILES = 2000
CANDIDATES_MAX = 300_000  # terms kept by hash in the first pass
FREQUENT_PER_CHUNK = 3000
FREQUENT_MAX = 100_000
NEWER_SHOWN_MAX = 20
NAMED_MAX = 100  # unreadable files named in the output

# Shares of the sample. What a stratum cannot fill goes to the next ones.
STRATA = (("frequent", 0.10), ("non-ascii", 0.05), ("middle", 0.30), ("rare", 0.275), ("single", 0.275))
MIDDLE_DOCUMENTS_MIN = 10


def walk(roots):
    """Yields (path, bytes) of every regular file, in a fixed order. Hidden entries and links are left
    out unless they are a root itself; ignore files have no effect."""
    for root in roots:
        if not os.path.isdir(root):
            yield root, os.stat(root).st_size
            continue
        pending = [root]
        while pending:
            directory = pending.pop()
            with os.scandir(directory) as entries:
                entries = sorted(entries, key=lambda entry: os.fsencode(entry.name))
            for entry in reversed(entries):
                if not entry.name.startswith(".") and entry.is_dir(follow_symlinks=False):
                    pending.append(entry.path)
            for entry in entries:
                if not entry.name.startswith(".") and entry.is_file(follow_symlinks=False):
                    yield entry.path, entry.stat(follow_symlinks=False).st_size


def chunks(files):
    """Groups (path, bytes) into lists of paths of about CHUNK_BYTES."""
    chunk, size = [], 0
    for path, file_bytes in files:
        if chunk and (size + file_bytes > CHUNK_BYTES or len(chunk) >= CHUNK_FILES):
            yield chunk
            chunk, size = [], 0
        chunk.append(path)
        size += file_bytes
    if chunk:
        yield chunk


def count_chunk(paths):
    """Counts every run in the files: totals, unreadable files, and for each run, as UTF-8, its
    documents and its occurrences."""
    totals = Counter(documents=0, skipped=0, unreadable=0, empty_documents=0, bytes=0)
    unreadable = []
    documents, occurrences = Counter(), {}
    for path in paths:
        try:
            with open(path, "rb") as file:
                data = file.read()
            found = word_rule.runs(data)
        except word_rule.NotText:
            totals["skipped"] += 1
            continue
        except OSError as error:
            totals["unreadable"] += 1
            unreadable.append(f"{path}: {error.strerror}")
            continue
        totals["documents"] += 1
        totals["bytes"] += len(data)
        in_file = Counter(found)
        totals["empty_documents"] += not in_file
        documents.update(in_file.keys())
        for run, count in in_file.items():
            occurrences[run] = occurrences.get(run, 0) + count
    return totals, unreadable, documents, occurrences


class Draw:
    """The first pass: totals, and candidates for the sample."""

    def __init__(self, seed):
        self.seed = seed
        self.level = 0  # a candidate's hash has this many low bits at zero
        self.candidates = {}
        self.frequent = Counter()
        self.totals = Counter()
        self.unreadable = []
        self.newer = Counter()

    def add(self, part):
        self.totals.update(part["totals"])
        self.unreadable.extend(part["unreadable"][: NAMED_MAX - len(self.unreadable)])
        self.newer.update(part["newer"])
        if len(self.newer) > 4 * NEWER_SHOWN_MAX:
            self.newer = Counter(dict(self.newer.most_common(NEWER_SHOWN_MAX)))
        mask = (1 << self.level) - 1
        for term, (code, documents, occurrences) in part["candidates"].items():
            if code & mask:
                continue
            counts = self.candidates.setdefault(term, [code, 0, 0])
            counts[1] += documents
            counts[2] += occurrences
        while len(self.candidates) > CANDIDATES_MAX:
            self.level += 1
            mask = (1 << self.level) - 1
            self.candidates = {t: c for t, c in self.candidates.items() if not c[0] & mask}
        self.frequent.update(part["frequent"])
        if len(self.frequent) > FREQUENT_MAX:
            self.frequent = Counter(dict(self.frequent.most_common(FREQUENT_MAX // 2)))

    def choose(self, wanted):
        """The sample as {term: stratum}, `wanted` terms of it or all there are."""
        generator = random.Random(self.seed)
        pools = {name: [] for name, _ in STRATA}
        for term, (_, documents, occurrences) in sorted(self.candidates.items()):
            if not term.isascii():
                pools["non-ascii"].append(term)
            elif occurrences == 1:
                pools["single"].append(term)
            else:
                pools["middle" if documents >= MIDDLE_DOCUMENTS_MIN else "rare"].append(term)
        for name in pools:
            generator.shuffle(pools[name])
        by_count = sorted(self.frequent.items(), key=lambda item: (-item[1], item[0]))
        pools["frequent"] = [term for term, _ in by_count]
        chosen = {}
        # The first round gives each stratum its share, the second fills up from what is left.
        for quota in ({name: round(share * wanted) for name, share in STRATA}, {}):
            for name, pool in pools.items():
                left = min(quota.get(name, wanted), wanted - len(chosen))
                for term in pool:
                    if left <= 0:
                        break
                    if term not in chosen:
                        chosen[term] = name
                        left -= 1
        return chosen


# Forked, so that a worker costs nothing to start, whatever this Python's default is.
_PROCESSES = multiprocessing.get_context("fork")

_seed = 0
_level = None
_chosen = frozenset()


def _start_worker(seed, level, chosen):
    global _seed, _level, _chosen
    _seed, _level, _chosen = seed, level, chosen


def draw_chunk(paths):
    """One chunk's part of the first pass."""
    totals, unreadable, documents, occurrences = count_chunk(paths)
    mask = (1 << _level.value) - 1
    candidates, frequent, newer = {}, [], {}
    for run, count in occurrences.items():
        term = run.decode()
        if not word_rule.is_kept(term):
            totals["runs_not_kept"] += count
            continue
        totals["occurrences"] += count
        totals["postings"] += documents[run]
        code = zlib.crc32(run, _seed)
        if not code & mask:
            candidates[term] = (code, documents[run], count)
        frequent.append((count, term))
        if not term.isascii():
            totals["non_ascii_occurrences"] += count
            if word_rule.is_delicate(term):
                totals["delicate_occurrences"] += count
            if word_rule.is_newer(term):
                totals["newer_occurrences"] += count
                newer[term] = count
    frequent = {term: count for count, term in heapq.nlargest(FREQUENT_PER_CHUNK, frequent)}
    return {
        "totals": totals,
        "unreadable": unreadable,
        "candidates": candidates,
        "frequent": frequent,
        "newer": newer,
    }


def sample_chunk(paths):
    """One chunk's part of the second pass: the chosen terms' counts."""
    totals, _, documents, occurrences = count_chunk(paths)
    found = documents.keys() & _chosen
    return totals, {run.decode(): (documents[run], occurrences[run]) for run in found}


class Deadline:
    """The time by which all must be done."""

    def __init__(self, seconds):
        self.seconds = seconds
        self.end = time.monotonic() + seconds

    def over(self, task, parts, pool):
        """Runs `task` over the parts in the pool and yields the results in order."""
        results = pool.imap(task, parts)
        while True:
            try:
                yield results.next(timeout=max(0.001, self.end - time.monotonic()))
            except StopIteration:
                return
            except multiprocessing.TimeoutError:
                raise SystemExit(f"count_terms: not done in {self.seconds} s") from None


def in_both_passes(draw, sample, totals):
    """Ends the program if the two passes saw different files."""
    for name in ("documents", "skipped", "unreadable", "bytes"):
        if draw.totals[name] != totals[name]:
            raise SystemExit(f"count_terms: {name} differ between the passes: the files changed")
    for term, counts in sample.items():
        first = draw.candidates.get(term)
        if first is not None and first[1:] != counts:
            raise SystemExit(f"count_terms: {term!r} differs between the passes: the files changed")


def count(roots, wanted, seed, jobs, seconds, terms=None):
    """Counts a sample of `wanted` terms, or exactly the given `terms`."""
    deadline = Deadline(seconds)
    parts = list(chunks(walk(roots)))
    draw = Draw(seed)
    level = _PROCESSES.Value("i", 0)
    with _PROCESSES.Pool(jobs, _start_worker, (seed, level, frozenset())) as pool:
        for part in deadline.over(draw_chunk, parts, pool):
            draw.add(part)
            level.value = draw.level
    strata = draw.choose(wanted) if terms is None else dict.fromkeys(terms, "given")
    sample = {term: [0, 0] for term in strata}
    totals = Counter()
    with _PROCESSES.Pool(jobs, _start_worker, (seed, level, frozenset(map(str.encode, strata)))) as pool:
        for part_totals, found in deadline.over(sample_chunk, parts, pool):
            totals.update(part_totals)
            for term, (documents, occurrences) in found.items():
                sample[term][0] += documents
                sample[term][1] += occurrences
    in_both_passes(draw, sample, totals)
    return {
        "seed": seed,
        "python_unicode": unicodedata.unidata_version,
        "totals": dict(sorted(draw.totals.items())),
        "distinct_terms_estimate": len(draw.candidates) << draw.level,
        "unreadable": draw.unreadable,
        "newer_terms": dict(draw.newer.most_common(NEWER_SHOWN_MAX)),
        "newer_in_sample": sorted(term for term in sample if word_rule.is_newer(term)),
        "strata": dict(Counter(strata.values())),
        "terms": sample,
    }


def main(arguments=None):
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("paths", nargs="+", metavar="PATH")
    parser.add_argument("--sample", type=int, default=10_000, help="terms to sample [10000]")
    parser.add_argument("--seed", type=int, default=2010, help="seed of the sample [2010]")
    parser.add_argument("--jobs", type=int, default=os.cpu_count(), help="processes [all cores]")
    parser.add_argument("--deadline", type=float, default=1200, help="seconds to be done in [1200]")
    parser.add_argument("--term", action="append", help="count these terms instead of a sample")
    parser.add_argument("--output", help="file for the JSON [standard output]")
    args = parser.parse_args(arguments)
    try:
        result = count(args.paths, args.sample, args.seed, args.jobs, args.deadline, args.term)
    except OSError as error:
        print(f"count_terms: {error}", file=sys.stderr)
        return 1
    text = json.dumps(result, ensure_ascii=False, indent=1) + "\n"
    if args.output:
        with open(args.output, "w", encoding="utf-8") as file:
            file.write(text)
    else:
        sys.stdout.write(text)
    return 0


if __name__ == "__main__":
    sys.exit(main())
