"""Kopf's part: it watches, and nudges the controller. Nothing is kept in annotations, and Kopf writes nothing.

The handlers are coroutines, since Kopf runs plain functions in threads.
"""

from __future__ import annotations

import ssl
from collections.abc import Callable
from dataclasses import fields
from typing import Any

import kopf

from agentmemory_operator.controller import Key
from agentmemory_operator.names import GROUP, MEMORY_LABEL, PLURAL, SIDECAR_LABEL, VERSION

Nudge = Callable[[Key], None]
_OWNED = (("apps", "v1", "statefulsets"), ("apps", "v1", "deployments"), ("batch", "v1", "jobs"))


def make_registry(nudge: Nudge) -> kopf.OperatorRegistry:
    """The handlers: AgentMemories, what was made for them, and the pods that have their sidecar."""
    registry = kopf.OperatorRegistry()
    seen: dict[Key, object] = {}

    @kopf.on.login(registry=registry)
    def login(**kwargs: Any) -> kopf.ConnectionInfo | None:
        found = kopf.login_with_service_account(**kwargs) or kopf.login_with_kubeconfig(**kwargs)
        return found and _Lenient(**{one.name: getattr(found, one.name) for one in fields(found)})

    @kopf.on.event(GROUP, VERSION, PLURAL, registry=registry)
    async def memory_changed(body: kopf.Body, type: str | None, **_: Any) -> None:
        metadata = body["metadata"]
        key = (metadata["namespace"], metadata["name"])
        # What the controller itself writes is no news.
        news = (
            type == "DELETED", metadata["uid"], metadata.get("generation"), metadata.get("deletionTimestamp"),
            dict(metadata.get("annotations", {})),
        )  # fmt: skip
        if seen.get(key) != news:
            seen[key] = news
            nudge(key)
        if type == "DELETED":
            del seen[key]

    for group, version, plural in _OWNED:

        @kopf.on.event(group, version, plural, registry=registry, id=f"{plural}-changed")
        async def owned_changed(namespace: str | None, labels: Any, **_: Any) -> None:
            nudge((namespace or "", labels[MEMORY_LABEL]))

    @kopf.on.event("", "v1", "pods", registry=registry, labels={SIDECAR_LABEL: kopf.PRESENT})
    async def agent_changed(namespace: str | None, labels: Any, type: str | None, **_: Any) -> None:
        # A pod that goes may be the last one; that it lives on is no news.
        if type == "DELETED":
            nudge((namespace or "", labels[SIDECAR_LABEL]))

    return registry


class _Lenient(kopf.ConnectionInfo):
    """As `kubeconfig.find_cluster`: certificates without key identifiers will do."""

    def as_ssl_context(self) -> ssl.SSLContext:
        context = super().as_ssl_context()
        context.verify_flags &= ~ssl.VERIFY_X509_STRICT
        return context


def make_settings() -> kopf.OperatorSettings:
    """Watch only what is ours; bounded waits everywhere, so that a silent connection is noticed."""
    settings = kopf.OperatorSettings()
    settings.posting.enabled = False
    settings.scanning.disabled = True
    settings.watching.server_timeout = 290
    settings.watching.client_timeout = 310
    settings.watching.connect_timeout = 10
    settings.networking.request_timeout = 30
    for _, _, plural in _OWNED:
        settings.watching.label_selectors[plural] = MEMORY_LABEL
    settings.watching.label_selectors["pods"] = SIDECAR_LABEL
    return settings
