"""What a client shows to a service, and which service it trusts."""

from __future__ import annotations

import ipaddress
import os
import ssl
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Mapping, Sequence

from he_backend.access.certificates import Identity, load_identity, load_roots
from he_backend.access.tls_contexts import client_context
from he_backend.errors import ParameterError

TOKEN_VARIABLE, CLIENT_TOKEN_VARIABLE = "HE_NN_TOKEN", "HE_NN_CLIENT_TOKEN"
CREDENTIAL_VARIABLES = (TOKEN_VARIABLE, CLIENT_TOKEN_VARIABLE, "HE_NN_CA", "HE_NN_CERT", "HE_NN_KEY", "HE_NN_ALLOW_PLAINTEXT")
_YES, _NO = ("1", "true", "yes", "on"), ("", "0", "false", "no", "off")


@dataclass(frozen=True)
class Credentials:
    """A token; PEM files of a certificate with its key, and of the authorities to trust ('': the system's).

    `tls`: the ciphertext channel speaks TLS; of the HTTP APIs the URL says so. `allow_plaintext`: the token may cross a
    network in the clear.
    """

    token: str = field(default="", repr=False)
    ca: str = ""
    certificate: str = ""
    key: str = ""
    tls: bool = False
    allow_plaintext: bool = False

    def __post_init__(self) -> None:
        """Checks the token's form and, so that a wrong file is told at the door, the files."""
        if not self.token.isascii() or not self.token.isprintable() or " " in self.token:
            raise ParameterError("the token holds characters that no token has; copy it again")
        if self.ca:
            self.roots()
        self.identity()

    @staticmethod
    def from_environment(variables: Sequence[str] = (TOKEN_VARIABLE,), environment: Mapping[str, str] | None = None) -> Credentials:
        """Token from the first of `variables` that is set; HE_NN_CA, HE_NN_CERT, HE_NN_KEY, HE_NN_ALLOW_PLAINTEXT.

        Raises ParameterError for files that are none.
        """
        given = os.environ if environment is None else environment
        token = next((given[name].strip() for name in variables if given.get(name, "").strip()), "")
        plain = given.get("HE_NN_ALLOW_PLAINTEXT", "").strip().lower()
        if plain not in (*_YES, *_NO):
            raise ParameterError(f"HE_NN_ALLOW_PLAINTEXT: {plain[:20]!r}; allowed: yes or no")
        ca, certificate, key = (given.get(name, "") for name in ("HE_NN_CA", "HE_NN_CERT", "HE_NN_KEY"))
        return Credentials(token, ca, certificate, key, tls=bool(ca), allow_plaintext=plain in _YES)

    def identity(self) -> Identity | None:
        """The client's certificate, if it has one. Raises ParameterError."""
        if not self.certificate and not self.key:
            return None
        return load_identity(self.certificate, self.key, "the client's certificate and key (--cert and --key, HE_NN_CERT and HE_NN_KEY)")

    def roots(self) -> bytes | None:
        """PEM of the authorities to trust; None: the system's. Raises ParameterError."""
        return load_roots(self.ca, "the authority to trust (--ca, HE_NN_CA)") if self.ca else None

    def context(self) -> ssl.SSLContext:
        """For HTTPS."""
        return client_context(self.ca, self.identity())

    def token_for(self, host: str, secure: bool) -> str:
        """The token, if it may go to that host; raises ParameterError when it would cross a network in the clear."""
        if self.token and not secure and not self.allow_plaintext and not is_loopback(host):
            raise ParameterError(
                f"the token would cross the network to {host} in the clear: use https:// (he-nn serve --tls-cert), or, where something "
                "else encrypts that network, say so with HE_NN_ALLOW_PLAINTEXT=1"
            )
        return self.token

    def without_secrets(self) -> Credentials:
        """The same trust, for a service that is not to see the token or the certificate."""
        return replace(self, token="", certificate="", key="")


def read_token(path: str) -> str:
    """The token in a file; raises ParameterError."""
    try:
        token = Path(path).expanduser().read_text(encoding="ascii").strip()
    except (OSError, UnicodeDecodeError) as problem:
        raise ParameterError(f"the token file {path} cannot be read: {getattr(problem, 'strerror', 'it holds no token')}") from None
    if not token or len(token) > 200:
        raise ParameterError(f"the token file {path} holds no token; write one line into it (he-nn token add prints one)")
    return token


def is_loopback(host: str) -> bool:
    """Whether a name or address is this machine's own, which no network sees."""
    name = host.strip("[]").lower()
    if name == "localhost":
        return True
    try:
        return ipaddress.ip_address(name).is_loopback
    except ValueError:
        return False
