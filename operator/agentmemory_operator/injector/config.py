"""What the injector has to know from its environment, read once."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from agentmemory_operator.config import ConfigError
from agentmemory_operator.injector.patch import Image

_PULL_POLICIES = ("", "Always", "IfNotPresent", "Never")


@dataclass(frozen=True, kw_only=True)
class InjectorConfig:
    """A port of 0 is any free one."""

    namespace: str
    """The injector's own: no pod in it is touched."""
    image: Image
    watch_namespaces: tuple[str, ...] = ()
    """Empty: all."""
    certificates: Path = Path("/etc/agentmemory-webhook")
    port: int = 8443
    ops_port: int = 8080
    host: str = "0.0.0.0"


def load_injector_config(environment: Mapping[str, str]) -> InjectorConfig:
    """Raises ConfigError."""
    policy = environment.get("AGENTMEMORY_IMAGE_PULL_POLICY", "")
    if policy not in _PULL_POLICIES:
        raise ConfigError(f"AGENTMEMORY_IMAGE_PULL_POLICY is one of {', '.join(_PULL_POLICIES[1:])}")
    listed = environment.get("AGENTMEMORY_WATCH_NAMESPACES", "").split(",")
    config = InjectorConfig(
        namespace=_required(environment, "AGENTMEMORY_NAMESPACE", "the namespace that the injector runs in"),
        image=Image(_required(environment, "AGENTMEMORY_SIDECAR_IMAGE", "the image of the sidecar"), policy),
        watch_namespaces=tuple(dict.fromkeys(name for name in (one.strip() for one in listed) if name)),
        certificates=Path(environment.get("AGENTMEMORY_WEBHOOK_CERT_DIR") or InjectorConfig.certificates),
        port=_port(environment, "AGENTMEMORY_WEBHOOK_PORT", InjectorConfig.port),
        ops_port=_port(environment, "AGENTMEMORY_OPS_PORT", InjectorConfig.ops_port),
    )
    if config.port and config.port == config.ops_port:
        raise ConfigError(f"AGENTMEMORY_WEBHOOK_PORT and AGENTMEMORY_OPS_PORT are both {config.port}")
    return config


def _required(environment: Mapping[str, str], name: str, what: str) -> str:
    value = environment.get(name)
    if not value:
        raise ConfigError(f"{name} is not set: give {what}")
    return value


def _port(environment: Mapping[str, str], name: str, default: int) -> int:
    text = environment.get(name)
    if not text:
        return default
    if not (text.isascii() and text.isdecimal() and int(text[:6]) <= 65_535):
        raise ConfigError(f"{name}: {text[:40]!r} is not a port")
    return int(text)
