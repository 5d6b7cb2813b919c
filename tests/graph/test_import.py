from __future__ import annotations

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper, numpy_helper

from he_backend.errors import ModelError
from he_backend.graph import Reference, convert, run_program
from he_backend.graph.element_types import element_type
from he_backend.graph.onnx_import import import_onnx
from tests.graph.networks import NetworkBuilder, plain, rows_for


def model_of(nodes, inputs, outputs, constants=(), opset=17):
    """A model from (name, shape) inputs and outputs (float unless a third entry says otherwise) and named arrays."""
    info = [[helper.make_tensor_value_info(n, *(t or [TensorProto.FLOAT]), s) for n, s, *t in group] for group in (inputs, outputs)]
    tensors = [numpy_helper.from_array(np.asarray(v), k) for k, v in dict(constants).items()]
    model = helper.make_model(helper.make_graph(nodes, "g", *info, tensors), opset_imports=[helper.make_opsetid("", opset)])
    model.ir_version = 8
    return model


def small():
    net = NetworkBuilder((4,))
    net.apply("MatMul", net.weights(4, 3), shape=(1, 3))
    net.apply("Relu")
    return net.model()


def test_path_bytes_and_proto_give_the_same_program(tmp_path):
    model = small()
    path = tmp_path / "small.onnx"
    onnx.save(model, str(path))
    programs = [convert(str(path)), convert(path), convert(model.SerializeToString()), convert(model)]
    assert programs[0].name == "small"
    rows = rows_for(model)
    for program in programs:
        np.testing.assert_allclose(run_program(program, rows)[program.outputs[0].name], plain(model, rows), rtol=1e-5, atol=1e-6)


def test_missing_file_names_the_path(tmp_path):
    with pytest.raises(ModelError, match=r"nowhere\.onnx.*does not exist"):
        convert(tmp_path / "nowhere.onnx")


@pytest.mark.parametrize("data", [b"", b"not a model at all", b"\x08\x07garbage\xff\xff"])
def test_corrupt_bytes_are_refused(data):
    with pytest.raises(ModelError, match="not an ONNX model"):
        convert(data)


def test_truncated_file_is_refused():
    data = small().SerializeToString()
    for length in range(0, len(data) - 1, 7):
        with pytest.raises(ModelError):
            convert(data[:length])


@pytest.mark.parametrize("source", [None, 3, ["x"], np.zeros(3)])
def test_other_types_are_refused(source):
    with pytest.raises(ModelError, match="path, bytes or an"):
        convert(source)


def test_external_data_is_refused(tmp_path):
    path = tmp_path / "large.onnx"
    onnx.save(small(), str(path), save_as_external_data=True, location="weights.bin", size_threshold=0)
    with pytest.raises(ModelError, match="stored in another file"):
        convert(path)


def test_newer_opset_than_known_is_refused():
    model = small()
    model.opset_import[0].version = 999
    with pytest.raises(ModelError, match="opset 999"):
        convert(model)


def test_open_axis_needs_a_size():
    nodes = [helper.make_node("MatMul", ["x", "w"], ["y"])]
    model = model_of(nodes, [("x", ["n", "seq", 4])], [("y", ["n", "seq", 2])], {"w": np.ones((4, 2), np.float32)})
    with pytest.raises(ModelError, match=r"axis 1 \('seq'\).*dims=\{'seq': 128\}"):
        convert(model)
    for dims in ({"seq": 5}, {"x:1": 5}):
        assert convert(model, dims=dims).inputs[0].shape == (5, 4)
    with pytest.raises(ModelError, match="positive integer"):
        convert(model, dims={"seq": 0})


def test_rows_that_mix_in_an_open_batch_are_refused():
    model = model_of([helper.make_node("Softmax", ["x"], ["y"], axis=0)], [("x", ["n", 4])], [("y", ["n", 4])])
    with pytest.raises(ModelError, match="rows of a batch change each other"):
        convert(model)


