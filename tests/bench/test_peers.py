"""The comparison with other projects: the network handed to them is ours, and one that cannot run is reported, not fatal."""

from __future__ import annotations

import sys

import numpy as np
import pytest

from benchmarks.peers import run
from he_backend.zoo import shipped


@pytest.fixture(scope="module")
def row():
    return np.random.default_rng(0).uniform(0, 1, (1, 1, 28, 28)).astype(np.float32)


def test_the_arrays_that_peers_get_compute_the_networks_scores(row):
    arrays = run._network(shipped("CNN", "mnist").onnx_path, row)
    padded = np.pad(row[0, 0], 1)
    windows = np.lib.stride_tricks.sliding_window_view(padded, (5, 5))[::2, ::2]
    maps = np.einsum("hwij,oij->ohw", windows, arrays["conv_weight"][:, 0]) + arrays["conv_bias"][:, None, None]
    hidden = (maps.ravel() ** 2) @ arrays["dense1_weight"] + arrays["dense1_bias"]
    scores = hidden**2 @ arrays["dense2_weight"] + arrays["dense2_bias"]
    np.testing.assert_allclose(scores, arrays["scores"], rtol=1e-4, atol=1e-3)


def test_ours_is_right_and_says_what_the_client_learns(row):
    figures = run.ours(shipped("CNN", "mnist").onnx_path, row, "N11_L1", 1)
    assert figures["same_prediction"]
    assert figures["rounds"] == 3
    assert "pre-activations" in figures["client_learns"]


def test_a_peer_that_cannot_run_is_reported_with_its_last_words(tmp_path, monkeypatch):
    (tmp_path / "broken" / "bin").mkdir(parents=True)
    (tmp_path / "broken" / "bin" / "python").symlink_to(sys.executable)
    program = tmp_path / "program.py"
    program.write_text("raise SystemExit('no such protocol')")
    monkeypatch.setitem(run.PEERS, "broken", ("broken==1.0", str(program)))
    figures = run._peer("broken", tmp_path, tmp_path / "in.npz", tmp_path / "out.json", 1)
    assert figures == {"problem": "broken==1.0 does not run: no such protocol"}
