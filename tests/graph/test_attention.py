"""ONNX's Attention operator, Einsum with weights, and norms of newer operator sets, against ONNX Runtime."""

from __future__ import annotations

import numpy as np
import onnx
import onnxruntime
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from onnx import TensorProto, helper

import he_backend as he
from he_backend.errors import ModelError
from he_backend.graph import convert, run_program
from he_backend.graph.affine import lower
from he_backend.graph.onnx_import import import_onnx
from tests.graph.networks import NetworkBuilder, plain, rows_for
from tests.graph.test_import import model_of
from tests.graph.test_split import assert_no_weights_travel, close

needs_opset_23 = pytest.mark.skipif(
    not onnx.defs.has("Attention") or tuple(int(n) for n in onnxruntime.__version__.split(".")[:2]) < (1, 23),
    reason="onnx or ONNX Runtime is older than the Attention operator",
)


def same(model, rows, **options):
    """The program, after comparing its first output with ONNX Runtime on these rows, by input name."""
    session = onnxruntime.InferenceSession(model.SerializeToString(), providers=["CPUExecutionProvider"])
    program = convert(model, **options)
    due = session.run(None, rows)[0]
    close(run_program(program, rows)[program.outputs[0].name].reshape(due.shape), due)
    assert_no_weights_travel(program)
    return program


@st.composite
def attentions(draw):
    """(model, rows): queries, keys and values as inputs, with or without heads apart, masks and shared keys."""
    random = np.random.default_rng(draw(st.integers(0, 1 << 16)))
    heads, group, depth, width = (draw(st.integers(1, 3)) for _ in range(4))
    queries, keys = draw(st.integers(1, 5)), draw(st.integers(1, 5))
    flat, query_heads = draw(st.booleans()), heads * group
    attributes = {"q_num_heads": query_heads, "kv_num_heads": heads} if flat else {}
    sizes = [(query_heads, queries, depth), (heads, keys, depth), (heads, keys, width)]
    shapes = {n: ["rows", s, c * e] if flat else ["rows", c, s, e] for n, (c, s, e) in zip("qkv", sizes)}
    if draw(st.booleans()):
        attributes["scale"] = 0.7
    if draw(st.booleans()):
        attributes["softcap"] = 0.5
    if draw(st.booleans()) and queries == keys:
        attributes["is_causal"] = 1
    operands, constants, types = ["q", "k", "v"], {}, {}
    mask = draw(st.sampled_from(["none", "none", "constant", "boolean", "data"]))
    if mask != "none":
        operands.append("mask")
    if mask in ("constant", "boolean"):
        allowed = random.random((queries, keys)) < 0.6
        allowed[:, 0] = True
        constants["mask"] = allowed if mask == "boolean" else np.where(allowed, 0, -np.inf).astype(np.float32)
    elif mask == "data":
        shapes["mask"] = ["rows", 1, queries, keys]
    node = helper.make_node("Attention", operands, ["y"], name="attention", **attributes)
    inputs = [(name, shape, types.get(name, TensorProto.FLOAT)) for name, shape in shapes.items()]
    model = model_of([node], inputs, [("y", None)], constants, 23)
    return model, {name: random.standard_normal((3, *shape[1:])).astype(np.float32) for name, shape in shapes.items()}


@needs_opset_23
@settings(max_examples=60, deadline=None, suppress_health_check=list(HealthCheck))
@given(case=attentions())
def test_attention_is_the_clients(case):
    program = same(*case)
    assert program.rounds == 0
    assert all(step.batched for step in program.steps)


@needs_opset_23
def test_projections_of_an_attention_share_a_round():
    random = np.random.default_rng(0)
    nodes = [helper.make_node("MatMul", ["x", f"w{c}"], [c]) for c in "qkv"]
    nodes.append(helper.make_node("Attention", ["q", "k", "v"], ["a"], q_num_heads=2, kv_num_heads=2, is_causal=1))
    nodes.append(helper.make_node("MatMul", ["a", "wo"], ["y"]))
    constants = {f"w{c}": random.standard_normal((6, 6)).astype(np.float32) for c in "qkvo"}
    model = model_of(nodes, [("x", ["n", 4, 6])], [("y", None)], constants, 23)
    rows = random.standard_normal((3, 4, 6)).astype(np.float32)
    program = same(model, {"x": rows})
    assert program.rounds == 2
    assert len(lower(program.segments[0]).blocks) == 1
    result = he.infer(program, rows, engine="clear", preset="N11_L1")
    due = run_program(program, rows)["y"]
    assert float(np.abs(result.output - due).max()) <= 2.0**-result.report.expected_bits * max(1.0, float(np.abs(due).max()))


