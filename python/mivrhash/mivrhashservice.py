"""The server: ``python -m mivrhash.mivrhashservice [port] [options]``, as in 2010.

It runs without Python in native threads, and stops cleanly on SIGTERM or Ctrl-C. Its options are
those of the command ``rhash-server``: ``--help`` lists them.
"""

from __future__ import annotations

import signal
import sys
from typing import List, Optional

from . import _native

__all__ = ["main"]

#: Where it listens if only a port is said: what it serves, it serves to anybody who can reach it.
HOST = "127.0.0.1"

USAGE = f"""\
Usage: python -m mivrhash.mivrhashservice [port] [options]

Serve hash tables that may be larger than memory, on this host's port 10080.

  port                  listen on this port of {HOST}
  --listen HOST:PORT    listen elsewhere: 0.0.0.0:10080 lets in everybody who can reach this host
  --mem-limit SIZE      use no more memory than this, such as 512M or 8G; default: half of this host's
  --data DIR            keep what does not fit memory, and named tables, here; default: ./data
  --memory-only         use no disk at all
  --max-value SIZE      refuse to store longer values
  --lease TIME          keep a lost client's tables for this long; default: 60s
  --log LEVEL           off, error, warn (default), info, debug or trace, to standard error
"""

#: The level of the log if nothing is said.
LOG = "warn"


def _options(arguments: List[str]) -> List[str]:
    """The options of ``rhash-server`` for these arguments."""
    if arguments and arguments[0].isdigit():
        port = int(arguments[0])
        if not port < 65536:
            raise SystemExit(f"{port} is not a port\n\n{USAGE}")
        return ["--listen", f"{HOST}:{port}", *arguments[1:]]
    if arguments and not arguments[0].startswith("-"):
        raise SystemExit(USAGE)
    return arguments


def _log_level(options: List[str]) -> str:
    for at, option in enumerate(options):
        if option == "--log" and at + 1 < len(options):
            return options[at + 1]
        if option.startswith("--log="):
            return option.partition("=")[2]
    return LOG


def main(arguments: Optional[List[str]] = None) -> int:
    """Serves until it is told to stop; gives the exit code."""
    given = sys.argv[1:] if arguments is None else arguments
    if any(word in ("-h", "--help") for word in given):
        print(USAGE, end="")
        return 0
    options = _options(given)
    ends = {signal.SIGINT, signal.SIGTERM}
    # Before there are other threads, so that all of them leave these signals to the wait below.
    signal.pthread_sigmask(signal.SIG_BLOCK, ends)
    try:
        _native.become_server(_log_level(options))
        server = _native.Server(options)
    except ValueError as error:
        print(f"{error}\n{USAGE}", file=sys.stderr)
        return 2
    except OSError as error:
        print(error, file=sys.stderr)
        return 1
    print(f"Server listening on port {server.address.rpartition(':')[2]}", flush=True)
    signal.sigwait(ends)
    server.stop()
    print("Server terminated", flush=True)
    return 0


if __name__ == "__main__":
    sys.exit(main())
