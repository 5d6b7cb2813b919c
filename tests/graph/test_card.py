"""Cards: what they may say, how they travel, and what they make of outputs."""

from __future__ import annotations

import numpy as np
import onnx
import pytest

from he_backend.errors import ModelError
from he_backend.graph import convert
from he_backend.graph.card import Card, chances

FULL = Card(("age", "pay"), "multi", ("bus", "van", "car"))


def network(columns=2, outputs=3):
    weight = onnx.numpy_helper.from_array(np.ones((columns, outputs), np.float32), "w")
    graph = onnx.helper.make_graph(
        [onnx.helper.make_node("MatMul", ["x", "w"], ["scores"])],
        "net",
        [onnx.helper.make_tensor_value_info("x", 1, ["rows", columns])],
        [onnx.helper.make_tensor_value_info("scores", 1, ["rows", outputs])],
        [weight],
    )
    return onnx.helper.make_model(graph, opset_imports=[onnx.helper.make_opsetid("", 13)], ir_version=8)


def test_a_card_travels_in_the_onnx_file():
    model = network()
    FULL.write(model)

    assert Card.read(model.SerializeToString()) == FULL
    assert Card.of(FULL.to_dict()) == FULL


def test_a_file_without_a_card_has_an_empty_one_whatever_others_wrote():
    model = network()
    model.metadata_props.add(key="task", value="detect")
    model.metadata_props.add(key="features", value="[]]")

    assert Card.read(model.SerializeToString()) == Card()
    assert Card.of({"dataset": "digits", "rounds": 3}) == Card()


@pytest.mark.parametrize(
    ("values", "told"),
    [
        ([], "not a JSON object"),
        ({"features": "age"}, "features must be a list"),
        ({"features": ["a", 1]}, "features must be a list"),
        ({"features": ["a", ""]}, "features must be a list"),
        ({"features": ["a", "b", "a"]}, "one column twice"),
        ({"task": "detect"}, "task is 'detect'; allowed: binary, multi, regression"),
        ({"task": 1}, "task is '1'"),
        ({"classes": [0.5]}, "classes must be"),
        ({"classes": [1, 1]}, "classes must be"),
        ({"task": "regression", "classes": [0, 1]}, "a regression has no classes"),
        ({"task": "binary", "classes": [0, 1, 2]}, "binary and 3 classes"),
    ],
)
def test_a_card_that_cannot_be_is_refused(values, told):
    with pytest.raises(ModelError, match=told):
        Card.of(values)


def test_a_card_that_is_no_json_is_refused():
    model = network()
    model.metadata_props.add(key="he_nn.features", value="age,pay")

    with pytest.raises(ModelError, match="he_nn.features in the ONNX file is not JSON"):
        Card.read(model.SerializeToString())


@pytest.mark.parametrize(
    ("card", "outputs", "told"),
    [
        (Card(("a",)), 3, "names 1 features, the model takes 2"),
        (Card(classes=(0, 1)), 3, "names 2 classes, the model has 3 outputs"),
        (Card(task="regression"), 3, "says regression, the model has 3 outputs"),
        (Card(task="binary"), 3, "says binary, the model has 3 outputs"),
        (Card(task="multi"), 1, "says multi, the model has 1 outputs"),
    ],
)
def test_a_card_of_another_network_is_refused(card, outputs, told):
    with pytest.raises(ModelError, match=told):
        card.check(convert(network(outputs=outputs).SerializeToString()))


def test_a_card_that_fits_is_taken():
    FULL.check(convert(network().SerializeToString()))
    Card(("a", "b"), "binary", ("no", "yes")).check(convert(network(outputs=1).SerializeToString()))


def test_outputs_become_labels():
    scores = np.array([[0.1, 0.9, 0.0], [5.0, 1.0, 2.0]])

    assert FULL.labels_of(scores).tolist() == ["van", "bus"]
    assert Card().labels_of(scores).tolist() == [1, 0]
    assert Card(task="binary", classes=(3, 7)).labels_of(np.array([[0.2], [0.8]])).tolist() == [3, 7]
    assert Card().labels_of(np.array([[0.2], [0.8]])) is None  # one value without a word about it is a regression


def test_a_binary_output_must_be_a_probability():
    np.testing.assert_array_equal(chances(np.array([[-0.005], [1.004]])), [0.0, 1.0])  # the error of encrypted arithmetic
    with pytest.raises(ModelError, match="end it with Sigmoid"):
        Card(task="binary").labels_of(np.array([[3.5], [0.5]]))
