"""Positions of a mode in which Postgres gives them: a counter for each agent, under the server's timeline."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime

from agentmemory_engine.positions import Entry
from agentmemory_engine.postgres import Postgres, Session


@dataclass(frozen=True)
class Taken:
    """An agent's next position. `leased` says whether its document, or a deletion's tombstone, is alive."""

    entry: Entry
    accepted_at: datetime
    leased: bool


async def take_position(session: Session, postgres: Postgres, agent: bytes) -> Taken:
    """The next position of the agent with this hash, whose row is locked until the end of the transaction.

    A timeline that is new to the agent is recorded with the last position that it found, by which anyone can tell what
    a promoted standby, or a restored backup, has lost.
    """
    row = await session.fetchrow(postgres.query("take_position"), agent)
    assert row is not None
    entry = Entry(row["opening"], row["sequence"])
    if entry.sequence == 1 and entry.opening > 1:
        found = row["found_opening"], row["found_sequence"]
        await session.execute(postgres.query("record_agent_opening"), agent, entry.opening, *found)
    return Taken(entry, row["accepted_at"], row["leased"])
