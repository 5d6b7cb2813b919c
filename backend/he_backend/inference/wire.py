"""ClientPlan <-> bytes. What comes from a peer is checked here, field by field, before anything is computed with it."""

from __future__ import annotations

import base64
import hashlib
import json
import math
from dataclasses import asdict
from typing import Any, TypeVar

import numpy as np

from he_backend.ckks.engines import ENGINES
from he_backend.ckks.exact_linear import MAX_ANSWER_BITS
from he_backend.ckks.params import check_params
from he_backend.errors import HeError, ProtocolError
from he_backend.graph.model import ValueSpec
from he_backend.graph.program import Step
from he_backend.graph.steps import check_step
from he_backend.inference.boxes import MAX_AXES, MAX_BOXES, Box, expand
from he_backend.inference.choice import COEFFICIENT_ENGINES
from he_backend.inference.grid import GridLayout
from he_backend.inference.plan import PACKINGS, ClientPlan, Layout, RoundPlan
from he_backend.inference.product import ProductLayout

MAX_PLAN_BYTES = 64 << 20
_MAX_VALUES, _MAX_ROUNDS, _MAX_ELEMENTS = 4096, 4096, 1 << 24
_T = TypeVar("_T")


def plan_to_bytes(plan: ClientPlan) -> bytes:
    """The plan as canonical JSON (steps in base64)."""
    return _canonical(
        {
            "model_id": plan.model_id,
            "model_name": plan.model_name,
            "engine": plan.engine,
            "preset": plan.params.literal(),
            "preset_name": plan.params.name,
            "inputs": [_value(spec) for spec in plan.inputs],
            "outputs": [_value(spec) for spec in plan.outputs],
            "shapes": {name: list(shape) for name, shape in plan.shapes.items()},
            "rounds": [asdict(this) for this in plan.rounds],
            "steps": [
                {
                    "inputs": list(step.inputs),
                    "outputs": list(step.outputs),
                    "model": base64.b64encode(step.model).decode(),
                    "batched": step.batched,
                }
                for step in plan.steps
            ],
            "expected_bits": plan.expected_bits,
            "public_constants": list(plan.public_constants),
        }
    )


def plan_digest(data: bytes) -> str:
    """What names a plan: the SHA-256 of its bytes."""
    return hashlib.sha256(data).hexdigest()


def plan_from_bytes(data: bytes, allow_insecure: bool = False) -> ClientPlan:
    """A peer's plan, checked: sizes, norms and scales in range, steps with allowed operators only.

    Raises ProtocolError when it is not a plan, SecurityError when its preset is too weak, ModelError for a step that is not allowed.
    """
    if len(data) > MAX_PLAN_BYTES:
        raise ProtocolError(f"the plan has {len(data)} bytes; at most {MAX_PLAN_BYTES} are allowed")
    try:
        return _read_plan(json.loads(data.decode("utf-8")), allow_insecure)
    except HeError:
        raise
    except (ValueError, TypeError, KeyError, AttributeError, IndexError, OverflowError, RecursionError):
        raise ProtocolError("the plan cannot be read: both sides must run the same version of he-nn") from None


def _read_plan(raw: dict[str, Any], allow_insecure: bool) -> ClientPlan:
    params = check_params(raw["preset"], _text(raw["preset_name"]), allow_insecure)
    _require(raw["engine"] in ENGINES)
    shapes = {_text(name): _shape(shape) for name, shape in raw["shapes"].items()}
    _require(len(shapes) <= _MAX_VALUES and len(raw["rounds"]) <= _MAX_ROUNDS and len(raw["steps"]) == len(raw["rounds"]) + 1)
    degree = params.ring_degree
    rounds = tuple(_read_round(this, index, shapes, len(params.moduli), degree) for index, this in enumerate(raw["rounds"]))
    _require(raw["engine"] in COEFFICIENT_ENGINES or not any(this.layout for this in rounds))
    steps = tuple(_read_step(step) for step in raw["steps"])
    return ClientPlan(
        _text(raw["model_id"]),
        _text(raw["model_name"]),
        raw["engine"],
        params,
        tuple(_read_value(value) for value in raw["inputs"]),
        tuple(_read_value(value) for value in raw["outputs"]),
        shapes,
        rounds,
        steps,
        _finite(raw["expected_bits"]),
        tuple(_text(name) for name in raw["public_constants"]),
    )


