"""The pure parts of the benchmarks: a figure is worth what the arithmetic behind it is."""

from __future__ import annotations

import json
import random
from collections import Counter
from itertools import pairwise

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from agentmemory.importing import parse_line
from agentmemory_engine.embedding import dimension_of, to_floats
from benchmarks.conversation import document_of, make_conversation, text_of
from benchmarks.errors import BenchmarkFailed
from benchmarks.exact import exactness, found_of_best, similarities
from benchmarks.figures import Figure, Section, at_least, at_most, show_target, show_value, verdict
from benchmarks.latency import Spread, middle, percentile, ratios, spread_of
from benchmarks.machine import show_command
from benchmarks.open_loop import spread_evenly
from benchmarks.placement import FREE, SIDECAR_APART
from benchmarks.questions import Question, Score, by_kind, mean_score, parse_question, score
from benchmarks.raw_http import make_request, parse_response
from benchmarks.ready_vectors import from_vector, normalised, to_vector, unit_vectors
from benchmarks.report import Report, to_json, to_markdown
from benchmarks.work import PYTHON, Work

TIMES = st.lists(st.floats(min_value=0, max_value=10), min_size=1, max_size=200)


@pytest.mark.parametrize(
    ("count", "share", "expected"),
    [(1, 0.5, 1), (2, 0.5, 1), (3, 0.5, 2), (100, 0.95, 95), (100, 0.99, 99), (101, 0.5, 51), (100, 0.07, 7)],
)
def test_a_percentile_is_the_nearest_rank(count: int, share: float, expected: int) -> None:
    assert percentile(range(1, count + 1), share) == expected


@given(TIMES, st.floats(min_value=0.01, max_value=1))
def test_at_least_that_share_does_not_exceed_a_percentile(times: list[float], share: float) -> None:
    value = percentile(sorted(times), share)
    assert sum(time <= value for time in times) >= round(share * len(times), 6)
    assert value in times


def test_nothing_has_no_percentile() -> None:
    with pytest.raises(ValueError, match="nothing"):
        percentile([], 0.5)


@given(TIMES)
def test_a_spread_does_not_depend_on_order(times: list[float]) -> None:
    assert spread_of(times) == spread_of(reversed(times))
    assert spread_of(times).count == len(times)


def test_the_middle_of_rounds_is_each_percentiles_median() -> None:
    rounds = [Spread(1, 9, 30, 10), Spread(3, 7, 10, 10), Spread(2, 8, 20, 10)]
    assert middle(rounds) == Spread(2, 8, 20, 30)


def test_ratios_are_of_the_same_round() -> None:
    above, below = [Spread(4, 0, 0, 1), Spread(9, 0, 0, 1)], [Spread(2, 0, 0, 1), Spread(3, 0, 0, 1)]
    assert ratios(above, below) == [2, 3]
    with pytest.raises(ValueError, match="shorter"):
        ratios(above, below[:1])


@pytest.mark.parametrize(
    ("target", "value", "said"),
    [
        (at_most(2.5), 2.5, "met, 0% to spare"),
        (at_most(2.5), 2.0, "met, 20% to spare"),
        (at_most(2.5), 5.0, "missed by 100%"),
        (at_most(1000.0), 1000.5, "missed by 0.05%"),
        (at_least(40), 60.0, "met, 50% to spare"),
        (at_least(40), 30.0, "missed by 25%"),
        (at_most(0.0), 0.0, "met"),
        (at_most(0.0), 0.02, "missed by 0.02x"),
        (None, 3.0, ""),
    ],
)
def test_a_verdict_says_by_how_much(target: object, value: float, said: str) -> None:
    assert verdict(Figure("a", value, "x", target)) == said  # type: ignore[arg-type]


@pytest.mark.parametrize(
    ("value", "unit", "shown"),
    [
        (2.345, "x", "2.35x"), (1234.0, "x", "1,234x"), (8.84e-6, "us", "8.8 us"), (183e-6, "us", "183 us"),
        (0.00123, "ms", "1.23 ms"), (61.26, "s", "61.3 s"), (28_123.4, "/s", "28,123 /s"), (80e6, "MB", "80.0 MB"),
        (0.998, "share", "0.998"), (11264, "count", "11,264"),
    ],
)  # fmt: skip
def test_values_are_shown_with_their_unit(value: float, unit: str, shown: str) -> None:
    assert show_value(value, unit) == shown


