"""Names: keys in Redis, the schema and roles in Postgres, the shard of an agent, the ids of events."""

from __future__ import annotations

import re
from dataclasses import dataclass
from functools import lru_cache
from hashlib import blake2b
from uuid import UUID

from agentmemory_engine.errors import InvalidAgentId, InvalidChannel

NAME = r"[A-Za-z0-9][A-Za-z0-9._:@+~=-]{0,127}"
"""What an agent, a channel, a group or a consumer may be called."""
A_NAME = {"pattern": f"^{NAME}$"}
"""The same, as a description has it."""
_AGENT = re.compile(NAME, re.ASCII)

# An explicit list: key patterns do not cover commands without a key, so a category would let one memory scan another's.
REDIS_COMMANDS = (
    "ping", "hello", "auth", "client|setname", "info", "eval", "evalsha", "script|load", "get", "getrange", "set",
    "del", "exists", "pexpire", "pttl", "persist", "hget", "hmget", "hset", "hdel", "zadd", "zrem", "zrange",
    "zrangebyscore", "zremrangebyscore", "zcard", "rpush", "lrange", "lindex", "llen", "ltrim", "xadd", "xlen",
    "xrange", "xtrim", "xinfo|stream", "time", "xreadgroup", "xautoclaim", "xpending", "xack", "xgroup|create",
    "xgroup|createconsumer", "xgroup|delconsumer", "xgroup|destroy", "xinfo|consumers", "hlen", "zscore", "dump",
    "cluster|info", "cluster|slots", "hincrby", "hexists", "hkeys", "hgetall",
)  # fmt: skip


def check_agent(agent: str) -> str:
    """Return the agent id as it is. Raises InvalidAgentId."""
    if _AGENT.fullmatch(agent) is None:
        raise InvalidAgentId(f"{agent[:64]!r} is not an agent id. {InvalidAgentId.__doc__}")
    return agent


def is_name(text: str) -> bool:
    """Whether it keeps to the rule of agent ids, to which channels, groups and consumers keep as well."""
    return _AGENT.fullmatch(text) is not None


def check_channel(channel: str) -> str:
    """Return the channel's name as it is. Raises InvalidChannel."""
    if _AGENT.fullmatch(channel) is None:
        raise InvalidChannel(f"{channel[:64]!r} is not a channel. {InvalidChannel.__doc__}")
    return channel


@lru_cache(maxsize=4096)
def shard_of(agent: str, shards: int) -> int:
    """The shard that holds all of this agent's keys; never changes for a given number of shards."""
    return int.from_bytes(blake2b(agent.encode(), digest_size=8).digest(), "big") % shards


def digest_key(key: str) -> bytes:
    """The 16 bytes under which an idempotency key is remembered."""
    return blake2b(key.encode(), digest_size=16).digest()


def digest_agent(agent: str) -> bytes:
    """The 16 bytes by which a tombstone names an agent, so that it does not keep what was erased."""
    return blake2b(agent.encode(), digest_size=16, person=b"tombstone").digest()


def event_id(agent: str, key: bytes, index: int) -> UUID:
    """The id of the event at `index` of the turn with this key digest: the same turn always has the same ids."""
    return _id_of(agent, key + index.to_bytes(4, "big"))


def fact_id(agent: str, key: bytes) -> UUID:
    """The id of the version of a fact that the request with this key digest makes."""
    return _id_of(agent, key, b"fact")


def document_id(agent: str, version: str, body: bytes) -> UUID:
    """The id under which what stood in the place of a document is set aside: the same bytes, once."""
    return _id_of(agent, version.encode() + b"\n" + blake2b(body, digest_size=16).digest(), b"document")


def session_id(agent: str, key: bytes) -> UUID:
    """The id of the session that the request with this key digest starts, where it names none."""
    return _id_of(agent, key, b"session")


def _id_of(agent: str, rest: bytes, person: bytes = b"") -> UUID:
    name = agent.encode()
    parts = len(name).to_bytes(2, "big") + name + rest
    raw = bytearray(blake2b(parts, digest_size=16, person=person).digest())
    raw[6] = raw[6] & 0x0F | 0x80
    raw[8] = raw[8] & 0x3F | 0x80
    return UUID(bytes=bytes(raw))


