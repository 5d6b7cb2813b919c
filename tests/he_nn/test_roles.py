"""Guest and host in two threads over an in-memory channel: load, eval and inference with real encryption, and their refusals."""

from __future__ import annotations

import json
import os
import queue
import subprocess
import sys
import threading
from pathlib import Path

import numpy as np
import pytest

from he_backend import zoo
from he_backend.errors import InputError, NotFoundError, ParameterError, SecurityError
from he_backend.graph import Reference
from he_backend.server.registry import Registry
from he_nn.artifact import ModelArtifact, wanted_model
from he_nn.guest import DataOwner
from he_nn.host import ModelOwner
from he_nn.params import EvalParams, InferenceParams, LoadParams
from he_nn.table import Rows, from_columns, read_detail

TOP = Path(__file__).resolve().parents[2]
TIMEOUT_S = 60
EMBEDDED = {"server_url": ""}
CUSTOM = {"scheme_name": "HE_SEAL", "poly_modulus_degree": 4096, "security_level": 128, "coeff_modulus": [40, 40]}


class Recorder:
    """A tracker that keeps what it is told."""

    def __init__(self):
        self.lines, self.points, self.series_by_name, self.figures = [], [], {}, {}

    def log(self, text):
        self.lines.append(text)

    def progress(self, done, total):
        self.points.append((done, total))

    def series(self, name, values):
        self.series_by_name[name] = list(values)

    def summary(self, values):
        assert not self.figures, "the summary comes once"
        self.figures = json.loads(json.dumps(values))


class Pipe:
    def __init__(self, outgoing, incoming):
        self.sent, self._outgoing, self._incoming = [], outgoing, incoming

    def send(self, data):
        self.sent.append(data)
        self._outgoing.put(data)

    notify = send

    def receive(self):
        return self._incoming.get(timeout=TIMEOUT_S)


class Site:
    """Both parties, with a registry of the host's; `run` is one component of a job."""

    def __init__(self, folder):
        self.registry = Registry(folder / "models")

    def run(self, operation, guest_params, *given, host_params=None, **more):
        """(guest's result, host's result); raises the guest's error."""
        up, down = queue.Queue(), queue.Queue()
        self.guest_pipe, self.host_pipe = Pipe(up, down), Pipe(down, up)
        self.guest, self.host = Recorder(), Recorder()
        results = {}

        def host():
            try:
                owner = ModelOwner(lambda: self.registry, self.host)
                results["host"] = getattr(owner, operation)(self.host_pipe, host_params or guest_params)
            except Exception as error:  # noqa: BLE001 - the test looks at it
                results["error"] = error

        thread = threading.Thread(target=host, daemon=True)
        thread.start()
        try:
            results["guest"] = getattr(DataOwner(self.guest), operation)(self.guest_pipe, guest_params, *given, **more)
        finally:
            thread.join(TIMEOUT_S)
            self.host_error = results.get("error")
        assert self.host_error is None
        return results["guest"], results["host"]

    def load(self, model_type="MLP", **values):
        return self.run("load", LoadParams.of({**EMBEDDED, "model_type": model_type, **values}))[0]


@pytest.fixture
def site(tmp_path):
    return Site(tmp_path)


def digits(count, model_type="MLP"):
    """A table of held-out digits, and what plain ONNX Runtime says to them."""
    network = zoo.shipped(model_type)
    x, y = network.load_test()
    flat = x[:count].reshape(count, -1)
    rows = from_columns([f"row{i}" for i in range(count)], {f"x{i}": flat[:, i] for i in range(flat.shape[1])}, y[:count])
    return rows, next(iter(Reference(str(network.onnx_path)).run(x[:count]).values()))


def inference(**values):
    return InferenceParams.of({**EMBEDDED, "model_type": "MLP", "is_encryption": True, "encryption_parameters": "N11_L1", **values})


def evaluation(**values):
    return EvalParams.of({**EMBEDDED, "model_type": "MLP", "batch_size": 32, "encryption_parameters": "N11_L1", **values})


# load


