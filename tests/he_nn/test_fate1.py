"""The three components on FATE 1.x: load, eval and inference over transfer variables, models, metrics, and what is refused."""

from __future__ import annotations

import dataclasses
import json
import os
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest

from he_backend import zoo
from he_backend.errors import EngineError, InputError, NotFoundError, ParameterError, TransportError
from he_backend.graph import convert
from he_nn.table import read_detail
from tests import processes
from tests.he_nn import fate1_job
from tests.he_nn.test_roles import CUSTOM, digits

TOP = Path(__file__).resolve().parents[2]
EMBEDDED = {"server_url": "", "model_type": "MLP"}
ENCRYPTED = {**EMBEDDED, "is_encryption": True, "encryption_parameters": "N11_L1"}
CURVES = (
    "roc",
    "ks",
    "lift",
    "gain",
    "precision",
    "recall",
    "accuracy",
    "stepwise",
    "dbi",
    "init_iter",
)  # FATE-Board takes these elsewhere


@pytest.fixture(scope="module", autouse=True)
def platform():
    stop = fate1_job.start()
    yield
    stop()


@pytest.fixture(autouse=True)
def home(tmp_path, monkeypatch):
    monkeypatch.setenv("HE_NN_HOME", str(tmp_path))
    monkeypatch.chdir(tmp_path)
    return tmp_path


@pytest.fixture
def loaded(home):
    return fate1_job.run("HeNNLoad", EMBEDDED)


def lines(rows, label="y", **meta):
    """A table as an upload leaves it, its rows under the ids of `rows`."""
    from fate_arch.session import Table

    header = ",".join([label, *rows.columns] if label else rows.columns)
    texts = [",".join(map(repr, values)) for values in rows.values.tolist()]
    if label:
        texts = [f"{y},{text}" for y, text in zip(rows.labels.tolist(), texts)]
    return Table(zip(rows.ids, texts), 4, {"header": header, "sid": "id", "meta": meta})


def content(table):
    return [(key, instance.features) for key, instance in table.collect()]


def test_a_job_loads_evaluates_and_infers_encrypted(loaded):
    evaluated = fate1_job.run("HeNNEval", {**ENCRYPTED, "batch_size": 32}, models=fate1_job.chained("he_nn_load_0", *loaded))
    rows, plain = digits(50)
    table = lines(rows)

    guest, host = fate1_job.run("HeNNInference", ENCRYPTED, table, models=fate1_job.chained("he_nn_eval_0", *evaluated))

    found = content(guest.data)
    assert [key for key, _ in found] == [key for key, _ in table.collect()] and guest.data.partitions == table.partitions
    by_id = dict(zip(rows.ids, zip(rows.labels.tolist(), plain.argmax(axis=1).tolist())))
    assert [tuple(features[:2]) for _, features in found] == [by_id[key] for key, _ in found]
    assert {features[4] for _, features in found} == {"predict"}
    for key, (_, result, score, detail, _) in found:
        scores = read_detail(detail)
        assert max(scores, key=scores.get) == str(result) and scores[str(result)] == score, key
    assert guest.data.schema == {
        "header": ["label", "predict_result", "predict_score", "predict_detail", "type"],
        "sid": "id",
        "content_type": "predict_result",
    }
    assert host.data is None
    assert guest.tracker.summary["accuracy"] == pytest.approx(np.mean([a == b for a, b in by_id.values()]))


def test_the_model_goes_from_component_to_component_without_weights(loaded):
    from he_nn.fate1.models import read_model

    guest, host = loaded
    assert set(guest.model) == set(host.model) == {"HeNNLoadMeta", "HeNNLoadParam"}
    artifact = read_model({"model": {"he_nn_load_0": guest.model}})
    evaluated, _ = fate1_job.run("HeNNEval", {**EMBEDDED, "batch_size": 16}, models=fate1_job.chained("he_nn_load_0", guest, host))

    after = read_model({"model": {"he_nn_eval_0": evaluated.model}})
    assert (after.model_id, after.model_name, after.model_type) == (artifact.model_id, artifact.model_name, "MLP")
    assert artifact.plan["rounds"] == 3 and artifact.test_acc > 0.9 and after.figures["batch_size"] == 16
    assert sum(len(data) for _, data in guest.model.values()) < 20_000


