#!/usr/bin/env python3
"""Samples a process's own memory, RssAnon + RssShmem of /proc/PID/status, until it ends.

Writes a JSON file with the maximum, a CSV file with the samples, and an SVG chart. Pages of mapped
files (RssFile) are recorded beside it, but are no part of the sum: the kernel can drop them.

Bounded: it stops at --deadline, and keeps at most SAMPLES_MAX samples. When they are full, neighbours
are joined two by two, the larger kept, so that no peak is lost.
"""

import argparse
import json
import sys
import time
from pathlib import Path

SAMPLES_MAX = 20_000
FIELDS = ("RssAnon", "RssShmem", "RssFile")

WIDTH, HEIGHT, MARGIN = 720, 240, 48


class Ended(Exception):
    """The process is gone."""


def start_time(pid):
    """When the process started, in ticks: tells it from a later one with the same number."""
    try:
        stat = Path(f"/proc/{pid}/stat").read_text(encoding="ascii", errors="replace")
    except OSError as error:
        raise Ended from error
    return int(stat.rpartition(")")[2].split()[19])


def read_status(pid):
    """{field: bytes} of the process now."""
    try:
        text = Path(f"/proc/{pid}/status").read_text(encoding="ascii", errors="replace")
    except OSError as error:
        raise Ended from error
    found = {}
    for line in text.splitlines():
        name, _, value = line.partition(":")
        if name in FIELDS:
            found[name] = int(value.split()[0]) * 1024
    if len(found) != len(FIELDS):
        raise Ended  # a process that has ended, but was not waited for, has no memory lines
    return found


class Samples:
    """At most `samples_max` of (seconds, own bytes, file bytes), and the true maximum."""

    def __init__(self, samples_max=SAMPLES_MAX):
        self.samples_max = samples_max
        self.rows = []
        self.taken = 0
        self.joined = 1  # raw samples a row stands for
        self.pending = []
        self.own_bytes_max = 0
        self.own_bytes_max_at = 0.0

    def add(self, seconds, own_bytes, file_bytes):
        self.taken += 1
        if own_bytes > self.own_bytes_max:
            self.own_bytes_max, self.own_bytes_max_at = own_bytes, seconds
        self.pending.append((seconds, own_bytes, file_bytes))
        if len(self.pending) < self.joined:
            return
        self.rows.append(max(self.pending, key=lambda row: row[1]))
        self.pending = []
        if len(self.rows) >= self.samples_max:
            pairs = zip(self.rows[::2], self.rows[1::2])
            self.rows = [max(pair, key=lambda row: row[1]) for pair in pairs]
            self.joined *= 2

    def finish(self):
        if self.pending:
            self.rows.append(max(self.pending, key=lambda row: row[1]))
            self.pending = []


def sample(pid, every_seconds, deadline_seconds, samples):
    """Samples until the process ends ("ended") or time is over ("deadline")."""
    began = time.monotonic()
    try:
        started = start_time(pid)
        turn = 0
        while True:
            now = time.monotonic() - began
            if now > deadline_seconds:
                return "deadline"
            found = read_status(pid)
            if start_time(pid) != started:
                return "ended"
            samples.add(now, found["RssAnon"] + found["RssShmem"], found["RssFile"])
            if turn == 0:
                print("sampling", flush=True)  # whoever waits for it may let the process go on
            turn += 1
            time.sleep(max(0.0, turn * every_seconds - (time.monotonic() - began)))
            # A sampler that was held up goes on from now: it does not catch up in a burst.
            turn = max(turn, int((time.monotonic() - began) / every_seconds))
    except Ended:
        return "ended"


def mebibytes(count):
    return f"{count / 2**20:.1f} MiB"


