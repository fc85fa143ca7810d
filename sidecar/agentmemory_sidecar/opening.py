"""A Memory from a configuration."""

from __future__ import annotations

from agentmemory_engine.embedding import Embedder, EmbeddingMisconfigured, open_embedder
from agentmemory_engine.memory import Memory
from agentmemory_engine.observer import Observer
from agentmemory_engine.postgres import Postgres
from agentmemory_engine.redis import Redis
from agentmemory_sidecar.config import Config
from agentmemory_sidecar.errors import ConfigError


def make_memory(
    config: Config, observer: Observer | None = None, *, embedder: Embedder | None = None, work: bool = True
) -> Memory:
    """The memory, not opened yet. Raises ConfigError for embeddings that cannot be made as configured."""
    redis = Redis(config.redis, client_name="agentmemory-sidecar")
    postgres = Postgres(
        config.postgres_dsn,
        config.credentials.login("postgres"),
        schema=config.settings.keys.schema,
        trust=config.credentials.trust("postgres"),
    )
    return Memory(config.settings, redis, postgres, embedder or _embedder(config), observer, work=work)


def _embedder(config: Config) -> Embedder:
    spec = config.embedding
    try:
        return open_embedder(spec.provider, dimensions=spec.dimensions)
    except EmbeddingMisconfigured as error:
        raise ConfigError(f"spec.embedding: {error}") from None
