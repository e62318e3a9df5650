"""The memory sampler, on real processes that hold a known amount."""

import json
import os
import subprocess
import sys
import tempfile
import unittest
import xml.dom.minidom
from pathlib import Path

import sample_memory

PROGRAM = Path(__file__).with_name("sample_memory.py")

# Says when it holds 64 MiB that are really in memory, and ends when its input does.
HOLDER = "import sys; b = bytearray(b'x') * (64 << 20); print('ready', flush=True); sys.stdin.read()"


class SampleMemory(unittest.TestCase):
    def setUp(self):
        directory = tempfile.TemporaryDirectory()
        self.addCleanup(directory.cleanup)
        self.output = Path(directory.name) / "memory"

    def result(self):
        return json.loads(self.output.with_suffix(".json").read_text(encoding="utf-8"))

    def test_it_sees_what_a_process_holds_and_stops_with_it(self):
        with subprocess.Popen(
            [sys.executable, "-c", HOLDER], stdin=subprocess.PIPE, stdout=subprocess.PIPE
        ) as holder:
            self.assertEqual(holder.stdout.readline(), b"ready\n")
            sampler = subprocess.Popen(
                [
                    *(sys.executable, str(PROGRAM), str(holder.pid), "--output", str(self.output)),
                    *("--limit-bytes", str(32 << 20), "--every-ms", "5", "--deadline", "30"),
                ]
            )
            with self.assertRaises(subprocess.TimeoutExpired):
                sampler.wait(timeout=0.5)
            holder.stdin.close()
            # Not waited for yet: the sampler must also see that a dead process is dead.
            self.assertEqual(sampler.wait(timeout=30), 0)
        result = self.result()
        self.assertGreater(result["own_bytes_max"], 64 << 20)
        self.assertLess(result["own_bytes_max"], 128 << 20)
        self.assertIs(result["under_limit"], False)
        self.assertEqual(result["stopped_by"], "ended")
        rows = self.output.with_suffix(".csv").read_text(encoding="utf-8").splitlines()
        self.assertEqual(len(rows) - 1, result["samples"])
        self.assertEqual(max(int(row.split(",")[1]) for row in rows[1:]), result["own_bytes_max"])
        xml.dom.minidom.parse(str(self.output.with_suffix(".svg")))

    def test_the_deadline_stops_it(self):
        samples = sample_memory.Samples()
        self.assertEqual(sample_memory.sample(os.getpid(), 0.001, 0.05, samples), "deadline")
        self.assertGreater(samples.taken, 1)

    def test_no_such_process_is_an_error(self):
        child = subprocess.Popen([sys.executable, "-c", ""])
        child.wait(timeout=30)
        command = [sys.executable, str(PROGRAM), str(child.pid), "--output", str(self.output)]
        done = subprocess.run(command, capture_output=True, text=True, timeout=30)
        self.assertEqual(done.returncode, 1)
        self.assertIn(str(child.pid), done.stderr)

    def test_samples_are_bounded_and_keep_every_peak(self):
        samples = sample_memory.Samples(samples_max=100)
        for turn in range(5003):
            samples.add(turn / 50, 10_000 if turn == 4321 else turn % 97, 1)
            self.assertLessEqual(len(samples.rows), 100)
        samples.finish()
        self.assertEqual(samples.taken, 5003)
        self.assertEqual(samples.own_bytes_max, 10_000)
        self.assertAlmostEqual(samples.own_bytes_max_at, 4321 / 50)
        self.assertIn(10_000, [row[1] for row in samples.rows])
        self.assertEqual(samples.rows, sorted(samples.rows))


if __name__ == "__main__":
    unittest.main()
