"""What `RHash` does beyond a dict, and where it is told to do something else."""

from __future__ import annotations

import copy
import gc
import pickle
import random
import socket
import subprocess
import sys
import threading
import time
import weakref
from collections.abc import MutableMapping
from typing import Any, Callable, Optional

import pytest
from conftest import WAIT, Service

import mivrhash
from mivrhash import Client, RHash


def eventually(what: Callable[[], bool], seconds: float = WAIT) -> None:
    deadline = time.monotonic() + seconds
    while not what():
        assert time.monotonic() < deadline, "not in time"
        time.sleep(0.01)


def table_names() -> "set[str | None]":
    with Client() as client:
        return {table["name"] for table in client.stats()["tables"]}


def test_it_is_a_mutable_mapping_and_generic() -> None:
    assert issubclass(RHash, MutableMapping)
    assert RHash[str, "list[int]"] is RHash

    class Ages(RHash[str, int]):
        def __missing__(self, key: str) -> int:
            return -1

    with Ages() as ages:
        assert isinstance(ages, MutableMapping)
        assert ages["nobody"] == -1
        assert ages.get("nobody") is None
        assert "nobody" not in ages


def test_a_table_keeps_its_durability() -> None:
    with RHash(name="safe", durability="always") as safe:
        assert safe.stats()["durability"] == "always" and safe.stats()["own_durability"]
        safe[1] = [2]
        with RHash(name="safe", client=safe.client) as again:
            assert again[1] == [2]
        with RHash(name="safe", client=safe.client, durability="always") as again:
            assert again[1] is safe[1], "they share live values"
        with pytest.raises(mivrhash.WrongDurabilityError, match="always, not none"):
            RHash(name="safe", client=safe.client, durability="none")
        safe[3] = 4
        safe.sync()
        assert safe[1] == [2]
        safe.close()
    with RHash(name="plain") as plain:
        assert plain.stats()["durability"] == "everysec" and not plain.stats()["own_durability"]
        plain.close()
    with pytest.raises(ValueError, match="'none', 'everysec' or 'always'"):
        RHash(name="safe", durability="sometimes")
    with pytest.raises(mivrhash.UsageError, match="temporary"):
        RHash(durability="none")


def test_named_tables_stay_and_temporary_ones_go() -> None:
    with RHash(name="stays") as named:
        named[1] = "x"
    with RHash(name="stays", mode="existing") as named:
        assert named[1] == "x"
        with pytest.raises(mivrhash.TableExistsError):
            RHash(name="stays", mode="create")
        named.close()
    assert "stays" not in table_names()
    with pytest.raises(mivrhash.NoSuchTableError):
        RHash(name="stays", mode="existing")
    before = len(Client().stats()["tables"])
    table: Any = RHash()
    table[1] = 1
    table.flush()
    assert len(Client().stats()["tables"]) == before + 1
    table = None
    eventually(lambda: len(Client().stats()["tables"]) <= before)


def test_a_closed_table_raises_value_errors() -> None:
    table: RHash[int, int] = RHash()
    table[1] = 1
    table.close()
    table.close()
    assert table.closed and repr(table) == "<RHash, closed>"
    for call in (len, list, lambda t: t[1], lambda t: t.get(1), lambda t: t.flush(), bool):
        with pytest.raises(ValueError):
            call(table)  # type: ignore[operator]
    with RHash(name="both") as one, RHash(name="both") as other:
        one.close()
        with pytest.raises(mivrhash.TableClosedError):
            other[1]


def test_many_entries_move_at_once() -> None:
    with RHash() as table:
        table.set_many((n, str(n)) for n in range(5000))
        table.set_many({"a": 1})
        table.update([("b", 2)], c=3)
        table.flush()
        assert table.get_many([7, "a", "none", "c"], 0) == ["7", 1, 0, 3]
        assert len(table) == 5003
        assert sorted(table.get_many(range(5000))) == sorted(map(str, range(5000)))
        with pytest.raises(ValueError, match="length 3"):
            table.set_many([(1, 2, 3)])  # type: ignore[list-item]


