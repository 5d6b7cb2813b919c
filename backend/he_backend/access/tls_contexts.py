"""TLS of the HTTP APIs: 1.2 and up, both ends verified as configured, refused handshakes logged."""

from __future__ import annotations

import logging
import ssl
from typing import Any

from he_backend.access.certificates import Identity
from he_backend.access.renewal import RenewedIdentity
from he_backend.errors import ParameterError

_log = logging.getLogger(__name__)


class _LoggedHandshake(ssl.SSLObject):
    """asyncio is silent about handshakes that fail, such as one with an expired client certificate."""

    def do_handshake(self) -> None:
        """The handshake; a failure is logged with OpenSSL's reason."""
        try:
            super().do_handshake()
        except (ssl.SSLWantReadError, ssl.SSLWantWriteError):
            raise
        except ssl.SSLError as problem:
            _log.warning("a TLS handshake was refused: %s", reason(problem))
            raise


class _RenewingContext(ssl.SSLContext):
    """Shows each new connection the certificate that is there then."""

    identities: RenewedIdentity
    loaded: Identity

    def renew(self) -> None:
        """Loads the certificate if it is another one."""
        identity = self.identities.current()
        if identity is not self.loaded:
            _load(self, identity)
            self.loaded = identity

    def wrap_bio(self, *arguments: Any, **named: Any) -> ssl.SSLObject:
        """What asyncio calls for each connection."""
        self.renew()
        return super().wrap_bio(*arguments, **named)


def server_context(identities: RenewedIdentity, client_ca: str = "") -> ssl.SSLContext:
    """A server's; with `client_ca` (a PEM file), clients must have a certificate that it signed."""
    context = _RenewingContext(ssl.PROTOCOL_TLS_SERVER)
    context.minimum_version = ssl.TLSVersion.TLSv1_2
    context.sslobject_class = _LoggedHandshake
    context.identities, context.loaded = identities, identities.current()
    _load(context, context.loaded)
    if client_ca:
        context.verify_mode = ssl.CERT_REQUIRED
        context.load_verify_locations(client_ca)
    return context


def client_context(ca: str = "", identity: Identity | None = None) -> ssl.SSLContext:
    """A client's: trusts the certificates in the file `ca` ('': the system's), and shows `identity` where it is asked to."""
    context = ssl.create_default_context(cafile=ca or None)
    context.minimum_version = ssl.TLSVersion.TLSv1_2
    if identity is not None:
        _load(context, identity)
    return context


def reason(problem: BaseException) -> str:
    """What went wrong in a handshake, in OpenSSL's words."""
    words = getattr(problem, "verify_message", "") or str(getattr(problem, "reason", "") or type(problem).__name__)
    return words.lower().replace("_", " ")


def _load(context: ssl.SSLContext, identity: Identity) -> None:
    try:
        context.load_cert_chain(identity.certificate_path, identity.key_path)
    except (ssl.SSLError, OSError) as problem:
        raise ParameterError(f"the certificate {identity.certificate_path} cannot be used: {reason(problem)}") from None