def test_targets_are_shown_with_their_direction() -> None:
    assert show_target(Figure("a", 1.0, "ms", at_most(0.5e-3))) == "≤ 0.50 ms"
    assert show_target(Figure("a", 1.0, "/s", at_least(20_000))) == "≥ 20,000 /s"


def test_a_figure_of_several_rounds_is_their_median() -> None:
    section = Section("s")
    section.add("a", [3.0, 1.0, 2.0], "x")
    section.add("b", 5, "x")
    assert [(figure.value, figure.rounds) for figure in section.figures] == [(2.0, (3.0, 1.0, 2.0)), (5.0, ())]


def test_a_placement_names_every_role() -> None:
    assert SIDECAR_APART.describe() == "core 0: sidecar; core 1: client, redis; any core: postgres"
    assert FREE.describe() == "any core: client, sidecar, redis, postgres"
    assert (SIDECAR_APART.needs, FREE.needs) == (2, 1)


ANSWER = b'HTTP/1.1 201 Created\r\nContent-Type: application/json\r\nContent-Length: 7\r\nServer: x\r\n\r\n{"a":1}'


@given(st.integers(0, len(ANSWER) - 1))
def test_a_part_of_an_answer_is_no_answer(length: int) -> None:
    assert parse_response(ANSWER[:length]) is None


def test_an_answer_leaves_what_follows_it() -> None:
    assert parse_response(ANSWER + ANSWER[:20]) == (201, b'{"a":1}', len(ANSWER))