def _read_round(raw: dict[str, Any], index: int, shapes: dict[str, tuple[int, ...]], levels: int, degree: int) -> RoundPlan:
    inputs, outputs = _names(raw["inputs"], shapes), _names(raw["outputs"], shapes)
    constant = _finite(raw["constant"])
    norms = tuple(tuple(row) for row in raw["norms"])
    width = len(inputs) + (1 if constant else 0)
    _require(raw["index"] == index and raw["packing"] in PACKINGS and constant >= 0.0)
    _require((raw["packing"] == "batch") == (raw["layout"] is None))
    _require(type(raw["level"]) is int and 1 <= raw["level"] <= levels)
    _require(len(norms) == len(outputs) and all(len(row) == width for row in norms))
    _require(all(type(norm) is int and 0 <= norm < 1 << 62 for row in norms for norm in row))
    scales = tuple(tuple((count, _finite(scale)) for count, scale in runs) for runs in raw["scales"])
    _require(len(scales) == len(outputs) and all(scale > 0 for runs in scales for _, scale in runs))
    _require(all(type(count) is int and count > 0 for runs in scales for count, _ in runs))
    _require(all(sum(count for count, _ in runs) == math.prod(shapes[name]) for runs, name in zip(scales, outputs)))
    in_scales = tuple(tuple((count, _finite(scale)) for count, scale in runs) for runs in raw["in_scales"])
    _require(len(in_scales) in (0, len(inputs)) and all(0 <= scale <= 1 for runs in in_scales for _, scale in runs))
    _require(all(type(count) is int and count > 0 for runs in in_scales for count, _ in runs))
    _require(all(sum(count for count, _ in runs) == math.prod(shapes[name]) for runs, name in zip(in_scales, inputs)))
    errors = tuple((_finite(one), _finite(other)) for one, other in raw["errors"])
    _require(len(errors) == len(outputs) and all(one >= 0 and other >= 0 for one, other in errors))
    _require(type(raw["weight_bits"]) is int and type(raw["multiplications"]) is int)
    _require(type(raw["answer_bits"]) is int and (raw["answer_bits"] == 0 or 14 <= raw["answer_bits"] <= MAX_ANSWER_BITS))
    return RoundPlan(
        index,
        inputs,
        outputs,
        raw["packing"],
        raw["level"],
        scales,
        constant,
        norms,
        raw["weight_bits"],
        raw["answer_bits"],
        _finite(raw["expected_bits"]),
        raw["multiplications"],
        None
        if raw["layout"] is None
        else _LAYOUTS[raw["packing"]](raw["layout"], _sizes(inputs, shapes) + (1 if constant else 0), _sizes(outputs, shapes), degree),
        in_scales,
        errors,
    )


def _sizes(names: tuple[str, ...], shapes: dict[str, tuple[int, ...]]) -> int:
    return sum(math.prod(shapes[name]) for name in names)


