"""ONNX operators in torch, differentiable: those that exporters make of the networks of the zoo and of networks like them."""

from __future__ import annotations

from typing import Any, Callable, Mapping, Sequence

from he_backend.errors import ModelError

Values = Sequence[Any]
Attributes = Mapping[str, Any]


def operators() -> Mapping[str, Callable[[Values, Attributes], Any]]:
    """By operator name: inputs (None where left out) and attributes -> the first output."""
    import torch
    from torch.nn import functional as F

    types = {1: torch.float32, 6: torch.int32, 7: torch.int64, 9: torch.bool, 10: torch.float16, 11: torch.float64}

    def axes(values: Values, attributes: Attributes) -> list[int] | None:
        """Axes of a reduction, an attribute before opset 13 (18) and an input after."""
        given = attributes.get("axes")
        if given is None and len(values) > 1 and values[1] is not None:
            given = values[1].tolist()
        return None if given is None else [int(axis) for axis in given]

    def reduction(kind: str) -> Callable[[Values, Attributes], Any]:
        def run(values: Values, attributes: Attributes) -> Any:
            dims = axes(values, attributes)
            keep = bool(attributes.get("keepdims", 1))
            return getattr(torch, kind)(values[0], dim=list(range(values[0].dim())) if dims is None else dims, keepdim=keep)

        return run

    def convolve(values: Values, attributes: Attributes) -> Any:
        x = _padded(values[0], attributes, 0.0)
        functions = {3: F.conv1d, 4: F.conv2d, 5: F.conv3d}
        return functions[x.dim()](
            x,
            values[1],
            values[2] if len(values) > 2 else None,
            attributes.get("strides", 1),
            0,
            attributes.get("dilations", 1),
            attributes.get("group", 1),
        )

    def gemm(values: Values, attributes: Attributes) -> Any:
        left = values[0].T if attributes.get("transA") else values[0]
        right = values[1].T if attributes.get("transB") else values[1]
        product = attributes.get("alpha", 1.0) * (left @ right)
        return product + attributes.get("beta", 1.0) * values[2] if len(values) > 2 and values[2] is not None else product

    def reshape(values: Values, attributes: Attributes) -> Any:
        shape = [values[0].shape[i] if size == 0 and not attributes.get("allowzero") else size for i, size in enumerate(values[1].tolist())]
        return values[0].reshape(shape)

    def gather(values: Values, attributes: Attributes) -> Any:
        axis, indices = attributes.get("axis", 0), values[1].to(torch.int64)
        if axis == 0:
            return values[0][indices]
        moved = values[0].movedim(axis, 0)[indices]
        return moved.movedim(tuple(range(indices.dim())), tuple(range(axis, axis + indices.dim())))

    def cut(values: Values, attributes: Attributes) -> Any:
        starts, ends = values[1].tolist(), values[2].tolist()
        dims = values[3].tolist() if len(values) > 3 and values[3] is not None else range(len(starts))
        steps = values[4].tolist() if len(values) > 4 and values[4] is not None else [1] * len(starts)
        chosen = [slice(None)] * values[0].dim()
        for start, end, dim, step in zip(starts, ends, dims, steps):
            if step < 1:
                raise ModelError("a Slice goes backwards, which cannot be trained here")
            chosen[dim] = slice(start, end, step)
        return values[0][tuple(chosen)]

    def layer_norm(values: Values, attributes: Attributes) -> Any:
        axis = attributes.get("axis", -1) % values[0].dim()
        return F.layer_norm(
            values[0], values[0].shape[axis:], values[1], values[2] if len(values) > 2 else None, attributes.get("epsilon", 1e-5)
        )

    def batch_norm(values: Values, attributes: Attributes) -> Any:
        return F.batch_norm(values[0], values[3], values[4], values[1], values[2], eps=attributes.get("epsilon", 1e-5))

    def fill(values: Values, attributes: Attributes) -> Any:
        from onnx import numpy_helper

        value = attributes.get("value")
        number = 0.0 if value is None else numpy_helper.to_array(value).reshape(-1)[0].item()
        return torch.full(values[0].tolist(), number)

    def flatten(values: Values, attributes: Attributes) -> Any:
        axis = attributes.get("axis", 1)
        rows = 1
        for size in values[0].shape[:axis]:
            rows *= size
        return values[0].reshape(rows, -1)

    def unsqueeze(values: Values, attributes: Attributes) -> Any:
        result, dims = values[0], axes(values, attributes) or []
        rank = result.dim() + len(dims)
        for dim in sorted(dim % rank for dim in dims):
            result = result.unsqueeze(dim)
        return result

    def squeeze(values: Values, attributes: Attributes) -> Any:
        dims = axes(values, attributes)
        return values[0].squeeze() if dims is None else values[0].squeeze(tuple(dims))

    def transpose(values: Values, attributes: Attributes) -> Any:
        return values[0].permute(attributes.get("perm") or list(range(values[0].dim()))[::-1])

    def quotient(values: Values, attributes: Attributes) -> Any:
        whole = not values[0].is_floating_point() and not values[1].is_floating_point()
        return torch.div(values[0], values[1], rounding_mode="trunc" if whole else None)

    return {
        "Add": lambda v, a: v[0] + v[1],
        "AveragePool": lambda v, a: average_pool(v[0], a),
        "BatchNormalization": batch_norm,
        "Cast": lambda v, a: v[0].to(types[a["to"]]),
        "Concat": lambda v, a: torch.cat([*v], dim=a["axis"]),
        "ConstantOfShape": fill,
        "Conv": convolve,
        "Div": quotient,
        "Dropout": lambda v, a: v[0],
        "Equal": lambda v, a: v[0] == v[1],
        "Erf": lambda v, a: torch.erf(v[0]),
        "Expand": lambda v, a: v[0] * torch.ones(v[1].tolist(), dtype=v[0].dtype),
        "Flatten": flatten,
        "Gather": gather,
        "Gelu": lambda v, a: F.gelu(v[0], approximate=_word(a.get("approximate", "none"))),
        "Gemm": gemm,
        "GlobalAveragePool": lambda v, a: v[0].mean(dim=tuple(range(2, v[0].dim())), keepdim=True),
        "Identity": lambda v, a: v[0],
        "LayerNormalization": layer_norm,
        "LeakyRelu": lambda v, a: F.leaky_relu(v[0], a.get("alpha", 0.01)),
        "MatMul": lambda v, a: v[0] @ v[1],
        "MaxPool": lambda v, a: max_pool(v[0], a),
        "Mul": lambda v, a: v[0] * v[1],
        "Neg": lambda v, a: -v[0],
        "Not": lambda v, a: ~v[0],
        "Pow": lambda v, a: v[0] ** v[1],
        "ReduceMean": reduction("mean"),
        "ReduceSum": reduction("sum"),
        "Relu": lambda v, a: F.relu(v[0]),
        "Reshape": reshape,
        "Shape": lambda v, a: torch.tensor(v[0].shape, dtype=torch.int64),
        "Sigmoid": lambda v, a: torch.sigmoid(v[0]),
        "Slice": cut,
        "Softmax": lambda v, a: F.softmax(v[0], dim=a.get("axis", -1)),
        "Sqrt": lambda v, a: torch.sqrt(v[0]),
        "Squeeze": squeeze,
        "Sub": lambda v, a: v[0] - v[1],
        "Tanh": lambda v, a: torch.tanh(v[0]),
        "Transpose": transpose,
        "Unsqueeze": unsqueeze,
        "Where": lambda v, a: torch.where(v[0], v[1], v[2]),
    }


