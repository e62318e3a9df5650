"""The flagship: an index of real sources, built and searched by the example itself."""

from __future__ import annotations

import json as some_package
import re
import runpy
import subprocess
import sys
from collections import Counter
from pathlib import Path
from typing import Any

from conftest import WAIT

from mivrhash import RHash

EXAMPLE = Path(__file__).parent.parent / "examples" / "index.py"


def test_it_is_short() -> None:
    assert len(EXAMPLE.read_text().splitlines()) < 60


def test_its_postings_are_those_of_an_independent_count() -> None:
    folder = Path(some_package.__file__).parent
    example: Any = runpy.run_path(str(EXAMPLE))
    expected: dict[str, list[tuple[int, int]]] = {}
    for number, path in enumerate(sorted(folder.rglob("*.py"))):
        for word, count in Counter(re.findall(r"\w+", path.read_text("utf-8").lower())).items():
            expected.setdefault(word, []).append((number, count))
    with RHash(kind="lists") as postings, RHash() as documents:
        example["build"](folder, postings, documents)
        assert dict(postings.items()) == expected
        assert "decoder.py" in example["search"](["scanstring", "jsondecoder"], postings, documents)


def test_it_runs_on_the_standard_library() -> None:
    command = [sys.executable, str(EXAMPLE)]
    done = subprocess.run(command, capture_output=True, text=True, timeout=WAIT)
    assert done.returncode == 0, done.stderr
    assert "collections/abc.py" in done.stdout or "_collections_abc.py" in done.stdout
