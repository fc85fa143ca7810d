"""The suite: which parts there are, and the stage that each is played on."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path

from benchmarks.consolidation import measure_consolidation
from benchmarks.conversation import contents_of, write_conversation
from benchmarks.errors import BenchmarkFailed
from benchmarks.figures import Section
from benchmarks.fleet import measure_fleet
from benchmarks.hot_read import measure_hot_read, measure_polling
from benchmarks.importing import Source, measure_import, report_memory, settled_footprint
from benchmarks.large_agent import measure_large_agent
from benchmarks.long_agent import measure_long_agent
from benchmarks.machine import describe_versions
from benchmarks.processes import Footprint
from benchmarks.questions import Question, measure_questions, read_questions
from benchmarks.screen import Screen
from benchmarks.sizes import Sizes
from benchmarks.stage import Stage
from benchmarks.turn import measure_turn

FIRST_STAGE = ("hot-read", "polling", "turn", "consolidation")
SECOND_STAGE = ("import", "fleet", "large-agent")
PARTS = (*FIRST_STAGE, *SECOND_STAGE)
"""`import` brings memory, recall of one long agent, and the questions."""


@dataclass
class Suite:
    """One run. `conversation` and `questions` are files, or None."""

    sizes: Sizes
    seed: int
    parts: Sequence[str]
    screen: Screen
    conversation: Path | None = None
    questions: Path | None = None
    versions: dict[str, str] = field(default_factory=dict)

    async def run(self) -> list[Section]:
        """All sections that were asked for."""
        asked = read_questions(self.questions) if self.questions else []
        if asked and self.conversation is None:
            raise BenchmarkFailed("questions are about a conversation: give its file with --conversation")
        sections: list[Section] = []
        idle: Footprint | None = None
        if any(part in self.parts for part in FIRST_STAGE) or "import" in self.parts:
            async with Stage("None") as stage:
                self.versions |= await describe_versions(stage)
                idle = await settled_footprint(stage)
                sections += await self._first(stage)
        if any(part in self.parts for part in SECOND_STAGE):
            async with Stage("Local") as stage:
                self.versions |= await describe_versions(stage)
                sections += await self._second(stage, idle, asked)
        return sections

    async def _first(self, stage: Stage) -> list[Section]:
        """Without embedding, which none of these is about."""
        sections = []
        if "hot-read" in self.parts:
            sections.append(measure_hot_read(stage, self.sizes, self.seed, self.screen))
        if "polling" in self.parts:
            sections.append(measure_polling(stage, self.sizes, self.seed, self.screen))
        if "turn" in self.parts:
            sections.append(await measure_turn(stage, self.sizes, self.seed, self.screen))
        if "consolidation" in self.parts:
            sections.append(await measure_consolidation(stage, self.sizes, self.seed, self.screen))
        return sections

    async def _second(self, stage: Stage, idle: Footprint | None, asked: list[Question]) -> list[Section]:
        sections = []
        if "import" in self.parts:
            assert idle is not None
            sections += await self._import(stage, idle, asked)
        if "fleet" in self.parts:
            sections.append(await measure_fleet(stage, self.sizes, self.seed, self.screen))
        if "large-agent" in self.parts:
            sections.append(await measure_large_agent(stage, self.sizes, self.seed, self.screen))
        return sections

    async def _import(self, stage: Stage, idle_without: Footprint, asked: list[Question]) -> list[Section]:
        source = self._source(stage)
        idle_with = await settled_footprint(stage)
        imported, peak = await measure_import(stage, source, self.screen)
        memory = report_memory(idle_without, idle_with, peak, await settled_footprint(stage))
        texts = [question.text for question in asked] or contents_of(source.path)
        sections = [imported, memory]
        sections.append(await measure_long_agent(stage, self._some(texts), self.sizes, self.screen))
        if asked and self.questions is not None:
            sections.append(measure_questions(stage, asked, self.questions.name, self.screen))
        return sections

    def _source(self, stage: Stage) -> Source:
        if self.conversation is not None:
            return Source(self.conversation, self.conversation.name, len(contents_of(self.conversation)))
        path = stage.scratch / "conversation.jsonl"
        write_conversation(path, self.sizes.events, self.seed)
        return Source(path, f"generated, seed {self.seed}", self.sizes.events)

    def _some(self, texts: Sequence[str]) -> list[str]:
        """As many as there shall be queries, from all over."""
        step = max(1, len(texts) // self.sizes.queries)
        return [text for text in texts[::step] if text.strip()][: self.sizes.queries]
