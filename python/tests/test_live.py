"""Live values: a change in place is noticed, and the table has it."""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor
from threading import Lock
from typing import Any

import pytest

from mivrhash import RHash


def test_a_dict_of_lists_works_as_one() -> None:
    with RHash() as table:
        table["k"] = [1]
        assert table["k"] is table["k"]
        table["k"].append(2)
        assert table["k"] == [1, 2] and table.get("k") == [1, 2]
        mine = {"a": {1}}
        table["m"] = mine
        assert table["m"] is mine
        mine["a"].add(2)
        assert dict(table.items())["m"] == {"a": {1, 2}}
        table["t"] = ([],)
        table["t"][0].append("x")
        assert table.get_many(["t", "m"]) == [(["x"],), {"a": {1, 2}}]


def test_changes_reach_the_server_with_a_flush() -> None:
    with RHash(name="live") as one, RHash(name="live") as other:
        one["k"] = [1]
        one.flush()
        one["k"].append(2)
        assert other["k"] == [1]
        one.flush()
        assert other["k"] == [1, 2]
        one.close()


def test_changes_survive_eviction() -> None:
    with RHash(cache_bytes=1 << 20) as table:
        for n in range(5000):
            table[n] = [n]
        for n in range(5000):
            table[n].append("changed")
        assert all(table[n] == [n, "changed"] for n in range(5000))
        for value in table.values():
            value.append("again")
        assert all(value == [key, "changed", "again"] for key, value in table.items())


# The live objects have an eighth of the cache. A list that was larger than that was never live, and a
# change to it was lost.
@pytest.mark.parametrize("cache_bytes", [4096, 64 << 10])
def test_a_value_larger_than_the_cache_is_live_too(cache_bytes: int) -> None:
    with RHash(cache_bytes=cache_bytes) as table:
        for length in (5, 1000, 40_000):
            table["set"] = list(range(length))
            table["set"].append("set")
            assert table["set"] == [*range(length), "set"]
            table.flush()
            table["other"] = [1]  # pushes the long one out
            table["set"].append("read")
            assert dict(table.items())["set"] == [*range(length), "set", "read"]
            table.setdefault("default", list(range(length))).append("default")
            assert table.pop("default") == [*range(length), "default"]


def test_a_value_that_the_program_holds_stays_live() -> None:
    with RHash(name="held", cache_bytes=64 << 10) as one, RHash(name="held") as other:
        one["k"] = [1]
        held = one["k"]
        for n in range(2000):
            one[n] = [n]
        assert one["k"] is held
        for n in range(2000):
            assert one[n] == [n]
        held.append(2)
        one.flush()
        assert other["k"] == [1, 2]
        other.detach()
        for n in range(2000):
            one[n].append("changed")
        held.append(3)
        assert one["k"] is held and dict(one.items())["k"] == [1, 2, 3]
        one.close()


def test_held_values_are_bounded_too_and_what_goes_is_written() -> None:
    with RHash(cache_bytes=64 << 10) as table:
        held = [[n] for n in range(2000)]
        for n, value in enumerate(held):
            table[n] = value
            value.append("changed")
        live = sum(table[n] is value for n, value in enumerate(held))
        assert 20 < live < 500
        assert all(table[n] == [n, "changed"] for n in range(2000))


def test_a_read_gives_the_same_object_while_nobody_changed_it() -> None:
    with RHash(name="same") as one, RHash(name="same") as other:
        one["k"] = [1]
        one.flush()
        held = one["k"]
        assert one["k"] is held and one.get_many(["k"]) == [held]
        assert next(iter(one.values())) is held
        held.append(2)
        assert one["k"] is held
        one.flush()
        assert other["k"] == [1, 2]
        other["k"] = [5]
        other.flush()
        assert one["k"] == [5] and one["k"] is not held
        del other["k"]
        other.flush()
        assert "k" not in one and one.get("k") is None
        one.close()


