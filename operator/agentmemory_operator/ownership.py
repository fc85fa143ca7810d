"""What goes with an AgentMemory and what stays: owner references of what is of value, as the deletion policy says.

The steps write them too. This is for the moments in which no step may write (a pause, a change that is refused) or
will any more (a deletion): what people asked for last about their data holds then as well.
"""

from __future__ import annotations

from typing import Any

from agentmemory_operator.changes import with_applied_stores
from agentmemory_operator.kube import (
    CERTIFICATE,
    NETWORK_POLICY,
    POD_DISRUPTION_BUDGET,
    SECRET,
    SERVICE,
    STATEFUL_SET,
    Kind,
    Object,
)
from agentmemory_operator.names import KIND, child
from agentmemory_operator.objects import is_ours
from agentmemory_operator.resources.common import owner
from agentmemory_operator.spec import AgentMemory
from agentmemory_operator.work import Work


async def settle_ownership(work: Work) -> None:
    """Have everything of value go with the memory, or stay, as its policy says. Raises KubeError.

    What a former memory of this name, in another mode, left in a store that this one does not use stays as it is.
    """
    memory = with_applied_stores(work.memory)
    for kind, part in _of_value(memory):
        live = await work.kube.get(kind, memory.namespace, child(memory.name, part))
        if live is None or not is_ours(live, memory.name):
            continue
        body = change_of(live, memory)
        if body:
            await work.kube.patch(kind, memory.namespace, live["metadata"]["name"], body)


def _of_value(memory: AgentMemory) -> list[tuple[Kind, str]]:
    stores = memory.spec.stores
    certified = (*stores, "pooler") if "postgres" in stores else stores
    found = [(SECRET, "credentials"), (SECRET, "ca"), *((SECRET, f"{part}-admin") for part in stores)]
    found += [(SECRET, f"{part}-tls") for part in certified]
    for kind in (STATEFUL_SET, SERVICE, NETWORK_POLICY, POD_DISRUPTION_BUDGET):
        found += [(kind, part) for part in stores]
    if memory.spec.tls.issuer_ref is not None:
        found += [(CERTIFICATE, f"{part}-tls") for part in certified]
    return found


def change_of(live: Object, memory: AgentMemory) -> dict[str, Any]:
    """The merge patch that leaves an object as the policy says; empty where it is so. Other owners stay."""
    policy = memory.spec.deletion_policy
    there: list[dict[str, Any]] = live["metadata"].get("ownerReferences", [])
    wanted = [one for one in there if one["kind"] != KIND] + (owner(memory) if policy == "Delete" else [])
    body: dict[str, Any] = {}
    if [one["uid"] for one in wanted] != [one["uid"] for one in there]:
        body["metadata"] = {"resourceVersion": live["metadata"]["resourceVersion"], "ownerReferences": wanted or None}
    kept = live.get("spec", {}).get("persistentVolumeClaimRetentionPolicy", {})
    if kept and kept.get("whenDeleted") != policy:
        body["spec"] = {"persistentVolumeClaimRetentionPolicy": {"whenDeleted": policy}}
    return body
