"""Questions with labelled evidence: how often recall finds what answers them."""

from __future__ import annotations

import json
from collections import defaultdict
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from statistics import fmean
from typing import Any

from benchmarks.errors import BenchmarkFailed
from benchmarks.figures import Section, at_least
from benchmarks.importing import AGENT
from benchmarks.screen import Screen
from benchmarks.stage import Stage

_DEPTH = 100
_TARGET_HIT = 0.67


@dataclass(frozen=True)
class Question:
    """A question, the ids of the utterances that answer it, and what kind of question it is."""

    text: str
    evidence: frozenset[str]
    kind: str


@dataclass(frozen=True)
class Score:
    """How well one question, or the mean of several, was answered; each from 0 to 1."""

    hit_at_5: float
    recall_at_20: float
    reciprocal_rank: float


def parse_question(line: str) -> Question:
    """A question from its JSON. Raises BenchmarkFailed."""
    try:
        members = json.loads(line)
        evidence = frozenset(map(str, members["evidence"]))
        question = Question(members["question"], evidence, str(members.get("kind", "other")))
    except (ValueError, KeyError, TypeError) as error:
        raise BenchmarkFailed(f"not a question with `question`, `evidence` and `kind`: {line[:80]!r}") from error
    if not evidence:
        raise BenchmarkFailed(f"a question without evidence cannot be scored: {line[:80]!r}")
    return question


def read_questions(path: Path) -> list[Question]:
    """All questions of a file of JSON Lines. Raises BenchmarkFailed."""
    questions = [parse_question(line) for line in path.read_text(encoding="utf-8").splitlines() if line.strip()]
    if not questions:
        raise BenchmarkFailed(f"{path.name} holds no question")
    return questions


def score(ranking: Sequence[str], evidence: frozenset[str]) -> Score:
    """The score of a ranking of ids, best first."""
    found = [place for place, name in enumerate(ranking, start=1) if name in evidence]
    hit = any(place <= 5 for place in found)
    recall = sum(place <= 20 for place in found) / len(evidence)
    return Score(float(hit), recall, 1 / found[0] if found else 0.0)


def mean_score(scores: Sequence[Score]) -> Score:
    """The mean of some scores. Raises StatisticsError when there are none."""
    return Score(
        fmean(one.hit_at_5 for one in scores),
        fmean(one.recall_at_20 for one in scores),
        fmean(one.reciprocal_rank for one in scores),
    )


def by_kind(scored: Iterable[tuple[Question, Score]]) -> dict[str, list[Score]]:
    """The scores of each kind of question, in the order of their names."""
    kinds: dict[str, list[Score]] = defaultdict(list)
    for question, one in scored:
        kinds[question.kind].append(one)
    return dict(sorted(kinds.items()))


WAYS: Mapping[str, Mapping[str, Any]] = {
    "hybrid": {"strategy": "hybrid"},
    "hybrid, named times off": {"strategy": "hybrid", "named_times": False},
    "keyword": {"strategy": "keyword"},
    "semantic": {"strategy": "semantic"},
}
"""Ways to ask, as members of the request: the whole, and what is left with an ingredient off."""


def measure_questions(stage: Stage, questions: Sequence[Question], label: str, screen: Screen) -> Section:
    """Ask them all in every way, of the agent that the conversation was imported to."""
    screen.begin("Questions", len(questions) * len(WAYS))
    scored: dict[str, list[tuple[Question, Score]]] = {way: [] for way in WAYS}
    with stage.http() as http:
        for way, members in WAYS.items():
            for question in questions:
                body = {"query": question.text, "k": _DEPTH, **members}
                hits = http.ask("POST", f"/v1/agents/{AGENT}/recall", body)["hits"]
                scored[way].append((question, score(_import_ids(hits), question.evidence)))
                screen.step()
    return _report(scored, label)


def _import_ids(hits: Sequence[Mapping[str, Any]]) -> list[str]:
    return [str(hit.get("metadata", {}).get("import_id")) for hit in hits]


def _report(scored: Mapping[str, Sequence[tuple[Question, Score]]], label: str) -> Section:
    asked = len(scored["hybrid"])
    section = Section(f"Recall of {asked:,} questions with labelled evidence ({label})")
    for way, found in scored.items():
        mean = mean_score([one for _, one in found])
        section.add(
            f"hit@5, {way}", mean.hit_at_5, "share", at_least(_TARGET_HIT) if way == "hybrid" else None,
            detail=f"recall@20 {mean.recall_at_20:.3f}, mean reciprocal rank of the first {_DEPTH} "
            f"{mean.reciprocal_rank:.3f}",
        )  # fmt: skip
    kinds = {way: by_kind(found) for way, found in scored.items()}
    for kind, scores in kinds["hybrid"].items():
        others = ", ".join(f"{way} {mean_score(kinds[way][kind]).hit_at_5:.3f}" for way in WAYS if way != "hybrid")
        section.add(
            f"hit@5, hybrid, {kind} ({len(scores)} questions)", mean_score(scores).hit_at_5, "share", detail=others
        )
    return section
