"""The step that runs PgBouncer in front of Postgres, or takes it away."""

from __future__ import annotations

from agentmemory_operator import logins
from agentmemory_operator.errors import Waiting
from agentmemory_operator.kube import (
    CERTIFICATE,
    CONFIG_MAP,
    DEPLOYMENT,
    NETWORK_POLICY,
    POD_DISRUPTION_BUDGET,
    SECRET,
    SERVICE,
)
from agentmemory_operator.names import child
from agentmemory_operator.resources import pooler
from agentmemory_operator.resources.common import Login, StoreAddress, host
from agentmemory_operator.tls import ensure_certificate
from agentmemory_operator.work import Work


async def tend_pooler(work: Work) -> None:
    """Leave the pooler as declared. Raises Waiting until it answers: it is the sidecars' way to Postgres."""
    if not work.memory.spec.postgres.pooler.enabled:
        await _remove(work)
        return
    if work.postgres is None or not work.logins:
        raise Waiting("WaitingForPostgres", "The pooler waits for Postgres and its logins.")
    certificate = await ensure_certificate(work, "pooler")
    database = work.postgres.address.database
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
    if not available:
        name = child(work.memory.name, "pooler")
        raise Waiting(
            "PoolerStarting",
            f"Deployment {name} has no pod that answers yet; see: kubectl describe pods -n {work.memory.namespace} "
            f"-l app.kubernetes.io/component=pooler,app.kubernetes.io/instance={work.memory.name}",
        )


async def _remove(work: Work) -> None:
    name = child(work.memory.name, "pooler")
    if await work.kube.get(DEPLOYMENT, work.memory.namespace, name) is None:
        return
    for kind in (SERVICE, POD_DISRUPTION_BUDGET, NETWORK_POLICY, CONFIG_MAP, SECRET):
        await work.objects.remove(kind, name)
    if work.memory.spec.tls.issuer_ref is not None:
        await work.objects.remove(CERTIFICATE, f"{name}-tls")
    await work.objects.remove(SECRET, f"{name}-tls")
    # The last, since it is what tells that there is something to remove.
    await work.objects.remove(DEPLOYMENT, name)
