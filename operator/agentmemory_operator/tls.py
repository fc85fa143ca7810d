"""Certificates of one memory's stores: issued by the operator with an authority of the memory's own, or by cert-manager
when an issuer is named."""

from __future__ import annotations

from datetime import datetime, timedelta

from agentmemory_operator import certificates
from agentmemory_operator.certificates import Pair
from agentmemory_operator.errors import Blocked, Waiting
from agentmemory_operator.kube import CERTIFICATE, SECRET, Object
from agentmemory_operator.names import ROTATE_CERTIFICATES_ANNOTATION, child
from agentmemory_operator.objects import encode_secret, secret_data
from agentmemory_operator.resources import issuer
from agentmemory_operator.resources.common import meta
from agentmemory_operator.work import Work, stamp

RENEW_LEAF = timedelta(days=30)
ISSUED_ANNOTATION = "cert-manager.io/certificate-name"
"""What cert-manager leaves on a Secret that it wrote."""
RENEW_AUTHORITY = timedelta(days=365)


def service_hosts(name: str, namespace: str) -> list[str]:
    """Under which names a Service is reached."""
    return [name, f"{name}.{namespace}", f"{name}.{namespace}.svc", f"{name}.{namespace}.svc.cluster.local"]


async def ensure_certificate(work: Work, part: str) -> dict[str, str]:
    """`tls.crt`, `tls.key` and `ca.crt` of the Service <memory>-<part>; issued anew when due, or when asked for.

    Raises Waiting while cert-manager has not issued it.
    """
    if work.memory.spec.tls.issuer_ref is not None:
        data = await _from_issuer(work, part)
    else:
        data = await _from_ourselves(work, part)
    _note_expiry(work, data["tls.crt"])
    return data


async def _from_issuer(work: Work, part: str) -> dict[str, str]:
    for manifest in issuer.manifests(work.memory):
        if manifest["spec"]["secretName"] == child(work.memory.name, f"{part}-tls"):
            await work.objects.ensure(manifest)
    name = child(work.memory.name, f"{part}-tls")
    live = await work.kube.get(SECRET, work.memory.namespace, name)
    data = secret_data(live) if live else {}
    if not data.get("tls.crt") or not data.get("ca.crt"):
        issuer_ref = work.memory.spec.tls.issuer_ref
        assert issuer_ref is not None
        raise Waiting(
            "CertificatePending",
            f"cert-manager has not issued Secret {name} yet; see: kubectl describe certificate {name} "
            f"and {issuer_ref.kind} {issuer_ref.name}.",
        )
    return data


async def _from_ourselves(work: Work, part: str) -> dict[str, str]:
    now = work.clock()
    authority = await _authority(work, now)
    hosts = service_hosts(child(work.memory.name, part), work.memory.namespace)
    wanted = work.memory.annotations.get(ROTATE_CERTIFICATES_ANNOTATION, "")

    def fresh() -> dict[str, str]:
        leaf = certificates.issue(authority, hosts, now)
        return {"tls.crt": leaf.certificate, "tls.key": leaf.key, "ca.crt": authority.certificate}

    live = await work.objects.ensure_secret(
        _secret(work, f"{part}-tls", "kubernetes.io/tls", fresh(), {ROTATE_CERTIFICATES_ANNOTATION: wanted})
    )
    asked = wanted not in ("", _carried_out(live))
    issued = ISSUED_ANNOTATION in live["metadata"].get("annotations", {})
    if (asked or issued or not _is_good(secret_data(live), authority, hosts, now)) and not work.frozen:
        marks: dict[str, str | None] = {ROTATE_CERTIFICATES_ANNOTATION: wanted} if asked else {}
        if issued:
            # An issuer was named before: without this, cert-manager would go on writing here, too.
            await work.objects.remove(CERTIFICATE, live["metadata"]["name"])
            marks[ISSUED_ANNOTATION] = None
        live = await work.objects.change_secret(live, fresh(), marks)
        work.progress(f"a new certificate for {part}")
    if done := _carried_out(live):
        work.status.setdefault("credentials", {})["certificates"] = done
    return secret_data(live)


def _carried_out(secret: Object) -> str:
    """The value of the annotation for which this certificate was issued."""
    return str(secret["metadata"].get("annotations", {}).get(ROTATE_CERTIFICATES_ANNOTATION, ""))


def _is_good(data: dict[str, str], authority: Pair, hosts: list[str], now: datetime) -> bool:
    leaf = data.get("tls.crt", "")
    try:
        return (
            data.get("ca.crt") == authority.certificate
            and certificates.matches(Pair(leaf, data.get("tls.key", "")))
            and certificates.signed_by(leaf, authority.certificate)
            and certificates.covers(leaf, hosts)
            and not certificates.due(leaf, now, RENEW_LEAF)
        )
    except ValueError:
        return False


async def _authority(work: Work, now: datetime) -> Pair:
    """The memory's own authority. Renewed with the same key, so that certificates of before and after verify."""
    name = f"{work.memory.namespace}.{work.memory.name}"
    new = certificates.new_authority(name, now)
    live = await work.objects.ensure_secret(
        _secret(work, "ca", "kubernetes.io/tls", {"tls.crt": new.certificate, "tls.key": new.key})
    )
    data = secret_data(live)
    authority = Pair(data.get("tls.crt", ""), data.get("tls.key", ""))
    if not _is_pair(authority):
        raise Blocked(
            "SecretInvalid", f"Secret {live['metadata']['name']} is no authority: certificate and key are not a pair. "
            "Restore it from a backup, or delete it: it is made anew, and the stores start anew with it."
        )  # fmt: skip
    if work.frozen or not certificates.due(authority.certificate, now, RENEW_AUTHORITY):
        return authority
    renewed = certificates.renew_authority(authority, now)
    await work.objects.change_secret(live, {"tls.crt": renewed.certificate})
    return renewed


def _is_pair(authority: Pair) -> bool:
    try:
        return certificates.matches(authority)
    except ValueError:
        return False


def _secret(
    work: Work, part: str, kind: str, data: dict[str, str], annotations: dict[str, str] | None = None
) -> Object:
    metadata = meta(work.memory, child(work.memory.name, part), "certificates", owned=False)
    if annotations:
        metadata = metadata | {"annotations": annotations}
    return {"apiVersion": "v1", "kind": "Secret", "type": kind, "metadata": metadata, "data": encode_secret(data)}


def _note_expiry(work: Work, leaf: str) -> None:
    """Keep in the status when the first certificate expires."""
    expires = stamp(certificates.expires(leaf))
    noted = work.status.setdefault("credentials", {})
    noted["certificatesExpireAt"] = min(expires, noted.get("certificatesExpireAt", expires))
