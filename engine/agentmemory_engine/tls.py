"""TLS to the stores: what is trusted, asked anew for each connection, so that a renewed authority needs no restart."""

from __future__ import annotations

import ssl
from collections.abc import Callable

Trust = Callable[[], str | None]
"""Answers the certificates to trust, in PEM; None stands for those that the system trusts."""


def trust_system() -> None:
    """Trust what the system trusts."""
    return None


def make_context(trusted: str | None, *, check_name: bool = True) -> ssl.SSLContext:
    """A client's context that verifies the server's certificate and, unless told otherwise, its name.

    Raises OSError for what is not certificates in PEM.
    """
    context = ssl.create_default_context(cadata=trusted)
    context.check_hostname = check_name
    return context


def explain_tls(error: BaseException) -> str | None:
    """What a failed handshake means, in a sentence; None for another failure."""
    if isinstance(error, ssl.SSLCertVerificationError):
        return f"its certificate is refused ({error.verify_message}); check the authority to trust and the host's name."
    if isinstance(error, ssl.SSLError):
        return f"TLS fails ({error.reason or error}); does it speak TLS, and is the authority to trust in PEM?"
    return None
