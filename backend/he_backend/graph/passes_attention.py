"""The pass that takes ONNX's Attention operator apart into products, a softmax and masks, all of them free of weights."""

from __future__ import annotations

import math
from typing import Sequence

import numpy as np

from he_backend.graph.model import Graph, Node
from he_backend.graph.rewriting import Workbench, replace_nodes


def attention_to_products(graph: Graph) -> Graph:
    """Attention(Q, K, V, mask)   ->   MatMul(Softmax(mask(MatMul(Q·scale, Kᵀ))), V), heads apart; queries may share keys and values.

    As ONNX defines it (opset 23): a softcap c bounds scores to c·tanh(s/c), then the mask is added or selects, then the causal mask.
    """
    return replace_nodes(graph, ["Attention"], _expanded)


def refusal_reason(node: Node) -> str:
    """Why an Attention node is not taken apart."""
    if any(node.inputs[4:]) or any(node.outputs[1:]):
        return "keeps keys and values of earlier calls, or gives its scores out"
    return "its mask or its heads do not fit its scores"


def _expanded(bench: Workbench) -> Sequence[Node] | None:
    node = bench.node
    if any(node.inputs[4:]) or any(node.outputs[1:]) or not all(node.inputs[:3]):
        return None
    return _Attention(bench).nodes()


class _Attention:
    """One Attention node taken apart."""

    def __init__(self, bench: Workbench) -> None:
        self._bench = bench
        self._made: list[Node] = []

    def nodes(self) -> Sequence[Node] | None:
        bench, node = self._bench, self._bench.node
        flat = len(bench.shape(0)) == 3
        query_heads = int(node.attribute("q_num_heads", 0)) if flat else bench.shape(0)[1]
        heads = int(node.attribute("kv_num_heads", 0)) if flat else bench.shape(1)[1]
        if heads < 1 or query_heads % heads:
            return None
        query, keys, values = (self._heads(bench.name(i), bench.shape(i), count) for i, count in ((0, query_heads), (1, heads), (2, heads)))
        queries_length, length = bench.shape(0)[-2], bench.shape(1)[-2]
        depth = bench.shape(0)[-1] // (query_heads if flat else 1)
        width = bench.shape(2)[-1] // (heads if flat else 1)
        mask = bench.shape(3) if bench.name(3) else ()
        if mask and mask[-2:] != (queries_length, length):
            return None
        group = query_heads // heads
        if group > 1:  # queries [rows, heads, group, …], keys and values [rows, heads, 1, …]
            query = self._reshape(query, (-1, heads, group, queries_length, depth), "grouped")
            keys = self._reshape(keys, (-1, heads, 1, length, depth), "shared_keys")
            values = self._reshape(values, (-1, heads, 1, length, width), "shared_values")
        scaled = self._add("Mul", [query, bench.like("scale", float(node.attribute("scale", 0.0)) or 1 / math.sqrt(depth))])
        order = (0, 1, 2, 4, 3) if group > 1 else (0, 1, 3, 2)
        scores = self._add("MatMul", [scaled, self._add("Transpose", [keys], perm=order)])
        if group > 1:
            scores = self._reshape(scores, (-1, query_heads, queries_length, length), "scores")
        weights = self._masked_softmax(self._capped(scores), queries_length, length)
        if group > 1:
            weights = self._reshape(weights, (-1, heads, group, queries_length, length), "weights")
        mixed = self._add("MatMul", [weights, values])
        if group > 1:
            mixed = self._reshape(mixed, (-1, query_heads, queries_length, width), "mixed", "" if flat else node.outputs[0])
        if flat:
            together = self._add("Transpose", [mixed], perm=(0, 2, 1, 3))
            self._reshape(together, (-1, queries_length, query_heads * width), "together", node.outputs[0])
        elif group == 1:
            self._made[-1] = Node("MatMul", self._made[-1].name, self._made[-1].inputs, node.outputs[:1])
        return self._made

    def _add(self, op: str, inputs: Sequence[str], output: str = "", **attributes: object) -> str:
        self._made.append(self._bench.make(op, inputs, output, **attributes))
        return self._made[-1].outputs[0]

    def _reshape(self, value: str, shape: Sequence[int], label: str, output: str = "") -> str:
        return self._add("Reshape", [value, self._bench.constant(f"{label}/shape", np.array(shape, np.int64))], output)

    def _heads(self, name: str, shape: Sequence[int], count: int) -> str:
        """The operand as [rows, heads, length, width]."""
        if len(shape) == 4:
            return name
        apart = self._reshape(name, (-1, shape[1], count, shape[2] // count), f"heads{len(self._made)}")
        return self._add("Transpose", [apart], perm=(0, 2, 1, 3))

    def _capped(self, scores: str) -> str:
        cap = float(self._bench.node.attribute("softcap", 0.0))
        if cap <= 0:
            return scores
        small = self._add("Mul", [scores, self._bench.like("cap_inverse", 1 / cap)])
        return self._add("Mul", [self._add("Tanh", [small]), self._bench.like("cap", cap)])

    def _masked_softmax(self, scores: str, queries: int, keys: int) -> str:
        bench, masks = self._bench, []
        if bench.name(3) and bench.dtype(3).kind == "b":
            masks.append(bench.name(3))
        elif bench.name(3):
            scores = self._add("Add", [scores, bench.name(3)])
        if bench.node.attribute("is_causal", 0):
            masks.append(bench.constant("causal", np.tri(queries, keys, dtype=bool)))
        for mask in masks:
            scores = self._add("Where", [mask, scores, self._bench.like("silent", -np.inf)])
        weights = self._add("Softmax", [scores], axis=-1)
        for mask in masks[:1] if bench.name(3) else []:  # a query that may read nothing reads zeros
            weights = self._add("Where", [mask, weights, self._bench.like("nothing", 0.0)])
        return weights
