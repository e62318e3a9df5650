"""One server for all tests: the package's own, in a process of its own."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path
from typing import Iterator, List

import pytest
from hypothesis import HealthCheck, settings

#: Seconds that a test waits at most for what should come soon: machines can be slow, or stand still.
WAIT = 300

settings.register_profile(
    "patient", deadline=None, print_blob=True, suppress_health_check=[HealthCheck.too_slow]
)
settings.load_profile("patient")


class Service:
    """A server in a process of its own, which can be killed and started again."""

    def __init__(self, data: Path, *options: str) -> None:
        self.data = data
        self.options = options
        self.port = 0
        self.start()

    def start(self) -> None:
        command: List[str] = [sys.executable, "-m", "mivrhash.mivrhashservice", str(self.port)]
        command += ["--data", str(self.data), *(self.options or ("--mem-limit", "64M"))]
        self.process = subprocess.Popen(command, stdout=subprocess.PIPE, text=True)
        assert self.process.stdout is not None
        line = self.process.stdout.readline()
        assert line.startswith("Server listening on port "), line
        self.port = int(line.rsplit(" ", 1)[1])

    @property
    def address(self) -> str:
        return f"127.0.0.1:{self.port}"

    def stop(self) -> None:
        self.process.terminate()
        assert self.process.wait(timeout=WAIT) == 0

    def kill(self) -> None:
        self.process.kill()
        self.process.wait(timeout=WAIT)


@pytest.fixture(scope="session", autouse=True)
def service(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Service]:
    service = Service(tmp_path_factory.mktemp("data"))
    os.environ["RHASH_SERVER"] = service.address
    yield service
    service.stop()


@pytest.fixture
def own_service(tmp_path: Path) -> Iterator[Service]:
    """A server that a test may stop and start."""
    service = Service(tmp_path / "data")
    yield service
    service.kill()
