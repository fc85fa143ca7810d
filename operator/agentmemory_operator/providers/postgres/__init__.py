"""Postgres of a memory: run by the operator, or the user's own."""

from __future__ import annotations

from agentmemory_operator.errors import InvalidSpec
from agentmemory_operator.providers import Provider
from agentmemory_operator.providers.postgres.external import External
from agentmemory_operator.providers.postgres.managed import Managed
from agentmemory_operator.spec import PostgresSpec


def choose(spec: PostgresSpec) -> Provider:
    """The provider that the spec names. Raises InvalidSpec for none."""
    if spec.managed is not None:
        return Managed(spec.managed)
    if spec.external is not None:
        return External(spec.external)
    raise InvalidSpec("InvalidSpec", "spec.postgres: give managed or external")