@needs_opset_23
def test_a_cache_of_keys_and_values_is_refused():
    node = helper.make_node("Attention", ["q", "k", "v", "", "pk", "pv"], ["y", "nk", "nv"], name="attention")
    inputs = [(name, [1, 2, 3, 4]) for name in ("q", "k", "v", "pk", "pv")]
    with pytest.raises(ModelError) as caught:
        convert(model_of([node], inputs, [("y", None), ("nk", None), ("nv", None)], opset=23))
    assert [(p.node, p.op) for p in caught.value.problems] == [("attention", "Attention")]
    assert "earlier calls" in caught.value.problems[0].reason


def test_fused_operators_of_onnx_runtime_are_refused_with_what_to_do():
    node = helper.make_node("SkipLayerNormalization", ["x", "x", "g"], ["y"], name="fused", domain="com.microsoft")
    with pytest.raises(ModelError) as caught:
        convert(model_of([node], [("x", [1, 3, 4])], [("y", None)], {"g": np.ones(4, np.float32)}))
    (problem,) = caught.value.problems
    assert "fused operator" in problem.reason
    assert "before optimising" in problem.instead


@needs_opset_23
@pytest.mark.parametrize("op, domain", [("RMSNormalization", 23), ("SimplifiedLayerNormalization", 17)])
def test_rms_norms_keep_their_scale_at_the_model_owner(op, domain):
    random = np.random.default_rng(0)
    scale, weight = random.standard_normal(6).astype(np.float32), random.standard_normal((6, 3)).astype(np.float32)
    nodes = [helper.make_node(op, ["x", "g"], ["n"], axis=-1), helper.make_node("MatMul", ["n", "w"], ["y"])]
    model = model_of(nodes, [("x", ["n", 4, 6])], [("y", None)], {"g": scale, "w": weight}, domain)
    assert same(model, {"x": random.standard_normal((3, 4, 6)).astype(np.float32)}).rounds == 1


EINSUMS = [
    ("bij,jk->bik", (4, 5), (5, 3)),
    ("bij,jk", (4, 5), (5, 3)),
    ("...j,jk->...k", (4, 5), (5, 3)),
    ("bij,kj->bki", (4, 5), (3, 5)),
    ("bij,jhd->bhid", (4, 6), (6, 2, 3)),
    ("bhid,hde->bie", (2, 4, 3), (2, 3, 5)),
    ("bhid,hde->bhie", (2, 4, 3), (2, 3, 5)),
    ("bhid,hde->ebih", (2, 4, 3), (2, 3, 5)),
    ("bij,ikj->bik", (4, 5), (4, 3, 5)),
    ("bi,i->bi", (4,), (4,)),
    ("bij,jkl->bik", (4, 5), (5, 3, 2)),
    ("bi,j->bij", (4,), (3,)),
]


@pytest.mark.parametrize("weights_first", [False, True])
@pytest.mark.parametrize("equation, data, weight", EINSUMS)
def test_einsum_with_weights(equation, data, weight, weights_first):
    if weights_first:
        left, _, right = equation.partition("->")
        if not right:
            return
        equation = ",".join(reversed(left.split(","))) + "->" + right
    random = np.random.default_rng(0)
    operands = ["w", "x"] if weights_first else ["x", "w"]
    node = helper.make_node("Einsum", operands, ["y"], equation=equation)
    model = model_of([node], [("x", [1, *data])], [("y", None)], {"w": random.standard_normal(weight).astype(np.float32)})
    assert {"MatMul", "Transpose", "Reshape"}.issuperset(n.op for n in import_onnx(model).nodes)
    assert same(model, {"x": random.standard_normal((1, *data)).astype(np.float32)}).rounds == 1


@pytest.mark.parametrize("equation", ["bii,ij->bj", "bij,jk->ik", "bij,jk->bk"])
def test_other_einsums_with_weights_are_refused(equation):
    node = helper.make_node("Einsum", ["x", "w"], ["y"], equation=equation, name="sum")
    model = model_of([node], [("x", [1, 3, 3])], [("y", None)], {"w": np.ones((3, 2), np.float32)})
    with pytest.raises(ModelError, match="6 weights"):
        convert(model)


def test_an_einsum_of_two_values_is_the_clients():
    node = helper.make_node("Einsum", ["x", "x"], ["y"], equation="bij,bkj->bik")
    rows = np.random.default_rng(0).standard_normal((3, 2, 4)).astype(np.float32)
    assert same(model_of([node], [("x", ["n", 2, 4])], [("y", None)]), {"x": rows}).rounds == 0


def test_zeros_cost_no_round():
    net = NetworkBuilder((3, 3))
    net.apply("MatMul", net.weights(3, 3))
    net.apply("Tanh")
    net.apply("Add", net.constant(np.zeros((3, 3), np.float32)))
    start = net.apply("Sigmoid")
    gone = net.add("Mul", [start, net.constant(np.zeros((3, 3), np.float32))], net.shape)
    net.add("Add", [start, gone], net.shape)
    net.apply("Softmax")
    model = net.model()
    program = convert(model)
    close(run_program(program, rows_for(model))[program.outputs[0].name], plain(model, rows_for(model)))
    assert program.rounds == 1
