"""The provider `Local`: the real model in its real process, and what becomes of calls when that process dies."""

from __future__ import annotations

import asyncio
import math
import os
import select
import signal
import subprocess
import sys
from collections.abc import AsyncIterator, Iterator, Sequence
from contextlib import contextmanager
from typing import Any

import numpy as np
import onnxruntime  # type: ignore[import-untyped]
import psutil
import pytest
import uvloop
from tokenizers import Tokenizer

from agentmemory_engine.embedding import EmbeddingUnavailable, Unembeddable, dimension_of, to_floats
from agentmemory_engine.embedding import process as process_module
from agentmemory_engine.embedding import restarts as restarts_module
from agentmemory_engine.embedding.assets import find_assets
from agentmemory_engine.embedding.chunks import split
from agentmemory_engine.embedding.encoder import INPUT, build_encoder
from agentmemory_engine.embedding.errors import EmbeddingMisconfigured
from agentmemory_engine.embedding.lanes import UNIT_TEXTS
from agentmemory_engine.embedding.local import LocalEmbedder
from agentmemory_engine.embedding.minilm import MAX_TOKENS
from agentmemory_engine.embedding.process import WorkerProcess

TEXTS = [
    "Roger.",
    "Houston, we've had a problem.",
    "We have lost two fuel cells and the pressure in oxygen tank two is zero.",
    "Revenue in the second quarter rose by 14 percent, mostly in the north.",
    "The deployment failed because the database password had been rotated an hour before. " * 4,
    '{"tool": "web_search", "args": {"query": "quarterly revenue", "limit": 5}}',
]
LONG = [f"This is sentence number {number}, one of very many that wait here to be embedded." for number in range(3000)]


@pytest.fixture
async def embedder() -> AsyncIterator[LocalEmbedder]:
    embedder = LocalEmbedder()
    await embedder.start()
    yield embedder
    await embedder.close()


@pytest.fixture(scope="module")
def tokenizer() -> Tokenizer:
    tokenizer = Tokenizer.from_buffer(find_assets().read_tokenizer())
    tokenizer.no_padding()
    tokenizer.no_truncation()
    return tokenizer


@contextmanager
def watched(pid: int | None) -> Iterator[int]:
    """A descriptor that can be read once the process has ended."""
    assert pid is not None
    descriptor = os.pidfd_open(pid)
    try:
        yield descriptor
    finally:
        os.close(descriptor)


def ended(descriptor: int) -> bool:
    """Waits for the end of a watched process; False after a minute."""
    return bool(select.select([descriptor], [], [], 60)[0])


def similarity(one: bytes, other: bytes) -> float:
    return float(np.dot(to_floats(one), to_floats(other)))


async def in_flight(embedder: LocalEmbedder, texts: list[str]) -> asyncio.Task[list[bytes]]:
    """A call with a unit of it in the process by now: it waited behind another, which has just been answered."""
    first = asyncio.create_task(embedder.embed(["first"]))
    await asyncio.sleep(0)
    call = asyncio.create_task(embedder.embed(texts))
    await first
    return call


# What the vectors are


async def test_vectors_have_length_one_and_the_dimensions_promised(embedder: LocalEmbedder) -> None:
    for vector in await embedder.embed(TEXTS):
        assert dimension_of(vector) == embedder.dimensions == 384
        assert math.hypot(*to_floats(vector)) == pytest.approx(1.0, abs=2e-3)


@pytest.mark.parametrize(
    ("said", "meant", "unrelated"),
    [
        ("The oxygen tank has exploded.", "There was a blast in an O2 vessel.", "I would like two pounds of apples."),
        ("Revenue rose in the second quarter.", "Q2 sales went up.", "The cat sleeps on the warm roof."),
        ("The password was rotated.", "Somebody changed the credentials.", "Rain is expected in the evening."),
        ("How cold is it in the cabin?", "The temperature inside is 38 degrees.", "He signed the contract on Friday."),
    ],
)
async def test_a_paraphrase_is_nearer_than_what_is_unrelated(
    embedder: LocalEmbedder, said: str, meant: str, unrelated: str
) -> None:
    query = await embedder.embed_query(said)
    near, far = await embedder.embed([meant, unrelated])
    assert similarity(query, near) > similarity(query, far) + 0.2


