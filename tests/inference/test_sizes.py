"""Values of very different size in one round: columns, rows, zeros; and outputs that lie on top of each other or depend on nothing."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from onnx import TensorProto, helper, numpy_helper

import he_backend as he
from he_backend.ckks.engines import available
from he_backend.errors import CapacityError, InputError
from he_backend.graph.affine import AffineMap, Block, lower
from he_backend.inference.balance import balance
from tests.graph.networks import plain
from tests.inference.test_product import dense

ENCRYPTING = [engine for engine in ("native", "seal") if engine in available()]
ENGINES = ["clear", *ENCRYPTING]


def network(nodes, constants, shape, opset=17):
    """An ONNX network of x float32 [rows, *shape] to z."""
    graph = helper.make_graph(
        [helper.make_node(op, inputs.split(","), outputs.split(","), **attributes) for op, inputs, outputs, attributes in nodes],
        "sizes",
        [helper.make_tensor_value_info("x", TensorProto.FLOAT, ["rows", *shape])],
        [helper.make_tensor_value_info("z", TensorProto.FLOAT, None)],
        [numpy_helper.from_array(np.asarray(value), name) for name, value in constants.items()],
    )
    return helper.make_model(graph, opset_imports=[helper.make_opsetid("", opset)], ir_version=8)


def normal(rng, *shape):
    return rng.standard_normal(shape).astype(np.float32)


def bits_of_each_row(model, rows, engine, preset="N11_L1", **options):
    """Of each row, the bits by which its largest error is below its largest score, and those promised."""
    due = plain(model, rows)
    result = he.infer(he.convert(model), rows, engine=engine, preset=preset, **options)
    error, size = (np.abs(values).reshape(len(rows), -1).max(axis=1) for values in (result.output - due.astype(np.float64), due))
    return np.log2(size / np.maximum(error, size * 2.0**-24)), min(result.report.expected_bits, 18.0)  # float32 has few more


@pytest.mark.parametrize("engine", ENGINES)
@pytest.mark.parametrize("spread", [1.0, 10.0, 1e3, 1e5])
@pytest.mark.parametrize("preset", ["N11_L1", "auto"])
def test_features_of_any_size_are_as_precise_as_promised(engine, spread, preset):
    """A network that standardises its features has weights of 1/size."""
    rng = np.random.default_rng(0)
    sizes = np.where(np.arange(10) % 2, spread, 1.0 / spread).astype(np.float32)
    model = network([("Gemm", "x,w,b", "z", {})], {"w": normal(rng, 10, 4) / sizes[:, None], "b": normal(rng, 4)}, (10,))

    reached, promised = bits_of_each_row(model, normal(rng, 16, 10) * sizes, engine, preset)

    print(f"\n{engine} {preset} {spread:g}: reached {reached.min():.1f} bits, promised {promised:.1f}")
    assert promised > 11.0 and np.median(reached) >= promised and reached.min() >= promised - 2.0


@pytest.mark.parametrize("engine", ENGINES)
@pytest.mark.parametrize("size", [1e-5, 1e-3, 1.0])
def test_small_inputs_with_large_weights_and_a_bias(engine, size):
    rng = np.random.default_rng(1)
    model = network([("Gemm", "x,w,b", "z", {})], {"w": normal(rng, 20, 4) / np.float32(4 * size), "b": normal(rng, 4)}, (20,))

    reached, promised = bits_of_each_row(model, normal(rng, 16, 20) * np.float32(size), engine)

    assert promised > 11.0 and np.median(reached) >= promised and reached.min() >= promised - 2.0


@pytest.mark.parametrize("engine", ENGINES)
@pytest.mark.parametrize("packing", ["batch", "grid", "product"])
@pytest.mark.parametrize("outlier", [1e2, 1e6, 1e-30])
def test_a_row_of_another_size_takes_nothing_from_the_others(engine, packing, outlier):
    if engine == "seal" and packing != "batch":
        pytest.skip("slots hold batches alone")
    rng = np.random.default_rng(2)
    constants = {"w": normal(rng, 2, 2, 3, 3), "b": normal(rng, 2), "v": normal(rng, 32, 3)}
    nodes = [("Conv", "x,w,b", "h", {"pads": [1, 1, 1, 1]}), ("Relu", "h", "r", {}), ("Flatten", "r", "f", {}), ("MatMul", "f,v", "z", {})]
    rows = normal(rng, 9, 2, 4, 4)
    rows[3] *= np.float32(outlier)

    reached, promised = bits_of_each_row(network(nodes, constants, (2, 4, 4)), rows, engine, packing=packing)

    assert promised > 11.0 and np.median(reached) >= promised and reached.min() >= promised - 2.0


@pytest.mark.parametrize("engine", ENGINES)
@pytest.mark.parametrize("preset", ["N11_L1", "N12_L4", "N13_L8", "auto"])
def test_zeros_give_zeros(engine, preset):
    rng = np.random.default_rng(3)
    model = network([("Relu", "x", "r", {}), ("MatMul", "r,w", "z", {})], {"w": normal(rng, 6, 3)}, (6,))

    for rows in (np.zeros((1, 6), np.float32), -np.abs(normal(rng, 3, 6))):
        result = he.infer(he.convert(model), rows, engine=engine, preset=preset)
        assert np.abs(result.output).max() < 2e-3, "as precise as for inputs of 1"


@pytest.mark.parametrize("engine", ENGINES)
def test_inputs_near_the_smallest_of_floats(engine):
    rng = np.random.default_rng(4)
    model = network([("MatMul", "x,w", "z", {})], {"w": normal(rng, 6, 3)}, (6,))

    for size in (1e-6, 1e-12, 1e-30):
        reached, promised = bits_of_each_row(model, normal(rng, 2, 6) * np.float32(size), engine)
        assert reached.min() >= promised - 2.0


@pytest.mark.parametrize("engine", ENCRYPTING)
def test_scores_that_cancel_out_lower_what_the_report_expects(engine):
    rng = np.random.default_rng(5)
    weights = normal(rng, 6, 1)
    model = network([("MatMul", "x,w", "z", {})], {"w": weights}, (6,))
    rows = normal(rng, 1, 6)
    rows -= (rows @ weights) @ weights.T / (weights * weights).sum() * np.float32(1.0 - 1e-4)

    _, usual = bits_of_each_row(model, normal(rng, 4, 6), engine)
    reached, expected = bits_of_each_row(model, rows, engine)

    assert expected < usual - 6.0 and abs(reached[0] - expected) < 8.0


@pytest.mark.parametrize("engine", ENGINES)
@pytest.mark.parametrize("packing", ["batch", "product", "auto"])
def test_outputs_that_read_the_same_elements_keep_their_own_biases(engine, packing):
    if engine == "seal" and packing == "product":
        pytest.skip("slots hold batches alone")
    rng = np.random.default_rng(6)
    repeated = network(
        [("Gather", "x,i", "y", {"axis": 1}), ("MatMul", "y,w", "h", {}), ("Add", "h,p", "z", {})],
        {"i": np.array([0, 0, 2, 3]), "w": normal(rng, 8, 8), "p": normal(rng, 4, 8)},
        (4, 8),
    )
    enlarged = network(
        [("Resize", "x,,s", "y", {"mode": "nearest"}), ("Conv", "y,w,b", "z", {})],
        {"s": np.array([1, 1, 2, 2], np.float32), "w": normal(rng, 4, 4, 1, 1), "b": normal(rng, 4)},
        (4, 4, 4),
    )

    for model, shape in ((repeated, (4, 8)), (enlarged, (4, 4, 4))):
        reached, promised = bits_of_each_row(model, normal(rng, 2, *shape), engine, packing=packing)
        assert reached.min() >= promised - 1.0


@pytest.mark.parametrize("engine", ENGINES)
@pytest.mark.parametrize("preset", ["N11_L1", "N13_L8", "auto"])
def test_layers_that_together_read_only_padding_give_zeros(engine, preset):
    rng = np.random.default_rng(7)
    model = network(
        [("Conv", "x,v", "h", {"kernel_shape": [1]}), ("Conv", "h,w", "z", {"kernel_shape": [1], "strides": [2], "pads": [1, 0]})],
        {"v": normal(rng, 1, 1, 1), "w": normal(rng, 2, 1, 1)},
        (1, 1),
    )

    result = he.infer(he.convert(model), normal(rng, 2, 1, 1), engine=engine, preset=preset)

    assert not result.output.any()


@pytest.mark.skipif("native" not in ENGINES, reason="needs the native engine, whose errors are not 0 here")
def test_predictions_that_are_no_numbers_are_an_error():
    model = network([("MatMul", "x,w", "h", {}), ("Sqrt", "h", "z", {})], {"w": np.ones((4, 40), np.float32)}, (4,))

    with pytest.raises(InputError, match="output z: the last client step gave NaN"):
        he.infer(he.convert(model), np.array([[1, -1, 2, -2]], np.float32), engine="native", preset="N11_L1")


@settings(max_examples=60, deadline=None)
@given(seed=st.integers(0, 2**32 - 1), k=st.integers(1, 30), m=st.integers(1, 6), decades=st.floats(0, 9))
def test_balancing_keeps_the_product_and_costs_a_tenth_of_a_bit_at_most(seed, k, m, decades):
    rng = np.random.default_rng(seed)
    weights = rng.normal(size=(k, m)) * 10.0 ** rng.uniform(-decades, decades, (k, 1)) * (rng.random((k, 1)) > 0.1)
    affine = dense(weights, rng.normal(size=m))

    balanced, factors = balance(affine)

    if not factors:
        assert balanced is affine
        return
    (found,) = factors
    x = rng.normal(size=(3, k))
    np.testing.assert_allclose(balanced.apply([x * found])[0], affine.apply([x])[0], rtol=1e-12, atol=1e-12 * np.abs(weights).max())
    used = weights.any(axis=1)
    assert (np.frexp(found[used])[0] == 0.5).all() and found.max() <= 1.0 and not found[~used].any()
    before, after = (weights**2).sum(), (balanced.blocks[0].weights ** 2).sum()
    assert before <= after * (1 + 1e-12) and after <= 1.2 * before * (1 + 1e-12)


def test_all_places_of_a_kernel_share_a_factor():
    model = network([("Conv", "x,w", "z", {"pads": [1, 1, 1, 1]})], {"w": np.ones((3, 4, 3, 3), np.float32)}, (4, 5, 5))
    program = he.convert(model)
    affine = lower(program.segments[0], program.shapes)
    (block,) = affine.blocks
    channel = block.gather.max(axis=1) // 25
    uneven = AffineMap(
        affine.in_sizes,
        affine.out_sizes,
        (Block(0, block.gather, block.weights * 1e-3 ** (channel % 2)[:, :, None], block.scatter),),
        affine.bias,
    )

    balanced, (factors,) = balance(uneven)

    by_channel = factors.reshape(4, 25)
    assert (by_channel == by_channel[:, :1]).all() and by_channel[0, 0] == by_channel[2, 0] == 1.0 and by_channel[1, 0] < 0.01
    x = np.random.default_rng(8).normal(size=(2, 100))
    np.testing.assert_allclose(balanced.apply([x * factors])[0], uneven.apply([x])[0], rtol=1e-12)


def test_weights_that_meet_padding_alone_are_left_as_they_are():
    block = Block(0, np.full((1, 1, 2), -1, np.int32), np.array([[[1.0], [1e-3]]]), np.zeros((1, 1, 1), np.int32))
    affine = AffineMap((3,), (1,), (block,), np.ones(1))

    assert balance(affine) == (affine, ())


@pytest.mark.parametrize("engine", ENGINES)
def test_results_beyond_float32_are_an_error(engine):
    model = network([("MatMul", "x,w", "z", {})], {"w": np.full((4, 2), 1e20, np.float32)}, (4,))

    with pytest.raises(CapacityError, match="beyond the largest float32"):
        he.infer(he.convert(model), np.full((2, 4), 1e20, np.float32), engine=engine, preset="N11_L1")


@pytest.mark.parametrize("engine", ENGINES)
def test_rows_of_a_float16_model_may_need_factors_beyond_its_type(engine):
    rng = np.random.default_rng(9)
    weights = normal(rng, 6, 3).astype(np.float16)
    model = network([("MatMul", "x,w", "z", {})], {"w": weights}, (6,))
    for value in model.graph.input:
        value.type.tensor_type.elem_type = TensorProto.FLOAT16
    model.graph.output[0].type.tensor_type.elem_type = TensorProto.FLOAT16
    rows = normal(rng, 3, 6).astype(np.float16)
    rows[0] *= np.float16(1e4)
    rows[1] = np.float16(2.0**-24)  # a factor of 2^37 beside row 0

    result = he.infer(he.convert(model), rows, engine=engine, preset="N11_L1")

    due = rows.astype(np.float64) @ weights.astype(np.float64)
    error = np.abs(result.output.astype(np.float64) - due).max(axis=1)
    assert (error <= 2.0**-10 * np.abs(due).max(axis=1) + 2.0**-24).all()
