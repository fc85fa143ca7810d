"""What can go wrong, as types. The message says what happened and what to do about it.

AgentMemoryError
├── Unreachable               no answer from the sidecar within the time allowed
├── UnexpectedAnswer          what answers at that address is not AgentMemory
├── CutOff                    a long answer ended in the middle
├── DegradedAnswer            a list is not whole, because a store does not answer
├── NotReady                  the sidecar answers, but does not take work in the time allowed
└── ProblemError              the sidecar refused, and says why
    ├── Forbidden
    │   └── WholeAgentNotAllowed
    ├── InvalidRequest
    │   └── KeyReused
    ├── NotFound
    │   ├── NoWorkingMemory
    │   ├── Expired
    │   ├── NoSnapshot
    │   ├── NoDeadLetter
    │   ├── NoModel
    │   ├── NoSession
    │   ├── NoDistillation
    │   └── NoFact
    ├── NoLongerBelieved      a fact that is history does not change
    ├── ModelInUse
    ├── UnreadableDocument    what stands in its place is no JSON object
    ├── DistillationOff       no facts are drawn from sessions here
    ├── VersionConflict
    ├── TooLarge
    ├── NotInThisMode
    ├── PositionLost
    ├── BarrierTimeout
    └── Unavailable           the same request can succeed later
        ├── StoreUnavailable
        ├── ShardClosed
        ├── JournalFull
        ├── RecallUnavailable
        ├── TooManyFollowers
        ├── WrongEvictionPolicy
        ├── NotPrepared
        ├── ForeignStore
        └── SchemaMismatch
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, ClassVar

import msgspec

PROBLEMS = "https://agentmemory.io/problems/"


class AgentMemoryError(Exception):
    """Base of every error of this package.

    `idempotency_key` is the key of the write that failed: the same call with it writes at most once, whether or not
    the first one came through. None for a read.
    """

    idempotency_key: str | None = None


class Unreachable(AgentMemoryError):
    """Nothing answered in time. A write may or may not have been accepted: repeat it with its `idempotency_key`."""


class UnexpectedAnswer(AgentMemoryError):
    """The answer is not one that AgentMemory gives."""


class CutOff(AgentMemoryError):
    """A long answer ended in the middle, as it does when a store fails: ask for it again."""


class DegradedAnswer(AgentMemoryError):
    """Part of a list could not be asked for; `degraded` names what did not answer."""

    def __init__(self, degraded: Sequence[str]) -> None:
        super().__init__(
            f"The answer is not whole ({', '.join(degraded)}). Ask again later, or take what there is "
            "with allow_degraded=True."
        )
        self.degraded = list(degraded)


class NotReady(AgentMemoryError):
    """The sidecar answers, but a store or a shard is not ready yet."""


class ProblemError(AgentMemoryError):
    """The sidecar's problem document (RFC 9457): `members` are those beyond the five of the standard."""

    code: ClassVar[str] = ""

    def __init__(
        self,
        *,
        type: str = "about:blank",
        title: str = "",
        status: int,
        detail: str = "",
        instance: str = "",
        members: Mapping[str, Any] | None = None,
    ) -> None:
        super().__init__(detail or title or f"HTTP status {status}")
        self.type = type
        self.title = title
        self.status = status
        self.detail = detail
        self.instance = instance
        self.members = dict(members or {})


class Forbidden(ProblemError):
    """The sidecar does not serve such a caller."""


class ClientHeaderMissing(Forbidden):
    """The request does not name its client."""

    code = "client-header-missing"


class ForeignOrigin(Forbidden):
    """The request comes from a page, or names a foreign host."""

    code = "foreign-origin"


class WholeAgentNotAllowed(Forbidden):
    """Export, import and erasure are not allowed to this pod; the message says what allows them."""

    code = "whole-agent-not-allowed"


class InvalidRequest(ProblemError):
    """The request can never succeed as it is."""

    code = "invalid-request"


class KeyReused(InvalidRequest):
    """The idempotency key was used for another body."""

    code = "idempotency-key-reused"


class NotFound(ProblemError):
    """What was asked for is not there."""

    code = "not-found"


class NoWorkingMemory(NotFound):
    """The agent has no working-memory document."""

    code = "no-working-memory"


class Expired(NotFound):
    """The document's lease has ended. Hydrate with `restore=True` brings it back."""

    code = "expired"

    @property
    def version(self) -> str | None:
        """The version of the last snapshot: `working_memory(version=…)` reads it."""
        return _text(self.members.get("version"))

    @property
    def snapshot(self) -> str | None:
        """The snapshot's address below the sidecar's."""
        return _text(self.members.get("snapshot"))


class NoSnapshot(NotFound):
    """No snapshot of that version is kept."""

    code = "no-snapshot"


class NoDeadLetter(NotFound):
    """No dead letter has that id; it may have been replayed or discarded already."""

    code = "no-dead-letter"