def test_load_registers_a_new_model_and_both_sides_hold_the_same_artifact(site):
    guest, host = site.run("load", LoadParams.of({**EMBEDDED, "model_type": "Cryptonets"}))

    record = site.registry.get("latest")
    assert guest == host and ModelArtifact.of(json.loads(json.dumps(guest.to_dict()))) == guest
    assert (guest.model_id, guest.model_name, guest.model_type) == (record.model_id, record.model_name, "CNN")
    assert guest.test_acc == record.test_acc == pytest.approx(zoo.shipped("CNN").test_acc)
    assert guest.plan["preset"] == guest.preset == "N13_L8" and guest.plan["rounds"] > 0
    assert site.guest.figures["model_id"] == record.model_id and site.host.figures["rounds"] == guest.plan["rounds"]


def test_each_initial_load_is_a_model_of_its_own_and_a_later_one_takes_one_that_is_there(site):
    first, second = site.load(), site.load()

    assert first.model_id != second.model_id and len(site.registry.list()) == 2
    assert site.load(is_init=False).model_id == second.model_id
    assert site.load(is_init=False, model_id=first.model_name).model_id == first.model_id
    assert len(site.registry.list()) == 2


def test_a_type_of_the_owners_own_is_bound_as_a_built_in_one_is(site):
    network = zoo.shipped("MLP")
    added = site.registry.add(network.onnx_path, "Fraud-v2", test=network.load_test())

    bound = site.load("Fraud-v2")

    assert bound.model_id != added.model_id and bound.model_name == bound.model_id[:6] + "Fraud-v2"
    assert bound.test_acc == pytest.approx(network.test_acc)
    assert site.load("fraud-v2", is_init=False).model_id == bound.model_id


def test_loading_what_is_registered_measures_its_accuracy_again(site):
    bound = site.load()
    site.registry.set_accuracy(bound.model_id, 0.5)

    assert site.load(is_init=False).test_acc == pytest.approx(bound.test_acc)
    assert site.registry.get(bound.model_id).test_acc == pytest.approx(bound.test_acc)


@pytest.mark.parametrize("values", [{"is_init": False}, {"is_init": False, "model_id": "nothing"}, {"model_type": "unknown"}])
def test_a_model_that_is_not_there_ends_both_sides(site, values):
    with pytest.raises(NotFoundError):
        site.load(**values)
    assert isinstance(site.host_error, NotFoundError)
    assert site.registry.list() == []


# eval


def test_a_plain_evaluation_takes_the_batch_it_names(site):
    bound = site.load()
    x, y = zoo.shipped("MLP").load_test()
    plain = next(iter(Reference(str(zoo.shipped("MLP").onnx_path)).run(x).values())).argmax(axis=1)

    guest, host = site.run("evaluate", evaluation(start_batch=3), bound)

    assert guest == host
    assert guest.figures["start_row"] == 96 and guest.figures["batch_size"] == 32
    assert guest.figures["test_acc"] == pytest.approx(float((plain == y)[96:128].mean()))


def test_an_encrypted_evaluation_agrees_with_the_plain_one(site):
    bound = site.load()

    guest, _ = site.run("evaluate", evaluation(is_encryption=True), bound)

    assert guest.figures["agreement"] == 1.0 and guest.figures["test_acc"] == guest.figures["plain_acc"]
    assert guest.figures["bits_of_precision"] > 8 and guest.figures["engine"] != "clear"
    assert guest.preset == guest.figures["preset"] == guest.plan["preset"] == "N11_L1"
    assert len(site.guest.series_by_name["round_ms"]) == guest.figures["rounds"] == 3
    assert site.host.points[-1][0] == site.host.points[-1][1]
    assert {"bytes_up", "bytes_down", "seconds_total", "max_abs_error"} <= set(site.guest.figures)


def test_the_last_batch_may_be_short_and_none_comes_after_it(site):
    bound = site.load()
    rows = len(zoo.shipped("MLP").load_test()[0])

    guest, _ = site.run("evaluate", evaluation(batch_size=512, start_batch=1), bound)

    assert guest.figures["batch_size"] == rows - 512
    with pytest.raises(InputError, match=rf"start_batch: 2; the test set has {rows} rows, the last batch of 512 is 1"):
        site.run("evaluate", evaluation(batch_size=512, start_batch=2), bound)


# the other types