def test_an_answer_without_a_length_is_refused() -> None:
    with pytest.raises(BenchmarkFailed, match="Content-Length"):
        parse_response(b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n")


def test_a_request_has_a_body_only_when_it_is_given_one() -> None:
    assert b"Content-Length" not in make_request("GET", "/a")
    assert make_request("POST", "/a", b"{}", {"X-Key": "k"}).endswith(b"Content-Length: 2\r\nX-Key: k\r\n\r\n{}")


@given(st.integers(1, 60), st.integers(1, 20))
def test_an_open_loop_asks_at_even_times(connections: int, times: int) -> None:
    dues = spread_evenly(
        kind="read", connections=range(connections), interval=0.5, seconds=times * 0.5, request=lambda *_: b""
    )
    by_connection = {
        number: sorted(due.at for due in dues if due.connection == number) for number in range(connections)
    }
    assert len({due.at for due in dues}) == len(dues)
    for ats in by_connection.values():
        assert all(after - before == pytest.approx(0.5) for before, after in pairwise(ats))
        assert len(ats) == times
        assert all(0 <= at < times * 0.5 for at in ats)


@pytest.mark.parametrize(
    ("ranking", "evidence", "expected"),
    [
        (["a", "b"], {"a"}, Score(1, 1, 1)),
        (["x", "y", "a"], {"a", "b"}, Score(1, 0.5, 1 / 3)),
        ([*"vwxyz", "a"], {"a"}, Score(0, 1, 1 / 6)),
        ([*map(str, range(20)), "a"], {"a"}, Score(0, 0, 1 / 21)),
        (["x"], {"a"}, Score(0, 0, 0)),
        ([], {"a"}, Score(0, 0, 0)),
    ],
)
def test_a_ranking_is_scored(ranking: list[str], evidence: set[str], expected: Score) -> None:
    assert score(ranking, frozenset(evidence)) == expected


def test_scores_are_averaged_by_kind() -> None:
    def question(kind: str) -> Question:
        return Question("q", frozenset("a"), kind)

    kinds = by_kind([(question("time"), Score(1, 1, 1)), (question("exact"), Score(0, 0, 0))])
    assert list(kinds) == ["exact", "time"]
    assert mean_score([Score(1, 1, 1), Score(0, 0.5, 0.25)]) == Score(0.5, 0.75, 0.625)


def test_a_questions_ids_are_compared_as_text() -> None:
    line = '{"question": "Why?", "evidence": [12, "b"], "kind": "time"}'
    assert parse_question(line) == Question("Why?", frozenset({"12", "b"}), "time")


@pytest.mark.parametrize("line", ["[]", "{", '{"question": "Why?"}', '{"question": "Why?", "evidence": []}'])
def test_a_question_that_cannot_be_scored_is_refused(line: str) -> None:
    with pytest.raises(BenchmarkFailed):
        parse_question(line)


def test_the_best_may_be_any_of_equals() -> None:
    ranked = {"a": 0.9, "b": 0.5, "c": 0.5, "d": 0.1}
    assert found_of_best(["a", "c"], ranked, 2) == found_of_best(["a", "b"], ranked, 2) == 1
    assert found_of_best(["a", "d"], ranked, 2) == 0.5
    assert found_of_best(["a", "a"], ranked, 2) == 0.5
    assert found_of_best([*"abcd"], ranked, 9) == 1


def test_an_answer_is_short_only_when_there_was_more() -> None:
    found = exactness([(["a"], {"a": 0.5}), (["a"], {"a": 0.5, "b": 0.4})], 2)
    assert (found.recall, found.short) == (0.75, 0.5)


def test_an_event_is_as_similar_as_its_best_chunk() -> None:
    vectors = np.array([[0, 1], [1, 0], [-1, 0]], dtype=np.float32)
    query = np.array([0, 1], dtype=np.float32)
    assert similarities(vectors, ["long", "long", "other"], query) == {"long": 1, "other": 0}


def test_ready_vectors_are_what_the_engine_stores() -> None:
    (row,) = unit_vectors(1, 7)
    assert np.linalg.norm(row) == pytest.approx(1)
    assert dimension_of(to_vector(row)) == 384
    assert to_floats(to_vector(row)) == from_vector(to_vector(row)).tolist()
    assert from_vector(to_vector(row)) == pytest.approx(row, abs=1e-3)
    assert np.array_equal(unit_vectors(1, 7)[0], row)
    assert not np.array_equal(unit_vectors(1, 8)[0], row)
    assert normalised(np.array([[3, 4]], dtype=np.float32)).tolist() == [[pytest.approx(0.6), pytest.approx(0.8)]]


def test_a_generated_conversation_can_be_imported_and_comes_again() -> None:
    lines = list(make_conversation(500, seed=3))
    for number, line in enumerate(lines, start=1):
        parse_line(number, json.dumps(line).encode())
    assert lines == list(make_conversation(500, seed=3))
    assert lines != list(make_conversation(500, seed=4))
    assert max(Counter(line["content"] for line in lines).values()) > 1
    assert len({line["id"] for line in lines}) == 500


def test_documents_and_texts_are_as_long_as_asked() -> None:
    assert len(document_of(2048, 1)) == 2048
    assert isinstance(json.loads(document_of(2048, 1)), dict)
    assert len(text_of(350, random.Random(1))) == 350


def test_a_rate_a_core_counts_the_named_processes() -> None:
    work = Work(1000, wall=2.0, processor={PYTHON: 0.5, "Postgres": 1.5, "Redis": 1.0})
    assert (work.rate, work.rate_a_core(PYTHON, "Postgres"), work.microseconds("Redis")) == (500, 500, 1000)


def test_a_published_command_shows_no_directories() -> None:
    given = ["--quick", "--conversation", "/home/me/talk.jsonl", "--questions=/home/me/q.jsonl", "--seed", "2"]
    wanted = "python -m benchmarks --quick --conversation talk.jsonl --questions=q.jsonl --seed 2"
    assert show_command(given) == wanted


def test_a_report_counts_targets_and_escapes_cells() -> None:
    section = Section("Things", notes=["A note."])
    section.add("a | b", 1.0, "x", at_most(2))
    section.add("c", 3.0, "x", at_most(2), placement="core 0: client")
    section.add("d", 4.0, "x")
    report = Report({"machine": "this one"}, [section])
    page = to_markdown(report)
    assert "* machine: this one\n" in page
    assert "1 of 2 targets met." in page
    assert "| a \\| b | 1.00x | ≤ 2.00x | met, 50% to spare |  |" in page
    assert "| c | 3.00x | ≤ 2.00x | missed by 50% | core 0: client |" in page
    assert "\nA note.\n" in page
    figures = json.loads(to_json(report))["sections"][0]["figures"]
    assert [figure["met"] for figure in figures] == [True, False, None]
