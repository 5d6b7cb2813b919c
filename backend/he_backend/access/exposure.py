"""Whether a service may listen where it was told to: never by oversight where strangers, or their ears, can reach it."""

from __future__ import annotations

from dataclasses import dataclass

from he_backend.access.credentials import is_loopback
from he_backend.errors import ParameterError


@dataclass(frozen=True)
class Exposure:
    """Where a service listens, and what protects it there: tokens, TLS, clients' certificates; or what its operator says instead."""

    host: str
    has_tokens: bool
    has_tls: bool
    wants_certificates: bool
    allow_anonymous: bool = False
    allow_plaintext: bool = False

    @property
    def is_local(self) -> bool:
        """Whether only this machine can reach it."""
        return is_loopback(self.host)

    def check(self) -> None:
        """Raises ParameterError for a service that others can reach without a token or certificate, or in the clear."""
        if self.wants_certificates and not self.has_tls:
            raise ParameterError("--client-ca asks callers for certificates, which needs TLS: give --tls-cert and --tls-key too")
        if self.is_local:
            return
        if not (self.has_tokens or self.wants_certificates or self.allow_anonymous):
            raise ParameterError(
                f"--host: {self.host} can be reached from other machines, and nobody would be asked for a token: make one (he-nn token add "
                "NAME), or ask for certificates (--client-ca), or, on a network that you trust, say --allow-anonymous"
            )
        if not (self.has_tls or self.allow_plaintext):
            raise ParameterError(
                f"--host: {self.host} can be reached from other machines, in the clear: give --tls-cert and --tls-key (he-nn dev-ca makes "
                "some to try it), or, where a proxy or the network encrypts, say --allow-plaintext"
            )