@pytest.mark.parametrize("model_type, size", [("AlexNet", 64), ("RNN", 8), ("BERT", 8)])
def test_every_type_is_loaded_evaluated_and_inferred(site, model_type, size, tmp_path, monkeypatch):
    monkeypatch.setenv("HE_NN_DATA", str(tmp_path / "nothing"))  # the networks of digits: text ones read an image as eight token ids
    bound = site.load(model_type)
    rows, plain = digits(6, model_type)

    evaluated, _ = site.run("evaluate", evaluation(model_type=model_type, is_encryption=True, batch_size=6), bound)
    inferred, _ = site.run("infer", inference(model_type=model_type), rows, bound)

    assert rows.values.shape == (6, size) and bound.model_type == model_type
    assert evaluated.figures["agreement"] == 1.0 and evaluated.figures["test_acc"] == evaluated.figures["plain_acc"]
    assert inferred.predictions.result == plain.argmax(axis=1).tolist()
    assert site.registry.get("latest").meta.get("embeddings", "") == ("" if model_type == "AlexNet" else "public")


# inference


@pytest.mark.parametrize("preset", ["N11_L1", "N12_L4"])
@pytest.mark.parametrize("model_type", ["MLP", "CNN"])
def test_encrypted_predictions_agree_with_onnx_runtime(site, model_type, preset):
    rows, plain = digits(40, model_type)
    bound = site.load(model_type)

    done, host = site.run("infer", inference(model_type=model_type, encryption_parameters=preset), rows, bound)

    assert done.rows is rows
    assert done.predictions.task == "multi" and done.predictions.result == plain.argmax(axis=1).tolist()
    powers = np.exp(plain - plain.max(axis=1, keepdims=True))
    scores = [list(read_detail(text).values()) for text in done.predictions.detail]
    np.testing.assert_allclose(scores, powers / powers.sum(axis=1, keepdims=True), atol=1e-3)
    assert done.artifact.plan == bound.plan and done.artifact.model_id == host.model_id == bound.model_id
    assert done.artifact.figures["accuracy"] == pytest.approx(float((plain.argmax(axis=1) == rows.labels).mean()))
    assert done.artifact.figures["preset"] == preset and done.artifact.figures["rows"] == 40
    assert site.guest.points[0][0] == 0 and site.guest.points[-1] == (1, 1)


def test_custom_parameters_come_as_text_or_from_a_file(site, tmp_path, monkeypatch):
    rows, plain = digits(8)
    bound = site.load()
    text = json.dumps(CUSTOM)

    done, _ = site.run("infer", inference(encryption_parameters=text, is_custom_enc_param=True), rows, bound)
    evaluated, _ = site.run("evaluate", evaluation(encryption_parameters=text, is_custom_enc_param=True, is_encryption=True), bound)

    assert done.predictions.result == plain.argmax(axis=1).tolist()
    assert done.artifact.preset == evaluated.preset == "custom_enc_param"
    assert evaluated.figures["agreement"] == 1.0

    monkeypatch.setenv("HE_NN_HOME", str(tmp_path))
    with pytest.raises(InputError, match="is_custom_enc_param: there is no file custom_enc_param.json"):
        site.run("infer", inference(is_custom_enc_param=True), rows, bound)
    (tmp_path / "custom_enc_param.json").write_text(text)
    done, _ = site.run("infer", inference(is_custom_enc_param=True), rows, bound)
    assert done.artifact.preset == "custom_enc_param"


def test_custom_parameters_below_128_bits_are_refused_before_anything_is_encrypted(site, tmp_path, monkeypatch):
    monkeypatch.setenv("HE_NN_HOME", str(tmp_path))
    (tmp_path / "custom_enc_param.json").write_text(json.dumps({**CUSTOM, "poly_modulus_degree": 2048}))
    rows, _ = digits(4)

    with pytest.raises(SecurityError):
        site.run("infer", inference(is_custom_enc_param=True), rows, site.load())
    assert not any(data[:1] in (b"F", b"L") for data in site.guest_pipe.sent)


def test_rows_come_from_a_file_in_order(site, tmp_path):
    x, _ = zoo.shipped("MLP").load_test()
    np.save(tmp_path / "rows.npy", x[:20])
    _, plain = digits(20)
    site.load()

    done, _ = site.run("infer", inference(file_inference=str(tmp_path / "rows.npy"), num_inference=12))

    assert done.rows.ids == tuple(str(index) for index in range(12))
    assert done.predictions.result == plain[:12].argmax(axis=1).tolist()