def test_fates_board_gets_one_row_of_figures_and_curves(loaded):
    guest, host = fate1_job.run("HeNNInference", ENCRYPTED, lines(digits(20)[0]), models=fate1_job.chained("he_nn_load_0", *loaded))

    for tracker in (guest.tracker, host.tracker):
        rows = [name for _, name in tracker.metas if "loss" not in name]
        assert rows == ["summary"]
        assert not [word for _, name in tracker.metas for word in CURVES if word in name]
    assert guest.tracker.points["summary"] == {**guest.tracker.summary, "is_encryption": "yes"}  # it draws a boolean as an empty cell
    assert guest.tracker.summary["is_encryption"] is True
    assert {"accuracy", "rounds", "bytes_up", "bytes_down", "seconds_total", "preset", "engine"} <= set(guest.tracker.summary)
    curves = {name: meta for (_, name), meta in guest.tracker.metas.items() if meta["type"] == "LOSS"}
    assert {name: meta["curve_name"] for name, meta in curves.items()} == {"progress_loss": "progress (%)", "round_ms_loss": "round (ms)"}
    assert guest.tracker.points["progress_loss"][max(guest.tracker.points["progress_loss"])] == 100.0
    assert len(guest.tracker.points["round_ms_loss"]) == guest.tracker.summary["rounds"] == 3
    assert json.dumps([guest.tracker.points, host.tracker.points])


def test_an_inference_takes_one_trip_more_than_it_has_segments(loaded):
    """An object there and one back for each; FATE 1.x takes 0.1 s for either. The last one there says that the task is over."""
    segments = convert(str(zoo.shipped("MLP").onnx_path)).rounds
    guest, _ = fate1_job.run("HeNNInference", ENCRYPTED, lines(digits(64)[0]), models=fate1_job.chained("he_nn_load_0", *loaded))

    crossed = [name for name, _ in guest.crossed]
    assert segments == 3 and crossed == ["guest_to_host", "host_to_guest"] * (segments + 1) + ["guest_to_host"]


def failing(values, **more):
    """(guest's error, host's error) of an inference that fails."""
    parties = []
    with pytest.raises(Exception) as raised:
        fate1_job.run("HeNNInference", {**ENCRYPTED, **values}, told=parties.extend, **more)
    guest, host = parties
    assert raised.value in (guest.error, host.error)
    return guest.error, host.error


def test_both_parties_read_why_a_guest_failed_whose_end_destroys_what_is_under_way(loaded):
    guest, host = failing({"file_inference": "gone.npy"})

    assert "there is no file gone.npy" in str(guest)
    assert "the guest's rows cannot be used" in str(host) and "gone" not in str(host)


def test_both_parties_read_why_a_host_refused(loaded):
    guest, host = failing({"model_id": "gone"}, table=lines(digits(4)[0]))

    assert "there is no model 'gone'" in str(guest) and "there is no model 'gone'" in str(host)


@pytest.mark.parametrize("module", ["HeNNLoad", "HeNNEval", "HeNNInference"])
@pytest.mark.parametrize("by_service", ["guest", "host"])
def test_a_party_of_another_mode_is_not_waited_for(loaded, monkeypatch, module, by_service):
    monkeypatch.setattr("he_nn.fate1.channel.PATIENCE_S", 0.3)

    def slow(*given):
        time.sleep(1)
        raise TransportError("no such service")

    for operation in ("load", "evaluate", "infer"):
        monkeypatch.setattr(f"he_nn.service.{operation}", slow)
    apart = {"model_type": "MLP", "server_url": "127.0.0.1:12993"}
    values, host_values = (apart, EMBEDDED) if by_service == "guest" else (EMBEDDED, apart)
    parties = []
    table = lines(digits(4)[0]) if module == "HeNNInference" else None

    with pytest.raises((ParameterError, TransportError)):
        fate1_job.run(module, values, table, host_values=host_values, told=parties.extend)

    waiting = next(party for party in parties if party.role != by_service)
    told = f"server_url: '{apart['server_url']}' at the {by_service}, and server_url: '' (embedded mode) at the {waiting.role}"
    assert isinstance(waiting.error, ParameterError) and told in str(waiting.error)


def test_a_host_without_its_models_says_so_to_the_guest(home, monkeypatch):
    (home / "file").write_text("")
    monkeypatch.setenv("HE_NN_HOME", str(home / "file"))

    guest, host = failing({}, table=lines(digits(4)[0]))

    assert str(home) in str(host) and str(home) not in str(guest)
    assert "the host's models cannot be opened; the host's own log says why" in str(guest)


def test_the_host_hears_of_a_model_that_is_not_of_he_nn(loaded):
    foreign = {"guest": {"lr_0": {"HeteroLRMeta": ("HeteroLRMeta", b""), "HeteroLRParam": ("HeteroLRParam", b"")}}, "host": {}}

    guest, host = failing({}, table=lines(digits(4)[0]), models=foreign)

    assert "the input model lr_0 is not one of he-nn" in str(guest) and str(guest) in str(host)


def test_the_guests_file_of_parameters_is_named_to_the_guest_alone(loaded, home):
    guest, host = failing({"is_custom_enc_param": True}, table=lines(digits(4)[0]))

    assert "there is no file custom_enc_param.json" in str(guest) and str(home) not in str(host)
    assert "the guest's encryption parameters cannot be used" in str(host)


