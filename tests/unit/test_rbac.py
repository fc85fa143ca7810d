"""What the chart grants is what the code calls: not a verb more, not a verb less."""

from __future__ import annotations

import ast
from collections.abc import Iterator
from pathlib import Path

import yaml

from agentmemory_operator import kube
from agentmemory_operator.kube import Kind
from tools.chart_readme import CHART

CODE = Path(kube.__file__).parent
RULES = CHART / "files" / "rbac"
Right = tuple[str, str, str]

KINDS = {name: value for name, value in vars(kube).items() if isinstance(value, Kind)}
APPLIED = ("get", "create", "patch")
"""What a server-side apply that looks first needs: of an object that is not there, it is a creation."""
ENSURED = (
    kube.CERTIFICATE, kube.CONFIG_MAP, kube.DEPLOYMENT, kube.JOB, kube.NETWORK_POLICY, kube.POD_DISRUPTION_BUDGET,
    kube.SECRET, kube.SERVICE, kube.STATEFUL_SET,
)  # fmt: skip
"""Of what resources/ builds (a test below), and the Secrets."""
WATCHED = (kube.AGENT_MEMORY, kube.STATEFUL_SET, kube.DEPLOYMENT, kube.JOB, kube.POD)
"""By Kopf: listed first, then watched."""
NOT_CALLED = {
    # Clusters with OwnerReferencesPermissionEnforcement ask it of who names an owner.
    ("agentmemory.io", "agentmemories/finalizers", "update"),
}
_VERBS = {"get": "get", "list": "list", "patch": "patch", "delete": "delete", "remove": "delete"}


def right(kind: Kind, verb: str, part: str = "") -> Right:
    group = kind.api_version.rpartition("/")[0]
    return group, kind.plural + (f"/{part}" if part else ""), verb


def called(*modules: Path) -> Iterator[Right]:
    """The calls that name their kind: `kube.get(POD, …)`, `objects.remove(JOB, …)`."""
    for module in modules:
        tree = ast.parse(module.read_text())
        for node in ast.walk(tree):
            if isinstance(node, ast.For) and isinstance(node.iter, ast.Tuple):
                yield from _in_loop(node)
            if not (isinstance(node, ast.Call) and isinstance(node.func, ast.Attribute) and node.args):
                continue
            first = node.args[0]
            if node.func.attr in _VERBS and isinstance(first, ast.Name) and first.id in KINDS:
                part = node.args[4] if len(node.args) > 4 else None
                name = part.value if isinstance(part, ast.Constant) and isinstance(part.value, str) else ""
                yield right(KINDS[first.id], _VERBS[node.func.attr], name)
                if node.func.attr == "remove":
                    yield right(KINDS[first.id], "get")


def _in_loop(loop: ast.For) -> Iterator[Right]:
    """`for kind in (SERVICE, SECRET): objects.remove(kind, …)`"""
    assert isinstance(loop.iter, ast.Tuple)
    kinds = [KINDS[one.id] for one in loop.iter.elts if isinstance(one, ast.Name) and one.id in KINDS]
    for node in ast.walk(loop):
        if isinstance(node, ast.Call) and isinstance(node.func, ast.Attribute) and node.func.attr == "remove":
            yield from (right(kind, verb) for kind in kinds for verb in ("get", "delete"))


def granted(*files: str) -> set[Right]:
    rules = [rule for file in files for rule in yaml.safe_load((RULES / file).read_text())]
    return {
        (group, resource, verb)
        for rule in rules
        for group in rule["apiGroups"]
        for resource in rule["resources"]
        for verb in rule["verbs"]
    }


def needed() -> set[Right]:
    own = {CODE / "leader.py", CODE / "webhook.py"}
    rights = set(called(*(set(CODE.glob("*.py")) - own), *CODE.glob("providers/**/*.py")))
    rights |= {right(kind, verb) for kind in ENSURED for verb in APPLIED}
    rights |= {right(kind, verb) for kind in WATCHED for verb in ("list", "watch")}
    return rights | {right(kube.EVENT, "create")}


def test_the_operator_has_the_rights_that_it_uses() -> None:
    files = ("operator.yaml", "operator-cluster.yaml", "operator-all.yaml")
    assert needed() - granted(*files) == set(), "these are called and not granted"
    assert granted(*files) - needed() - NOT_CALLED == set(), "these are granted and not called"


def test_in_its_own_namespace_it_keeps_its_lease() -> None:
    rights = set(called(CODE / "leader.py")) | {right(kube.LEASE, "create")}
    assert granted("operator-own.yaml") == rights


def test_the_injector_reads_memories_and_nothing_else() -> None:
    assert granted("injector.yaml") == {right(kube.AGENT_MEMORY, verb) for verb in ("list", "watch")}


def test_everything_that_is_built_is_counted() -> None:
    built = set()
    for module in CODE.glob("resources/*.py"):
        for node in ast.walk(ast.parse(module.read_text())):
            if isinstance(node, ast.Dict):
                keys = [key.value if isinstance(key, ast.Constant) else None for key in node.keys]
                if "apiVersion" in keys and "kind" in keys:
                    kind = node.values[keys.index("kind")]
                    if isinstance(kind, ast.Constant):
                        built.add(str(kind.value))
    assert built <= {kind.name for kind in ENSURED}
    assert len(built) >= 8


def test_nothing_is_granted_by_a_star_and_secrets_are_never_listed() -> None:
    for path in RULES.glob("*.yaml"):
        assert "*" not in path.read_text()
    everything = granted(*(path.name for path in RULES.glob("*.yaml")))
    assert {verb for _, resource, verb in everything if resource == "secrets"} == {"get", "create", "patch", "delete"}
