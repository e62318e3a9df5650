"""After a fork the child has connections of its own, and frees nothing that is not its own."""

from __future__ import annotations

import multiprocessing
import os
import sys
from typing import Any

import pytest
from conftest import WAIT

import mivrhash
from mivrhash import RHash, serve

pytestmark = pytest.mark.skipif(not hasattr(os, "fork"), reason="no fork here")


def in_child(work: Any) -> None:
    """Runs `work` in a child that ends without cleaning up; its failure is ours."""
    sys.stdout.flush()
    number = os.fork()
    if number == 0:
        code = 1
        try:
            work()
            code = 0
        except BaseException as error:
            print(f"in the child: {error!r}", file=sys.stderr, flush=True)
        finally:
            os._exit(code)
    _, status = os.waitpid(number, 0)
    assert os.waitstatus_to_exitcode(status) == 0


def test_a_child_reads_and_writes_a_named_table() -> None:
    with RHash(name="forked") as table:
        table["k"] = [1]
        table["k"].append(2)

        def work() -> None:
            assert table["k"] == [1, 2]
            table["child"] = os.getpid()
            table.detach()

        in_child(work)
        assert table["child"] != os.getpid()
        table.close()


def test_a_child_leaves_a_temporary_table_alone() -> None:
    table: Any = RHash()
    table["k"] = 1

    def work() -> None:
        nonlocal table
        with pytest.raises(mivrhash.TableClosedError, match="temporary"):
            table["k"]
        scan = None
        with pytest.raises(ValueError):
            scan = iter(table)
        assert scan is None
        table = None

    in_child(work)
    assert table["k"] == 1
    table.close()


def test_a_child_does_not_stop_its_parents_server() -> None:
    with serve(mem_limit="24M") as server, RHash(server.address) as table:
        table[1] = 2

        def work() -> None:
            server.stop()

        in_child(work)
        assert table[1] == 2 and server.is_running


def add_one(name: str) -> int:
    with RHash(name=name, kind="counters") as counters:
        counters.add("n")
    return os.getpid()


def test_workers_of_multiprocessing_share_a_named_table() -> None:
    context = multiprocessing.get_context("fork")
    with RHash(name="workers", kind="counters") as counters:
        counters["n"] = 0
        counters.flush()
        with context.Pool(2) as pool:
            pool.map(add_one, ["workers"] * 10)
        assert counters["n"] == 10
        counters.close()


def keep_open(name: str) -> None:
    table: RHash[str, int] = RHash(name=name)
    table["from the child"] = 1


def test_a_worker_that_ends_without_closing_loses_nothing() -> None:
    process = multiprocessing.get_context("fork").Process(target=keep_open, args=("unclosed",))
    process.start()
    process.join(WAIT)
    assert process.exitcode == 0
    with RHash(name="unclosed", mode="existing") as table:
        assert table["from the child"] == 1
        table.close()
