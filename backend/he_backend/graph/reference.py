"""The plain network in ONNX Runtime: what encrypted results are compared with, in values and in time."""

from __future__ import annotations

from typing import Any

import numpy as np
import onnx

from he_backend.errors import ModelError
from he_backend.graph import runtime
from he_backend.graph.interpret import Rows, by_name
from he_backend.graph.model import row_shape
from he_backend.graph.program import Program
from he_backend.graph.rows import free_rows

_ROWS = 3
_AT_ONCE = 1 << 24  # input elements of one call


class Reference:
    """The original model on rows, all at once where it gives what each row gives alone, otherwise row by row."""

    def __init__(self, model: Program | Any, threads: int = 1) -> None:
        if not isinstance(model, Program):
            from he_backend.graph.convert import convert

            model = convert(model)
        self._program: Program = model
        self._shapes = {v.name: tuple(int(d.dim_value) for d in v.type.tensor_type.shape.dim) for v in _inputs(model.source)}
        self._single = runtime.open_session(model.source, max(1, threads))
        self._batched = self._open_batched(max(1, threads))

    @property
    def batched(self) -> bool:
        """Whether one call computes many rows."""
        return self._batched is not None

    def run(self, rows: Rows) -> dict[str, np.ndarray]:
        """Output name -> [rows, *shape] for rows [rows, *shape] of the one input, or by input name."""
        values = {spec.name: array.astype(spec.dtype, copy=False) for spec, array in self._given(rows)}
        count = len(next(iter(values.values())))
        each = sum(int(np.prod(array.shape[1:], dtype=np.int64)) for array in values.values())
        chunk = max(1, _AT_ONCE // max(1, each)) if self.batched else 1
        parts = [self._run({n: v[i : i + chunk] for n, v in values.items()}) for i in range(0, count, chunk)]
        names = [spec.name for spec in self._program.outputs]
        return {name: np.concatenate([part[i] for part in parts]) for i, name in enumerate(names)}

    def _given(self, rows: Rows) -> list[tuple[Any, np.ndarray]]:
        values = by_name(self._program, rows)
        return [(spec, values[spec.name]) for spec in self._program.inputs]

    def _run(self, values: dict[str, np.ndarray]) -> list[np.ndarray]:
        if self._batched is not None:
            return self._batched.run([spec.name for spec in self._program.outputs], values)
        return self._row(values)

    def _row(self, values: dict[str, np.ndarray]) -> list[np.ndarray]:
        feeds = {name: value.reshape(self._shapes[name]) for name, value in values.items()}
        results = self._single.run([spec.name for spec in self._program.outputs], feeds)
        return [result.reshape(1, *row_shape(result.shape)) for result in results]

    def _open_batched(self, threads: int) -> Any:
        """A session on many rows, when every input has a row axis and three rows agree with each of them alone."""
        if any(not shape or shape[0] != 1 for shape in self._shapes.values()):
            return None
        names = [spec.name for spec in self._program.outputs]
        feeds = runtime.random_feeds([(s.name, (_ROWS, *s.shape), s.dtype) for s in self._program.inputs])
        try:
            session = runtime.open_session(free_rows(onnx.ModelProto.FromString(self._program.source)).SerializeToString(), threads)
            together = session.run(names, feeds, runtime.quiet())
        except Exception:  # noqa: BLE001 - made for one row: ONNX Runtime may object in any way
            return None
        apart = [self._row({n: v[i : i + 1] for n, v in feeds.items()}) for i in range(_ROWS)]
        for spec, whole, *rows in zip(self._program.outputs, together, *apart):
            if whole.shape != (_ROWS, *spec.shape) or not runtime.agree(whole, np.concatenate(rows)):
                return None
        return session


def _inputs(model: bytes) -> Any:
    if not model:
        raise ModelError("this program has no source model; make it with convert()")
    return onnx.ModelProto.FromString(model).graph.input
