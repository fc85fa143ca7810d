"""The Kubernetes API as the operator uses it: plain dicts, server-side apply under one field manager."""

from __future__ import annotations

import json
from dataclasses import dataclass
from typing import Any, Protocol
from urllib.parse import quote, urlencode

import aiohttp
from kubernetes.aio.client.api_client import ApiClient

from agentmemory_operator.names import API_VERSION, KIND, MANAGER, PLURAL

Object = dict[str, Any]
_TIMEOUT = 30.0


@dataclass(frozen=True)
class Kind:
    """Where objects of a kind are found."""

    api_version: str
    name: str
    plural: str
    namespaced: bool = True

    def path(self, namespace: str | None = None, name: str | None = None, part: str | None = None) -> str:
        """The address of one object, or of all of them; `part` is a subresource."""
        root = f"/api/{self.api_version}" if "/" not in self.api_version else f"/apis/{self.api_version}"
        segments = [root]
        if self.namespaced and namespace:
            segments.append(f"namespaces/{quote(namespace, safe='')}")
        segments += [self.plural, *(quote(one, safe="") for one in (name, part) if one)]
        return "/".join(segments)


AGENT_MEMORY = Kind(API_VERSION, KIND, PLURAL)
CERTIFICATE = Kind("cert-manager.io/v1", "Certificate", "certificates")
CONFIG_MAP = Kind("v1", "ConfigMap", "configmaps")
CORE_EVENT = Kind("v1", "Event", "events")
DEPLOYMENT = Kind("apps/v1", "Deployment", "deployments")
EVENT = Kind("events.k8s.io/v1", "Event", "events")
JOB = Kind("batch/v1", "Job", "jobs")
LEASE = Kind("coordination.k8s.io/v1", "Lease", "leases")
NAMESPACE = Kind("v1", "Namespace", "namespaces", namespaced=False)
NETWORK_POLICY = Kind("networking.k8s.io/v1", "NetworkPolicy", "networkpolicies")
POD = Kind("v1", "Pod", "pods")
POD_DISRUPTION_BUDGET = Kind("policy/v1", "PodDisruptionBudget", "poddisruptionbudgets")
SECRET = Kind("v1", "Secret", "secrets")
SERVICE = Kind("v1", "Service", "services")
STATEFUL_SET = Kind("apps/v1", "StatefulSet", "statefulsets")
STORAGE_CLASS = Kind("storage.k8s.io/v1", "StorageClass", "storageclasses", namespaced=False)
VOLUME_CLAIM = Kind("v1", "PersistentVolumeClaim", "persistentvolumeclaims")
WEBHOOK_CONFIGURATION = Kind(
    "admissionregistration.k8s.io/v1", "MutatingWebhookConfiguration", "mutatingwebhookconfigurations", namespaced=False
)

_KINDS = {
    (kind.api_version, kind.name): kind
    for kind in (
        AGENT_MEMORY, CERTIFICATE, CONFIG_MAP, DEPLOYMENT, EVENT, JOB, LEASE, NAMESPACE, NETWORK_POLICY, POD,
        POD_DISRUPTION_BUDGET, SECRET, SERVICE, STATEFUL_SET, STORAGE_CLASS, VOLUME_CLAIM, WEBHOOK_CONFIGURATION,
    )
}  # fmt: skip


def kind_of(manifest: Object) -> Kind:
    """The kind of a manifest. Raises KeyError for one that the operator does not handle."""
    return _KINDS[manifest["apiVersion"], manifest["kind"]]


class KubeError(Exception):
    """The API server refused, or could not be asked (`status` 0). The message is the server's own."""

    def __init__(self, status: int, reason: str, message: str) -> None:
        super().__init__(message)
        self.status = status
        self.reason = reason

    @property
    def passing(self) -> bool:
        """Whether the same request may succeed in a moment."""
        return self.status in (0, 408, 409, 429) or self.status >= 500


