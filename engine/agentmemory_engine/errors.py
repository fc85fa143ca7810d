"""What can go wrong, as types. Each message says what happened and what to do about it.

`code` is the stable slug that the HTTP API puts behind `https://agentmemory.io/problems/`; `title` is its short name.

    MemoryFault
    ├── InvalidInput          the caller's request can never succeed as it is
    │   ├── InvalidAgentId
    │   ├── InvalidChannel
    │   ├── InvalidPosition
    │   ├── UnstorableText
    │   └── KeyReused
    ├── TooLarge
    ├── Missing               what was asked for is not there
    │   ├── NoDocument
    │   ├── DocumentExpired
    │   ├── NoSnapshot
    │   ├── NoDeadLetter
    │   ├── NoSession
    │   ├── NoDistillation
    │   └── NoFact
    ├── VersionConflict
    ├── FactEnded             what is no longer believed does not change
    ├── UnreadableDocument    what stands in its place is no JSON object
    ├── DistillationOff       no facts are drawn from sessions here
    ├── NotInThisMode         another mode of memory can
    ├── PositionLost
    ├── BarrierTimeout
    └── Unavailable           the same request can succeed later
        ├── StoreUnavailable
        ├── ShardClosed
        ├── JournalFull
        ├── RecallUnavailable
        ├── ProviderUnavailable
        ├── TooManyFollowers
        └── Refused           it needs a person first
            ├── NotPrepared
            ├── WrongEvictionPolicy
            ├── ForeignStore
            └── SchemaMismatch
"""

from __future__ import annotations

from typing import ClassVar


class MemoryFault(Exception):
    """Base of every error the engine raises on purpose."""

    code: ClassVar[str] = "internal"
    title: ClassVar[str] = "Internal error"


class InvalidInput(MemoryFault):
    """The request breaks a rule that its message names."""

    code = "invalid-request"
    title = "Invalid request"


class InvalidAgentId(InvalidInput):
    """An agent id is 1 to 128 of the characters A-Z a-z 0-9 . _ : @ + ~ = - and begins with a letter or digit."""

    code = "invalid-agent-id"
    title = "Invalid agent id"


class InvalidChannel(InvalidInput):
    """A channel's name is 1 to 128 of the characters A-Z a-z 0-9 . _ : @ + ~ = - and begins with a letter or digit."""

    code = "invalid-channel"
    title = "Invalid channel"


class InvalidPosition(InvalidInput):
    """A position is what an earlier answer gave, such as `3.7-1042`."""

    code = "invalid-position"
    title = "Invalid position"


class UnstorableText(InvalidInput):
    """The text holds a NUL character or a lone surrogate, which Postgres cannot store."""

    code = "unstorable-text"
    title = "Text that cannot be stored"


class KeyReused(InvalidInput):
    """The idempotency key has already been used for another body."""

    code = "idempotency-key-reused"
    title = "Idempotency key reused"


class TooLarge(MemoryFault):
    """A body, document or event is over its limit."""

    code = "too-large"
    title = "Too large"


class Missing(MemoryFault):
    """What was asked for does not exist."""

    code = "not-found"
    title = "Not found"


class NoDocument(Missing):
    """The agent has no working-memory document."""

    code = "no-working-memory"
    title = "No working memory"


class DocumentExpired(Missing):
    """The document's lease ended; where there is a Postgres, its last snapshot is kept.

    `version` is the snapshot's version, a position; None where none is kept.
    """

    code = "expired"
    title = "Working memory expired"

    def __init__(self, message: str, *, version: str | None) -> None:
        super().__init__(message)
        self.version = version


class NoSnapshot(Missing):
    """No snapshot of that version is kept."""

    code = "no-snapshot"
    title = "No such snapshot"


class NoDeadLetter(Missing):
    """No dead letter has that id."""

    code = "no-dead-letter"
    title = "No such dead letter"


class NoSession(Missing):
    """The agent has no session of that id."""

    code = "no-session"
    title = "No such session"


class NoModel(Missing):
    """No model of embeddings has that number here."""

    code = "no-model"
    title = "No such model"


