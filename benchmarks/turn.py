"""The atomic turn, an event and a document at once, beside a plain SET of that document."""

from __future__ import annotations

import json
import random
from collections.abc import Sequence
from typing import Any
from uuid import uuid4

import msgspec

from agentmemory_engine.connection import Arg, Connection, ServerInfo
from agentmemory_engine.embedding.none import NullEmbedder
from agentmemory_engine.memory import Memory
from agentmemory_engine.redis import Redis
from agentmemory_engine.scripts import Script
from agentmemory_engine.settings import Settings
from agentmemory_engine.turns import Turn
from benchmarks.conversation import document_of, text_of
from benchmarks.figures import Section, at_most
from benchmarks.hot_read import DOCUMENT_SIZE
from benchmarks.latency import Spread, middle, ratios
from benchmarks.placement import OTHER_CORE, Contrast
from benchmarks.probe import Probe, measure_by_turns
from benchmarks.raw_http import RawHttp, make_request
from benchmarks.raw_redis import RawRedis, pack
from benchmarks.screen import Screen
from benchmarks.sizes import Sizes
from benchmarks.stage import Stage

TEXT_LENGTH = 350
_KEY = "benchmarks:document"
_RUN = b"0" * 40
_AGENT = "writer"
_LIMITS = {"script": 1.25, "sidecar": 4.0}


class CommandTap(Redis):
    """Stands in for Redis: keeps what the engine would send for a turn, and says that it was accepted."""

    def __init__(self) -> None:
        self.sent: list[bytes] = []
        self.script: Script | None = None
        self._info = ServerInfo(_RUN, "master", "valkey", "8.0", "noeviction", True, 0, 0)

    async def connection(self, key: str | None = None) -> Connection:
        """One that was never made, to a server that takes turns."""
        connection = Connection(timeout=1.0)
        connection.info = self._info
        return connection

    async def run_on(self, connection: Connection, script: Script, keys: Sequence[str], args: Sequence[Arg]) -> Any:
        """Keep the command."""
        self.script = script
        self.sent.append(pack("EVALSHA", script.digest, len(keys), *keys, *args))  # type: ignore[arg-type]
        return [b"accepted", b"1-1", b"1-1"]


class Turns:
    """Turns of one agent, as bodies for the sidecar and as commands for Redis; the keys in Redis are their own."""

    def __init__(self, stage: Stage, seed: int) -> None:
        self._stage = stage
        event = {"type": "message", "role": "user", "content": text_of(TEXT_LENGTH, random.Random(seed))}
        self.document = document_of(DOCUMENT_SIZE, seed)
        change = {"set": json.loads(self.document)}
        self.body = json.dumps({"session": "day-1", "events": [event], "working_memory": change}).encode()
        self.settings = Settings(namespace="benchmarks", name="script", shards=1)

    async def commands(self, count: int) -> tuple[Script, list[bytes]]:
        """The very commands that the engine sends for `count` turns, each under its own key."""
        tap = CommandTap()
        memory = Memory(self.settings, tap, self._stage.postgres(), NullEmbedder(), work=False)
        turn = msgspec.json.decode(self.body, type=Turn)
        for _ in range(count):
            await memory.record(_AGENT, turn, key=uuid4().hex)
        assert tap.script is not None
        return tap.script, tap.sent

    def requests(self, count: int) -> list[bytes]:
        """The same turns for the sidecar."""
        path = f"/v1/agents/{_AGENT}/turns"
        return [make_request("POST", path, self.body, {"Idempotency-Key": uuid4().hex}) for _ in range(count)]


async def measure_turn(stage: Stage, sizes: Sizes, seed: int, screen: Screen) -> Section:
    """SET, the script, POST turns, in this order in every round."""
    contrasts = stage.pinning.contrasts
    screen.begin("Atomic turn", sizes.rounds)
    turns = Turns(stage, seed)
    script, commands = await turns.commands(sizes.warm_up + sizes.calls)
    with stage.http() as http, stage.redis() as redis:
        redis.command("SCRIPT", "LOAD", script.source)
        _open_shard(turns, redis)
        probes: dict[str, Probe] = {}
        for contrast in contrasts:
            probes |= _probes(contrast, turns, commands, http, redis)
        spreads = measure_by_turns(probes, stage.pinning, sizes, screen.step)
        _clear(turns, redis)
        redis.command("DEL", _KEY)
    section = Section(f"Atomic turn: a document of {DOCUMENT_SIZE:,} bytes and an event of {TEXT_LENGTH} characters")
    for contrast in contrasts:
        _report(section, contrast, spreads)
    section.notes.append(
        "All over TCP, append-only file with fsync every second. The limits were set with client and Redis apart. "
        "The sidecar consolidates meanwhile, as it does in use; each round ends once all is durable."
    )
    return section


def _open_shard(turns: Turns, redis: RawRedis) -> None:
    redis.command("HSET", turns.settings.keys.state(0), "run", _RUN, "opening", 1)


def _clear(turns: Turns, redis: RawRedis) -> None:
    """Forget all turns of the script."""
    for key in redis.command("KEYS", turns.settings.keys.prefix + "*"):
        redis.command("DEL", key)


def _probes(
    contrast: Contrast, turns: Turns, commands: list[bytes], http: RawHttp, redis: RawRedis
) -> dict[str, Probe]:
    set_document = pack("SET", _KEY, turns.document)

    def forget() -> None:
        # The same commands come again in the next round, and have to be new to Redis.
        _clear(turns, redis)
        _open_shard(turns, redis)

    def flush() -> None:
        last = http.ask("POST", f"/v1/agents/{_AGENT}/turns", turns.body)["position"]
        wish = {"positions": [{"agent": _AGENT, "position": last}], "until": "durable", "timeout_seconds": 60}
        http.ask("POST", "/v1/consolidation/barrier", wish)

    name = contrast.name
    return {
        f"set, {name}": Probe(contrast.raw, lambda count: [set_document] * count, redis.exchange),
        f"script, {name}": Probe(contrast.raw, lambda count: commands[:count], redis.exchange, forget),
        f"sidecar, {name}": Probe(contrast.served, turns.requests, http.exchange, flush),
    }


def _report(section: Section, contrast: Contrast, spreads: dict[str, list[Spread]]) -> None:
    plain, script, sidecar = (spreads[f"{name}, {contrast.name}"] for name in ("set", "script", "sidecar"))
    judged = contrast.name in (OTHER_CORE.name, "free")
    raw, served = contrast.raw.describe(), contrast.served.describe()
    section.add(
        f"turn's script to SET, p50, {contrast.name}", ratios(script, plain), "x",
        at_most(_LIMITS["script"]) if judged else None, placement=raw,
    )  # fmt: skip
    section.add(
        f"POST turns to SET, p50, {contrast.name}", ratios(sidecar, plain), "x",
        at_most(_LIMITS["sidecar"]) if judged else None,
        placement=f"SET: {raw}. Sidecar: {served}" if raw != served else raw,
    )  # fmt: skip
    section.add_spread(f"SET, {contrast.name}", middle(plain), "us")
    section.add_spread(f"turn's script, {contrast.name}", middle(script), "us")
    section.add_spread(f"POST turns, {contrast.name}", middle(sidecar), "us")
