"""ONNX -> `Graph`: read, fixed to one row, optimised by ONNX Runtime, rewritten by the passes, and compared with ONNX Runtime."""

from __future__ import annotations

import os
from dataclasses import replace
from typing import Mapping, Sequence

import numpy as np
import onnx

from he_backend.errors import ModelError
from he_backend.graph import infer, ops, runtime
from he_backend.graph.model import Graph, Node
from he_backend.graph.onnx_export import array_of, graph_to_proto, node_from_proto
from he_backend.graph.onnx_read import Source, read
from he_backend.graph.operators import is_operator, label, opset_of, with_operators
from he_backend.graph.passes import rewrite
from he_backend.graph.passes_embedding import stated_choice
from he_backend.graph.problems import problems_of
from he_backend.graph.rows import one_row

_VERIFY_SEEDS = (1, 2)
_TOLERANCE = 1e-3  # float32 sums taken in another order; a wrong rewrite is off by far more


def import_onnx(
    source: Source,
    name: str = "",
    dims: Mapping[str, int] | None = None,
    embeddings: str = "file",
) -> Graph:
    """The network as a `Graph` on one row, ready to split, and equal to the model in ONNX Runtime on random rows.

    source: path, bytes or ModelProto, opset 7 and up (older ones are converted when onnx can); stored in one file.
    dims: sizes for open axes other than the row axis, by symbol ("seq") or "input:axis".
    embeddings: tables looked up by data are refused ("refuse"), travel to the data owner ("public"), or stay, and encrypted one-hot rows
    are sent in place of indices ("private"); "file" leaves that to the model's metadata.
    Raises ModelError; its `problems` lists every node that cannot be run.
    """
    model = read(source)
    try:
        return _import(model, source, name, dims or {}, embeddings)
    except ModelError as error:
        raise with_operators(error, model) from None


def _import(model: onnx.ModelProto, source: Source, name: str, dims: Mapping[str, int], embeddings: str) -> Graph:
    """The graph of a model that was read."""
    if not name:
        name = os.path.splitext(os.path.basename(os.fspath(source)))[0] if isinstance(source, (str, os.PathLike)) else ""
    row = one_row(model, dims)
    blob = row.model.SerializeToString()
    optimised = _optimise(blob)
    graph = _build(optimised, row.inputs, name or model.graph.name or "model")
    graph = replace(graph, row_wise=row.row_wise, source=blob)
    graph = rewrite(graph, stated_choice(model, embeddings))
    problems = problems_of(graph)
    if problems:
        raise ModelError(f"the model {graph.name!r} cannot run encrypted:", problems)
    verify(graph, blob)
    return graph


def _optimise(blob: bytes) -> onnx.ModelProto:
    """ONNX Runtime's basic optimizer; when that leaves operators of ONNX Runtime's own, without the fusions that make them."""
    optimised = runtime.optimise(blob, _UNWANTED)
    if _foreign(optimised):
        named = {f"{op}Fusion" for op in _foreign(optimised)}
        optimised = runtime.optimise(blob, sorted(named.union(_UNWANTED, _FUSIONS)))
    foreign = _foreign(optimised)
    if foreign:
        raise ModelError(f"ONNX Runtime turned the model into operators of its own: {', '.join(foreign)}; export the model in another way")
    return optimised


# The first makes a Gemm of MatMul and Add by flattening the row axis into the next one; Gemm is taken apart again here. The second moves
# transposes behind reductions, which then reduce axis 0, where many rows are.
_UNWANTED = ("MatMulAddFusion", "TransposeOptimizer")

# Basic-level fusions of some ONNX Runtime versions whose results are not ONNX operators of the model's opset.
_FUSIONS = (
    "LayerNormFusion", "LayerNormFusionL2", "SimplifiedLayerNormFusion", "GeluFusionL1", "GeluFusionL2", "BiasGeluFusion", "FastGeluFusion",
    "QDQFinalCleanupTransformer", "QuickGeluFusion", "BiasSoftmaxFusion", "MatMulScaleFusion", "AttentionFusion",
)  # fmt: skip


def _foreign(model: onnx.ModelProto) -> list[str]:
    version = opset_of(model)
    return sorted(
        {
            node.op_type
            for node in model.graph.node
            if node.domain not in ("", "ai.onnx") or not (node.op_type in ops.REWRITTEN or is_operator(node.op_type, version))
        }
    )


def _build(model: onnx.ModelProto, inputs: Sequence[tuple[str, tuple[int, ...], str]], name: str) -> Graph:
    constants = {tensor.name: array_of(tensor) for tensor in model.graph.initializer}
    nodes: list[Node] = []
    for position, proto in enumerate(model.graph.node):
        if proto.op_type == "Constant" and proto.attribute and proto.attribute[0].name == "value":
            constants[proto.output[0]] = array_of(proto.attribute[0].t)
        else:
            nodes.append(node_from_proto(proto, label(proto, position)))
    outputs = tuple(value.name for value in model.graph.output)
    fixed = [output for output in outputs if output in constants]
    if fixed:
        raise ModelError(f"output {fixed[0]!r} is the same for every input; remove it from the model")
    graph = Graph(
        name=name,
        nodes=tuple(nodes),
        inputs=tuple(n for n, _, _ in inputs),
        outputs=outputs,
        constants=constants,
        shapes={n: tuple(s) for n, s, _ in inputs},
        dtypes={n: t for n, _, t in inputs},
        opset=opset_of(model),
    )
    return _checked(infer.drop_dead(graph))


def _checked(graph: Graph) -> Graph:
    try:
        return infer.check(graph, "import")
    except ModelError:
        refused = [p for p in problems_of(graph) if p.op in ops.REFUSED]
        if refused:  # the reason why the network's values are not arrays of known shape
            raise ModelError(f"the model {graph.name!r} cannot run encrypted:", refused) from None
        raise


def verify(graph: Graph, model: bytes) -> None:
    """Compare the graph with the model in ONNX Runtime on random rows. Raises ModelError when they differ."""
    rewritten = graph_to_proto(graph).SerializeToString()
    inputs = [(name, graph.shapes[name], graph.dtypes[name]) for name in graph.inputs]
    feeds = [runtime.random_feeds(inputs, seed) for seed in _VERIFY_SEEDS]
    for wanted, got in zip(*(runtime.run_each(one, feeds, graph.outputs) for one in (model, rewritten))):
        for name, left, right in zip(graph.outputs, got, wanted):
            if not runtime.agree(left, right, _tolerance(right)):
                raise ModelError(
                    f"output {name!r} changed while the model was rewritten (ONNX Runtime computes something else for the original); "
                    "this is an error of the importer: please report it with the model"
                )


def _tolerance(values: np.ndarray) -> float:
    return 2e-2 if values.dtype == np.float16 else _TOLERANCE
