"""Links to a server's ciphertext channel, with the caller's token and certificates."""

from __future__ import annotations

from he_backend.access.credentials import Credentials, is_loopback
from he_backend.errors import ParameterError
from he_backend.protocol.grpc_transport import ClientTls, GrpcLink


def open_link(address: str, credentials: Credentials | None = None, task_id: str = "") -> GrpcLink:
    """A link to HOST:PORT; without `credentials`, those of the environment (HE_NN_TOKEN, HE_NN_CA, …) are used.

    Raises ParameterError for an address or files that are none, or where the token would cross a network in the clear.
    """
    given = Credentials.from_environment() if credentials is None else credentials
    if given.certificate and not given.tls:
        raise ParameterError("a client certificate is for TLS: say which authority to trust too (--ca, HE_NN_CA), or use https://")
    token = next((given.token_for(host, given.tls) for host in hosts_of(address) if not is_loopback(host)), given.token)
    if not given.tls:
        return GrpcLink(address, token=token, task_id=task_id)
    identity = given.identity()
    tls = ClientTls(given.roots()) if identity is None else ClientTls(given.roots(), identity.key, identity.certificate)
    return GrpcLink(address, tls=tls, token=token, task_id=task_id)


def hosts_of(address: str) -> list[str]:
    """The hosts of HOST:PORT, or of gRPC's forms for several: ipv4:HOST:PORT,HOST:PORT and dns:NAME:PORT."""
    scheme, _, rest = address.partition(":")
    several = rest if scheme in ("ipv4", "ipv6", "dns") and ":" in rest else address
    return [one.rpartition(":")[0].rpartition("/")[2] for one in several.split(",")]
