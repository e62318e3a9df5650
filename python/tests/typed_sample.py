"""A program as users write them: type checkers must accept each line, and see the types."""

from __future__ import annotations

from pathlib import Path
from typing import Iterator, List, MutableMapping, Optional, Tuple

from mivrhash import Client, RHash, serve


def postings(table: RHash[str, List[int]]) -> int:
    table["a"] = [1]
    table["a"].append(2)
    first: List[int] = table["a"]
    maybe: Optional[List[int]] = table.get("b")
    table.setdefault("c", []).append(3)
    entries: Iterator[Tuple[str, List[int]]] = iter(table.items())
    keys: List[str] = list(table)
    total = sum(sum(value) for value in table.values())
    taken: Tuple[str, List[int]] = table.popitem()
    mapping: MutableMapping[str, List[int]] = table
    del entries, maybe, taken, mapping
    return total + len(keys) + len(first)


def from_elsewhere() -> None:
    identity = (Path("client.pem"), Path("client-key.pem"))
    with Client("rhash+tls://db.example", token_file=Path("t"), tls_identity=identity) as client:
        postings(client.table("t"))
    RHash[str, List[int]]("db.example", name="t", token_file="t", tls_ca="ca.pem").close()


def main() -> None:
    with serve(mem_limit="64M") as server, Client(server.address) as client:
        with RHash[str, List[int]](server.address) as table:
            postings(table)
        with client.table("ages") as ages:
            ages["Ada"] = 36
        swapped: bool = table.compare_and_swap("k", new=[1])
        print(swapped)
