"""The server: ``python -m mivrhash.mivrhashservice [port] [options]``, as in 2010.

It runs without Python in native threads, and stops cleanly on SIGTERM or Ctrl-C; on SIGHUP it reads its
tokens and certificates again. Its options are those of the command ``rhash-server``: ``--help`` lists
them. ``token new`` makes the tokens that it asks clients for.
"""

from __future__ import annotations

import argparse
import os
import signal
import sys
import threading
from typing import List, Optional

from . import _native
from ._server import new_token

__all__ = ["main"]

PROGRAM = "python -m mivrhash.mivrhashservice"

#: Where it listens if only a port is said: what it serves, it serves to anybody who can reach it.
HOST = "127.0.0.1"

#: The level of the log if nothing is said.
LOG = "warn"

USAGE = f"""\
{PROGRAM} [PORT] [OPTIONS]
       {PROGRAM} token new NAME [--file FILE]

PORT is one of this host alone, as --listen {HOST}:PORT; 0 picks a free one."""

EXAMPLES = f"""\
Examples:
  {PROGRAM} 10080 --mem-limit 8G --data /var/lib/rhash
  {PROGRAM} --memory-only --mem-limit 512M

For other hosts, with tokens and TLS:
  {PROGRAM} token new ci --file tokens > ci.token && chmod 600 ci.token
  {PROGRAM} --listen 0.0.0.0:10080 --tokens tokens \\
      --tls-cert cert.pem --tls-key key.pem

and there, in Python:
  RHash("rhash+tls://db.example", name="t", token_file="ci.token", tls_ca="ca.pem")

Sizes are bytes, or a number with K, M, G or T (powers of 1024): 65536, 512M, 1.5G, 8GiB.

Once ready, it prints `Server listening on port PORT`; its log goes to standard error, from
--log {LOG} on if nothing is said. SIGTERM or Ctrl-C stops it cleanly: named tables are written to
disk, and the next start on the same directory finds them. SIGHUP makes it read its tokens and
certificates again.

Exit codes: 0 stopped cleanly; 1 failed; 2 the command line made no sense."""


def _options(arguments: List[str]) -> List[str]:
    """The options of ``rhash-server`` for these arguments."""
    options = list(arguments)
    if options and not options[0].startswith("-"):
        port = options.pop(0)
        if not (port.isdecimal() and int(port) < 65536):
            raise ValueError(f"{port!r} is not a port, from 0 to 65535")
        options = ["--listen", f"{HOST}:{int(port)}", *options]
    if not any(option == "--log" or option.startswith("--log=") for option in options):
        options += ["--log", LOG]
    return options


def _make_token(arguments: List[str]) -> int:
    parser = argparse.ArgumentParser(
        prog=f"{PROGRAM} token new",
        description="Make a token, and print it: this once. It is kept nowhere else.",
        epilog="Rights: read to look at entries; write to change them, and to make, clear and free"
        " tables; admin for the figures of the server. A server that runs with --tokens FILE lets"
        " the token in after a SIGHUP; to revoke it, take its line out and send another.",
    )
    parser.add_argument("name", metavar="NAME", help="what it is called, in the file and in logs")
    parser.add_argument(
        "--tables",
        metavar="PATTERNS",
        default="*",
        help="the tables that it is for: names with * and ?, with commas in between; default: *",
    )
    parser.add_argument(
        "--rights",
        metavar="RIGHTS",
        default="read,write",
        help="read, write, admin, with commas in between; default: read,write",
    )
    parser.add_argument(
        "--file",
        metavar="FILE",
        help="add its line to this tokens file; default: the line goes to standard error",
    )
    given = parser.parse_args(arguments)
    try:
        secret, line = new_token(
            given.name, tables=given.tables, rights=given.rights, file=given.file
        )
    except ValueError as error:
        return _failed(error, 2)
    except OSError as error:
        return _failed(error, 1)
    if given.file is None:
        print(f"the line for the tokens file:\n{line}", file=sys.stderr)
    print(secret)
    return 0


def _failed(error: Exception, code: int) -> int:
    # What the server calls the command is another one here.
    text = str(error).replace("`rhash token new", f"`{PROGRAM} token new")
    print(f"mivrhashservice: {text}", file=sys.stderr)
    if code == 2:
        print(f"For more information, try `{PROGRAM} --help`.", file=sys.stderr)
    return code


def _end_if_asked_again() -> None:
    signal.sigwait({signal.SIGINT})
    print("mivrhashservice: stopped at once, as asked twice", file=sys.stderr, flush=True)
    os._exit(1)


def _stop(server: _native.Server) -> int:
    # Whoever asks twice does not want to wait for the disk.
    threading.Thread(target=_end_if_asked_again, daemon=True).start()
    try:
        server.stop()
    except OSError as error:
        return _failed(error, 1)
    print("Server terminated", flush=True)
    return 0


def _serve(options: List[str]) -> int:
    signals = {signal.SIGINT, signal.SIGTERM, signal.SIGHUP}
    # Before there are other threads, so that all of them leave these signals to the wait below.
    signal.pthread_sigmask(signal.SIG_BLOCK, signals)
    try:
        _native.become_server(options)
        server = _native.Server(options)
    except ValueError as error:
        return _failed(error, 2)
    except OSError as error:
        return _failed(error, 1)
    print(f"Server listening on port {server.address.rpartition(':')[2]}", flush=True)
    if server.metrics_address is not None:
        print(f"metrics on {server.metrics_address}", flush=True)
    while signal.sigwait(signals) == signal.SIGHUP:
        try:
            server.reload()
        except OSError as error:
            print(f"mivrhashservice: all stays as it was: {error}", file=sys.stderr, flush=True)
    return _stop(server)


def main(arguments: Optional[List[str]] = None) -> int:
    """Serves until it is told to stop; gives the exit code."""
    given = sys.argv[1:] if arguments is None else arguments
    if given[:2] == ["token", "new"]:
        return _make_token(given[2:])
    if "-h" in given or "--help" in given:
        print(_native.server_help(PROGRAM, USAGE, EXAMPLES, "--help" in given), end="")
        return 0
    if "-V" in given or "--version" in given:
        print(f"mivrhash {_native.__version__}")
        return 0
    try:
        options = _options(given)
        examined = _native.examine(options)
    except ValueError as error:
        return _failed(error, 2)
    except OSError as error:
        return _failed(error, 1)
    if examined is not None:
        text, is_well = examined
        print(text, flush=True)
        return 0 if is_well else 1
    return _serve(options)


if __name__ == "__main__":
    sys.exit(main())
