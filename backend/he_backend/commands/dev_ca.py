"""`he-nn dev-ca`: certificates to try TLS and mutual TLS with."""

from __future__ import annotations

import click

from he_backend.access.dev_ca import MOST_DAYS, make_dev_ca
from he_backend.commands.options import errors_shown


@click.command("dev-ca")
@click.argument("folder", type=click.Path(file_okay=False))
@click.option("--host", "hosts", multiple=True, help="A name or address of the server; may be given again. localhost is always in.")
@click.option("--days", type=click.IntRange(1, MOST_DAYS), default=90, show_default=True, help="That the two certificates are valid.")
@click.option("--renew", is_flag=True, help="New certificates for server and client, of the authority that is in the folder.")
def dev_ca(folder: str, hosts: tuple[str, ...], days: int, renew: bool) -> None:
    """Write a certificate authority for development into FOLDER, and certificates of a server and a client.

    Whoever has ca-key.pem can pass for any of them: keep it off the machines that serve. For production, use an authority that you have.
    """
    with errors_shown():
        files = make_dev_ca(folder, hosts, days, renew)
    for path in files:
        click.echo(str(path))
