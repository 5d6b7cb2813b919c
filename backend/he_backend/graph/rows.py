"""Which axis counts rows, and the model fixed to one row.

Axis 0 of the inputs counts rows when its size is open or 1, or when running the model on each row alone gives the same answers as running
it on all. Otherwise (a softmax over axis 0, a matrix as the input) a whole input tensor is one row.
"""

from __future__ import annotations

from typing import Any, Mapping, NamedTuple, Sequence

import numpy as np
import onnx
from onnx import helper, numpy_helper

from he_backend.errors import ModelError
from he_backend.graph import runtime
from he_backend.graph.element_types import numpy_type
from he_backend.graph.onnx_read import open_sizes
from he_backend.graph.operators import opset_of

Inputs = Sequence["tuple[str, tuple[int, ...], str]"]
_TYPES = ("float16", "float32", "float64", "int8", "int16", "int32", "int64", "uint8", "uint16", "uint32", "uint64", "bool")


class MixedRows(ModelError):
    """Axis 0 is open, so it should count rows, but the rows change each other's results."""


class OneRow(NamedTuple):
    """The model on one row, its inputs (name, shape, numpy type), and whether axis 0 counts rows."""

    model: onnx.ModelProto
    inputs: Inputs
    row_wise: bool


def one_row(model: onnx.ModelProto, dims: Mapping[str, int]) -> OneRow:
    """Fix every input to one row. `dims` gives sizes for symbolic axes, by symbol or as "input:axis".

    Raises ModelError when an axis other than the row axis has no size, an input is not an array of numbers, or rows of an open batch
    change each other's results.
    """
    sizes = _input_sizes(model, dims)
    types = {value.name: _numpy_type(value) for value in model.graph.input}
    open_rows = [name for name, shape in sizes.items() if shape and shape[0] is None]
    fixed = {name: tuple(1 if size is None else size for size in shape) for name, shape in sizes.items()}
    whole = _with_inputs(model, fixed)
    inputs = [(name, shape, types[name]) for name, shape in fixed.items()]
    if open_rows:
        _check_rows_apart(model, inputs, open_rows)
        return OneRow(whole, inputs, True)
    firsts = {shape[0] if shape else 0 for shape in fixed.values()}
    if firsts == {1}:
        return OneRow(whole, inputs, True)
    if len(firsts) == 1 and all(len(shape) > 1 for shape in fixed.values()):
        alone = _rows_of_fixed_batch(model, inputs, firsts.pop())
        if alone is not None:
            return alone
    return OneRow(whole, inputs, False)


def _numpy_type(value: onnx.ValueInfoProto) -> str:
    kind = value.type.WhichOneof("value")
    if kind != "tensor_type":
        raise ModelError(f"input {value.name!r} is a {kind or 'value without a type'}; only arrays of numbers can be encrypted")
    try:
        name = numpy_type(value.type.tensor_type.elem_type)
    except (KeyError, TypeError):
        name = "unknown"
    if name not in _TYPES:
        raise ModelError(f"input {value.name!r} has element type {name}; allowed: {', '.join(_TYPES)}")
    return name


def _input_sizes(model: onnx.ModelProto, dims: Mapping[str, int]) -> dict[str, tuple[Any, ...]]:
    """Shapes of the inputs, None for an open axis 0."""
    if not len(model.graph.input):
        raise ModelError("the model has no inputs: there is nothing to encrypt")
    for key, size in dims.items():
        if isinstance(size, bool) or not isinstance(size, (int, np.integer)) or size < 1:
            raise ModelError(f"dims[{key!r}] is {size!r}; it must be a positive integer")
    found: dict[str, tuple[Any, ...]] = {}
    missing = False
    for value in model.graph.input:
        _numpy_type(value)
        if not value.type.tensor_type.HasField("shape"):
            raise ModelError(f"input {value.name!r} has no shape; export the model with input shapes")
        shape: list[Any] = []
        for axis, extent in enumerate(value.type.tensor_type.shape.dim):
            symbol = extent.dim_param
            given = dims.get(f"{value.name}:{axis}", dims.get(symbol) if symbol else None)
            if extent.HasField("dim_value") and extent.dim_value > 0:
                shape.append(int(extent.dim_value))
            elif given is not None:
                shape.append(int(given))
            elif axis == 0:
                shape.append(None)
            else:
                missing = True
        found[value.name] = tuple(shape)
    if missing:
        raise ModelError(open_sizes(model, dims))
    return found


def _with_inputs(model: onnx.ModelProto, shapes: Mapping[str, Sequence[Any]]) -> onnx.ModelProto:
    """The model with these input shapes (a string is a symbol); shapes stated for other values are dropped, they may no longer hold."""
    changed = onnx.ModelProto()
    changed.CopyFrom(model)
    del changed.graph.value_info[:]
    for value in changed.graph.input:
        value.CopyFrom(helper.make_tensor_value_info(value.name, value.type.tensor_type.elem_type, list(shapes[value.name])))
    for value in changed.graph.output:
        if value.type.WhichOneof("value") == "tensor_type":
            value.type.tensor_type.ClearField("shape")
    return changed


