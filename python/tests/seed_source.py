"""The seed package's own tests, as they are on the package index, moved to Python 3 on the fly."""

from __future__ import annotations

import re
import subprocess
import sys
import zipfile
from pathlib import Path

#: What this package was in 2010.
SEED = "mivrhash==1.0.1"
TESTS = "mivrhash-1.0.1/mivrhash/testsuite/mivrhashtest.py"


def download(folder: Path) -> str:
    """The text of the seed's tests; an OSError says why it cannot be had."""
    command = [sys.executable, "-m", "pip", "download", "--quiet", "--no-deps", "--no-binary", ":all:"]
    command += ["--dest", str(folder), SEED]
    # The archive is all that is wanted: that pip cannot build it with a Python of today is no matter.
    done = subprocess.run(command, capture_output=True, text=True, timeout=120, check=False)
    archives = list(folder.glob("mivrhash-1.0.1*"))
    if not archives:
        raise OSError(done.stderr.strip().splitlines()[-1] if done.stderr else "pip failed")
    with zipfile.ZipFile(archives[0]) as archive:
        return archive.read(TESTS).decode()


def moved_to_python_3(text: str, port: int) -> str:
    """The same tests: `print` is a function, `range` no list, and the server has another port."""
    text = re.sub(r"^(\s*)print (.*)$", r"\1print(\2)", text, flags=re.MULTILINE)
    text = re.sub(r"= range\(([^)]*)\)", r"= list(range(\1))", text)
    text = text.replace("from mivrhashclient import", "from mivrhash.mivrhashclient import")
    return text.replace("10080", str(port))
