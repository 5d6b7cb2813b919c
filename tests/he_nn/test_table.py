"""Table rows to arrays and model outputs to prediction columns."""

from __future__ import annotations

import json

import numpy as np
import pytest

from he_backend.errors import InputError, ModelError
from he_backend.graph.card import Card
from he_nn.table import detail_text, from_array, from_columns, predictions, probabilities, read_detail

IDS = ["b", "a", "c"]


def test_rows_keep_ids_order_columns_and_labels():
    rows = from_columns(IDS, {"x0": [1, 2, 3], "x1": [0.5, 1.5, 2.5]}, labels=[1, 0, 1], match_ids=["B", "A", "C"])

    assert (rows.ids, rows.match_ids, rows.columns) == (("b", "a", "c"), ("B", "A", "C"), ("x0", "x1"))
    np.testing.assert_array_equal(rows.values, [[1, 0.5], [2, 1.5], [3, 2.5]])
    np.testing.assert_array_equal(rows.labels, [1, 0, 1])


@pytest.mark.parametrize(
    ("column", "reason"),
    [
        ([1.0, None, 2.0], "1 missing"),
        ([1.0, float("nan"), float("nan")], "2 missing"),
        (np.array(["1", "", "2"], dtype=object), "1 missing"),
        ([1.0, float("inf"), 2.0], "1 infinite"),
        ([1.0, -float("inf"), 2.0], "1 infinite"),
        (["secret", "2", "3"], "not numbers"),
        ([1.0, 2.0], "2 values for 3 rows"),
    ],
)
def test_a_bad_column_is_refused_by_name_and_without_its_values(column, reason):
    with pytest.raises(InputError, match=rf"x1 \({reason}\)") as refusal:
        from_columns(IDS, {"x0": [1, 2, 3], "x1": column})

    assert "x0" not in str(refusal.value) and "secret" not in str(refusal.value)


def test_many_bad_columns_are_counted():
    with pytest.raises(InputError, match=r"x0 .* x4 .* and 3 more"):
        from_columns(IDS, {f"x{index}": [None, 1, 2] for index in range(8)})


@pytest.mark.parametrize(("ids", "columns"), [([], {"x": []}), (IDS, {})])
def test_an_empty_table_is_refused(ids, columns):
    with pytest.raises(InputError, match="the table has no"):
        from_columns(ids, columns)


def test_rows_take_the_shape_of_the_model():
    rows = from_columns(IDS, {f"x{index}": [index, index + 10, index + 20] for index in range(4)})

    values = rows.as_input((1, 2, 2), "float32")

    assert values.dtype == np.float32
    np.testing.assert_array_equal(values[1], [[[10, 11], [12, 13]]])


def test_columns_are_matched_by_name_in_the_models_order():
    said = []
    rows = from_columns(IDS, {"pay": [1, 2, 3], "note": [7, 8, 9], "age": [4, 5, 6]}, labels=[0, 1, 0])

    found = rows.matched(("age", "pay"), said.append)

    assert found.columns == ("age", "pay") and found.ids == rows.ids and found.labels is rows.labels
    np.testing.assert_array_equal(found.values, [[4, 1], [5, 2], [6, 3]])
    assert said == ["1 columns of the table are not the model's and stay unused: note"]


@pytest.mark.parametrize("features", [(), ("a", "b")])
def test_rows_without_a_header_or_a_card_stay_as_they_are(features):
    rows = from_array(np.zeros((2, 2)), 2, "rows.npy") if features else from_columns(IDS, {"b": [1, 2, 3]})

    assert rows.matched(features, pytest.fail) is rows


def test_columns_that_a_table_lacks_are_named():
    rows = from_columns(IDS, {"x0": [1, 2, 3]})

    with pytest.raises(InputError, match=r"lacks 7 of the 8 columns that the model takes: x1, x2, x3, x4, x5 and 2 more"):
        rows.matched([f"x{index}" for index in range(8)], pytest.fail)


def test_a_table_of_another_width_is_refused():
    with pytest.raises(InputError, match=r"2 feature columns, the model takes 64 for each row \(shape 1x8x8\)"):
        from_columns(IDS, {"x0": [1, 2, 3], "x1": [1, 2, 3]}).as_input((1, 8, 8), "float32")


def test_whole_numbers_in_a_float_table_suit_a_model_of_integers():
    rows = from_columns(IDS, {"x0": [1.0, 2.0, 3.0]})

    assert rows.as_input((1,), "int64").dtype == np.int64


