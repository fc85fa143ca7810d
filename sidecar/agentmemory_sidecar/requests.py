"""Reading requests: the agent, the body, query parameters, keys and versions. What breaks a rule is InvalidInput."""

from __future__ import annotations

import fnmatch
import re
from collections.abc import Sequence
from datetime import datetime
from typing import Any, TypeVar, get_args, get_origin
from urllib.parse import unquote_to_bytes

import msgspec
from aiohttp import hdrs, web

from agentmemory_engine.errors import InvalidInput, UnstorableText
from agentmemory_engine.journal import ABSENT
from agentmemory_engine.keys import check_agent
from agentmemory_engine.memory import Memory
from agentmemory_engine.positions import Position
from agentmemory_engine.turns import decode
from agentmemory_sidecar.errors import AgentNotAllowed, ClientGone, WholeAgentNotAllowed

S = TypeVar("S", bound=msgspec.Struct)
IDEMPOTENCY_KEY = "Idempotency-Key"
ALLOW_WHOLE = "AGENTMEMORY_ALLOW_EXPORT_AND_ERASURE"
_WILD = re.compile(r"[*?\[\]]")
LAST_EVENT_ID = "Last-Event-ID"
_KEY = re.compile(r"[\x20-\x7e]{1,255}")
_ENTITY_TAG = re.compile(r'(?:W/)?"([^"]*)"')


class AllowedAgents:
    """Which agents this sidecar's pod may name: ids, or patterns with `*` and `?`; none given: any.

    `whole` allows it to export and erase agents also where none are given.
    """

    def __init__(self, patterns: Sequence[str], *, whole: bool = False) -> None:
        self._whole = whole or bool(patterns)
        joined = "|".join(fnmatch.translate(pattern) for pattern in patterns)
        self._pattern = re.compile(joined) if patterns else None
        self.named = sorted(set(patterns)) if not _WILD.search("".join(patterns)) else []
        """All of them, where they are named one by one; else none."""

    def allows(self, agent: str) -> bool:
        """Whether this agent may be named."""
        return self._pattern is None or self._pattern.match(agent) is not None

    def check(self, agent: str) -> str:
        """Answer the agent as it is. Raises InvalidAgentId, AgentNotAllowed."""
        check_agent(agent)
        if not self.allows(agent):
            raise AgentNotAllowed(
                f"This pod may not name the agent {agent!r}; the annotation agentmemory.io/agents says which."
            )
        return agent

    def check_whole(self, agent: str) -> str:
        """As check, for what concerns all of an agent's memory. Raises WholeAgentNotAllowed as well."""
        if not self._whole:
            raise WholeAgentNotAllowed(
                "Export, import and erasure want the pod's agents to be named: give it the annotation "
                f"agentmemory.io/agents (AGENTMEMORY_AGENTS), or allow them for any agent with {ALLOW_WHOLE}=true."
            )
        return self.check(agent)


MEMORY = web.AppKey("memory", Memory)
AGENTS = web.AppKey("agents", AllowedAgents)


def agent_of(request: web.Request) -> str:
    """The agent in the path. Raises InvalidAgentId, AgentNotAllowed."""
    return request.app[AGENTS].check(request.match_info["agent"])


def whole_agent_of(request: web.Request) -> str:
    """The agent in the path, whose memory is asked for as a whole.

    Raises InvalidAgentId, AgentNotAllowed, WholeAgentNotAllowed.
    """
    return request.app[AGENTS].check_whole(request.match_info["agent"])


async def body_of(request: web.Request) -> bytes:
    """The whole body; aiohttp refuses one over the limit. Raises ClientGone, InvalidInput."""
    try:
        return await request.read()
    except ConnectionError:
        raise ClientGone from None
    except web.RequestPayloadError as error:
        raise InvalidInput(f"The body is not what its headers say: {error}.") from None


