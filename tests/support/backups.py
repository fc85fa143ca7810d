"""Taking Redis back in time, and bringing a memory in order after it."""

from __future__ import annotations

import shutil
from pathlib import Path

from agentmemory.local.stores import LocalStores
from agentmemory_engine.memory import Memory
from support.memories import admin_redis


async def flush(memory: Memory) -> None:
    """Tend every shard until all are open and nothing is pending."""
    await memory.consolidator._ownership.renew(all_of_them=True)
    while True:
        await memory.consolidator.flush()
        status = await memory.status()
        if status.pending == 0 and all(shard.open for shard in status.shards):
            return


class Backup:
    """What a crash of the machine goes back to: the append-only file as it is now."""

    def __init__(self, stores: LocalStores, directory: Path) -> None:
        self._stores = stores
        self._data = stores.directory / "valkey" / "data"
        self._copy = directory / "backup"

    async def take(self) -> None:
        async with admin_redis(self._stores) as client:
            await client.execute_command("CONFIG", "SET", "appendfsync", "always")
        shutil.copytree(self._data, self._copy)

    async def restore(self) -> None:
        await self._stores.valkey.kill()
        for entry in ("appendonlydir",):
            shutil.rmtree(self._data / entry)
            shutil.copytree(self._copy / entry, self._data / entry)
        await self._stores.valkey.start()