def test_rows_that_mix_in_a_fixed_batch_make_one_row_of_the_whole_input():
    model = model_of([helper.make_node("Softmax", ["x"], ["y"], axis=0)], [("x", [3, 4])], [("y", [3, 4])])
    program = convert(model)
    assert not program.row_wise
    assert program.inputs[0].shape == (3, 4)
    rows = np.random.default_rng(0).standard_normal((2, 3, 4)).astype(np.float32)
    got, reference = run_program(program, rows)["y"], Reference(program).run(rows)["y"]
    for i in range(2):
        np.testing.assert_allclose(got[i], plain(model, rows[i]), atol=1e-6)
        np.testing.assert_allclose(reference[i], plain(model, rows[i]), atol=1e-6)


def test_a_vector_is_one_row():
    model = model_of([helper.make_node("MatMul", ["x", "w"], ["y"])], [("x", [4])], [("y", [2])], {"w": np.ones((4, 2), np.float32)})
    program = convert(model)
    assert program.inputs[0].shape == (4,)
    rows = np.arange(8, dtype=np.float32).reshape(2, 4)
    np.testing.assert_allclose(run_program(program, rows)["y"], rows @ np.ones((4, 2)))


def test_fixed_batch_whose_axis_0_is_rows_is_taken_row_by_row():
    weight = np.random.default_rng(0).standard_normal((12, 3)).astype(np.float32)
    nodes = [
        helper.make_node("Relu", ["x"], ["r"]),
        helper.make_node("Reshape", ["r", "shape"], ["f"]),
        helper.make_node("MatMul", ["f", "w"], ["y"]),
    ]
    model = model_of(nodes, [("x", [5, 3, 4])], [("y", [5, 3])], {"shape": np.array([5, 12]), "w": weight})
    program = convert(model)
    assert program.row_wise
    assert program.inputs[0].shape == (3, 4)
    rows = np.random.default_rng(1).standard_normal((5, 3, 4)).astype(np.float32)
    np.testing.assert_allclose(run_program(program, rows)["y"], plain(model, rows), atol=1e-5)


def test_reshape_to_one_row_runs_on_many():
    """Like mnist_8: exported for one row, with Reshape to [1, 6]."""
    weight = np.random.default_rng(0).standard_normal((6, 3)).astype(np.float32)
    nodes = [
        helper.make_node("MatMul", ["x", "u"], ["a"]),
        helper.make_node("Relu", ["a"], ["r"]),
        helper.make_node("Reshape", ["r", "shape"], ["f"]),
        helper.make_node("Softmax", ["f"], ["s"], axis=1),
        helper.make_node("MatMul", ["s", "w"], ["y"]),
    ]
    constants = {"shape": np.array([1, 6]), "w": weight, "u": np.ones((2, 3), np.float32)}
    model = model_of(nodes, [("x", [1, 2, 2])], [("y", [1, 3])], constants)
    program = convert(model)
    assert all(step.batched for step in program.steps)
    assert Reference(program).batched
    rows = np.random.default_rng(1).standard_normal((4, 2, 2)).astype(np.float32)
    wanted = np.concatenate([plain(model, rows[i : i + 1]) for i in range(4)])
    np.testing.assert_allclose(run_program(program, rows)["y"], wanted, atol=1e-6)
    np.testing.assert_allclose(Reference(program).run(rows)["y"], wanted, atol=1e-6)


def test_a_step_that_cannot_be_batched_runs_row_by_row():
    nodes = [
        helper.make_node("MatMul", ["x", "w"], ["a"]),
        helper.make_node("Relu", ["a"], ["r"]),
        helper.make_node("Transpose", ["r"], ["t"], perm=[1, 0, 2]),
        helper.make_node("Softmax", ["t"], ["y"], axis=0),
    ]
    model = model_of(nodes, [("x", [1, 3, 4])], [("y", [3, 1, 2])], {"w": np.ones((4, 2), np.float32)})
    program = convert(model)
    assert not program.steps[-1].batched
    rows = np.random.default_rng(1).standard_normal((4, 3, 4)).astype(np.float32)
    wanted = np.stack([plain(model, rows[i : i + 1]) for i in range(4)])
    np.testing.assert_allclose(run_program(program, rows)["y"], wanted, atol=1e-6)
    np.testing.assert_allclose(Reference(program).run(rows)["y"], wanted, atol=1e-6)


