"""The models of embeddings: which ones have vectors, how far their back-fill is, and the end of a former one."""

from __future__ import annotations

from datetime import datetime

from aiohttp import web
from msgspec import Struct

from agentmemory_engine.answers import Model
from agentmemory_engine.errors import NoModel
from agentmemory_sidecar.models import Deleted
from agentmemory_sidecar.operations import Operation
from agentmemory_sidecar.requests import MEMORY, no_params
from agentmemory_sidecar.responses import answer

_LARGEST = 32_767


class EmbeddingModel(Struct, kw_only=True):
    """A model that has vectors here. `back_filled` of about `total` events and facts were gone through.

    `kept`: what is new is embedded by it, since some sidecar has it. `complete`: so is what was there before.
    `current`: recall goes by it, since `switched_at`. `own`: this sidecar embeds by it. `unwanted`: its vectors are
    being deleted.
    """

    id: int
    name: str
    dimensions: int
    kept: bool
    complete: bool
    current: bool
    own: bool
    unwanted: bool
    switched_at: datetime | None
    back_filled: int
    total: int


class EmbeddingModels(Struct, kw_only=True):
    """All of them, oldest first."""

    models: list[EmbeddingModel]


async def list_models(request: web.Request) -> web.Response:
    """Which models there are, and which one recall goes by."""
    no_params(request)
    models = request.app[MEMORY].models
    own = await models.number()
    return answer(EmbeddingModels(models=[_model(one, own) for one in await models.list()]))


async def remove_model(request: web.Request) -> web.Response:
    """Have the vectors of a former model deleted, in the background."""
    no_params(request)
    text = request.match_info["id"]
    if not (text.isascii() and text.isdigit() and int(text) <= _LARGEST):
        raise NoModel("There is no such model; its id is a number, as the list gives it.")
    await request.app[MEMORY].models.remove(int(text))
    return answer(Deleted(True))


def _model(model: Model, own: int | None) -> EmbeddingModel:
    return EmbeddingModel(
        id=model.number,
        name=model.name,
        dimensions=model.dimensions,
        kept=model.kept,
        complete=model.complete,
        current=model.current,
        own=model.number == own,
        unwanted=model.unwanted,
        switched_at=model.switched_at,
        back_filled=model.done,
        total=model.total,
    )


OPERATIONS = (
    Operation(
        method="GET",
        path="/v1/embedding-models",
        handler=list_models,
        name="listEmbeddingModels",
        summary="The models that have vectors here, how far their back-fill is, and which one recall goes by",
        tag="Consolidation",
        answers={200: (EmbeddingModels,)},
        problems=(422, 501, 503),
    ),
    Operation(
        method="DELETE",
        path="/v1/embedding-models/{id}",
        handler=remove_model,
        name="removeEmbeddingModel",
        summary="Delete the vectors of a model that no sidecar has any more, and that recall does not go by",
        tag="Consolidation",
        answers={200: (Deleted,)},
        problems=(404, 409, 422, 501, 503),
    ),
)