def test_a_plain_inference_gives_what_onnx_runtime_gives(site):
    rows, plain = digits(20)

    done, _ = site.run("infer", inference(is_encryption=False), rows, site.load())

    assert done.predictions.result == plain.argmax(axis=1).tolist()
    assert any("NOT encrypted" in line for line in site.guest.lines)


def test_a_host_that_says_encrypted_takes_no_plain_rows(site):
    rows, _ = digits(4)

    with pytest.raises(ParameterError, match="is_encryption: true at the host"):
        site.run("infer", inference(is_encryption=False), rows, site.load(), host_params=inference())


def test_an_encrypted_inference_sends_no_row_and_shows_none(site):
    """The control: the same search finds the rows of a plain inference."""
    values = np.random.default_rng(5).uniform(0.1, 1.0, (16, 64)).astype(np.float32)
    rows = Rows(tuple(range(16)), values)
    patterns = [values[3].tobytes()[:32], values[3].astype(np.float64).tobytes()[:32], str(float(values[3, 3])).encode()]
    bound = site.load()

    site.run("infer", inference(is_encryption=False), rows, bound)
    assert any(pattern in data for data in site.guest_pipe.sent for pattern in patterns)

    site.run("infer", inference(), rows, bound)
    told = [*site.guest_pipe.sent, *(line.encode() for line in site.guest.lines + site.host.lines), repr(rows).encode()]
    assert sum(map(len, told)) > 10_000
    assert not any(pattern in data for data in told for pattern in patterns)


@pytest.mark.parametrize(("columns", "reason"), [(63, "63 feature columns, the model takes 64"), (65, "65 feature columns")])
def test_a_table_of_another_width_ends_both_sides(site, columns, reason):
    rows = from_columns(["a", "b"], {f"x{i}": [0.0, 1.0] for i in range(columns)})

    with pytest.raises(InputError, match=reason):
        site.run("infer", inference(), rows, site.load())
    assert isinstance(site.host_error, InputError)


def test_a_table_that_cannot_be_used_ends_both_sides_and_its_columns_stay_with_the_guest(site):
    site.load()

    def read():
        return from_columns(["a", "b"], {"salary": [1.0, None], "x1": [1.0, 2.0]})

    with pytest.raises(InputError, match=r"column salary \(1 missing\)"):
        site.run("infer", inference(), read)
    assert isinstance(site.host_error, InputError) and "the guest's rows cannot be used" in str(site.host_error)
    assert not any(b"salary" in data for data in site.guest_pipe.sent)


def test_a_missing_file_is_told_with_its_field(site):
    site.load()

    with pytest.raises(InputError, match=r"file_inference: there is no file ./nowhere.npy"):
        site.run("infer", inference(file_inference="./nowhere.npy"))


def test_an_unknown_model_ends_both_sides(site):
    site.load()

    with pytest.raises(NotFoundError, match="there is no model 'fffffffff'"):
        site.run("infer", inference(model_id="fffffffff"), digits(2)[0])
    assert isinstance(site.host_error, NotFoundError)


# modes and artifacts


def test_the_input_model_is_the_one_that_is_used():
    artifact = ModelArtifact("id-1", "id1MLP", "MLP", "N13_L8")

    assert wanted_model("latest", "CNN", artifact) == wanted_model("id1MLP", "CNN", artifact) == ("id-1", "MLP")
    assert wanted_model("", "CNN", None) == ("latest", "CNN")
    with pytest.raises(ParameterError, match="model_id: 'other', and the input model is id1MLP"):
        wanted_model("other", "CNN", artifact)


@pytest.mark.parametrize("values", [None, [], {}, {"model_id": "x"}, "text"])
def test_a_model_of_another_component_is_refused(values):
    with pytest.raises(InputError, match="not one of he-nn-load"):
        ModelArtifact.of(values)


def test_the_host_of_an_inference_never_loads_the_secret_key():
    program = "import sys, he_nn.host; print([name for name in sys.modules if 'secret' in name or '.client' in name])"
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join([str(TOP / "backend"), str(TOP)])}

    done = subprocess.run([sys.executable, "-c", program], env=environment, capture_output=True, text=True, timeout=60)

    assert done.returncode == 0, done.stderr
    loaded = [name for name in eval(done.stdout) if name.startswith("he_backend")]
    assert loaded == []
