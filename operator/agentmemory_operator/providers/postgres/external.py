"""Postgres of the user's own."""

from __future__ import annotations

from agentmemory_operator.resources.common import StoreAddress, ssl_mode
from agentmemory_operator.secrets import read_external
from agentmemory_operator.spec import ExternalPostgres
from agentmemory_operator.work import Access, Work


class External:
    """See Provider."""

    def __init__(self, spec: ExternalPostgres) -> None:
        self._spec = spec

    async def provide(self, work: Work) -> Access:
        spec = self._spec
        admin, ca = await read_external(work, spec.secret_ref.name)
        address = StoreAddress(spec.host, spec.port, spec.ssl_mode != "disable", spec.database)
        work.postgres = Access(address, admin, ca, ssl_mode=ssl_mode(work.memory, ca=ca is not None, direct=True))
        return work.postgres
