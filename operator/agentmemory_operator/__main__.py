"""The program: `agentmemory-operator run | inject | version`."""

from __future__ import annotations

import argparse
import asyncio
import os
import sys
from collections.abc import Awaitable, Callable, Mapping
from importlib.metadata import version

from agentmemory_engine.logs import LogSettingsError, set_up_logging
from agentmemory_operator.config import ConfigError

_EPILOG = """\
environment of run:
  AGENTMEMORY_NAMESPACE              its own namespace (required)
  AGENTMEMORY_POD                    its own name, by which it contends for the Lease (required)
  AGENTMEMORY_SIDECAR_IMAGE          image of sidecars and drains (required)
  AGENTMEMORY_IMAGE_PULL_POLICY      of that image (IfNotPresent)
  AGENTMEMORY_WATCH_NAMESPACES       namespaces to look after, by commas (all)
  AGENTMEMORY_MONITORING_NAMESPACE   namespace that may scrape (monitoring)
  AGENTMEMORY_RESYNC                 seconds between two looks at a memory where nothing happens (60)
  AGENTMEMORY_ROTATION_GRACE         seconds for which a login goes on working after its successor was given out (300)
  AGENTMEMORY_OPS_PORT               /healthz /readyz /metrics (8080)
  AGENTMEMORY_LEASE_NAME             the Lease for which replicas contend (agentmemory-operator)
  AGENTMEMORY_WEBHOOK_CONFIGURATION  MutatingWebhookConfiguration whose certificate it looks after (none)
  AGENTMEMORY_WEBHOOK_SECRET         Secret for that certificate (agentmemory-injector-tls)
  AGENTMEMORY_WEBHOOK_SERVICE        Service that it is for (agentmemory-injector)
environment of inject:
  AGENTMEMORY_NAMESPACE, AGENTMEMORY_SIDECAR_IMAGE, AGENTMEMORY_IMAGE_PULL_POLICY, AGENTMEMORY_WATCH_NAMESPACES,
  AGENTMEMORY_OPS_PORT               as above
  AGENTMEMORY_WEBHOOK_PORT           HTTPS port for the API server (8443)
  AGENTMEMORY_WEBHOOK_CERT_DIR       directory of tls.crt and tls.key (/etc/agentmemory-webhook)
environment of both:
  AGENTMEMORY_LOG_FORMAT, AGENTMEMORY_LOG_LEVEL   text or json (text); DEBUG, INFO, WARNING or ERROR (INFO)

exit status: 0 stopped, 1 it cannot go on (the last line says why), 2 wrong configuration
"""


def main() -> None:
    """Run the command of the command line; exits with its status."""
    arguments = _parser().parse_args()
    if arguments.command == "version":
        sys.stdout.write(version("agentmemory") + "\n")
        return
    sys.exit(run(_load(arguments.command), os.environ))


def _load(command: str) -> Callable[[Mapping[str, str]], Awaitable[None]]:
    # One image, two processes: neither pays for what only the other imports.
    if command == "inject":
        from agentmemory_operator.injector.main import run as inject

        return inject
    from agentmemory_operator.program import run as operate

    return operate


def run(command: Callable[[Mapping[str, str]], Awaitable[None]], environment: Mapping[str, str]) -> int:
    """Run a command; answer the exit status."""

    async def go() -> None:
        await command(environment)

    try:
        set_up_logging(environment)
        asyncio.run(go())
    except (ConfigError, LogSettingsError) as error:
        sys.stderr.write(f"agentmemory-operator: {error}\n")
        return 2
    except Exception as error:
        sys.stderr.write(f"agentmemory-operator: {type(error).__name__}: {error}\n")
        return 1
    return 0


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="agentmemory-operator",
        description="The memory of agents on Kubernetes: reconciles AgentMemories, or adds the sidecar to pods.",
        epilog=_EPILOG,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    commands = parser.add_subparsers(dest="command", metavar="command", required=True)
    commands.add_parser("run", help="reconcile AgentMemories, when it leads")
    commands.add_parser("inject", help="serve the admission webhook that adds the sidecar")
    commands.add_parser("version", help="print the version")
    return parser


if __name__ == "__main__":
    main()
