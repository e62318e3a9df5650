"""The standard library's own tests of mappings, on an adapter that opens a table for each."""

from __future__ import annotations

import unittest
from typing import Any

import pytest

from mivrhash import Client, RHash

mapping_tests: Any = pytest.importorskip("test.mapping_tests", reason="this Python has no tests")

_client: Any = None


def client() -> Client:
    """One connection for all tables of these tests."""
    global _client
    if _client is None:
        _client = Client()
    return _client  # type: ignore[no-any-return]


class Adapter(RHash[Any, Any]):
    """What `dict(…)` takes, on a temporary table."""

    def __init__(self, other: Any = (), /, **named: Any) -> None:
        super().__init__(client=client(), pickle=True)
        self.update(other, **named)


class Basic(mapping_tests.BasicTestMappingProtocol):  # type: ignore[misc, name-defined]
    type2test = Adapter


class General(mapping_tests.TestMappingProtocol):  # type: ignore[misc, name-defined]
    type2test = Adapter


class Hash(mapping_tests.TestHashMappingProtocol):  # type: ignore[misc, name-defined]
    type2test = Adapter


def except_test(case: type, name: str, reason: str) -> None:
    """Skips one test; it must exist, so that no exception outlives what it was made for."""
    assert hasattr(case, name), name
    setattr(case, name, unittest.skip(reason)(getattr(case, name)))


LOCAL = "its keys or values are of a class inside the test, which cannot be pickled"
SHOWS = "a table's repr says that it is one, and shows its first entries only"

# One test each; six at most, over all three classes.
except_test(Hash, "test_eq", LOCAL)
except_test(Hash, "test_getitem", LOCAL)
except_test(Hash, "test_pop", LOCAL)
except_test(Hash, "test_setdefault", LOCAL)
except_test(Hash, "test_repr", SHOWS)
except_test(Hash, "test_repr_deep", "as test_repr; and values nest 128 deep at most")

del mapping_tests