@pytest.mark.parametrize("label", [0.5, "grey"])
def test_labels_that_cannot_be_scored_leave_the_predictions(loaded, label):
    rows, plain = digits(6)
    rows = dataclasses.replace(rows, labels=np.array([label] * 6, dtype=object if isinstance(label, str) else float))

    guest, _ = fate1_job.run("HeNNInference", ENCRYPTED, lines(rows), models=fate1_job.chained("he_nn_load_0", *loaded))

    by_id = dict(zip(rows.ids, plain.argmax(axis=1).tolist()))
    assert {key: features[1] for key, features in content(guest.data)} == by_id
    assert {features[0] for _, features in content(guest.data)} == {label}
    if label == 0.5:
        assert "accuracy" not in guest.tracker.summary


@pytest.mark.parametrize("module", ["HeNNLoad", "HeNNEval"])
def test_a_table_is_refused_where_no_rows_are_taken(loaded, module):
    with pytest.raises(ParameterError, match=f"input.data: {module} takes no table"):
        fate1_job.run(module, EMBEDDED, lines(digits(4)[0]))


def test_a_failing_guest_waits_for_no_host_for_ever(loaded, monkeypatch):
    monkeypatch.setattr("he_nn.fate1.channel.PATIENCE_S", 0.3)
    monkeypatch.setattr("he_nn.fate1.host.HeNNInferenceHost.work", lambda *given: time.sleep(3))
    started = time.monotonic()

    guest, _ = failing({"file_inference": "gone.npy"})

    assert "there is no file gone.npy" in str(guest) and time.monotonic() - started < 10


def test_rows_of_a_file_keep_their_order_beyond_ten(loaded, home):
    rows, plain = digits(25)
    np.save(home / "rows.npy", rows.values.astype(np.float32))

    guest, _ = fate1_job.run("HeNNInference", {**ENCRYPTED, "file_inference": "rows.npy", "num_inference": 23})

    found = content(guest.data)
    assert [int(key) for key, _ in found] == list(range(23))
    assert [features[1] for _, features in found] == plain.argmax(axis=1)[:23].tolist()
    assert {features[0] for _, features in found} == {None} and "accuracy" not in guest.tracker.summary


def test_a_plain_inference_needs_both_to_say_so(loaded):
    rows, plain = digits(8)
    guest, _ = fate1_job.run("HeNNInference", EMBEDDED, lines(rows))

    assert guest.tracker.summary["is_encryption"] is False
    by_id = dict(zip(rows.ids, plain.argmax(axis=1).tolist()))
    assert {key: features[1] for key, features in content(guest.data)} == by_id
    with pytest.raises(ParameterError, match="is_encryption"):
        fate1_job.run("HeNNInference", EMBEDDED, lines(rows), host_values=ENCRYPTED)


def test_custom_parameters_lie_beside_the_job(loaded, home):
    values = {**EMBEDDED, "is_encryption": True, "is_custom_enc_param": True}
    with pytest.raises(InputError, match=r"is_custom_enc_param: there is no file custom_enc_param\.json"):
        fate1_job.run("HeNNInference", values, lines(digits(4)[0]))
    (home / "custom_enc_param.json").write_text(json.dumps(CUSTOM))

    guest, _ = fate1_job.run("HeNNInference", values, lines(digits(4)[0]))

    assert guest.tracker.summary["preset"] == "custom_enc_param"


# refusals


def test_wrong_parameters_are_refused_when_the_job_is_submitted():
    with pytest.raises(ValueError, match=r"batch_size: 513; allowed: 1 to 512"):
        fate1_job.parameters("he-nn-eval", {"batch_size": 513})
    with pytest.raises(ValueError, match=r"num_inference: 0; allowed: 1 or more"):
        fate1_job.parameters("HeNNInference", {"num_inference": 0})
    with pytest.raises(ValueError, match=r"is_init: 'yes'; allowed: true or false"):
        fate1_job.parameters("HeNNLoad", {"is_init": "yes"})
    with pytest.raises(ValueError, match="redundant parameters"):
        fate1_job.parameters("HeNNLoad", {"modeltype": "MLP"})


@pytest.mark.parametrize("module", ["HeNNLoad", "HeNNEval", "HeNNInference"])
def test_the_defaults_are_those_of_every_other_way_in(module):
    from federatedml.components.components import ComponentMeta

    from he_nn.params import COMPONENTS

    meta = ComponentMeta.get_meta(module)
    defaults = COMPONENTS[meta.alias[1]]()
    assert fate1_job.parameters(module, {}) == vars(defaults)
    assert meta.get_supported_roles() == {"guest", "host"}


