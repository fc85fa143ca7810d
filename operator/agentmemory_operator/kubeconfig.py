"""Where the API server is: as a pod knows it, else as kubectl does."""

from __future__ import annotations

from kubernetes.aio.client.configuration import Configuration
from kubernetes.aio.config import ConfigException, load_incluster_config, load_kube_config

from agentmemory_operator.config import ConfigError


async def find_cluster() -> Configuration:
    """Raises ConfigError."""
    configuration = Configuration()
    # From 3.13 on, Python refuses certificates without key identifiers, which the API servers of many clusters have.
    configuration.disable_strict_ssl_verification = True
    try:
        load_incluster_config(configuration)  # type: ignore[no-untyped-call]
    except ConfigException:
        try:
            await load_kube_config(client_configuration=configuration)  # type: ignore[no-untyped-call]
        except ConfigException as error:
            raise ConfigError(f"this is no pod of a cluster, and there is no kubeconfig: {error}") from None
    return configuration
