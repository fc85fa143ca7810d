"""Slots of a Redis Cluster: which one a key belongs to, and which node serves which."""

from __future__ import annotations

import binascii
from dataclasses import dataclass, field
from functools import lru_cache
from typing import Any

SLOTS = 16_384


@lru_cache(maxsize=4096)
def slot_of(key: str) -> int:
    """The slot of a key: of its hash tag, where it has one."""
    _, _, rest = key.partition("{")
    tag, closed, _ = rest.partition("}")
    return binascii.crc_hqx((tag if tag and closed else key).encode(), 0) % SLOTS


@dataclass(frozen=True)
class SlotMap:
    """Who serves what, as one node sees it; nodes are named `host:port`.

    Of several views the highest holds: one of a node that sees the cluster whole, then the one of the latest epoch.
    """

    healthy: bool = False
    epoch: int = -1
    masters: tuple[str | None, ...] = field(default=(None,) * SLOTS, repr=False)
    nodes: frozenset[str] = frozenset()
    """Replicas as well."""

    @property
    def rank(self) -> tuple[bool, int]:
        return self.healthy, self.epoch


def parse_view(info: str, slots: Any, asked: str) -> SlotMap:
    """Read CLUSTER INFO and CLUSTER SLOTS; `asked` is the host that answered, which does not name itself at times."""
    said = dict(line.split(":", 1) for line in info.splitlines() if ":" in line)
    masters: list[str | None] = [None] * SLOTS
    nodes: set[str] = set()
    for first, last, *servers in slots:
        places = [_place(server, asked) for server in servers]
        nodes.update(place for place in places if place is not None)
        masters[first : last + 1] = [places[0] if places else None] * (last + 1 - first)
    epoch = int(said.get("cluster_current_epoch", 0))
    return SlotMap(said.get("cluster_state") == "ok", epoch, tuple(masters), frozenset(nodes))


def _place(server: Any, asked: str) -> str | None:
    """`host:port`; None where the cluster does not know the host."""
    host = (server[0].decode() if isinstance(server[0], bytes) else server[0]) or asked
    return None if host == "?" else f"[{host}]:{server[1]}" if ":" in host else f"{host}:{server[1]}"
