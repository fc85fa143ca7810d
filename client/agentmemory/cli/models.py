"""Commands on the models of embeddings: which there are, how far a back-fill is, the end of a former one."""

from __future__ import annotations

from typing import Annotated

import typer
from rich.console import Console

from agentmemory.cli import show
from agentmemory.cli.faults import run
from agentmemory.cli.options import AsJson, Url, connect

app = typer.Typer(
    no_args_is_help=True, help="The models of embeddings that have vectors here: the present one, and former ones."
)


@app.command("list")
def list_models(url: Url = None, as_json: AsJson = False) -> None:
    """Show them: which one recall goes by, and how far a new one is. With --json: one a line."""

    async def show_them() -> None:
        async with connect(url) as memory:
            found = await memory.embedding_models()
        if as_json:
            for model in found:
                show.machine(model)
        else:
            show.embedding_models(Console(), found)

    run(show_them())


@app.command()
def remove(
    id: Annotated[int, typer.Argument(help="Its id, from `list`.", min=0)],
    yes: Annotated[bool, typer.Option("--yes", "-y", help="Do not ask.")] = False,
    url: Url = None,
) -> None:
    """Delete the vectors of a former model. Going back to it then means to embed all of memory again."""
    if not yes:
        typer.confirm(f"Delete all vectors of model {id}?", abort=True, err=True)

    async def drop() -> None:
        async with connect(url) as memory:
            await memory.remove_embedding_model(id)
        Console().print(f"The vectors of model {id} are being deleted.")

    run(drop())
