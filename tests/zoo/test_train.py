"""Training on digits: accuracy, repeatability, export, refusals."""

from __future__ import annotations

import json

import numpy as np
import onnx
import onnxruntime
import pytest

from he_backend.errors import NotFoundError, ParameterError
from he_backend.zoo import datasets
from he_backend.zoo.registry import Recipe
from he_backend.zoo.saved import draw_curve, save

torch = pytest.importorskip("torch")

from he_backend.zoo.train import export, train  # noqa: E402  (needs torch)


@pytest.mark.parametrize("model_type, activation", [("MLP", "relu"), ("CNN", "relu"), ("CNN", "square")])
def test_ten_epochs_learn_digits(model_type, activation):
    result = train(model_type, "digits", epochs=10, seed=0, activation=activation)

    assert result.test_rows == 653
    assert result.test_acc > 0.94
    assert result.curve[-1].loss < result.curve[0].loss
    assert abs(result.curve[-1].test_acc - result.test_acc) < 2 / 653


@pytest.mark.parametrize("model_type, least", [("AlexNet", 0.95), ("RNN", 0.85), ("BERT", 0.7)])
def test_the_other_types_learn_digits_too(model_type, least):
    result = train(model_type, "digits", epochs=6, seed=1)

    stored = onnx.load_from_string(result.onnx)
    assert result.test_acc > least and result.curve[-1].loss < result.curve[0].loss
    assert any(tensor.data_type == onnx.TensorProto.FLOAT16 for tensor in stored.graph.initializer)
    stated = {entry.key: entry.value for entry in stored.metadata_props}
    assert stated.get("he_nn.embeddings", "") == result.embeddings == ("" if model_type == "AlexNet" else "public")


def test_text_and_mirrored_images_are_repeatable_too():
    for model_type in ("AlexNet", "RNN", "BERT"):
        first, again = (train(model_type, "digits", epochs=1, seed=2) for _ in range(2))
        assert first.onnx == again.onnx


def test_batches_of_tokens_are_cut_behind_the_longest_and_hide_some():
    from he_backend.zoo.batches import batches
    from he_backend.zoo.registry import resolve

    rows = torch.tensor([[101, 7, 102, 0, 0, 0], [101, 7, 8, 9, 102, 0]] * 40)
    labels = torch.arange(80)
    recipe = Recipe(1, 8, 1e-3, hide_tokens=0.5)

    drawn = list(batches(resolve("RNN"), rows, labels, recipe))

    assert sorted(int(y) for _, part in drawn for y in part) == list(range(80))
    assert {x.shape[1] for x, _ in drawn} <= {3, 5} and any((x == 103).any() for x, _ in drawn)
    for x, part in drawn:
        kept = rows[part][:, : x.shape[1]]
        assert ((x == kept) | ((x == 103) & (kept != 0))).all()
    assert all(x.shape[1] == 6 for x, _ in batches(resolve("RNN"), rows, labels, recipe, whole=True))


def test_same_seed_gives_the_same_network_and_another_does_not():
    first = train("MLP", "digits", epochs=2, seed=3)
    again = train("MLP", "digits", epochs=2, seed=3)
    other = train("MLP", "digits", epochs=2, seed=4)

    assert first.curve == again.curve and first.test_acc == again.test_acc
    assert other.curve != first.curve


def test_training_leaves_torch_as_it_was():
    torch.manual_seed(5)
    expected = torch.rand(3)
    threads = torch.get_num_threads()
    torch.manual_seed(5)

    train("MLP", "digits", epochs=1, seed=9, threads=1)

    assert torch.equal(torch.rand(3), expected)
    assert torch.get_num_threads() == threads


def test_progress_is_told_each_epoch():
    seen = []

    result = train("MLP", "digits", epochs=3, progress=lambda point, epochs: seen.append((point, epochs)))

    assert seen == [(point, 3) for point in result.curve]


def test_export_has_named_ends_a_free_row_axis_and_the_same_scores():
    torch.manual_seed(0)
    module = torch.nn.Sequential(torch.nn.Conv2d(1, 2, 3), torch.nn.Flatten(), torch.nn.Linear(72, 4))
    x = torch.rand(5, 1, 8, 8)

    model = onnx.load_from_string(export(module, (1, 8, 8)))

    assert [v.name for v in model.graph.input] == ["x"] and [v.name for v in model.graph.output] == ["scores"]
    assert model.opset_import[0].version == 17
    session = onnxruntime.InferenceSession(model.SerializeToString(), providers=["CPUExecutionProvider"])
    np.testing.assert_allclose(session.run(["scores"], {"x": x.numpy()})[0], module(x).detach().numpy(), rtol=1e-5, atol=1e-5)


def test_shifts_move_whole_images_and_lose_nothing_inside():
    from he_backend.zoo.batches import shifted

    image = torch.zeros(40, 1, 8, 8)
    image[:, 0, 3, 4] = 1

    moved = shifted(image, 2)

    at = moved.flatten(1).argmax(1)
    assert torch.equal(moved.sum((1, 2, 3)), torch.ones(40))
    assert len(set(at.tolist())) > 5
    assert set((at // 8).tolist()) <= {1, 2, 3, 4, 5} and set((at % 8).tolist()) <= {2, 3, 4, 5, 6}


def test_saved_record_says_how_to_make_it_again(tmp_path):
    result = train("Cryptonets", "digits", epochs=2, seed=1, activation="relu")

    path = save(result, tmp_path / "new")

    assert draw_curve(result, tmp_path / "curve.png") and (tmp_path / "curve.png").read_bytes()[:4] == b"\x89PNG"
    record = json.loads(path.with_suffix(".json").read_text())
    assert path.name == "cnn-digits.onnx" and path.read_bytes() == result.onnx
    assert record["test_acc"] == result.test_acc and record["input_shape"] == [1, 8, 8]
    assert record["reproduce"] == "he-nn train CNN --data digits --activation relu --epochs 2 --seed 1"
    assert [point["epoch"] for point in record["curve"]] == [1, 2]


@pytest.mark.parametrize(
    "arguments, error, message",
    [
        ({"model_type": "GPT"}, NotFoundError, "GPT"),
        ({"epochs": 0}, ParameterError, "epochs is 0"),
        ({"threads": 0}, ParameterError, "threads is 0"),
        ({"activation": "tanh"}, ParameterError, "'tanh'.*relu, square"),
        ({"dataset": "cifar"}, ParameterError, "'cifar'"),
        ({"dataset": "sst2"}, ParameterError, "MLP cannot be trained on 'sst2'.*digits, mnist"),
        ({"model_type": "BERT", "activation": "relu"}, ParameterError, "'relu'.*gelu"),
    ],
)
def test_refusals(arguments, error, message):
    with pytest.raises(error, match=message):
        train(**{"model_type": "MLP", "dataset": "digits", "epochs": 1, **arguments})


@pytest.mark.slow
def test_one_epoch_of_mnist_is_already_good():
    try:
        datasets.mnist()
    except NotFoundError as missing:
        pytest.skip(str(missing))

    assert train("CNN", "mnist", epochs=1).test_acc > 0.95
