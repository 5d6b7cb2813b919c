"""he_backend: encrypted neural-network inference (CKKS, client-aided activations).

program = he_backend.convert("net.onnx")
result = he_backend.infer(program, rows, preset="N11_L1")     # both parties in this process

he_backend.Server(registry="models/").serve("0.0.0.0:34000")  # the model owner
he_backend.Client("host:34000").infer("320cecMLP", rows)      # the data owner
"""

from __future__ import annotations

import importlib
import os
from typing import TYPE_CHECKING, Any

from he_backend.version import VERSION as __version__

if TYPE_CHECKING:
    from he_backend.client.inference import Client
    from he_backend.graph import convert
    from he_backend.local import infer
    from he_backend.server.serving import Server

# Newer builds of ONNX Runtime report to their makers, under an id kept in the user's home, unless this is set before they are loaded.
# Here they run users' networks and the steps between encrypted rounds: that is nobody else's. Whoever wants it sets the variable to 0.
os.environ.setdefault("ORT_DISABLE_TELEMETRY", "1")

__all__ = ["Client", "Server", "__version__", "convert", "infer"]

# Looked up when first used, so that a server that imports this package never loads the client's side, where secret keys are.
_HOMES = {
    "Client": "he_backend.client.inference",
    "Server": "he_backend.server.serving",
    "convert": "he_backend.graph",
    "infer": "he_backend.local",
}


def __getattr__(name: str) -> Any:
    if name not in _HOMES:
        raise AttributeError(f"module 'he_backend' has no attribute {name!r}")
    return getattr(importlib.import_module(_HOMES[name]), name)
