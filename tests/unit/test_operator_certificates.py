"""Certificates: what an authority and a server's certificate say, and real handshakes before and after a renewal."""

from __future__ import annotations

import ssl
import tempfile
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest
from cryptography import x509
from cryptography.x509.oid import ExtendedKeyUsageOID
from hypothesis import given, settings
from hypothesis import strategies as st

from agentmemory_operator.certificates import (
    AUTHORITY_LIFETIME,
    LEAF_LIFETIME,
    Pair,
    covers,
    due,
    expires,
    fingerprint,
    issue,
    matches,
    new_authority,
    renew_authority,
    signed_by,
)

NOW = datetime(2026, 11, 24, 12, 0, tzinfo=UTC)
HOSTS = ["n-redis", "n-redis.team", "n-redis.team.svc", "n-redis.team.svc.cluster.local"]
AUTHORITY = new_authority("team.n", NOW)
LEAF = issue(AUTHORITY, HOSTS, NOW)
GARBAGE = ["", "no certificate", "-----BEGIN CERTIFICATE-----\nAAAA\n-----END CERTIFICATE-----\n"]


def parsed(pair: Pair) -> x509.Certificate:
    return x509.load_pem_x509_certificate(pair.certificate.encode())


def test_an_authority_signs_and_nothing_else() -> None:
    certificate = parsed(AUTHORITY)
    assert certificate.subject == certificate.issuer
    assert certificate.not_valid_before_utc == NOW - timedelta(hours=1)
    assert certificate.not_valid_after_utc == NOW + AUTHORITY_LIFETIME
    constraints = certificate.extensions.get_extension_for_class(x509.BasicConstraints)
    assert constraints.critical and constraints.value == x509.BasicConstraints(ca=True, path_length=0)
    usage = certificate.extensions.get_extension_for_class(x509.KeyUsage)
    assert usage.critical and usage.value.key_cert_sign and not usage.value.digital_signature
    assert signed_by(AUTHORITY.certificate, AUTHORITY.certificate)


def test_a_leaf_serves_its_hosts_and_signs_nothing() -> None:
    certificate = parsed(LEAF)
    assert certificate.not_valid_before_utc == NOW - timedelta(hours=1)
    assert expires(LEAF.certificate) == NOW + LEAF_LIFETIME
    extensions = certificate.extensions
    assert extensions.get_extension_for_class(x509.BasicConstraints).value.ca is False
    assert list(extensions.get_extension_for_class(x509.ExtendedKeyUsage).value) == [ExtendedKeyUsageOID.SERVER_AUTH]
    names = extensions.get_extension_for_class(x509.SubjectAlternativeName).value
    assert names.get_values_for_type(x509.DNSName) == HOSTS
    identifier = parsed(AUTHORITY).extensions.get_extension_for_class(x509.SubjectKeyIdentifier).value
    named = extensions.get_extension_for_class(x509.AuthorityKeyIdentifier).value
    assert named.key_identifier == identifier.digest
    # An issuer and serial number would tie the leaf to one renewal of its authority.
    assert named.authority_cert_issuer is None and named.authority_cert_serial_number is None


def test_a_renewed_authority_is_the_same_with_another_number() -> None:
    renewed = renew_authority(AUTHORITY, NOW + timedelta(days=3300))
    before, after = parsed(AUTHORITY), parsed(renewed)
    assert after.subject == before.subject and after.public_key() == before.public_key()
    identifiers = [one.extensions.get_extension_for_class(x509.SubjectKeyIdentifier).value for one in (before, after)]
    assert identifiers[0] == identifiers[1]
    assert after.serial_number != before.serial_number
    assert after.not_valid_after_utc == NOW + timedelta(days=3300) + AUTHORITY_LIFETIME
    assert matches(Pair(AUTHORITY.certificate, renewed.key))


def test_a_leaf_never_outlives_its_authority() -> None:
    late = issue(AUTHORITY, HOSTS, NOW + AUTHORITY_LIFETIME - timedelta(days=2))
    assert expires(late.certificate) == expires(AUTHORITY.certificate)


def test_each_issue_has_a_key_and_a_number_of_its_own() -> None:
    other = issue(AUTHORITY, HOSTS, NOW)
    assert parsed(other).serial_number != parsed(LEAF).serial_number
    assert parsed(other).public_key() != parsed(LEAF).public_key()
    assert fingerprint(other.certificate) != fingerprint(LEAF.certificate)
    assert matches(LEAF) and matches(other)
    assert not matches(Pair(LEAF.certificate, other.key))


@pytest.mark.parametrize(
    ("after", "within", "expected"),
    [
        (timedelta(0), timedelta(days=30), False),
        (timedelta(days=59, hours=23), timedelta(days=30), False),
        (timedelta(days=60), timedelta(days=30), True),
        (timedelta(days=90), timedelta(0), True),
        (timedelta(days=400), timedelta(days=30), True),
        (timedelta(minutes=-59), timedelta(days=30), False),
        (timedelta(minutes=-61), timedelta(days=30), True),  # issued by a clock that was ahead: nobody accepts it yet
    ],
)
def test_it_is_due_near_its_end_and_before_its_beginning(after: timedelta, within: timedelta, expected: bool) -> None:
    assert due(LEAF.certificate, NOW + after, within) is expected


def test_it_covers_its_hosts_and_no_others() -> None:
    assert covers(LEAF.certificate, HOSTS)
    assert covers(LEAF.certificate, HOSTS[1:2])
    assert not covers(LEAF.certificate, [*HOSTS, "n-postgres"])
    assert not covers(AUTHORITY.certificate, HOSTS)


