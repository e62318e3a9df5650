"""The views that ``keys``, ``values`` and ``items`` return: they read the table anew each time."""

from __future__ import annotations

from collections.abc import ItemsView, Iterator, KeysView, ValuesView
from typing import TYPE_CHECKING, Any, TypeVar

if TYPE_CHECKING:
    from ._hash import RHash

K = TypeVar("K")
V = TypeVar("V")

__all__ = ["RHashItems", "RHashKeys", "RHashValues"]


class RHashKeys(KeysView[K]):
    """A set-like view of a table's keys."""

    __slots__ = ()


class RHashValues(ValuesView[V]):
    """A view of a table's values."""

    __slots__ = ()
    _mapping: RHash[Any, V]

    def __iter__(self) -> Iterator[V]:
        return self._mapping._scan_values()

    def __contains__(self, value: object) -> bool:
        self._mapping._warn_if_large("looking for a value")
        return any(found is value or found == value for found in self)


class RHashItems(ItemsView[K, V]):
    """A set-like view of a table's entries."""

    __slots__ = ()
    _mapping: RHash[K, V]

    def __iter__(self) -> Iterator[tuple[K, V]]:
        return self._mapping._scan_items()
