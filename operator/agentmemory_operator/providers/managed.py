"""What both managed stores have in common: a StatefulSet of one pod, its volume, and why it is not ready."""

from __future__ import annotations

from collections.abc import Iterable

from agentmemory_operator.diagnosis import explain, is_ready
from agentmemory_operator.errors import Blocked, Refused
from agentmemory_operator.kube import (
    CORE_EVENT,
    POD,
    POD_DISRUPTION_BUDGET,
    STATEFUL_SET,
    STORAGE_CLASS,
    VOLUME_CLAIM,
    KubeError,
    Object,
)
from agentmemory_operator.spec import Storage, bytes_of
from agentmemory_operator.work import Work

_DEFAULT_CLASS = "storageclass.kubernetes.io/is-default-class"


async def ensure_store(work: Work, manifests: Iterable[Object], name: str, storage: Storage) -> None:
    """Apply all of it, then wait for the pod. Raises Waiting, Blocked or Refused with what stands in the way."""
    statefulset: Object | None = None
    manifests = list(manifests)
    await _check_volume(work, name, storage)
    if not any(manifest["kind"] == "PodDisruptionBudget" for manifest in manifests):
        await work.objects.remove(POD_DISRUPTION_BUDGET, name)
    for manifest in manifests:
        if manifest["kind"] == "StatefulSet":
            statefulset = await work.objects.ensure(await _with_template_of_live(work, manifest))
        else:
            await work.objects.ensure(manifest)
    assert statefulset is not None
    await _grow_volume(work, name, storage)
    if not is_ready(statefulset):
        raise await _why_not_ready(work, name)


async def _with_template_of_live(work: Work, manifest: Object) -> Object:
    """The API server takes no other volumeClaimTemplates for a StatefulSet that is there; the claim itself may grow."""
    live = await work.objects.get(STATEFUL_SET, manifest["metadata"]["name"])
    if live is None:
        return manifest
    declared = manifest["spec"]["volumeClaimTemplates"]
    kept = [
        _sized(new, old["spec"]["resources"]["requests"]["storage"])
        for new, old in zip(declared, live["spec"]["volumeClaimTemplates"], strict=True)
    ]
    return manifest | {"spec": manifest["spec"] | {"volumeClaimTemplates": kept}}


def _sized(template: Object, size: str) -> Object:
    spec = template["spec"]
    return template | {"spec": spec | {"resources": {"requests": {"storage": size}}}}


async def _claim(work: Work, name: str) -> Object | None:
    return await work.kube.get(VOLUME_CLAIM, work.memory.namespace, f"data-{name}-0")


async def _check_volume(work: Work, name: str, storage: Storage) -> None:
    """Raises Refused where the volume that is there is larger, or of another class, than declared."""
    claim = await _claim(work, name)
    if claim is None or work.frozen:
        return
    there = claim["spec"]["resources"]["requests"]["storage"]
    if bytes_of(storage.size) < bytes_of(there):
        raise Refused(
            "StorageShrinks",
            f"PersistentVolumeClaim {claim['metadata']['name']} has {there}, and a volume never shrinks; "
            f"set storage.size to {there} or more.",
        )
    kind = claim["spec"].get("storageClassName")
    if storage.storage_class and kind and storage.storage_class != kind:
        raise Refused(
            "StorageClassChanged",
            f"PersistentVolumeClaim {claim['metadata']['name']} is of StorageClass {kind} for good; "
            f"set storage.storageClass to {kind}, or leave it out.",
        )


async def _grow_volume(work: Work, name: str, storage: Storage) -> None:
    claim = await _claim(work, name)
    if claim is None or work.frozen:
        return
    if bytes_of(storage.size) <= bytes_of(claim["spec"]["resources"]["requests"]["storage"]):
        return
    kind = claim["spec"].get("storageClassName") or ""
    storage_class = await work.kube.get(STORAGE_CLASS, None, kind)
    if not (storage_class or {}).get("allowVolumeExpansion"):
        raise Refused(
            "StorageClassCannotExpand",
            f"StorageClass {kind or '(none)'} does not allow volumes to grow (allowVolumeExpansion); "
            f"the volume keeps {claim['spec']['resources']['requests']['storage']}.",
        )
    body = {"spec": {"resources": {"requests": {"storage": storage.size}}}}
    await work.kube.patch(VOLUME_CLAIM, work.memory.namespace, claim["metadata"]["name"], body)
    work.progress(f"the volume of {name} grows")


async def _why_not_ready(work: Work, name: str) -> Exception:
    namespace = work.memory.namespace
    pod = await work.kube.get(POD, namespace, f"{name}-0")
    claim = await _claim(work, name)
    warnings: list[Object] = []
    if pod is None:
        fields = f"involvedObject.kind=StatefulSet,involvedObject.name={name},type=Warning"
        warnings = await work.kube.list(CORE_EVENT, namespace, fields=fields)
    classes: set[str] = set()
    if claim is not None and claim.get("status", {}).get("phase") == "Pending":
        classes = {one["metadata"]["name"] for one in await work.kube.list(STORAGE_CLASS)}
    return explain(name, pod, claim, warnings, classes=classes)


async def restart_pod(work: Work, name: str) -> None:
    """Delete the pod of a store, so that it starts anew with what is mounted now. Nothing that it took is lost."""
    pod = await work.kube.get(POD, work.memory.namespace, f"{name}-0")
    if pod is None or work.frozen or pod["metadata"].get("deletionTimestamp"):
        return
    try:
        await work.kube.delete(POD, work.memory.namespace, f"{name}-0", uid=pod["metadata"]["uid"])
    except KubeError as error:
        raise Blocked("PodNotRestarted", f"Pod {name}-0 could not be restarted: {error}") from error
