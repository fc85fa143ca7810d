"""An AdmissionReview in, an AdmissionReview out. Every pod is allowed, whatever happens here."""

from __future__ import annotations

import base64
import logging
import time
from collections.abc import Collection, Mapping
from typing import Any, Protocol

import msgspec
from msgspec import Struct

from agentmemory_operator.injector.decision import Decision, Inject, Known, Leave, Miss, decide
from agentmemory_operator.injector.metrics import InjectorMetrics, Result
from agentmemory_operator.injector.patch import Image, Operation, patch
from agentmemory_operator.injector.wishes import Pod

logger = logging.getLogger(__name__)

API_VERSION = "admission.k8s.io/v1"
KIND = "AdmissionReview"
_FAULT = "the memory sidecar was not added, for a fault of the injector; its log says more"


class Malformed(Exception):
    """The body is no AdmissionReview of a pod. The message says where it is not."""


class Source(Protocol):
    """Where AgentMemories are known from."""

    def watches(self, namespace: str) -> bool: ...

    def known(self, namespace: str) -> Mapping[str, Known]: ...

    async def look(self, namespace: str) -> Mapping[str, Known]: ...


class Request(Struct, kw_only=True, rename="camel"):
    """The part of the request that is read. `object` is the pod, which may have neither a name nor a namespace yet."""

    uid: str
    namespace: str = ""
    operation: str = ""
    dry_run: bool = False
    object: dict[str, Any]


class _Review(Struct, kw_only=True, rename="camel"):
    api_version: str
    kind: str
    request: Request


class Admission:
    """Answers the API server's questions about pods. Pods of `excluded` namespaces are never touched."""

    def __init__(self, memories: Source, image: Image, metrics: InjectorMetrics, *, excluded: Collection[str]) -> None:
        self._memories = memories
        self._image = image
        self._metrics = metrics
        self._excluded = frozenset(excluded)

    async def answer(self, body: bytes, *, by_namespace: bool) -> bytes:
        """The answer to a review. Raises Malformed, and nothing else."""
        started = time.perf_counter()
        result: Result = "malformed"
        try:
            request = _read(body)
            try:
                decision, operations = await self._admit(request, by_namespace=by_namespace)
            except Exception:
                logger.exception("a pod in namespace %s was admitted as it is", request.namespace)
                result = "failed"
                return _answer(request.uid, [], _FAULT)
            result = "dry_run" if request.dry_run else _result(decision)
            return _answer(request.uid, operations, decision.message if isinstance(decision, Miss) else "")
        finally:
            self._metrics.admitted(result, time.perf_counter() - started)

    async def _admit(self, request: Request, *, by_namespace: bool) -> tuple[Decision, list[Operation]]:
        decision = await self._decide(request, by_namespace=by_namespace)
        _log(request, decision)
        return decision, patch(request.object, decision, self._image)

    async def _decide(self, request: Request, *, by_namespace: bool) -> Decision:
        namespace = request.namespace
        if request.operation != "CREATE" or not self._memories.watches(namespace):
            return Leave()

        def with_what_is_known(memories: Mapping[str, Known]) -> Decision:
            return decide(
                request.object,
                memories=memories,
                namespace=namespace,
                by_namespace=by_namespace,
                excluded=self._excluded,
            )

        decision = with_what_is_known(self._memories.known(namespace))
        if isinstance(decision, Miss) and decision.unknown:
            decision = with_what_is_known(await self._memories.look(namespace))
        return decision


def _read(body: bytes) -> Request:
    """Raises Malformed."""
    try:
        review = msgspec.json.decode(body, type=_Review)
    except (msgspec.DecodeError, RecursionError) as error:
        raise Malformed(f"this is no {KIND}: {str(error)[:200]}") from None
    if (review.api_version, review.kind) != (API_VERSION, KIND):
        raise Malformed(f"expected a {KIND} of {API_VERSION}")
    pod = review.request.object
    for member in ("metadata", "spec"):
        if not isinstance(pod.get(member), dict):
            raise Malformed(f"request.object is no pod: it has no {member}")
    return review.request


def _result(decision: Decision) -> Result:
    match decision:
        case Inject():
            return "injected"
        case Miss():
            return "missed"
        case Leave():
            return "untouched"


def _answer(uid: str, operations: list[Operation], warning: str) -> bytes:
    response: dict[str, Any] = {"uid": uid, "allowed": True}
    if operations:
        response |= {"patchType": "JSONPatch", "patch": base64.b64encode(msgspec.json.encode(operations)).decode()}
    if warning:
        response["warnings"] = [f"agentmemory: {warning}"]
    return msgspec.json.encode({"apiVersion": API_VERSION, "kind": KIND, "response": response})


def _log(request: Request, decision: Decision) -> None:
    pod = f"{request.namespace}/{_name(request.object)}"
    match decision:
        case Inject(memory=memory):
            logger.info("pod %s gets the sidecar of %s", pod, memory.name)
        case Miss(message=message):
            logger.warning("pod %s gets no sidecar: %s", pod, message)


def _name(pod: Pod) -> str:
    """Many pods are created with the beginning of a name only."""
    metadata = pod["metadata"]
    return str(metadata.get("name") or f"{metadata.get('generateName', '')}*")
