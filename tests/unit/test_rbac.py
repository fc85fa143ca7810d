"""The rights that the chart grants are the ones that the code needs: what it calls is read from its source."""

from __future__ import annotations

import ast
from collections.abc import Iterator
from pathlib import Path
from typing import Any, NamedTuple

import pytest
import yaml

from agentmemory_operator import handlers, kube
from agentmemory_operator.kube import NAMESPACE, SECRET, WEBHOOK_CONFIGURATION, Kind, kind_of
from agentmemory_operator.names import GROUP, PLURAL
from agentmemory_operator.resources import config, issuer
from support.resources import POSTGRES, everything, memory

ROOT = Path(__file__).parents[2]
RULES = ROOT / "helm" / "agentmemory" / "files" / "rbac"
SOURCE = ROOT / "operator" / "agentmemory_operator"
KINDS = {name: value for name, value in vars(kube).items() if isinstance(value, Kind)}
VERBS = {
    "get": {"get"}, "list": {"list"}, "create": {"create"}, "apply": {"create", "patch"}, "patch": {"patch"},
    "delete": {"delete"},
}  # fmt: skip
"""What the methods of Kube ask of the API server; server-side apply makes what is not there."""
OWN = {"leader.py", "webhook.py"}
"""The modules that work in the operator's namespace; the others work where AgentMemories are."""
FILES = {
    "where memories are": ["operator.yaml"], "all namespaces": ["operator-all.yaml"],
    "own namespace": ["operator-own.yaml", "webhook-own.yaml"],
    "cluster": ["operator-cluster.yaml", "webhook-cluster.yaml"], "injector": ["injector.yaml"],
}  # fmt: skip


class Right(NamedTuple):
    """A verb on a resource, and where."""

    area: str
    group: str
    resource: str
    verb: str


UNCALLED = {
    # Where the admission plugin OwnerReferencesPermissionEnforcement is on, as on OpenShift, only who may change the
    # finalizers of the owner may write an owner reference that blocks its deletion.
    Right("where memories are", GROUP, f"{PLURAL}/finalizers", "update"),
}
UNNEEDED = {
    # The chart makes the configuration, and the operator reads it before it applies: it never makes it.
    Right("cluster", "admissionregistration.k8s.io", WEBHOOK_CONFIGURATION.plural, "create"),
}


def rules(area: str) -> list[dict[str, Any]]:
    return [rule for file in FILES[area] for rule in yaml.safe_load((RULES / file).read_text())]


def granted() -> set[Right]:
    return {
        Right(area, group, resource, verb)
        for area in FILES
        for rule in rules(area)
        for group in rule["apiGroups"]
        for resource in rule["resources"]
        for verb in rule["verbs"]
    }


def built() -> set[Kind]:
    """The kinds of all that the builders in resources/ make."""
    own = memory(postgres={"managed": {}, "pooler": {"enabled": True}}, tls={"issuerRef": {"name": "ours"}})
    address = config.manifest(own, redis=POSTGRES, postgres=POSTGRES, redis_ca=None, postgres_ca=None)
    return {kind_of(one) for one in (*everything(own), address, *issuer.manifests(own))}


BUILT = built()


