"""``Client`` and ``RHash``: a connection, and a dict that lives on a server."""

from __future__ import annotations

import atexit
import json
import os
import sys
import warnings
import weakref
from collections.abc import Iterable, Iterator, Mapping, MutableMapping
from itertools import islice
from types import TracebackType
from typing import Any, Dict, List, Optional, Tuple, Type, TypeVar, Union, cast, overload

from . import _native
from ._errors import TableClosedError, UsageError, WholeTableWarning
from ._views import RHashItems, RHashKeys, RHashValues

K = TypeVar("K")
V = TypeVar("V")
S = TypeVar("S", bound="RHash[Any, Any]")

__all__ = ["Client", "RHash", "DEFAULT_ADDRESS"]

#: Where a server is looked for if neither the caller nor ``RHASH_SERVER`` says so.
DEFAULT_ADDRESS = "127.0.0.1:10080"

#: From so many entries on, methods that move a whole table warn.
WARN_ENTRIES = 100_000

#: Entries that ``repr`` shows at most.
REPR_ENTRIES = 8

#: Keys that a comparison asks the other side for at once.
COMPARE_BATCH = 512


def _resolved(address: Optional[str]) -> str:
    return address or os.environ.get("RHASH_SERVER") or DEFAULT_ADDRESS


class Client(_native.Client):
    """A connection to a server, with one cache for all tables that are opened through it.

    A table makes a client of its own unless it is given one, so this is needed only for many
    tables. The address is ``HOST:PORT``, ``rhash://TOKEN@HOST:PORT`` or, by TLS,
    ``rhash+tls://HOST:PORT``, by default what ``RHASH_SERVER`` says or this host.

    Where the server asks for a token, it comes from ``token``, from the file ``token_file`` (which
    nobody but its owner can read), from the address, or from the environment: ``RHASH_TOKEN`` or, for
    a file, ``RHASH_TOKEN_FILE``. By TLS, the authorities in the file ``tls_ca`` are trusted, or in the
    one that ``RHASH_CA`` names, or else the system's; ``tls_identity`` is a pair of files, the client's
    certificate and its key, for servers that ask for them.

    ``cache_bytes`` (64 MiB) is the budget of the cache, an eighth of it for live objects;
    ``cache_items`` bounds the entries, too. ``cache_policy`` is ``"write-back"``, ``"write-through"``
    or ``"none"``. Times are seconds: a write stays in the cache for at most ``flush_interval`` (1),
    an answer is awaited for ``request_timeout`` (60), a lost server for ``retry_deadline`` (30).

    >>> client = Client()
    >>> with client.table("ages") as ages, client.temporary() as squares:
    ...     ages["Ada"], squares[3] = 36, 9
    >>> [table["name"] for table in client.tables()]
    ['ages']
    >>> client.close_table("ages")
    >>> client.close()
    """

    def table(self, name: str, **options: Any) -> RHash[Any, Any]:
        """A named table; ``options`` are those of :class:`RHash`."""
        return RHash(name=name, client=self, **options)

    def temporary(self, **options: Any) -> RHash[Any, Any]:
        """A table of this client alone; ``options`` are those of :class:`RHash`."""
        return RHash(client=self, **options)

    def stats(self) -> Dict[str, Any]:
        """The server's figures."""
        return cast("Dict[str, Any]", json.loads(self.stats_json()))

    def tables(self) -> List[Dict[str, Any]]:
        """All tables that this client may see, and what the server knows of them."""
        return cast("List[Dict[str, Any]]", json.loads(self.tables_json()))

    def backup(self, directory: Union[str, os.PathLike[str]]) -> Dict[str, Any]:
        """Has the server copy its named tables, as they are at one moment, to a new directory on its own host.

        ``directory`` is an absolute path. A server that is started with ``--data`` on the copy has what was in
        the tables. Tables go on being written meanwhile. Gives what was made: ``record``, the last record
        of the log that is in it, ``tables``, and how many runs and bytes were linked and copied.
        """
        return cast("Dict[str, Any]", json.loads(self.backup_json(os.fspath(directory))))

    def __repr__(self) -> str:
        state = ", closed" if self.closed else ""
        return f"<{type(self).__name__} {self.address}{state}>"

    def __enter__(self) -> Client:
        return self

    def __exit__(self, *_exception: object) -> None:
        self.close()


