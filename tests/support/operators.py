"""The operator against the API server in memory and real stores, which it finds behind TLS as an external pair."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from typing import Any

from agentmemory.local.stores import LocalStores
from agentmemory_operator.config import Config
from agentmemory_operator.controller import Controller, Key
from agentmemory_operator.kube import AGENT_MEMORY, SECRET, Object
from agentmemory_operator.metrics import Metrics
from agentmemory_operator.names import API_VERSION, KIND
from agentmemory_operator.objects import encode_secret, secret_data
from support.certificates import Authority
from support.fake_kube import FakeKube
from support.tls_front import HOST, Front

NAMESPACE = "team"
CONFIG = Config(namespace="system", pod="operator-0", sidecar_image="sidecar:1", rotation_grace=60.0)


class Clock:
    """Time that passes when it is told to."""

    def __init__(self) -> None:
        self.now = datetime.now(UTC)

    def __call__(self) -> datetime:
        return self.now

    def pass_by(self, seconds: float) -> None:
        self.now += timedelta(seconds=seconds)


class Operated:
    """One AgentMemory with external stores, and a controller for it."""

    def __init__(
        self, name: str, stores: LocalStores, redis: Front, postgres: Front, authority: Authority, *,
        mode: str = "Hybrid",
    ) -> None:  # fmt: skip
        self.kube = FakeKube()
        self.clock = Clock()
        self.key: Key = (NAMESPACE, name)
        self._put_secret("redis", stores.redis_admin_user, stores.redis_admin_password, authority.pem)
        self._put_secret("postgres", "postgres", stores.postgres_admin_password, authority.pem)
        external: Object = {
            "redis": {"external": {"host": HOST, "port": redis.port, "tls": True, "secretRef": {"name": "redis"}}},
            "postgres": {"external": {"host": HOST, "port": postgres.port, "database": "agentmemory",
                                      "sslMode": "verify-full", "secretRef": {"name": "postgres"}}},
        }  # fmt: skip
        self.external = external
        """Both stores, as a spec names them."""
        self.put(
            {
                "apiVersion": API_VERSION, "kind": KIND,
                "metadata": {"name": name, "namespace": NAMESPACE, "uid": f"uid-of-{name}", "generation": 1,
                             "annotations": {}},
                "spec": {"shards": 4, "embedding": {"provider": "None"}} | self.in_mode(mode),
            }
        )  # fmt: skip
        self.controller = self.new_controller()

    def in_mode(self, mode: str) -> Object:
        """What a spec says in this mode."""
        unused = {"Redis": "postgres", "Postgres": "redis"}.get(mode)
        return {"mode": mode} | {store: place for store, place in self.external.items() if store != unused}

    def new_controller(self) -> Controller:
        """As after a restart: it remembers nothing."""
        self.controller = Controller(self.kube, CONFIG, Metrics(), clock=self.clock)
        return self.controller

    async def settle(self, looks: int = 12) -> None:
        """Reconcile until nothing is written any more."""
        for _ in range(looks):
            before = self.kube.writes
            await self.controller.reconcile_once(self.key)
            if self.kube.writes == before:
                return
        raise AssertionError(f"not settled after {looks} looks: {self.kube.calls[-20:]}")

    @property
    def body(self) -> Object:
        return self.kube.objects[AGENT_MEMORY.name, *self.key]

    @property
    def conditions(self) -> dict[str, tuple[str, str]]:
        """Status and reason by type."""
        return {one["type"]: (one["status"], one["reason"]) for one in self.body["status"]["conditions"]}

    def message(self, kind: str) -> str:
        return next(str(one["message"]) for one in self.body["status"]["conditions"] if one["type"] == kind)

    def annotate(self, name: str, value: str) -> None:
        self.body["metadata"]["annotations"][name] = value

    def edit(self, **spec: Any) -> None:
        """Change the spec, as a person does."""
        self.body["spec"] |= spec
        self.body["metadata"]["generation"] += 1

    def secret(self, name: str) -> dict[str, str]:
        return secret_data(self.kube.objects[SECRET.name, NAMESPACE, name])

    def put(self, thing: Object) -> None:
        """An object of somebody else's making."""
        metadata = thing["metadata"]
        metadata |= {"uid": metadata.get("uid", f"uid-of-{metadata['name']}"), "resourceVersion": "0"}
        metadata.setdefault("generation", 1)
        self.kube.objects[thing["kind"], metadata["namespace"], metadata["name"]] = thing

    def _put_secret(self, name: str, username: str, password: str, authority: str) -> None:
        data = encode_secret({"username": username, "password": password, "ca.crt": authority})
        metadata = {"name": name, "namespace": NAMESPACE}
        self.put({"apiVersion": "v1", "kind": "Secret", "metadata": metadata, "data": data})