def chart(samples, limit_bytes, title):
    """The samples over time as a small SVG, with the limit as a line."""
    seconds_max = max((row[0] for row in samples.rows), default=0) or 1
    top = 1.1 * max(samples.own_bytes_max, limit_bytes or 0, 1)

    def place(seconds, count):
        x = MARGIN + (WIDTH - 2 * MARGIN) * seconds / seconds_max
        y = HEIGHT - MARGIN - (HEIGHT - 2 * MARGIN) * count / top
        return f"{x:.1f},{y:.1f}"

    columns = {}
    for row in samples.rows:
        column = int(2 * WIDTH * row[0] / seconds_max)
        columns[column] = max(columns.get(column, row), row, key=lambda r: r[1])
    points = " ".join(place(row[0], row[1]) for _, row in sorted(columns.items()))
    left, right = MARGIN, WIDTH - MARGIN
    parts = [
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {WIDTH} {HEIGHT}"'
        ' font-family="sans-serif" font-size="12">',
        '<rect width="100%" height="100%" fill="white"/>',
        f'<text x="{left}" y="20">{title}: RssAnon + RssShmem, at most '
        f"{mebibytes(samples.own_bytes_max)}</text>",
        f'<polyline fill="none" stroke="black" points="{place(0, top)} {place(0, 0)} '
        f'{place(seconds_max, 0)}"/>',
        f'<polyline fill="none" stroke="steelblue" stroke-width="1.2" points="{points}"/>',
        f'<text x="{right}" y="{HEIGHT - MARGIN + 18}" text-anchor="end">{seconds_max:.1f} s</text>',
        f'<text x="{left}" y="{HEIGHT - MARGIN + 18}">0</text>',
    ]
    if limit_bytes:
        start, end = place(0, limit_bytes).split(","), place(seconds_max, limit_bytes).split(",")
        parts.append(
            f'<line x1="{start[0]}" y1="{start[1]}" x2="{end[0]}" y2="{end[1]}" stroke="firebrick"'
            ' stroke-dasharray="6 4"/>'
        )
        parts.append(
            f'<text x="{right}" y="{float(end[1]) - 5:.1f}" text-anchor="end" fill="firebrick">'
            f"limit {mebibytes(limit_bytes)}</text>"
        )
    return "\n".join([*parts, "</svg>", ""])


def write_results(output, samples, ended, every_seconds, limit_bytes):
    """Writes OUTPUT.json, OUTPUT.csv and OUTPUT.svg."""
    output.with_suffix(".json").write_text(
        json.dumps(
            {
                "own_bytes_max": samples.own_bytes_max,
                "own_bytes_max_at_seconds": round(samples.own_bytes_max_at, 3),
                "limit_bytes": limit_bytes,
                "under_limit": None if limit_bytes is None else samples.own_bytes_max < limit_bytes,
                "samples": samples.taken,
                "seconds": round(samples.rows[-1][0], 3) if samples.rows else 0,
                "every_ms": round(every_seconds * 1000, 3),
                "stopped_by": ended,
            },
            indent=1,
        )
        + "\n",
        encoding="utf-8",
    )
    with open(output.with_suffix(".csv"), "w", encoding="utf-8") as file:
        file.write("seconds,own_bytes,file_bytes\n")
        file.writelines(f"{row[0]:.3f},{row[1]},{row[2]}\n" for row in samples.rows)
    output.with_suffix(".svg").write_text(chart(samples, limit_bytes, output.name), encoding="utf-8")


def main(arguments=None):
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("pid", type=int, metavar="PID")
    parser.add_argument("--output", type=Path, required=True, help="path of the results, no suffix")
    parser.add_argument("--every-ms", type=float, default=20, help="time between samples [20]")
    parser.add_argument("--limit-bytes", type=int, help="the limit to hold it against")
    parser.add_argument("--deadline", type=float, default=7200, help="seconds to stop after [7200]")
    args = parser.parse_args(arguments)
    samples = Samples()
    ended = sample(args.pid, args.every_ms / 1000, args.deadline, samples)
    samples.finish()
    if not samples.taken:
        print(f"sample_memory: no process {args.pid}", file=sys.stderr)
        return 1
    write_results(args.output, samples, ended, args.every_ms / 1000, args.limit_bytes)
    return 0


if __name__ == "__main__":
    sys.exit(main())