async def test_the_vectors_are_those_of_the_shipped_model_in_floats(
    embedder: LocalEmbedder, tokenizer: Tokenizer
) -> None:
    session = onnxruntime.InferenceSession(str(find_assets().model), providers=["CPUExecutionProvider"])
    for text, vector in zip(TEXTS, await embedder.embed(TEXTS), strict=True):
        tokens = np.array([tokenizer.encode(text).ids], np.int64)
        inputs = {"input_ids": tokens, "attention_mask": np.ones_like(tokens), "token_type_ids": np.zeros_like(tokens)}
        mean = session.run(None, inputs)[0][0].mean(axis=0)
        assert np.dot(mean / np.linalg.norm(mean), to_floats(vector)) > 0.975


async def test_a_vector_depends_on_its_text_alone_and_order_is_kept(embedder: LocalEmbedder) -> None:
    alone = [await embedder.embed_query(text) for text in TEXTS]
    together = await embedder.embed(TEXTS * 5)
    backwards = await embedder.embed(TEXTS[::-1])
    assert together == alone * 5
    assert backwards == alone[::-1]


def test_unsigned_weights_make_the_same_vectors(tokenizer: Tokenizer) -> None:
    """What processors without VNNI get, which many nodes of one cluster may be and others not."""
    models = [build_encoder(find_assets().model, unsigned=unsigned) for unsigned in (False, True)]
    signed, unsigned = (onnxruntime.InferenceSession(one, providers=["CPUExecutionProvider"]) for one in models)
    for text in TEXTS:
        inputs = {INPUT: np.array([tokenizer.encode(text).ids], np.int64)}
        assert np.array_equal(signed.run(None, inputs)[0], unsigned.run(None, inputs)[0])


async def test_a_text_is_read_up_to_the_models_length(embedder: LocalEmbedder) -> None:
    read = "one two three four five six seven eight nine ten " * 25
    within, beyond = read.split(), read.split()
    assert len(within) < MAX_TOKENS - 2
    plain, changed = await embedder.embed([" ".join(within), " ".join([*within[:200], "volcano", *within[201:]])])
    assert plain != changed
    beyond += ["and"] * 10
    same, cut = await embedder.embed([" ".join([*beyond, "volcano"]), " ".join([*beyond, "teapot"])])
    assert same == cut


@pytest.mark.parametrize(
    "text",
    [
        " ".join(LONG[:200]),
        str([{"id": 31 * n, "at": f"2026-11-{n % 30:02}T12:00:00Z", "ok": True, "price": n / 7} for n in range(300)]),
        "机组人员报告主母线电压下降。地面控制中心立即开始分析。" * 60,
        "L'équipage a signalé une chute de tension sur le bus principal, et le contrôle a étudié les mesures. " * 40,
    ],
)
def test_a_chunk_is_read_whole(tokenizer: Tokenizer, text: str) -> None:
    chunks = split(text)
    assert len(chunks) > 2
    assert max(len(tokenizer.encode(chunk).ids) for chunk in chunks) <= MAX_TOKENS


@pytest.mark.parametrize("text", ["", " ", "\0", "🚀" * 300, "x" * 100_000, "e\u0301", "\u202e"])
async def test_odd_texts_have_a_vector_too(embedder: LocalEmbedder, text: str) -> None:
    (vector,) = await embedder.embed([text])
    assert all(map(math.isfinite, to_floats(vector)))


async def test_no_texts_have_no_vectors(embedder: LocalEmbedder) -> None:
    assert await embedder.embed([]) == []


async def test_a_lone_surrogate_is_unembeddable_and_named(embedder: LocalEmbedder) -> None:
    with pytest.raises(Unembeddable, match="lone surrogate") as caught:
        await embedder.embed(["fine", "not \ud800 fine"])
    assert caught.value.index == 1
    assert len(await embedder.embed(["fine"])) == 1


# Who goes first