class NoModel(NotFound):
    """No model of embeddings has that id; its vectors may be gone already."""

    code = "no-model"


class NoSession(NotFound):
    """The agent has no session of that id."""

    code = "no-session"


class NoDistillation(NotFound):
    """Nothing is asked for, or given up, of that session."""

    code = "no-distillation"


class NoFact(NotFound):
    """The agent's knowledge has no fact of that id."""

    code = "no-fact"


class ModelInUse(ProblemError):
    """Recall goes by the model, or a sidecar embeds by it: its vectors stay."""

    code = "model-in-use"


class NoLongerBelieved(ProblemError):
    """This version of the fact is history, and history does not change."""

    code = "no-longer-believed"

    @property
    def current(self) -> str | None:
        """The id of the version that is believed now; None where none is."""
        return _text(self.members.get("current"))


class UnreadableDocument(ProblemError):
    """What stands in the place of the document is no JSON object; `hydrate` sets it aside, `put` writes a new one."""

    code = "unreadable-document"

    @property
    def version(self) -> str | None:
        """Its version; None where it has none."""
        return _text(self.members.get("version"))


class DistillationOff(ProblemError):
    """No facts are drawn from sessions here: `spec.distillation` is not given."""

    code = "distillation-off"


class VersionConflict(ProblemError):
    """The document has another version than `if_match` said: read it, and decide anew."""

    code = "version-conflict"

    @property
    def current(self) -> str | None:
        """The document's version; None where there is no document."""
        return _text(self.members.get("current"))


class TooLarge(ProblemError):
    """A body, document or event is over its limit."""

    code = "too-large"


class NotInThisMode(ProblemError):
    """The mode of this memory does without the store that this needs: channels want Redis."""

    code = "not-in-this-mode"


class PositionLost(ProblemError):
    """A store went back in time past the position, or its channel was forgotten; what stood there is gone."""

    code = "position-lost"


class BarrierTimeout(ProblemError):
    """The positions were not reached in the time given."""

    code = "barrier-timeout"


class Unavailable(ProblemError):
    """Not carried out. `retry_after` is in seconds, None where the sidecar did not say."""

    code = "unavailable"
    retry_after: float | None = None


class StoreUnavailable(Unavailable):
    """Redis or Postgres does not answer."""

    code = "store-unavailable"

    @property
    def store(self) -> str | None:
        """Which one."""
        return _text(self.members.get("store"))


class ShardClosed(Unavailable):
    """The agent's shard is not open yet in the present run of Redis."""

    code = "shard-closed"


class JournalFull(Unavailable):
    """Redis has no room left; nothing was applied."""

    code = "journal-full"


class RecallUnavailable(Unavailable):
    """No embedding can be made, now or at all."""

    code = "recall-unavailable"


class TooManyFollowers(Unavailable):
    """The sidecar serves no more that wait for messages of channels."""

    code = "too-many-followers"


class WrongEvictionPolicy(Unavailable):
    """Redis might evict memory that is not durable yet; a person has to mend it."""

    code = "wrong-eviction-policy"


class NotPrepared(Unavailable):
    """Nobody has made the store ready for this memory; a person has to mend it."""

    code = "not-prepared"


class ForeignStore(Unavailable):
    """A store belongs to another AgentMemory; a person has to mend it."""

    code = "foreign-store"


class SchemaMismatch(Unavailable):
    """The schema in Postgres and the sidecar do not fit; a person has to mend it."""

    code = "schema-mismatch"


def problem_from(status: int, body: bytes) -> ProblemError | None:
    """The error that a problem document stands for; None where `body` is no problem document."""
    try:
        document = msgspec.json.decode(body, type=dict[str, Any])
    except (msgspec.DecodeError, UnicodeDecodeError):
        return None
    if not isinstance(document.get("type"), str):
        return None
    standard = {name: str(document.pop(name, "")) for name in ("type", "title", "detail", "instance")}
    document.pop("status", None)
    return _kind(standard["type"], status)(status=status, members=document, **standard)


def _kind(type_: str, status: int) -> type[ProblemError]:
    # A code of a later sidecar is still caught by its family.
    code = type_.removeprefix(PROBLEMS)
    known = {kind.code: kind for kind in _descendants(ProblemError) if kind.code}
    return known.get(code) or _BY_STATUS.get(status, ProblemError)


def _descendants(kind: type[ProblemError]) -> list[type[ProblemError]]:
    return [found for child in kind.__subclasses__() for found in (child, *_descendants(child))]


def _text(value: Any) -> str | None:
    return None if value is None else str(value)


_BY_STATUS: Mapping[int, type[ProblemError]] = {
    400: InvalidRequest,
    403: Forbidden,
    404: NotFound,
    412: VersionConflict,
    413: TooLarge,
    415: InvalidRequest,
    422: InvalidRequest,
    503: Unavailable,
}
