"""Tokens and TLS: who is let in, and what nobody is told who need not know."""

from __future__ import annotations

import pickle
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Dict, Iterator, List

import pytest
from conftest import WAIT, Service

from mivrhash import Client, DeniedError, RHash, UntrustedError, UsageError, new_token, serve
from mivrhash.mivrhashclient import MivRHash

SERVICE = [sys.executable, "-m", "mivrhash.mivrhashservice"]


def run(*arguments: str) -> "subprocess.CompletedProcess[str]":
    return subprocess.run([*SERVICE, *arguments], capture_output=True, text=True, timeout=WAIT)


def secret_file(path: Path, secret: str, mode: int = 0o600) -> Path:
    path.write_text(secret + "\n")
    path.chmod(mode)
    return path


@pytest.fixture(autouse=True)
def no_token_of_the_environment(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("RHASH_TOKEN", "RHASH_TOKEN_FILE", "RHASH_CA"):
        monkeypatch.delenv(name, raising=False)


@pytest.fixture
def guarded(tmp_path: Path) -> Iterator[Service]:
    """A server that asks for tokens; that of `writer` is in the file `token`."""
    secret, _ = new_token("writer", tables="t*", file=tmp_path / "tokens")
    secret_file(tmp_path / "token", secret)
    options = ("--tokens", str(tmp_path / "tokens"), "--mem-limit", "24M")
    service = Service(tmp_path / "data", *options)
    yield service
    service.kill()


def test_a_token_is_found_in_each_place(
    guarded: Service, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    file = tmp_path / "token"
    token = file.read_text().strip()
    address = guarded.address
    with pytest.raises(DeniedError) as denied:
        Client(address)
    assert isinstance(denied.value, PermissionError) and "RHASH_TOKEN" in str(denied.value)
    with pytest.raises(DeniedError):
        Client(address, token=token[:-1] + ("0" if token[-1] != "0" else "1"))
    ways: List[Dict[str, object]] = [
        {"address": address, "token": token},
        {"address": address, "token_file": file},
        {"address": address, "token_file": str(file)},
        {"address": f"rhash://{token}@{address}"},
    ]
    for turn, way in enumerate(ways):
        with RHash(name="t", **way) as table:  # type: ignore[arg-type]
            table[turn] = turn
    monkeypatch.setenv("RHASH_TOKEN_FILE", str(file))
    with RHash(address, name="t") as table:
        assert len(table) == len(ways)
    monkeypatch.setenv("RHASH_TOKEN", "rhash_wrong")
    with pytest.raises(DeniedError):
        Client(address)
    # What a program says itself goes before its environment.
    with Client(address, token_file=file) as client, client.table("t") as table:
        assert len(table) == len(ways)
        with pytest.raises(DeniedError):
            client.table("other")
    monkeypatch.setenv("RHASH_TOKEN", token)
    MivRHash("127.0.0.1", guarded.port).close()


def test_a_token_file_that_others_can_read_is_refused(guarded: Service, tmp_path: Path) -> None:
    file = secret_file(tmp_path / "open", (tmp_path / "token").read_text().strip(), 0o644)
    with pytest.raises(UsageError, match="chmod 600"):
        Client(guarded.address, token_file=file)
    with pytest.raises(UsageError, match="missing.*No such file"):
        Client(guarded.address, token_file=tmp_path / "missing")


def test_no_token_is_shown_or_pickled(
    guarded: Service, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    token = (tmp_path / "token").read_text().strip()
    monkeypatch.setenv("RHASH_TOKEN", token)
    monkeypatch.setenv("RHASH_SERVER", f"rhash://{token}@{guarded.address}")
    for options in (
        {"address": f"rhash://{token}@{guarded.address}"},
        {"address": guarded.address, "token": token},
        {"client": Client()},
        {},
    ):
        with RHash(name="t", **options) as table:  # type: ignore[arg-type]
            table["k"] = 1
            pickled = pickle.dumps(table)
            shown = f"{table!r} {table.client.address} {table.client!r}"
            assert token.encode() not in pickled and token not in shown
            assert table.client.address.endswith(guarded.address)
            again = pickle.loads(pickled)
            assert again["k"] == 1
            again.detach()


def test_a_token_that_is_revoked_ends_on_sighup(guarded: Service, tmp_path: Path) -> None:
    with Client(guarded.address, token_file=tmp_path / "token") as client:
        table = client.table("t")
        table[1] = 1
        table.flush()
        secret, line = new_token("other")
        (tmp_path / "tokens").write_text(line + "\n")
        guarded.process.send_signal(signal.SIGHUP)
        deadline = time.monotonic() + WAIT
        with pytest.raises(DeniedError):
            while time.monotonic() < deadline:
                len(table)
    with RHash(guarded.address, name="t", token=secret) as table:
        assert table[1] == 1
    # A file that makes no sense changes nothing.
    (tmp_path / "tokens").write_text("nonsense\n")
    guarded.process.send_signal(signal.SIGHUP)
    with RHash(guarded.address, name="t", token=secret) as table:
        assert table[1] == 1
    guarded.stop()


def test_an_embedded_server_reads_its_tokens_again(tmp_path: Path) -> None:
    tokens = tmp_path / "tokens"
    first, _ = new_token("first", file=tokens)
    with serve(mem_limit="24M", tokens=tokens) as server:
        Client(server.address, token=first).close()
        second, _ = new_token("second", file=tokens)
        with pytest.raises(DeniedError):
            Client(server.address, token=second)
        server.reload()
        Client(server.address, token=second).close()
        tokens.write_text("nonsense\n")
        with pytest.raises(OSError, match="line 1"):
            server.reload()
        Client(server.address, token=second).close()
    with pytest.raises(UsageError):
        server.reload()


def test_tokens_are_made_by_the_command_line(tmp_path: Path) -> None:
    tokens = tmp_path / "tokens"
    made = run("token", "new", "ci", "--tables", "t*", "--rights", "read", "--file", str(tokens))
    assert made.returncode == 0 and made.stdout.startswith("rhash_")
    assert tokens.stat().st_mode & 0o777 == 0o600
    assert made.stdout.strip() not in tokens.read_text()
    twice = run("token", "new", "ci", "--file", str(tokens))
    assert twice.returncode == 2 and "taken" in twice.stderr and not twice.stdout
    alone = run("token", "new", "ci")
    assert alone.stdout.startswith("rhash_") and "ci sha256:" in alone.stderr
    with pytest.raises(ValueError, match="rights"):
        new_token("ci", rights="all")
    with pytest.raises(OSError, match="cannot write"):
        new_token("ci", file=tmp_path / "missing" / "tokens")


def test_nobody_listens_beyond_this_host_without_tokens() -> None:
    refused = run("--listen", "0.0.0.0:0", "--memory-only", "--mem-limit", "24M")
    assert refused.returncode == 2
    assert "--insecure" in refused.stderr and "mivrhashservice token new" in refused.stderr
    with pytest.raises(ValueError, match="--tokens"):
        serve("0.0.0.0:0", mem_limit="24M")
    with serve("0.0.0.0:0", mem_limit="24M", insecure=True) as server:
        with RHash(server.address.replace("0.0.0.0", "127.0.0.1")) as table:
            table[1] = 1


class Authority:
    """An authority, with certificates for this host that it signed."""

    def __init__(self, directory: Path) -> None:
        self.directory = directory
        self.openssl("req -x509 -newkey rsa:2048 -nodes -days 9 -subj /CN=authority"
                     " -keyout ca-key.pem -out ca.pem")  # fmt: skip
        self.ca = directory / "ca.pem"

    def openssl(self, command: str) -> None:
        done = subprocess.run(
            ["openssl", *command.split()], cwd=self.directory, capture_output=True, text=True
        )
        assert done.returncode == 0, done.stderr

    def sign(self, name: str) -> "tuple[Path, Path]":
        names = "subjectAltName=DNS:localhost,IP:127.0.0.1\nbasicConstraints=CA:FALSE\n"
        (self.directory / "names").write_text(names)
        self.openssl(f"req -newkey rsa:2048 -nodes -subj /CN={name}"
                     f" -keyout {name}-key.pem -out {name}.csr")  # fmt: skip
        self.openssl(f"x509 -req -in {name}.csr -CA ca.pem -CAkey ca-key.pem -CAcreateserial"
                     f" -days 9 -extfile names -out {name}.pem")  # fmt: skip
        (self.directory / f"{name}-key.pem").chmod(0o600)
        return self.directory / f"{name}.pem", self.directory / f"{name}-key.pem"


@pytest.mark.skipif(shutil.which("openssl") is None, reason="there is no openssl to sign with")
def test_tls_is_for_those_who_trust_and_are_trusted(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    authority = Authority(tmp_path)
    cert, key = authority.sign("server")
    identity = authority.sign("client")
    with serve(mem_limit="24M", tls_cert=cert, tls_key=key) as server:
        address = f"rhash+tls://{server.address}"
        with RHash(address, tls_ca=authority.ca) as table:
            table["k"] = "v"
            assert table["k"] == "v" and len(table) == 1
        with pytest.raises(UntrustedError) as untrusted:
            Client(address)
        assert isinstance(untrusted.value, ConnectionError)
        monkeypatch.setenv("RHASH_CA", str(authority.ca))
        Client(address).close()
        MivRHash("rhash+tls://localhost", int(server.address.rpartition(":")[2])).close()
        with pytest.raises(ConnectionError):
            Client(server.address, connect_timeout=WAIT)
    with serve(mem_limit="24M", tls_cert=cert, tls_key=key, tls_client_ca=authority.ca) as server:
        address = f"rhash+tls://{server.address}"
        with pytest.raises(UntrustedError):
            Client(address)
        with pytest.raises(UsageError, match="missing"):
            Client(address, tls_identity=(tmp_path / "missing", identity[1]))
        with RHash(address, tls_identity=identity, name="t") as table:
            table[1] = 1
            again = pickle.loads(pickle.dumps(table))
            assert again[1] == 1
            again.close()
