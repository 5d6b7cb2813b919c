"""What a model owner does with its registry: bind a model of a type, measure it, evaluate it, predict plain rows."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import tempfile
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Callable, Mapping

import numpy as np

from he_backend.access.credentials import CREDENTIAL_VARIABLES, TOKEN_VARIABLE
from he_backend.ckks.params import Params
from he_backend.errors import Cancelled, EngineError, HeError, InputError
from he_backend.graph import Program, Reference
from he_backend.graph.card import Card
from he_backend.graph.fitting import check_fitting
from he_backend.graph.program import summarise
from he_backend.graph.quality import quality
from he_backend.protocol.failures import KINDS
from he_backend.server.labelled import batch_of
from he_backend.server.models import RegistryModels
from he_backend.server.planning import plan_of
from he_backend.server.registering import register
from he_backend.server.registry import LATEST, ModelRecord, Registry
from he_backend.web.figures import inference_figures

SIMULATION_S = 3600.0
# What a simulated client may fail with that the request caused; that it does not reach this very server is no fault of the caller's.
_OF_THE_CALLER = ("security", "parameter", "model", "input", "capacity", "not_found")
_MOMENT_S = 0.5  # between two looks at whether the work shall end
NO_FIGURES: Mapping[str, Any] = {}


@dataclass(frozen=True)
class Evaluation:
    """Accuracy on test rows from `start_row` on (None of a regression: its figures have rmse and r2), seconds of the inference itself."""

    start_row: int
    rows: int
    test_acc: float | None
    seconds: float
    figures: Mapping[str, Any]


class Owner:
    """A registry and its programs. `inner_token` is what its simulated clients show to the ciphertext channel; one may take
    `simulation_s` seconds.
    """

    def __init__(self, registry: Registry, models: RegistryModels, inner_token: str = "", simulation_s: float = SIMULATION_S) -> None:
        self.registry, self._models = registry, models
        self._inner_token, self._simulation_s = inner_token, simulation_s

    def register(self, model_type: str) -> ModelRecord:
        """A new model of a type (server.registering), its accuracy measured here. Raises NotFoundError for a type that nobody knows."""
        return self.measure(register(self.registry, model_type))

    def load(self, model_type: str, model_name: str = LATEST) -> ModelRecord:
        """A registered model, its plain accuracy measured once more where it has a test set."""
        return self.measure(self.registry.get(model_name or LATEST, model_type))

    def measure(self, record: ModelRecord) -> ModelRecord:
        """The record with the plain accuracy of its whole test set, if it has one and the network is no regression."""
        if record.test_path is None:
            return record
        x, y = self.registry.test_set(record)
        measured = _quality(self._reference(record).run(x), y, record)
        return self.registry.set_accuracy(record.model_id, measured["test_acc"]) if "test_acc" in measured else record

    def plan(self, record: ModelRecord, params: Params) -> dict[str, Any]:
        """The figures of the plan for one row under a parameter set."""
        return plan_of(record, self._program(record), params)

    def show(self, record: ModelRecord) -> dict[str, Any]:
        """The model's rounds as a client learns them anyway: what it computes before each, and values per row each way."""
        program = self._program(record)
        words = [summarise(step.ops) or "nothing" for step in program.steps]
        return {
            "rounds": program.rounds,
            "inputs": [{"name": spec.name, "shape": list(spec.shape), "dtype": spec.dtype} for spec in program.inputs],
            "outputs": [{"name": spec.name, "shape": list(spec.shape), "dtype": spec.dtype} for spec in program.outputs],
            "segments": [
                {"index": one.index, "client_step": words[one.index], "sends": one.in_elements, "answers": one.out_elements}
                for one in program.segments
            ],
            "last_step": words[-1],
            "public_constants": list(program.public_constants),
        }

    def evaluate(self, record: ModelRecord, start_batch: int, batch_size: int, params: Params | None, channel: str) -> Evaluation:
        """Test rows run plain (params None), or encrypted by a simulated client that calls the ciphertext channel at `channel`."""
        start, x, y = batch_of(*self.registry.test_set(record), start_batch, batch_size)
        if params is None:
            reference, started = self._reference(record), time.perf_counter()
            outputs = reference.run(x)
            seconds, figures = time.perf_counter() - started, NO_FIGURES
        else:
            outputs, figures = simulate(record.model_id, x, params, channel, self._inner_token, self._simulation_s)
            seconds = float(figures["seconds"]["total"])
        measured = _quality(outputs, y, record)
        return Evaluation(start, len(x), measured.pop("test_acc", None), seconds, {**figures, **measured})

    def predict(self, record: ModelRecord, rows: np.ndarray, proceed: Callable[[], object] = lambda: None) -> np.ndarray:
        """The plain network's first output for rows [rows, ...]; rows may be flat. Raises InputError when they do not fit.

        `proceed` is called before each piece of the work, which takes a moment, and may raise to end it.
        """
        program = self._program(record)
        values, reference = _as_input(program, rows), Reference(program)
        parts, done, count = [], 0, 1
        while done < len(values):
            proceed()
            started = time.perf_counter()
            parts.append(next(iter(reference.run(values[done : done + count]).values())))
            done += count
            seconds = time.perf_counter() - started
            count = 4 * count if seconds < _MOMENT_S / 4 else max(1, count // 4) if seconds > _MOMENT_S else count
        return np.concatenate(parts)

    def _program(self, record: ModelRecord) -> Program:
        return self._models.find(record.model_id).program

    def _reference(self, record: ModelRecord) -> Reference:
        return Reference(self._program(record))


def simulate(
    model_id: str, rows: np.ndarray, params: Params, channel: str, token: str = "", timeout_s: float = SIMULATION_S
) -> tuple[dict[str, np.ndarray], Mapping[str, Any]]:
    """Outputs and figures of an encrypted inference by a client in a process of its own: secret keys have no business in this one.

    The rows are the model owner's test rows. Raises what the client failed with where that is for the caller to mend, Cancelled when it
    took too long, otherwise EngineError.
    """
    with tempfile.TemporaryDirectory() as folder:
        source, target, preset = (Path(folder) / name for name in ("rows.npy", "out.npz", f"{params.name}.json"))
        np.save(source, rows, allow_pickle=False)
        preset.write_text(json.dumps(params.literal()), encoding="utf-8")
        command = [sys.executable, "-m", "he_backend.cli", "infer", model_id, str(source), "--server", channel]
        command += ["--preset", str(preset), "--json", "--json-errors", "--out", str(target)]
        # The channel is this process's own, in the clear on loopback; credentials for other services have no business there.
        environment = {name: value for name, value in os.environ.items() if name not in CREDENTIAL_VARIABLES}
        environment[TOKEN_VARIABLE] = token
        try:
            done = subprocess.run(command, stdin=subprocess.DEVNULL, capture_output=True, text=True, timeout=timeout_s, env=environment)
        except subprocess.TimeoutExpired:
            raise Cancelled(
                f"the simulated client took longer than the {timeout_s:g} s that one may (--task-seconds); take a smaller batch_size"
            ) from None
        if done.returncode != 0:
            raise _failed(done.stderr)
        with np.load(target, allow_pickle=False) as arrays:
            return {name: arrays[name] for name in arrays.files}, inference_figures(json.loads(done.stdout.strip().splitlines()[-1]))


def _failed(stderr: str) -> HeError:
    """The error of a client that failed, by what it said last."""
    last = (stderr.strip().splitlines() or ["it ended without a word"])[-1]
    try:
        told = json.loads(last)
        kind, message = str(told["error"]), str(told["message"])
    except (ValueError, TypeError, KeyError):
        kind, message = "", last
    error = KINDS[kind] if kind in _OF_THE_CALLER else EngineError
    return error(f"the simulated client failed: {message[:500]}")


def _as_input(program: Program, rows: np.ndarray) -> np.ndarray:
    if len(program.inputs) != 1:
        raise InputError(f"the model has {len(program.inputs)} inputs; this service takes models with one")
    spec = program.inputs[0]
    size = int(np.prod(spec.shape, dtype=np.int64))
    if rows.shape[1:] != tuple(spec.shape) and rows.shape[1:] != (size,):
        raise InputError(f"the file has rows of shape {rows.shape[1:]}, the model takes {tuple(spec.shape)}, or {size} values flat")
    if rows.dtype.kind == "f" and np.dtype(spec.dtype).kind in "iu":
        raise InputError(f"the file holds {rows.dtype}, the model takes whole numbers ({spec.dtype})")
    check_fitting(rows, spec)
    return np.ascontiguousarray(rows, dtype=spec.dtype).reshape((len(rows), *spec.shape))


def _quality(outputs: Mapping[str, np.ndarray], labels: np.ndarray, record: ModelRecord) -> dict[str, float]:
    return quality(next(iter(outputs.values())), labels, Card.of(record.meta))