@pytest.mark.parametrize(("column", "reason"), [([1.5, 2, 3], "fractions"), ([1, 2, 300], "outside its range")])
def test_other_numbers_do_not(column, reason):
    with pytest.raises(InputError, match=reason):
        from_columns(IDS, {"x0": column}).as_input((1,), "uint8")


def test_a_file_gives_its_first_rows():
    rows = from_array(np.arange(12.0).reshape(4, 3), 2, "rows.npy")

    assert rows.ids == ("0", "1") and rows.labels is None
    np.testing.assert_array_equal(rows.as_input((3,), "float32"), [[0, 1, 2], [3, 4, 5]])


@pytest.mark.parametrize(
    ("array", "reason"),
    [
        (np.zeros((1, 3)), "has 1 rows, num_inference asks for 2"),
        (np.float64(3), "has 0 rows"),
        (np.array([["a"], ["b"]]), "real numbers are expected"),
        (np.array([[1.0], [np.nan]]), "1 of 2 rows have NaN or infinity"),
    ],
)
def test_a_file_that_does_not_serve_is_refused(array, reason):
    with pytest.raises(InputError, match=reason):
        from_array(array, 2, "rows.npy")


def test_many_classes_give_the_platforms_columns():
    columns = predictions(np.array([[0.0, np.log(3.0), 0.0], [5.0, 0.0, 0.0]]))

    assert columns.task == "multi" and columns.result == [1, 0]
    assert columns.score[0] == pytest.approx(0.6)
    assert columns.detail[0].startswith("\"{'0': 0.") and columns.detail[0].endswith('}"')
    assert read_detail(columns.detail[0])["1"] == pytest.approx(0.6)


def test_two_classes_give_the_score_of_class_one():
    columns = predictions(np.array([[0.0, np.log(3.0)], [np.log(3.0), 0.0]]))

    assert columns.task == "binary" and columns.result == [1, 0]
    assert columns.score == pytest.approx([0.75, 0.25])


@pytest.mark.parametrize("outputs", [np.array([1.5, -2.0]), np.array([[1.5], [-2.0]])])
def test_one_value_without_a_card_is_a_regression(outputs):
    columns = predictions(outputs)

    assert (columns.task, columns.score, columns.result) == ("regression", [1.5, -2.0], [1.5, -2.0])
    assert read_detail(columns.detail[1]) == {"predict_score": -2.0}


def test_one_probability_is_binary_where_the_card_says_so():
    columns = predictions(np.array([[0.25], [0.75], [1.004]]), Card(task="binary", classes=(3, 7)))

    assert (columns.task, columns.score, columns.result) == ("binary", [0.25, 0.75, 1.0], [3, 7, 7])
    assert read_detail(columns.detail[0]) == {"3": 0.75, "7": 0.25}


def test_what_is_no_probability_is_no_binary_prediction():
    with pytest.raises(ModelError, match="end it with Sigmoid"):
        predictions(np.array([[2.5]]), Card(task="binary"))


def test_predictions_are_the_labels_of_the_card():
    columns = predictions(np.array([[0.0, 1.0, 0.0], [5.0, 0.0, 0.0]]), Card(classes=("bus", "van", "car")))

    assert (columns.task, columns.result) == ("multi", ["van", "bus"])
    assert list(read_detail(columns.detail[0])) == ["bus", "van", "car"]


def test_a_sequence_of_scores_has_no_place_in_a_table():
    with pytest.raises(InputError, match=r"shape \(2, 3, 4\)"):
        predictions(np.zeros((2, 3, 4)))


def test_probabilities_stay_what_they_are():
    given = np.array([[0.25, 0.75], [1.0, 0.0]])

    np.testing.assert_allclose(probabilities(given), given)


def test_probabilities_with_the_error_of_encryption_are_probabilities_again():
    result = probabilities(np.array([[-0.001, 1.0005], [0.3, 0.7]]))

    np.testing.assert_allclose(result, [[0, 1], [0.3, 0.7]])


def test_large_scores_do_not_overflow():
    np.testing.assert_allclose(probabilities(np.array([[1e4, 0.0], [-1e4, -1e4]])), [[1, 0], [0.5, 0.5]])


def test_the_text_of_scores_reads_back():
    scores = {"0": 0.125, "1": 0.875}

    assert read_detail(detail_text(scores)) == scores
    assert json.loads(json.dumps(detail_text(scores))) == detail_text(scores)
