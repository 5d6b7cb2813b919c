"""Table rows to sample ids and arrays, and model outputs to the platform's prediction columns. Free of FATE."""

from __future__ import annotations

import json
from collections import Counter
from dataclasses import dataclass, field, replace
from typing import Any, Callable, Mapping, Sequence

import numpy as np

from he_backend.errors import InputError
from he_backend.graph.card import SLACK, Card, chances

MOST_NAMED = 5  # columns that one message names
NO_CARD = Card()


@dataclass(frozen=True)
class Rows:
    """Rows of the data owner: ids as they came, features [rows, columns] (or rows of any shape from a file), labels if there are some."""

    ids: tuple[Any, ...] = field(repr=False)
    values: np.ndarray = field(repr=False)
    columns: tuple[str, ...] = ()
    match_ids: tuple[Any, ...] = field(default=(), repr=False)
    labels: np.ndarray | None = field(default=None, repr=False)

    def __len__(self) -> int:
        return len(self.ids)

    def matched(self, features: Sequence[str], log: Callable[[str], None]) -> Rows:
        """The rows with the columns that a model names, in its order; as they are when it names none, or they come from a file.

        Columns that the model does not take are told to `log`. Raises InputError naming columns that the table lacks.
        """
        if not features or not self.columns:
            return self
        place = {name: index for index, name in enumerate(self.columns)}
        missing = [name for name in features if name not in place]
        if missing:
            raise InputError(f"the table lacks {len(missing)} of the {len(features)} columns that the model takes: {_listed(missing)}")
        wanted = set(features)
        unused = [name for name in self.columns if name not in wanted]
        if unused:
            log(f"{len(unused)} columns of the table are not the model's and stay unused: {_listed(unused)}")
        return replace(self, values=self.values[:, [place[name] for name in features]], columns=tuple(features))

    def as_input(self, shape: Sequence[int], dtype: str) -> np.ndarray:
        """The rows as a model takes them: [rows, *shape] of the input's type. Raises InputError when they do not fit."""
        size = int(np.prod(tuple(shape), dtype=np.int64))
        each = int(np.prod(self.values.shape[1:], dtype=np.int64))
        if each != size:
            what = f"the table has {each} feature columns" if self.columns else f"a row of the file has {each} values"
            raise InputError(f"{what}, the model takes {size} for each row (shape {'x'.join(map(str, shape)) or '1'})")
        values = self.values
        if np.dtype(dtype).kind in "iu" and values.dtype.kind == "f":
            if not np.array_equal(values, np.rint(values)):
                raise InputError(f"the model takes whole numbers ({dtype}), the rows have fractions")
            limits = np.iinfo(dtype)
            if values.size and (values.min() < limits.min or values.max() > limits.max):
                raise InputError(f"the model takes {dtype}, the rows have numbers outside its range")
        return np.ascontiguousarray(values.reshape((len(self), *shape)), dtype=dtype)


def from_columns(ids: Sequence[Any], columns: Mapping[str, Any], labels: Any = None, match_ids: Sequence[Any] = ()) -> Rows:
    """Rows of a table given by column. Raises InputError naming the columns with missing values, infinity or no numbers, never a value.

    A label is missing as a value is; a table without labels has None for all of them.
    """
    if not len(ids):
        raise InputError("the table has no rows")
    if not columns:
        raise InputError("the table has no feature columns")
    bad: list[str] = []
    arrays: list[np.ndarray] = []
    for name, column in columns.items():
        array, problem = _numbers(column)
        if problem:
            bad.append(f"{name} ({problem})")
        elif len(array) != len(ids):
            bad.append(f"{name} ({len(array)} values for {len(ids)} rows)")
        arrays.append(array)
    if bad:
        raise InputError(f"the table cannot be used: column {_listed(bad)}; fill or drop these before he-nn-inference")
    label_array = None if labels is None else np.asarray(labels)
    missing = 0 if label_array is None else _missing(label_array)
    if missing:
        raise InputError(f"the table's label column has {missing} missing values; fill them, or leave the column out")
    return Rows(tuple(ids), np.stack(arrays, axis=1), tuple(columns), tuple(match_ids), label_array)


