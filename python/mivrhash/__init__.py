"""A dict bigger than RAM, on another machine.

``RHash`` is the dict, ``Client`` a connection for many of them, ``serve`` the server inside this
process; ``mivrhash.aio`` has the same for asyncio, and ``mivrhash.mivrhashclient.MivRHash`` is the hash
of 2010.

>>> from mivrhash import RHash
>>> with RHash(name="ages") as ages:
...     ages["Ada"] = 36
>>> with RHash(name="ages") as ages:
...     ages["Ada"]
36
>>> RHash(name="ages").close()  # frees it
"""

from ._errors import (
    ConnectionLostError,
    DamagedError,
    DecodeError,
    DeniedError,
    DiskFullError,
    EncodeError,
    FlushConnectionError,
    FlushFailedError,
    FlushMemoryError,
    FlushTimeoutError,
    KeyTooLargeError,
    NoSuchTableError,
    ProtocolError,
    RHashError,
    ServerBusyError,
    ServerMemoryError,
    ServerStoppingError,
    ServerTimeoutError,
    SessionExpiredError,
    StorageError,
    TableClosedError,
    TableExistsError,
    UntrustedError,
    UsageError,
    ValueTooLargeError,
    WholeTableWarning,
    WrongCodecError,
    WrongDurabilityError,
    WrongKindError,
)
from ._hash import DEFAULT_ADDRESS, Client, RHash
from ._native import __version__, decode_value, encode_value
from ._server import Server, new_token, serve

__all__ = [
    "Client",
    "ConnectionLostError",
    "DEFAULT_ADDRESS",
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
    "RHash",
    "RHashError",
    "Server",
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
    "__version__",
    "decode_value",
    "encode_value",
    "new_token",
    "serve",
]
