"""The step that runs PgBouncer in front of Postgres, or takes it away."""

from __future__ import annotations

from datetime import datetime, timedelta

from agentmemory_operator import logins
from agentmemory_operator.errors import Waiting
from agentmemory_operator.kube import (
    CERTIFICATE,
    CONFIG_MAP,
    DEPLOYMENT,
    NETWORK_POLICY,
    POD,
    POD_DISRUPTION_BUDGET,
    SECRET,
    SERVICE,
    Object,
)
from agentmemory_operator.names import GROUP, SIDECAR_LABEL, child
from agentmemory_operator.objects import is_ours
from agentmemory_operator.pods import is_over
from agentmemory_operator.resources import pooler
from agentmemory_operator.resources.common import Login, StoreAddress, host
from agentmemory_operator.tls import ensure_certificate
from agentmemory_operator.work import Work, stamp

RETIRED_ANNOTATION = f"{GROUP}/retired-at"
TOLD = timedelta(seconds=10)
"""So long a new pod may still be given the configuration of before."""
_PAUSE = 30.0


async def tend_pooler(work: Work) -> None:
    """Leave the pooler as declared. Raises Waiting until it answers: it is the sidecars' way to Postgres.

    One that is no longer wanted runs until the last pod is gone whose sidecar was told to go through it.
    """
    wanted = work.memory.spec.postgres.pooler.enabled
    live = await work.kube.get(DEPLOYMENT, work.memory.namespace, child(work.memory.name, "pooler"))
    if not wanted:
        if live is None or not is_ours(live, work.memory.name) or live["metadata"].get("deletionTimestamp"):
            return
        users = await _users(work, live)
        if not users:
            await _remove(work)
            return
        work.progress(f"{users} pods go through the pooler until they are made anew", again=_PAUSE)
    elif live is not None and RETIRED_ANNOTATION in live["metadata"].get("annotations", {}):
        await _mark(work, None)
    await _run(work, wanted=wanted)


async def _run(work: Work, *, wanted: bool) -> None:
    if work.postgres is None or not work.logins:
        raise Waiting("WaitingForPostgres", "The pooler waits for Postgres and its logins.")
    certificate = await ensure_certificate(work, "pooler")
    database = work.postgres.address.database
    if wanted:
        work.pooler = StoreAddress(host(work.memory, "pooler"), pooler.PORT, True, database)
        work.pooler_ca = certificate["ca.crt"]
    known = [Login(one.postgres.username, one.postgres.password) for one in logins.all_of(work.logins)]
    manifests = pooler.manifests(
        work.memory, postgres=work.postgres.address, namespaces=work.config.namespaces, logins=known
    )
    available = 0
    for manifest in manifests:
        live = await work.objects.ensure(manifest)
        if manifest["kind"] == "Deployment":
            available = live.get("status", {}).get("availableReplicas", 0)
    if wanted and not available:
        name = child(work.memory.name, "pooler")
        raise Waiting(
            "PoolerStarting",
            f"Deployment {name} has no pod that answers yet; see: kubectl describe pods -n {work.memory.namespace} "
            f"-l app.kubernetes.io/component=pooler,app.kubernetes.io/instance={work.memory.name}",
        )


async def _users(work: Work, live: Object) -> int:
    """How many pods may still go through a pooler that is no longer wanted; from the first look on it is marked so."""
    since = live["metadata"].get("annotations", {}).get(RETIRED_ANNOTATION)
    if since is None:
        since = stamp(work.clock())
        await _mark(work, since)
    told_by = stamp(datetime.fromisoformat(since) + TOLD)
    pods = await work.kube.list(POD, work.memory.namespace, labels=f"{SIDECAR_LABEL}={work.memory.name}")
    return sum(not is_over(pod) and pod["metadata"]["creationTimestamp"] <= told_by for pod in pods)


async def _mark(work: Work, since: str | None) -> None:
    if not work.frozen:
        body = {"metadata": {"annotations": {RETIRED_ANNOTATION: since}}}
        await work.kube.patch(DEPLOYMENT, work.memory.namespace, child(work.memory.name, "pooler"), body)


async def _remove(work: Work) -> None:
    name = child(work.memory.name, "pooler")
    for kind in (SERVICE, POD_DISRUPTION_BUDGET, NETWORK_POLICY, CONFIG_MAP, SECRET):
        await work.objects.remove(kind, name)
    if work.memory.spec.tls.issuer_ref is not None:
        await work.objects.remove(CERTIFICATE, f"{name}-tls")
    await work.objects.remove(SECRET, f"{name}-tls")
    # The last, since it is what tells that there is something to remove.
    await work.objects.remove(DEPLOYMENT, name)
