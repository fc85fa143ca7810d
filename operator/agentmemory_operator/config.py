"""What the operator has to know from its environment, read once."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import TypeVar

from agentmemory_operator.resources.common import Namespaces

Number = TypeVar("Number", int, float)


class ConfigError(Exception):
    """A variable is missing or wrong; the message names it."""


@dataclass(frozen=True, kw_only=True)
class Config:
    """Times are in seconds."""

    namespace: str
    pod: str
    sidecar_image: str
    pull_policy: str = "IfNotPresent"
    watch_namespaces: tuple[str, ...] = ()
    """Empty: all."""
    monitoring_namespace: str = "monitoring"
    resync: float = 60.0
    rotation_grace: float = 300.0
    """How long a login stays valid after sidecars were given the next one: the kubelet takes up to two minutes."""
    ops_port: int = 8080
    lease_name: str = "agentmemory-operator"
    webhook_secret: str = "agentmemory-injector-tls"
    webhook_configuration: str = ""
    """Empty: certificates of the injector are somebody else's affair."""
    webhook_service: str = "agentmemory-injector"

    @property
    def namespaces(self) -> Namespaces:
        return Namespaces(operator=self.namespace, monitoring=self.monitoring_namespace)


def load_config(environment: Mapping[str, str]) -> Config:
    """Raises ConfigError."""

    def text(name: str, default: str | None = None) -> str:
        value = environment.get(f"AGENTMEMORY_{name}") or default
        if value is None:
            raise ConfigError(f"AGENTMEMORY_{name} is not set")
        return value

    def number(name: str, default: Number, low: Number, high: Number) -> Number:
        given = environment.get(f"AGENTMEMORY_{name}")
        if not given:
            return default
        try:
            value: Number = type(default)(given)
        except ValueError:
            raise ConfigError(f"AGENTMEMORY_{name}: {given[:40]!r} is not a number") from None
        if not low <= value <= high:
            raise ConfigError(f"AGENTMEMORY_{name}: {given[:40]} is not from {low:g} to {high:g}")
        return value

    pull_policy = text("IMAGE_PULL_POLICY", "IfNotPresent")
    if pull_policy not in ("Always", "IfNotPresent", "Never"):
        raise ConfigError("AGENTMEMORY_IMAGE_PULL_POLICY is Always, IfNotPresent or Never")
    return Config(
        namespace=text("NAMESPACE"),
        pod=text("POD"),
        sidecar_image=text("SIDECAR_IMAGE"),
        pull_policy=pull_policy,
        watch_namespaces=tuple(
            filter(None, (one.strip() for one in environment.get("AGENTMEMORY_WATCH_NAMESPACES", "").split(",")))
        ),
        monitoring_namespace=text("MONITORING_NAMESPACE", "monitoring"),
        resync=number("RESYNC", 60.0, 1.0, 3600.0),
        rotation_grace=number("ROTATION_GRACE", 300.0, 1.0, 86_400.0),
        ops_port=number("OPS_PORT", 8080, 1, 65_535),
        lease_name=text("LEASE_NAME", "agentmemory-operator"),
        webhook_secret=text("WEBHOOK_SECRET", "agentmemory-injector-tls"),
        webhook_configuration=environment.get("AGENTMEMORY_WEBHOOK_CONFIGURATION", ""),
        webhook_service=text("WEBHOOK_SERVICE", "agentmemory-injector"),
    )
