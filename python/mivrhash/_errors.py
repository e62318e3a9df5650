"""The exceptions of the package: one tree, whose members are also what fits of the built-in ones."""

from __future__ import annotations

from typing import Any, List

__all__ = [
    "ConnectionLostError",
    "DamagedError",
    "DecodeError",
    "DeniedError",
    "DiskFullError",
    "EncodeError",
    "FlushConnectionError",
    "FlushFailedError",
    "FlushMemoryError",
    "FlushTimeoutError",
    "KeyTooLargeError",
    "NoSuchTableError",
    "ProtocolError",
    "RHashError",
    "ServerBusyError",
    "ServerMemoryError",
    "ServerStoppingError",
    "ServerTimeoutError",
    "SessionExpiredError",
    "StorageError",
    "TableClosedError",
    "TableExistsError",
    "UntrustedError",
    "UsageError",
    "ValueTooLargeError",
    "WholeTableWarning",
    "WrongCodecError",
    "WrongDurabilityError",
    "WrongKindError",
]


class RHashError(Exception):
    """Whatever goes wrong with a remote table.

    ``keys`` holds the first keys whose writes did not get to the server, or may not have, and
    ``key_count`` how many there are; mostly none.
    """

    keys: List[Any] = []
    key_count: int = 0


class ConnectionLostError(RHashError, ConnectionError):
    """The server cannot be reached. What was written stays in the cache; call again later."""


class UntrustedError(RHashError, ConnectionError):
    """The server's certificate cannot be trusted, or it does not trust this client's. Name the
    authority that signed it (``tls_ca``), or give another certificate (``tls_identity``)."""


class ServerStoppingError(RHashError, ConnectionError):
    """The server is stopping. Try again when it is back."""


class SessionExpiredError(RHashError, ConnectionError):
    """The server no longer knows this client. Temporary tables are gone; open named ones again."""


class ServerTimeoutError(RHashError, TimeoutError):
    """The server did not answer in time. A write may or may not have been applied."""


class TableClosedError(RHashError, ValueError):
    """The table was closed, here or by another client."""


class NoSuchTableError(RHashError, LookupError):
    """There is no table of that name."""


class TableExistsError(RHashError, ValueError):
    """There is a table of that name already."""


class WrongKindError(RHashError, TypeError):
    """The table holds something else: values, lists or counters."""


class WrongCodecError(RHashError, TypeError):
    """The table's keys and values are encoded otherwise."""


class WrongDurabilityError(RHashError, ValueError):
    """The table has another durability than was asked for, or the server cannot give it that."""


class KeyTooLargeError(RHashError, ValueError):
    """The key is longer than the server takes."""


class ValueTooLargeError(RHashError, ValueError):
    """The value is longer than the server takes. Make it a list that grows by appends."""


class ServerMemoryError(RHashError, MemoryError):
    """The server is at its memory limit and has no disk."""


class StorageError(RHashError, OSError):
    """The server could not read or write its disk."""


class DiskFullError(StorageError):
    """The server's disk is full. Reads, removals and closes still work."""


class DamagedError(StorageError):
    """What the server read from its disk is damaged, and was not returned."""


class EncodeError(RHashError, TypeError):
    """The key or value has no form in the table."""


class DecodeError(RHashError, ValueError):
    """The bytes in the table are not what this package writes, or are a pickled object that is not
    to be unpickled."""


class FlushFailedError(RHashError):
    """Cached writes did not get to the server in time. They stay in the cache; flush again."""


class FlushConnectionError(FlushFailedError, ConnectionError):
    """Cached writes wait, since the server cannot be reached."""


class FlushTimeoutError(FlushFailedError, TimeoutError):
    """Cached writes wait, since the server does not answer."""


class FlushMemoryError(FlushFailedError, MemoryError):
    """Cached writes wait, since the server is at its memory limit and has no disk."""


class DeniedError(RHashError, PermissionError):
    """The token is missing, wrong, or does not allow this. It comes from ``token``, ``token_file``,
    the address, or the environment (``RHASH_TOKEN``, ``RHASH_TOKEN_FILE``)."""


class ServerBusyError(RHashError):
    """A bound of the server is reached. Try again later."""


class ProtocolError(RHashError, ConnectionError):
    """The peer sent something that makes no sense, or speaks another version."""


class UsageError(RHashError, ValueError):
    """The call makes no sense: an address that is none, an option out of range."""


class WholeTableWarning(UserWarning):
    """A method moves a whole large table to this process, or through it."""
