"""A sidecar in the test's own process, on real stores, and a client that sends what it is told to."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator, Mapping, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType
from typing import Any, Self

import aiohttp
from multidict import CIMultiDictProxy
from yarl import URL

from agentmemory.local.stores import LocalStores
from agentmemory_engine.distillation import Setup
from agentmemory_engine.embedding import Embedder, Vector, from_floats
from agentmemory_engine.embedding.none import NullEmbedder
from agentmemory_engine.memory import Memory
from agentmemory_engine.postgres import Postgres
from agentmemory_engine.redis import Credentials, Redis, RedisAddress
from agentmemory_engine.settings import Settings
from agentmemory_sidecar.config import Config
from agentmemory_sidecar.credentials import CredentialFiles
from agentmemory_sidecar.metrics import Metrics
from agentmemory_sidecar.resource import EmbeddingSpec
from agentmemory_sidecar.sidecar import Sidecar
from support.memories import postgres_dsn, prepare

PROBLEMS = "https://agentmemory.io/problems/"
CLIENT = {"AgentMemory-Client": "tests"}


def write_login(directory: Path, login: Credentials) -> CredentialFiles:
    """The mounted files of one login to both stores."""
    directory.mkdir(mode=0o700, exist_ok=True)
    for store in ("redis", "postgres"):
        (directory / f"{store}-username").write_text(login.username + "\n")
        (directory / f"{store}-password").write_text(login.password + "\n")
    return CredentialFiles(directory)


def make_config(stores: LocalStores, settings: Settings, credentials: CredentialFiles, **changes: Any) -> Config:
    """A configuration on free ports, for stores that answer at once or not at all."""
    address = RedisAddress(url=stores.redis_url, credentials=credentials.login("redis"), timeout=0.2)
    values: dict[str, Any] = {
        "settings": settings, "embedding": EmbeddingSpec(provider="None"),
        "redis": address if "redis" in settings.stores else None,
        "postgres_dsn": postgres_dsn(stores) if "postgres" in settings.stores else None,
        "credentials": credentials, "port": 0, "ops_host": "127.0.0.1",
        "ops_port": 0, "stop_timeout": 5.0,
    }  # fmt: skip
    return Config(**values | changes)


class LettersEmbedder:
    """Embeds a text as the frequencies of its letters: near texts share letters."""

    enabled = True
    model = "letters"
    dimensions = 26

    async def start(self) -> None:
        pass

    async def close(self) -> None:
        pass

    async def embed(self, texts: Sequence[str]) -> list[Vector]:
        return [await self.embed_query(text) for text in texts]

    async def embed_query(self, text: str) -> Vector:
        counts = [text.lower().count(letter) for letter in "abcdefghijklmnopqrstuvwxyz"]
        length = sum(count * count for count in counts) ** 0.5 or 1.0
        return from_floats([count / length for count in counts])


@dataclass(frozen=True)
class Answer:
    """What came back."""

    status: int
    headers: CIMultiDictProxy[str]
    body: bytes

    def json(self) -> Any:
        return json.loads(self.body)

    @property
    def code(self) -> str:
        """The stable part of a problem's type, after checking that it is a whole problem document."""
        problem = self.json()
        assert self.headers["Content-Type"] == "application/problem+json"
        assert problem["status"] == self.status
        assert problem["title"] and problem["detail"]
        assert problem["instance"] == self.headers["AgentMemory-Request-Id"]
        assert problem["type"].startswith(PROBLEMS)
        if self.status == 503:
            assert int(self.headers["Retry-After"]) >= 1
        return str(problem["type"].removeprefix(PROBLEMS))


@asynccontextmanager
async def open_sidecar(stores: LocalStores, settings: Settings, directory: Path) -> AsyncIterator[Running]:
    """A sidecar that is ready, on a memory of its own."""
    credentials = write_login(directory / "credentials", await prepare(stores, settings))
    async with Running(make_config(stores, settings, credentials)) as running:
        await running.wait_until_ready()
        yield running


class Running:
    """A sidecar that serves; `async with` starts and stops it."""

    def __init__(
        self, config: Config, *, embedder: Embedder | None = None, work: bool = True, postgres_timeout: float = 1.0,
        distil: Setup | None = None,
    ) -> None:  # fmt: skip
        self.config = config
        self.metrics = Metrics(config.settings.stores)
        redis = None if config.redis is None else Redis(config.redis)
        postgres = None
        if config.postgres_dsn is not None:
            files, schema = config.credentials, config.settings.keys.schema
            login, trust = files.login("postgres"), files.trust("postgres")
            postgres = Postgres(config.postgres_dsn, login, schema=schema, timeout=postgres_timeout, trust=trust)
        self.memory = Memory(
            config.settings, redis, postgres, embedder or NullEmbedder(), self.metrics, work=work, distil=distil
        )
        self.sidecar = Sidecar(config, self.memory, self.metrics)
        self._session: aiohttp.ClientSession | None = None

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.sidecar.port}"

    @property
    def ops_url(self) -> str:
        return f"http://127.0.0.1:{self.sidecar.ops_port}"

    async def __aenter__(self) -> Self:
        await self.sidecar.start()
        self._session = aiohttp.ClientSession()
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        assert self._session is not None
        await self._session.close()
        await self.sidecar.stop()

    async def wait_until_ready(self) -> None:
        """Until an event written now would be durable."""
        async with asyncio.timeout(60):
            while (await self.ops("/readyz")).status != 200:
                await asyncio.sleep(0.01)

    async def send(
        self,
        method: str,
        path: str,
        body: Any = None,
        *,
        raw: bytes | None = None,
        headers: Mapping[str, str] | None = None,
        client: bool = True,
    ) -> Answer:
        """One request to the API; `body` is sent as JSON, `raw` as it is."""
        assert self._session is not None
        data = raw if raw is not None or body is None else json.dumps(body).encode()
        every = (CLIENT if client else {}) | dict(headers or {})
        address = URL(self.url + path, encoded=True)
        async with self._session.request(
            method, address, data=data, headers=every, skip_auto_headers=("Content-Type",)
        ) as response:
            return Answer(response.status, response.headers, await response.read())

    async def ops(self, path: str, **headers: str) -> Answer:
        """One request to the second listener."""
        assert self._session is not None
        async with self._session.get(self.ops_url + path, headers=headers) as response:
            return Answer(response.status, response.headers, await response.read())

    async def turn(self, agent: str, *contents: str, **more: Any) -> Any:
        """Record messages; answers the receipt."""
        body = {"events": [{"role": "user", "content": content} for content in contents], **more}
        answer = await self.send("POST", f"/v1/agents/{agent}/turns", body)
        assert answer.status == 201, answer.body
        return answer.json()

    async def wait(self, agent: str, position: str, until: str = "durable") -> None:
        """The barrier."""
        body = {"positions": [{"agent": agent, "position": position}], "until": until}
        answer = await self.send("POST", "/v1/consolidation/barrier", body)
        assert answer.json() == {"reached": True, "until": until}
