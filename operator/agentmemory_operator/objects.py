"""Objects in the cluster, kept as declared: made when absent, mended when they drift, never taken from others."""

from __future__ import annotations

import json
from base64 import b64decode, b64encode
from collections.abc import Awaitable, Callable, Mapping
from hashlib import sha256
from typing import Any

from kubernetes.utils.quantity import parse_quantity

from agentmemory_operator.errors import Blocked, Refused, Waiting
from agentmemory_operator.kube import SECRET, Kind, Kube, KubeError, Object, kind_of
from agentmemory_operator.names import GROUP, MANAGER, MEMORY_LABEL

APPLIED_ANNOTATION = f"{GROUP}/applied"
"""A digest of what was applied last: tells when a member is no longer declared."""


_EXACT = frozenset({"selector", "podSelector", "namespaceSelector", "matchLabels", "nodeSelector"})
"""Members that mean another thing with every key that is added."""
_IDENTITY = {
    "containers": "name", "initContainers": "name", "volumes": "name", "env": "name", "ports": "name",
    "imagePullSecrets": "name", "volumeMounts": "mountPath",
}  # fmt: skip
"""Lists to which others may add, and what tells their elements apart. Server-side apply leaves what others added."""


_GUARDS = ("NetworkPolicy", "PodDisruptionBudget")
"""Kinds without which everything serves as before."""


def covers(live: Any, desired: Any, *, member: str = "") -> bool:
    """Whether `live` has all that is desired; what the API server and others added does not count, except where it
    changes the meaning of what is desired. `member` is the name under which both were found."""
    if isinstance(desired, Mapping):
        if member in _EXACT:
            return bool(live == desired)
        return isinstance(live, Mapping) and all(covers(live.get(key), one, member=key) for key, one in desired.items())
    if isinstance(desired, list):
        return isinstance(live, list) and _covers_list(live, desired, _IDENTITY.get(member, ""))
    return live == desired or _same_quantity(live, desired)


def _covers_list(live: list[Any], desired: list[Any], identity: str) -> bool:
    if identity and all(isinstance(one, Mapping) and identity in one for one in (*live, *desired)):
        there = {one[identity]: one for one in live}
        return all(covers(there.get(one[identity]), one) for one in desired)
    return len(live) == len(desired) and all(map(covers, live, desired))


def _same_quantity(one: Any, other: Any) -> bool:
    """`1000m` comes back from the API server as `1`."""
    if not isinstance(one, str) or not isinstance(other, str):
        return False
    try:
        return bool(parse_quantity(one) == parse_quantity(other))  # type: ignore[no-untyped-call]
    except ValueError:
        return False


def stamped(manifest: Object) -> Object:
    """The manifest with a digest of itself."""
    digest = sha256(json.dumps(manifest, sort_keys=True).encode()).hexdigest()[:16]
    metadata = manifest["metadata"]
    annotations = metadata.get("annotations", {}) | {APPLIED_ANNOTATION: digest}
    return manifest | {"metadata": metadata | {"annotations": annotations}}


def is_ours(live: Object, memory: str) -> bool:
    """Whether an object was made by this operator for this memory."""
    labels = live["metadata"].get("labels", {})
    return bool(labels.get("app.kubernetes.io/managed-by") == MANAGER and labels.get(MEMORY_LABEL) == memory)


