"""PgBouncer between the sidecars and Postgres: transactions share its connections, logins rotate through it, and it can
be taken away again."""

from __future__ import annotations

import json
from datetime import UTC, datetime, timedelta

import pytest

from agentmemory_engine.keys import Keys
from agentmemory_operator.pooling import RETIRED_ANNOTATION, TOLD
from support.cluster import (
    Agent,
    annotate,
    apply,
    get,
    kill_pod,
    memory_manifest,
    pods,
    settled,
    status_of,
    verify,
    wait_for,
)
from support.edits import edit, nudge, secret_of
from support.kubectl import kubectl, kubectl_json

pytestmark = pytest.mark.cluster

POOLER = "app.kubernetes.io/component=pooler"
SIDECAR = "agentmemory.io/sidecar"
MADE = "deployments,services,secrets,configmaps,poddisruptionbudgets,networkpolicies"
POOL_SIZE = 2
_READ = """
import json, os, urllib.request
url = os.environ["AGENTMEMORY_URL"] + "/v1/agents/writer/events?limit=3"
with urllib.request.urlopen(urllib.request.Request(url, headers={"AgentMemory-Client": "test"}), timeout=15) as answer:
    print(json.dumps([event["content"] for event in json.load(answer)["events"]]))
"""


def sql(namespace: str, statement: str) -> list[str]:
    """What Postgres answers to its administrator, a row a line."""
    password = secret_of(namespace, "research-postgres-admin")["password"]
    return kubectl(
        "exec", "--namespace", namespace, "research-postgres-0", "--", "env", f"PGPASSWORD={password}",
        "psql", "-h", "/run/postgresql", "-U", "postgres", "-d", "agentmemory", "-XqtA", "-c", statement,
    ).splitlines()  # fmt: skip


def addresses(namespace: str, selector: str) -> set[str]:
    found = pods(namespace, selector)
    return {str(one["status"]["podIP"]) for one in found if not one["metadata"].get("deletionTimestamp")}


def clients_of_postgres(namespace: str) -> list[str]:
    """From where those who have a sidecar's login are connected; the operator looks in through the pooler as well."""
    login = secret_of(namespace, "research-credentials")["postgres-username"]
    return sql(namespace, f"SELECT host(client_addr) FROM pg_stat_activity WHERE usename = '{login}'")


def read(writer: Agent) -> list[str]:
    """What the agent's own sidecar answers of its past, which Postgres holds."""
    said = kubectl("exec", "--namespace", writer.namespace, writer.pod(), "-c", "agent", "--", "python3", "-c", _READ)
    return [str(one) for one in json.loads(said)]


def arrived(writer: Agent) -> int:
    """How many turns of the agent are in Postgres."""
    schema = Keys(writer.namespace, writer.memory).schema
    statement = f"SELECT count(*) FROM {schema}.memory_events WHERE agent_id = '{writer.agent}'"
    return int(sql(writer.namespace, statement)[0])


def test_agents_work_through_a_pooler_and_without_it_again(namespace: str) -> None:
    pooler = {"enabled": True, "instances": 2, "poolSize": POOL_SIZE}
    stores = memory_manifest(namespace)["spec"]["postgres"]
    apply(memory_manifest(namespace, postgres=stores | {"pooler": pooler}))
    settled(namespace)
    writers = [Agent(namespace, name, pause=0.15) for name in ("writer", "second")]
    for writer in writers:
        writer.start()
    for writer in writers:
        writer.wait_for_more(40)
    wait_for("turns to arrive in Postgres", lambda: all(arrived(writer) >= 40 for writer in writers))
    assert read(writers[0]) == ["turn 1", "turn 2", "turn 3"]
    connected = clients_of_postgres(namespace)
    assert set(connected) <= addresses(namespace, POOLER), "nobody goes past the pooler"
    assert 0 < len(connected) <= 2 * POOL_SIZE, "sidecars share its connections"
    assert all(not writer.failures for writer in writers), "transactions share connections, statements stay prepared"
    _rotate(namespace, writers)
    _take_away(namespace, writers)
    for writer in writers:
        writer.stop()
    assert all(verify(writer) > 50 for writer in writers)
    assert status_of(namespace)["consolidation"]["deadLetters"] == 0


def _rotate(namespace: str, writers: list[Agent]) -> None:
    """Both logins have to be known to the pooler as long as somebody uses the former one."""
    before = secret_of(namespace, "research-credentials")["postgres-username"]
    annotate(namespace, "rotate", "once")
    wait_for("the next login", lambda: secret_of(namespace, "research-credentials")["postgres-username"] != before)
    wait_for(
        "the former login to be dropped",
        lambda: not [key for key in secret_of(namespace, "research-credentials") if key.startswith("retired")],
    )
    assert status_of(namespace)["credentials"]["rotation"] == "once"
    assert sql(namespace, f"SELECT 1 FROM pg_roles WHERE rolname = '{before}'") == []
    for writer in writers:
        writer.wait_for_more(5)
    said = {writer: max(writer.acknowledged) for writer in writers}
    wait_for("what is said under the new login to arrive", lambda: all(arrived(one) >= said[one] for one in writers))
    settled(namespace)


def _take_away(namespace: str, writers: list[Agent]) -> None:
    """It stays until nobody goes through it any more: the agents notice nothing, and then only that they start anew."""
    edit(namespace, postgres={"pooler": {"enabled": False}})
    since = wait_for("the pooler to be marked", lambda: _retired_at(namespace))
    wait_for("the configuration without it", lambda: "research-pooler" not in _configuration(namespace))
    for writer in writers:
        writer.wait_for_more(5)
    assert not addresses(namespace, SIDECAR) & set(clients_of_postgres(namespace)), "those that run go through it"
    wait_for("new pods to be told of Postgres itself", lambda: datetime.now(UTC) > since + TOLD + timedelta(seconds=1))
    for writer in writers:
        kill_pod(namespace, writer.pod())
    for writer in writers:
        writer.wait_for_more(5)
    wait_for("the agents to reach Postgres themselves", lambda: _go_directly(namespace))
    nudge(namespace)
    wait_for(
        "what was made for the pooler to go",
        lambda: not kubectl_json("get", MADE, "--namespace", namespace, "--selector", POOLER)["items"],
    )
    settled(namespace)


def _configuration(namespace: str) -> str:
    config = get("configmap", namespace, "research-sidecar")
    assert config is not None
    return str(config["data"]["agentmemory.yaml"])


def _retired_at(namespace: str) -> datetime | None:
    deployment = get("deployment", namespace, "research-pooler") or {"metadata": {}}
    since = deployment["metadata"].get("annotations", {}).get(RETIRED_ANNOTATION)
    return since and datetime.fromisoformat(since)


def _go_directly(namespace: str) -> bool:
    agents = addresses(namespace, SIDECAR)
    return bool(agents) and agents <= set(clients_of_postgres(namespace))
