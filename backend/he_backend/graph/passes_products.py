"""Passes on products: Einsum with weights as MatMul, and products and sums with zeros left out."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Sequence

import numpy as np

from he_backend.graph.model import Graph, Node, size_of
from he_backend.graph.rewriting import Workbench, replace_nodes


def drop_zeros(graph: Graph) -> Graph:
    """x + 0   ->   x;   x · 0   ->   0, for finite x and constants of zeros: an initial state, a mask that masks nothing."""
    constants, nodes = dict(graph.constants), []
    renamed: dict[str, str] = {}
    for node in graph.nodes:
        node = replace(node, inputs=tuple(renamed.get(name, name) for name in node.inputs)) if renamed else node
        zeros = [name for name in node.inputs if name in constants and constants[name].dtype.kind == "f" and not np.any(constants[name])]
        output = node.outputs[0]
        if node.op not in ("Add", "Mul") or not zeros or output in graph.outputs:
            nodes.append(node)
            continue
        other = node.inputs[1] if node.inputs[0] == zeros[0] else node.inputs[0]
        if node.op == "Mul":
            constants[output] = np.zeros(graph.shapes[output], graph.dtypes[output])
        elif graph.shapes[other] == graph.shapes[output]:
            renamed[output] = other
        else:
            nodes.append(node)
    return graph if len(nodes) == len(graph.nodes) else graph.with_nodes(nodes, constants)


def einsum_to_matmul(graph: Graph) -> Graph:
    """Einsum("bij,jk->bik"; x, W)   ->   x @ W with the axes of W, and if needed of x and the result, in the order of a MatMul.

    For two operands of which one is a constant, without repeated indices, and with at least one index of x alone (the rows).
    """

    def rule(bench: Workbench) -> Sequence[Node] | None:
        if len(bench.node.inputs) != 2 or bench.is_weight(0) == bench.is_weight(1):
            return None
        position = 0 if bench.is_weight(0) else 1
        terms = _terms(str(bench.node.attribute("equation", "")), [len(bench.shape(0)), len(bench.shape(1))])
        weight = bench.value(position)
        if terms is None or weight is None:
            return None
        return _matmul(bench, _Einsum(terms[1 - position], terms[position], terms[2]), 1 - position, weight)

    return replace_nodes(graph, ["Einsum"], rule)


@dataclass(frozen=True)
class _Einsum:
    """Indices of the data, of the weights and of the result, one letter an axis."""

    data: str
    weight: str
    out: str


def _terms(equation: str, ranks: Sequence[int]) -> tuple[str, str, str] | None:
    """The indices of both operands and of the result, an ellipsis written out; None for what is not handled."""
    left, arrow, out = equation.replace(" ", "").partition("->")
    parts = left.split(",")
    if len(parts) != 2:
        return None
    if not arrow:  # the letters that appear once, in alphabetical order, after the ellipsis
        letters = left.replace(",", "").replace(".", "")
        out = ("..." if "..." in left else "") + "".join(sorted(c for c in letters if letters.count(c) == 1))
    spare = [c for c in "ABCDEFGHIJKLMNOPQRSTUVWXYZ" if c not in equation]
    longest = max((rank - len(part.replace("...", "")) for part, rank in zip(parts, ranks) if "..." in part), default=0)
    names = "".join(spare[:longest])
    found = []
    for part, rank in zip(parts, ranks):
        more = rank - len(part.replace("...", ""))
        if more < 0 or (more and "..." not in part):
            return None
        found.append(part.replace("...", names[longest - more :]))
    out = out.replace("...", names)
    if any(len(set(term)) < len(term) for term in (*found, out)) or not set(out) <= set(found[0] + found[1]):
        return None
    return found[0], found[1], out


def _matmul(bench: Workbench, terms: _Einsum, position: int, weight: np.ndarray) -> Sequence[Node] | None:
    sizes = {**dict(zip(terms.weight, weight.shape)), **dict(zip(terms.data, bench.shape(position)))}
    if any(sizes[c] != extent for c, extent in zip(terms.weight, weight.shape)):
        return None  # an axis of size 1 broadcast: rare, and refused with its weights
    shared = [c for c in terms.data if c in terms.weight]
    summed, matched = [c for c in shared if c not in terms.out], [c for c in shared if c in terms.out]
    free = [c for c in terms.data if c not in terms.weight]
    only = [c for c in terms.weight if c not in terms.data]
    if not free or any(c not in terms.out for c in free):
        return None
    gone = [axis for axis, c in enumerate(terms.weight) if c in only and c not in terms.out]
    weight = weight.sum(axis=tuple(gone), dtype=np.float64) if gone else weight
    letters = [c for c in terms.weight if c in terms.data or c in terms.out]
    wide = [c for c in only if c in terms.out]
    order = [letters.index(c) for c in (*matched, *summed, *wide)]
    depth, width = size_of(sizes[c] for c in summed), size_of(sizes[c] for c in wide)
    matrix = weight.transpose(order).reshape(*[sizes[c] for c in matched], depth, width).astype(bench.dtype(position))
    # With matched indices: x as [first free index, matched …, other free indices, summed] @ [matched …, summed, wide].
    lead = free[:1] if matched else free
    rest = free[1:] if matched else []
    inner = [size_of(sizes[c] for c in rest)] if matched else []
    made: list[Node] = []
    value = bench.node.inputs[position]
    value = _permuted(bench, made, value, terms.data, [*lead, *matched, *rest, *summed])
    middle = [*[sizes[c] for c in (*lead, *matched)], *inner]
    value = _reshaped(bench, made, value, [*middle, depth], "data")
    made.append(bench.make("MatMul", [value, bench.constant("weight", matrix, True)]))
    value = _reshaped(bench, made, made[-1].outputs[0], [sizes[c] for c in (*lead, *matched, *rest, *wide)], "result")
    value = _permuted(bench, made, value, "".join((*lead, *matched, *rest, *wide)), terms.out)
    last = made[-1]
    made[-1] = replace(last, outputs=bench.node.outputs[:1])
    return made


def _permuted(bench: Workbench, made: list[Node], value: str, have: str, want: Sequence[str]) -> str:
    order = tuple(have.index(c) for c in want)
    if order == tuple(range(len(have))):
        return value
    made.append(bench.make("Transpose", [value], perm=order))
    return made[-1].outputs[0]


def _reshaped(bench: Workbench, made: list[Node], value: str, shape: Sequence[int], label: str) -> str:
    made.append(bench.make("Reshape", [value, bench.constant(f"{label}/shape", np.array([-1, *shape[1:]], np.int64))]))
    return made[-1].outputs[0]
