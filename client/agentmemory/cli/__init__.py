"""The command line tool. What it needs beyond the client comes with the extra `cli`."""

from __future__ import annotations

import importlib.util
import sys

NEEDS = ("typer", "rich", "yaml")
USAGE = 2


def main() -> None:
    """Run the tool on the arguments of this process, and exit with its status."""
    missing = [name for name in NEEDS if importlib.util.find_spec(name) is None]
    if missing:
        sys.stderr.write(
            f"agentmemory: the command line tool needs {', '.join(missing)}: pip install 'agentmemory[cli]' for a "
            "sidecar that runs elsewhere, 'agentmemory[local]' to run everything on this machine.\n"
        )
        sys.exit(USAGE)
    from agentmemory.cli.app import app

    app()