def from_array(array: np.ndarray, count: int, source: str) -> Rows:
    """The first `count` rows of a file's array; their ids are their numbers, as text. Raises InputError for too few rows or bad values."""
    if array.dtype.kind not in "fiub":
        raise InputError(f"{source} holds {array.dtype}, real numbers are expected")
    if array.ndim < 1 or len(array) < count:
        have = len(array) if array.ndim else 0
        raise InputError(f"{source} has {have} rows, num_inference asks for {count}")
    values = array[:count]
    if values.dtype.kind == "f":
        bad = int((~np.isfinite(values.reshape(count, -1)).all(axis=1)).sum())
        if bad:
            raise InputError(f"{source}: {bad} of {count} rows have NaN or infinity; mend or leave out these rows")
    numbers = tuple(str(index) for index in range(count))
    return Rows(numbers, values, (), numbers)


def distinct(names: Sequence[str]) -> list[str]:
    """The column names; raises InputError for those that several columns have."""
    twice = [name for name, count in Counter(names).items() if count > 1]
    if twice:
        raise InputError(f"the table has several columns of one name: {_listed(twice)}; give each its own")
    return list(names)


def _missing(values: np.ndarray) -> int:
    if values.dtype.kind in "fO":
        return sum(value is None or value != value or value == "" for value in values.reshape(-1).tolist())
    return 0


def _listed(names: Sequence[str]) -> str:
    more = f" and {len(names) - MOST_NAMED} more" if len(names) > MOST_NAMED else ""
    return ", ".join(names[:MOST_NAMED]) + more


def _numbers(column: Any) -> tuple[np.ndarray, str]:
    """A column as float64, and what is wrong with it ('' when nothing is)."""
    array = np.asarray(column)
    if array.dtype == object and _missing(array):
        return array, f"{_missing(array)} missing"
    try:
        numbers = array.astype(np.float64)
    except (TypeError, ValueError):
        return array, "not numbers"
    missing, infinite = int(np.isnan(numbers).sum()), int(np.isinf(numbers).sum())
    if missing:
        return numbers, f"{missing} missing"
    return numbers, f"{infinite} infinite" if infinite else ""


@dataclass(frozen=True)
class Predictions:
    """Columns of the platform's prediction format, one entry for each row.

    task: binary, multi or regression. score: of class 1 (binary), of the predicted class (multi) or the value; detail: score by class, in
    the platform's quoted JSON.
    """

    task: str
    score: list[float] = field(repr=False)
    result: list[Any] = field(repr=False)
    detail: list[str] = field(repr=False)


def predictions(outputs: np.ndarray, card: Card = NO_CARD) -> Predictions:
    """The prediction columns of a model's first output [rows, classes] or [rows] / [rows, 1]. Raises InputError for other shapes.

    Several scores are classes; they are turned into probabilities by softmax unless they are probabilities already. A single value is a
    regression, or the probability of the second class where the card says binary. predict_result has the card's labels, or numbers.
    """
    array = np.asarray(outputs, np.float64)
    if array.ndim > 2 or array.ndim < 1:
        raise InputError(f"the model's output has shape {array.shape}; a prediction table needs [rows, classes] or one value for each row")
    labels = card.labels_of(array)
    if labels is None:
        values = array.reshape(-1).tolist()
        return Predictions("regression", values, list(values), [detail_text({"predict_score": value}) for value in values])
    if array.ndim == 1 or array.shape[1] == 1:
        second = chances(array)
        scores = np.stack([1.0 - second, second], axis=1)
    else:
        scores = probabilities(array)
    names = [str(name) for name in card.classes or range(scores.shape[1])]
    detail = [detail_text(dict(zip(names, row))) for row in scores.tolist()]
    binary = card.task_of(array) == "binary"
    score = scores[:, 1] if binary else scores.max(axis=1)
    return Predictions("binary" if binary else "multi", score.tolist(), labels.tolist(), detail)


def probabilities(scores: np.ndarray) -> np.ndarray:
    """Rows that sum to 1: softmax of scores [rows, classes], or the scores themselves where all rows are probabilities already.

    The slack is for the error of encrypted arithmetic: -0.001 is still a probability of zero, and becomes one.
    """
    if (scores > -SLACK).all() and (scores < 1 + SLACK).all() and (np.abs(scores.sum(axis=1) - 1) < SLACK).all():
        clipped = scores.clip(0.0, 1.0)
        return clipped / clipped.sum(axis=1, keepdims=True)
    powers = np.exp(scores - scores.max(axis=1, keepdims=True))
    return powers / powers.sum(axis=1, keepdims=True)


def detail_text(scores: Mapping[str, float]) -> str:
    """FATE's form of predict_detail: JSON with single quotes, in double quotes (so that it survives a CSV file)."""
    return '"' + json.dumps(scores).replace('"', "'") + '"'


def read_detail(text: str) -> Mapping[str, float]:
    """The scores in a predict_detail."""
    return dict(json.loads(text.strip('"').replace("'", '"')))
