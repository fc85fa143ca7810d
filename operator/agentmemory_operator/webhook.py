"""The injector's certificate, when the operator issues it: in a Secret that the injector mounts, trusted by way of
caBundle in the MutatingWebhookConfiguration."""

from __future__ import annotations

import asyncio
import logging
from base64 import b64encode
from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from typing import Any

from agentmemory_operator import certificates
from agentmemory_operator.certificates import Pair
from agentmemory_operator.config import Config
from agentmemory_operator.errors import OperatorFault
from agentmemory_operator.kube import SECRET, WEBHOOK_CONFIGURATION, Kube, KubeError, Object
from agentmemory_operator.names import MANAGER
from agentmemory_operator.objects import encode_secret, secret_data
from agentmemory_operator.tls import RENEW_AUTHORITY, RENEW_LEAF, service_hosts

logger = logging.getLogger(__name__)

EVERY = 30.0
"""Seconds between two looks."""


async def run(kube: Kube, config: Config) -> None:
    """Keep the certificate valid and trusted, until cancelled."""
    while True:
        try:
            await keep(kube, config, clock=lambda: datetime.now(UTC))
        except (KubeError, OperatorFault) as error:
            logger.warning("the injector's certificate cannot be looked after: %s", error)
        await asyncio.sleep(EVERY)


async def keep(kube: Kube, config: Config, *, clock: Callable[[], datetime]) -> None:
    """Look once: renew what is due, and have the API server trust it. Raises KubeError, and Blocked for a Secret that
    holds no text.

    The authority is renewed with its own key, so a certificate of before and one of after are both trusted at every
    moment.
    """
    now = clock()
    authority = await _authority(kube, config, now)
    hosts = service_hosts(config.webhook_service, config.namespace)

    def fresh() -> dict[str, str]:
        leaf = certificates.issue(authority, hosts, now)
        return {"tls.crt": leaf.certificate, "tls.key": leaf.key, "ca.crt": authority.certificate}

    await _keep_secret(kube, config, config.webhook_secret, fresh, lambda data: _is_good(data, authority, hosts, now))
    await _trust(kube, config, authority.certificate)


def _is_good(data: dict[str, str], authority: Pair, hosts: list[str], now: datetime) -> bool:
    leaf = data.get("tls.crt", "")
    try:
        return (
            certificates.signed_by(leaf, authority.certificate)
            and certificates.matches(Pair(leaf, data.get("tls.key", "")))
            and certificates.covers(leaf, hosts)
            and not certificates.due(leaf, now, RENEW_LEAF)
        )
    except ValueError:
        return False


async def _authority(kube: Kube, config: Config, now: datetime) -> Pair:
    name = config.webhook_secret.removesuffix("-tls") + "-ca"

    def fresh() -> dict[str, str]:
        new = certificates.new_authority(config.webhook_service, now)
        return {"tls.crt": new.certificate, "tls.key": new.key}

    data = await _keep_secret(kube, config, name, fresh, lambda data: _is_pair(data, now))
    authority = Pair(data["tls.crt"], data["tls.key"])
    if not certificates.due(authority.certificate, now, RENEW_AUTHORITY):
        return authority
    renewed = certificates.renew_authority(authority, now)
    await _write(kube, config, name, {"tls.crt": renewed.certificate, "tls.key": renewed.key})
    return renewed


def _is_pair(data: dict[str, str], now: datetime) -> bool:
    try:
        return certificates.matches(Pair(data["tls.crt"], data["tls.key"])) and not certificates.due(
            data["tls.crt"], now, timedelta()
        )
    except (KeyError, ValueError):
        return False


async def _keep_secret(
    kube: Kube, config: Config, name: str, fresh: Callable[[], dict[str, str]],
    is_good: Callable[[dict[str, str]], bool],
) -> dict[str, str]:  # fmt: skip
    """What the Secret holds, after it was written anew where it was absent or no good."""
    live = await kube.get(SECRET, config.namespace, name)
    data = secret_data(live) if live else {}
    if is_good(data):
        return data
    data = fresh()
    await _write(kube, config, name, data)
    logger.info("Secret %s has a new certificate", name)
    return data


async def _write(kube: Kube, config: Config, name: str, data: dict[str, str]) -> None:
    labels = {"app.kubernetes.io/managed-by": MANAGER, "app.kubernetes.io/part-of": "agentmemory"}
    metadata = {"name": name, "namespace": config.namespace, "labels": labels}
    await kube.apply(
        {"apiVersion": "v1", "kind": "Secret", "type": "kubernetes.io/tls", "metadata": metadata,
         "data": encode_secret(data)}
    )  # fmt: skip


async def _trust(kube: Kube, config: Config, authority: str) -> None:
    """Set caBundle, and nothing else, of every webhook in the configuration."""
    live = await kube.get(WEBHOOK_CONFIGURATION, None, config.webhook_configuration)
    if live is None:
        logger.warning("there is no MutatingWebhookConfiguration %s", config.webhook_configuration)
        return
    bundle = b64encode(authority.encode()).decode()
    hooks: list[Any] = live.get("webhooks", [])
    if all(hook["clientConfig"].get("caBundle") == bundle for hook in hooks):
        return
    await kube.apply(_bundle_patch(live, bundle))


def _bundle_patch(live: Object, bundle: str) -> Object:
    """An apply that owns the bundles alone."""
    hooks = [{"name": hook["name"], "clientConfig": {"caBundle": bundle}} for hook in live["webhooks"]]
    return {
        "apiVersion": WEBHOOK_CONFIGURATION.api_version, "kind": WEBHOOK_CONFIGURATION.name,
        "metadata": {"name": live["metadata"]["name"]}, "webhooks": hooks,
    }  # fmt: skip
