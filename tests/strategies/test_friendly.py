"""The he-friendly strategy: fits, replacements, and that what is written computes what was trained."""

from __future__ import annotations

import numpy as np
import onnx
import onnxruntime
import pytest

from he_backend.strategies import friendly, network
from he_backend.zoo import shipped

torch = pytest.importorskip("torch")

from he_backend.strategies import distil  # noqa: E402  (needs torch)
from tests.strategies.test_network import RANDOM, chain, model, weights  # noqa: E402


def test_a_polynomial_fits_where_the_values_are():
    values = RANDOM.standard_normal(5000)

    c0, c1, c2 = friendly.fit("Relu", values, 2)

    # The best quadratic under a normal distribution has Hermite coefficients: x/2 + (x² + 1)/sqrt(8 pi)
    assert c1 == pytest.approx(0.5, abs=0.02) and c2 == pytest.approx(0.1995, abs=0.03) and c0 == pytest.approx(0.1995, abs=0.04)


@pytest.mark.parametrize("op", ["Relu", "Gelu", "Tanh", "Sigmoid"])
def test_a_fit_stays_bounded_over_the_whole_range_and_on_one_value(op):
    degree = 2 if op in ("Relu", "Gelu") else 3
    values = np.concatenate([RANDOM.standard_normal(1000) * 0.1, [-6.0, 6.0]])

    numbers = friendly.fit(op, values, degree)

    x = np.linspace(-6, 6, 50)
    assert np.abs(sum(c * x**i for i, c in enumerate(numbers)) - friendly._exact(op, x)).max() < 3
    assert np.isfinite(friendly.fit(op, np.zeros(10), degree)).all()


def replaced(data, x):
    read = network.read(data)
    return read, friendly.replacements(read, distil.samples(read, x))


OPS = {
    "Relu": (chain(("MatMul", ["w"], {}), ("Relu", [], {}), ("MatMul", ["u"], {})), (6,)),
    "Tanh": (chain(("MatMul", ["w"], {}), ("Tanh", [], {}), ("MatMul", ["u"], {})), (6,)),
    "MaxPool": (chain(("MaxPool", [], {"kernel_shape": [3, 3], "strides": [2, 2], "pads": [1, 1, 0, 0], "dilations": [1, 1]})), (2, 8, 6)),
    "Softmax": (chain(("MatMul", ["w"], {}), ("Softmax", [], {"axis": -1}), ("MatMul", ["u"], {})), (6,)),
    "Softmax over the middle": (chain(("Softmax", [], {"axis": 1})), (4, 5)),
}


@pytest.mark.parametrize("case", OPS)
def test_what_is_written_is_what_was_trained(case):
    nodes, shape = OPS[case]
    used = {name for node in nodes for name in node.input}
    data = model(nodes, shape, {name: value for name, value in {"w": weights(6, 5), "u": weights(5, 3)}.items() if name in used})
    x = RANDOM.standard_normal((9, *shape)).astype(np.float32)
    read, found = replaced(data, x)
    runner = distil.Runner(read, found)

    made = network.write(distil.written(*runner.trained()))

    assert len(found) == 1
    scores = onnxruntime.InferenceSession(made, providers=["CPUExecutionProvider"]).run(None, {"x": x})[0]
    np.testing.assert_allclose(scores, runner.scores(torch.from_numpy(x)).detach().numpy(), rtol=1e-3, atol=1e-4)
    assert not {case.split()[0], "Exp"} & {node.op_type for node in onnx.load_from_string(made).graph.node}


@pytest.mark.parametrize("name", ["AlexNet", "RNN", "BERT"])
def test_the_zoos_networks_written_without_training_agree_with_torch(name):
    one = shipped(name, "digits")
    x = one.load_test()[0][:20]
    read, found = replaced(one.onnx_path.read_bytes(), x)
    runner = distil.Runner(read, found)

    made = network.write(distil.written(*runner.trained()))

    scores = onnxruntime.InferenceSession(made, providers=["CPUExecutionProvider"]).run(None, {"x": x})[0]
    np.testing.assert_allclose(scores, runner.scores(torch.from_numpy(x)).detach().numpy(), rtol=1e-3, atol=1e-3)
    ops = [node.op_type for node in onnx.load_from_string(made).graph.node]
    assert not {"Relu", "MaxPool"} & set(ops) if name == "AlexNet" else not {"Erf", "Softmax", "Exp"} & set(ops)


def test_masked_places_get_nothing_from_the_squares_in_place_of_softmax():
    data = model(OPS["Softmax over the middle"][0], (4, 5), {})
    x = RANDOM.standard_normal((2, 4, 5)).astype(np.float32)
    x[:, 2] = -1e4
    read, found = replaced(data, x)

    shares = distil.Runner(read, found).scores(torch.from_numpy(x)).numpy()

    assert not shares[:, 2].any()
    np.testing.assert_allclose(shares.sum(axis=1), 1, atol=1e-5)


def test_nothing_of_the_replacement_is_the_original_and_half_is_between():
    nodes, shape = OPS["Relu"]
    data = model(nodes, shape, {"w": weights(6, 5), "u": weights(5, 3)})
    x = torch.from_numpy(RANDOM.standard_normal((4, 6)).astype(np.float32))
    read, found = replaced(data, x.numpy())
    runner, original = distil.Runner(read, found), distil.Runner(read)

    none, half, all_of_it = (runner.scores(x, share) for share in (0.0, 0.5, 1.0))

    assert torch.allclose(none, original.scores(x), atol=1e-6)
    assert torch.allclose(half, (none + all_of_it) / 2, atol=1e-5)


def test_a_flat_polynomial_can_still_be_written():
    nodes, shape = OPS["Relu"]
    found = replaced(model(nodes, shape, {"w": weights(6, 5), "u": weights(5, 3)}), np.ones((3, 6), np.float32))[1]
    ((name, one),) = found.items()

    ops, constants = friendly.ops_of(friendly.Replacement(one.op, one.kind, (0.25, 0.5, 0.0)))

    assert all(np.isfinite(value) for value in constants.values()) and [op.op for op in ops] == ["Add", "Mul", "Mul", "Add"]
    assert ops[-1].outputs == (name,)
