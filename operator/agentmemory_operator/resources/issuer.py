"""Certificates of cert-manager, for a memory whose spec names an issuer."""

from __future__ import annotations

from agentmemory_operator import names
from agentmemory_operator.resources.common import Manifest, hosts, labels, meta
from agentmemory_operator.spec import AgentMemory, IssuerRef


def manifests(memory: AgentMemory) -> list[Manifest]:
    """One Certificate for each component that the operator runs; each becomes Secret N-<component>-tls."""
    reference = memory.spec.tls.issuer_ref
    if reference is None:
        return []
    return [_certificate(memory, reference, component) for component in _components(memory)]


def _components(memory: AgentMemory) -> list[str]:
    spec = memory.spec
    served = {
        "redis": spec.redis.managed is not None,
        "postgres": spec.postgres.managed is not None,
        "pooler": spec.postgres.pooler.enabled,
    }
    return [component for component, runs in served.items() if runs]


def _certificate(memory: AgentMemory, reference: IssuerRef, component: str) -> Manifest:
    secret = names.child(memory.name, f"{component}-tls")
    return {
        "apiVersion": "cert-manager.io/v1",
        "kind": "Certificate",
        # A store that is kept needs its Secret to start again, which goes with the Certificate in some installations.
        "metadata": meta(memory, secret, component, owned=False),
        "spec": {
            "secretName": secret,
            "secretTemplate": {"labels": labels(memory, component)},
            "dnsNames": hosts(memory, component),
            "duration": "2160h0m0s",
            "renewBefore": "720h0m0s",
            "usages": ["digital signature", "server auth"],
            "privateKey": {"algorithm": "ECDSA", "size": 256, "encoding": "PKCS8", "rotationPolicy": "Always"},
            "issuerRef": {"name": reference.name, "kind": reference.kind, "group": reference.group},
        },
    }
