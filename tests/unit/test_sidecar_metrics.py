"""Metrics: what is exported is what the documentation says, nothing stale, and no label without bounds."""

from __future__ import annotations

import re
from pathlib import Path

from prometheus_client import generate_latest
from prometheus_client.parser import text_string_to_metric_families

from agentmemory_engine.answers import Model, Status
from agentmemory_sidecar.metrics import Metrics

DOCUMENTATION = Path(__file__).parents[2] / "docs" / "metrics.md"
ROW = re.compile(r"^\| `(agentmemory_\w+)`(?: by (.+?))? \| (\w+) \|", re.MULTILINE)


def status(**changes: object) -> Status:
    values: dict[str, object] = {
        "mode": "Hybrid",
        "lag": 2.0, "pending": 3, "dead_letters": 1, "quarantined": 1, "unembedded": 4, "unembeddable": 5,
        "undistilled": 6, "undistillable": 7, "persistence": "x",
        "shards": [], "degraded": [], "models": [],
    }  # fmt: skip
    return Status(**{**values, **changes})  # type: ignore[arg-type]


def exported(metrics: Metrics) -> dict[str, dict[tuple[str, ...], float]]:
    """The values of each sample by those of its labels, in the order of the labels' names."""
    found: dict[str, dict[tuple[str, ...], float]] = {}
    for family in text_string_to_metric_families(generate_latest(metrics.registry).decode()):
        for sample in family.samples:
            labels = tuple(sample.labels[name] for name in sorted(sample.labels) if name != "le")
            found.setdefault(sample.name, {})[labels] = sample.value
    return found


def test_the_documentation_lists_what_is_exported() -> None:
    metrics = Metrics()
    metrics.take(status())
    metrics.count_request("/x", "GET", 200, 0.001)
    families = {
        (family.name + ("_total" if family.type == "counter" else ""), family.type, label)
        for family in text_string_to_metric_families(generate_latest(metrics.registry).decode())
        for label in [tuple(sorted({name for sample in family.samples for name in sample.labels} - {"le"}))]
    }
    documented = {
        (name, kind, tuple(sorted(re.findall(r"`(\w+)`", labels or ""))))
        for name, labels, kind in ROW.findall(DOCUMENTATION.read_text())
    }
    assert documented == families


def test_what_a_store_does_not_say_is_absent() -> None:
    metrics = Metrics()
    metrics.take(status())
    assert exported(metrics)["agentmemory_consolidation_lag_seconds"] == {(): 2.0}
    without_postgres = status(dead_letters=None, unembedded=None, unembeddable=None, degraded=["postgres"])
    metrics.take(without_postgres)
    found = exported(metrics)
    assert found["agentmemory_store_up"] == {("redis",): 1.0, ("postgres",): 0.0}
    assert found["agentmemory_consolidation_lag_seconds"] == {(): 2.0}
    assert not {"agentmemory_dead_letters", "agentmemory_unembedded_events"} & set(found)
    metrics.take(status(lag=None, pending=None, degraded=["redis"]))
    found = exported(metrics)
    assert "agentmemory_consolidation_lag_seconds" not in found and "agentmemory_pending_turns" not in found
    assert found["agentmemory_dead_letters"] == {(): 1.0}
    metrics.take(None)
    found = exported(metrics)
    assert found["agentmemory_store_up"] == {("redis",): 0.0, ("postgres",): 0.0}
    assert "agentmemory_pending_turns" not in found and "agentmemory_dead_letters" not in found


def test_what_a_back_fill_has_left_is_told_of_models_that_are_kept_up() -> None:
    def model(number: int, *, kept: bool, complete: bool, done: int) -> Model:
        return Model(
            number=number, name=f"m{number}", dimensions=8, kept=kept, complete=complete, current=number == 1,
            switched_at=None, done=done, total=100, unwanted=False,
        )  # fmt: skip

    metrics = Metrics()
    models = [
        model(1, kept=True, complete=True, done=90), model(2, kept=True, complete=False, done=30),
        model(3, kept=False, complete=False, done=0),
    ]  # fmt: skip
    metrics.take(status(models=models))
    assert exported(metrics)["agentmemory_back_fill_left"] == {(): 70.0}
    metrics.take(status(models=None))
    assert "agentmemory_back_fill_left" not in exported(metrics)


def test_the_oldest_pending_turn_has_a_time_only_while_there_is_one() -> None:
    metrics = Metrics()
    metrics.take(status())
    [oldest] = exported(metrics)["agentmemory_oldest_pending_timestamp_seconds"].values()
    assert oldest == metrics.stores.now - 2.0
    metrics.take(status(lag=0.0, pending=0))
    assert "agentmemory_oldest_pending_timestamp_seconds" not in exported(metrics)


def test_what_the_engine_tells_is_counted() -> None:
    metrics = Metrics()
    metrics.consolidated(5, 0.01)
    metrics.consolidated(2, 0.02)
    metrics.dead_lettered(1)
    metrics.embedded(4, 1.0)
    metrics.opened()
    metrics.failed("embedding")
    found = exported(metrics)
    assert found["agentmemory_events_consolidated_total"] == {(): 7.0}
    assert found["agentmemory_consolidation_batch_seconds_count"] == {(): 2.0}
    assert found["agentmemory_dead_lettered_total"] == {(): 1.0}
    assert found["agentmemory_events_embedded_total"] == {(): 4.0}
    assert found["agentmemory_openings_total"] == {(): 1.0}
    parts = {"consolidation": 0.0, "embedding": 1.0, "retention": 0.0, "distillation": 0.0}
    assert found["agentmemory_failures_total"] == {(part,): count for part, count in parts.items()}


def test_a_method_that_nobody_knows_is_no_label_of_its_own() -> None:
    metrics = Metrics()
    for number in range(100):
        metrics.count_request("unmatched", f"M{number}", 405, 0.001)
    metrics.count_request("unmatched", "GET", 404, 0.001)
    counts = exported(metrics)["agentmemory_http_request_seconds_count"]
    assert counts == {("other", "unmatched", "4xx"): 100.0, ("GET", "unmatched", "4xx"): 1.0}
