"""Which mode of memory fits a workload, what it costs, and why.

`advise(workload)` is all of it; `live.observe` makes a workload from what a memory holds already.
"""

from __future__ import annotations

from agentmemory.advice.costs import Costs, costs_of
from agentmemory.advice.decision import Advice, Verdict, advise
from agentmemory.advice.manifest import manifest
from agentmemory.advice.workload import InvalidWorkload, Workload, read_workload

__all__ = [
    "Advice",
    "Costs",
    "InvalidWorkload",
    "Verdict",
    "Workload",
    "advise",
    "costs_of",
    "manifest",
    "read_workload",
]
