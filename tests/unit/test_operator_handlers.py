"""Kopf's registry, as Kopf calls it: against an API server of its own making nothing is left to guess."""

from __future__ import annotations

import inspect
from typing import Any

import kopf
import pytest

from agentmemory_operator.controller import Key
from agentmemory_operator.handlers import make_registry, make_settings
from agentmemory_operator.names import MEMORY_LABEL, SIDECAR_LABEL


@pytest.fixture
def nudged() -> list[Key]:
    return []


@pytest.fixture
def handlers(nudged: list[Key]) -> dict[str, Any]:
    registry = make_registry(nudged.append)
    return {handler.id.rpartition(".")[2]: handler.fn for handler in registry._watching.get_all_handlers()}


def body(**metadata: Any) -> kopf.Body:
    raw: Any = {"metadata": {"namespace": "team", "name": "research", "uid": "u", "generation": 1} | metadata}
    return kopf.Body(raw)


def test_every_handler_runs_in_the_loop_of_the_controller(handlers: dict[str, Any]) -> None:
    assert len(handlers) == 5
    assert all(inspect.iscoroutinefunction(handler) for handler in handlers.values())


async def test_news_of_a_memory_and_no_others(handlers: dict[str, Any], nudged: list[Key]) -> None:
    changed = handlers["memory_changed"]
    await changed(body=body(), type=None)
    await changed(body=body(resourceVersion="2"), type="MODIFIED")
    assert nudged == [("team", "research")], "the controller's own status is no news"
    await changed(body=body(generation=2), type="MODIFIED")
    await changed(body=body(generation=2, annotations={"agentmemory.io/rotate": "x"}), type="MODIFIED")
    await changed(body=body(generation=2, deletionTimestamp="now"), type="MODIFIED")
    await changed(body=body(generation=2), type="DELETED")
    assert len(nudged) == 5
    await changed(body=body(uid="another", generation=2), type="ADDED")
    assert len(nudged) == 6


async def test_what_was_made_for_a_memory_leads_to_it(handlers: dict[str, Any], nudged: list[Key]) -> None:
    for name in ("statefulsets-changed", "deployments-changed", "jobs-changed"):
        await handlers[name](namespace="team", labels={MEMORY_LABEL: "research"})
    assert nudged == [("team", "research")] * 3


async def test_an_agent_that_goes_is_news(handlers: dict[str, Any], nudged: list[Key]) -> None:
    for kind in (None, "ADDED", "MODIFIED"):
        await handlers["agent_changed"](namespace="team", labels={SIDECAR_LABEL: "research"}, type=kind)
    assert nudged == []
    await handlers["agent_changed"](namespace="team", labels={SIDECAR_LABEL: "research"}, type="DELETED")
    assert nudged == [("team", "research")]


def test_kopf_writes_nothing_and_watches_what_is_ours() -> None:
    settings = make_settings()
    assert not settings.posting.enabled
    assert settings.scanning.disabled
    assert settings.watching.label_selectors["pods"] == SIDECAR_LABEL