# `pop` gave the object that this client had read, though it removed another value.
def test_pop_gives_what_it_removed_though_another_client_wrote_it() -> None:
    with RHash(name="popped") as one, RHash(name="popped") as other:
        one["k"] = one["l"] = [1]
        one.flush()
        assert one["k"] == one["l"] == [1]
        other.update(k=[2], l=[3])
        other.flush()
        assert one.pop("k") == [2]
        assert one.popitem() == ("l", [3])
        one.close()


def test_threads_change_the_same_values() -> None:
    """Each thread appends to lists that the others push out of a cache which is too small for them."""
    with RHash(cache_bytes=32 << 10) as table:
        table.update({n: [] for n in range(64)})
        locks = [Lock() for _ in range(64)]

        def work(number: int) -> None:
            for turn in range(200):
                key = (number * 31 + turn * 7) % 64
                with locks[key]:
                    table[key].append((number, turn))

        with ThreadPoolExecutor(4) as pool:
            list(pool.map(work, range(4)))
        assert sum(map(len, table.values())) == 4 * 200


def test_what_replaces_a_live_value_wins() -> None:
    with RHash() as table:
        table["k"] = [1]
        old = table["k"]
        table["k"] = "plain"
        old.append(2)
        assert table["k"] == "plain"
        table["k"] = [1]
        old = table["k"]
        del table["k"]
        old.append(2)
        assert "k" not in table and len(table) == 0
        table["k"] = [1]
        old = table["k"]
        table["k"].append(2)
        assert table.pop("k") is old and old == [1, 2]
        table["k"] = [1]
        table["k"].append(2)
        table.clear()
        assert len(table) == 0


def test_others_writes_replace_live_values_that_were_not_changed_here() -> None:
    with RHash(name="live2") as one, RHash(name="live2") as other:
        one["k"] = [1]
        one.flush()
        assert one["k"] == [1]
        other["k"] = [2]
        other.flush()
        assert one["k"] == [2]
        one["k"].append(3)
        assert one["k"] == [2, 3]
        one.flush()
        assert other["k"] == [2, 3]
        one.close()


def test_a_live_value_outdated_while_another_client_came_and_went_is_read_again() -> None:
    with RHash(name="live3") as one:
        one["k"] = [1]
        one.flush()
        assert one["k"] == [1]
        with RHash(name="live3") as other:
            other["k"] = [2]
        assert one["k"] == [2]
        one.close()


def test_two_handles_of_one_client_share_live_values() -> None:
    with RHash(name="live4") as one:
        with one.client.table("live4") as other:
            one["k"] = [1]
            other["k"].append(2)
            assert one["k"] == [1, 2]
        assert one["k"] == [1, 2]
        one.close()


def test_live_values_can_be_switched_off() -> None:
    with RHash(live=False) as table:
        table["k"] = [1]
        assert table["k"] is not table["k"]
        table["k"].append(2)
        assert table["k"] == [1]


def test_what_becomes_unstorable_says_so_at_the_flush() -> None:
    table: RHash[str, Any] = RHash()
    table["k"] = [1]
    table["k"].append(object())
    with pytest.raises(TypeError, match="pickle=True"):
        table.flush()
    table["k"].pop()
    table.flush()
    table.close()


def test_what_cannot_be_stored_is_told_and_stays_until_it_can() -> None:
    with RHash[Any, Any](cache_bytes=64 << 10) as table:
        table["bad"] = [1]
        table["bad"].append(object())
        told = 0
        for n in range(500):
            try:
                table[n] = [n]
            except TypeError:
                told += 1
        assert 0 < told < 100
        table["bad"][1] = 2
        assert table["bad"] == [1, 2]
        assert len(table) == 501 and all(table[n] == [n] for n in range(500))


def test_arrays_are_live() -> None:
    np = pytest.importorskip("numpy")
    with RHash() as table:
        table["a"] = np.zeros(3)
        table["a"][1] = 5
        table.flush()
        np.testing.assert_array_equal(table["a"], [0, 5, 0])
