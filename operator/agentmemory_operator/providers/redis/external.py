"""Redis of the user's own."""

from __future__ import annotations

from agentmemory_operator.resources.common import StoreAddress
from agentmemory_operator.secrets import read_external
from agentmemory_operator.spec import ExternalRedis
from agentmemory_operator.work import Access, Work


class External:
    """See Provider."""

    def __init__(self, spec: ExternalRedis) -> None:
        self._spec = spec

    async def provide(self, work: Work) -> Access:
        spec = self._spec
        admin, ca = await read_external(work, spec.secret_ref.name, username="default")
        work.redis = Access(StoreAddress(spec.host, spec.port, spec.tls, None), admin, ca)
        return work.redis
