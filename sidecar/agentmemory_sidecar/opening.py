"""A Memory from a configuration."""

from __future__ import annotations

from agentmemory_engine.distillation import Bounds, OpenAIChat, Setup
from agentmemory_engine.embedding import Embedder, EmbeddingMisconfigured, open_embedder
from agentmemory_engine.endpoint import ApiKey, Patience
from agentmemory_engine.errors import ProviderUnavailable, StoreUnavailable
from agentmemory_engine.memory import Memory
from agentmemory_engine.observer import Observer
from agentmemory_engine.postgres import Postgres
from agentmemory_engine.redis import Redis
from agentmemory_sidecar.config import Config
from agentmemory_sidecar.credentials import DISTILLATION, EMBEDDING, CredentialFiles
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
    return Memory(
        config.settings, redis, postgres, embedder or _embedder(config), observer, work=work, distil=_distil(config)
    )


def bounds_of(config: Config) -> Bounds:
    """What the distillation of a session may cost."""
    return Bounds(
        tokens=config.distillation_tokens,
        attempts=config.distillation_attempts,
        claim=5 * config.distillation_timeout,
    )


def _distil(config: Config) -> Setup | None:
    spec, seconds = config.distillation, config.distillation_timeout
    if spec is None:
        return None
    key = _key_of(config.credentials, DISTILLATION, needed=spec.secret_ref is not None)
    try:
        chat = OpenAIChat(spec.endpoint, model=spec.model, key=key, patience=Patience(one=seconds, texts=seconds))
    except ValueError as error:
        raise ConfigError(f"spec.distillation: {error}") from None
    return Setup(chat, bounds_of(config))


def _embedder(config: Config) -> Embedder:
    spec = config.embedding
    try:
        return open_embedder(
            spec.provider,
            dimensions=spec.dimensions,
            model=spec.model,
            base_url=spec.base_url,
            path=spec.path,
            key=_key_of(config.credentials, EMBEDDING, needed=spec.secret_ref is not None),
        )
    except EmbeddingMisconfigured as error:
        raise ConfigError(f"spec.embedding: {error}") from None


def _key_of(files: CredentialFiles, use: str, *, needed: bool) -> ApiKey:
    """Reads the key of a provider each time it is called, so that a new one needs no restart."""

    def read() -> str | None:
        try:
            key = files.api_key(use)
        except StoreUnavailable as error:
            raise ProviderUnavailable(str(error)) from None
        if key is None and needed:
            file = files.directory / f"{use}-api-key"
            raise ProviderUnavailable(f"there is no API key in {file}; put it into the Secret of {use}.secretRef")
        return key

    return read