class Module:
    """A module's calls of the API, by way of Kube or of Objects."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self._tree = ast.parse(path.read_text())

    def rights(self) -> Iterator[Right]:
        for call in self._calls():
            assert isinstance(call.func, ast.Attribute)
            verbs = VERBS if ast.unparse(call.func.value).endswith("kube") else OBJECTS
            for kind in self._kinds(call, call.func.attr):
                for verb in verbs[call.func.attr]:
                    yield right(self._area(kind, verb), kind, verb, _part(call))

    def _calls(self) -> Iterator[ast.Call]:
        for node in ast.walk(self._tree):
            if isinstance(node, ast.Call) and isinstance(node.func, ast.Attribute):
                receiver = ast.unparse(node.func.value).rpartition(".")[2]
                if receiver.lstrip("_") in ("kube", "objects"):
                    yield node

    def _area(self, kind: Kind, verb: str) -> str:
        if kind == NAMESPACE:
            # One's own namespace is readable with a Role in it; a list of them is of the whole cluster.
            return "where memories are" if verb == "get" else "all namespaces"
        if not kind.namespaced:
            return "cluster"
        return "own namespace" if self.path.name in OWN else "where memories are"

    def _kinds(self, call: ast.Call, method: str) -> set[Kind]:
        if method in ("ensure_secret", "change_secret"):
            return {SECRET}
        if method == "ensure":
            return BUILT
        if method in ("create", "apply"):
            return self._written()
        return self._named(call.args[0])

    def _named(self, node: ast.expr) -> set[Kind]:
        """The kinds that a constant stands for, or that a loop goes through."""
        assert isinstance(node, ast.Name), f"{self.path.name}:{node.lineno}: which kind is {ast.unparse(node)}?"
        if node.id in KINDS:
            return {KINDS[node.id]}
        for loop in ast.walk(self._tree):
            if isinstance(loop, ast.For) and ast.unparse(loop.target) == node.id:
                assert isinstance(loop.iter, ast.Tuple)
                return set().union(*map(self._named, loop.iter.elts))
        raise AssertionError(f"{self.path.name}:{node.lineno}: which kind is {node.id}?")

    def _written(self) -> set[Kind]:
        """The kinds of the manifests that stand in the module."""
        found = set()
        for node in ast.walk(self._tree):
            if isinstance(node, ast.Dict):
                members = {ast.unparse(key): value for key, value in zip(node.keys, node.values, strict=True) if key}
                pair = (members.get("'apiVersion'"), members.get("'kind'"))
                if isinstance(pair[0], ast.Attribute) and pair[0].attr == "api_version":
                    found |= self._named(pair[0].value)
                elif isinstance(pair[0], ast.Constant) and isinstance(pair[1], ast.Constant):
                    found.add(kind_of({"apiVersion": pair[0].value, "kind": pair[1].value}))
        assert found, f"{self.path.name}: which kind is it that is made?"
        return found


def _part(call: ast.Call) -> str:
    """The subresource that a patch is of."""
    given = [*call.args[4:5], *(one.value for one in call.keywords if one.arg == "part")]
    return "".join(f"/{ast.literal_eval(one)}" for one in given)


def right(area: str, kind: Kind, verb: str, part: str = "") -> Right:
    return Right(area, kind.api_version.rpartition("/")[0], kind.plural + part, verb)


def methods_of_objects() -> dict[str, set[str]]:
    """What each method of Objects asks of the API server, itself or by another method."""
    tree = ast.parse((SOURCE / "objects.py").read_text())
    (whole,) = (one for one in tree.body if isinstance(one, ast.ClassDef) and one.name == "Objects")
    bodies = {one.name: one for one in whole.body if isinstance(one, ast.AsyncFunctionDef)}

    def asks(name: str) -> set[str]:
        said = [node for node in ast.walk(bodies[name]) if isinstance(node, ast.Attribute)]
        direct = [VERBS[node.attr] for node in said if ast.unparse(node.value) == "self._kube"]
        others = [asks(node.attr) for node in said if ast.unparse(node.value) == "self" and node.attr in bodies]
        return set().union(*direct, *others)

    return {name: asks(name) for name in bodies}


OBJECTS = methods_of_objects()
MODULES = [
    Module(path) for path in sorted(SOURCE.rglob("*.py"))
    if "injector" not in path.parts and path.name not in ("objects.py", "kube.py")
]  # fmt: skip


def watched() -> Iterator[Right]:
    """Kopf lists what it watches."""
    for handler in handlers.make_registry(lambda _: None)._watching.get_all_handlers():
        assert handler.selector is not None
        for verb in ("list", "watch"):
            yield Right(
                "where memories are", str(handler.selector.group), str(handler.selector.any_name
                or handler.selector.plural), verb,
            )  # fmt: skip


def injected() -> Iterator[Right]:
    """The injector asks by `ApiReader` alone, and of one kind."""
    tree = ast.parse((SOURCE / "injector" / "api.py").read_text())
    (reader,) = (one for one in tree.body if isinstance(one, ast.ClassDef) and one.name == "ApiReader")
    for node in ast.walk(reader):
        if isinstance(node, ast.Name) and node.id in KINDS:
            for method in reader.body:
                if isinstance(method, ast.AsyncFunctionDef) and not method.name.startswith("_"):
                    yield right("injector", KINDS[node.id], method.name)


def needed() -> set[Right]:
    called = {one for module in MODULES for one in module.rights()}
    return (called | set(watched()) | set(injected())) - UNNEEDED | UNCALLED


def test_nothing_that_is_called_is_refused() -> None:
    assert needed() - granted() == set()


def test_nothing_is_granted_that_is_not_called() -> None:
    assert granted() - needed() == set()


def test_the_exceptions_are_exceptions() -> None:
    called = {one for module in MODULES for one in module.rights()}
    assert called >= UNNEEDED
    assert called.isdisjoint(UNCALLED)


def test_every_builder_is_counted() -> None:
    """A kind that a builder names is among those of its manifests."""
    named = set()
    for path in (SOURCE / "resources").glob("*.py"):
        for node in ast.walk(ast.parse(path.read_text())):
            if isinstance(node, ast.Dict):
                kinds = (v for k, v in zip(node.keys, node.values, strict=True) if k and ast.unparse(k) == "'kind'")
                named |= {kind.value for kind in kinds if isinstance(kind, ast.Constant)}
    assert named - {"Issuer"} <= {kind.name for kind in BUILT}


@pytest.mark.parametrize("area", FILES)
def test_no_rule_has_an_asterisk(area: str) -> None:
    for rule in rules(area):
        assert "*" not in (*rule["apiGroups"], *rule["resources"], *rule["verbs"])


def test_secrets_are_never_listed() -> None:
    verbs = {one.verb for one in granted() if one.resource == SECRET.plural}
    assert verbs.isdisjoint({"list", "watch", "deletecollection"})


@pytest.mark.parametrize("file", ["operator-own.yaml", "webhook-own.yaml", "webhook-cluster.yaml"])
def test_what_is_the_operators_own_is_its_own_by_name(file: str) -> None:
    """Only making an object cannot be bound to a name."""
    for rule in yaml.safe_load((RULES / file).read_text()):
        assert rule["verbs"] == ["create"] or rule.get("resourceNames")
