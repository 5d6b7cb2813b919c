"""ONNX Runtime as the living definition of the operators: sessions with bounded threads, random inputs, comparison of results."""

from __future__ import annotations

import os
import tempfile
from typing import Any, Mapping, Sequence

import numpy as np
import onnx
import onnxruntime

from he_backend.errors import ModelError

BASIC = onnxruntime.GraphOptimizationLevel.ORT_ENABLE_BASIC
NONE = onnxruntime.GraphOptimizationLevel.ORT_DISABLE_ALL
ALL = onnxruntime.GraphOptimizationLevel.ORT_ENABLE_ALL


def _options(threads: int, level: Any) -> Any:
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = max(1, threads)
    options.inter_op_num_threads = 1
    options.log_severity_level = 4
    # Its threads would otherwise keep turning for a while after each run, on the cores that the next round needs.
    options.add_session_config_entry("session.intra_op.allow_spinning", "0")
    options.graph_optimization_level = level
    return options


def open_session(model: bytes, threads: int = 1, level: Any = ALL) -> Any:
    """An ONNX Runtime session on the CPU. Raises ModelError with ONNX Runtime's own words when it cannot load the model."""
    try:
        return onnxruntime.InferenceSession(model, _options(threads, level), providers=["CPUExecutionProvider"])
    except Exception as error:
        raise ModelError(f"ONNX Runtime cannot load the model: {first_line(error)}") from error


def run(model: bytes, feeds: Mapping[str, np.ndarray], outputs: Sequence[str] | None = None, level: Any = NONE) -> list[np.ndarray]:
    """The outputs of a model run once. Raises ModelError when ONNX Runtime cannot load or run it."""
    return run_each(model, [feeds], outputs, level)[0]


def run_each(
    model: bytes, feeds: Sequence[Mapping[str, np.ndarray]], outputs: Sequence[str] | None = None, level: Any = NONE
) -> list[list[np.ndarray]]:
    """The outputs of a model for each of several inputs, loaded once. Raises ModelError when ONNX Runtime cannot load or run it."""
    session = open_session(model, level=level)
    wanted = list(outputs) if outputs is not None else None
    try:
        return [session.run(wanted, dict(one), quiet()) for one in feeds]
    except Exception as error:
        raise ModelError(f"ONNX Runtime cannot run the model: {first_line(error)}") from error


def quiet() -> Any:
    """Options of one run without log lines: what fails is raised."""
    options = onnxruntime.RunOptions()
    options.log_severity_level = 4
    return options


def optimise(model: bytes, disabled: Sequence[str] = ()) -> onnx.ModelProto:
    """The model after ONNX Runtime's basic optimizer: constants folded, batch norms fused into convolutions, identities gone."""
    with tempfile.TemporaryDirectory(prefix="he-nn-") as folder:
        options = _options(1, BASIC)
        options.optimized_model_filepath = os.path.join(folder, "optimised.onnx")
        try:
            onnxruntime.InferenceSession(model, options, providers=["CPUExecutionProvider"], disabled_optimizers=list(disabled))
            return onnx.load(options.optimized_model_filepath)
        except Exception as error:
            raise ModelError(f"ONNX Runtime cannot load the model: {first_line(error)}") from error


def first_line(error: BaseException) -> str:
    """The first line of what a library says."""
    lines = str(error).strip().splitlines() or [type(error).__name__]
    return lines[0][:300]


def random_feeds(inputs: Sequence[tuple[str, Sequence[int], str]], seed: int = 0) -> dict[str, np.ndarray]:
    """Normal values for floating inputs, 0 or 1 for integers and booleans (small enough for any table index)."""
    generator = np.random.default_rng(seed)
    feeds = {}
    for name, shape, dtype in inputs:
        if np.dtype(dtype).kind == "f":
            feeds[name] = generator.standard_normal(tuple(shape)).astype(dtype)
        else:
            feeds[name] = generator.integers(0, 2, tuple(shape)).astype(dtype)
    return feeds


def agree(got: np.ndarray, wanted: np.ndarray, tolerance: float = 1e-4) -> bool:
    """Same shape, and equal to `tolerance` relative to the largest magnitude (NaN equals NaN, as from a log of a negative number)."""
    if got.shape != wanted.shape:
        return False
    if np.array_equal(got, wanted):
        return True
    if np.asarray(wanted).dtype.kind not in "fc":
        return False
    got, wanted = np.asarray(got, np.float64), np.asarray(wanted, np.float64)
    finite = np.isfinite(wanted)
    if not np.array_equal(np.isfinite(got), finite) or not np.array_equal(got[~finite], wanted[~finite], equal_nan=True):
        return False
    if not finite.any():
        return True
    scale = max(1.0, float(np.abs(wanted[finite]).max()))
    return float(np.abs(got[finite] - wanted[finite]).max()) <= tolerance * scale