class RHash(_native.Table[K, V], MutableMapping[K, V]):
    """A dict that lives on a server.

    With a ``name`` the table outlives this program and can be opened by others; without one it is
    temporary: freed when it is closed or dies. It does what a dict does; besides, it moves many
    entries at once, and appends to lists and adds to counters without reading them.

    ``kind`` is ``"values"``, ``"lists"`` or ``"counters"``; ``mode`` is ``"open"`` (made where it is
    missing), ``"existing"`` or ``"create"``. ``pickle=True`` lets objects of any type in, and unpickles
    what comes back: only for servers, and other clients, that you trust as yourself. ``live=False``
    gives a copy of a list, dict or set each time, and does not look whether it was changed.
    ``client`` is a connection to share; other options are those of :class:`Client`.

    ``durability`` says how safe a write to a named table is once it is flushed: ``"none"`` survives a clean
    stop of the server, ``"everysec"`` a crash of it, ``"always"`` one of its machine. A new table keeps it;
    one that exists must have it (else :class:`WrongDurabilityError`). Without it a table is taken as it
    is, and a new one follows the server.

    Writes go to a cache and leave in batches: you read your own at once, others after a flush.

    >>> with RHash() as h:
    ...     h["answer"] = 42
    ...     h[("some", "tuple")] = [1, 2]
    ...     h[("some", "tuple")].append(3)
    ...     h["answer"], h[("some", "tuple")], 1.0 in h, len(h)
    (42, [1, 2, 3], False, 2)

    After a ``with`` block a named table is still on the server, a temporary one is not.
    """

    _client: Client
    _owns_client: bool
    _recipe: Dict[str, Any]

    def __init__(
        self,
        address: Optional[str] = None,
        *,
        name: Optional[str] = None,
        kind: str = "values",
        mode: str = "open",
        durability: Optional[str] = None,
        pickle: bool = False,
        live: bool = True,
        client: Optional[Client] = None,
        **options: Any,
    ) -> None:
        if client is not None and (options or address is not None):
            raise TypeError("the client has an address and options of its own")
        if self._is_open:
            raise ValueError("this handle is open already")
        address = _resolved(address)
        self._owns_client = client is None
        self._client = Client(address, live=live, **options) if client is None else client
        # A secret does not travel with a pickle: neither this one nor that of an address.
        options.pop("token", None)
        self._recipe = {
            "address": self._client.address,
            "name": name,
            "kind": kind,
            "pickle": pickle,
            "live": live,
            "options": options,
        }
        self._open(self._client, name, kind, mode, durability, pickle, live)
        _handles.add(self)

    # What a dict has.

    def keys(self) -> RHashKeys[K]:
        """A view of the keys. Iterating reads them page by page, in no order that means anything."""
        return RHashKeys(self)

    def values(self) -> RHashValues[V]:
        """A view of the values."""
        return RHashValues(self)

    def items(self) -> RHashItems[K, V]:
        """A view of the entries."""
        return RHashItems(self)

    def update(self, other: Any = (), /, **named: V) -> None:
        """Sets all entries of a mapping, or of an iterable of pairs.

        >>> with RHash() as h:
        ...     h.update({"a": 1}, b=2)
        ...     sorted(h.items())
        [('a', 1), ('b', 2)]
        """
        self.set_many(other)
        if named:
            self.set_many(cast("Mapping[K, V]", named))

    def copy(self: S) -> S:
        """A temporary table with the same entries, which all pass through this process. Values are
        copies, too."""
        self._warn_if_large("copying")
        new = self._sibling()
        self._copy_to(new)
        return new

    __copy__ = copy

    def __deepcopy__(self: S, _memo: object) -> S:
        return self.copy()

    @classmethod
    def fromkeys(cls: Type[S], keys: Iterable[Any], value: Any = None, **options: Any) -> S:
        """A table with these keys and one value for all; ``options`` are those of the class.

        >>> with RHash.fromkeys("ab", 0) as h:
        ...     sorted(h)
        ['a', 'b']
        """
        new = cls(**options)
        for key in keys:
            new[key] = value
        return new

    def __eq__(self, other: object) -> bool:
        if self is other:
            return True
        if not isinstance(other, Mapping):
            return NotImplemented
        theirs = cast(Any, other)
        if len(self) != len(theirs):
            return False
        self._warn_if_large("comparing")
        missing = object()
        entries = iter(self.items())
        while batch := list(islice(entries, COMPARE_BATCH)):
            keys = [key for key, _ in batch]
            if isinstance(other, RHash):
                found: List[Any] = theirs.get_many(keys, missing)
            else:
                found = [theirs.get(key, missing) for key in keys]
            if any(mine != value for (_, mine), value in zip(batch, found)):
                return False
        return True

    __hash__ = None  # type: ignore[assignment]

    def __or__(self: S, other: Mapping[Any, Any]) -> S:
        if not isinstance(other, Mapping):  # pyright: ignore[reportUnnecessaryIsInstance]
            return NotImplemented
        new = self.copy()
        new.update(other)
        return new

    def __ror__(self: S, other: Mapping[Any, Any]) -> S:
        if not isinstance(other, Mapping):  # pyright: ignore[reportUnnecessaryIsInstance]
            return NotImplemented
        self._warn_if_large("copying")
        new = self._sibling()
        new.update(other)
        new.update(self.items())
        return new

    def __ior__(self: S, other: Any) -> S:  # type: ignore[misc]
        self.update(other)
        return self

    def __repr__(self) -> str:
        name = type(self).__name__
        which = self._recipe.get("name") if hasattr(self, "_recipe") else None
        title = name if which is None else f"{name} {which!r}"
        if not self._is_open:
            return f"<{title}, closed>"
        if id(self) in _shown:
            return f"<{title}: ...>"
        _shown.add(id(self))
        try:
            first = list(islice(self.items(), REPR_ENTRIES + 1))
            shown = [f"{key!r}: {value!r}" for key, value in first[:REPR_ENTRIES]]
        finally:
            _shown.discard(id(self))
        if len(first) > REPR_ENTRIES:
            shown.append("...")
        return f"<{title}: {{{', '.join(shown)}}}>"

    # What a dict has not.

    @overload
    def compare_and_swap(self, key: K, expected: V, new: V) -> bool: ...
    @overload
    def compare_and_swap(self, key: K, *, new: V) -> bool: ...
    @overload
    def compare_and_swap(self, key: K, expected: V) -> bool: ...
    def compare_and_swap(self, key: Any, expected: Any = ..., new: Any = ...) -> bool:
        """Sets a key to ``new`` if its value is ``expected``, as the server sees it; gives whether it
        did. Without ``expected`` the key must be missing, without ``new`` it is removed.

        >>> with RHash() as h:
        ...     h.compare_and_swap("k", new=1), h.compare_and_swap("k", 2, 3), h.compare_and_swap("k", 1)
        (True, False, True)
        """
        return self._compare_and_swap(
            key, () if expected is ... else (expected,), () if new is ... else (new,)
        )

    def sync(self) -> None:
        """Sends what is cached of all tables of this client, and waits until what was written to named
        ones is on the server's stable storage, whatever their durability."""
        self._client.sync()

    def stats(self) -> Dict[str, Any]:
        """The server's figures for this table: a dict with estimates, named as such."""
        number = self.table_id
        tables = self._client.tables() if self.name is not None else self._client.stats()["tables"]
        empty: Dict[str, Any] = {}
        return next((table for table in tables if table["table"] == number), empty)

    @property
    def name(self) -> Optional[str]:
        """The table's name; none if it is temporary."""
        return cast("Optional[str]", self._recipe["name"])

    @property
    def kind(self) -> str:
        """What it holds: ``"values"``, ``"lists"`` or ``"counters"``."""
        return cast(str, self._recipe["kind"])

    @property
    def client(self) -> Client:
        """The connection that it goes over."""
        return self._client

    @property
    def closed(self) -> bool:
        """Whether this handle was closed or let go of."""
        return not self._is_open

    def close(self) -> None:
        """Frees the table, for everybody, and disconnects. A closed table stays closed."""
        try:
            self._close()
        finally:
            self._disconnect()

    def detach(self) -> None:
        """Sends what is cached, lets go of the table and disconnects; a named table stays on the
        server."""
        try:
            if self._recipe["name"] is None:
                self._close()
            else:
                self._detach()
        except TableClosedError as error:
            # Somebody closed it: there is nothing to let go of, unless writes were lost.
            if error.key_count > 0:
                raise
        except UsageError:
            # A temporary table ended with the client, if that was closed before.
            if not (self._client.closed and self._recipe["name"] is None):
                raise
        finally:
            self._disconnect()

    def __enter__(self: S) -> S:
        return self

    def __exit__(
        self,
        _class: Optional[Type[BaseException]],
        _exception: Optional[BaseException],
        _trace: Optional[TracebackType],
    ) -> None:
        self.detach()

    def __del__(self) -> None:
        # A temporary table is freed by the native half, in the background.
        if self._is_open and self._recipe["name"] is not None:
            self.detach()

    def __reduce__(self) -> Tuple[Any, ...]:
        if not hasattr(self, "_recipe") or self._recipe["name"] is None:
            raise TypeError("a temporary table cannot be pickled: give it a name")
        if self._is_open:
            # Whoever opens it again is to see what was written.
            self.flush()
        return _reopened, (type(self), dict(self._recipe))

    def __reduce_ex__(self, _protocol: Any) -> Tuple[Any, ...]:
        return self.__reduce__()

    def _sibling(self: S) -> S:
        new = type(self).__new__(type(self))
        recipe = self._recipe
        _init(
            new,
            client=self._client,
            kind=recipe["kind"],
            pickle=recipe["pickle"],
            live=recipe["live"],
        )
        return new

    def _disconnect(self) -> None:
        _handles.discard(self)
        if self._owns_client:
            self._client.close()

    def _warn_if_large(self, doing: str) -> None:
        count = len(self)
        if count > WARN_ENTRIES:
            text = f"{doing} moves all {count} entries of the table through this process"
            warnings.warn(text, WholeTableWarning, stacklevel=3)


