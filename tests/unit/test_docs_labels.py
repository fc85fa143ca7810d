"""The page of labels and annotations names exactly those that the code knows."""

from __future__ import annotations

import re
from pathlib import Path

from agentmemory_operator import finalize, names, objects, pooling
from agentmemory_operator.injector.wishes import TUNED, tuning_annotation

ROOT = Path(__file__).parents[2]


def known() -> set[str]:
    found = {value for key, value in vars(names).items() if key.endswith(("_LABEL", "_ANNOTATION"))}
    found |= {finalize.FINALIZER, objects.APPLIED_ANNOTATION, pooling.RETIRED_ANNOTATION}
    for resource in TUNED:
        found |= {tuning_annotation(resource, "request"), tuning_annotation(resource, "limit")}
    return found


def told() -> set[str]:
    page = (ROOT / "docs/reference/labels.md").read_text()
    page = re.sub(r"`agentmemory\.io/sidecar-cpu-request`(, `-[a-z-]+`)+", _spelled_out, page)
    return set(re.findall(r"agentmemory\.io/[a-z-]+", page))


def _spelled_out(match: re.Match[str]) -> str:
    rest = re.findall(r"`-([a-z-]+)`", match[0])
    return " ".join(["agentmemory.io/sidecar-cpu-request", *(f"agentmemory.io/sidecar-{one}" for one in rest)])


def test_the_page_and_the_code_agree() -> None:
    assert told() == known()