def test_the_parameters_of_the_component_before_are_not_taken_over():
    from he_nn.fate1.params import HeNNEvalParam

    pre_parameters, alias = {"ComponentParam": {"is_init": True, "model_type": "MLP"}, "ComponentParameterSource": "load_0"}, "eval_0"
    assert HeNNEvalParam().update(pre_parameters["ComponentParam"]).model_type == "CNN"
    pre_parameters = {"ComponentParam": {"model_type": "MLP"}, "ComponentParameterSource": alias}  # a prediction job: its own
    assert HeNNEvalParam().update(pre_parameters["ComponentParam"]).model_type == "MLP"


@pytest.mark.parametrize("hosts", [0, 2])
def test_embedded_mode_takes_one_host(hosts):
    with pytest.raises(ParameterError, match=f"the job has {hosts} host parties"):
        fate1_job.run("HeNNLoad", EMBEDDED, hosts=hosts)


def test_what_the_host_refuses_reaches_the_guest():
    with pytest.raises(NotFoundError, match="there is no model"):
        fate1_job.run("HeNNInference", {**ENCRYPTED, "model_id": "nothing"}, lines(digits(2)[0]))


def test_another_component_as_the_model_is_refused(loaded):
    stock = {"HeteroLRMeta": ("LRModelMeta", b""), "HeteroLRParam": ("LRModelParam", b"")}
    both = {"a": loaded[0].model, "b": loaded[0].model}
    with pytest.raises(InputError, match="not one of he-nn-load"):
        fate1_job.run("HeNNEval", EMBEDDED, models={"guest": {"hetero_lr_0": stock}, "host": {}})
    with pytest.raises(ParameterError, match=r"input\.model: a, b"):
        fate1_job.run("HeNNEval", EMBEDDED, models={"guest": both, "host": {}})
    broken = {name: (kind, b"\xff" * 9) for name, (kind, _) in loaded[0].model.items()}
    with pytest.raises(InputError, match="cannot be read"):
        fate1_job.run("HeNNEval", EMBEDDED, models={"guest": {"he_nn_load_0": broken}, "host": {}})


def test_an_error_of_our_own_making_tells_no_value(loaded, monkeypatch):
    from he_nn.fate1 import guest as module

    def fails(table):
        raise ValueError("row 17 holds 3.14159")

    monkeypatch.setattr(module, "rows_of", fails)

    with pytest.raises(EngineError) as raised:
        fate1_job.run("HeNNInference", ENCRYPTED, lines(digits(2)[0]))

    assert "HeNNInference: ValueError at test_fate1.py" in str(raised.value) and "3.14159" not in str(raised.value)
    assert raised.value.__cause__ is None and raised.value.__suppress_context__


def test_listing_the_components_loads_nothing_and_the_host_never_loads_the_secret_half():
    code = (
        "import sys; sys.path.insert(0, sys.argv[1])\n"
        "import he_nn.fate1.components as c\n"
        "assert not [name for name in sys.modules if name.startswith(('numpy', 'onnx', 'he_backend', 'google.protobuf'))]\n"
        "runner = c.he_nn_inference_cpn_meta.get_run_obj('host')\n"
        "assert 'he_backend.server.service' in sys.modules\n"
        "assert not [name for name in sys.modules if name.startswith('he_') and 'secret' in name or name == 'he_nn.guest']\n"
    )
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join([str(TOP / "backend"), str(TOP)])}
    subprocess.run([sys.executable, "-c", code, str(fate1_job.PLATFORM)], check=True, env=environment)


# by way of the services, as real processes


@pytest.fixture(scope="module")
def services(tmp_path_factory):
    server = processes.server(tmp_path_factory.mktemp("server"))
    client = processes.client(tmp_path_factory.mktemp("client"), server.http)
    yield server, client
    assert (client.stop(), server.stop()) == (0, 0)


def test_the_services_take_the_hosts_place(services):
    server, client = services
    served = {**ENCRYPTED, "server_url": server.http}
    loaded = fate1_job.run("HeNNLoad", {"model_type": "MLP", "server_url": server.http}, hosts=0)
    evaluated = fate1_job.run("HeNNEval", {**served, "batch_size": 20}, hosts=0, models=fate1_job.chained("load_0", *loaded))
    rows, plain = digits(12)
    expected = dict(zip(rows.ids, plain.argmax(axis=1).tolist()))

    assert evaluated[0].tracker.summary["test_acc"] > 0.9
    for values in (served, {**served, "is_encryption": False}, {**served, "client": True, "client_url": client.http}):
        guest, host = fate1_job.run("HeNNInference", values, lines(rows), models=fate1_job.chained("load_0", *loaded))
        assert {key: features[1] for key, features in content(guest.data)} == expected
        assert (
            host.data is None and len(guest.crossed) == 2 and max(size for _, size in guest.crossed) < 300
        )  # each says that it uses a service, and nothing else
