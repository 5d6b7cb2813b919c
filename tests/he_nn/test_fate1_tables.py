"""Tables of FATE 1.x: lines as uploaded, Instances after DataTransform, and prediction tables of every kind of network."""

from __future__ import annotations

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper

from he_backend.errors import InputError
from he_backend.server.registry import Registry
from tests.he_nn import fate1_job

COLUMNS = ("x0", "x1", "x2")
VALUES = np.array([[1.0, 2.0, 3.0], [0.5, -1.0, 0.25], [4.0, 0.0, -2.0], [1.5, 1.5, 1.5], [-3.0, 2.0, 0.0]])
LABELS = (0, 1, 1, 0, 1)
IDS = tuple(f"person_{name}" for name in "ecadb")


@pytest.fixture(scope="module", autouse=True)
def platform():
    stop = fate1_job.start()
    yield
    stop()


def uploaded(cells, header, sid="id", partitions=3, **schema):
    from fate_arch.session import Table

    return Table(zip(IDS, (",".join(map(str, row)) for row in cells)), partitions, {"header": header, "sid": sid, **schema})


def transformed(features, labels=LABELS, match_ids=None, **schema):
    from fate_arch.session import Table
    from federatedml.feature.instance import Instance

    ids = match_ids or [None] * len(IDS)
    instances = [Instance(inst_id=i, features=f, label=label) for i, f, label in zip(ids, features, labels)]
    return Table(zip(IDS, instances), 3, {"header": list(COLUMNS), "sid": "sid", **schema})


def rows(table):
    from he_nn.fate1.table import rows_of

    found = rows_of(table)
    return found, {key: tuple(values) for key, values in zip(found.ids, found.values.tolist())}


EXPECTED = {key: tuple(values) for key, values in zip(IDS, VALUES.tolist())}


def test_uploaded_lines_with_a_label_called_y():
    found, by_id = rows(uploaded([[label, *row] for label, row in zip(LABELS, VALUES)], "y,x0,x1,x2", meta={}))

    assert by_id == EXPECTED and found.columns == COLUMNS
    assert dict(zip(found.ids, found.labels.tolist())) == dict(zip(IDS, LABELS))


def test_uploaded_lines_keep_the_order_of_the_table():
    table = uploaded(VALUES, "x0,x1,x2")

    assert list(rows(table)[0].ids) == [key for key, _ in table.collect()] and rows(table)[0].labels is None


def test_the_uploads_metadata_tell_label_match_id_and_delimiter():
    cells = [[f"match{index}", row[0], label, row[1], row[2]] for index, (label, row) in enumerate(zip(LABELS, VALUES))]
    meta = {"with_label": True, "label_name": "class", "with_match_id": True, "delimiter": ",", "input_format": "dense"}
    by_meta = uploaded(cells, "mid,x0,class,x1,x2", meta=meta)
    places = {"header_index": [1, 3, 4], "label_index": 2, "match_id_index": [0]}
    by_place = uploaded(cells, "", meta=meta, original_index_info=places, match_id_name="mid")
    by_place.schema["header"] = list(COLUMNS)

    for table in (by_meta, by_place):
        found, by_id = rows(table)
        assert by_id == EXPECTED and found.columns == COLUMNS
        assert dict(zip(found.ids, found.match_ids)) == {key: f"match{index}" for index, key in enumerate(IDS)}
        assert dict(zip(found.ids, found.labels.tolist())) == dict(zip(IDS, LABELS))


@pytest.mark.parametrize("kind", [list, np.array, lambda row: np.array(row, dtype=object)])
def test_instances_after_data_transform(kind):
    found, by_id = rows(transformed([kind(row.tolist()) for row in VALUES]))

    assert by_id == EXPECTED and found.columns == COLUMNS and not found.match_ids
    assert dict(zip(found.ids, found.labels.tolist())) == dict(zip(IDS, LABELS))


def test_sparse_instances_are_filled_with_zeros():
    from federatedml.feature.instance import SparseVector

    sparse = [SparseVector({place: value for place, value in enumerate(row) if value}, 3) for row in VALUES.tolist()]

    assert rows(transformed(sparse))[1] == EXPECTED


@pytest.mark.parametrize("hole", ["", "NaN", "null", "NA"])
def test_missing_values_are_refused_by_column_and_without_a_value(hole):
    cells = VALUES.astype(object)
    cells[2, 1] = hole
    with pytest.raises(InputError, match=r"column x1 \(1 missing\)") as refused:
        rows(uploaded(cells, "x0,x1,x2"))
    assert "4.0" not in str(refused.value)