def _check_rows_apart(model: onnx.ModelProto, inputs: Inputs, open_rows: Sequence[str]) -> None:
    """Three rows at once and one by one must agree, when the model runs on three rows at all."""
    symbolic = {name: (("rows",) if name in open_rows else shape[:1]) + shape[1:] for name, shape, _ in inputs}
    blob = _with_inputs(model, symbolic).SerializeToString()
    feeds = runtime.random_feeds([(n, ((3, *s[1:]) if n in open_rows else s), t) for n, s, t in inputs])
    apart = runtime.run_each(blob, [{n: (v[i : i + 1] if n in open_rows else v) for n, v in feeds.items()} for i in range(3)])
    try:
        together = runtime.run(blob, feeds)
    except ModelError:
        return  # made for one row only; the splitter runs it row by row
    for position, output in enumerate(model.graph.output):
        if not _splits_into(together[position], [rows[position] for rows in apart]):
            raise MixedRows(
                f"output {output.name!r}: the rows of a batch change each other's results (axis 0 of the input is open, so it counts "
                "rows); give that axis a size, in the export or by dims, and a whole input becomes one row"
            )


def _splits_into(together: Any, apart: Sequence[Any]) -> bool:
    """Whether one axis of `together` is the rows, each equal to its own run."""
    if not isinstance(together, np.ndarray) or together.ndim != apart[0].ndim:
        return not isinstance(together, np.ndarray)
    axes = [a for a in range(together.ndim) if together.shape[a] == sum(part.shape[a] for part in apart)]
    for axis in axes:
        if np.delete(together.shape, axis).tolist() != np.delete(apart[0].shape, axis).tolist():
            continue
        if runtime.agree(np.concatenate(list(apart), axis=axis), together):
            return True
    return False


def _rows_of_fixed_batch(model: onnx.ModelProto, inputs: Inputs, batch: int) -> OneRow | None:
    """The model on one row when its axis 0, of size `batch`, turns out to count rows; None when rows mix or it cannot run so."""
    single = [(name, (1, *shape[1:]), dtype) for name, shape, dtype in inputs]
    candidate = _with_inputs(_free_reshapes(model, batch), {name: shape for name, shape, _ in single})
    feeds = runtime.random_feeds(inputs)
    try:
        together = runtime.run(_with_inputs(model, {n: s for n, s, _ in inputs}).SerializeToString(), feeds)
        blob = candidate.SerializeToString()
        some = sorted({0, batch // 2, batch - 1})
        apart = runtime.run_each(blob, [{name: value[i : i + 1] for name, value in feeds.items()} for i in some])
    except ModelError:
        return None
    for whole, rows in zip(together, zip(*apart)):
        if whole.ndim == 0 or whole.shape[0] != batch:
            return None
        if not all(runtime.agree(row, whole[i : i + 1]) for i, row in zip(some, rows)):
            return None
    return OneRow(candidate, single, True)


def free_rows(model: onnx.ModelProto) -> onnx.ModelProto:
    """A model on one row with axis 0 of its inputs left open. Callers compare results before they trust it."""
    opened = _free_reshapes(model, 1)
    shapes = {v.name: ["rows", *(int(d.dim_value) for d in v.type.tensor_type.shape.dim[1:])] for v in opened.graph.input}
    return _with_inputs(opened, shapes)


def _free_reshapes(model: onnx.ModelProto, batch: int) -> onnx.ModelProto:
    """Reshape to [batch, …] becomes Reshape to [0, …]: axis 0 as it comes. Callers compare results before they trust it."""
    changed = onnx.ModelProto()
    changed.CopyFrom(model)
    tensors = {tensor.name: tensor for tensor in changed.graph.initializer}
    for node in changed.graph.node:
        if node.op_type == "Constant" and node.attribute and node.attribute[0].name == "value":
            tensors[node.output[0]] = node.attribute[0].t
    for node in list(changed.graph.node):
        if node.op_type != "Reshape" or len(node.input) < 2 or node.input[1] not in tensors:
            continue
        shape = numpy_helper.to_array(tensors[node.input[1]]).astype(np.int64).ravel()
        if not len(shape) or shape[0] != batch or any(a.name == "allowzero" and a.i for a in node.attribute):
            continue
        name = f"{node.input[1]}/{node.output[0]}/rows"
        changed.graph.initializer.append(numpy_helper.from_array(np.concatenate([[0], shape[1:]]).astype(np.int64), name))
        node.input[1] = name
    assert opset_of(changed) == opset_of(model)
    return changed