async def test_a_query_passes_the_backlog(embedder: LocalEmbedder) -> None:
    backlog = await in_flight(embedder, LONG)
    query = asyncio.create_task(embedder.embed_query("Who goes first?"))
    done, _ = await asyncio.wait({backlog, query}, return_when=asyncio.FIRST_COMPLETED)
    assert done == {query}
    backlog.cancel()


# The process ends


async def test_sigkill_fails_the_call_in_flight_and_no_other(embedder: LocalEmbedder) -> None:
    call = await in_flight(embedder, LONG)
    behind = asyncio.create_task(embedder.embed(["behind"]))
    query = asyncio.create_task(embedder.embed_query("query"))
    await asyncio.sleep(0)
    killed = embedder.pid
    assert killed is not None
    os.kill(killed, signal.SIGKILL)
    with pytest.raises(EmbeddingUnavailable, match="ended with status -9"):
        await call
    assert len(await behind) == 1
    assert dimension_of(await query) == 384
    assert embedder.pid != killed
    assert not psutil.pid_exists(killed)


async def test_a_stopped_process_is_given_up_and_replaced() -> None:
    embedder = LocalEmbedder(unit_patience=4.0)
    await embedder.embed_query("up")
    stopped = embedder.pid
    assert stopped is not None
    os.kill(stopped, signal.SIGSTOP)
    with pytest.raises(EmbeddingUnavailable, match="did not answer within 4 s"):
        await embedder.embed(["waiting"])
    assert not psutil.pid_exists(stopped)
    assert len(await embedder.embed(["again"])) == 1
    await embedder.close()


async def test_a_request_that_fills_the_pipe_of_a_stopped_process_is_given_up_too() -> None:
    embedder = LocalEmbedder(unit_patience=4.0)
    await embedder.embed_query("up")
    assert embedder.pid is not None
    os.kill(embedder.pid, signal.SIGSTOP)
    with pytest.raises(EmbeddingUnavailable, match="did not answer within 4 s"):
        await embedder.embed(["x " * 500_000])
    await embedder.close()


async def test_a_process_that_died_idle_is_replaced_unnoticed(embedder: LocalEmbedder) -> None:
    await embedder.embed_query("up")
    killed = embedder.pid
    assert killed is not None
    os.kill(killed, signal.SIGKILL)
    while embedder.pid == killed:
        await asyncio.sleep(0)
    assert len(await embedder.embed(["as if nothing had happened"])) == 1


