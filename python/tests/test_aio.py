"""The asyncio twin."""

from __future__ import annotations

import asyncio
from typing import Any

import pytest

from mivrhash import aio


def test_it_does_what_the_other_does() -> None:
    async def main() -> None:
        async with await aio.RHash[Any, Any].open() as table:
            await table.set("k", [1])
            assert await table.get("k") == [1]
            assert await table["k"] == [1]
            assert await table.get("none", 5) == 5
            with pytest.raises(KeyError):
                await table["none"]
            await table.set_many({n: n for n in range(5000)})
            assert await table.len() == 5001
            assert sorted([key async for key in table if isinstance(key, int)]) == list(range(5000))
            assert len([value async for value in table.values()]) == 5001
            assert ("k", [1]) in [entry async for entry in table.items()]
            assert await table.get_many([1, "none"], 0) == [1, 0]
            assert await table.pop("k") == [1] and not await table.contains("k")
            assert await table.setdefault("s", 1) == 1
            await table.delete("s")
            await table.discard("s")
            await table.popitem()
            await table.clear()
            assert await table.is_empty()
            await table.flush()
        async with await aio.RHash[Any, Any].open(kind="lists") as lists:
            await asyncio.gather(*(lists.append("k", n) for n in range(50)))
            await lists.append_many("k", [50])
            assert sorted(await lists["k"]) == list(range(51))
        async with await aio.RHash[Any, int].open(kind="counters") as counters:
            await asyncio.gather(*(counters.add("k") for _ in range(50)))
            assert await counters.add_and_get("k", 2) == 52
        async with await aio.RHash[str, int].open(name="aio", durability="always") as safe:
            await safe.set("k", 1)
            await safe.sync()
            assert (await safe.stats())["durability"] == "always"
            await safe.close()

    asyncio.run(main())


def test_the_loop_goes_on_while_a_call_waits() -> None:
    async def main() -> int:
        turns = 0

        async def tick() -> None:
            nonlocal turns
            while True:
                turns += 1
                await asyncio.sleep(0)

        ticking = asyncio.create_task(tick())
        async with await aio.RHash[int, bytes].open() as table:
            await table.set_many({n: b"x" * 1000 for n in range(50_000)})
            await table.flush()
        ticking.cancel()
        return turns

    assert asyncio.run(main()) > 10
