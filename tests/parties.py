"""Both parties in one process, for tests of either side."""

from __future__ import annotations

from he_backend.client.inference import Client
from he_backend.graph import convert
from he_backend.protocol.transport import CountingLink, MemoryLink, Retry
from he_backend.server.models import OneModel
from he_backend.server.service import CipherService
from he_backend.zoo import shipped

QUICK = Retry(attempts=2, backoff_s=0.0)


def digits(rows=64, model_type="MLP"):
    """A digits network of the zoo as a program, and held-out rows and labels."""
    network = shipped(model_type, "digits")
    x, y = network.load_test()
    return convert(network.onnx_path), x[:rows], y[:rows]


def service_of(program, **options):
    """A ciphertext service with one model that also takes the engine without encryption."""
    return CipherService(OneModel(program), allow_clear=True, **options)


def client_of(service, record=False, **options):
    """A client of a service in this process, and the link that recorded its frames."""
    link = CountingLink(MemoryLink(service.handle), record=record)
    return Client(link, **{"retry": QUICK, **options}), link
