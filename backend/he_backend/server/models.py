"""Where the ciphertext service finds networks, and the programs made of them."""

from __future__ import annotations

import threading
from collections import OrderedDict
from dataclasses import dataclass
from typing import Protocol

from he_backend.errors import NotFoundError
from he_backend.graph import convert
from he_backend.graph.program import Program
from he_backend.server.registry import ModelRecord, Registry


class ModelSource(Protocol):
    """Finds a network by id, name or 'latest'."""

    def find(self, model: str) -> Model:
        """The model; raises NotFoundError naming what there is."""
        ...


@dataclass(frozen=True)
class Model:
    """A network that can be served: its identity and its program."""

    model_id: str
    model_name: str
    program: Program
    model_type: str = ""


class OneModel:
    """A source with one program in it: both parties in one process, tests."""

    def __init__(self, program: Program, model_id: str = "local", model_name: str = "") -> None:
        self._model = Model(model_id, model_name or program.name, program)

    def find(self, model: str) -> Model:
        """The program, by its id, its name or 'latest'."""
        if model not in (self._model.model_id, self._model.model_name, "latest"):
            raise NotFoundError(f"model {model!r} is not here; there is {self._model.model_name!r}")
        return self._model


def registered_program(registry: Registry, record: ModelRecord) -> Program:
    """The program of a registered model. Its embedding tables are treated as its record says, otherwise as the file itself says.

    Raises ModelError when it cannot run encrypted, ParameterError when the record's choice of embeddings is none.
    """
    return convert(registry.model_bytes(record), name=record.model_name, embeddings=str(record.meta.get("embeddings") or "file"))


class RegistryModels:
    """Programs of a registry's models, the last few used kept in memory."""

    def __init__(self, registry: Registry, keep: int = 4) -> None:
        self._registry, self._keep = registry, keep
        self._programs: OrderedDict[tuple[str, str], Program] = OrderedDict()
        self._lock = threading.Lock()

    def find(self, model: str) -> Model:
        """The registered model; importing and splitting happens once while it is among the last used."""
        record = self._registry.get(model)
        with self._lock:
            key = (record.sha256, str(record.meta.get("embeddings", "")))
            program = self._programs.get(key)
            if program is None:
                program = registered_program(self._registry, record)
                self._programs[key] = program
            self._programs.move_to_end(key)
            while len(self._programs) > self._keep:
                self._programs.popitem(last=False)
        return Model(record.model_id, record.model_name, program, record.model_type)
