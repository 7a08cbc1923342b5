"""A certificate for localhost, and the contexts of who shows it and who trusts it."""

from __future__ import annotations

import ssl
from functools import cache

import trustme


@cache
def certificates() -> tuple[trustme.CA, trustme.LeafCert]:
    authority = trustme.CA()
    return authority, authority.issue_cert("localhost", "127.0.0.1")


@cache
def server_context() -> ssl.SSLContext:
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    # Tickets would lie unread at a client that only sends, and turn its close into a reset.
    context.num_tickets = 0
    certificates()[1].configure_cert(context)
    return context


@cache
def client_context() -> ssl.SSLContext:
    context = ssl.create_default_context()
    certificates()[0].configure_trust(context)
    return context