class ModelInUse(MemoryFault):
    """The model is one that vectors are needed of."""

    code = "model-in-use"
    title = "Model in use"


class NoDistillation(Missing):
    """Nothing is asked for, or given up, of that session."""

    code = "no-distillation"
    title = "No such distillation"


class NoFact(Missing):
    """The agent's knowledge has no fact of that id."""

    code = "no-fact"
    title = "No such fact"


class FactEnded(MemoryFault):
    """The fact is no longer believed, and what was believed does not change.

    `current` is the id of the version that is believed now, or None where belief has ended.
    """

    code = "no-longer-believed"
    title = "No longer believed"

    def __init__(self, message: str, *, current: str | None) -> None:
        super().__init__(message)
        self.current = current


class UnreadableDocument(MemoryFault):
    """What stands in the place of the document is no JSON object. `version` is its version, None where it has none."""

    code = "unreadable-document"
    title = "Unreadable working memory"

    def __init__(self, message: str, *, version: str | None) -> None:
        super().__init__(message)
        self.version = version


class DistillationOff(MemoryFault):
    """`spec.distillation` is not given: no facts are drawn from sessions."""

    code = "distillation-off"
    title = "No distillation"


class VersionConflict(MemoryFault):
    """The document has another version than the request expected.

    `current` is the document's version, or None where there is no document.
    """

    code = "version-conflict"
    title = "Version conflict"

    def __init__(self, message: str, *, current: str | None) -> None:
        super().__init__(message)
        self.current = current


class NotInThisMode(MemoryFault):
    """The mode of this memory does without the store that this needs."""

    code = "not-in-this-mode"
    title = "Not in this mode"


class PositionLost(MemoryFault):
    """A store went back in time past this position; what stood there is gone and is reported as lost."""

    code = "position-lost"
    title = "Position lost by a store"


class BarrierTimeout(MemoryFault):
    """The positions were not reached within the time given."""

    code = "barrier-timeout"
    title = "Not reached in time"


class Unavailable(MemoryFault):
    """The request was not carried out, and may succeed when repeated with the same idempotency key.

    `retry_after` is in seconds.
    """

    code = "unavailable"
    title = "Temporarily unavailable"
    retry_after: ClassVar[int] = 1


class StoreUnavailable(Unavailable):
    """Redis or Postgres does not answer. `store` names it."""

    code = "store-unavailable"
    title = "Store unavailable"

    def __init__(self, store: str, message: str) -> None:
        super().__init__(f"{store}: {message}")
        self.store = store


class ShardClosed(Unavailable):
    """The shard is not yet opened for the present run of Redis."""

    code = "shard-closed"
    title = "Shard not open yet"


class JournalFull(Unavailable):
    """Redis has no room left; nothing of the turn was applied."""

    code = "journal-full"
    title = "Journal full"
    retry_after = 5


class RecallUnavailable(Unavailable):
    """Semantic recall cannot be answered, because no embedding can be made now or at all."""

    code = "recall-unavailable"
    title = "Recall unavailable"


class ProviderUnavailable(Unavailable):
    """A server of models is down, or does not answer in time; the same call may succeed later."""

    code = "provider-unavailable"
    title = "Provider unavailable"


class TooManyFollowers(Unavailable):
    """As many wait for messages of channels as this sidecar serves at once."""

    code = "too-many-followers"
    title = "Too many followers"
    retry_after = 5


class Refused(Unavailable):
    """A store is not in a state in which memory would be safe; a person has to mend it."""

    code = "refused"
    title = "Refused"
    retry_after = 30


class NotPrepared(Refused):
    """Nobody has made the store ready for this memory."""

    code = "not-prepared"
    title = "Store not prepared"


class WrongEvictionPolicy(Refused):
    """Redis may evict unflushed memory."""

    code = "wrong-eviction-policy"
    title = "Redis may evict memory"


class ForeignStore(Refused):
    """A store belongs to another AgentMemory."""

    code = "foreign-store"
    title = "Store of another AgentMemory"


class SchemaMismatch(Refused):
    """The schema in Postgres and this version of the software do not fit."""

    code = "schema-mismatch"
    title = "Schema does not fit"
