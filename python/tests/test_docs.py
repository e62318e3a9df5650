"""Examples in docstrings and in the README run, and every public thing is documented."""

from __future__ import annotations

import doctest
import inspect
from pathlib import Path
from typing import Any

import pytest
from conftest import Service

import mivrhash
import mivrhash._hash
import mivrhash._server
import mivrhash.aio
import mivrhash.mivrhashclient

MODULES = [mivrhash, mivrhash._hash, mivrhash._server, mivrhash.aio, mivrhash.mivrhashclient]
README = Path(__file__).parent.parent / "README.md"


@pytest.mark.parametrize("module", MODULES, ids=lambda module: module.__name__)
def test_examples_in_docstrings_run(module: Any, service: Service) -> None:
    around = {"host": "127.0.0.1", "port": service.port}
    failed, tried = doctest.testmod(module, extraglobs=around)
    assert failed == 0 and tried > 0


def test_examples_in_the_readme_run(service: Service) -> None:
    around = {"host": "127.0.0.1", "port": service.port}
    failed, tried = doctest.testfile(str(README), module_relative=False, globs=around)
    assert failed == 0 and tried > 10


def test_examples_of_the_native_half_run(service: Service) -> None:
    tried = 0
    runner = doctest.DocTestRunner()
    for name, method in inspect.getmembers(mivrhash._native.Table):
        text = inspect.getdoc(method) or ""
        if ">>>" in text:
            around = {"RHash": mivrhash.RHash}
            test = doctest.DocTestParser().get_doctest(text, around, name, None, None)
            assert runner.run(test).failed == 0, name
            tried += 1
    assert tried > 8


def test_everything_public_is_documented() -> None:
    for name in mivrhash.__all__:
        thing = getattr(mivrhash, name)
        if inspect.isclass(thing) or callable(thing):
            assert thing.__doc__, name
    for name, method in inspect.getmembers(mivrhash.RHash):
        if not name.startswith("_"):
            assert inspect.getdoc(method), name
