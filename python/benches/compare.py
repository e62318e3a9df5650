"""Inserts, random gets and iteration of small items, through `h[k] = v`, `h[k]` and iteration.

    python compare.py [--items 200000] [--stores ours-ram,redis,…] [--runs 3] [--seconds 10] [--json FILE]

Each store runs in a process of its own, each of its phases for `--seconds` at most; what is slower is measured
on as many items as fit. A phase of writes ends when the store has them all: flushed, committed, answered.
Of several runs the median counts. Peers that are not installed are named as missing, not left out.
"""

from __future__ import annotations

import argparse
import json
import os
import platform
import random
import shutil
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any, Callable, Dict, Iterable, Iterator, List, Optional, Tuple

SEED = 20240229
VALUE_BYTES = 100
SECONDS = 10.0
MANY = 100
HERE = Path(__file__).parent


def items(count: int) -> Tuple[List[str], List[bytes]]:
    """Keys of 16 characters and values of 100 bytes, the same for each store."""
    draw = random.Random(SEED)
    keys = ["%016x" % draw.getrandbits(64) for _ in range(count)]
    pool = draw.randbytes(1 << 20)
    spots = [draw.randrange(len(pool) - VALUE_BYTES) for _ in range(count)]
    return keys, [pool[at : at + VALUE_BYTES] for at in spots]


def rate(work: Iterable[Any], end: Callable[[], Any] = lambda: None, step: int = 1) -> float:
    """Items a second: `work` does `step` of them at each turn, `end` completes what was begun."""
    done, began = 0, time.perf_counter()
    deadline = began + SECONDS
    for done, _ in enumerate(work, 1):
        if not done & 63 and time.perf_counter() > deadline:
            break
    end()
    return done * step / (time.perf_counter() - began)


def server(*options: str) -> Tuple["subprocess.Popen[str]", str]:
    command = [sys.executable, "-m", "mivrhash.mivrhashservice", "0", *options]
    process = subprocess.Popen(command, stdout=subprocess.PIPE, text=True)
    assert process.stdout is not None
    return process, "127.0.0.1:" + process.stdout.readline().rsplit(" ", 1)[1].strip()


def measure_dict(
    store: Any,
    keys: List[str],
    values: List[bytes],
    flush: Callable[[], Any],
    count: Optional[Callable[[], int]] = None,
) -> Dict[str, float]:
    """The three phases through a mapping's own operators."""

    def inserts() -> Iterator[None]:
        for key, value in zip(keys, values):
            store[key] = value
            yield

    def gets() -> Iterator[None]:
        for key in wanted:
            store[key]
            yield

    figures = {"inserts": rate(inserts(), flush)}
    have = len(store) if count is None else count()
    draw = random.Random(SEED + 1)
    wanted = draw.choices(keys[:have], k=len(keys))
    at = {key: value for key, value in zip(keys, values)}
    assert all(store[key] == at[key] for key in wanted[:50])
    figures["gets"] = rate(gets())
    figures["iteration"] = rate(store.items())
    return figures


