"""The program: `agentmemory-sidecar serve | drain | prepare`."""

from __future__ import annotations

import argparse
import asyncio
import logging
import os
import signal
import sys
from collections.abc import Callable, Coroutine, Mapping
from importlib.metadata import version
from typing import Any

from agentmemory_engine.errors import MemoryFault
from agentmemory_engine.logs import LogSettingsError, set_up_logging
from agentmemory_sidecar.config import Config, load_config
from agentmemory_sidecar.drain import drain
from agentmemory_sidecar.errors import ConfigError, GaveUp
from agentmemory_sidecar.metrics import Metrics
from agentmemory_sidecar.opening import make_memory
from agentmemory_sidecar.prepare import prepare, read_administrators
from agentmemory_sidecar.sidecar import Sidecar

logger = logging.getLogger("agentmemory_sidecar")

_EPILOG = """\
environment:
  AGENTMEMORY_CONFIG           path of the AgentMemory in YAML (required)
  AGENTMEMORY_CREDENTIALS_DIR  files redis-username, redis-password, postgres-username, postgres-password (required),
                               redis-ca.crt, postgres-ca.crt (authorities to trust); read anew for each connection,
                               and looked at every few seconds for new logins; embedding-api-key, for the provider
                               OpenAI, read anew for each request
  AGENTMEMORY_REDIS_URL        redis://host:port, rediss://host:port or unix:///path; no login in it
  AGENTMEMORY_POSTGRES_DSN     postgresql://host:port/database; no password in it
                               (without these two: spec.redis.external and spec.postgres.external)
  AGENTMEMORY_PORT             API, on loopback only (spec.sidecar.port, 7070)
  AGENTMEMORY_OPS_PORT         /healthz /readyz /metrics (spec.sidecar.opsPort, 7071)
  AGENTMEMORY_OPS_HOST         their address (0.0.0.0)
  AGENTMEMORY_AGENTS           agent ids, or patterns with * and ?, that may be named, by commas (any)
  AGENTMEMORY_ALLOW_EXPORT_AND_ERASURE
                               true: agents may be exported and erased though AGENTMEMORY_AGENTS names none (false)
  AGENTMEMORY_MAX_BODY         largest body of a request in bytes (4 MiB)
  AGENTMEMORY_INSTANCE         names this sidecar as an owner of shards (random)
  AGENTMEMORY_LEASE            seconds after which a silent owner's shards are taken (10)
  AGENTMEMORY_STOP_TIMEOUT     seconds to finish and flush on SIGTERM (20)
  AGENTMEMORY_DRAIN_TIMEOUT    seconds after which a drain gives up (600)
  AGENTMEMORY_PREPARE_TIMEOUT  seconds to wait for the stores in prepare (60)
  AGENTMEMORY_LOG_FORMAT       text or json (text)
  AGENTMEMORY_LOG_LEVEL        DEBUG, INFO, WARNING or ERROR (INFO)
  for prepare: AGENTMEMORY_ADMIN_REDIS_USERNAME, AGENTMEMORY_ADMIN_REDIS_PASSWORD_FILE,
               AGENTMEMORY_ADMIN_POSTGRES_USERNAME, AGENTMEMORY_ADMIN_POSTGRES_PASSWORD_FILE

exit status: 0 done, 1 not done (the last line says why), 2 wrong configuration
"""


def main() -> None:
    """Run the command of the command line; exits with its status."""
    arguments = _parser().parse_args()
    commands = {"serve": _serve, "drain": _drain, "prepare": _prepare}
    sys.exit(run(commands[arguments.command or "serve"], os.environ))


def run(
    command: Callable[[Config, Mapping[str, str]], Coroutine[Any, Any, None]], environment: Mapping[str, str]
) -> int:
    """Load the configuration and run a command; answer the exit status."""
    try:
        set_up_logging(environment)
        config, _ = load_config(environment)
        with asyncio.Runner(loop_factory=_loop_factory()) as runner:
            runner.run(command(config, environment))
    except (ConfigError, LogSettingsError) as error:
        sys.stderr.write(f"agentmemory-sidecar: {error}\n")
        return 2
    except (GaveUp, MemoryFault, OSError) as error:
        sys.stderr.write(f"agentmemory-sidecar: {error}\n")
        return 1
    return 0


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="agentmemory-sidecar",
        description="The memory of the agents in a pod: an HTTP API on localhost, and the consolidation behind it.",
        epilog=_EPILOG,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("--version", action="version", version=f"%(prog)s {version('agentmemory')}")
    commands = parser.add_subparsers(dest="command", metavar="command")
    commands.add_parser("serve", help="serve until SIGTERM (the default)")
    commands.add_parser("drain", help="move what is in the journal into Postgres, then end")
    commands.add_parser("prepare", help="make logins, roles and schema, as an administrator of both stores")
    return parser


def _loop_factory() -> Callable[[], asyncio.AbstractEventLoop] | None:
    try:
        import uvloop
    except ImportError:
        return None
    return uvloop.new_event_loop


async def _serve(config: Config, _: Mapping[str, str]) -> None:
    stop = _stop_on_signals()
    metrics = Metrics(config.settings.stores)
    sidecar = Sidecar(config, make_memory(config, metrics), metrics)
    await sidecar.start()
    await stop.wait()
    logger.info("stopping")
    await sidecar.stop()


async def _drain(config: Config, _: Mapping[str, str]) -> None:
    await drain(make_memory(config, work=False), seconds=config.drain_timeout, stop=_stop_on_signals())


def _stop_on_signals() -> asyncio.Event:
    stop = asyncio.Event()
    loop = asyncio.get_running_loop()
    for number in (signal.SIGTERM, signal.SIGINT):
        loop.add_signal_handler(number, stop.set)
    return stop


async def _prepare(config: Config, environment: Mapping[str, str]) -> None:
    await prepare(config, read_administrators(environment, config.settings.stores))


if __name__ == "__main__":
    main()
