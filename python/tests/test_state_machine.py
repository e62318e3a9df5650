"""`RHash` against a dict: any order of calls, flushes, reconnects, restarts, and a second client.

`MACHINE_EXAMPLES` says how many orders are tried (60), `MACHINE_SEED` repeats those of an earlier run.
"""

from __future__ import annotations

import itertools
import os
import random
import tempfile
from pathlib import Path
from typing import Any, Dict, List, Optional

import pytest
from conftest import Service
from hypothesis import HealthCheck, seed, settings
from hypothesis import strategies as st
from hypothesis.stateful import (
    RuleBasedStateMachine,
    initialize,
    invariant,
    rule,
    run_state_machine_as_test,
)

from mivrhash import RHash

keys = st.sampled_from([0, 1, 1.5, True, "a", "b", b"a", None, (1, "x"), (1.0, "x"), frozenset([1])])
values = st.integers() | st.text(max_size=20) | st.lists(st.integers(), max_size=5) | st.binary(
    max_size=4000
)
_numbers = itertools.count()
_service: Optional[Service] = None


class Machine(RuleBasedStateMachine):
    """The table and the dict take the same calls."""

    @initialize(cache=st.sampled_from([4096, 64 << 10, 64 << 20]))
    def open(self, cache: int) -> None:
        assert _service is not None
        self.name = f"machine-{next(_numbers)}"
        self.cache = cache
        self.model: Dict[Any, Any] = {}
        self.table = self.reopened()
        self.second: Optional[RHash[Any, Any]] = None
        self.held: Dict[Any, List[int]] = {}

    def reopened(self) -> RHash[Any, Any]:
        assert _service is not None
        return RHash(_service.address, name=self.name, cache_bytes=self.cache)

    @rule(key=keys, value=values)
    def set(self, key: Any, value: Any) -> None:
        self.held.pop(key, None)
        self.table[key] = value
        self.model[key] = list(value) if isinstance(value, list) else value

    @rule(key=keys)
    def delete(self, key: Any) -> None:
        self.held.pop(key, None)
        if key in self.model:
            del self.model[key]
            del self.table[key]
        else:
            with pytest.raises(KeyError):
                del self.table[key]

    @rule(key=keys)
    def get(self, key: Any) -> None:
        assert self.table.get(key, ...) == self.model.get(key, ...)
        assert (key in self.table) == (key in self.model)

    @rule(key=keys, value=values)
    def setdefault(self, key: Any, value: Any) -> None:
        mine = list(value) if isinstance(value, list) else value
        assert self.table.setdefault(key, value) == self.model.setdefault(key, mine)

    @rule(key=keys)
    def pop(self, key: Any) -> None:
        self.held.pop(key, None)
        assert self.table.pop(key, ...) == self.model.pop(key, ...)

    @rule()
    def popitem(self) -> None:
        if self.model:
            key, value = self.table.popitem()
            self.held.pop(key, None)
            assert self.model.pop(key) == value
        else:
            with pytest.raises(KeyError):
                self.table.popitem()

    @rule(key=keys, number=st.integers())
    def change_in_place(self, key: Any, number: int) -> None:
        if isinstance(self.model.get(key), list):
            self.table[key].append(number)
            self.model[key].append(number)

    @rule(key=keys)
    def hold(self, key: Any) -> None:
        """What the program holds stays live, where the cache is not all too small for it."""
        if self.cache > 4096 and isinstance(self.model.get(key), list):
            self.held[key] = self.table[key]

    @rule(number=st.integers())
    def change_held(self, number: int) -> None:
        for key, value in self.held.items():
            value.append(number)
            self.model[key].append(number)

    @rule(entries=st.dictionaries(keys, values))
    def update(self, entries: Dict[Any, Any]) -> None:
        for key in entries:
            self.held.pop(key, None)
        self.table.update(entries)
        self.model.update({k: list(v) if isinstance(v, list) else v for k, v in entries.items()})

    @rule(several=st.lists(keys))
    def get_many(self, several: List[Any]) -> None:
        assert self.table.get_many(several, ...) == [self.model.get(key, ...) for key in several]

    @rule()
    def clear(self) -> None:
        self.held.clear()
        self.table.clear()
        self.model.clear()

    @rule()
    def count(self) -> None:
        assert len(self.table) == len(self.model)
        assert bool(self.table) == bool(self.model)

    @rule()
    def iterate(self) -> None:
        assert dict(self.table.items()) == self.model
        assert set(self.table) == set(self.model)
        assert len(list(self.table.values())) == len(self.model)

    @rule()
    def flush(self) -> None:
        self.table.flush()

    @rule()
    def reconnect(self) -> None:
        self.held.clear()
        self.table.detach()
        self.table = self.reopened()

    @rule()
    def restart(self) -> None:
        assert _service is not None
        self.held.clear()
        self.table.detach()
        self.leave()
        _service.stop()
        _service.start()
        self.table = self.reopened()

    @rule()
    def join(self) -> None:
        """A second client opens the table, so that nothing clean may be kept."""
        self.second = self.second or self.reopened()

    @rule()
    def leave(self) -> None:
        if self.second is not None:
            self.second.detach()
            self.second = None

    @rule(key=keys, value=values)
    def set_elsewhere(self, key: Any, value: Any) -> None:
        if self.second is not None:
            self.table.flush()
            self.held.pop(key, None)
            self.second[key] = value
            self.second.flush()
            self.model[key] = list(value) if isinstance(value, list) else value

    @rule()
    def look_elsewhere(self) -> None:
        if self.second is not None:
            self.table.flush()
            assert self.second == self.model

    @invariant()
    def a_key_that_was_never_set_is_missing(self) -> None:
        if hasattr(self, "table"):
            assert "never" not in self.table

    def teardown(self) -> None:
        if hasattr(self, "table"):
            assert dict(self.table.items()) == self.model
            self.leave()
            self.table.close()


def test_a_table_does_what_a_dict_does() -> None:
    global _service
    number = int(os.environ.get("MACHINE_SEED") or random.randrange(1 << 32))
    print(f"MACHINE_SEED={number}")
    with tempfile.TemporaryDirectory() as data:
        _service = Service(Path(data))
        try:
            run_state_machine_as_test(
                seed(number)(Machine),
                settings=settings(
                    max_examples=int(os.environ.get("MACHINE_EXAMPLES") or 60),
                    stateful_step_count=40,
                    deadline=None,
                    suppress_health_check=list(HealthCheck),
                    database=None,
                ),
            )
        finally:
            _service.kill()
            _service = None