async def test_a_process_that_cannot_start_costs_no_more_than_its_calls(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(process_module, "_MODULE", "agentmemory_engine.no_such_module")
    monkeypatch.setattr(restarts_module, "FIRST_PAUSE", 20.0)
    broken = LocalEmbedder()
    await broken.start()
    with pytest.raises(EmbeddingUnavailable, match="ended with status 1"):
        await broken.embed(["the start has failed, and fails again"])
    with pytest.raises(EmbeddingUnavailable, match=r"failed repeatedly; its next start is in [12]\d\.\d s"):
        await broken.embed(["not even tried"])
    await broken.close()


async def test_closing_ends_the_process_and_the_calls(embedder: LocalEmbedder) -> None:
    call = await in_flight(embedder, LONG)
    query = asyncio.create_task(embedder.embed_query("query"))
    await asyncio.sleep(0)
    pid = embedder.pid
    assert pid is not None
    await embedder.close()
    assert not psutil.pid_exists(pid)
    for waiting in (call, query):
        with pytest.raises(EmbeddingUnavailable, match="closed"):
            await waiting
    with pytest.raises(EmbeddingUnavailable, match="closed"):
        await embedder.embed(["after"])


async def test_closing_before_a_start_is_no_error() -> None:
    await LocalEmbedder().close()


@pytest.mark.parametrize("fails", [False, True])
async def test_a_call_that_is_over_leaves_no_work_behind(
    embedder: LocalEmbedder, monkeypatch: pytest.MonkeyPatch, fails: bool
) -> None:
    asked: list[str] = []
    ask = WorkerProcess.ask

    async def note(self: WorkerProcess, texts: Sequence[str], *, patience: float) -> list[bytes]:
        asked.extend(texts)
        return await ask(self, texts, patience=patience)

    monkeypatch.setattr(WorkerProcess, "ask", note)
    call = await in_flight(embedder, LONG)
    if fails:
        assert embedder.pid is not None
        os.kill(embedder.pid, signal.SIGKILL)
    else:
        call.cancel()
    with pytest.raises(EmbeddingUnavailable if fails else asyncio.CancelledError):
        await call
    await embedder.embed(["behind"])
    assert len(asked) < 2 + 2 * UNIT_TEXTS


def test_under_uvloop_it_is_the_same() -> None:
    async def live() -> None:
        embedder = LocalEmbedder()
        call = await in_flight(embedder, LONG)
        killed = embedder.pid
        assert killed is not None
        os.kill(killed, signal.SIGKILL)
        with pytest.raises(EmbeddingUnavailable, match="ended with status -9"):
            await call
        assert await embedder.embed(TEXTS) == [await embedder.embed_query(text) for text in TEXTS]
        assert embedder.pid is not None
        with watched(embedder.pid) as descriptor:
            await embedder.close()
            assert ended(descriptor)

    with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
        runner.run(live())


PARENT = """
import asyncio
from agentmemory_engine.embedding.lanes import UNIT_TEXTS
from agentmemory_engine.embedding.local import LocalEmbedder

async def main():
    embedder = LocalEmbedder()
    await embedder.embed_query("up")
    print(embedder.pid, flush=True)
    await asyncio.Event().wait()

asyncio.run(main())
"""


@pytest.mark.skipif(sys.platform != "linux", reason="other systems have no signal at the death of a parent")
@pytest.mark.parametrize("stopped", [False, True])
def test_the_process_does_not_outlive_its_parent(stopped: bool) -> None:
    with subprocess.Popen([sys.executable, "-c", PARENT], stdout=subprocess.PIPE, text=True) as parent:
        assert parent.stdout is not None
        pid = int(parent.stdout.readline())
        with watched(pid) as descriptor:
            if stopped:
                os.kill(pid, signal.SIGSTOP)
            parent.kill()
            assert ended(descriptor)


def start_worker(parent: int) -> subprocess.Popen[bytes]:
    command = [sys.executable, "-P", "-m", "agentmemory_engine.embedding.worker", str(parent)]
    return subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.PIPE)


def test_the_process_ends_in_good_order_with_its_input_and_ignores_interrupts() -> None:
    with start_worker(os.getpid()) as worker:
        assert worker.stdin is not None and worker.stdout is not None
        worker.stdin.write(b"\0\0\0\1\x90")
        worker.stdin.flush()
        assert worker.stdout.read(5) == b"\0\0\0\1\x90"
        worker.send_signal(signal.SIGINT)
        assert worker.communicate(timeout=60) == (b"", b"")
        assert worker.returncode == 0


def test_a_process_whose_parent_is_gone_already_does_not_start() -> None:
    with start_worker(os.getppid()) as worker:
        _, complaint = worker.communicate(timeout=60)
        assert worker.returncode == 1
        assert b"is not the parent any more" in complaint


def test_a_model_that_is_not_the_one_known_is_refused(tmp_path: Any) -> None:
    import onnx
    from onnx import helper

    other = tmp_path / "model.onnx"
    onnx.save(helper.make_model(helper.make_graph([], "empty", [], [])), str(other))
    with pytest.raises(EmbeddingMisconfigured, match="is not the MiniLM model that this version knows"):
        build_encoder(other, unsigned=False)


def test_the_process_stays_small() -> None:
    """Its part of what a sidecar with local embedding may use under load (250 MB, with 80 for the sidecar)."""
    command = "from agentmemory_engine.embedding import assets, minilm\n"
    command += "model = minilm.MiniLM(assets.find_assets())\n"
    command += "for length in (10, 100, 1000): model.embed('word ' * length)\n"
    command += "print(next(line for line in open('/proc/self/status') if line.startswith('VmHWM')).split()[1])"
    environment = {**os.environ, **process_module._ENVIRONMENT}
    done = subprocess.run([sys.executable, "-c", command], capture_output=True, check=True, env=environment)
    assert int(done.stdout) <= 170 * 1024