def test_several_inputs_and_outputs():
    nodes = [
        helper.make_node("MatMul", ["a", "w"], ["p"]),
        helper.make_node("Add", ["p", "b"], ["q"]),
        helper.make_node("Tanh", ["q"], ["y"]),
    ]
    model = model_of(nodes, [("a", ["n", 4]), ("b", ["n", 3])], [("y", ["n", 3]), ("p", ["n", 3])], {"w": np.ones((4, 3), np.float32)})
    program = convert(model)
    assert [spec.name for spec in program.outputs] == ["y", "p"]
    rows = {"a": np.ones((2, 4), np.float32), "b": np.full((2, 3), -3.5, np.float32)}
    got = run_program(program, rows)
    np.testing.assert_allclose(got["p"], np.full((2, 3), 4.0))
    np.testing.assert_allclose(got["y"], np.tanh(np.full((2, 3), 0.5)), rtol=1e-6)
    np.testing.assert_allclose(Reference(program).run(rows)["y"], got["y"], rtol=1e-6)


@pytest.mark.parametrize("kind", [np.float64, np.float16])
def test_other_floating_types(kind):
    proto = element_type(kind)
    weight = np.random.default_rng(0).standard_normal((4, 3)).astype(kind)
    nodes = [helper.make_node("MatMul", ["x", "w"], ["a"]), helper.make_node("Relu", ["a"], ["y"])]
    model = model_of(nodes, [("x", ["n", 4], proto)], [("y", ["n", 3], proto)], {"w": weight})
    program = convert(model)
    assert program.outputs[0].dtype == np.dtype(kind).name
    rows = np.random.default_rng(1).standard_normal((3, 4)).astype(kind)
    np.testing.assert_allclose(run_program(program, rows, dtype=kind)["y"], plain(model, rows), atol=2e-2 if kind == np.float16 else 1e-9)


def test_an_output_that_needs_no_input_is_refused():
    nodes = [helper.make_node("Identity", ["w"], ["y"]), helper.make_node("Relu", ["x"], ["z"])]
    model = model_of(nodes, [("x", ["n", 2])], [("y", [2]), ("z", ["n", 2])], {"w": np.ones(2, np.float32)})
    with pytest.raises(ModelError, match="'y' does not depend on any input"):
        convert(model)


def test_an_output_may_be_an_input():
    model = model_of([helper.make_node("Identity", ["x"], ["y"])], [("x", ["n", 2])], [("y", ["n", 2])])
    rows = np.ones((3, 2), np.float32)
    program = convert(model)
    assert program.rounds == 0
    np.testing.assert_array_equal(run_program(program, rows)["y"], rows)


def test_initializers_listed_as_inputs_are_constants():
    model = small()
    model.ir_version = 3
    model.graph.input.append(helper.make_tensor_value_info(model.graph.initializer[0].name, TensorProto.FLOAT, [4, 3]))
    assert len(convert(model).inputs) == 1


def test_opset_6_models_are_converted():
    nodes = [helper.make_node("PRelu", ["x", "slope"], ["y"])]
    slope = np.array([0.1, 0.2, 0.3], np.float32)
    model = model_of(nodes, [("x", [2, 3, 4])], [("y", [2, 3, 4])], {"slope": slope}, opset=6)
    rows = np.random.default_rng(0).standard_normal((2, 3, 4)).astype(np.float32)
    wanted = np.where(rows < 0, rows * slope[:, None], rows)
    np.testing.assert_allclose(run_program(convert(model), rows)["y"], wanted, atol=1e-6)


def refused(model, **options):
    with pytest.raises(ModelError) as caught:
        convert(model, **options)
    return caught.value


def test_all_problems_are_told_at_once():
    table = np.zeros((5, 3), np.float32)
    nodes = [
        helper.make_node("Gather", ["table", "ids"], ["e"], name="embed"),
        helper.make_node("RandomNormalLike", ["e"], ["noise"], name="noise"),
        helper.make_node("Add", ["e", "noise"], ["s"], name="sum"),
        helper.make_node("Pow", ["s", "powers"], ["p"], name="power"),
        helper.make_node("LSTM", ["p", "W", "R", "", "", "", "", "P"], ["y"], name="cell", hidden_size=2),
    ]
    weights = {"W": np.zeros((1, 8, 3), np.float32), "R": np.zeros((1, 8, 2), np.float32), "P": np.ones((1, 6), np.float32)}
    model = model_of(
        nodes, [("ids", [1, 4], TensorProto.INT64)], [("y", None)], {"table": table, "powers": np.ones(3, np.float32), **weights}
    )
    error = refused(model)
    told = [(p.node, p.op) for p in error.problems]
    assert told == [("embed", "Gather"), ("noise", "RandomNormalLike"), ("power", "Pow"), ("cell", "LSTM")]
    assert all(p.reason for p in error.problems)
    assert "public_embeddings=True" in error.problems[0].instead
    assert "cell (LSTM)" in str(error)


