"""The package is typed, and what it says of its types is so."""

from __future__ import annotations

import importlib.util
import re
import subprocess
import sys
from pathlib import Path

import pytest
from conftest import WAIT

import mivrhash

PACKAGE = Path(mivrhash.__file__).parent
HERE = Path(__file__).parent


def have(module: str) -> bool:
    return importlib.util.find_spec(module) is not None


def run(*command: str) -> "subprocess.CompletedProcess[str]":
    # Away from the sources, so that the installed package is what is checked.
    return subprocess.run(
        [sys.executable, "-m", *command], capture_output=True, text=True, timeout=WAIT, cwd=HERE
    )


def test_the_package_says_that_it_is_typed() -> None:
    assert (PACKAGE / "py.typed").exists()
    assert (PACKAGE / "_native.pyi").exists()


def test_the_stubs_name_all_that_the_native_half_has() -> None:
    stub = (PACKAGE / "_native.pyi").read_text()
    for name in dir(mivrhash._native):
        if not name.startswith("__"):
            assert re.search(rf"^(class|def) {name}\b", stub, re.MULTILINE), name
    for name in vars(mivrhash._native.Table):
        if not name.startswith("__") and not hasattr(dict, name):
            assert re.search(rf"^    def {name}\b", stub, re.MULTILINE), name


@pytest.mark.skipif(not have("mypy"), reason="mypy is not installed")
def test_mypy_is_content() -> None:
    done = run("mypy", "--strict", "-p", "mivrhash")
    assert done.returncode == 0, done.stdout
    done = run("mypy", "--strict", "typed_sample.py")
    assert done.returncode == 0, done.stdout


@pytest.mark.skipif(not have("pyright"), reason="pyright is not installed")
def test_pyright_is_content() -> None:
    done = run("pyright", "--project", str(HERE.parent))
    assert done.returncode == 0, done.stdout + done.stderr
    done = run("pyright", "typed_sample.py")
    assert done.returncode == 0, done.stdout + done.stderr
