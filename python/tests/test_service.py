"""The server in the package: as a command, and inside a process."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
import urllib.request
from pathlib import Path

import pytest
from conftest import WAIT, Service

import mivrhash
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


def run(*arguments: str) -> "subprocess.CompletedProcess[str]":
    command = [sys.executable, "-m", "mivrhash.mivrhashservice", *arguments]
    return subprocess.run(command, capture_output=True, text=True, timeout=WAIT)


def test_a_directory_is_checked_and_repaired(own_service: Service) -> None:
    with RHash(own_service.address, name="kept") as table:
        table.update((n, bytes(300)) for n in range(5000))
    own_service.stop()
    data = str(own_service.data)
    checked = run("--check", "--data", data)
    assert checked.returncode == 0 and "all is as it was written" in checked.stdout, checked
    damaged = max(Path(data, "runs").iterdir(), key=lambda path: path.stat().st_size)
    damaged.write_bytes(damaged.read_bytes()[:-1])
    checked = run("--check", "--data", data)
    assert checked.returncode == 1 and str(damaged) in checked.stdout, checked
    repaired = run("--repair", "--data", data)
    assert repaired.returncode == 1 and "damaged files are in" in repaired.stdout, repaired
    assert run("--check", "--data", data).returncode == 0
    with pytest.raises(ValueError, match="--check"):
        mivrhash.serve(data=data, check=True)
    refused = run("--check", "--data", str(Path(data, "none")))
    assert refused.returncode == 1 and "no data directory" in refused.stderr, refused


def test_bad_options_are_told_with_the_way_out() -> None:
    for arguments, text in {
        ("99999999",): "'99999999' is not a port, from 0 to 65535",
        ("tokens", "new"): "'tokens' is not a port",
        ("--mem-limit", "1M", "--memory-only"): "24 MiB",
        ("--mem-limt", "1G"): "'--mem-limit'",
        ("--log", "loud"): "warn",
    }.items():
        done = run(*arguments)
        assert done.returncode == 2 and not done.stdout, arguments
        assert text in done.stderr and "mivrhashservice --help" in done.stderr, done.stderr
        assert "rhash-server" not in done.stderr, done.stderr
    with pytest.raises(ValueError, match="24 MiB"):
        serve(mem_limit="1M")
    with pytest.raises(ValueError, match="--mem-limit"):
        serve(mem_limt="1G")
    with pytest.raises(OSError):
        serve("256.0.0.1:1")


def test_help_names_all_options_and_this_command() -> None:
    long, short = run("--help"), run("-h")
    for done in (long, short):
        assert done.returncode == 0 and not done.stderr
        assert "Usage: python -m mivrhash.mivrhashservice [PORT]" in done.stdout
        assert "token new" in done.stdout
        assert "rhash-server" not in done.stdout and "rhash token" not in done.stdout
        for option in ("--mem-limit", "--data", "--tokens", "--tls-cert", "--max-connections"):
            assert option in done.stdout, option
    assert "Tables live in memory" in long.stdout and "Tables live in" not in short.stdout
    assert run("--version").stdout == f"mivrhash {mivrhash.__version__}\n"


def test_figures_are_answered_by_http(tmp_path: Path) -> None:
    command = [sys.executable, "-m", "mivrhash.mivrhashservice", "0", "--memory-only"]
    command += ["--mem-limit", "24M", "--metrics", "127.0.0.1:0"]
    process = subprocess.Popen(command, stdout=subprocess.PIPE, text=True)
    try:
        assert process.stdout is not None
        process.stdout.readline()
        address = process.stdout.readline().removeprefix("metrics on ").strip()
        with urllib.request.urlopen(f"http://{address}/metrics", timeout=WAIT) as page:
            assert b"rhash_" in page.read()
    finally:
        process.kill()
        process.wait(timeout=WAIT)


def test_a_backup_is_a_data_directory(own_service: Service, tmp_path: Path) -> None:
    copy = tmp_path / "copy"
    with Client(own_service.address) as client:
        table = client.table("t")
        table["k"] = [1]
        table["k"].append(2)
        made = client.backup(copy)
        assert made["tables"] == 1 and made["record"] > 0
        table["k"] = "later"
        with pytest.raises(mivrhash.RHashError):
            client.backup(copy)
        with pytest.raises(mivrhash.UsageError):
            client.backup("relative")
    service = Service(copy)
    try:
        with RHash(service.address, name="t", mode="existing") as table:
            assert table["k"] == [1, 2]
    finally:
        service.kill()


def test_an_embedded_server_keeps_named_tables(tmp_path: Path) -> None:
    for turn in range(2):
        with serve(data=tmp_path, mem_limit="24M") as server:
            with RHash(server.address, name="t") as table:
                assert len(table) == turn * 10
                table.update((n, n) for n in range(10))
        assert not server.is_running
