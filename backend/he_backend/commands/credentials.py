"""The options by which a command shows who it is: --token-file, --ca, --cert, --key. A token itself is no option: `ps` would show it."""

from __future__ import annotations

import functools
from dataclasses import replace
from typing import Any, Callable

import click

from he_backend.access.credentials import Credentials, read_token
from he_backend.commands.options import errors_shown

_FILE = click.Path(dir_okay=False)
_OPTIONS = (
    click.option("--token-file", type=_FILE, envvar="HE_NN_TOKEN_FILE", help="File with the token for the server; or set HE_NN_TOKEN."),
    click.option("--ca", type=_FILE, help="PEM file of the authority to trust (TLS); default HE_NN_CA, or the system's with https://."),
    click.option("--cert", type=_FILE, help="PEM file of a certificate of one's own, where the server asks for one; default HE_NN_CERT."),
    click.option("--key", type=_FILE, help="PEM file of its key; default HE_NN_KEY."),
)


def credential_options(command: Callable[..., Any]) -> Callable[..., Any]:
    """Adds the options; the command gets them, and what the environment says where they are not given, as `credentials`."""

    @functools.wraps(command)
    def with_credentials(token_file: str | None, ca: str | None, cert: str | None, key: str | None, **given: Any) -> Any:
        with errors_shown():
            there = Credentials.from_environment()
            token = read_token(token_file) if token_file else there.token
            own = (cert or "", key or "") if cert or key else (there.certificate, there.key)
            credentials = replace(there, token=token, ca=ca or there.ca, certificate=own[0], key=own[1], tls=bool(ca) or there.tls)
        return command(credentials=credentials, **given)

    wrapped: Callable[..., Any] = with_credentials
    for option in reversed(_OPTIONS):
        wrapped = option(wrapped)
    return wrapped
