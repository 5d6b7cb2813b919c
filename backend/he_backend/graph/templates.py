"""Weighted and pooling operators as blocks: which elements are read together, with which weights, and where the results go.

A template is `Block`s over the operator's own input (source 0) and its own output, plus a bias per output element.
"""

from __future__ import annotations

from typing import Any, NamedTuple, Sequence

import numpy as np

from he_backend.graph import runtime
from he_backend.graph.affine import Block
from he_backend.graph.model import Node, Shape, size_of
from he_backend.graph.onnx_export import to_proto


class Template(NamedTuple):
    """out = bias + blocks(x) over flattened elements."""

    blocks: tuple[Block, ...]
    bias: np.ndarray  # float64 [elements of the output]


def _block(gather: np.ndarray, weights: np.ndarray, scatter: np.ndarray) -> Block:
    return Block(
        0,
        np.ascontiguousarray(gather, np.int32),
        np.ascontiguousarray(weights, np.float64),
        np.ascontiguousarray(scatter, np.int32),
    )


def _numbers(shape: Sequence[int]) -> np.ndarray:
    return np.arange(size_of(shape), dtype=np.int64).reshape(tuple(shape))


def matmul_right(x: Shape, weight: np.ndarray, out: Shape) -> Template:
    """x @ W for a constant W: one group per weight matrix, leading axes as positions."""
    weight = weight[:, None] if weight.ndim == 1 else weight
    reads = _numbers(x) if len(x) > 1 else _numbers(x)[None]
    writes = _numbers((*reads.shape[:-1], weight.shape[-1])) if weight.ndim == 2 else _numbers(_promoted(out, reads, weight))
    return Template((_product(reads, weight, writes),), np.zeros(size_of(out)))


def matmul_left(weight: np.ndarray, x: Shape, out: Shape) -> Template:
    """W @ x for a constant W: (W @ x)ᵀ = xᵀ @ Wᵀ on the same elements."""
    weight = weight[None] if weight.ndim == 1 else weight
    reads = _numbers(x) if len(x) > 1 else _numbers(x)[:, None]
    batch = np.broadcast_shapes(reads.shape[:-2], weight.shape[:-2])
    writes = _numbers((*batch, weight.shape[-2], reads.shape[-1]))
    return Template((_product(reads.swapaxes(-1, -2), weight.swapaxes(-1, -2), writes.swapaxes(-1, -2)),), np.zeros(size_of(out)))


def _promoted(out: Shape, reads: np.ndarray, weight: np.ndarray) -> Shape:
    return (*np.broadcast_shapes(reads.shape[:-2], weight.shape[:-2]), reads.shape[-2], weight.shape[-1])


def _product(reads: np.ndarray, weight: np.ndarray, writes: np.ndarray) -> Block:
    """The block of reads [..., P, K] times weight [..., K, M] into writes [..., P, M], leading axes broadcast."""
    depth, width = weight.shape[-2:]
    matrices = size_of(weight.shape[:-2])
    batch = writes.shape[:-2] if weight.ndim > 2 else ()
    if not batch:
        return _block(reads.reshape(1, -1, depth), weight.reshape(1, depth, width), writes.reshape(1, -1, width))
    reads = np.broadcast_to(reads, (*batch, *reads.shape[-2:])).reshape(-1, reads.shape[-2], depth)
    writes = writes.reshape(-1, writes.shape[-2], width)
    used = np.broadcast_to(_numbers(weight.shape[:-2]), batch).ravel()
    order = np.argsort(used, kind="stable")  # every matrix is used equally often, so the batches sort into equal groups
    return _block(
        reads[order].reshape(matrices, -1, depth), weight.reshape(matrices, depth, width), writes[order].reshape(matrices, -1, width)
    )


class Window(NamedTuple):
    """Spatial geometry of a convolution or pooling, one entry per spatial axis."""

    kernel: tuple[int, ...]
    strides: tuple[int, ...]
    dilations: tuple[int, ...]
    before: tuple[int, ...]  # padding at the beginning; what lies outside the input reads zero
    readable: tuple[int, ...]  # positions of the input, less what negative padding cuts off at the end