def params_of(request: web.Request, kind: type[S]) -> S:
    """The query parameters as the struct `kind`; a list is a parameter that may be repeated. Raises InvalidInput."""
    _check_encoding(request)
    given: dict[str, str | list[str]] = {}
    lists = {field.encode_name for field in msgspec.structs.fields(kind) if get_origin(field.type) is list}
    for name, value in request.query.items():
        if "\x00" in value:
            raise UnstorableText(f"The query parameter {name!r} holds a NUL character; remove it.")
        if name in lists:
            given.setdefault(name, []).append(value)  # type: ignore[union-attr]
        elif given.setdefault(name, value) != value:
            raise InvalidInput(f"The query parameter {name!r} is given twice.")
    try:
        for field in msgspec.structs.fields(kind):
            if field.encode_name in given and _is_moment(field.type):
                # Below, a number would count as seconds since 1970, and a year as half an hour after.
                msgspec.convert(given[field.encode_name], datetime)
        params = msgspec.convert(given, kind, strict=False)
    except msgspec.ValidationError as error:
        raise InvalidInput(f"The query parameters are not what this route takes: {error}.") from None
    # In a query, `null` is a text like any other: where none is wanted, it must not switch off what it stands for.
    for field in msgspec.structs.fields(kind):
        if field.encode_name in given and getattr(params, field.name) is None:
            raise InvalidInput(f"The query parameter {field.encode_name!r} has no value; give it one, or leave it out.")
    return params


def _check_encoding(request: web.Request) -> None:
    """Raises InvalidInput for a query of other bytes than UTF-8, which would be read as the text of their escapes."""
    raw = request.rel_url.raw_query_string
    try:
        if "%" in raw:
            unquote_to_bytes(raw).decode()
    except UnicodeDecodeError:
        raise InvalidInput("The query parameters are not UTF-8; encode them so before they are escaped.") from None


def _is_moment(kind: Any) -> bool:
    return kind is datetime or any(map(_is_moment, get_args(kind)))


def object_of(text: str | None, name: str) -> bytes | None:
    """The JSON object in the query parameter `name`, as bytes; None where it is not given. Raises InvalidInput."""
    if text is None:
        return None
    try:
        body = text.encode()
        decode(body, dict[str, msgspec.Raw])
    except (InvalidInput, UnicodeEncodeError) as error:
        raise InvalidInput(f"The query parameter {name!r} is a JSON object: {error}") from None
    return body


def no_params(request: web.Request) -> None:
    """Raises InvalidInput where a route without query parameters is given some."""
    if request.query_string:
        raise InvalidInput("This route takes no query parameters.")


def key_of(request: web.Request) -> str | None:
    """The idempotency key, if one is given. Raises InvalidInput."""
    key = request.headers.get(IDEMPOTENCY_KEY)
    if key is not None and _KEY.fullmatch(key) is None:
        raise InvalidInput(f"{IDEMPOTENCY_KEY} is 1 to 255 printable ASCII characters.")
    return key


def expected_of(request: web.Request) -> str | None:
    """The version that If-Match names, ABSENT for `If-None-Match: *`, or None. Raises InvalidInput."""
    match, none_match = request.headers.get(hdrs.IF_MATCH), request.headers.get(hdrs.IF_NONE_MATCH)
    if none_match is not None:
        if none_match.strip() != "*" or match is not None:
            raise InvalidInput('A write takes either If-Match: "<version>" or If-None-Match: *')
        return ABSENT
    if match is None:
        return None
    tag = match.strip()
    if tag.startswith('"') and tag.endswith('"'):
        tag = tag[1:-1]
    Position.parse(tag)
    return tag


def is_known_version(request: web.Request, version: str) -> bool:
    """Whether If-None-Match names this version, so that a reader has the document already."""
    header = request.headers.get(hdrs.IF_NONE_MATCH)
    if header is None:
        return False
    return header.strip() == "*" or version in _ENTITY_TAG.findall(header)


def position_of(memory: Memory, agent: str, text: str) -> Position:
    """A position of this agent. Raises InvalidPosition, InvalidInput."""
    position = Position.parse(text)
    if position.shard != memory.settings.shard_of(agent):
        raise InvalidInput(f"{text} is not a position of the agent {agent!r}; use the one from the write's answer.")
    return position
