"""The same for asyncio: methods are awaited, iteration is ``async for``.

What the cache knows is answered at once; all else waits in a few threads of this module. Values are
copies: a change to a list needs its assignment.

>>> import asyncio
>>> from mivrhash import aio
>>> async def main():
...     async with await aio.RHash.open() as h:
...         await h.set("k", [1])
...         await h.set_many({n: n * n for n in range(3)})
...         return await h.get("k"), await h.get_many([1, 2]), [key async for key in h.keys()]
>>> value, squares, keys = asyncio.run(main())
>>> value, squares, len(keys)
([1], [1, 4], 4)
"""

from __future__ import annotations

import asyncio
import os
from collections.abc import AsyncIterator, Iterable, Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from itertools import islice
from typing import Any, Callable, Dict, Generic, List, Optional, Tuple, TypeVar, Union, cast

from ._hash import RHash as SyncRHash

K = TypeVar("K")
V = TypeVar("V")
T = TypeVar("T")

__all__ = ["RHash"]

#: Calls that wait for a server at the same time.
THREADS = 16

#: Entries that an iteration takes from the native half at once.
PAGE = 1024

_threads: Optional[ThreadPoolExecutor] = None


def _pool() -> ThreadPoolExecutor:
    global _threads
    if _threads is None:
        _threads = ThreadPoolExecutor(THREADS, thread_name_prefix="mivrhash")
    return _threads


def _in_child() -> None:
    """After a fork: the threads are the parent's."""
    global _threads
    _threads = None


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_in_child)


async def _wait(call: Callable[..., T], *arguments: Any, **named: Any) -> T:
    loop = asyncio.get_running_loop()
    return await loop.run_in_executor(_pool(), partial(call, *arguments, **named))


class RHash(Generic[K, V]):
    """A dict that lives on a server; made by ``await RHash.open(…)``."""

    def __init__(self, table: SyncRHash[K, V]) -> None:
        self._table = table

    @classmethod
    async def open(cls, address: Optional[str] = None, **options: Any) -> RHash[K, V]:
        """Opens a table; the options are those of :class:`mivrhash.RHash`, without ``live``."""
        begin = cast("Callable[..., Any]", SyncRHash)
        return cls(await _wait(begin, address, live=False, **options))

    @property
    def name(self) -> Optional[str]:
        """The table's name; none if it is temporary."""
        return self._table.name

    async def __aenter__(self) -> RHash[K, V]:
        return self

    async def __aexit__(self, *_exception: object) -> None:
        await self.detach()

    async def __getitem__(self, key: K) -> V:
        """``await h[key]``; KeyError where there is none."""
        found = self._table._try_get(key)
        if found:
            return found[0]
        return await _wait(self._table.__getitem__, key)

    async def get(self, key: K, default: Any = None) -> Any:
        """The value of a key, or ``default``."""
        found = self._table._try_get(key)
        if found is not None:
            return found[0] if found else default
        return await _wait(self._table.get, key, default)

    async def set(self, key: K, value: V) -> None:
        """Sets the value of a key."""
        if not self._table._try_set(key, value):
            await _wait(self._table.__setitem__, key, value)

    async def contains(self, key: K) -> bool:
        """Whether there is an entry."""
        found = self._table._try_get(key)
        if found is not None:
            return bool(found)
        return await _wait(self._table.__contains__, key)

    async def delete(self, key: K) -> None:
        """Removes an entry; KeyError where there is none."""
        await _wait(self._table.__delitem__, key)

    async def discard(self, key: K) -> None:
        """Removes an entry, if there is one."""
        await _wait(self._table.discard, key)

    async def pop(self, key: K, *default: Any) -> Any:
        """Removes an entry and gives its value."""
        return await _wait(self._table.pop, key, *default)

    async def popitem(self) -> Tuple[K, V]:
        """Removes some entry and gives it."""
        return await _wait(self._table.popitem)

    async def setdefault(self, key: K, default: V) -> V:
        """The value of a key, which is set first if it has none."""
        return await _wait(self._table.setdefault, key, default)

    async def get_many(self, keys: Iterable[K], default: Any = None) -> List[Any]:
        """The values of several keys, in their order."""
        return await _wait(self._table.get_many, list(keys), default)

    async def set_many(self, entries: Union[Mapping[K, V], Iterable[Tuple[K, V]]]) -> None:
        """Sets all entries of a mapping, or of an iterable of pairs."""
        await _wait(self._table.set_many, entries)

    update = set_many

    async def append(self, key: K, item: Any) -> None:
        """Adds an item to the end of a key's list."""
        await _wait(self._table.append, key, item)

    async def append_many(self, key: K, items: Iterable[Any]) -> None:
        """Adds items to the end of a key's list."""
        await _wait(self._table.append_many, key, list(items))

    async def add(self, key: K, delta: int = 1) -> None:
        """Adds to a key's counter."""
        await _wait(self._table.add, key, delta)

    async def add_and_get(self, key: K, delta: int = 1) -> int:
        """Adds to a key's counter on the server and gives what it is after that."""
        return await _wait(self._table.add_and_get, key, delta)

    async def len(self) -> int:
        """Counts the entries."""
        return await _wait(self._table.__len__)

    async def is_empty(self) -> bool:
        """Whether there is no entry."""
        return not await _wait(self._table.__bool__)

    async def clear(self) -> None:
        """Removes all entries."""
        await _wait(self._table.clear)

    async def flush(self) -> None:
        """Sends what is cached, and waits until the server has it."""
        await _wait(self._table.flush)

    async def sync(self) -> None:
        """As :meth:`mivrhash.RHash.sync`."""
        await _wait(self._table.sync)

    async def stats(self) -> Dict[str, Any]:
        """As :meth:`mivrhash.RHash.stats`."""
        return await _wait(self._table.stats)

    async def close(self) -> None:
        """Frees the table, for everybody, and disconnects."""
        await _wait(self._table.close)

    async def detach(self) -> None:
        """Lets go of the table and disconnects; a named table stays on the server."""
        await _wait(self._table.detach)

    def keys(self) -> AsyncIterator[K]:
        """Goes through the keys."""
        return self._paged(self._table.__iter__)

    def values(self) -> AsyncIterator[V]:
        """Goes through the values."""
        return self._paged(self._table._scan_values)

    def items(self) -> AsyncIterator[Tuple[K, V]]:
        """Goes through the entries."""
        return self._paged(self._table._scan_items)

    def __aiter__(self) -> AsyncIterator[K]:
        return self.keys()

    async def _paged(self, begin: Callable[[], Iterator[T]]) -> AsyncIterator[T]:
        def page(entries: Iterator[T]) -> List[T]:
            return list(islice(entries, PAGE))

        entries = await _wait(begin)
        while found := await _wait(page, entries):
            for entry in found:
                yield entry
