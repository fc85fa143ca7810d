"""compose.yaml: by the schema of the Compose specification, and by what is promised of it."""

from __future__ import annotations

import os
import re
import stat
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import yaml

from agentmemory_sidecar.resource import read_resource

ROOT = Path(__file__).parents[2]
FILE = ROOT / "compose.yaml"
COMPOSE: dict[str, Any] = yaml.safe_load(FILE.read_text())
SERVICES: dict[str, dict[str, Any]] = COMPOSE["services"]
REQUIRED = re.compile(r"\$\{(\w+):\?([^}]+)}")
ONE_SHOT = {"migrate"}


def test_it_is_what_the_compose_specification_says() -> None:
    command = [sys.executable, "-m", "check_jsonschema", "--builtin-schema", "vendor.compose-spec", str(FILE)]
    done = subprocess.run(command, capture_output=True, text=True)
    assert done.returncode == 0, done.stdout + done.stderr


def test_the_services_are_those_that_a_memory_needs() -> None:
    assert list(SERVICES) == ["redis", "postgres", "migrate", "pgbouncer", "sidecar", "agent"]
    # Without a profile it is the memory alone.
    assert [name for name, service in SERVICES.items() if "profiles" in service] == ["agent"]


@pytest.mark.parametrize("name", SERVICES)
def test_a_service_is_hardened(name: str) -> None:
    service = SERVICES[name]
    assert service["read_only"] is True
    assert service["cap_drop"] == ["ALL"] and "cap_add" not in service and "privileged" not in service
    assert service["security_opt"] == ["no-new-privileges:true"]
    user = service.get("user", "65532:65532")  # that of the sidecar's image
    assert re.fullmatch(r"[1-9]\d*:[1-9]\d*", user)
    assert name == "sidecar" or name == "migrate" or "user" in service


@pytest.mark.parametrize("name", SERVICES)
def test_an_image_is_pinned(name: str) -> None:
    repository, _, tag = SERVICES[name]["image"].rpartition(":")
    assert repository and re.search(r"\d+\.\d+", tag), tag


@pytest.mark.parametrize("name", SERVICES)
def test_a_service_says_whether_it_is_well_and_waits_for_what_it_needs(name: str) -> None:
    service = SERVICES[name]
    assert ("healthcheck" in service) == (name not in ONE_SHOT)
    assert (service["restart"] == "no") == (name in ONE_SHOT)
    for needed, how in service.get("depends_on", {}).items():
        wanted = "service_completed_successfully" if needed in ONE_SHOT else "service_healthy"
        assert how["condition"] == wanted, needed


def test_the_order_is_stores_schema_pooler_sidecar_agent() -> None:
    needs = {name: set(service.get("depends_on", {})) for name, service in SERVICES.items()}
    assert needs["migrate"] == {"redis", "postgres"}
    assert needs["pgbouncer"] >= {"migrate"} and needs["sidecar"] >= {"redis", "pgbouncer", "migrate"}
    assert needs["agent"] == {"sidecar"}


def test_nothing_can_be_reached_from_outside() -> None:
    assert not any("ports" in service for service in SERVICES.values())
    assert SERVICES["agent"]["network_mode"] == "service:sidecar" and "networks" not in SERVICES["agent"]
    assert COMPOSE["networks"]["stores"]["internal"] is True
    assert all(SERVICES[name]["networks"] == ["stores"] for name in ("redis", "postgres", "pgbouncer"))
    # The API is on loopback whatever is said here; its own port is the default of an agent.
    assert SERVICES["agent"]["environment"] == {"AGENTMEMORY_URL": "http://127.0.0.1:7070"}


def test_there_is_no_password_in_it_and_none_by_default() -> None:
    for name, secret in COMPOSE["secrets"].items():
        (variable, message), *more = REQUIRED.findall(secret["file"])
        assert variable == "AGENTMEMORY_SECRETS" and "make secrets" in message and not more
        assert secret["file"].endswith("/" + name)
    for service in SERVICES.values():
        for variable, value in service.get("environment", {}).items():
            assert "PASSWORD" not in variable or value.startswith("/run/secrets/"), variable
            assert "@" not in value
    assert "\nsecrets:" in (ROOT / "Makefile").read_text()


def test_only_who_makes_logins_gets_the_administrators() -> None:
    holders = {name: service.get("secrets", []) for name, service in SERVICES.items()}
    assert {name for name, held in holders.items() if held} == {"redis", "postgres", "migrate"}
    assert holders["migrate"] == ["redis-password", "postgres-password"]
    # The others read the login that it made.
    assert all(
        SERVICES[name]["volumes"] == ["credentials:/var/lib/agentmemory:ro"] for name in ("pgbouncer", "sidecar")
    )


def test_whatever_is_mounted_is_there() -> None:
    for config in COMPOSE["configs"].values():
        assert (ROOT / config["file"]).is_file()
    named = {volume.partition(":")[0] for service in SERVICES.values() for volume in service.get("volumes", [])}
    assert named == set(COMPOSE["volumes"])
    assert "chown 65532:65532 /var/lib/agentmemory" in (ROOT / "Dockerfile.sidecar").read_text()


def test_the_memory_is_one_that_a_sidecar_serves() -> None:
    resource = read_resource(ROOT / COMPOSE["configs"]["memory"]["file"])
    assert resource.spec.mode == "Hybrid" and resource.spec.embedding.provider == "Local"
    pooler = (ROOT / "compose" / "pgbouncer.ini").read_text()
    assert "pool_mode = transaction" in pooler and "max_prepared_statements = 200" in pooler


def test_the_agent_is_the_one_of_the_example_for_kubernetes() -> None:
    config_map = next(yaml.safe_load_all((ROOT / "examples" / "agent.yaml").read_text()))
    assert config_map["data"]["agent.py"] == (ROOT / "examples" / "agent.py").read_text()


def make_secrets(directory: Path) -> str:
    command = ["sh", str(ROOT / "compose" / "secrets.sh")]
    return subprocess.run(command, cwd=directory, check=True, capture_output=True, text=True).stdout


def test_passwords_are_made_once(tmp_path: Path) -> None:
    assert make_secrets(tmp_path).count("made") == 2
    folder = tmp_path / ".secrets"
    assert stat.S_IMODE(folder.stat().st_mode) == 0o700
    passwords = {}
    for name in COMPOSE["secrets"]:
        assert stat.S_IMODE((folder / name).stat().st_mode) == 0o444
        passwords[name] = (folder / name).read_text()
        assert re.fullmatch(r"[0-9a-f]{64}", passwords[name])
    assert len(set(passwords.values())) == 2
    assert (tmp_path / ".env").read_text() == "AGENTMEMORY_SECRETS=./.secrets\n"
    (tmp_path / ".env").write_text("OTHER=1\nAGENTMEMORY_SECRETS=/elsewhere\n")
    assert make_secrets(tmp_path) == ""
    assert passwords == {name: (folder / name).read_text() for name in passwords}
    assert (tmp_path / ".env").read_text() == "OTHER=1\nAGENTMEMORY_SECRETS=/elsewhere\n"
    assert sorted(os.listdir(folder)) == ["postgres-password", "redis-password"]


def test_passwords_are_not_committed() -> None:
    ignored = (ROOT / ".gitignore").read_text().split()
    assert ".secrets/" in ignored and ".env" in ignored
