"""What a model owner does with its registry: bind a model of a type, measure it, evaluate it, predict plain rows."""

from __future__ import annotations

import json
import subprocess
import sys
import tempfile
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Mapping

import numpy as np

from he_backend import zoo
from he_backend.ckks.engines import default_engine
from he_backend.ckks.params import Params
from he_backend.errors import EngineError, InputError, NotFoundError
from he_backend.graph import Program, Reference
from he_backend.inference.describe import plan_figures
from he_backend.inference.plan import PlanSpec, make_plan
from he_backend.server.labelled import batch_of, score_of
from he_backend.server.models import RegistryModels
from he_backend.server.registry import LATEST, ModelRecord, Registry

_SIMULATION_TIMEOUT_S = 3600
NO_FIGURES: Mapping[str, Any] = {}


@dataclass(frozen=True)
class Evaluation:
    """Accuracy on test rows from `start_row` on, seconds of the inference itself, and its figures."""

    start_row: int
    rows: int
    test_acc: float
    seconds: float
    figures: Mapping[str, Any]


class Owner:
    """A registry and its programs."""

    def __init__(self, registry: Registry, models: RegistryModels) -> None:
        self.registry, self._models = registry, models

    def register(self, model_type: str) -> ModelRecord:
        """A new model of a type, its accuracy measured here: of the zoo's from the weights that come with it, otherwise the newest
        registered one of the type once more, under an id and name of its own. Raises NotFoundError for a type that is neither."""
        try:
            network = zoo.shipped(model_type)
        except NotFoundError as missing:
            return self.measure(self.registry.add_again(model_type, str(missing)))
        meta = {"dataset": network.dataset, "activation": network.activation, "input_shape": list(network.input_shape)}
        record = self.registry.add(network.onnx_path, network.model_type, test=network.load_test(), meta=meta)
        return self.measure(record)

    def load(self, model_type: str, model_name: str = LATEST) -> ModelRecord:
        """A registered model, its plain accuracy measured once more where it has a test set."""
        return self.measure(self.registry.get(model_name or LATEST, model_type))

    def measure(self, record: ModelRecord) -> ModelRecord:
        """The record with the plain accuracy of its whole test set, if it has one."""
        if record.test_path is None:
            return record
        x, y = self.registry.test_set(record)
        return self.registry.set_accuracy(record.model_id, _accuracy(self._reference(record).run(x), y))

    def plan(self, record: ModelRecord, params: Params) -> dict[str, Any]:
        """The figures of the plan for one row under a parameter set."""
        spec = PlanSpec(record.model_id, default_engine(), params.literal(), rows=1, preset_name=params.name)
        return plan_figures(make_plan(self._program(record), record.model_id, record.model_name, spec).client, 1)

    def evaluate(self, record: ModelRecord, start_batch: int, batch_size: int, params: Params | None, channel: str) -> Evaluation:
        """Test rows run plain (params None), or encrypted by a simulated client that calls the ciphertext channel at `channel`."""
        start, x, y = batch_of(*self.registry.test_set(record), start_batch, batch_size)
        if params is None:
            reference, started = self._reference(record), time.perf_counter()
            outputs = reference.run(x)
            seconds, figures = time.perf_counter() - started, NO_FIGURES
        else:
            outputs, figures = simulate(record.model_id, x, params, channel)
            seconds = float(figures["seconds"]["total"])
        return Evaluation(start, len(x), _accuracy(outputs, y), seconds, figures)

    def predict(self, record: ModelRecord, rows: np.ndarray) -> np.ndarray:
        """The plain network's first output for rows [rows, ...]; rows may be flat. Raises InputError when they do not fit."""
        program = self._program(record)
        values = _as_input(program, rows)
        return next(iter(Reference(program).run(values).values()))

    def _program(self, record: ModelRecord) -> Program:
        return self._models.find(record.model_id).program

    def _reference(self, record: ModelRecord) -> Reference:
        return Reference(self._program(record))


def simulate(model_id: str, rows: np.ndarray, params: Params, channel: str) -> tuple[dict[str, np.ndarray], Mapping[str, Any]]:
    """Outputs and figures of an encrypted inference by a client in a process of its own: secret keys have no business in this one.

    The rows are the model owner's test rows. Raises EngineError when the client fails.
    """
    with tempfile.TemporaryDirectory() as folder:
        source, target, preset = (Path(folder) / name for name in ("rows.npy", "out.npz", f"{params.name}.json"))
        np.save(source, rows, allow_pickle=False)
        preset.write_text(json.dumps(params.literal()), encoding="utf-8")
        command = [sys.executable, "-m", "he_backend.cli", "infer", model_id, str(source), "--server", channel]
        command += ["--preset", str(preset), "--json", "--out", str(target)]
        try:
            done = subprocess.run(command, stdin=subprocess.DEVNULL, capture_output=True, text=True, timeout=_SIMULATION_TIMEOUT_S)
        except subprocess.TimeoutExpired:
            raise EngineError(f"the simulated client took longer than {_SIMULATION_TIMEOUT_S} s; take a smaller batch_size") from None
        if done.returncode != 0:
            lines = done.stderr.strip().splitlines() or ["it ended without a word"]
            raise EngineError(f"the simulated client failed: {lines[-1][:500]}")
        with np.load(target, allow_pickle=False) as arrays:
            return {name: arrays[name] for name in arrays.files}, _figures(json.loads(done.stdout.strip().splitlines()[-1]))


def _figures(report: Mapping[str, Any]) -> dict[str, Any]:
    """The figures of a report that are shown, as those of an inference."""
    kept = ("engine", "preset", "rows", "rounds", "bytes_up", "bytes_down")
    return {
        **{name: report[name] for name in kept},
        "expected_bits": round(report["expected_bits"], 1),
        "seconds": {name: round(value, 4) for name, value in report["seconds"].items()},
        "round_ms": [round(1000 * sum(this["seconds"].values()), 2) for this in report["per_round"]],
    }


def _as_input(program: Program, rows: np.ndarray) -> np.ndarray:
    if len(program.inputs) != 1:
        raise InputError(f"the model has {len(program.inputs)} inputs; this service takes models with one")
    spec = program.inputs[0]
    size = int(np.prod(spec.shape, dtype=np.int64))
    if rows.shape[1:] != tuple(spec.shape) and rows.shape[1:] != (size,):
        raise InputError(f"the file has rows of shape {rows.shape[1:]}, the model takes {tuple(spec.shape)}, or {size} values flat")
    if rows.dtype.kind == "f" and np.dtype(spec.dtype).kind in "iu":
        raise InputError(f"the file holds {rows.dtype}, the model takes whole numbers ({spec.dtype})")
    if not np.isfinite(rows).all():
        raise InputError("the file has NaN or infinity; mend or leave out these rows")
    return np.ascontiguousarray(rows, dtype=spec.dtype).reshape((len(rows), *spec.shape))


def _accuracy(outputs: Mapping[str, np.ndarray], labels: np.ndarray) -> float:
    return score_of(next(iter(outputs.values())), labels).accuracy
