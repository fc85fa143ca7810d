"""What a model answers, taken as facts or refused whole: pure."""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from hashlib import blake2b
from typing import Annotated
from uuid import UUID

import msgspec
from msgspec import Meta, Struct

from agentmemory_engine.distillation.errors import Nonsense
from agentmemory_engine.errors import InvalidInput
from agentmemory_engine.facts import NewFact
from agentmemory_engine.turns import decode

MOST_FACTS = 100
"""Of one part of a session."""
PREFIX = "distilled"

_FENCE = re.compile(r"```(?:json)?\s*\n(.*?)```", re.DOTALL)
_WORDS = re.compile(r"[^\W_]+")


class _Drawn(Struct):
    key: Annotated[str, Meta(min_length=1, max_length=200)]
    topic: Annotated[str, Meta(min_length=1, max_length=256)]
    content: Annotated[str, Meta(min_length=1, max_length=4096)]
    confidence: Annotated[float, Meta(ge=0, le=1)]
    sources: Annotated[list[str], Meta(min_length=1, max_length=1000)]


class _Answer(Struct):
    facts: Annotated[list[_Drawn], Meta(max_length=MOST_FACTS)]


def prefix_of(session: str) -> str:
    """What the keys of all facts of a session begin with."""
    return f"{PREFIX}/{blake2b(session.encode(), digest_size=12).hexdigest()}/"


def read_facts(text: str, sources: Mapping[str, UUID], *, session: str, model: str) -> list[NewFact]:
    """The facts in an answer. `sources` are the events that were told, by the ids that the model was given.

    Raises Nonsense where anything is not as it was asked for: then none of it is taken.
    """
    drawn = _parse(text).facts
    metadata = {PREFIX: msgspec.Raw(msgspec.json.encode({"session": session, "model": model}))}
    facts = []
    for number, one in enumerate(drawn):
        unknown = set(one.sources) - sources.keys()
        if unknown:
            raise Nonsense(f"facts[{number}] of the answer names {len(unknown)} sources that the model was not given")
        words = _WORDS.findall(one.key.lower())
        if not words or not one.topic.strip() or not one.content.strip():
            raise Nonsense(f"facts[{number}] of the answer has a blank key, topic or content")
        key = prefix_of(session) + "-".join(words)
        learnt = [sources[name] for name in dict.fromkeys(one.sources)]
        facts.append(
            NewFact(
                topic=one.topic.strip(), content=one.content.strip(), key=key, confidence=one.confidence,
                sources=learnt, metadata=metadata,
            )
        )  # fmt: skip
    if len({fact.key for fact in facts}) < len(facts):
        raise Nonsense("two facts of the answer have the same key")
    return facts


def _parse(text: str) -> _Answer:
    fault: InvalidInput | None = None
    for candidate in _candidates(text):
        try:
            return decode(candidate.encode(errors="surrogatepass"), _Answer)
        except InvalidInput as error:
            fault = fault or error
    raise Nonsense(f"the answer is not the JSON that was asked for: {fault}")


def _candidates(text: str) -> Iterator[str]:
    """Where the JSON of an answer may be: all of it, what is fenced in it, what its outermost braces enclose."""
    yield text
    yield from (match[1] for match in _FENCE.finditer(text))
    first, last = text.find("{"), text.rfind("}")
    if 0 < first < last or (first == 0 and 0 < last < len(text) - 1):
        yield text[first : last + 1]