def max_pool(x: Any, attributes: Attributes) -> Any:
    """MaxPool of [rows, channels, …] without indices."""
    from torch.nn import functional as F

    functions = {3: F.max_pool1d, 4: F.max_pool2d, 5: F.max_pool3d}
    padded, kernel = _padded(x, attributes, float("-inf")), attributes["kernel_shape"]
    return functions[x.dim()](
        padded, kernel, attributes.get("strides", [1] * len(kernel)), 0, attributes.get("dilations", 1), _ceil(attributes)
    )


def average_pool(x: Any, attributes: Attributes) -> Any:
    """AveragePool over what is inside the image: padding counts in no mean."""
    import torch
    from torch.nn import functional as F

    functions: Mapping[int, Any] = {3: F.avg_pool1d, 4: F.avg_pool2d, 5: F.avg_pool3d}
    pool, kernel = functions[x.dim()], attributes["kernel_shape"]
    strides, ceil = attributes.get("strides", [1] * len(kernel)), _ceil(attributes)
    padded = _padded(x, attributes, 0.0)
    if padded is x:
        return pool(x, kernel, strides, 0, ceil)
    if attributes.get("count_include_pad"):
        return pool(padded, kernel, strides, 0, ceil)
    return pool(padded, kernel, strides, 0, ceil) / pool(_padded(torch.ones_like(x), attributes, 0.0), kernel, strides, 0, ceil)


def _padded(x: Any, attributes: Attributes, value: float) -> Any:
    from torch.nn import functional as F

    if _word(attributes.get("auto_pad", "NOTSET")) not in ("NOTSET", "VALID"):
        raise ModelError("a convolution or pooling has auto_pad, which cannot be trained here; export it with explicit pads")
    pads = attributes.get("pads") or []
    if not any(pads):
        return x
    half = len(pads) // 2
    pairs = [side for axis in reversed(range(half)) for side in (pads[axis], pads[half + axis])]  # torch counts axes from the last
    return F.pad(x, pairs, value=value)


def _ceil(attributes: Attributes) -> bool:
    return bool(attributes.get("ceil_mode", 0))


def _word(text: Any) -> str:
    return text.decode() if isinstance(text, bytes) else str(text)
