"""The step that empties a journal which no sidecar is left to empty."""

from __future__ import annotations

from datetime import datetime
from typing import Literal

from agentmemory_operator.kube import JOB, Object
from agentmemory_operator.names import child
from agentmemory_operator.resources import drain
from agentmemory_operator.work import Work, stamp

State = Literal["none", "running", "succeeded", "failed"]
_PAUSE = 60.0
"""Seconds between a drain that failed and the next."""


async def tend_drain(work: Work) -> None:
    """Run the sidecar image once with `drain` when entries are pending and no sidecar runs. Raises OperatorFault."""
    if work.pending is None or work.lag is None or work.sidecars is None or work.frozen:
        return
    name = child(work.memory.name, "drain")
    job = await work.objects.get(JOB, name)
    state = state_of(job)
    if job is not None and state in ("succeeded", "failed"):
        await _note(work, job, state)
    if not work.pending or work.sidecars.running:
        return
    patience = 2 * work.settings.max_delay
    if work.lag < patience:
        work.soon(patience - work.lag + 0.5)
    elif state == "none":
        image = work.memory.spec.sidecar.image or work.config.sidecar_image
        await work.objects.ensure(drain.manifest(work.memory, image=image, pull_policy=work.config.pull_policy))
        work.progress(f"{work.pending} entries are drained into Postgres")
    elif state == "running":
        work.progress(f"{work.pending} entries are drained into Postgres")
    elif state == "succeeded" or _age(job, work.clock()) > _PAUSE:
        await work.objects.remove(JOB, name)
        work.soon(2.0)
    else:
        work.soon(_PAUSE)


def state_of(job: Object | None) -> State:
    """How far a Job is."""
    if job is None:
        return "none"
    for one in job.get("status", {}).get("conditions", []):
        if one.get("status") == "True" and one.get("type") in ("Complete", "Failed"):
            return "succeeded" if one["type"] == "Complete" else "failed"
    return "running"


def _ended_at(job: Object) -> str:
    times = [
        one["lastTransitionTime"]
        for one in job.get("status", {}).get("conditions", [])
        if one.get("type") in ("Complete", "Failed") and one.get("status") == "True"
    ]
    return str(times[0]) if times else ""


def _age(job: Object | None, now: datetime) -> float:
    """Seconds since it ended."""
    ended = _ended_at(job) if job else ""
    return (now - datetime.fromisoformat(ended)).total_seconds() if ended else 0.0


async def _note(work: Work, job: Object, state: State) -> None:
    said = "The journal was emptied." if state == "succeeded" else (
        f"The drain failed; it is tried again. See: kubectl logs -n {work.memory.namespace} "
        f"job/{job['metadata']['name']}"
    )  # fmt: skip
    work.status["drain"] = {"lastRunAt": _ended_at(job) or stamp(work.clock()), "message": said}
