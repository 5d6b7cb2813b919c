"""FATE 1.x tables to Rows, and predictions to the platform's prediction table.

An input table holds Instances (after DataTransform) or the lines that were uploaded (straight from a Reader). Row ids and partitions stay
as they are, so that the predictions come in the order of the rows.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Mapping, Sequence

import numpy as np
from fate_arch.session import computing_session
from federatedml.feature.instance import Instance

from he_backend.errors import InputError

from ..guest import Inferred
from ..table import Rows, distinct, from_columns

HEADER = ["label", "predict_result", "predict_score", "predict_detail", "type"]
PREDICT = "predict"  # how FATE 1.x marks predictions of a trained model
LABELS = ("y", "label")  # what FATE's examples call the label's column
MISSING = ("", "na", "n/a", "nan", "null", "none")


def rows_of(table: Any) -> Rows:
    """The rows of a table, in its order. Raises InputError for columns that cannot be used, by name."""
    pairs = list(table.collect())
    if not pairs:
        raise InputError("the table has no rows")
    schema = table.schema or {}
    if hasattr(pairs[0][1], "is_instance"):
        return _of_instances(pairs, schema)
    return _of_lines(pairs, schema)


def prediction_table(done: Inferred, table: Any) -> Any:
    """Predictions as FATE's prediction table, with the ids and partitions of the input `table` (None: rows of a file, in one partition)."""
    rows, predicted = done.rows, done.predictions
    labels = [None] * len(rows) if rows.labels is None else rows.labels.tolist()
    # Keys are sorted as text: zeros in front keep the rows of a file in their order.
    keys = rows.ids if table is not None else [str(key).zfill(len(str(len(rows) - 1))) for key in rows.ids]
    match_ids = rows.match_ids if table is not None and rows.match_ids else [None] * len(rows)
    values = zip(keys, match_ids, labels, predicted.result, predicted.score, predicted.detail)
    instances = [(key, Instance(inst_id=match_id, features=[*features, PREDICT])) for key, match_id, *features in values]
    partitions = 1 if table is None else table.partitions
    result = computing_session.parallelize(instances, include_key=True, partition=partitions)
    schema = {"header": list(HEADER), "sid": "id", "content_type": "predict_result"}
    if table is not None:
        given = table.schema or {}
        schema["sid"] = given.get("sid") or "id"
        if rows.match_ids and given.get("match_id_name") is not None:
            schema["match_id_name"] = given["match_id_name"]
    result.schema = schema
    return result


@dataclass(frozen=True)
class _Line:
    """Where the parts of an uploaded line are: names and places of the features, place of the label and of the match id (-1: none)."""

    delimiter: str
    names: Sequence[str]
    places: Sequence[int]
    label: int
    match_id: int


def _of_instances(pairs: Sequence[Any], schema: Mapping[str, Any]) -> Rows:
    names = _names(schema.get("header"), ",")
    values = np.stack([_dense(instance.features, len(names)) for _, instance in pairs])
    columns = {name: values[:, index] for index, name in enumerate(names)}
    labels = [instance.label for _, instance in pairs]
    match_ids = [instance.inst_id for _, instance in pairs]
    has_label, has_match_id = (any(one is not None for one in found) for found in (labels, match_ids))
    return from_columns([key for key, _ in pairs], columns, labels if has_label else None, match_ids if has_match_id else ())


def _dense(features: Any, width: int) -> np.ndarray:
    """One row's features [width]: of an array, or of FATE's SparseVector."""
    if hasattr(features, "get_all_data"):
        row = np.zeros(width)
        for index, value in features.get_all_data():
            row[index] = value
        return row
    row = np.asarray(features).reshape(-1)
    if len(row) != width:
        raise InputError(f"the table's header names {width} columns, a row has {len(row)}; run DataTransform on it again")
    return row


def _of_lines(pairs: Sequence[Any], schema: Mapping[str, Any]) -> Rows:
    line = _line_of(schema)
    width = 1 + max([*line.places, line.label, line.match_id])
    cells = []
    for number, (_, text) in enumerate(pairs, 1):
        row = text.split(line.delimiter) if isinstance(text, str) else list(text)
        if len(row) < width:
            raise InputError(f"row {number} of the table has {len(row)} values, its header names {width} columns")
        cells.append(row)
    columns = {name: _cells([row[place] for row in cells]) for name, place in zip(line.names, line.places)}
    labels = None if line.label < 0 else _labels([row[line.label] for row in cells])
    match_ids = () if line.match_id < 0 else [row[line.match_id] for row in cells]
    return from_columns([key for key, _ in pairs], columns, labels, match_ids)


def _line_of(schema: Mapping[str, Any]) -> _Line:
    """The places as the upload's metadata has them; without any, a column called y or label is the label and all others are features."""
    meta = schema.get("meta") or {}
    if meta.get("input_format", "dense") != "dense":
        raise InputError(
            f"the table's input_format is {meta['input_format']!r}; he-nn-inference reads dense ones: put DataTransform in between"
        )
    delimiter = meta.get("delimiter") or meta.get("delimitor") or ","
    names = _names(schema.get("header"), delimiter)
    places = schema.get("original_index_info") or {}
    if places.get("header_index"):
        label, match_id = places.get("label_index"), places.get("match_id_index") or [-1]
        return _Line(delimiter, names, places["header_index"], -1 if label is None else label, match_id[0])
    label = next((index for index, name in enumerate(names) if name.lower() in LABELS), -1)
    if meta.get("with_label") and meta.get("label_name") in names:
        label = names.index(meta["label_name"])
    match_id = -1
    if meta.get("with_match_id"):
        id_list = [name for name in meta.get("id_list") or [] if name in names]
        match_id = names.index(id_list[0]) if id_list else 0
    kept = [index for index in range(len(names)) if index not in (label, match_id)]
    return _Line(delimiter, [names[index] for index in kept], kept, label, match_id)


def _names(header: Any, delimiter: str) -> list[str]:
    """The column names of a schema's header: a list, or a line of text."""
    names = header.split(delimiter) if isinstance(header, str) else list(header or [])
    names = [str(name).strip() for name in names]
    if not any(names):
        raise InputError("the table has no header; upload it with head 1, so that its columns have names")
    return distinct(names)


def _cells(texts: Sequence[Any]) -> np.ndarray:
    """A column of texts [rows], None where there is none."""
    column = np.empty(len(texts), dtype=object)
    for index, text in enumerate(texts):
        column[index] = None if isinstance(text, str) and text.strip().lower() in MISSING else text
    return column


def _labels(texts: Sequence[Any]) -> list[Any]:
    """Labels as numbers where all are: whole ones as int. None where one is missing."""
    cells = _cells(texts).tolist()
    if None in cells:
        return cells
    try:
        numbers = [float(text) for text in texts]
    except ValueError:
        return [str(text) for text in texts]
    return [int(number) for number in numbers] if all(number.is_integer() for number in numbers) else numbers