@dataclass(frozen=True)
class Keys:
    """The keys of one AgentMemory in Redis: `am:<namespace>.<name>:{<namespace>.<name>/<shard>}:…`.

    All keys of one shard share a hash tag, so that each script runs on one node of a Redis Cluster.
    """

    namespace: str
    name: str

    @property
    def prefix(self) -> str:
        return f"am:{self.namespace}.{self.name}:"

    def _shard(self, shard: int, rest: str) -> str:
        return f"{self.prefix}{{{self.namespace}.{self.name}/{shard}}}:{rest}"

    @property
    def identity(self) -> str:
        return self.prefix + "identity"

    def state(self, shard: int) -> str:
        """Hash: the opening mark, the token of an opening under way, how far was trimmed."""
        return self._shard(shard, "state")

    def journal(self, shard: int) -> str:
        """Stream: the pending events."""
        return self._shard(shard, "journal")

    def leases(self, shard: int) -> str:
        """Sorted set: the agents with working memory, by the end of their lease (+inf: not snapshotted yet)."""
        return self._shard(shard, "leases")

    def document(self, shard: int, agent: str) -> str:
        return self._shard(shard, "document:" + agent)

    def window(self, shard: int, agent: str) -> str:
        """List: the recent messages, oldest first."""
        return self._shard(shard, "window:" + agent)

    def idempotency(self, shard: int, agent: str, key: bytes) -> str:
        return self._shard(shard, f"key:{agent}:{key.hex()}")

    def openings(self, shard: int) -> str:
        """Hash, in mode Redis: of each opening, the last entry of the shard that it found."""
        return self._shard(shard, "openings")

    def agents(self, shard: int) -> str:
        """Sorted set, in mode Redis: the agents, by when all of theirs was embedded (+inf: something may not be)."""
        return self._shard(shard, "agents")

    def claims(self, shard: int) -> str:
        """Hash, in mode Redis: the agents that a sidecar embeds for: until when, and which."""
        return self._shard(shard, "claims")

    def log(self, shard: int, agent: str) -> str:
        """Stream, in mode Redis: the agent's turns, as many as are kept."""
        return self._shard(shard, "log:" + agent)

    def about(self, shard: int, agent: str) -> str:
        """Hash, in mode Redis: what outlives the turns in the log.

        `document` the last change of the document; `s:<session>` when it was met first and last; `records` their
        revision; `events` how many events and facts with a text there were, and `embedded` how many of them are; `life`
        the entry of the last erasure.
        """
        return self._shard(shard, "about:" + agent)

    def vectors(self, shard: int, agent: str) -> str:
        """Hash, in mode Redis: of events and facts, by the 16 bytes of the id."""
        return self._shard(shard, "vectors:" + agent)

    def unembeddable(self, shard: int, agent: str) -> str:
        """Hash, in mode Redis: why an event or fact gets no vector, by the 16 bytes of the id."""
        return self._shard(shard, "unembeddable:" + agent)

    def records(self, shard: int, agent: str) -> str:
        """Hash, in mode Redis: the sessions (`s:<id>`) and the versions of facts (`f:<id>`) that requests have made."""
        return self._shard(shard, "records:" + agent)

    def letters(self, shard: int) -> str:
        """Hash, in mode Redis: the documents of the shard that were set aside, by agent and id."""
        return self._shard(shard, "letters")

    def channels(self, shard: int) -> str:
        """Sorted set: the channels of the shard, by when the last message of each is not kept any longer."""
        return self._shard(shard, "channels")

    def channel(self, shard: int, channel: str) -> str:
        """Stream: the channel's messages."""
        return self._shard(shard, "channel:" + channel)

    def channel_state(self, shard: int, channel: str) -> str:
        """Hash: the last position given, the bytes kept, how far each group has come."""
        return self._shard(shard, "channel-state:" + channel)

    def channel_key(self, shard: int, channel: str, key: bytes) -> str:
        return self._shard(shard, f"channel-key:{channel}:{key.hex()}")

    def acl(self) -> list[str]:
        """The rules of the ACL user of this AgentMemory: its own keys, an explicit list of commands, no channels."""
        return ["reset", f"~{self.prefix}*", "-@all", *(f"+{command}" for command in REDIS_COMMANDS)]

    @property
    def schema(self) -> str:
        """The schema in Postgres: readable, unique for (namespace, name), short enough for role suffixes."""
        readable = re.sub(r"[^a-z0-9]+", "_", f"{self.namespace}_{self.name}".lower())[:36]
        return f"am_{readable}_{blake2b(f'{self.namespace}/{self.name}'.encode(), digest_size=4).hexdigest()}"