class Objects:
    """The objects of one AgentMemory. Every method raises KubeError, and Blocked for an object of somebody else."""

    def __init__(self, kube: Kube, namespace: str, memory: str, *, frozen: bool = False) -> None:
        self._kube = kube
        self._namespace = namespace
        self._memory = memory
        self.frozen = frozen
        """Whether nothing may be written: what is there is taken as it is."""

    async def get(self, kind: Kind, name: str) -> Object | None:
        """Our object of this name, or None. Raises Blocked when another's stands there, Waiting while one goes."""
        live = await self._kube.get(kind, self._namespace, name)
        if live is None:
            return None
        if not is_ours(live, self._memory):
            raise Blocked(
                "NameTaken",
                f"{kind.name} {name} is there and is not of this AgentMemory; it is left alone. "
                "Delete or rename it, or give the AgentMemory another name.",
            )
        if live["metadata"].get("deletionTimestamp"):
            raise Waiting("BeingDeleted", f"{kind.name} {name} is being deleted; it is made anew after that.")
        return live

    async def ensure(self, manifest: Object) -> Object:
        """Leave the object as the manifest says; answer it. Writes nothing where nothing differs.

        Raises Refused where the API server refuses the manifest itself, Blocked where a rule forbids it.
        """
        live = await self.get(kind_of(manifest), manifest["metadata"]["name"])
        desired = stamped(manifest)
        if live is None and self.frozen and manifest["kind"] in _GUARDS:
            return manifest
        if live is not None and (self.frozen or covers(live, desired)):
            return live
        return await self._attempt(self._kube.apply, desired)

    async def ensure_secret(self, manifest: Object) -> Object:
        """The Secret, made where it was absent; its members are never overwritten, only who owns it is kept right.

        With two leaders, both get the same.
        """
        name = manifest["metadata"]["name"]
        live = await self.get(SECRET, name)
        if live is None:
            try:
                return await self._attempt(self._kube.create, manifest)
            except KubeError as error:
                if error.status != 409:
                    raise
            live = await self.get(SECRET, name)
        if live is None:
            raise Waiting("BeingDeleted", f"Secret {name} went while it was read.")
        owners = manifest["metadata"].get("ownerReferences", [])
        if not self.frozen and not covers(live["metadata"].get("ownerReferences", []), owners):
            live = await self._kube.patch(
                SECRET, self._namespace, name, {"metadata": {"ownerReferences": owners or None}}
            )
        return live

    async def change_secret(
        self, live: Object, data: Mapping[str, str | None], annotations: Mapping[str, str | None] | None = None
    ) -> Object:
        """Set members and annotations (None removes one) of the very version that was read.

        Raises Waiting when it is another now.
        """
        metadata = live["metadata"]
        encoded = {key: None if value is None else _encoded(value) for key, value in data.items()}
        body = {
            "metadata": {"resourceVersion": metadata["resourceVersion"], "annotations": dict(annotations or {})},
            "data": encoded,
        }
        self._refuse_if_frozen(f"Secret {metadata['name']}")
        try:
            return await self._kube.patch(SECRET, self._namespace, metadata["name"], body)
        except KubeError as error:
            if error.status == 409:
                raise Waiting("Changed", f"Secret {metadata['name']} was changed by another hand.") from error
            raise

    async def _attempt(self, write: Callable[[Object], Awaitable[Object]], manifest: Object) -> Object:
        name = f"{manifest['kind']} {manifest['metadata']['name']}"
        self._refuse_if_frozen(name)
        try:
            return await write(manifest)
        except KubeError as error:
            if error.status == 422:
                raise Refused("ChangeRefused", f"{name} cannot be changed like this: {error}") from error
            if error.status == 403:
                reason = "QuotaExceeded" if "exceeded quota" in str(error) else "Forbidden"
                raise Blocked(reason, f"{name}: {error}") from error
            raise

    def _refuse_if_frozen(self, what: str) -> None:
        if self.frozen:
            raise Waiting("Paused", f"{what} would have to be written, and changes are paused.")

    async def remove(self, kind: Kind, name: str) -> None:
        """Delete our object, where there is one."""
        live = await self._kube.get(kind, self._namespace, name)
        if self.frozen:
            return
        if live is not None and is_ours(live, self._memory) and not live["metadata"].get("deletionTimestamp"):
            await self._kube.delete(kind, self._namespace, name, uid=live["metadata"]["uid"])


def secret_data(secret: Object) -> dict[str, str]:
    """The members of a Secret as text. Raises Blocked for one that is no text."""
    try:
        return {key: b64decode(value).decode() for key, value in (secret.get("data") or {}).items()}
    except UnicodeDecodeError:
        name = secret["metadata"]["name"]
        raise Blocked("SecretInvalid", f"Secret {name} holds a member that is not text.") from None


def encode_secret(data: Mapping[str, str]) -> dict[str, str]:
    """Text as the `data` of a Secret."""
    return {key: _encoded(value) for key, value in data.items()}


def _encoded(value: str) -> str:
    return b64encode(value.encode()).decode()
