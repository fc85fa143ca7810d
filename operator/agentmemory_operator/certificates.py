"""Certificates: an authority, and the leaves that servers show. Pure functions; the time is given.

An authority is renewed with the same key, subject and key identifier. A leaf names its authority by that identifier
alone, so leaves of before and after a renewal verify under either, and clients need no bundle.
Every function that reads PEM raises ValueError for what is none.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from datetime import datetime, timedelta

from cryptography import x509
from cryptography.exceptions import InvalidSignature
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.hashes import SHA256
from cryptography.hazmat.primitives.serialization import (
    Encoding,
    NoEncryption,
    PrivateFormat,
    load_pem_private_key,
)
from cryptography.x509.oid import ExtendedKeyUsageOID, NameOID

AUTHORITY_LIFETIME = timedelta(days=3650)
LEAF_LIFETIME = timedelta(days=90)
BACKDATED = timedelta(hours=1)
"""How long before its issue a certificate is valid: clocks differ."""
_LONGEST_COMMON_NAME = 64  # bytes


@dataclass(frozen=True)
class Pair:
    """A certificate and its private key, both in PEM. The key never shows in a repr."""

    certificate: str
    key: str = field(repr=False)


def new_authority(name: str, now: datetime) -> Pair:
    """An authority of ten years with a key of its own; of a long name, its beginning is used."""
    return _sign_itself(ec.generate_private_key(ec.SECP256R1()), _subject(name), now)


def renew_authority(pair: Pair, now: datetime) -> Pair:
    """The same authority with ten years from now."""
    return _sign_itself(_key(pair.key), _certificate(pair.certificate).subject, now)


def issue(authority: Pair, hosts: list[str], now: datetime) -> Pair:
    """A server's certificate for these names, with a new key; valid for 90 days, and never longer than its authority.

    Raises ValueError for no host, or one that is no DNS name.
    """
    signer, issuer = _key(authority.key), _certificate(authority.certificate)
    key = ec.generate_private_key(ec.SECP256R1())
    builder = _builder(_subject(hosts[0] if hosts else ""), issuer.subject, key, now)
    builder = builder.not_valid_after(min(now + LEAF_LIFETIME, issuer.not_valid_after_utc))
    alternatives = x509.SubjectAlternativeName([x509.DNSName(host) for host in hosts])
    for extension, critical in (
        (x509.BasicConstraints(ca=False, path_length=None), True),
        (_usage(digital_signature=True), True),
        (x509.ExtendedKeyUsage([ExtendedKeyUsageOID.SERVER_AUTH]), False),
        (alternatives, False),
        (_authority_identifier(issuer), False),
    ):
        builder = builder.add_extension(extension, critical)
    return _finish(builder, key, signer)


def expires(pem: str) -> datetime:
    """The last moment at which the certificate is valid."""
    return _certificate(pem).not_valid_after_utc


def due(pem: str, now: datetime, within: timedelta) -> bool:
    """Whether it is time for another one: it ends within that time, or a clock that was ahead issued it."""
    certificate = _certificate(pem)
    return certificate.not_valid_after_utc <= now + within or certificate.not_valid_before_utc > now


def covers(pem: str, hosts: list[str]) -> bool:
    """Whether the certificate is for all these names."""
    extensions = _certificate(pem).extensions
    try:
        alternatives = extensions.get_extension_for_class(x509.SubjectAlternativeName).value
    except x509.ExtensionNotFound:
        return False
    return set(hosts) <= set(alternatives.get_values_for_type(x509.DNSName))


def signed_by(pem: str, authority_pem: str) -> bool:
    """Whether this authority, in whichever renewal, signed the certificate."""
    certificate, authority = _certificate(pem), _certificate(authority_pem)
    try:
        certificate.verify_directly_issued_by(authority)
    except (InvalidSignature, ValueError, TypeError):
        return False
    return True


def matches(pair: Pair) -> bool:
    """Whether the key is the certificate's own."""
    return _key(pair.key).public_key() == _certificate(pair.certificate).public_key()


def fingerprint(pem: str) -> str:
    """SHA-256 of the certificate as it goes over the wire, in hexadecimal: tells whether a server shows this one."""
    return _certificate(pem).fingerprint(SHA256()).hex()


def _certificate(pem: str) -> x509.Certificate:
    """Of a chain, the first."""
    return x509.load_pem_x509_certificate(pem.encode())


def _key(pem: str) -> ec.EllipticCurvePrivateKey:
    try:
        key = load_pem_private_key(pem.encode(), password=None)
    except TypeError:
        raise ValueError("the private key is encrypted") from None
    if not isinstance(key, ec.EllipticCurvePrivateKey):
        raise ValueError("the private key is not on an elliptic curve")
    return key


def _subject(name: str) -> x509.Name:
    short = name.encode()[:_LONGEST_COMMON_NAME].decode(errors="ignore")
    return x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, short)])


def _sign_itself(key: ec.EllipticCurvePrivateKey, subject: x509.Name, now: datetime) -> Pair:
    builder = _builder(subject, subject, key, now).not_valid_after(now + AUTHORITY_LIFETIME)
    for extension, critical in (
        (x509.BasicConstraints(ca=True, path_length=0), True),
        (_usage(key_cert_sign=True, crl_sign=True), True),
    ):
        builder = builder.add_extension(extension, critical)
    return _finish(builder, key, key)


def _builder(
    subject: x509.Name, issuer: x509.Name, key: ec.EllipticCurvePrivateKey, now: datetime
) -> x509.CertificateBuilder:
    identifier = x509.SubjectKeyIdentifier.from_public_key(key.public_key())
    return (
        x509.CertificateBuilder()
        .subject_name(subject)
        .issuer_name(issuer)
        .public_key(key.public_key())
        .serial_number(x509.random_serial_number())
        .not_valid_before(now - BACKDATED)
        .add_extension(identifier, critical=False)
    )


def _usage(*, digital_signature: bool = False, key_cert_sign: bool = False, crl_sign: bool = False) -> x509.KeyUsage:
    return x509.KeyUsage(
        digital_signature=digital_signature,
        key_cert_sign=key_cert_sign,
        crl_sign=crl_sign,
        content_commitment=False,
        key_encipherment=False,
        data_encipherment=False,
        key_agreement=False,
        encipher_only=False,
        decipher_only=False,
    )


def _authority_identifier(issuer: x509.Certificate) -> x509.AuthorityKeyIdentifier:
    identifier = issuer.extensions.get_extension_for_class(x509.SubjectKeyIdentifier).value
    return x509.AuthorityKeyIdentifier.from_issuer_subject_key_identifier(identifier)


def _finish(
    builder: x509.CertificateBuilder, key: ec.EllipticCurvePrivateKey, signer: ec.EllipticCurvePrivateKey
) -> Pair:
    certificate = builder.sign(signer, SHA256())
    encoded = key.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption())
    return Pair(certificate.public_bytes(Encoding.PEM).decode(), encoded.decode())