def test_many_keys_are_read_in_pieces_that_keep_their_order() -> None:
    # So small a cache that the server is asked, too.
    with RHash[int, "list[int]"](cache_bytes=64 << 10) as table:
        table.set_many((n, [n]) for n in range(12_000))
        draw = random.Random(5)
        for count in (0, 1, 47, 48, 49, 95, 96, 97, 100, 143, 145, 1000, 30_000):
            keys = [draw.randrange(-500, 12_500) for _ in range(count)]
            expected = [[key] if 0 <= key < 12_000 else None for key in keys]
            assert table.get_many(keys) == expected
            assert table.get_many(iter(keys)) == expected
        # Live values are the objects that the program has, and say what it made of them.
        held = table[7]
        held.append(8)
        assert table.get_many(range(200))[7] is held
        # Keys that come from the table itself, and an error in the middle.
        assert sum(value[0] for value in table.get_many(iter(table))) == sum(range(12_000))
        with pytest.raises(TypeError):
            table.get_many([*range(90), [], *range(90)])
        assert table.get_many(range(40))[39] == [39]
    with RHash(kind="lists", cache_bytes=64 << 10) as lists:
        for turn in range(3):
            for n in range(300):
                lists.append(n, turn)
            assert lists.get_many(range(301), []) == [list(range(turn + 1))] * 300 + [[]]
    with pytest.raises(ValueError):
        lists.get_many(range(100))


def test_iteration_gives_each_entry_once_and_gets_follow_in_batches() -> None:
    with RHash(cache_bytes=64 << 10, live=False) as table:
        table.set_many((n, n * n) for n in range(20_000))
        table.flush()
        before = table.client.stats()["operations"]
        assert {key: table[key] for key in table} == {n: n * n for n in range(20_000)}
        assert sorted(table.items()) == [(n, n * n) for n in range(20_000)]
        assert sorted(table.values()) == [n * n for n in range(20_000)]
        keys = list(table)
        assert len(keys) == len(set(keys)) == 20_000
        assert before > 0


def test_pop_popitem_and_setdefault() -> None:
    with RHash() as table:
        table.update({n: [n] for n in range(100)})
        assert table.pop(5) == [5]
        assert table.pop(5, "gone") == "gone"
        with pytest.raises(KeyError):
            table.pop(5)
        with pytest.raises(KeyError):
            del table[5]
        seen = dict(table.popitem() for _ in range(99))
        assert seen == {n: [n] for n in range(100) if n != 5}
        with pytest.raises(KeyError):
            table.popitem()
        assert not table
        table.setdefault("k", []).append(1)
        table.setdefault("k", []).append(2)
        assert table["k"] == [1, 2]
        try:
            table[("a", "tuple")]
        except KeyError as error:
            assert error.args == (("a", "tuple"),)


def test_lists_and_counters_grow_without_being_read() -> None:
    with RHash(kind="lists") as lists:
        lists.append("a", 1)
        lists.append_many("a", [2, "three"])
        assert lists["a"] == [1, 2, "three"]
        lists["b"] = (1, 2)
        lists["b"].append(3)
        lists.append("b", 4)
        assert lists["b"] == [1, 2, 3, 4]
        with pytest.raises(TypeError):
            lists["c"] = 5
        with pytest.raises(TypeError):
            lists.append_many("c", "text")
        with pytest.raises(mivrhash.WrongKindError):
            lists.add("c")
        assert dict(lists.items()) == {"a": [1, 2, "three"], "b": [1, 2, 3, 4]}
    with RHash(kind="counters") as counters:
        counters.add("a")
        counters.add("a", 41)
        assert counters["a"] == 42
        assert counters.add_and_get("a", -2) == 40
        counters["b"] = 7
        assert counters.pop("b") == 7
        with pytest.raises(TypeError):
            counters["c"] = "x"
        with pytest.raises(OverflowError):
            counters["c"] = 1 << 63
        with pytest.raises(mivrhash.WrongKindError):
            counters.append("a", 1)


def test_compare_and_swap_is_decided_on_the_server() -> None:
    with RHash(name="cas") as one, RHash(name="cas") as other:
        assert one.compare_and_swap("k", new=1)
        assert not other.compare_and_swap("k", new=2)
        assert other.compare_and_swap("k", 1, 2)
        assert one["k"] == 2
        assert one.compare_and_swap("k", expected=2)
        assert "k" not in other
        one.close()