def ours(directory: Path, keys: List[str], values: List[bytes], limit: str, cache: int) -> Any:
    from mivrhash import RHash

    process, address = server("--mem-limit", limit, "--data", str(directory))
    try:
        with RHash[str, bytes](address, cache_bytes=cache) as store:
            figures = measure_dict(store, keys, values, store.flush)
            draw = random.Random(SEED + 2)
            batches = [draw.choices(keys, k=MANY) for _ in range(len(keys) // MANY)]
            figures["get_many"] = rate((store.get_many(b) for b in batches), step=MANY)
            return figures
    finally:
        process.terminate()
        process.wait(timeout=60)


def redis(directory: Path, keys: List[str], values: List[bytes], pipelined: bool) -> Any:
    import redis as client

    program = shutil.which("redis-server")
    if program is None:
        raise ImportError("no redis-server")
    socket_options = ["--port", "0", "--save", "", "--appendonly", "no"]
    with __import__("socket").socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    socket_options[1] = str(port)
    process = subprocess.Popen([program, *socket_options], stdout=subprocess.DEVNULL)
    try:
        store: Any = client.Redis(port=port)
        deadline = time.monotonic() + 20
        while True:
            try:
                store.ping()
                break
            except client.ConnectionError:
                assert time.monotonic() < deadline
        if pipelined:
            return redis_pipelined(store, keys, values)

        def inserts() -> Iterator[Any]:
            for key, value in zip(keys, values):
                yield store.hset("h", key, value)

        figures = {"inserts": rate(inserts())}
        wanted = random.Random(SEED + 1).choices(keys[: store.hlen("h")], k=len(keys))
        figures["gets"] = rate(store.hget("h", key) for key in wanted)
        figures["iteration"] = rate(store.hscan_iter("h", count=1000))
        return figures
    finally:
        process.terminate()
        process.wait(timeout=60)


def redis_pipelined(store: Any, keys: List[str], values: List[bytes]) -> Dict[str, float]:
    def parts(names: List[str]) -> Iterator[List[str]]:
        return (names[at : at + 1000] for at in range(0, len(names), 1000))

    at = dict(zip(keys, values))

    def inserts() -> Iterator[Any]:
        for part in parts(keys):
            pipe = store.pipeline(transaction=False)
            for key in part:
                pipe.hset("h", key, at[key])
            yield pipe.execute()

    def gets() -> Iterator[Any]:
        for part in parts(random.Random(SEED + 1).choices(keys, k=len(keys))):
            pipe = store.pipeline(transaction=False)
            for key in part:
                pipe.hget("h", key)
            yield pipe.execute()

    return {
        "inserts": rate(inserts(), step=1000),
        "gets": rate(gets(), step=1000),
        "iteration": rate(store.hscan_iter("h", count=10_000)),
    }


def diskcache(directory: Path, keys: List[str], values: List[bytes]) -> Any:
    import diskcache as peer

    store: Any = peer.Index(str(directory))
    return measure_dict(store, keys, values, lambda: None)


def sqlitedict(directory: Path, keys: List[str], values: List[bytes]) -> Any:
    import sqlitedict as peer

    store: Any = peer.SqliteDict(str(directory / "d.sqlite"))
    figures = measure_dict(store, keys, values, store.commit)
    store.close()
    return figures


def shelve(directory: Path, keys: List[str], values: List[bytes]) -> Any:
    import shelve as peer

    with peer.open(str(directory / "shelf")) as store:
        return measure_dict(store, keys, values, store.sync)


def rocksdict(directory: Path, keys: List[str], values: List[bytes]) -> Any:
    import rocksdict as peer

    store: Any = peer.Rdict(str(directory))
    return measure_dict(store, keys, values, store.flush, lambda: sum(1 for _ in store.keys()))


def original(directory: Path, keys: List[str], values: List[bytes]) -> Any:
    """MivRHash 1.0.1 under Python 2.7, its source taken from the package index."""
    program = os.environ.get("PYTHON27") or shutil.which("python2.7")
    if program is None:
        raise ImportError("no python2.7")
    command = [sys.executable, "-m", "pip", "download", "-q", "--no-deps", "--no-binary", ":all:"]
    subprocess.run([*command, "-d", str(directory), "mivrhash==1.0.1"], check=True)
    shutil.unpack_archive(next(directory.glob("mivrhash*")), directory)
    source = str(directory / "mivrhash-1.0.1")
    process = subprocess.Popen([program, str(HERE / "original.py"), "serve", source, "10081"])
    try:
        arguments = ["measure", source, "10081", str(len(keys)), str(SECONDS)]
        done = subprocess.run(
            [program, str(HERE / "original.py"), *arguments], check=True, capture_output=True
        )
        return json.loads(done.stdout.splitlines()[-1])
    finally:
        process.kill()
        process.wait()


DEFAULT_CACHE = 64 << 20
STORES: Dict[str, Callable[[Path, List[str], List[bytes]], Any]] = {
    "ours-ram": lambda d, k, v: ours(d, k, v, "2G", DEFAULT_CACHE),
    "ours-24M": lambda d, k, v: ours(d, k, v, "24M", DEFAULT_CACHE),
    "ours-ram-cache-tenth": lambda d, k, v: ours(d, k, v, "2G", len(k) * 116 // 10),
    "ours-24M-cache-tenth": lambda d, k, v: ours(d, k, v, "24M", len(k) * 116 // 10),
    "redis": lambda d, k, v: redis(d, k, v, False),
    "redis-pipelined": lambda d, k, v: redis(d, k, v, True),
    "diskcache": diskcache,
    "sqlitedict": sqlitedict,
    "shelve": shelve,
    "rocksdict": rocksdict,
    "original": original,
}


def child(store: str, count: int, seconds: float) -> None:
    global SECONDS
    SECONDS = seconds
    keys, values = items(count)
    with tempfile.TemporaryDirectory(prefix="mivrhash-bench-") as directory:
        try:
            print(json.dumps(STORES[store](Path(directory), keys, values)))
        except ImportError as error:
            print(json.dumps({"missing": str(error)}))


def run(store: str, count: int, seconds: float) -> Dict[str, Any]:
    command = [sys.executable, __file__, "--child", store, "--items", str(count)]
    command += ["--seconds", str(seconds)]
    done = subprocess.run(command, capture_output=True, text=True, timeout=600)
    if done.returncode != 0:
        return {"failed": done.stderr.strip().splitlines()[-1] if done.stderr else "?"}
    figures: Dict[str, Any] = json.loads(done.stdout.splitlines()[-1])
    return figures


def median(runs: List[Dict[str, Any]]) -> Dict[str, Any]:
    if any("missing" in run or "failed" in run for run in runs):
        return runs[0]
    return {phase: statistics.median(run[phase] for run in runs) for phase in runs[0]}


def shown(figure: Optional[float]) -> str:
    return "" if figure is None else f"{figure:,.0f}"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else None)
    parser.add_argument("--items", type=int, default=200_000)
    parser.add_argument("--stores", default=",".join(STORES))
    parser.add_argument("--runs", type=int, default=3)
    parser.add_argument("--seconds", type=float, default=SECONDS)
    parser.add_argument("--json")
    parser.add_argument("--child", help=argparse.SUPPRESS)
    given = parser.parse_args()
    if given.child:
        return child(given.child, given.items, given.seconds)
    print(f"{given.items} items of 16+{VALUE_BYTES} bytes, seed {SEED}, median of {given.runs} runs,")
    print(f"items a second; {os.cpu_count()} cores, Python {platform.python_version()}\n")
    phases = ["inserts", "gets", "iteration", "get_many"]
    print(f"| store | {' | '.join(phases)} |\n|---|{'---:|' * len(phases)}")
    results = {}
    for store in given.stores.split(","):
        figures = median([run(store, given.items, given.seconds) for _ in range(given.runs)])
        results[store] = figures
        why = figures.get("missing") or figures.get("failed")
        cells = [why, "", "", ""] if why else [shown(figures.get(phase)) for phase in phases]
        print(f"| {store} | {' | '.join(cells)} |", flush=True)
    if given.json:
        Path(given.json).write_text(json.dumps({"items": given.items, "rates": results}, indent=1))


if __name__ == "__main__":
    main()
