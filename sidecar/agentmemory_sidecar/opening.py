"""A Memory from a configuration."""

from __future__ import annotations

from collections.abc import Callable

from agentmemory_engine.embedding import Embedder, EmbeddingMisconfigured, EmbeddingUnavailable, open_embedder
from agentmemory_engine.errors import StoreUnavailable
from agentmemory_engine.memory import Memory
from agentmemory_engine.observer import Observer
from agentmemory_engine.postgres import Postgres
from agentmemory_engine.redis import Redis
from agentmemory_sidecar.config import Config
from agentmemory_sidecar.credentials import API_KEY, CredentialFiles
from agentmemory_sidecar.errors import ConfigError


def make_memory(
    config: Config, observer: Observer | None = None, *, embedder: Embedder | None = None, work: bool = True
) -> Memory:
    """The memory, not opened yet. Raises ConfigError for embeddings that cannot be made as configured."""
    redis = postgres = None
    if config.redis is not None:
        redis = Redis(config.redis, client_name="agentmemory-sidecar")
    if config.postgres_dsn is not None:
        files, schema = config.credentials, config.settings.keys.schema
        login, trust = files.login("postgres"), files.trust("postgres")
        postgres = Postgres(config.postgres_dsn, login, schema=schema, trust=trust)
    return Memory(config.settings, redis, postgres, embedder or _embedder(config), observer, work=work)


def _embedder(config: Config) -> Embedder:
    spec = config.embedding
    try:
        return open_embedder(
            spec.provider,
            dimensions=spec.dimensions,
            model=spec.model,
            base_url=spec.base_url,
            key=_key_of(config.credentials, needed=spec.secret_ref is not None),
        )
    except EmbeddingMisconfigured as error:
        raise ConfigError(f"spec.embedding: {error}") from None


def _key_of(files: CredentialFiles, *, needed: bool) -> Callable[[], str | None]:
    """Reads the key of the provider of embeddings each time it is called, so that a new one needs no restart."""

    def read() -> str | None:
        try:
            key = files.api_key()
        except StoreUnavailable as error:
            raise EmbeddingUnavailable(str(error)) from None
        if key is None and needed:
            raise EmbeddingUnavailable(
                f"there is no API key in {files.directory / API_KEY}; put it into the Secret of embedding.secretRef"
            )
        return key

    return read
