"""An ONNX network under construction: the layers that the measured networks are made of."""

from __future__ import annotations

from typing import Any, Sequence

import numpy as np
import onnx
from onnx import TensorProto, helper, numpy_helper

OPSET = 17


class Layers:
    """Nodes and weights added one after the other; every method returns the name of its result. Axis 0 counts rows."""

    def __init__(self, name: str, seed: int = 0) -> None:
        self._name, self._random = name, np.random.default_rng(seed)
        self._nodes: list[Any] = []
        self._weights: list[Any] = []

    def random(self, *shape: int, fan_in: int) -> np.ndarray:
        """float32 weights with He's variance of 2 / fan_in (He et al., ICCV 2015, section 2.2), so that values keep their size."""
        return (self._random.standard_normal(shape) * np.sqrt(2.0 / fan_in)).astype(np.float32)

    def constant(self, values: Any) -> str:
        """An array of the model."""
        name = f"c{len(self._weights)}"
        self._weights.append(numpy_helper.from_array(np.asarray(values), name))
        return name

    def node(self, op: str, *inputs: str, **attributes: Any) -> str:
        """Any operator with one output."""
        name = f"{op.lower()}_{len(self._nodes)}"
        self._nodes.append(helper.make_node(op, list(inputs), [name], name=name, **attributes))
        return name

    def conv(
        self, x: str, weight: np.ndarray, bias: np.ndarray, stride: int = 1, pads: Sequence[int] = (0, 0, 0, 0), group: int = 1
    ) -> str:
        """A two-dimensional convolution; pads are top, left, bottom, right."""
        return self.node(
            "Conv", x, self.constant(weight), self.constant(bias), strides=[stride] * 2, pads=list(pads), group=group,
            kernel_shape=list(weight.shape[2:]),
        )  # fmt: skip

    def dense(self, x: str, weight: np.ndarray, bias: np.ndarray) -> str:
        """x @ weight + bias along the last axis; weight [ins, outs]."""
        return self.node("Add", self.node("MatMul", x, self.constant(weight)), self.constant(bias))

    def model(self, inputs: Sequence[tuple[str, Sequence[int]]], output: str, shape: Sequence[int]) -> onnx.ModelProto:
        """The checked model, rows free; `inputs` and `shape` are per row."""

        def info(name: str, extents: Sequence[int]) -> Any:
            return helper.make_tensor_value_info(name, TensorProto.FLOAT, ["rows", *extents])

        ends = [info(name, extents) for name, extents in inputs], [info(output, shape)]
        graph = helper.make_graph(self._nodes, self._name, *ends, self._weights)
        model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", OPSET)])
        model.ir_version = 8
        onnx.checker.check_model(model)
        return model
