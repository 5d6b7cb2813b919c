"""The model owner in Python: a registry, or one model, served over the ciphertext channel."""

from __future__ import annotations

import os
import uuid
from typing import Any, Mapping

from he_backend.access.gate import Gate, OpenGate
from he_backend.protocol.grpc_transport import AUTHORIZATION, TASK, serve_entrance
from he_backend.protocol.transport import Handler
from he_backend.server.models import ModelSource, RegistryModels
from he_backend.server.registry import Registry, default_root
from he_backend.server.service import CipherService


class Server:
    """Serves the models of a registry folder (default $HE_NN_HOME/models), or of any other source.

    `gate` tells who calls, from the token in the call's metadata; without one everybody may. Other options are those of CipherService.
    """

    def __init__(
        self,
        registry: str | os.PathLike[str] | None = None,
        *,
        models: ModelSource | None = None,
        gate: Gate = OpenGate(),  # noqa: B008 - has no state
        **options: Any,
    ) -> None:
        source = models if models is not None else RegistryModels(Registry(registry or default_root()))
        self._service, self._gate = CipherService(source, **options), gate

    def start(self, address: str = "127.0.0.1:34000", **options: Any) -> Any:
        """Listens in the background; returns a handle with .port, .stop(grace_s) and .wait(). Raises TransportError for a taken port."""
        return serve_entrance(self._entrance, address, **options)

    def serve(self, address: str = "127.0.0.1:34000", **options: Any) -> None:
        """Listens until interrupted."""
        handle = self.start(address, **options)
        try:
            handle.wait()
        finally:
            handle.stop(5.0)

    def _entrance(self, metadata: Mapping[str, str]) -> Handler:
        """The handler for a call's caller. Raises Unauthenticated."""
        return self._service.handler_for(self._gate.admit(metadata.get(AUTHORIZATION, "")), task_id(metadata.get(TASK, "")))


def task_id(text: str) -> str:
    """A peer's task id if it is a UUID, else '': it is written into logs."""
    try:
        return str(uuid.UUID(text)) if len(text) == 36 else ""
    except ValueError:
        return ""
