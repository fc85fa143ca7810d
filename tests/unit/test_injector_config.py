"""The injector's environment, and how a mistake in it is named."""

from __future__ import annotations

from pathlib import Path

import pytest

from agentmemory_operator.config import ConfigError
from agentmemory_operator.injector.config import load_injector_config
from agentmemory_operator.injector.patch import Image

LEAST = {"AGENTMEMORY_NAMESPACE": "agentmemory", "AGENTMEMORY_SIDECAR_IMAGE": "sidecar:1"}


def test_what_is_left_out_has_a_default() -> None:
    config = load_injector_config(LEAST)
    assert (config.namespace, config.image, config.watch_namespaces) == ("agentmemory", Image("sidecar:1", ""), ())
    assert (config.port, config.ops_port, config.certificates) == (8443, 8080, Path("/etc/agentmemory-webhook"))


def test_the_whole_environment_is_read() -> None:
    config = load_injector_config(
        {
            **LEAST,
            "AGENTMEMORY_IMAGE_PULL_POLICY": "Always",
            "AGENTMEMORY_WATCH_NAMESPACES": "a, b,,a",
            "AGENTMEMORY_WEBHOOK_PORT": "10250",
            "AGENTMEMORY_WEBHOOK_CERT_DIR": "/certs",
            "AGENTMEMORY_OPS_PORT": "9090",
        }
    )
    assert (config.image.pull_policy, config.watch_namespaces) == ("Always", ("a", "b"))
    assert (config.port, config.ops_port, config.certificates) == (10250, 9090, Path("/certs"))


@pytest.mark.parametrize(
    ("changes", "says"),
    [
        ({"AGENTMEMORY_NAMESPACE": ""}, "AGENTMEMORY_NAMESPACE is not set"),
        ({"AGENTMEMORY_SIDECAR_IMAGE": ""}, "AGENTMEMORY_SIDECAR_IMAGE is not set"),
        ({"AGENTMEMORY_IMAGE_PULL_POLICY": "Often"}, "AGENTMEMORY_IMAGE_PULL_POLICY is one of Always"),
        ({"AGENTMEMORY_WEBHOOK_PORT": "https"}, "AGENTMEMORY_WEBHOOK_PORT: 'https' is not a port"),
        ({"AGENTMEMORY_OPS_PORT": "65536"}, "AGENTMEMORY_OPS_PORT: '65536' is not a port"),
        ({"AGENTMEMORY_OPS_PORT": "-1"}, "is not a port"),
        ({"AGENTMEMORY_OPS_PORT": "²"}, "is not a port"),
        ({"AGENTMEMORY_OPS_PORT": "8443"}, "are both 8443"),
    ],
)
def test_a_mistake_is_named(changes: dict[str, str], says: str) -> None:
    with pytest.raises(ConfigError, match=says):
        load_injector_config(LEAST | changes)