def test_tables_that_cannot_be_rows_are_refused():
    words = VALUES.astype(object)
    words[0, 2] = "tall"
    holes = [[label, *row] for label, row in zip(("0", "", "1", "1", "0"), VALUES)]
    for table, problem in (
        (uploaded(words, "x0,x1,x2"), r"column x2 \(not numbers\)"),
        (uploaded(VALUES, ""), "has no header"),
        (uploaded(VALUES[:, :2], "x0,x1,x2"), "has 2 values, its header names 3"),
        (uploaded(VALUES, "x0,x1,x2", meta={"input_format": "svmlight"}), "put DataTransform in between"),
        (uploaded(VALUES[:0], "x0,x1,x2"), "no rows"),
        (transformed([row[:2] for row in VALUES]), "names 3 columns, a row has 2"),
        (uploaded([[np.nan, *row] for row in VALUES], "y,x0,x1,x2"), "label column has 5 missing values"),
        (uploaded(holes, "y,x0,x1,x2"), "label column has 1 missing values"),
        (transformed(list(VALUES), labels=(0, None, 1, float("nan"), 0)), "label column has 2 missing values"),
        (uploaded(VALUES, "age,x1,age"), "several columns of one name: age;"),
        (transformed(list(VALUES), header=["age", "x1", "age"]), "several columns of one name: age;"),
    ):
        with pytest.raises(InputError, match=problem):
            rows(table)


def network(outputs):
    """A linear model of three columns: y = x W + b."""
    weights = np.arange(3 * outputs, dtype=np.float32).reshape(3, outputs) / 4 - 0.5
    bias = np.linspace(-0.5, 0.5, outputs, dtype=np.float32)
    graph = helper.make_graph(
        [helper.make_node("Gemm", ["x", "w", "b"], ["scores"])],
        "linear",
        [helper.make_tensor_value_info("x", TensorProto.FLOAT, ["rows", 3])],
        [helper.make_tensor_value_info("scores", TensorProto.FLOAT, ["rows", outputs])],
        [onnx.numpy_helper.from_array(weights, "w"), onnx.numpy_helper.from_array(bias, "b")],
    )
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 13)], ir_version=8)
    return model.SerializeToString(), VALUES.astype(np.float32) @ weights + bias


def inferred(home, outputs, table):
    """Prediction features by id of a network of the host's own, registered on the host alone, and what it says in the clear."""
    data, scores = network(outputs)
    (home / "net.onnx").write_bytes(data)
    record = Registry(home / "models").add(home / "net.onnx", "Linear")
    values = {"server_url": "", "model_type": "Linear", "model_id": record.model_name, "is_encryption": True}
    guest, _ = fate1_job.run("HeNNInference", {**values, "encryption_parameters": "N12_L4"}, table)
    return guest, dict(guest.data.collect()), dict(zip(IDS, scores))


@pytest.fixture
def home(tmp_path, monkeypatch):
    monkeypatch.setenv("HE_NN_HOME", str(tmp_path))
    return tmp_path


@pytest.mark.parametrize("classes", [2, 4])
def test_a_classifier_gives_probabilities(home, classes):
    from he_nn.table import read_detail

    _, found, scores = inferred(home, classes, transformed(list(VALUES)))

    for key, label in zip(IDS, LABELS):
        powers = np.exp(scores[key] - scores[key].max())
        chances = powers / powers.sum()
        got_label, result, score, detail, kind = found[key].features
        assert (got_label, result, kind) == (label, int(chances.argmax()), "predict")
        assert score == pytest.approx(chances[1] if classes == 2 else chances.max(), abs=1e-2)
        assert list(read_detail(detail)) == [str(index) for index in range(classes)]
        assert list(read_detail(detail).values()) == pytest.approx(chances.tolist(), abs=1e-2)


def test_a_regression_gives_the_value(home):
    guest, found, scores = inferred(home, 1, transformed(list(VALUES), labels=(0.5, 1.5, -2.0, 0.0, 1.0)))

    for key, label in zip(IDS, (0.5, 1.5, -2.0, 0.0, 1.0)):
        got_label, result, score, _, _ = found[key].features
        assert got_label == label and result == score == pytest.approx(float(scores[key][0]), abs=1e-2)
    assert "accuracy" not in guest.tracker.summary


def test_match_ids_come_out_as_they_went_in(home):
    table = transformed(list(VALUES), match_ids=[f"match{index}" for index in range(5)], match_id_name="mid")

    guest, found, _ = inferred(home, 2, table)

    assert {key: instance.inst_id for key, instance in found.items()} == {key: f"match{index}" for index, key in enumerate(IDS)}
    assert guest.data.schema["sid"] == "sid" and guest.data.schema["match_id_name"] == "mid"


def test_a_table_of_another_width_is_refused_by_count(home):
    table = uploaded(np.ones((5, 4)), "x0,x1,x2,x3")
    with pytest.raises(InputError, match=r"4 feature columns, the model takes 3"):
        inferred(home, 2, table)
