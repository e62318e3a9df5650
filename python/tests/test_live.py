"""Live values: a change in place is noticed, and the table has it."""

from __future__ import annotations

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


def test_arrays_are_live() -> None:
    np = pytest.importorskip("numpy")
    with RHash() as table:
        table["a"] = np.zeros(3)
        table["a"][1] = 5
        table.flush()
        np.testing.assert_array_equal(table["a"], [0, 5, 0])
