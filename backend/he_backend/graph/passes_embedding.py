"""What becomes of embedding tables, constants looked up by data: refused, published, or multiplied by encrypted one-hot rows."""

from __future__ import annotations

from dataclasses import replace
from typing import Sequence

import numpy as np
import onnx

from he_backend.errors import ModelError, ParameterError
from he_backend.graph import infer
from he_backend.graph.element_types import element_type
from he_backend.graph.model import Graph, Node, size_of
from he_backend.graph.rewriting import Workbench, replace_nodes

REFUSE, PUBLIC, PRIVATE = "refuse", "public", "private"
FILE = "file"  # what the model file's metadata says; refused when it says nothing
CHOICES = (FILE, REFUSE, PUBLIC, PRIVATE)
METADATA = "he_nn.embeddings"  # key in a model file's metadata, with which its owner decides once for all who convert the file


def treat_tables(graph: Graph, embeddings: str) -> Graph:
    """The graph after what `embeddings` says is done to its tables; "refuse" leaves them, and they are reported."""
    if embeddings == PUBLIC:
        return publish_tables(graph)
    if embeddings == PRIVATE:
        return infer.check(one_hot_tables(graph), "pass one_hot_tables")
    return graph


def check_choice(embeddings: str, public_embeddings: bool = False) -> str:
    """The choice; `public_embeddings` is the older way of saying "public". Raises ParameterError for anything else."""
    if embeddings not in CHOICES:
        raise ParameterError(f"embeddings: {embeddings!r}; allowed: {', '.join(CHOICES)}")
    if public_embeddings and embeddings == PRIVATE:
        raise ParameterError('embeddings: "private" contradicts public_embeddings=True; give one of them')
    return PUBLIC if public_embeddings else embeddings


def stated_choice(model: onnx.ModelProto, embeddings: str = FILE) -> str:
    """`embeddings`, or for "file" what the model's metadata says. Raises ModelError when that is no choice."""
    if embeddings != FILE:
        return embeddings
    stated = next((entry.value for entry in model.metadata_props if entry.key == METADATA), REFUSE)
    if stated not in (REFUSE, PUBLIC, PRIVATE):
        raise ModelError(f"the model's metadata {METADATA} says {stated[:40]!r}; allowed: {REFUSE}, {PUBLIC}, {PRIVATE}")
    return stated


def publish_tables(graph: Graph) -> Graph:
    """The same network with every embedding table marked as public: constants looked up by data, and what is added to such entries.

    Position embeddings are tables too, though not looked up by data: without them the sum would need a round of its own.
    """
    tables = {node.inputs[0] for node in graph.nodes if _looks_up(graph, node)}
    entries: set[str] = set()
    for node in graph.nodes:
        if _looks_up(graph, node):
            entries.update(node.outputs)
        elif node.op == "Add" and entries.intersection(node.inputs):
            fixed = [name for name in node.inputs if name in graph.constants]
            if fixed or entries.issuperset(node.inputs):
                entries.update(node.outputs)
                tables.update(name for name in fixed if graph.constants[name].size > 1)
    return replace(graph, public_tables=graph.public_tables | tables)


def one_hot_tables(graph: Graph) -> Graph:
    """Gather(table, ids)   ->   MatMul(Cast(OneHot(Gather(Range(rows of the table), ids))), table).

    The data owner sends one-hot rows, encrypted, and the table stays with the model owner. The inner Gather is what refuses an index
    outside the table, as the lookup did; OneHot alone would make zeros of it.
    """
    notes = list(graph.notes)

    def rule(bench: Workbench) -> Sequence[Node] | None:
        node, table = bench.node, bench.value(0)
        if table is None or not _looks_up(graph, node) or int(node.attribute("axis", 0)) or graph.opset < 11:
            return None
        ids = bench.shape(1)
        entries = table.shape[0]
        numbers = [bench.constant(label, np.int64(value)) for label, value in (("start", 0), ("entries", entries), ("step", 1))]
        every = bench.make("Range", numbers)
        known = bench.make("Gather", [every.outputs[0], node.inputs[1]])
        hot = bench.make("OneHot", [known.outputs[0], numbers[1], bench.constant("off_on", np.array([0, 1], np.int64))], axis=-1)
        real = bench.make("Cast", hot.outputs, to=element_type(table.dtype.name))
        rows = bench.constant("table", table.reshape(entries, -1), True)
        whole = graph.shapes[node.outputs[0]]
        plain = len(table.shape) == 2
        made = [every, known, hot, real, bench.make("MatMul", [real.outputs[0], rows], node.outputs[0] if plain else "")]
        if not plain:
            shape = bench.constant("shape", np.array([-1, *whole[1:]] if whole else whole, np.int64))
            made.append(bench.make("Reshape", [made[-1].outputs[0], shape], node.outputs[0]))
        notes.append(
            f"private table {node.inputs[0]} of {entries:,} entries: {size_of(ids) * entries:,} one-hot values are sent in place of "
            f"{size_of(ids):,} indices"
        )
        return made

    changed = replace_nodes(graph, ["Gather"], rule)
    return replace(changed, notes=tuple(notes))


def _looks_up(graph: Graph, node: Node) -> bool:
    """Whether the node takes entries of a constant by data."""
    if node.op != "Gather" or node.inputs[1] in graph.constants:
        return False
    table = graph.constants.get(node.inputs[0])
    return table is not None and table.dtype.kind == "f"
