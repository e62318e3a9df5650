"""The native half of the package, written in Rust."""

import os
from collections.abc import Iterable, Iterator, Mapping, MutableMapping
from typing import Any, Generic, List, Optional, Protocol, Tuple, TypeVar, Union

from typing_extensions import Self

K = TypeVar("K")
V = TypeVar("V")
D = TypeVar("D")
KT = TypeVar("KT")
VT_co = TypeVar("VT_co", covariant=True)

class _KeysAndGetItem(Protocol[KT, VT_co]):
    def keys(self) -> Iterable[KT]: ...
    def __getitem__(self, key: KT, /) -> VT_co: ...

_Path = Union[str, "os.PathLike[str]"]
_Entries = Union[Mapping[K, V], _KeysAndGetItem[K, V], Iterable[Tuple[K, V]]]

__version__: str

class Client:
    def __new__(
        cls,
        address: Optional[str] = None,
        *,
        cache_bytes: Optional[int] = None,
        cache_items: Optional[int] = None,
        cache_policy: str = "write-back",
        live: bool = True,
        flush_interval: Optional[float] = None,
        connect_timeout: Optional[float] = None,
        request_timeout: Optional[float] = None,
        retry_deadline: Optional[float] = None,
        token: Optional[str] = None,
        token_file: Optional[_Path] = None,
        tls_ca: Optional[_Path] = None,
        tls_identity: Optional[Tuple[_Path, _Path]] = None,
    ) -> Self: ...
    @property
    def address(self) -> str:
        """Where the server is, without the token that its address may have."""
    @property
    def closed(self) -> bool:
        """Whether it was closed."""
    def flush(self) -> None:
        """Sends all cached writes of all tables, and waits until the server has them."""
    def sync(self) -> None:
        """Flushes all tables, and waits until what was written to named ones is on stable storage."""
    def close(self) -> None:
        """Flushes all tables, then disconnects."""
    def stats_json(self) -> str: ...
    def tables_json(self) -> str: ...
    def backup_json(self, directory: str) -> str: ...
    def ping(self) -> float:
        """Asks the server for a sign of life, and gives the seconds that took."""
    def close_table(self, name: str) -> None:
        """Frees a named table, for everybody."""

class Table(MutableMapping[K, V], Generic[K, V]):
    def __new__(cls, *args: Any, **kwargs: Any) -> Self: ...
    def _open(
        self,
        client: Client,
        name: Optional[str],
        kind: str,
        mode: str,
        durability: Optional[str],
        pickle: bool,
        live: bool,
    ) -> None: ...
    @property
    def _is_open(self) -> bool: ...
    @property
    def table_id(self) -> int:
        """The table's number on its server."""
    def __getitem__(self, key: K, /) -> V: ...
    def __setitem__(self, key: K, value: V, /) -> None: ...
    def __delitem__(self, key: K, /) -> None: ...
    def __contains__(self, key: object, /) -> bool: ...
    def __len__(self) -> int: ...
    def __bool__(self) -> bool: ...
    def __iter__(self) -> Iterator[K]: ...
    def _scan_values(self) -> Iterator[V]: ...
    def _scan_items(self) -> Iterator[Tuple[K, V]]: ...
    def _try_get(self, key: K) -> Optional[Tuple[V, ...]]: ...
    def _try_set(self, key: K, value: V) -> bool: ...
    def get_many(self, keys: Iterable[K], default: Any = None) -> List[Any]:
        """The values of several keys in their order, with ``default`` for those that are missing."""
    def set_many(self, entries: _Entries[K, V]) -> None:
        """Sets all entries of a mapping, or of an iterable of pairs."""
    def discard(self, key: K) -> None:
        """Removes an entry, if there is one, without asking the server."""
    def append(self, key: K, item: Any) -> None:
        """Adds an item to the end of a key's list, which is not read for it; a table of lists only."""
    def append_many(self, key: K, items: Iterable[Any]) -> None:
        """Adds items to the end of a key's list, which is not read for it; a table of lists only."""
    def add(self, key: K, delta: int = 1) -> None:
        """Adds to a key's counter, which is not read for it; a table of counters only."""
    def add_and_get(self, key: K, delta: int = 1) -> int:
        """Adds to a key's counter on the server and gives what it is after that."""
    def _compare_and_swap(self, key: K, expected: Tuple[V, ...], new: Tuple[V, ...]) -> bool: ...
    def flush(self) -> None:
        """Sends what is cached, and waits until the server has it."""
    def _copy_to(self, target: Table[K, V]) -> None: ...
    def _abandon(self) -> bool: ...
    def _close(self) -> None: ...
    def _detach(self) -> None: ...

class Scan(Iterator[K]):
    def __next__(self) -> K: ...

class Server:
    def __new__(cls, arguments: List[str]) -> Self: ...
    @property
    def address(self) -> str:
        """Where it listens."""
    @property
    def metrics_address(self) -> Optional[str]:
        """Where it answers HTTP, if it does."""
    @property
    def is_running(self) -> bool:
        """Whether it has not been stopped."""
    def reload(self) -> None:
        """Reads the tokens file and the files for TLS again. Who was revoked is sent away; if a file cannot be
        used, all stays as it was."""
    def stop(self) -> None:
        """Stops it: named tables are written to disk."""

def encode_value(value: object, *, key: bool = False, pickle: bool = False) -> bytes:
    """The bytes of a value, or of a key, in the codec ``value``."""

def decode_value(data: bytes, *, pickle: bool = False) -> Any:
    """The value that these bytes are."""

def forked() -> None: ...
def become_server(arguments: List[str]) -> None: ...
def examine(arguments: List[str]) -> Optional[Tuple[str, bool]]: ...
def server_help(program: str, usage: str, examples: str, long: bool) -> str: ...
def new_token(name: str, tables: str, rights: str, file: Optional[str]) -> Tuple[str, str]: ...
