"""Servers and links of the gRPC transport for the tests in this folder."""

from __future__ import annotations

import pytest

from he_backend.protocol.session import answering
from tests.protocol.calls import echo


@pytest.fixture
def start():
    """Starts servers and links; everything is closed at the end."""
    from he_backend.protocol.grpc_transport import GrpcLink, serve  # the other tests here run without it

    open_things = []

    def start_one(handler=None, *, port=0, link_options=None, **options):
        server = serve(handler or answering(echo), f"127.0.0.1:{port}", **options)
        link = GrpcLink(f"127.0.0.1:{server.port}", **(link_options or {}))
        open_things.extend([link.close, lambda: server.stop(0)])
        return server, link

    yield start_one
    for close in open_things:
        close()
