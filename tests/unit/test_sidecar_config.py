"""Configuration: what the YAML and the environment become, and how a mistake in them is named."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from agentmemory_engine.errors import ProviderUnavailable, StoreUnavailable
from agentmemory_sidecar.config import Config, load_config
from agentmemory_sidecar.credentials import EMBEDDING, CredentialFiles
from agentmemory_sidecar.errors import ConfigError
from agentmemory_sidecar.opening import _distil, _embedder, _key_of, bounds_of
from agentmemory_sidecar.quantities import parse_duration, parse_size

WHOLE = """
apiVersion: agentmemory.io/v1alpha1
kind: AgentMemory
metadata: {name: research, namespace: team, labels: {a: b}, uid: 1-2-3}
spec:
  mode: Hybrid
  shards: 8
  workingMemory: {ttl: 1h30m, recentMessages: 20, maxDocumentSize: 512Ki}
  consolidation:
    maxDelay: 500ms
    batchSize: 64
    alerts: {warningRatio: 0.5, criticalRatio: 0.8}
  embedding:
    provider: Local
    dimensions: 384
  recall: {distance: Cosine, index: {kind: Exact, m: 16, efConstruction: 128}}
  retention: {events: 90d}
  redis:
    managed: {storage: {size: 1Gi}, persistence: {appendfsync: everysec}, resources: {}}
  postgres:
    managed: {storage: {size: 10Gi}, resources: {}}
    pooler: {enabled: false}
  sidecar: {image, resources, port: 7170, opsPort: 7171}
  monitoring: {enabled: true}
  deletionPolicy: Retain
