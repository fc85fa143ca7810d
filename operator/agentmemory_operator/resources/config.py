"""ConfigMap N-sidecar: the AgentMemory as a sidecar reads it, with the stores' real addresses, and whom to trust."""

from __future__ import annotations

from typing import Any

import msgspec
import yaml

from agentmemory_operator import names
from agentmemory_operator.resources.common import Manifest, StoreAddress, meta, ssl_mode
from agentmemory_operator.resources.pods import given
from agentmemory_operator.resources.postgres import DATABASE
from agentmemory_operator.spec import AgentMemory, Spec

KEY = "agentmemory.yaml"


def manifest(
    memory: AgentMemory,
    *,
    redis: StoreAddress | None,
    postgres: StoreAddress | None,
    redis_ca: str | None,
    postgres_ca: str | None,
) -> Manifest:
    """The ConfigMap, with the stores that are given. `postgres` is the pooler where there is one; the authorities are
    in PEM."""
    resolved = {
        "apiVersion": names.API_VERSION,
        "kind": names.KIND,
        "metadata": {"name": memory.name, "namespace": memory.namespace},
        "spec": {
            **_behaviour(memory.spec),
            **given(
                redis=redis and {"external": {"host": redis.host, "port": redis.port, "tls": redis.tls}},
                postgres=postgres and {"external": _postgres(memory, postgres, ca=postgres_ca is not None)},
            ),
        },
    }
    files = given(**{"redis-ca.crt": redis_ca, "postgres-ca.crt": postgres_ca})
    return {
        "apiVersion": "v1",
        "kind": "ConfigMap",
        "metadata": meta(memory, names.child(memory.name, "sidecar"), "sidecar", owned=True),
        "data": {KEY: yaml.safe_dump(resolved, sort_keys=False), **files},
    }


def _postgres(memory: AgentMemory, address: StoreAddress, *, ca: bool) -> dict[str, Any]:
    return {
        "host": address.host,
        "port": address.port,
        "database": address.database or DATABASE,
        "sslMode": ssl_mode(memory, ca=ca),
    }


def _distillation(spec: Spec) -> dict[str, Any] | None:
    wanted = spec.distillation
    if wanted is None:
        return None
    reference = msgspec.to_builtins(wanted.secret_ref)
    return {"endpoint": wanted.endpoint, "model": wanted.model, **given(secretRef=reference)}


def _behaviour(spec: Spec) -> dict[str, Any]:
    """What a sidecar acts by. The rest of the spec is the operator's own, and would only make files change."""
    working, consolidation, index = spec.working_memory, spec.consolidation, spec.recall.index
    embedding = spec.embedding
    return {
        "mode": spec.mode,
        "shards": spec.shards,
        "workingMemory": {
            "ttl": working.ttl,
            "recentMessages": working.recent_messages,
            "maxDocumentSize": working.max_document_size,
        },
        "consolidation": {
            "maxDelay": consolidation.max_delay,
            "batchSize": consolidation.batch_size,
            "alerts": {
                "warningRatio": consolidation.alerts.warning_ratio,
                "criticalRatio": consolidation.alerts.critical_ratio,
            },
        },
        "embedding": {
            "provider": embedding.provider,
            "dimensions": embedding.dimensions,
            **given(
                path=embedding.path,
                model=embedding.model,
                baseUrl=embedding.base_url,
                secretRef=msgspec.to_builtins(embedding.secret_ref),
            ),
        },
        "recall": {
            "distance": spec.recall.distance,
            "index": {"kind": index.kind, "m": index.m, "efConstruction": index.ef_construction},
        },
        **given(
            retention=given(events=spec.retention.events, turns=spec.retention.turns if spec.mode == "Redis" else None)
        ),
        **given(distillation=_distillation(spec)),
        "sidecar": {"port": spec.sidecar.port, "opsPort": spec.sidecar.ops_port},
    }
