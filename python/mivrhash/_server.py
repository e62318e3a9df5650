"""The server inside this process."""

from __future__ import annotations

import os
from typing import List, Optional, Union

from . import _native

__all__ = ["Server", "serve"]


class Server(_native.Server):
    """A server that runs in threads of this process, without Python; made by :func:`serve`.

    It is stopped by :meth:`stop`, or at the end of a ``with`` block: named tables are written to
    disk then. ``address`` says where it listens.
    """

    def __enter__(self) -> Server:
        return self

    def __exit__(self, *_exception: object) -> None:
        self.stop()


def serve(
    listen: str = "127.0.0.1:0",
    *,
    data: Optional[Union[str, "os.PathLike[str]"]] = None,
    mem_limit: Optional[Union[str, int]] = None,
    max_value: Optional[Union[str, int]] = None,
    lease: Optional[str] = None,
) -> Server:
    """Starts a server inside this process, by default on a free port that only this host reaches.

    ``mem_limit`` is bytes, or text such as ``"8G"``, and by default half of this host's memory; what
    does not fit goes to the directory ``data``. Without that there is no disk: a full server refuses
    writes, and named tables end with it.

    >>> from mivrhash import RHash, serve
    >>> with serve(mem_limit="64M") as server:
    ...     with RHash(server.address) as h:
    ...         h[1] = 2
    ...         h[1]
    2
    """
    options: List[str] = ["--listen", listen]
    options += ["--memory-only"] if data is None else ["--data", os.fspath(data)]
    for name, value in (("mem-limit", mem_limit), ("max-value", max_value), ("lease", lease)):
        if value is not None:
            options += [f"--{name}", str(value)]
    return Server(options)
