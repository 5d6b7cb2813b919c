"""Random feed-forward networks as ONNX, for every test that compares a network with ONNX Runtime.

`networks()` is the hypothesis strategy; `rows_for` makes rows for a network; `plain` runs ONNX Runtime on them.
"""

from __future__ import annotations

import numpy as np
import onnx
import onnxruntime
from hypothesis import strategies as st
from onnx import TensorProto, helper, numpy_helper

OPSET = 17
OLD_RUNTIME = tuple(int(part) for part in onnxruntime.__version__.split(".")[:2]) < (1, 20)


class NetworkBuilder:
    """An ONNX network under construction. `value` and `shape` are the last result; axis 0 counts rows ("rows", 1 in `shape`)."""

    def __init__(self, shape, seed=0, opset=OPSET):
        self.nodes, self.constants = [], []
        self.value, self.shape = "x", (1, *shape)
        self.random = np.random.default_rng(seed)
        self.input_shape, self.opset, self._count = tuple(shape), opset, 0

    def constant(self, array):
        self._count += 1
        name = f"c{self._count}"
        self.constants.append(numpy_helper.from_array(np.asarray(array), name))
        return name

    def weights(self, *shape, scale=1.0):
        return self.constant((self.random.standard_normal(shape) * scale).astype(np.float32))

    def add(self, op, inputs, shape, **attributes):
        """One more node; its first output becomes the last result."""
        self._count += 1
        name = f"v{self._count}"
        self.nodes.append(helper.make_node(op, inputs, [name], name=f"{op}_{self._count}", **attributes))
        self.value, self.shape = name, tuple(shape)
        return name

    def apply(self, op, *more, shape=None, **attributes):
        """A node on the last result that keeps its shape, unless told otherwise."""
        return self.add(op, [self.value, *more], self.shape if shape is None else shape, **attributes)

    def model(self):
        inputs = [helper.make_tensor_value_info("x", TensorProto.FLOAT, ["rows", *self.input_shape])]
        outputs = [helper.make_tensor_value_info(self.value, TensorProto.FLOAT, ["rows", *self.shape[1:]])]
        graph = helper.make_graph(self.nodes, "random", inputs, outputs, self.constants)
        model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", self.opset)])
        model.ir_version = 8
        onnx.checker.check_model(model)
        return model


def rows_for(model, rows=3, seed=0):
    """Normal rows [rows, *shape] for the one input of a network."""
    shape = [d.dim_value for d in model.graph.input[0].type.tensor_type.shape.dim[1:]]
    return np.random.default_rng(seed).standard_normal((rows, *shape)).astype(np.float32)


def plain(model, rows, optimise=True):
    """The first output of ONNX Runtime, which knows nothing of splitting; `optimise` off where its fusions break the model."""
    options = onnxruntime.SessionOptions()
    if not optimise:
        options.graph_optimization_level = onnxruntime.GraphOptimizationLevel.ORT_DISABLE_ALL
    session = onnxruntime.InferenceSession(model.SerializeToString(), options, providers=["CPUExecutionProvider"])
    return session.run(None, {session.get_inputs()[0].name: rows})[0]


def _conv_extent(extent, kernel, stride, dilation, pads):
    return (extent + pads[0] + pads[1] - (kernel - 1) * dilation - 1) // stride + 1