status: {phase: Ready, anything: [1]}
"""
LEAST = "apiVersion: agentmemory.io/v1alpha1\nkind: AgentMemory\nmetadata: {name: a}\n"
STORES = {"AGENTMEMORY_REDIS_URL": "redis://redis:6379", "AGENTMEMORY_POSTGRES_DSN": "postgresql://pg:5432/am"}
Load = Callable[..., Config]


@pytest.fixture
def load(tmp_path: Path) -> Load:
    """Loads a YAML with an environment; a variable of None is left out."""

    def load(text: str = LEAST, **changes: str | None) -> Config:
        path = tmp_path / "memory.yaml"
        path.write_text(text)
        every = {"AGENTMEMORY_CONFIG": str(path), "AGENTMEMORY_CREDENTIALS_DIR": str(tmp_path), **STORES, **changes}
        return load_config({name: value for name, value in every.items() if value is not None})[0]

    return load


def with_spec(spec: str) -> str:
    return f"{LEAST}spec: {spec}\n"


def test_the_whole_resource_becomes_settings(load: Load) -> None:
    config = load(WHOLE, AGENTMEMORY_INSTANCE="pod-1", AGENTMEMORY_LEASE="3", AGENTMEMORY_AGENTS="a, b-*,")
    settings = config.settings
    assert (settings.namespace, settings.name, settings.shards) == ("team", "research", 8)
    assert (settings.ttl, settings.recent_messages, settings.max_document_size) == (5400.0, 20, 524_288)
    assert (settings.max_delay, settings.batch_size) == (0.5, 64)
    assert (settings.instance, settings.lease) == ("pod-1", 3.0)
    channels = {"MESSAGES": "5", "BYTES": "300000", "AGE": "60"}
    changed = load(AGENTMEMORY_FOLLOWERS="7", **{f"AGENTMEMORY_CHANNEL_{name}": to for name, to in channels.items()})
    kept = changed.settings
    assert (kept.channel_messages, kept.channel_bytes, kept.channel_age, kept.followers) == (5, 300_000, 60.0, 7)
    assert (config.port, config.ops_port, config.agents) == (7170, 7171, ("a", "b-*"))
    assert (config.embedding.provider, config.embedding.dimensions) == ("Local", 384)


def test_what_is_left_out_has_the_defaults_of_the_design(load: Load) -> None:
    config = load()
    settings = config.settings
    assert (settings.namespace, settings.shards, settings.ttl, settings.recent_messages) == ("default", 16, 3600.0, 50)
    assert (settings.max_document_size, settings.max_delay, settings.batch_size) == (1 << 20, 5.0, 256)
    assert (config.port, config.ops_port, config.ops_host, config.max_body) == (7070, 7071, "0.0.0.0", 4 << 20)
    assert (settings.channel_messages, settings.channel_bytes, settings.channel_age) == (10_000, 32 << 20, 604_800.0)
    assert (config.stop_timeout, config.drain_timeout, settings.lease, config.agents) == (20.0, 600.0, 10.0, ())


def test_the_environment_overrides_the_ports(load: Load) -> None:
    config = load(WHOLE, AGENTMEMORY_PORT="1", AGENTMEMORY_OPS_PORT="2", AGENTMEMORY_OPS_HOST="127.0.0.1")
    assert (config.port, config.ops_port, config.ops_host) == (1, 2, "127.0.0.1")


def test_a_body_has_room_for_the_largest_document(load: Load) -> None:
    assert load(with_spec("{workingMemory: {maxDocumentSize: 8Mi}}")).max_body == 16 << 20
    assert load(AGENTMEMORY_MAX_BODY="2048").max_body == 2048


def test_external_stores_are_used_where_the_environment_names_none(load: Load) -> None:
    spec = "{redis: {external: {host: '::1', tls: true}}, postgres: {external: {host: pg, database: 'a b'}}}"
    config = load(with_spec(spec), AGENTMEMORY_REDIS_URL=None, AGENTMEMORY_POSTGRES_DSN=None)
    assert config.redis is not None
    assert config.redis.url == "rediss://[::1]:6379"
    assert config.postgres_dsn == "postgresql://pg:5432/a%20b?sslmode=prefer"
    address = load(with_spec(spec)).redis
    assert address is not None and address.url == STORES["AGENTMEMORY_REDIS_URL"]


@pytest.mark.parametrize(
    ("mode", "needed", "spared"),
    [("Postgres", "AGENTMEMORY_POSTGRES_DSN", "AGENTMEMORY_REDIS_URL"),
     ("Redis", "AGENTMEMORY_REDIS_URL", "AGENTMEMORY_POSTGRES_DSN")],
)  # fmt: skip
def test_a_mode_wants_the_address_of_its_own_store_only(load: Load, mode: str, needed: str, spared: str) -> None:
    config = load(with_spec(f"{{mode: {mode}}}"), **{spared: None})
    assert (config.redis is None, config.postgres_dsn is None) == (mode == "Postgres", mode == "Redis")
    with pytest.raises(ConfigError, match=needed):
        load(with_spec(f"{{mode: {mode}}}"), **{needed: None})


def test_events_are_kept_for_good_unless_a_retention_is_given(load: Load) -> None:
    assert load(WHOLE).settings.retention == 90 * 86_400
    assert load(LEAST).settings.history == 1000
    assert load(LEAST).settings.retention is None


def test_export_and_erasure_are_allowed_only_where_it_is_said(load: Load) -> None:
    assert not load().allow_whole
    assert load(AGENTMEMORY_ALLOW_EXPORT_AND_ERASURE="true").allow_whole
    with pytest.raises(ConfigError, match="AGENTMEMORY_ALLOW_EXPORT_AND_ERASURE"):
        load(AGENTMEMORY_ALLOW_EXPORT_AND_ERASURE="yes")


@pytest.mark.parametrize(
    ("spec", "named"),
    [
        ("{shards: 0}", "spec.shards"),
        ("{shards: 1025}", "spec.shards"),
        ("{shards: many}", "spec.shards"),
        ("{workingMemory: {ttl: 0s}}", "spec.workingMemory.ttl"),
        ("{workingMemory: {ttl: 60}}", "spec.workingMemory.ttl: 60 is not a duration"),
        ("{workingMemory: {ttl: 1w}}", "spec.workingMemory.ttl"),
        ("{workingMemory: {ttl: 4000d}}", "spec.workingMemory.ttl"),
        ("{workingMemory: {maxDocumentSize: 1MB}}", "spec.workingMemory.maxDocumentSize"),
        ("{workingMemory: {maxDocumentSize: 1Gi}}", "spec.workingMemory.maxDocumentSize"),
        ("{workingMemory: {maxDocumentSize: true}}", "spec.workingMemory.maxDocumentSize"),
        ("{workingMemory: {recentMessages: 0}}", "spec.workingMemory.recentMessages"),
        ("{workingMemory: {tll: 1h}}", "spec.workingMemory: Object contains unknown field `tll`"),
        ("{consolidation: {maxDelay: 0s}}", "spec.consolidation.maxDelay"),
        ("{consolidation: {batchSize: 0}}", "spec.consolidation.batchSize"),
        ("{retention: {events: 0s}}", "spec.retention.events"),
        ("{retention: {events: 36501d}}", "spec.retention.events"),
        ("{embedding: {dimensions: 0}}", "spec.embedding.dimensions"),
        ("{embedding: {provider: Cohere}}", "spec.embedding.provider"),
        ("{embedding: {provider: OpenAI}}", "spec.embedding.model: the provider OpenAI needs one"),
        ("{embedding: {provider: OpenAI, model: ''}}", "spec.embedding.model"),
        ("{embedding: {model: small}}", "spec.embedding.model: it is for the provider OpenAI only"),
        ("{embedding: {provider: None, baseUrl: 'http://a'}}", "spec.embedding.baseUrl: it is for the provider"),
        ("{mode: Redis, postgres: {managed: {}}}", "spec.postgres: mode Redis does without it"),
        ("{mode: Postgres, redis: {external: {host: a}}}", "spec.redis: mode Postgres does without it"),
        ("{mode: hybrid}", "spec.mode"),
        ("{recall: {index: {kind: IVF}}}", "spec.recall.index.kind"),
        ("{recall: {index: {kind: HNSW, m: 16, efConstruction: 20}}}", "spec.recall.index.efConstruction: it is"),
        ("{embedding: {provider: None, path: /models}}", "spec.embedding.path: it is for the provider Local only"),
        ("{redis: {managed: {}, external: {host: a}}}", "spec.redis: managed and external"),
        ("{postgres: {managed: {}, external: {host: a}}}", "spec.postgres: managed and external"),
        ("{redis: {external: {host: a, password: b}}}", "spec.redis.external"),
        ("{sidecar: {port: 70000}}", "spec.sidecar.port"),
        ("{unknown: 1}", "unknown field `unknown`"),
        ("[1]", "spec"),
    ],
)
def test_a_mistake_in_the_resource_is_named_by_its_field(load: Load, spec: str, named: str) -> None:
    with pytest.raises(ConfigError) as caught:
        load(with_spec(spec))
    assert named in str(caught.value)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(
    ("text", "named"),
    [
        ("", "the document"),
        ("[", "is not YAML"),
        ("a: 1\n---\nb: 2", "is not YAML"),
        (LEAST.replace("v1alpha1", "v1"), "apiVersion"),
        (LEAST.replace("AgentMemory", "Deployment"), "kind"),
        (LEAST.replace("name: a", "name: A_b"), "metadata.name"),
        (LEAST.replace("name: a", "name: " + "a" * 64), "metadata.name"),
        (LEAST.replace("name: a", "name: a, namespace: '{x}'"), "metadata.namespace"),
        (LEAST.replace("name: a", "labels: {}"), "metadata"),
    ],
)
def test_what_is_no_agentmemory_is_refused(load: Load, text: str, named: str) -> None:
    with pytest.raises(ConfigError) as caught:
        load(text)
    assert named in str(caught.value)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(
    ("name", "value", "why"),
    [
        ("AGENTMEMORY_CONFIG", None, "is not set"),
        ("AGENTMEMORY_CONFIG", "/nowhere/x.yaml", "cannot read"),
        ("AGENTMEMORY_CREDENTIALS_DIR", None, "is not set"),
        ("AGENTMEMORY_REDIS_URL", None, "is not set"),
        ("AGENTMEMORY_REDIS_URL", "redis://:s3cret@host", "carries a login"),
        ("AGENTMEMORY_REDIS_URL", "redis://user@host", "carries a login"),
        ("AGENTMEMORY_REDIS_URL", "redis://host/1", "only database 0"),
        ("AGENTMEMORY_REDIS_URL", "http://host", "redis://host:port"),
        ("AGENTMEMORY_REDIS_URL", "redis://host:x", "is not an address"),
        ("AGENTMEMORY_REDIS_URL", "unix://host/path", "redis://host:port"),
        ("AGENTMEMORY_POSTGRES_DSN", None, "is not set"),
        ("AGENTMEMORY_POSTGRES_DSN", "postgresql://u:s3cret@host/db", "carries a password"),
        ("AGENTMEMORY_POSTGRES_DSN", "postgresql://host/db?password=s3cret", "carries a password"),
        ("AGENTMEMORY_POSTGRES_DSN", "host=a password=s3cret", "postgresql://host:port/database"),
        ("AGENTMEMORY_PORT", "70000", "is not from 0 to 65535"),
        ("AGENTMEMORY_PORT", "http", "is not a number"),
        ("AGENTMEMORY_OPS_PORT", "-1", "is not from"),
        ("AGENTMEMORY_LEASE", "0", "is not from"),
        ("AGENTMEMORY_LEASE", "nan", "is not from"),
        ("AGENTMEMORY_CHANNEL_MESSAGES", "0", "is not from"),
        ("AGENTMEMORY_CHANNEL_BYTES", "1000", "is not from"),
        ("AGENTMEMORY_CHANNEL_AGE", "nan", "is not from"),
        ("AGENTMEMORY_FOLLOWERS", "0", "is not from"),
        ("AGENTMEMORY_MAX_BODY", "1.5", "is not a number"),
        ("AGENTMEMORY_STOP_TIMEOUT", "-1", "is not from"),
    ],
)
def test_a_mistake_in_the_environment_is_named_and_shows_no_secret(
    load: Load, name: str, value: str | None, why: str
) -> None:
    with pytest.raises(ConfigError) as caught:
        load(**{name: value})
    assert name in str(caught.value) and why in str(caught.value)
    assert "s3cret" not in str(caught.value)


@pytest.mark.parametrize("url", ["redis://h", "rediss://h:1/0", "unix:///a/b.sock", "redis://[::1]:6379/"])
def test_addresses_that_the_engine_takes(load: Load, url: str) -> None:
    address = load(AGENTMEMORY_REDIS_URL=url).redis
    assert address is not None and address.url == url


def test_a_login_is_read_anew_each_time(tmp_path: Path) -> None:
    files = CredentialFiles(tmp_path)
    for part, value in (("username", "u\n"), ("password", "first\n")):
        (tmp_path / f"redis-{part}").write_text(value)
    read = files.login("redis")
    assert (read().username, read().password) == ("u", "first")
    (tmp_path / "redis-password").write_text("second")
    assert read().password == "second"
    assert "second" not in repr(read())


@pytest.mark.parametrize("content", [None, b"", b"\n", b"\xff\xfe"])
def test_a_login_that_cannot_be_read_is_the_stores_trouble(tmp_path: Path, content: bytes | None) -> None:
    (tmp_path / "postgres-username").write_text("u")
    if content is not None:
        (tmp_path / "postgres-password").write_bytes(content)
    with pytest.raises(StoreUnavailable, match="postgres-password") as caught:
        CredentialFiles(tmp_path).login("postgres")()
    assert caught.value.store == "postgres"


def test_logins_are_made_once_and_for_their_owner_alone(tmp_path: Path) -> None:
    files = CredentialFiles(tmp_path / "new")
    assert len(files.create("someone", ("redis", "postgres"))) == 4
    first = files.login("redis")(), files.login("postgres")()
    assert files.create("someone-else", ("redis", "postgres")) == []
    assert (files.login("redis")(), files.login("postgres")()) == first
    assert {login.username for login in first} == {"someone"}
    assert len({login.password for login in first}) == 2
    assert (tmp_path / "new").stat().st_mode & 0o777 == 0o700
    assert {path.stat().st_mode & 0o777 for path in (tmp_path / "new").iterdir()} == {0o600}
    assert len(list((tmp_path / "new").iterdir())) == 4


@pytest.mark.parametrize(
    ("text", "seconds"), [("500ms", 0.5), ("5s", 5), ("1h", 3600), ("7d", 604_800), ("1h30m", 5400), ("0s", 0)]
)
def test_durations(text: str, seconds: float) -> None:
    assert parse_duration(text) == seconds


@pytest.mark.parametrize(
    ("text", "size"), [("1Mi", 1 << 20), ("512Ki", 1 << 19), ("1M", 1_000_000), (1024, 1024), ("10", 10), ("2k", 2000)]
)
def test_sizes(text: str | int, size: int) -> None:
    assert parse_size(text) == size


@given(st.one_of(st.text(), st.integers(), st.floats(), st.none(), st.booleans()))
def test_anything_else_is_a_value_error(value: object) -> None:
    for parse in (parse_duration, parse_size):
        try:
            assert parse(value) >= 0
        except ValueError as error:
            assert len(str(error)) < 200


OPENAI = "{embedding: {provider: OpenAI, model: small, dimensions: 8, baseUrl: 'http://127.0.0.1:1/v1'%s}}"


async def test_the_provider_openai_is_made_as_it_is_configured(load: Load) -> None:
    embedder = _embedder(load(with_spec(OPENAI % "")))
    assert (embedder.enabled, embedder.model, embedder.dimensions) == (True, "openai/small/8", 8)
    with pytest.raises(ConfigError, match=r"spec\.embedding: `embedding\.baseUrl`"):
        _embedder(load(with_spec("{embedding: {provider: OpenAI, model: m, baseUrl: localhost}}")))


def test_the_key_is_read_each_time_and_missed_where_it_is_needed(tmp_path: Path) -> None:
    files = CredentialFiles(tmp_path)
    assert _key_of(files, EMBEDDING, needed=False)() is None
    needed = _key_of(files, EMBEDDING, needed=True)
    with pytest.raises(ProviderUnavailable, match=r"no API key in .*embedding-api-key"):
        needed()
    for key in ("one", "two"):
        (tmp_path / "embedding-api-key").write_text(f"{key}\n")
        assert needed() == key
    (tmp_path / "embedding-api-key").write_text("")
    with pytest.raises(ProviderUnavailable, match="is empty"):
        needed()


def test_distillation_is_off_unless_the_resource_names_a_model(load: Load) -> None:
    assert _distil(load(with_spec("{}"))) is None
    given = "{distillation: {endpoint: 'http://127.0.0.1:1/v1', model: small, secretRef: {name: chat}}}"
    config = load(with_spec(given), AGENTMEMORY_DISTILLATION_TOKENS="512", AGENTMEMORY_DISTILLATION_TIMEOUT="60")
    setup = _distil(config)
    assert setup is not None and setup.chat.model == "small"
    assert (bounds_of(config).tokens, bounds_of(config).attempts, bounds_of(config).claim) == (512, 3, 300.0)
    with pytest.raises(ConfigError, match=r"spec\.distillation: `distillation\.endpoint`"):
        _distil(load(with_spec("{distillation: {endpoint: localhost, model: m}}")))
    with pytest.raises(ConfigError, match=r"spec\.distillation: .*`model`"):
        load(with_spec("{distillation: {endpoint: 'http://h/v1'}}"))
    with pytest.raises(ConfigError, match=r"spec\.distillation: mode Redis"):
        load(with_spec("{mode: Redis, distillation: {endpoint: 'http://h/v1', model: m}}"))
