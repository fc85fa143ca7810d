"""Redis in a StatefulSet of the operator's own."""

from __future__ import annotations

from agentmemory_operator.names import child
from agentmemory_operator.providers.managed import ensure_store
from agentmemory_operator.resources import redis
from agentmemory_operator.resources.common import StoreAddress
from agentmemory_operator.secrets import ensure_admin
from agentmemory_operator.spec import ManagedRedis
from agentmemory_operator.tls import ensure_certificate
from agentmemory_operator.work import Access, Work

ADMIN = "operator"


class Managed:
    """See Provider."""

    def __init__(self, spec: ManagedRedis) -> None:
        self._spec = spec

    async def provide(self, work: Work) -> Access:
        memory = work.memory
        name = child(memory.name, "redis")
        admin = await ensure_admin(work, "redis", ADMIN)
        certificate = await ensure_certificate(work, "redis")
        address = StoreAddress(f"{name}.{memory.namespace}.svc", 6379, True, None)
        work.redis = Access(address, admin, certificate["ca.crt"], certificate["tls.crt"])
        manifests = redis.manifests(memory, namespaces=work.config.namespaces)
        await ensure_store(work, manifests, name, self._spec.storage)
        return work.redis
