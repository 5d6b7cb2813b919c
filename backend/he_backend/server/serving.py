"""The model owner in Python: a registry, or one model, served over the ciphertext channel."""

from __future__ import annotations

import os
from typing import Any

from he_backend.protocol.grpc_transport import serve as serve_grpc
from he_backend.server.models import ModelSource, RegistryModels
from he_backend.server.registry import Registry, default_root
from he_backend.server.service import CipherService


class Server:
    """Serves the models of a registry folder (default $HE_NN_HOME/models), or of any other source.

    Options are those of CipherService.
    """

    def __init__(self, registry: str | os.PathLike[str] | None = None, *, models: ModelSource | None = None, **options: Any) -> None:
        source = models if models is not None else RegistryModels(Registry(registry or default_root()))
        self._service = CipherService(source, **options)

    def start(self, address: str = "127.0.0.1:34000", **options: Any) -> Any:
        """Listens in the background; returns a handle with .port, .stop(grace_s) and .wait(). Raises TransportError for a taken port."""
        return serve_grpc(self._service.handle, address, **options)

    def serve(self, address: str = "127.0.0.1:34000", **options: Any) -> None:
        """Listens until interrupted."""
        handle = self.start(address, **options)
        try:
            handle.wait()
        finally:
            handle.stop(5.0)
