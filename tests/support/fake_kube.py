"""The API server in memory, as far as the operator leans on it: the `Kube` Protocol, checked against the real one by
tests/cluster/test_kube.py."""

from __future__ import annotations

import copy
from collections.abc import Callable
from itertools import count
from typing import Any
from uuid import uuid4

from agentmemory_operator.kube import Kind, KubeError, Object, kind_of

Place = tuple[str, str | None, str]


class FakeKube:
    """`writes` counts what changed or would have; `before` is called ahead of each request and may raise."""

    def __init__(self) -> None:
        self.objects: dict[Place, Object] = {}
        self.calls: list[tuple[str, str]] = []
        self.before: Callable[[str, str], None] = lambda verb, kind: None
        self._applied: dict[Place, Object] = {}
        self._versions = count(1)

    @property
    def writes(self) -> int:
        return sum(verb in ("create", "apply", "patch", "delete") for verb, _ in self.calls)

    def _begin(self, verb: str, kind: Kind) -> None:
        self.before(verb, kind.name)
        self.calls.append((verb, kind.name))

    async def get(self, kind: Kind, namespace: str | None, name: str) -> Object | None:
        self._begin("get", kind)
        return copy.deepcopy(self.objects.get(_place(kind, namespace, name)))

    async def list(
        self, kind: Kind, namespace: str | None = None, *, labels: str = "", fields: str = ""
    ) -> list[Object]:
        self._begin("list", kind)
        found = [
            one
            for (name, space, _), one in self.objects.items()
            if name == kind.name and namespace in (None, space) and _selected(one, labels)
        ]
        return copy.deepcopy(found)

    async def create(self, manifest: Object) -> Object:
        kind = kind_of(manifest)
        self._begin("create", kind)
        place = _place(kind, manifest["metadata"].get("namespace"), manifest["metadata"]["name"])
        if place in self.objects:
            raise KubeError(409, "AlreadyExists", f"{kind.plural} {place[2]!r} already exists")
        return self._store(place, _new(manifest))

    async def apply(self, manifest: Object) -> Object:
        kind = kind_of(manifest)
        self._begin("apply", kind)
        place = _place(kind, manifest["metadata"].get("namespace"), manifest["metadata"]["name"])
        live = self.objects.get(place)
        before, self._applied[place] = self._applied.get(place, {}), copy.deepcopy(manifest)
        if live is None:
            return self._store(place, _new(manifest))
        _check_version(live, manifest)
        return self._change(place, _merged(_without(live, before, manifest), manifest))

    async def patch(self, kind: Kind, namespace: str | None, name: str, body: Object, part: str = "") -> Object:
        self._begin("patch", kind)
        place = _place(kind, namespace, name)
        live = self.objects.get(place)
        if live is None:
            raise KubeError(404, "NotFound", f"{kind.plural} {name!r} not found")
        _check_version(live, body)
        # Of an object with a status subresource, each side writes its own.
        allowed = {"status"} if part == "status" else set(body) - {"status"}
        changed: Object = _merge_patched(live, {key: value for key, value in body.items() if key in allowed})
        if changed["metadata"].get("deletionTimestamp") and not changed["metadata"].get("finalizers"):
            self.collect(place)
            return changed
        return self._change(place, changed)

    async def delete(self, kind: Kind, namespace: str | None, name: str, *, uid: str) -> None:
        self._begin("delete", kind)
        place = _place(kind, namespace, name)
        live = self.objects.get(place)
        if live is None or live["metadata"]["uid"] != uid:
            return
        if live["metadata"].get("finalizers"):
            live["metadata"]["deletionTimestamp"] = "2026-11-24T12:00:00Z"
            return
        self.collect(place)

    def _store(self, place: Place, thing: Object) -> Object:
        thing["metadata"]["resourceVersion"] = str(next(self._versions))
        self.objects[place] = thing
        return copy.deepcopy(thing)

    def _change(self, place: Place, thing: Object) -> Object:
        live = self.objects[place]
        thing["metadata"]["resourceVersion"] = live["metadata"]["resourceVersion"]
        if thing == live:
            return copy.deepcopy(live)
        if thing.get("spec") != live.get("spec"):
            thing["metadata"]["generation"] = live["metadata"]["generation"] + 1
        return self._store(place, thing)

    def collect(self, place: Place) -> None:
        """Take an object away, and what it owned, as the garbage collector does."""
        gone = self.objects.pop(place)
        self._applied.pop(place, None)
        uid = gone["metadata"]["uid"]
        for other, one in list(self.objects.items()):
            owners = one["metadata"].get("ownerReferences", [])
            if owners and all(owner["uid"] == uid for owner in owners):
                self.collect(other)


def _place(kind: Kind, namespace: str | None, name: str) -> Place:
    return kind.name, namespace if kind.namespaced else None, name


def _new(manifest: Object) -> Object:
    thing = copy.deepcopy(manifest)
    thing["metadata"] |= {"uid": str(uuid4()), "generation": 1}
    return thing


def _check_version(live: Object, body: Object) -> None:
    wanted = body.get("metadata", {}).get("resourceVersion")
    if wanted is not None and wanted != live["metadata"]["resourceVersion"]:
        raise KubeError(409, "Conflict", "the object has been modified")


def _merged(live: Any, desired: Any) -> Any:
    if isinstance(live, dict) and isinstance(desired, dict):
        return live | {key: _merged(live.get(key), value) for key, value in desired.items()}
    return copy.deepcopy(desired)


def _without(live: Any, before: Any, after: Any) -> Any:
    """`live` less what was applied before and is not any more."""
    if not (isinstance(live, dict) and isinstance(before, dict) and isinstance(after, dict)):
        return copy.deepcopy(live)
    return {
        key: _without(value, before.get(key), after.get(key, {}))
        for key, value in live.items()
        if key not in before or key in after
    }


def _merge_patched(live: Any, body: Any) -> Any:
    """RFC 7396."""
    if not isinstance(body, dict):
        return copy.deepcopy(body)
    result = copy.deepcopy(live) if isinstance(live, dict) else {}
    for key, value in body.items():
        if value is None:
            result.pop(key, None)
        else:
            result[key] = _merge_patched(result.get(key), value)
    return result


def _selected(thing: Object, selector: str) -> bool:
    labels = thing["metadata"].get("labels", {})
    for part in filter(None, selector.split(",")):
        key, sign, value = part.partition("!=") if "!=" in part else part.partition("=")
        if part.startswith("!"):
            holds = part[1:] not in labels
        elif sign == "!=":
            holds = labels.get(key) != value
        else:
            holds = key in labels and (not sign or labels[key] == value)
        if not holds:
            return False
    return True