class Kube(Protocol):
    """What the operator asks of the API server. Every call raises KubeError."""

    async def get(self, kind: Kind, namespace: str | None, name: str) -> Object | None:
        """The object, or None where there is none."""
        ...

    async def list(
        self, kind: Kind, namespace: str | None = None, *, labels: str = "", fields: str = ""
    ) -> list[Object]:
        """All objects, of all namespaces where none is named."""
        ...

    async def create(self, manifest: Object) -> Object:
        """Make an object that is not there; 409 where it is."""
        ...

    async def apply(self, manifest: Object) -> Object:
        """Server-side apply, taking over what others set. A resourceVersion in it has to be the live one."""
        ...

    async def patch(self, kind: Kind, namespace: str | None, name: str, body: Object, part: str = "") -> Object:
        """A merge patch (RFC 7396), of the object or of its subresource `part`."""
        ...

    async def delete(self, kind: Kind, namespace: str | None, name: str, *, uid: str) -> None:
        """Delete the very object with this uid; what depends on it follows in the background. Absence is no error."""
        ...


class KubeClient:
    """`Kube` over the official asyncio client."""

    def __init__(self, api: ApiClient) -> None:
        self._api = api

    async def get(self, kind: Kind, namespace: str | None, name: str) -> Object | None:
        try:
            return await self._call("GET", kind.path(namespace, name))
        except KubeError as error:
            if error.status == 404:
                return None
            raise

    async def list(
        self, kind: Kind, namespace: str | None = None, *, labels: str = "", fields: str = ""
    ) -> list[Object]:
        query = {key: value for key, value in (("labelSelector", labels), ("fieldSelector", fields)) if value}
        # Version 0 is what the API server has in its memory: it spares etcd, and may be a moment old.
        found = await self._call("GET", kind.path(namespace), query | {"resourceVersion": "0"})
        return [{"apiVersion": kind.api_version, "kind": kind.name, **item} for item in found["items"]]

    async def create(self, manifest: Object) -> Object:
        path = kind_of(manifest).path(manifest["metadata"].get("namespace"))
        return await self._call("POST", path, {"fieldManager": MANAGER}, manifest)

    async def apply(self, manifest: Object) -> Object:
        metadata = manifest["metadata"]
        path = kind_of(manifest).path(metadata.get("namespace"), metadata["name"])
        query = {"fieldManager": MANAGER, "force": "true"}
        return await self._call("PATCH", path, query, manifest, "application/apply-patch+yaml")

    async def patch(self, kind: Kind, namespace: str | None, name: str, body: Object, part: str = "") -> Object:
        path = kind.path(namespace, name, part or None)
        return await self._call("PATCH", path, {"fieldManager": MANAGER}, body, "application/merge-patch+json")

    async def delete(self, kind: Kind, namespace: str | None, name: str, *, uid: str) -> None:
        body = {"preconditions": {"uid": uid}, "propagationPolicy": "Background"}
        try:
            await self._call("DELETE", kind.path(namespace, name), None, body)
        except KubeError as error:
            if error.status not in (404, 409):
                raise

    async def _call(
        self, method: str, path: str, query: dict[str, str] | None = None, body: Object | None = None,
        content_type: str = "application/json",
    ) -> Object:  # fmt: skip
        headers = {"Accept": "application/json", "Content-Type": content_type}
        url = self._api.configuration.host + path + ("?" + urlencode(query) if query else "")
        await self._api.update_params_for_auth(headers, [], ["BearerToken"], path, method, body)
        try:
            response = await self._api.rest_client.request(  # type: ignore[no-untyped-call]
                method, url, headers=headers, body=body, _request_timeout=_TIMEOUT
            )
            text = await response.read()
        except (aiohttp.ClientError, TimeoutError, OSError) as error:
            what = f"the API server does not answer: {type(error).__name__}: {error}"
            raise KubeError(0, "Unreachable", what) from error
        return _parse(response.status, text)


def _parse(status: int, text: bytes) -> Object:
    try:
        answer = json.loads(text) if text else {}
    except ValueError:
        answer = {}
    if 200 <= status < 300:
        return dict(answer)
    raise KubeError(status, answer.get("reason") or f"Status{status}", answer.get("message") or "no reason was given")