def test_custom_and_unknown_operators_are_told_at_once():
    nodes = [
        helper.make_node("Magic", ["x"], ["a"], name="one", domain="my.ops"),
        helper.make_node("NoSuchOp", ["a"], ["b"], name="two"),
        helper.make_node("QuantizeLinear", ["b", "s"], ["y"], name="three"),
    ]
    error = refused(model_of(nodes, [("x", ["n", 2])], [("y", ["n", 2])], {"s": np.float32(1)}))
    assert [p.node for p in error.problems] == ["one", "two", "three"]


def test_control_flow_is_refused():
    body = helper.make_graph(
        [helper.make_node("Relu", ["x"], ["t"])], "body", [], [helper.make_tensor_value_info("t", TensorProto.FLOAT, None)]
    )
    other = helper.make_graph(
        [helper.make_node("Neg", ["x"], ["e"])], "other", [], [helper.make_tensor_value_info("e", TensorProto.FLOAT, None)]
    )
    nodes = [
        helper.make_node("ReduceSum", ["x"], ["s"], keepdims=0),
        helper.make_node("Greater", ["s", "zero"], ["c"]),
        helper.make_node("If", ["c"], ["y"], name="choice", then_branch=body, else_branch=other),
    ]
    error = refused(model_of(nodes, [("x", [1, 3])], [("y", [1, 3])], {"zero": np.float32(0)}))
    assert [(p.node, p.op) for p in error.problems] == [("choice", "If")]
    assert "control flow" in error.problems[0].reason


@pytest.mark.parametrize("op", ["NonZero", "Unique"])
def test_results_of_unknown_size_are_refused(op):
    nodes = [helper.make_node(op, ["x"], ["y"], name="odd")]
    kind = TensorProto.INT64 if op == "NonZero" else TensorProto.FLOAT
    error = refused(model_of(nodes, [("x", [1, 3])], [("y", None, kind)]))
    assert error.problems[0].op == op
    assert "size" in error.problems[0].reason


def test_training_mode_is_refused():
    nodes = [helper.make_node("Dropout", ["x", "ratio", "training"], ["y"], name="drop")]
    error = refused(model_of(nodes, [("x", [1, 3])], [("y", [1, 3])], {"ratio": np.float32(0.5), "training": np.array(True)}))
    assert error.problems[0].op == "Dropout"
    assert "training" in error.problems[0].reason


def test_integer_weights_are_refused():
    nodes = [
        helper.make_node("Cast", ["x"], ["i"], to=TensorProto.INT32),
        helper.make_node("MatMul", ["i", "w"], ["y"], name="product"),
    ]
    error = refused(model_of(nodes, [("x", [1, 3])], [("y", [1, 2], TensorProto.INT32)], {"w": np.ones((3, 2), np.int32)}))
    assert "integer weights" in error.problems[0].reason


def test_public_embeddings_are_marked():
    table = np.random.default_rng(0).standard_normal((5, 3)).astype(np.float32)
    nodes = [
        helper.make_node("Gather", ["table", "ids"], ["e"]),
        helper.make_node("MatMul", ["e", "w"], ["y"]),
    ]
    constants = {"table": table, "w": np.ones((3, 2), np.float32)}
    model = model_of(nodes, [("ids", ["n", 4], TensorProto.INT64)], [("y", ["n", 4, 2])], constants)
    program = convert(model, public_embeddings=True)
    assert any(entry.startswith("table:") and "embedding table" in entry for entry in program.public_constants)
    ids = np.array([[0, 1, 2, 3], [4, 4, 0, 1]])
    np.testing.assert_allclose(run_program(program, ids)["y"], table[ids] @ np.ones((3, 2)), rtol=1e-5)