def _conv(draw, net):
    channels, spatial = net.shape[1], net.shape[2:]
    groups = draw(st.sampled_from([g for g in (1, 1, 2, channels) if channels % g == 0]))
    out = groups * draw(st.integers(1, 3))
    kernel = [draw(st.integers(1, min(3, extent))) for extent in spatial]
    strides = [draw(st.integers(1, 3)) for _ in spatial]
    automatic = draw(st.sampled_from(["NOTSET", "NOTSET", "NOTSET", "SAME_UPPER", "SAME_LOWER", "VALID"]))
    attributes = {"group": groups, "kernel_shape": kernel, "strides": strides}
    if automatic == "NOTSET":
        dilations = [draw(st.integers(1, 2)) for _ in spatial]
        pads = [(draw(st.integers(0, 2)), draw(st.integers(0, 2))) for _ in spatial]
        fits = [_conv_extent(e, k, 1, d, p) >= 1 for e, k, d, p in zip(spatial, kernel, dilations, pads)]
        dilations = [d if fit else 1 for d, fit in zip(dilations, fits)]
        attributes.update(dilations=dilations, pads=[p[0] for p in pads] + [p[1] for p in pads])
        extents = [_conv_extent(*all_of) for all_of in zip(spatial, kernel, strides, dilations, pads)]
    else:
        attributes["auto_pad"] = automatic
        if automatic != "VALID":  # ONNX Runtime 1.16 skips columns where a stride is longer than its window
            strides = attributes["strides"] = [min(one) for one in zip(strides, kernel)]
        extents = [-(-e // s) if automatic != "VALID" else (e - k) // s + 1 for e, k, s in zip(spatial, kernel, strides)]
    fan = channels // groups * int(np.prod(kernel))
    inputs = [net.weights(out, channels // groups, *kernel, scale=fan**-0.5)]
    if draw(st.booleans()):
        inputs.append(net.weights(out, scale=0.5))
    net.apply("Conv", *inputs, shape=(1, out, *extents), **attributes)


def _conv_transpose(draw, net):
    channels, spatial = net.shape[1], net.shape[2:]
    out = draw(st.integers(1, 3))
    kernel = [draw(st.integers(1, 3)) for _ in spatial]
    strides = [draw(st.integers(1, 3)) for _ in spatial]
    pads = [draw(st.integers(0, k - 1)) if e > 1 else 0 for k, e in zip(kernel, spatial)]
    pads = [p if (e - 1) * s + k > 2 * p else 0 for p, e, s, k in zip(pads, spatial, strides, kernel)]
    extra = [draw(st.integers(0, s - 1)) for s in strides]
    extents = [(e - 1) * s + k - 2 * p + x for e, s, k, p, x in zip(spatial, strides, kernel, pads, extra)]
    net.apply(
        "ConvTranspose", net.weights(channels, out, *kernel, scale=0.4), net.weights(out, scale=0.3),
        shape=(1, out, *extents), kernel_shape=kernel, strides=strides, pads=pads * 2, output_padding=extra,
    )  # fmt: skip


def _dense(draw, net):
    depth, width = net.shape[-1], draw(st.integers(1, 8))
    kind = draw(st.sampled_from(["Gemm", "MatMul"] if len(net.shape) == 2 else ["MatMul"]))
    if kind == "MatMul":
        net.apply("MatMul", net.weights(depth, width, scale=depth**-0.5), shape=(*net.shape[:-1], width))
        if draw(st.booleans()):
            net.apply("Add", net.weights(width))
        return
    transposed = draw(st.booleans())
    weight = net.weights(*((width, depth) if transposed else (depth, width)), scale=depth**-0.5)
    attributes = {"transB": int(transposed), "alpha": draw(st.sampled_from([1.0, 0.5])), "beta": draw(st.sampled_from([1.0, 2.0]))}
    net.apply("Gemm", weight, *([net.weights(width)] if draw(st.booleans()) else []), shape=(1, width), **attributes)


def _left_product(draw, net):
    rows = draw(st.integers(1, 5))
    weight = net.weights(rows, net.shape[-2], scale=net.shape[-2] ** -0.5)
    net.add("MatMul", [weight, net.value], (*net.shape[:-2], rows, net.shape[-1]))


def _scale(draw, net):
    """A product, sum, difference or quotient with a constant per channel, per element, or with one number."""
    rank = len(net.shape)
    shape = draw(st.sampled_from([(net.shape[1],) + (1,) * (rank - 2), net.shape[1:], (1,), ()]))
    op = draw(st.sampled_from(["Add", "Sub", "Mul", "Div"]))
    values = net.random.uniform(0.5, 1.5, shape) * net.random.choice([-1, 1], shape)
    name = net.constant(values.astype(np.float32))
    net.add(op, [name, net.value] if op in ("Add", "Sub", "Mul") and draw(st.booleans()) else [net.value, name], net.shape)


def _activation(draw, net):
    op = draw(st.sampled_from(["Relu", "Relu", "Tanh", "Sigmoid", "LeakyRelu", "Clip", "PRelu", "Softplus", "square"]))
    if op == "square":
        net.add("Mul", [net.value, net.value], net.shape)
    elif op == "Clip":
        net.apply("Clip", net.constant(np.float32(-0.5)), net.constant(np.float32(2.0)))
    elif op == "PRelu":
        net.apply("PRelu", net.weights(net.shape[1], *([1] * (len(net.shape) - 2)), scale=0.3))
    else:
        net.apply(op)


def _batch_norm(draw, net):
    channels = net.shape[1]
    spread = net.constant(net.random.uniform(0.5, 2.0, channels).astype(np.float32))
    net.apply("BatchNormalization", net.weights(channels), net.weights(channels), net.weights(channels), spread)


def _layer_norm(draw, net):
    net.apply("LayerNormalization", net.weights(net.shape[-1]), net.weights(net.shape[-1]), axis=-1)


def _pool(draw, net):
    spatial = net.shape[2:]
    op = draw(st.sampled_from(["MaxPool", "AveragePool", "AveragePool", "GlobalAveragePool"]))
    if op == "GlobalAveragePool":
        net.apply(op, shape=(*net.shape[:2], *([1] * len(spatial))))
        return
    kernel = [draw(st.integers(1, min(3, e))) for e in spatial]
    strides = [draw(st.integers(1, 2)) for _ in spatial]
    pads = [draw(st.integers(0, k // 2)) for k in kernel]
    extents = [(e + 2 * p - k) // s + 1 for e, k, s, p in zip(spatial, kernel, strides, pads)]
    attributes = {"kernel_shape": kernel, "strides": strides, "pads": pads * 2}
    if op == "AveragePool":
        attributes["count_include_pad"] = draw(st.integers(0, 1))
    net.apply(op, shape=(*net.shape[:2], *extents), **attributes)


def _residual(draw, net):
    """x + f(x), where f keeps the shape: a dense layer or a same-padded convolution, perhaps with an activation."""
    start, shape = net.value, net.shape
    if draw(st.booleans()):
        _activation(draw, net)
    if len(shape) == 2 or draw(st.booleans()):
        net.apply("MatMul", net.weights(shape[-1], shape[-1], scale=shape[-1] ** -0.5))
    else:
        size = [3] * (len(shape) - 2)
        net.apply("Conv", net.weights(shape[1], shape[1], *size, scale=0.3), kernel_shape=size, pads=[1] * (2 * len(size)))
    if draw(st.booleans()):
        _activation(draw, net)
    net.add(draw(st.sampled_from(["Add", "Add", "Sub"])), [net.value, start], shape)


def _branches(draw, net):
    """Two results side by side along axis 1."""
    start, shape = net.value, net.shape
    (_dense if len(shape) != 4 else _activation)(draw, net)
    first, first_shape = net.value, net.shape
    net.value, net.shape = start, shape
    net.apply("MatMul", net.weights(shape[-1], first_shape[-1], scale=0.5), shape=(*shape[:-1], first_shape[-1]))
    net.add("Concat", [first, net.value], (1, shape[1] * 2 if len(shape) > 2 else 2 * first_shape[1], *first_shape[2:]), axis=1)


def _move(draw, net):
    """Data movement: transpose, pad, slice or flatten."""
    kinds = ["pad", "slice"] + (["transpose", "flatten", "upsample"] if len(net.shape) > 2 else [])
    kind, rank = draw(st.sampled_from(kinds)), len(net.shape)
    if kind == "transpose":
        order = [0, *draw(st.permutations(range(1, rank)))]
        net.apply("Transpose", shape=[net.shape[i] for i in order], perm=order)
    elif kind == "flatten":
        net.apply("Flatten", shape=(1, int(np.prod(net.shape))), axis=1)
    elif kind == "pad":
        before, after = ([0] + [draw(st.integers(0, 1)) for _ in range(rank - 1)] for _ in range(2))
        shape = [e + b + a for e, b, a in zip(net.shape, before, after)]
        net.apply("Pad", net.constant(np.array(before + after, np.int64)), shape=shape)
    elif kind == "upsample":
        scales = [1.0, 1.0] + [2.0] * (rank - 2)
        empty = net.constant(np.zeros(0, np.float32))
        shape = [int(e * s) for e, s in zip(net.shape, scales)]
        net.apply("Resize", empty, net.constant(np.array(scales, np.float32)), shape=shape, mode="nearest")
    else:
        axis = draw(st.integers(1, rank - 1))
        start = draw(st.integers(0, net.shape[axis] - 1))
        numbers = [net.constant(np.array([i], np.int64)) for i in (start, net.shape[axis], axis)]
        net.apply("Slice", *numbers, shape=[net.shape[axis] - start if i == axis else e for i, e in enumerate(net.shape)])


def _choices(net):
    """The layers that fit the last result."""
    layers = [_dense, _scale, _scale, _activation, _activation, _batch_norm, _layer_norm, _residual, _branches, _move]
    if len(net.shape) > 2:
        layers += [_conv, _conv, _conv, _pool, _conv_transpose, _left_product]
    return layers


_MOST_ELEMENTS = 600


@st.composite
def networks(draw, most_layers=6):
    """A ModelProto with one input [rows, …] and one output: dense layers, convolutions, residuals, pools, normalisations, …"""
    shape = draw(st.sampled_from([(6,), (3, 5), (2, 9), (2, 5, 6), (3, 7, 4), (1, 6, 6)]))
    net = NetworkBuilder(shape, draw(st.integers(0, 1 << 16)))
    for _ in range(draw(st.integers(1, most_layers))):
        if int(np.prod(net.shape)) > _MOST_ELEMENTS or 0 in net.shape:
            break
        draw(st.sampled_from(_choices(net)))(draw, net)
    if draw(st.booleans()):
        net.apply("Softmax", axis=-1)
    return net.model()
