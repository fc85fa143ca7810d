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
from agentmemory_operator.work import Access, Work, stamp

RETIRED_ANNOTATION = f"{GROUP}/retired-at"
TOLD = timedelta(seconds=10)
"""So long a new pod may still be given the configuration of before."""
_SOON = 1.0
_PAUSE = 30.0


async def tend_pooler(work: Work) -> None:
    """Leave the pooler as declared. Raises Waiting until it answers: it is the sidecars' way to Postgres.

    One that is no longer wanted runs until the last pod is gone whose sidecar was told to go through it.
    """
    live = await work.kube.get(DEPLOYMENT, work.memory.namespace, child(work.memory.name, "pooler"))
    ours = live is not None and is_ours(live, work.memory.name) and not live["metadata"].get("deletionTimestamp")
    if work.memory.spec.postgres.pooler.enabled:
        if live is not None and ours and RETIRED_ANNOTATION in live["metadata"].get("annotations", {}):
            await _mark(work, None)
        await _run(work)
    elif live is not None and ours:
        await _retire(work, live)


async def _retire(work: Work, live: Object) -> None:
    """Take it away once nobody goes through it; until then its logins and its certificate are kept, and no more."""
    since = await _retired_since(work, live)
    if since is None:
        work.progress("new pods are to be told of Postgres itself", again=_SOON)
    elif work.clock() <= since + TOLD:
        work.progress("new pods are told of Postgres itself", again=TOLD.total_seconds())
    elif users := await _users(work, since):
        work.progress(f"{users} pods go through the pooler until they are made anew", again=_PAUSE)
    else:
        await _remove(work)
        return
    if work.postgres is not None and work.logins:
        await ensure_certificate(work, "pooler")
        for manifest in _manifests(work, work.postgres):
            if manifest["kind"] == "Secret":
                await work.objects.ensure(manifest)


async def _run(work: Work) -> None:
    if work.postgres is None or not work.logins:
        raise Waiting("WaitingForPostgres", "The pooler waits for Postgres and its logins.")
    certificate = await ensure_certificate(work, "pooler")
    database = work.postgres.address.database
    work.pooler = StoreAddress(host(work.memory, "pooler"), pooler.PORT, True, database)
    work.pooler_ca = certificate["ca.crt"]
    available = 0
    for manifest in _manifests(work, work.postgres):
        live = await work.objects.ensure(manifest)
        if manifest["kind"] == "Deployment":
            available = live.get("status", {}).get("availableReplicas", 0)
    if not available:
        name = child(work.memory.name, "pooler")
        raise Waiting(
            "PoolerStarting",
            f"Deployment {name} has no pod that answers yet; see: kubectl describe pods -n {work.memory.namespace} "
            f"-l app.kubernetes.io/component=pooler,app.kubernetes.io/instance={work.memory.name}",
        )


def _manifests(work: Work, postgres: Access) -> list[Object]:
    known = [Login(one.postgres.username, one.postgres.password) for one in logins.all_of(work.logins, work.stores)]
    return pooler.manifests(work.memory, postgres=postgres.address, namespaces=work.config.namespaces, logins=known)


async def _retired_since(work: Work, live: Object) -> datetime | None:
    """Since when no new pod is told of a pooler that is no longer wanted: it is marked so by the first look that finds
    it left out of the sidecars' configuration. None until then."""
    if since := live["metadata"].get("annotations", {}).get(RETIRED_ANNOTATION):
        return datetime.fromisoformat(since)
    told = await work.kube.get(CONFIG_MAP, work.memory.namespace, child(work.memory.name, "sidecar"))
    if host(work.memory, "pooler") in str((told or {}).get("data")):
        return None
    now = work.clock().replace(microsecond=0)
    await _mark(work, stamp(now))
    return now


async def _users(work: Work, since: datetime) -> int:
    """How many pods may still go through the pooler."""
    told_by = stamp(since + TOLD)
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
