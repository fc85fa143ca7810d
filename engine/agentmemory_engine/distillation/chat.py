"""A model behind any server with the API of OpenAI's chat completions (`POST {endpoint}/chat/completions`)."""

from __future__ import annotations

from importlib.resources import files
from typing import Any, Protocol

import msgspec
from msgspec import UNSET, Raw, Struct, UnsetType

from agentmemory_engine.distillation.errors import Declined
from agentmemory_engine.endpoint import ApiKey, Endpoint, Patience, Refused, address
from agentmemory_engine.errors import ProviderUnavailable

LARGEST_ANSWER = 1 << 20
"""Bytes."""

_SETTING = "distillation.endpoint"
_PROBE = 'Answer with the JSON object {"facts": []} and nothing else.'
_SCHEMA = "facts.schema.json"


class Chat(Protocol):
    """Something to put a question to."""

    model: str

    async def ask(self, system: str, user: str) -> str:
        """What it answers: a JSON object, maybe with words around it. Raises Declined, ProviderUnavailable."""

    async def is_well(self) -> bool:
        """Whether it answers anything at all now."""

    async def close(self) -> None:
        """Let go of the connections; calls under way raise ProviderUnavailable."""


class _Message(Struct):
    role: str
    content: str


class _Request(Struct, omit_defaults=True):
    model: str
    messages: list[_Message]
    response_format: Raw | UnsetType = UNSET


class _Answered(Struct):
    content: str | None = None
    refusal: str | None = None


class _Choice(Struct):
    message: _Answered
    finish_reason: str | None = None


class _Reply(Struct):
    choices: list[_Choice]


class OpenAIChat:
    """Asks for an answer by a JSON schema, of a server that knows such; another is asked for the same in words alone.

    Whether a text is at fault, or the server, shows by a question that is known to be good: only while that is
    answered is the text declined.
    """

    def __init__(self, endpoint: str, *, model: str, key: ApiKey, patience: Patience) -> None:
        """Raises ValueError for an address that is none."""
        self.model = model
        self._endpoint = Endpoint(address(endpoint, "/chat/completions", _SETTING), key, patience, setting=_SETTING)
        self._by_schema = True

    async def close(self) -> None:
        """Let go of the connections; calls under way raise ProviderUnavailable."""
        await self._endpoint.close()

    async def ask(self, system: str, user: str) -> str:
        """What the model answers. Raises Declined, ProviderUnavailable (TimedOut where this takes too long)."""
        messages = [_Message("system", system), _Message("user", user)]
        before = self._by_schema
        try:
            return await self._ask(messages, by_schema=self._by_schema)
        except Refused as refusal:
            await self._settle()
            if self._by_schema == before:
                raise Declined(f"the endpoint refuses it ({refusal})") from None
        try:
            return await self._ask(messages, by_schema=self._by_schema)
        except Refused as refusal:
            raise Declined(f"the endpoint refuses it ({refusal})") from None

    async def is_well(self) -> bool:
        """Whether a short question is answered."""
        try:
            await self._settle()
        except ProviderUnavailable:
            return False
        return True

    async def _settle(self) -> None:
        """Find the way in which the server takes a question. Raises ProviderUnavailable where it takes none."""
        refusal: Refused | None = None
        for by_schema in (self._by_schema, not self._by_schema):
            try:
                await self._ask([_Message("user", _PROBE)], by_schema=by_schema)
            except Refused as error:
                refusal = refusal or error
                continue
            except Declined:
                pass
            self._by_schema = by_schema
            return
        raise ProviderUnavailable(
            f"the provider refuses every question ({refusal}); check distillation.model and distillation.endpoint"
        )

    async def _ask(self, messages: list[_Message], *, by_schema: bool) -> str:
        request = _Request(self.model, messages)
        if by_schema:
            request.response_format = _response_format()
        body = msgspec.json.encode(request)
        choice = await self._endpoint.ask(body, _decode, largest=LARGEST_ANSWER, query=False)
        if choice.finish_reason == "length":
            raise Declined("the model's answer is cut off at the length that the endpoint allows")
        if choice.message.refusal or not choice.message.content:
            raise Declined("the model declines to answer")
        return choice.message.content


def _decode(answer: bytes) -> _Choice:
    """The first choice. Raises ValueError."""
    try:
        choices = msgspec.json.decode(answer, type=_Reply).choices
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError):
        raise ValueError("it is not what the chat completions API answers") from None
    if not choices:
        raise ValueError("it holds no choice")
    return choices[0]


def _response_format() -> Raw:
    schema: Any = Raw(read_prompt(_SCHEMA).encode())
    named = {"name": "facts", "strict": True, "schema": schema}
    return Raw(msgspec.json.encode({"type": "json_schema", "json_schema": named}))


def read_prompt(name: str) -> str:
    """The text of a file in `prompts`."""
    return files(__package__).joinpath("prompts", name).read_text(encoding="utf-8")