def test_another_client_sees_writes_after_a_flush() -> None:
    with RHash(name="shared") as one, RHash(name="shared") as other:
        one["k"] = 1
        one.flush()
        assert other["k"] == 1
        other["k"] = 2
        other.flush()
        assert one["k"] == 2
        one.close()


def test_equality_copy_and_union() -> None:
    with RHash() as table:
        table.update(a=1, b=[2])
        assert table == {"a": 1, "b": [2]}
        assert {"a": 1, "b": [2]} == table
        assert table != {"a": 1} and table != {"a": 1, "c": [2]} and table != 5
        twin = table.copy()
        assert type(twin) is RHash and twin == table and twin.name is None
        twin["b"].append(3)
        assert twin["b"] == [2, 3] and table["b"] == [2]
        assert copy.copy(table) == table and copy.deepcopy(table) == table
        assert (table | {"c": 3}) == {"a": 1, "b": [2], "c": 3}
        assert ({"c": 3, "a": 0} | table) == {"a": 1, "b": [2], "c": 3}
        table |= {"d": 4}
        assert table == {"a": 1, "b": [2], "d": 4}
        assert table.keys() & {"a", "z"} == {"a"}
        assert ("a", 1) in table.items() and ("a", 2) not in table.items()
        with pytest.raises(TypeError):
            table | [1]  # type: ignore[operator]
        with pytest.raises(TypeError):
            hash(table)


def test_repr_is_bounded() -> None:
    with RHash() as table:
        assert repr(table) == "<RHash: {}>"
        table[1] = "x"
        assert repr(table) == "<RHash: {1: 'x'}>"
        table.update((n, "x") for n in range(1000))
        assert len(repr(table)) < 200 and repr(table).endswith(", ...}>")


