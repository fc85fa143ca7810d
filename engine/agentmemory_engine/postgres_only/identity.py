"""Whose memory the store holds."""

from __future__ import annotations

from agentmemory_engine.postgres import Postgres
from agentmemory_engine.schema import check_schema
from agentmemory_engine.settings import Settings


class Identity:
    """Reads the identity record once."""

    def __init__(self, postgres: Postgres, settings: Settings) -> None:
        self._postgres = postgres
        self._settings = settings
        self._known: str | None = None

    async def read(self) -> str:
        """The id in the identity record; the first call checks the schema.

        Raises SchemaMismatch, ForeignStore, StoreUnavailable.
        """
        if self._known is None:
            async with self._postgres.session() as session:
                self._known = await check_schema(session, self._settings)
        return self._known
