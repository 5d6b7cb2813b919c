"""The trained networks in the package are what their records say."""

from __future__ import annotations

import json
import subprocess
import sys

import numpy as np
import onnx
import pytest

from he_backend.errors import EngineError, NotFoundError
from he_backend.zoo import all_shipped, model_types, resolve, shipped
from he_backend.zoo.evaluate import accuracy

NETWORKS = all_shipped()


def test_every_type_is_shipped_for_digits_and_for_real_data():
    there = {(n.model_type, n.dataset) for n in NETWORKS}

    assert there >= {(kind.name, "digits") for kind in model_types()}
    assert there >= {("MLP", "mnist"), ("CNN", "mnist"), ("AlexNet", "mnist"), ("RNN", "trec"), ("RNN", "sst2"), ("BERT", "sst2")}


@pytest.mark.parametrize("network", NETWORKS, ids=lambda n: f"{n.model_type}-{n.dataset}")
def test_accuracy_is_what_the_record_says(network):
    try:
        x, y = network.load_test()
    except (NotFoundError, EngineError) as missing:
        pytest.skip(str(missing))

    measured = accuracy(network.onnx_path.read_bytes(), x, y)

    assert len(x) >= 500 and x.dtype == (np.int64 if network.embeddings else np.float32) and x.shape[1:] == network.input_shape
    # A row whose two best scores tie to the last bit may fall either way under another ONNX Runtime.
    assert abs(measured - network.test_acc) <= 1.5 / len(x)


@pytest.mark.parametrize("network", NETWORKS, ids=lambda n: f"{n.model_type}-{n.dataset}")
def test_file_is_small_and_fits_its_record(network):
    model = onnx.load(str(network.onnx_path))
    onnx.checker.check_model(model)

    (given,) = model.graph.input
    record = json.loads(network.onnx_path.with_suffix(".json").read_text())

    assert network.onnx_path.stat().st_size < 1_500_000
    assert tuple(d.dim_value for d in given.type.tensor_type.shape.dim)[1:] == network.input_shape
    assert record["curve"][-1]["epoch"] == record["epochs"] and record["reproduce"].startswith(f"he-nn train {network.model_type} ")
    assert resolve(network.model_type).name == network.model_type


def test_mnist_networks_are_as_good_as_promised():
    assert shipped("MLP", "mnist").test_acc >= 0.98
    assert shipped("CNN", "mnist").test_acc >= 0.988


def test_alias_and_default_data_set():
    network = shipped("cryptonets")

    assert (network.model_type, network.dataset, network.input_shape) == ("CNN", "digits", (1, 8, 8))


def test_what_is_not_shipped_is_refused_with_what_is():
    with pytest.raises(NotFoundError, match="MLP trained on 'cifar'.*MLP on digits.*he-nn train"):
        shipped("MLP", "cifar")


def test_test_rows_need_no_torch():
    script = "import sys; from he_backend.zoo import shipped; x, y = shipped('MLP').load_test(); print(len(x), 'torch' in sys.modules)"

    answer = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=True, env=_with_path())

    assert answer.stdout.split() == ["653", "False"]


def _with_path() -> dict:
    import os

    import he_backend

    folder = os.path.dirname(os.path.dirname(he_backend.__file__))
    return {**os.environ, "PYTHONPATH": os.pathsep.join(filter(None, [folder, os.environ.get("PYTHONPATH")]))}