def test_verification_catches_a_wrong_rewrite(monkeypatch):
    from he_backend.graph import onnx_import

    monkeypatch.setattr(onnx_import, "rewrite", lambda graph, embeddings: spoiled(graph))
    with pytest.raises(ModelError, match="changed while the model was rewritten"):
        import_onnx(small())


def spoiled(graph):
    return graph.with_nodes(graph.nodes, {name: value * 1.5 if value.ndim == 2 else value for name, value in graph.constants.items()})


def _unsupported(inputs, nodes):
    """A model with weights W [4, 4] that cannot be run."""
    weights = numpy_helper.from_array(np.ones((4, 4), np.float32), "W")
    values = [helper.make_tensor_value_info("x", TensorProto.FLOAT, inputs)]
    graph = helper.make_graph(nodes, "unsupported", values, [helper.make_tensor_value_info("y", TensorProto.FLOAT, None)], [weights])
    return helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17), helper.make_opsetid("my.domain", 1)], ir_version=8)


NOISE = helper.make_node("RandomNormalLike", ["x"], ["n"], name="noise")


@pytest.mark.parametrize(
    "inputs, nodes, told, summary",
    [
        (["rows", "seq", 4], [NOISE, helper.make_node("MatMul", ["n", "W"], ["y"])], {"noise"}, "these sizes are open"),
        (
            ["rows", "seq", 4],
            [
                NOISE,
                helper.make_node("Own", ["n"], ["z"], name="own", domain="my.domain"),
                helper.make_node("Pow", ["z", "W"], ["y"], name="p"),
            ],
            {"noise", "own", "p"},
            "these sizes are open",
        ),
        (
            ["rows", 4],
            [NOISE, helper.make_node("ReduceMean", ["x"], ["m"], axes=[0]), helper.make_node("Add", ["m", "n"], ["y"])],
            {"noise"},
            "rows of a batch change each other",
        ),
    ],
)
def test_what_is_wrong_with_shapes_and_what_is_wrong_with_operators_are_told_together(inputs, nodes, told, summary):
    with pytest.raises(ModelError, match=summary) as refusal:
        convert(_unsupported(inputs, nodes))
    assert {problem.node for problem in refusal.value.problems} == told
    assert all(problem.instead for problem in refusal.value.problems)


@pytest.mark.parametrize("scale", [1e39, 1e100, 1e-40, 1e-300])
def test_weights_of_float64_that_are_no_float32_are_refused_by_node(scale):
    nodes = [helper.make_node("MatMul", ["x", "w"], ["h"], "first"), helper.make_node("Add", ["h", "b"], ["y"], "second")]
    constants = {"w": np.full((4, 2), scale), "b": np.full(2, scale)}
    model = model_of(nodes, [("x", ["rows", 4], TensorProto.DOUBLE)], [("y", None, TensorProto.DOUBLE)], constants)
    with pytest.raises(ModelError) as caught:
        convert(model)
    assert [problem.node for problem in caught.value.problems] == ["first", "second"]
    assert all("no float32" in problem.reason for problem in caught.value.problems)


def test_weights_of_float64_within_float32_run():
    constants = {"w": np.array([[1e30, 0.0], [1e-30, 1e-300]])}  # what is far below the largest is rounded away anyway
    node = helper.make_node("MatMul", ["x", "w"], ["y"], "first")
    assert convert(model_of([node], [("x", ["rows", 2], TensorProto.DOUBLE)], [("y", None, TensorProto.DOUBLE)], constants)).rounds == 1


@pytest.mark.parametrize("op", ["Shape", "Size"])
def test_an_output_of_sizes_is_refused_as_what_it_is(op):
    net = NetworkBuilder((4,))
    net.apply("Relu")
    model = net.model()
    model.graph.node.append(helper.make_node(op, ["x"], ["s"]))
    model.graph.node.append(helper.make_node("Identity", ["s"], ["t"]))
    model.graph.output.append(helper.make_tensor_value_info("t", TensorProto.INT64, None))
    with pytest.raises(ModelError, match="'t' tells sizes of arrays and nothing of their values; remove it"):
        convert(model)