def window_of(node: Node, kernel: Sequence[int], spatial: Sequence[int], out: Sequence[int]) -> Window:
    """The window of Conv or a pooling operator on `spatial` extents giving `out` extents."""
    count = len(kernel)
    strides = tuple(int(s) for s in node.attribute("strides", ()) or (1,) * count)
    dilations = tuple(int(d) for d in node.attribute("dilations", ()) or (1,) * count)
    automatic = str(node.attribute("auto_pad", "NOTSET"))
    readable = tuple(int(e) for e in spatial)
    if automatic == "VALID":
        before: tuple[int, ...] = (0,) * count
    elif automatic in ("SAME_UPPER", "SAME_LOWER"):
        if node.op == "Conv":
            reach = [(size - 1) * dilation + 1 for size, dilation in zip(kernel, dilations)]
            totals = [max(0, (wanted - 1) * stride + size - extent) for wanted, stride, size, extent in zip(out, strides, reach, spatial)]
        else:  # ONNX Runtime leaves dilations out, and cuts off where a stride is longer than its window (pool_attributes.h)
            totals = [((extent - 1) // stride) * stride + size - extent for stride, size, extent in zip(strides, kernel, spatial)]
        before = tuple(_first_part(automatic, total) for total in totals)
        readable = tuple(extent + min(0, total - first) for extent, total, first in zip(readable, totals, before))
    else:
        before = tuple(int(p) for p in (node.attribute("pads", ()) or (0,) * (2 * count))[:count])
    return Window(tuple(int(k) for k in kernel), strides, dilations, before, readable)


def _first_part(mode: str, total: int) -> int:
    """Of `total` padding what goes to the beginning; the odd one goes to the end for SAME_UPPER. Halves are cut off towards zero."""
    return int((total if mode == "SAME_UPPER" else total + 1) / 2)


def _axis_reads(window: Window, axis: int, out: int) -> np.ndarray:
    """int64 [out, kernel]: the position along one axis that each tap of each output reads, -1 outside."""
    places = (
        np.arange(out)[:, None] * window.strides[axis] + np.arange(window.kernel[axis])[None] * window.dilations[axis] - window.before[axis]
    )
    return np.where((places >= 0) & (places < window.readable[axis]), places, -1)


def _combine(axes: Sequence[np.ndarray], spatial: Sequence[int]) -> np.ndarray:
    """int64 [positions, taps]: flat positions from one [out, taps] array per axis; -1 where any axis is outside."""
    flat = np.zeros((1, 1), np.int64)
    outside = np.zeros((1, 1), bool)
    for reads, extent in zip(axes, spatial):
        shape = (flat.shape[0] * reads.shape[0], flat.shape[1] * reads.shape[1])
        flat = (flat[:, None, :, None] * extent + np.maximum(reads, 0)[None, :, None, :]).reshape(shape)
        outside = (outside[:, None, :, None] | (reads < 0)[None, :, None, :]).reshape(shape)
    return np.where(outside, -1, flat)


def _channel_gather(reads: np.ndarray, batch: int, channels: int, groups: int, area: int) -> np.ndarray:
    """int64 [groups, batch·positions, channels/groups·taps] from reads [positions, taps] within one channel of `area` elements."""
    base = (_numbers((batch, groups, channels // groups)) * area).transpose(1, 0, 2)  # [G, N, C/G]
    gather = base[:, :, None, :, None] + reads[None, None, :, None, :]
    gather = np.where(np.broadcast_to(reads[None, None, :, None, :] < 0, gather.shape), -1, gather)
    return gather.reshape(groups, batch * len(reads), -1)


def _channel_scatter(positions: np.ndarray, batch: int, channels: int, groups: int, area: int) -> np.ndarray:
    """int64 [groups, batch·positions, channels/groups] of output elements at these flat positions of each channel."""
    base = (_numbers((batch, groups, channels // groups)) * area).transpose(1, 0, 2)
    return (base[:, :, None, :] + positions[None, None, :, None]).reshape(groups, batch * len(positions), -1)


def conv(node: Node, x: Shape, weight: np.ndarray, bias: np.ndarray | None, out: Shape) -> Template:
    """Conv in 1 to 3 dimensions (and more): groups as groups, batch and output positions as positions."""
    groups, spatial = int(node.attribute("group", 1)), x[2:]
    window = window_of(node, weight.shape[2:], spatial, out[2:])
    reads = _combine([_axis_reads(window, a, out[2 + a]) for a in range(len(spatial))], spatial)
    gather = _channel_gather(reads, x[0], x[1], groups, size_of(spatial))
    matrix = weight.reshape(groups, weight.shape[0] // groups, -1).swapaxes(1, 2)  # [G, C/G·taps, M/G]
    area = size_of(out[2:])
    scatter = _channel_scatter(np.arange(area), x[0], out[1], groups, area)
    return Template((_block(gather, matrix, scatter),), _channel_bias(bias, out))


def _channel_bias(bias: np.ndarray | None, out: Shape) -> np.ndarray:
    if bias is None:
        return np.zeros(size_of(out))
    return np.broadcast_to(bias.astype(np.float64).reshape((1, -1) + (1,) * (len(out) - 2)), out).ravel().copy()


def conv_transpose(node: Node, x: Shape, weight: np.ndarray, bias: np.ndarray | None, out: Shape) -> Template:
    """ConvTranspose: output o reads input i through tap k where o = i·stride + k·dilation − padding.

    Output positions fall into phases (o + padding mod stride) that use different taps: one block per combination of phases.
    """
    groups, spatial, channels = int(node.attribute("group", 1)), x[2:], x[1]
    window = _transposed_window(node, weight.shape[2:], spatial)
    phases = [_phases(window, axis, spatial[axis], out[2 + axis]) for axis in range(len(spatial))]
    matrix = weight.reshape(groups, channels // groups, weight.shape[1], -1)  # [G, C/G, M/G, taps]
    area = size_of(out[2:])
    blocks = []
    for choice in np.ndindex(*[len(phase) for phase in phases]):
        chosen = [phase[i] for phase, i in zip(phases, choice)]
        reads = _combine([reads for _, _, reads in chosen], spatial)
        positions = _combine([places[:, None] for places, _, _ in chosen], out[2:])[:, 0]
        taps = _combine([taps[None] for _, taps, _ in chosen], weight.shape[2:])[0]
        part = matrix[:, :, :, taps].transpose(0, 1, 3, 2).reshape(groups, -1, weight.shape[1])
        gather = _channel_gather(reads, x[0], channels, groups, size_of(spatial))
        blocks.append(_block(gather, part, _channel_scatter(positions, x[0], out[1], groups, area)))
    return Template(tuple(blocks), _channel_bias(bias, out))


def _transposed_window(node: Node, kernel: Sequence[int], spatial: Sequence[int]) -> Window:
    """The window of ConvTranspose, whose padding is what the operator takes off: as told, or down to the extents that are asked for.

    As in ONNX Runtime (conv_transpose_attributes.h): `output_shape` counts before `auto_pad`, and nothing is added where it is larger.
    """
    count = len(kernel)
    strides = tuple(int(s) for s in node.attribute("strides", ()) or (1,) * count)
    dilations = tuple(int(d) for d in node.attribute("dilations", ()) or (1,) * count)
    extra = tuple(int(p) for p in node.attribute("output_padding", ()) or (0,) * count)
    mode = str(node.attribute("auto_pad", "NOTSET"))
    wanted = tuple(int(e) for e in node.attribute("output_shape", ()))[-count:]
    if not wanted and mode in ("SAME_UPPER", "SAME_LOWER"):
        wanted = tuple(extent * stride for extent, stride in zip(spatial, strides))
    if wanted:
        whole = [(e - 1) * s + x + (k - 1) * d + 1 for e, s, x, k, d in zip(spatial, strides, extra, kernel, dilations)]
        before = tuple(_first_part(mode, max(0, size - asked)) for size, asked in zip(whole, wanted))
    else:
        before = tuple(int(p) for p in (node.attribute("pads", ()) or (0,) * (2 * count))[:count])
    return Window(tuple(int(k) for k in kernel), strides, dilations, before, tuple(int(e) for e in spatial))


def _phases(window: Window, axis: int, extent: int, out: int) -> list[tuple[np.ndarray, np.ndarray, np.ndarray]]:
    """Per phase: output positions, taps used, and reads [positions, taps]. Positions that no tap reaches are in no phase."""
    found = []
    stride, taps = window.strides[axis], np.arange(window.kernel[axis])
    for phase in range(min(stride, out)):
        places = np.arange(phase, out, stride)
        used = taps[(phase + window.before[axis] - taps * window.dilations[axis]) % stride == 0]
        if not len(used):
            continue
        reads = (places[:, None] + window.before[axis] - used[None] * window.dilations[axis]) // stride
        found.append((places, used, np.where((reads >= 0) & (reads < extent), reads, -1)))
    return found


def pooling(node: Node, x: Shape, out: Shape, axes: Sequence[int], opset: int, extra: Any) -> Template:
    """AveragePool, GlobalAveragePool, ReduceMean and ReduceSum. `axes` are those reduced; `extra` their constant operands."""
    if node.op == "AveragePool":
        window = window_of(node, node.attribute("kernel_shape"), x[2:], out[2:])
        reads = _combine([_axis_reads(window, a, out[2 + a]) for a in range(len(x) - 2)], x[2:])
        gather = _channel_gather(reads, 1, x[0] * x[1], x[0] * x[1], size_of(x[2:]))
        area = size_of(out[2:])
        scatter = _channel_scatter(np.arange(area), 1, x[0] * x[1], x[0] * x[1], area)
    else:
        kept = [a for a in range(len(x)) if a not in axes]
        gather = _numbers(x).transpose(*kept, *axes).reshape(size_of(out), 1, -1)
        scatter = _numbers((size_of(out), 1, 1))
    ones = np.ones(x, np.float32)
    fed = [name for name in node.inputs if name and name in extra]
    model = to_proto([node], [(node.inputs[0], x, "float32")], [(node.outputs[0], out, "float32")], {n: extra[n] for n in fed}, opset)
    total = runtime.run(model.SerializeToString(), {node.inputs[0]: ones})[0].astype(np.float64).ravel()
    # How many elements an output averages over (or 1 for a sum) is what ONNX Runtime makes of an input of ones.
    factor = total[scatter[:, :, 0]] / np.maximum(1, np.count_nonzero(gather >= 0, axis=2))  # [G, P]
    if np.all(factor == factor.flat[0]):
        weights = np.full((gather.shape[0], gather.shape[2], 1), factor.flat[0])
        return Template((_block(gather, weights, scatter),), np.zeros(size_of(out)))
    flat = gather.reshape(-1, 1, gather.shape[2])
    weights = np.repeat(factor.reshape(-1, 1, 1), gather.shape[2], axis=1)
    return Template((_block(flat, weights, scatter.reshape(-1, 1, 1)),), np.zeros(size_of(out)))
