"""The server in the package: as a command, and inside a process."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
from conftest import WAIT, Service

from mivrhash import Client, RHash, SessionExpiredError, serve


def test_named_tables_survive_a_stop(own_service: Service) -> None:
    with RHash(own_service.address, name="kept") as table:
        table.update((n, n) for n in range(1000))
    own_service.stop()
    own_service.start()
    with RHash(own_service.address, name="kept", mode="existing") as table:
        assert len(table) == 1000 and table[7] == 7


def test_a_temporary_table_is_an_error_after_a_restart_and_never_empty(
    own_service: Service,
) -> None:
    with Client(own_service.address, retry_deadline=WAIT) as client:
        table = client.temporary()
        table[1] = 1
        table.flush()
        own_service.kill()
        own_service.start()
        began = time.monotonic()
        with pytest.raises(SessionExpiredError):
            len(table)
        with pytest.raises(SessionExpiredError):
            table[2]
        # The session is over, the client is not.
        with client.temporary() as again:
            assert len(again) == 0
        assert time.monotonic() - began < WAIT


def test_ctrl_c_stops_it_cleanly(own_service: Service) -> None:
    own_service.process.send_signal(signal.SIGINT)
    assert own_service.process.wait(timeout=WAIT) == 0


def test_its_memory_limit_covers_python(tmp_path: Path) -> None:
    service = Service(tmp_path / "small", "--mem-limit", "32M")
    try:
        with RHash(service.address) as table:
            table.set_many((n, os.urandom(100)) for n in range(400_000))
            table.flush()
            status = Path(f"/proc/{service.process.pid}/status").read_text()
            kib = sum(
                int(line.split()[1])
                for line in status.splitlines()
                if line.startswith(("RssAnon", "RssShmem"))
            )
            assert kib < 32 << 10
    finally:
        service.kill()


def test_bad_options_are_told() -> None:
    def run(*arguments: str) -> "subprocess.CompletedProcess[str]":
        command = [sys.executable, "-m", "mivrhash.mivrhashservice", *arguments]
        return subprocess.run(command, capture_output=True, text=True, timeout=WAIT)

    assert run("99999999").returncode != 0
    done = run("--mem-limit", "1M", "--memory-only")
    assert done.returncode == 2 and "24" in done.stderr
    assert "--mem-limit" in run("--help").stdout
    with pytest.raises(ValueError):
        serve(mem_limit="1M")
    with pytest.raises(OSError):
        serve("256.0.0.1:1")


def test_an_embedded_server_keeps_named_tables(tmp_path: Path) -> None:
    for turn in range(2):
        with serve(data=tmp_path, mem_limit="24M") as server:
            with RHash(server.address, name="t") as table:
                assert len(table) == turn * 10
                table.update((n, n) for n in range(10))
        assert not server.is_running
