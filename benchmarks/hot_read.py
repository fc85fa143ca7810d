"""The hot read: working memory through the sidecar beside a raw GET of the same bytes, and agents that poll."""

from __future__ import annotations

from benchmarks.conversation import document_of
from benchmarks.figures import Section, at_most
from benchmarks.latency import Spread, middle, ratios, spread_of
from benchmarks.open_loop import run, spread_evenly
from benchmarks.placement import FREE, OTHER_CORE, SAME_CORE, Contrast, Placement
from benchmarks.probe import Probe, measure_by_turns
from benchmarks.raw_http import RawHttp, make_request
from benchmarks.raw_redis import RawRedis, pack
from benchmarks.screen import Screen
from benchmarks.sizes import Sizes
from benchmarks.stage import Stage

DOCUMENT_SIZE = 2048
POLLING_AGENTS = 50
POLL_INTERVAL = 0.1  # seconds
_KEY = "benchmarks:document"
_LIMITS = {SAME_CORE.name: 8.0, OTHER_CORE.name: 2.5}


def address_of(agent: str) -> str:
    """The path of an agent's working memory."""
    return f"/v1/agents/{agent}/working-memory"


def measure_hot_read(stage: Stage, sizes: Sizes, seed: int, screen: Screen) -> Section:
    """GET of a document, one at a time."""
    contrasts = stage.pinning.contrasts
    screen.begin("Hot read", sizes.rounds)
    document = document_of(DOCUMENT_SIZE, seed)
    with stage.http() as http, stage.redis() as tcp, stage.redis(over_tcp=False) as unix:
        http.ask("PUT", address_of("reader"), document)
        tcp.command("SET", _KEY, document)
        probes = {name: probe for one in contrasts for name, probe in _probes(one, http, tcp, unix).items()}
        spreads = measure_by_turns(probes, stage.pinning, sizes, screen.step)
        tcp.command("DEL", _KEY)
    section = Section(f"Hot read, a document of {DOCUMENT_SIZE:,} bytes")
    for contrast in contrasts:
        _report(section, contrast, spreads)
    section.notes.append(
        "Clients are blocking sockets on kept connections, one call at a time. The limits are of raw GET over TCP; the "
        "sidecar itself reaches Redis over a Unix socket."
    )
    return section


def _probes(contrast: Contrast, http: RawHttp, tcp: RawRedis, unix: RawRedis) -> dict[str, Probe]:
    get, read = pack("GET", _KEY), make_request("GET", address_of("reader"))
    return {
        f"tcp, {contrast.name}": Probe(contrast.raw, lambda count: [get] * count, tcp.exchange),
        f"sidecar, {contrast.name}": Probe(contrast.served, lambda count: [read] * count, http.exchange),
        f"unix, {contrast.name}": Probe(contrast.raw, lambda count: [get] * count, unix.exchange),
    }


def _report(section: Section, contrast: Contrast, spreads: dict[str, list[Spread]]) -> None:
    tcp, unix, sidecar = (spreads[f"{name}, {contrast.name}"] for name in ("tcp", "unix", "sidecar"))
    raw, served = contrast.raw.describe(), contrast.served.describe()
    limit = _LIMITS.get(contrast.name)
    section.add(
        f"sidecar GET to raw GET, p50, {contrast.name}", ratios(sidecar, tcp), "x", at_most(limit) if limit else None,
        placement=f"raw: {raw}. Sidecar: {served}" if raw != served else raw,
    )  # fmt: skip
    section.add(f"the same, raw GET over a Unix socket, {contrast.name}", ratios(sidecar, unix), "x")
    section.add_spread(f"raw GET over TCP, {contrast.name}", middle(tcp), "us")
    section.add_spread(f"raw GET over a Unix socket, {contrast.name}", middle(unix), "us")
    section.add_spread(f"GET working-memory, {contrast.name}", middle(sidecar), "us")


def measure_polling(stage: Stage, sizes: Sizes, seed: int, screen: Screen) -> Section:
    """Many agents that read their document over and over."""
    placements = [FREE, *(one.served for one in stage.pinning.contrasts if one.served is not FREE)]
    screen.begin("Polling", len(placements))
    with stage.http() as http:
        for number in range(POLLING_AGENTS):
            http.ask("PUT", address_of(f"poller-{number}"), document_of(DOCUMENT_SIZE, seed + number))
    section = Section(f"{POLLING_AGENTS} agents polling every {POLL_INTERVAL * 1000:.0f} ms (open loop)")
    pinning = stage.pinning
    with pinning.held():
        for placement in placements:
            pinning.apply(placement)
            _poll(stage, min(1.0, sizes.poll_seconds))
            _report_polls(section, placement, _poll(stage, sizes.poll_seconds))
            screen.step()
    section.notes.append("Times count from when a request was meant to be sent; what waits in the client counts too.")
    return section


def _poll(stage: Stage, seconds: float) -> Spread:
    schedule = spread_evenly(
        kind="read", connections=range(POLLING_AGENTS), interval=POLL_INTERVAL, seconds=seconds, request=read_request
    )
    return spread_of(run(stage.memory.sidecar.port, schedule)["read"])


def read_request(agent: int, _: int) -> bytes:
    """A poll of one agent."""
    return make_request("GET", address_of(f"poller-{agent}"))


def _report_polls(section: Section, placement: Placement, spread: Spread) -> None:
    judged = placement is FREE
    where = placement.describe()
    section.add(f"p50, {placement.name}", spread.p50, "ms", at_most(0.5e-3) if judged else None, placement=where)
    section.add(
        f"p95, {placement.name}", spread.p95, "ms", at_most(1e-3) if judged else None,
        placement=where, detail=f"p99 {spread.p99 * 1e3:.2f} ms, {spread.count:,} reads",
    )  # fmt: skip