def _read_product(raw: dict[str, Any], in_elements: int, out_elements: int, degree: int) -> Layout:
    in_count, out_count, width, norm = (raw[key] for key in ("in_count", "out_count", "width", "error_norm"))
    _require(all(type(n) is int for n in (in_count, out_count, width, norm)))
    _require(1 <= width <= degree and 0 <= norm < 1 << 62)
    sources, targets = _read_boxes(raw, in_elements, out_elements, (in_count, out_count), degree, width)
    # Every polynomial comes back with as many coefficients as the one of which most are read.
    _require(out_count * int(np.bincount(expand(targets)[1] // degree).max()) <= 4 * _MAX_ELEMENTS)
    return ProductLayout(in_count, out_count, width, norm, sources, targets)


def _read_grid(raw: dict[str, Any], in_elements: int, out_elements: int, degree: int) -> Layout:
    in_count, out_count, positions, reach, last = (raw[key] for key in ("in_count", "out_count", "positions", "reach", "last"))
    _require(all(type(n) is int for n in (in_count, out_count, positions, reach, last)))
    _require(1 <= positions <= _MAX_ELEMENTS and 0 <= reach < degree and 0 <= last < positions)
    _require(max(in_count, out_count) * positions <= 4 * _MAX_ELEMENTS)
    sources, targets = _read_boxes(raw, in_elements, out_elements, (in_count, out_count), positions, last + 1)
    return GridLayout(in_count, out_count, positions, reach, last, sources, targets)


_LAYOUTS = {"product": _read_product, "grid": _read_grid}


def _read_boxes(
    raw: dict[str, Any], in_elements: int, out_elements: int, counts: tuple[int, int], pitch: int, width: int
) -> tuple[tuple[Box, ...], tuple[Box, ...]]:
    """Boxes by which each polynomial sent carries elements, each in a place of its own, and every output comes back once.

    Place p is in polynomial p // pitch; outputs lie in its first `width` places.
    """
    in_count, out_count = counts
    _require(1 <= in_count <= _MAX_ELEMENTS and 1 <= out_count <= _MAX_ELEMENTS)
    sources, targets = (tuple(_read_box(box) for box in raw[key]) for key in ("sources", "targets"))
    _require(len(sources) + len(targets) <= MAX_BOXES)
    _require(sum(math.prod(box.sizes) for box in (*sources, *targets)) <= 4 * _MAX_ELEMENTS)
    elements, places = expand(sources)
    _require(_all_different(places) and bool((elements >= 0).all()) and bool((elements < in_elements).all()))
    _require(np.array_equal(np.unique(places // pitch), np.arange(in_count)))
    elements, places = expand(targets)
    _require(len(elements) == out_elements and _all_different(elements) and bool((elements < out_elements).all()))
    _require(bool((places % pitch < width).all()) and np.array_equal(np.unique(places // pitch), np.arange(out_count)))
    return sources, targets


def _all_different(numbers: np.ndarray) -> bool:
    """Whether no two of some integers from 0 on are equal."""
    if not len(numbers) or numbers.min() < 0 or numbers.max() >= 8 * _MAX_ELEMENTS:
        return False
    seen = np.zeros(int(numbers.max()) + 1, dtype=bool)
    seen[numbers] = True
    return int(seen.sum()) == len(numbers)


def _read_box(raw: dict[str, Any]) -> Box:
    lists = [tuple(raw[key]) for key in ("sizes", "steps", "strides")]
    whole = (raw["first"], raw["place"], *(n for part in lists for n in part))
    _require(all(type(n) is int and abs(n) < 1 << 40 for n in whole) and len({len(part) for part in lists}) == 1)
    _require(len(lists[0]) <= MAX_AXES and all(n >= 1 for n in lists[0]) and math.prod(lists[0]) <= _MAX_ELEMENTS)
    return Box(whole[0], whole[1], *lists)


def _read_step(raw: dict[str, Any]) -> Step:
    model = base64.b64decode(raw["model"], validate=True)
    _require(isinstance(raw["batched"], bool))
    if model:
        check_step(model)
    return Step(
        tuple(_text(name) for name in raw["inputs"]),
        tuple(_text(name) for name in raw["outputs"]),
        model,
        raw["batched"],
    )


def _value(spec: ValueSpec) -> dict[str, Any]:
    return {"name": spec.name, "shape": list(spec.shape), "dtype": spec.dtype}


def _read_value(raw: dict[str, Any]) -> ValueSpec:
    return ValueSpec(_text(raw["name"]), _shape(raw["shape"]), _text(raw["dtype"]))


def _names(raw: list[Any], shapes: dict[str, tuple[int, ...]]) -> tuple[str, ...]:
    _require(len(raw) > 0 and all(name in shapes for name in raw))
    return tuple(raw)


def _shape(raw: list[Any]) -> tuple[int, ...]:
    _require(isinstance(raw, list) and len(raw) <= 16 and all(type(n) is int and n >= 0 for n in raw) and math.prod(raw) <= _MAX_ELEMENTS)
    return tuple(raw)


def _text(raw: Any) -> str:
    _require(isinstance(raw, str) and len(raw) <= 1024)
    return str(raw)


def _finite(raw: Any) -> float:
    _require(isinstance(raw, (int, float)) and not isinstance(raw, bool) and math.isfinite(raw))
    return float(raw)


def _require(holds: bool) -> None:
    if not holds:
        raise ValueError


def _canonical(value: Any) -> bytes:
    return json.dumps(value, sort_keys=True, separators=(",", ":"), allow_nan=False).encode()
