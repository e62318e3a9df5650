"""The hash of 2010, on a client and a server of today.

>>> from mivrhash.mivrhashclient import MivRHash
>>> h1 = MivRHash(host, port)
>>> h1["aHash"] = {1: 2, 3: 4}
>>> h2 = h1["aHash"]
>>> h2[1] = 5
>>> print(h1["aHash"])
{1: 2, 3: 4}
>>> h1["aHash"] = h2
>>> print(h1["aHash"])
{1: 5, 3: 4}
>>> h1.close()
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any, Tuple

from . import _native

__all__ = ["MivRHash"]


class MivRHash(_native.Table[Any, Any]):
    """A temporary hash on a server: freed by ``close``, or when the object dies.

    ``h[k]`` gives a copy: a change to a value needs its assignment. ``del`` of a missing key is silent.
    At most ``nCacheSize`` entries are cached. Objects that are not of Python's own types are stored
    only with ``pickle=True``: then what comes back is unpickled. The server never unpickles.

    A token, where the server asks for one, comes from the environment: ``RHASH_TOKEN``, or a file that
    ``RHASH_TOKEN_FILE`` names. For TLS, the host is ``"rhash+tls://HOST"``.
    """

    def __init__(
        self,
        strHost: str,  # noqa: N803
        nPort: int = 10080,  # noqa: N803
        nCacheSize: int = 1000,  # noqa: N803
        *,
        pickle: bool = False,
    ) -> None:
        scheme, begins, name = strHost.rpartition("://")
        # The colons of an IPv6 address are not that of a port.
        host = f"[{name}]" if ":" in name and not name.startswith("[") else name
        host = scheme + begins + host
        self._client = _native.Client(f"{host}:{nPort}", cache_items=nCacheSize, live=False)
        self._open(self._client, None, "values", "open", None, pickle, False)

    def __delitem__(self, key: Any) -> None:
        self.discard(key)

    def has_key(self, theKey: Any) -> bool:  # noqa: N803
        """Whether the key is there."""
        return theKey in self

    def iterkeys(self) -> Iterator[Any]:
        """Goes through the keys, page by page."""
        return iter(self)

    def itervalues(self) -> Iterator[Any]:
        """Goes through the values, page by page."""
        return self._scan_values()

    def iteritems(self) -> Iterator[Tuple[Any, Any]]:
        """Goes through the entries, page by page."""
        return self._scan_items()

    def close(self) -> None:
        """Frees the memory on the remote host and closes the connection."""
        try:
            self._close()
        finally:
            self._client.close()