def test_methods_that_move_a_whole_table_warn(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("mivrhash._hash.WARN_ENTRIES", 2)
    with RHash() as table:
        table.update({1: 1, 2: 2, 3: 3})
        with pytest.warns(mivrhash.WholeTableWarning, match="copying moves all 3 entries"):
            table.copy().close()
        with pytest.warns(mivrhash.WholeTableWarning):
            assert table == {1: 1, 2: 2, 3: 3}
        with pytest.warns(mivrhash.WholeTableWarning):
            assert 4 not in table.values()


def test_named_tables_are_pickled_by_name() -> None:
    with RHash(name="pickled", kind="lists", cache_bytes=1 << 20) as table:
        table.append("k", 1)
        table.flush()
        with pickle.loads(pickle.dumps(table)) as again:
            assert again.name == "pickled" and again.kind == "lists"
            assert again["k"] == [1]
        table.close()
    with RHash() as temporary, pytest.raises(TypeError, match="temporary"):
        pickle.dumps(temporary)


def test_what_is_pickled_was_flushed() -> None:
    with RHash(name="passed on", flush_interval=WAIT) as table:
        table["k"] = [1]
        table["k"].append(2)
        with pickle.loads(pickle.dumps(table)) as again:
            assert again["k"] == [1, 2]
    table = RHash(name="passed on", mode="existing")
    table.close()


def test_a_client_that_closes_writes_what_changed_and_its_tables_end_quietly() -> None:
    with Client(flush_interval=WAIT) as client:
        named, temporary = client.table("left open"), client.temporary()
        named["k"], temporary["k"] = [1], [1]
        named["k"].append(2)
    assert client.closed
    with pytest.raises(ValueError):
        named["k"] = 1
    temporary.detach()
    del named
    gc.collect()
    with RHash(name="left open", mode="existing") as again:
        assert again["k"] == [1, 2]
        again.close()


def test_threads_share_a_table() -> None:
    with RHash(cache_bytes=256 << 10) as table:

        def work(own: int) -> None:
            for n in range(2000):
                table[own, n] = [n]
            for n in range(0, 2000, 7):
                assert table[own, n] == [n]

        threads = [threading.Thread(target=work, args=(own,)) for own in range(4)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join(WAIT)
        assert len(table) == 8000


def test_others_run_python_while_a_call_waits() -> None:
    """The interpreter is let go of while a call waits for a server that does not answer."""
    with socket.socket() as silent:
        silent.bind(("127.0.0.1", 0))
        silent.listen()
        address = "127.0.0.1:%d" % silent.getsockname()[1]
        ended = threading.Event()

        def connect() -> None:
            with pytest.raises(ConnectionError):
                RHash(address, connect_timeout=WAIT)
            ended.set()

        thread = threading.Thread(target=connect)
        thread.start()
        # Only when this thread goes on is the other told that there is no server.
        connection, _ = silent.accept()
        assert not ended.is_set()
        connection.close()
        assert ended.wait(WAIT)
        thread.join()


def test_errors_are_a_tree_that_fits_built_in_classes() -> None:
    with pytest.raises(ConnectionError) as connection:
        RHash("127.0.0.1:1", connect_timeout=1, retry_deadline=0.2)
    assert isinstance(connection.value, mivrhash.RHashError)
    with pytest.raises(ValueError):
        RHash("no address at all")
    with pytest.raises(ValueError):
        RHash(kind="heaps")
    with RHash() as table:
        with pytest.raises(mivrhash.KeyTooLargeError):
            table["k" * 70_000] = 1
        with pytest.raises(ValueError):
            table["k"] = b"v" * (60 << 20)
        with pytest.raises(TypeError):
            table[[]] = 1  # type: ignore[index]
    with RHash(name="kinds") as table:
        with pytest.raises(TypeError):
            RHash(name="kinds", kind="lists")
        table.close()
    for name in mivrhash.__all__:
        if name.endswith("Error"):
            assert issubclass(getattr(mivrhash, name), mivrhash.RHashError)


def test_options_that_make_no_sense_are_value_errors() -> None:
    for options, text in (
        ({"name": ""}, "empty"),
        ({"cache_bytes": -1}, "cache_bytes is -1"),
        ({"cache_bytes": 1}, "cache_bytes is 1, below the least"),
        ({"cache_items": -5}, "cache_items is -5"),
        ({"flush_interval": -1}, "flush_interval is -1"),
        ({"kind": "trees"}, "'lists'"),
        ({"address": "not an address"}, "HOST:PORT"),
    ):
        with pytest.raises(ValueError, match=text):
            RHash(**options)  # type: ignore[arg-type]
    with Client() as client:
        assert repr(client) == f"<Client {client.address}>"
    assert repr(client).endswith(", closed>")


def test_memory_errors_are_memory_errors() -> None:
    with mivrhash.serve(mem_limit="24M", max_value="1M") as server:
        table: RHash[int, bytes] = RHash(server.address, retry_deadline=1)
        with pytest.raises(MemoryError) as full:
            for n in range(100):
                table[n] = b"x" * (1 << 19)
                table.flush()
        assert isinstance(full.value, mivrhash.RHashError)
        assert full.value.key_count >= 1 and full.value.keys[0] in range(100)
        table.close()


def test_a_cycle_through_a_handle_is_no_leak() -> None:
    table = RHash[Any, Any]()
    gone = weakref.ref(table)
    table.itself = table  # type: ignore[attr-defined]
    del table
    gc.collect()
    assert gone() is None


def test_a_script_that_ends_without_closing_loses_nothing() -> None:
    script = (
        "import mivrhash\n"
        "h = mivrhash.RHash(name='ended')\n"
        "h['k'] = [1]\n"
        "h['k'].append(2)\n"
    )
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, timeout=WAIT)
    assert (done.returncode, done.stderr) == (0, "")
    with RHash(name="ended", mode="existing") as table:
        assert table["k"] == [1, 2]
        table.close()


@pytest.mark.parametrize("name", [None, "left behind"])
def test_a_script_whose_server_is_gone_ends_at_once_if_nothing_waits(
    own_service: Service, name: Optional[str]
) -> None:
    script = (
        "import sys, mivrhash\n"
        f"h = mivrhash.RHash(sys.argv[1], name={name!r}, retry_deadline=1e6, request_timeout=1)\n"
        "h['k'] = [1]\n"
        "h.flush()\n"
        "print('ready', flush=True)\n"
        "sys.stdin.read()\n"
        "try:\n"
        "    h.client.ping()\n"
        "except ConnectionError:\n"
        "    pass\n"
    )
    command = [sys.executable, "-c", script, own_service.address]
    with subprocess.Popen(
        command,
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
    ) as process:
        assert process.stdout is not None
        assert process.stdout.readline() == "ready\n"
        own_service.kill()
        said, _ = process.communicate(timeout=WAIT)
        assert (process.returncode, said) == (0, "")
