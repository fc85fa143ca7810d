"""The tables at the end."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from rich.console import Console
from rich.table import Table
from rich.text import Text

from agentmemory.demo.latency import ROUNDS, Measured
from agentmemory.demo.ledger import Audit, DayCount
from agentmemory.demo.story import Question
from agentmemory.models import Hit

MILLI = 1000.0


@dataclass(frozen=True)
class Answered:
    """A question and what was recalled for it, best first."""

    question: Question
    hits: Sequence[Hit]

    @property
    def rank(self) -> int | None:
        """Where the first hit stands that answers it, from 1; None where none does."""
        labels = [(hit.metadata or {}).get("label") for hit in self.hits]
        return next((rank for rank, label in enumerate(labels, start=1) if label in self.question.expects), None)


def show_audit(console: Console, audit: Audit) -> None:
    """What was acknowledged, and what memory holds of it."""
    table = Table("day", title="Events", title_justify="left", show_footer=True)
    total = DayCount()
    for name in ("acknowledged", "durable", "searchable", "found"):
        total_of = sum(getattr(day, name) for day in audit.days.values())
        setattr(total, name, total_of)
        table.add_column(HEADINGS[name], footer=str(total_of), justify="right")
    table.add_column("")
    table.columns[0].footer = "all"
    for name, day in audit.days.items():
        table.add_row(
            name, str(day.acknowledged), str(day.durable), str(day.searchable), str(day.found), _mark(day.equal)
        )
    console.print(table)
    style = "bold green" if audit.passed else "bold red"
    console.print(f"lost {audit.lost}, doubled {audit.doubled}", style=style)


def show_answers(console: Console, answers: Sequence[Answered]) -> None:
    """What was recalled for which question."""
    right = sum(answer.rank == 1 for answer in answers)
    title = f"Recall: the first hit answers {right} of {len(answers)} questions"
    table = Table("question", "recalled first", "score", "answer is", title=title, title_justify="left")
    for answer in answers:
        best = answer.hits[0] if answer.hits else None
        table.add_row(
            Text(answer.question.question),
            Text(f"{best.session}: {best.content}" if best else "nothing"),
            f"{best.score:.2f}" if best else "",
            Text("first", style="green") if answer.rank == 1 else Text(f"no. {answer.rank or '-'}", style="yellow"),
        )
    console.print(table)


def show_latencies(console: Console, measured: Sequence[Measured]) -> None:
    """Times, and how many raw GETs each is worth."""
    table = Table(
        "",
        "p50 ms",
        "p95 ms",
        "p50 in raw GETs",
        title=f"Latency, {ROUNDS} of each, client included",
        title_justify="left",
    )
    for column in table.columns[1:]:
        column.justify = "right"
    raw = measured[0]
    for one in measured:
        table.add_row(one.name, f"{one.p50 * MILLI:.2f}", f"{one.p95 * MILLI:.2f}", f"{one.p50 / raw.p50:.1f}")
    console.print(table)


def _mark(good: bool) -> Text:
    return Text("✓", style="green") if good else Text("✗", style="bold red")


HEADINGS = {
    "acknowledged": "acknowledged",
    "durable": "durable",
    "searchable": "searchable",
    "found": "once in timeline",
}
