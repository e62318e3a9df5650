"""The server inside this process."""

from __future__ import annotations

import os
from typing import Any, List, Optional, Tuple, Union, cast

from . import _native

__all__ = ["Server", "new_token", "serve"]


class Server(_native.Server):
    """A server that runs in threads of this process, without Python; made by :func:`serve`.

    It is stopped by :meth:`stop`, or at the end of a ``with`` block: named tables are written to
    disk then. ``address`` says where it listens, ``metrics_address`` where it answers HTTP, if it
    does. ``reload`` reads its tokens and certificates again.
    """

    def __repr__(self) -> str:
        state = "" if self.is_running else ", stopped"
        return f"<{type(self).__name__} {self.address}{state}>"

    def __enter__(self) -> Server:
        return self

    def __exit__(self, *_exception: object) -> None:
        self.stop()


def serve(
    listen: str = "127.0.0.1:0",
    *,
    data: Optional[Union[str, "os.PathLike[str]"]] = None,
    mem_limit: Optional[Union[str, int]] = None,
    **options: Any,
) -> Server:
    """Starts a server inside this process, by default on a free port that only this host reaches.

    ``mem_limit`` is bytes, or text such as ``"8G"``, and by default half of this host's memory; what
    does not fit goes to the directory ``data``. Without that there is no disk: a full server refuses
    writes, and named tables end with it. All else that ``python -m mivrhash.mivrhashservice --help``
    lists is an option here, too, with ``_`` for ``-``: ``disk_limit="10G"``, ``tokens="FILE"``,
    ``tls_cert="cert.pem"``, ``insecure=True``.

    >>> from mivrhash import RHash, serve
    >>> with serve(mem_limit="64M", max_value="1M") as server:
    ...     with RHash(server.address) as h:
    ...         h[1] = 2
    ...         h[1]
    2
    """
    told: List[str] = ["--listen", listen]
    told += ["--memory-only"] if data is None else ["--data", os.fspath(data)]
    for name, value in {"mem_limit": mem_limit, **options}.items():
        option = "--" + name.replace("_", "-")
        if isinstance(value, os.PathLike):
            value = os.fspath(cast("os.PathLike[str]", value))
        if value is True:
            told.append(option)
        elif value is not None and value is not False:
            told.append(f"{option}={value}")
    return Server(told)


def new_token(
    name: str,
    *,
    tables: str = "*",
    rights: str = "read,write",
    file: Optional[Union[str, "os.PathLike[str]"]] = None,
) -> Tuple[str, str]:
    """Draws a token: gives the secret, for a client, and its line for a server's tokens file.

    The line holds a hash, so that nobody finds the secret there. With ``file`` it is added to that
    file; a server that runs takes it in on SIGHUP, or by :meth:`Server.reload`. ``tables`` are names
    with ``*`` and ``?``, ``rights`` are read, write and admin, with commas in between.

    >>> from mivrhash import new_token
    >>> secret, line = new_token("ci", tables="test-*", rights="read")
    >>> secret.startswith("rhash_"), line.startswith("ci sha256:"), line.endswith("test-* read")
    (True, True, True)
    """
    return _native.new_token(name, tables, rights, None if file is None else os.fspath(file))
