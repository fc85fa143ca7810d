"""Secrets with logins: made once with random passwords, or read from where the resource says."""

from __future__ import annotations

import ssl
from secrets import token_urlsafe

from agentmemory_engine.redis import Credentials
from agentmemory_operator.errors import Blocked
from agentmemory_operator.kube import SECRET, Object
from agentmemory_operator.names import child
from agentmemory_operator.objects import encode_secret, secret_data
from agentmemory_operator.resources.common import meta
from agentmemory_operator.spec import KeyRef
from agentmemory_operator.work import Work


def new_password() -> str:
    """Safe in URLs, files and configuration alike."""
    return token_urlsafe(32)


async def ensure_admin(work: Work, store: str, username: str) -> Credentials:
    """The administrator of a managed store. Raises Blocked for a Secret that lacks a member."""
    name = child(work.memory.name, f"{store}-admin")
    data = {"username": username, "password": new_password()}
    live = await work.objects.ensure_secret(_login_secret(work, name, f"{store}-admin", data))
    return _login(name, secret_data(live))


async def ensure_credentials(work: Work) -> Object:
    """The logins of the sidecars: Secret <memory>-credentials."""
    data = {}
    for store in work.stores:
        data[f"{store}-username"] = f"{work.settings.keys.schema}_1"
        data[f"{store}-password"] = new_password()
    name = child(work.memory.name, "credentials")
    live = await work.objects.ensure_secret(_login_secret(work, name, "credentials", data))
    missing = [key for key in data if not secret_data(live).get(key)]
    if missing:
        raise Blocked(
            "SecretIncomplete",
            f"Secret {name} lacks {', '.join(missing)}. Restore it from a backup, or delete it: it is made anew.",
        )
    return live


async def read_external(work: Work, name: str, *, username: str | None = None) -> tuple[Credentials, str | None]:
    """The login in a Secret of the user's own, and the authority to trust. Raises Blocked."""
    live = await work.kube.get(SECRET, work.memory.namespace, name)
    if live is None:
        raise Blocked(
            "SecretMissing", f"Secret {name} is not in namespace {work.memory.namespace}; make it with username and "
            "password, and ca.crt where the store's certificate is signed by an authority of your own."
        )  # fmt: skip
    data = secret_data(live)
    ca = data.get("ca.crt") or None
    if ca is not None:
        _check_authority(name, ca)
    return _login(name, {"username": username or ""} | data), ca


async def tend_api_keys(work: Work) -> None:
    """See that the Secrets with the keys of the servers that sidecars ask are there. Raises Blocked.

    The sidecars mount them themselves: here they are neither kept nor copied.
    """
    spec = work.memory.spec
    await _tend_api_key(work, spec.embedding.secret_ref, "provider of embeddings")
    if spec.distillation is not None:
        await _tend_api_key(work, spec.distillation.secret_ref, "server of spec.distillation")


async def _tend_api_key(work: Work, reference: KeyRef | None, whose: str) -> None:
    if reference is None:
        return
    live = await work.kube.get(SECRET, work.memory.namespace, reference.name)
    if live is None:
        raise Blocked(
            "SecretMissing",
            f"Secret {reference.name} is not in namespace {work.memory.namespace}; make it, with the API key of the "
            f"{whose} under {reference.key}.",
        )
    if not secret_data(live).get(reference.key, "").strip("\r\n"):
        raise Blocked("SecretIncomplete", f"Secret {reference.name} lacks {reference.key}: the API key of the {whose}.")


def _check_authority(name: str, ca: str) -> None:
    """Raises Blocked for what nobody could trust: the sidecars are given it as it is."""
    try:
        ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT).load_verify_locations(cadata=ca)
    except (OSError, TypeError, ValueError):
        raise Blocked(
            "SecretInvalid", f"ca.crt in Secret {name} is not certificates in PEM, with nothing but ASCII around them."
        ) from None


def _login(name: str, data: dict[str, str]) -> Credentials:
    # A file made with `echo` ends in a newline, which no login has.
    values = {key: data.get(key, "").strip("\r\n") for key in ("username", "password")}
    missing = [key for key, value in values.items() if not value]
    if missing:
        raise Blocked("SecretIncomplete", f"Secret {name} lacks {' and '.join(missing)}.")
    # They are sent to whatever the resource names, which may speak another protocol, line by line.
    if wrong := [key for key, value in values.items() if not value.isprintable()]:
        raise Blocked("SecretInvalid", f"In Secret {name}, {' and '.join(wrong)} has characters that no login has.")
    return Credentials(values["username"], values["password"])


def _login_secret(work: Work, name: str, component: str, data: dict[str, str]) -> Object:
    metadata = meta(work.memory, name, component, owned=False)
    return {"apiVersion": "v1", "kind": "Secret", "type": "Opaque", "metadata": metadata, "data": encode_secret(data)}
