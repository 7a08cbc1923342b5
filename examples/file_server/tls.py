"""HTTPS: what the server shows to its clients."""

from __future__ import annotations

import ssl
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from options import Options


def tls_context(options: Options) -> ssl.SSLContext | None:
    """Return what connections are secured by, or None if they are not.

    Raises:
        OSError: Its text says in one line what is wrong with the certificate or its key.
    """
    if options.tls_cert is None:
        return None
    context = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH)
    context.minimum_version = ssl.TLSVersion.TLSv1_2
    # TLS 1.2 lets a client ask for handshake after handshake, which costs us more than it.
    context.options |= ssl.OP_NO_RENEGOTIATION
    context.set_alpn_protocols(["http/1.1"])
    _load(context, options.tls_cert, options.tls_key or options.tls_cert)
    return context


def _load(context: ssl.SSLContext, certificate: str, key: str) -> None:
    _check(certificate, b"-----BEGIN CERTIFICATE-----", "certificate")
    _check(key, b"PRIVATE KEY-----", "private key")
    asked = False

    def password() -> str:
        # Without this function OpenSSL would ask the terminal, and wait.
        nonlocal asked
        asked = True
        return ""

    try:
        context.load_cert_chain(certificate, key, password)
    except ssl.SSLError as error:
        if asked:
            reason = "a private key with a password"
        elif error.reason == "KEY_VALUES_MISMATCH":
            reason = f"not the private key of {certificate}"
        else:
            reason = f"not a private key, or {certificate} not a certificate, that OpenSSL takes"
        raise OSError(f"cannot use {key}: {reason}") from error


def _check(path: str, marker: bytes, what: str) -> None:
    """Find out what load_cert_chain() does not say: which of its files it cannot use."""
    try:
        with open(path, "rb") as file:
            content = file.read()
    except OSError as error:
        raise OSError(f"cannot read {path}: {error.strerror}") from error
    if marker not in content:
        raise OSError(f"cannot use {path}: no {what} in PEM format in it")
