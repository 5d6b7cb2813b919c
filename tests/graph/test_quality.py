"""How good outputs are: labels as numbers, words and both; several labels a row; regressions; labels that do not belong to the outputs."""

from __future__ import annotations

import numpy as np
import pytest

from he_backend.errors import InputError
from he_backend.graph.card import Card
from he_backend.graph.quality import Score, quality, score_of

SECOND_THEN_FIRST = np.array([[0.1, 0.9, 0.0], [5.0, 1.0, 2.0]])
WORDS = Card(classes=("a", "b", "c"))


@pytest.mark.parametrize(
    "labels, card, right",
    [
        (np.array([1, 0]), Card(), 2),
        (np.array([[1.0], [1.0]]), Card(), 1),
        (np.array(["1.0", "0"], dtype=object), Card(), 2),
        (np.array(["x", "0"], dtype=object), Card(), 1),
        (np.array(["b", "c"]), WORDS, 1),
        (np.array(["b", "a"], dtype=object), WORDS, 2),
        (np.array([9, 4]), Card(classes=(4, 9, 2)), 2),
    ],
)
def test_labels_are_numbers_or_words(labels, card, right):
    assert score_of(SECOND_THEN_FIRST, labels, card) == Score(right, 2)


def test_a_row_may_have_several_labels():
    assert score_of(np.stack([SECOND_THEN_FIRST, SECOND_THEN_FIRST]), np.array([[1, 0], [1, 1]])).accuracy == 0.75


@pytest.mark.parametrize("labels", [np.array([1, 0, 1]), np.array([[1, 0], [1, 0]]), np.array([0.5, 1.0])])
def test_labels_that_do_not_belong_to_the_outputs_are_refused(labels):
    with pytest.raises(InputError, match=r"whole numbers of shape \(2,\)"):
        score_of(SECOND_THEN_FIRST, labels)


def test_one_value_a_row_has_no_accuracy_unless_the_card_says_binary():
    outputs = np.array([[0.2], [0.8]])
    with pytest.raises(InputError, match="is a regression"):
        score_of(outputs, np.array([0, 1]))
    assert score_of(outputs, np.array([3, 7]), Card(task="binary", classes=(3, 7))).accuracy == 1.0


def test_a_regression_needs_a_label_for_each_value():
    with pytest.raises(InputError, match="3 labels and 2 predicted values"):
        quality(np.array([[1.0], [2.0]]), [1.0, 2.0, 3.0])


def test_the_quality_of_a_regression_is_no_accuracy():
    measured = quality(np.array([[1.0], [2.0], [3.0]]), [1.0, 2.0, 5.0], Card())

    assert measured["rmse"] == pytest.approx((4 / 3) ** 0.5)
    assert measured["r2"] == pytest.approx(1 - (4 / 3) / np.var([1.0, 2.0, 5.0]))
    assert quality(np.array([[0.0, 1.0]]), [1], Card()) == {"test_acc": 1.0}


def test_words_are_no_labels_of_a_regression():
    with pytest.raises(InputError, match="the labels are words"):
        quality(np.array([[1.0], [2.0]]), ["low", "high"], Card())