def _reopened(cls: Type[S], recipe: Dict[str, Any]) -> S:
    new = cls.__new__(cls)
    options = recipe.pop("options")
    _init(new, mode="existing", **recipe, **options)
    return new


#: Opens a handle of any subclass, whatever its own ``__init__`` takes.
_init: Any = getattr(RHash, "__init__")  # noqa: B009


class _Handles:
    """All open handles, by identity: tables have no hash."""

    def __init__(self) -> None:
        self._by_id: Dict[int, weakref.ref[RHash[Any, Any]]] = {}

    def add(self, handle: RHash[Any, Any]) -> None:
        number = id(handle)
        self._by_id[number] = weakref.ref(handle, lambda _gone: self._by_id.pop(number, None))

    def discard(self, handle: RHash[Any, Any]) -> None:
        self._by_id.pop(id(handle), None)

    def __iter__(self) -> Iterator[RHash[Any, Any]]:
        for reference in list(self._by_id.values()):
            handle = reference()
            if handle is not None:
                yield handle


_handles = _Handles()
_shown: set[int] = set()


def _say(doing: str, handle: RHash[Any, Any], error: Exception) -> None:
    print(f"mivrhash: {doing} {handle.name!r} failed: {error}", file=sys.stderr)


def _flush_all() -> None:
    """Before a fork: the child is to see what was written."""
    for handle in _handles:
        if handle.name is not None and not handle.closed:
            try:
                handle.flush()
            except Exception as error:  # The parent is told by its own next flush.
                _say("flushing", handle, error)


def _release_all() -> None:
    """At the end of the process: what is cached goes to the server."""
    for handle in _handles:
        if handle.closed:
            continue
        try:
            # A server that is away is waited for only by what it must be given.
            if not handle._abandon():
                handle.detach()
        except Exception as error:
            _say("letting go of", handle, error)


def _in_child() -> None:
    _native.forked()
    # Children of multiprocessing end without atexit, and run these instead.
    util: Any = sys.modules.get("multiprocessing.util")
    if util is not None:
        util.Finalize(None, _release_all, exitpriority=100)


atexit.register(_release_all)
if hasattr(os, "register_at_fork"):
    os.register_at_fork(before=_flush_all, after_in_child=_in_child)
