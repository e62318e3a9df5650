"""`MivRHash` is what it was in 2010: its README's example, and its own tests."""

from __future__ import annotations

import io
import types
import unittest
from contextlib import redirect_stdout
from pathlib import Path
from typing import Any

import pytest
from conftest import Service
from seed_source import download, moved_to_python_3

from mivrhash import Client
from mivrhash.mivrhashclient import MivRHash


def test_the_example_of_2010_works(service: Service) -> None:
    h1: Any = MivRHash("127.0.0.1", service.port)
    h1["hello"] = "world"
    h1[5] = 6
    h1[("some", "tuple")] = "hello"
    h1["aHash"] = {1: 2, 3: 4}
    h2 = h1["aHash"]
    h2[1] = 5
    assert h1["aHash"] == {1: 2, 3: 4}
    h1["aHash"] = h2
    assert h1["aHash"] == {1: 5, 3: 4}
    assert set(h1.iterkeys()) == {"hello", 5, ("some", "tuple"), "aHash"}
    assert len(list(h1.itervalues())) == 4
    assert dict(h1.iteritems())[5] == 6
    assert h1.has_key(5.0) and not h1.has_key(7)
    del h1[7]
    with pytest.raises(KeyError):
        h1[7]
    assert len(h1) == 4
    h1.clear()
    assert len(h1) == 0
    with Client() as client:
        before = len(client.stats()["tables"])
        h1.close()
        h1 = None
        assert len(client.stats()["tables"]) == before - 1


def test_objects_are_pickled_only_where_asked(service: Service) -> None:
    h = MivRHash("127.0.0.1", service.port)
    with pytest.raises(TypeError):
        h["k"] = types.SimpleNamespace()
    h.close()
    h = MivRHash("127.0.0.1", service.port, pickle=True)
    h["k"] = types.SimpleNamespace(a=1)
    assert h["k"].a == 1
    h.close()


def test_the_tests_of_2010_pass(service: Service, tmp_path: Path) -> None:
    try:
        text = download(tmp_path)
    except OSError as error:
        pytest.skip(f"the seed package cannot be had: {error}")
    module = types.ModuleType("mivrhashtest")
    exec(compile(moved_to_python_3(text, service.port), "mivrhashtest.py", "exec"), module.__dict__)
    suite = unittest.defaultTestLoader.loadTestsFromModule(module)
    assert suite.countTestCases() == 6
    said = io.StringIO()
    with redirect_stdout(io.StringIO()):
        result = unittest.TextTestRunner(stream=said).run(suite)
    assert result.wasSuccessful(), said.getvalue()