def test_it_was_signed_by_its_authority_in_any_renewal_and_by_no_other() -> None:
    renewed = renew_authority(AUTHORITY, NOW + timedelta(days=30))
    assert signed_by(LEAF.certificate, AUTHORITY.certificate)
    assert signed_by(LEAF.certificate, renewed.certificate)
    assert signed_by(issue(renewed, HOSTS, NOW).certificate, AUTHORITY.certificate)
    namesake = new_authority("team.n", NOW)
    assert not signed_by(LEAF.certificate, namesake.certificate)
    assert not signed_by(LEAF.certificate, LEAF.certificate)
    assert not signed_by(AUTHORITY.certificate, LEAF.certificate)


@pytest.mark.parametrize("pem", GARBAGE)
def test_what_is_no_certificate_is_a_value_error(pem: str) -> None:
    for read in (expires, fingerprint):
        with pytest.raises(ValueError):
            read(pem)
    with pytest.raises(ValueError):
        due(pem, NOW, timedelta(0))
    with pytest.raises(ValueError):
        covers(pem, HOSTS)
    with pytest.raises(ValueError):
        signed_by(pem, AUTHORITY.certificate)
    with pytest.raises(ValueError):
        signed_by(LEAF.certificate, pem)
    with pytest.raises(ValueError):
        issue(Pair(pem, AUTHORITY.key), HOSTS, NOW)
    with pytest.raises(ValueError):
        issue(Pair(AUTHORITY.certificate, pem), HOSTS, NOW)


def test_no_host_is_a_value_error() -> None:
    with pytest.raises(ValueError):
        issue(AUTHORITY, [], NOW)


def test_a_private_key_never_shows() -> None:
    assert "PRIVATE" in LEAF.key
    last_line = LEAF.key.splitlines()[-2]
    assert "PRIVATE" not in repr(LEAF) and last_line not in repr(LEAF)


@settings(max_examples=25)
@given(st.text(min_size=1, max_size=120).filter(lambda name: name.isprintable()))
def test_any_name_makes_an_authority(name: str) -> None:
    authority = new_authority(name, NOW)
    assert signed_by(issue(authority, HOSTS, NOW).certificate, authority.certificate)


@settings(max_examples=25)
@given(st.lists(st.from_regex(r"[a-z0-9]([-a-z0-9]{0,61}[a-z0-9])?", fullmatch=True), min_size=1, max_size=5))
def test_any_labels_are_covered(hosts: list[str]) -> None:
    assert covers(issue(AUTHORITY, hosts, NOW).certificate, hosts)


def handshake(leaf: Pair, trusted: str, host: str) -> str:
    """A TLS handshake between OpenSSL and itself, in memory; answers the fingerprint of what the server showed."""
    server_context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    with tempfile.TemporaryDirectory() as folder:
        certificate, key = Path(folder, "tls.crt"), Path(folder, "tls.key")
        certificate.write_text(leaf.certificate)
        key.write_text(leaf.key)
        server_context.load_cert_chain(certificate, key)
    client_context = ssl.create_default_context(cadata=trusted)
    client_context.verify_flags |= ssl.VERIFY_X509_STRICT
    to_server, to_client = ssl.MemoryBIO(), ssl.MemoryBIO()
    client = client_context.wrap_bio(to_client, to_server, server_hostname=host)
    server = server_context.wrap_bio(to_server, to_client, server_side=True)
    for _ in range(4):
        for side in (client, server):
            try:
                side.do_handshake()
            except ssl.SSLWantReadError:
                continue
    shown = client.getpeercert(binary_form=True)
    assert shown is not None
    return fingerprint(ssl.DER_cert_to_PEM_cert(shown))


def current() -> tuple[Pair, Pair, Pair, Pair]:
    """An authority as it was and as it is, and a leaf of each, valid by the clock of OpenSSL: the real one."""
    now = datetime.now(UTC)
    old = new_authority("team.n", now - timedelta(days=30))
    new = renew_authority(old, now)
    return old, new, issue(old, HOSTS, now - timedelta(days=30)), issue(new, HOSTS, now)


@pytest.mark.parametrize("host", HOSTS)
def test_clients_verify_leaves_of_before_and_after_a_renewal(host: str) -> None:
    old, new, old_leaf, new_leaf = current()
    for trusted in (old, new):
        for leaf in (old_leaf, new_leaf):
            assert handshake(leaf, trusted.certificate, host) == fingerprint(leaf.certificate)


def test_clients_refuse_another_host_another_authority_and_an_expired_leaf() -> None:
    old, new, _, leaf = current()
    now = datetime.now(UTC)
    for pair, trusted, host, said in (
        (leaf, new, "n-postgres", "Hostname mismatch"),
        (leaf, new_authority("team.n", now), HOSTS[0], "unable to get local issuer|signature failure"),
        (issue(old, HOSTS, now - timedelta(days=91)), new, HOSTS[0], "expired"),
    ):
        with pytest.raises(ssl.SSLCertVerificationError, match=said):
            handshake(pair, trusted.certificate, host)


def test_an_expired_authority_that_was_renewed_still_verifies() -> None:
    now = datetime.now(UTC)
    old = new_authority("team.n", now - AUTHORITY_LIFETIME - timedelta(days=1))
    new = renew_authority(old, now)
    leaf = issue(new, HOSTS, now)
    assert handshake(leaf, new.certificate, HOSTS[0]) == fingerprint(leaf.certificate)
    with pytest.raises(ssl.SSLCertVerificationError, match="expired"):
        handshake(leaf, old.certificate, HOSTS[0])
