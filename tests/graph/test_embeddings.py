"""Embedding tables: refused, public, or private through encrypted one-hot rows."""

from __future__ import annotations

import numpy as np
import pytest
from onnx import TensorProto, helper

import he_backend as he
from he_backend.errors import ModelError, ParameterError
from he_backend.graph import convert, run_program
from he_backend.graph.element_types import element_type
from tests.graph.test_import import model_of
from tests.graph.test_split import assert_no_weights_travel

TABLE = np.random.default_rng(0).standard_normal((7, 3)).astype(np.float32)
WEIGHT = np.random.default_rng(1).standard_normal((3, 2)).astype(np.float32)


def network(kind=TensorProto.INT64, table=TABLE, opset=17, **attributes):
    nodes = [helper.make_node("Gather", ["table", "ids"], ["e"], name="embed", **attributes), helper.make_node("Tanh", ["e"], ["t"])]
    nodes.append(helper.make_node("MatMul", ["t", "w"], ["y"]))
    return model_of(nodes, [("ids", ["n", 4], kind)], [("y", None)], {"table": table, "w": WEIGHT}, opset)


IDS = np.array([[0, 1, 2, 3], [6, 4, 0, 6], [5, 5, 5, 1]])


@pytest.mark.parametrize("kind", [np.int64, np.int32])
def test_private_tables_stay_with_the_model_owner(kind):
    program = convert(network(element_type(kind)), embeddings="private")
    np.testing.assert_allclose(run_program(program, IDS.astype(kind))["y"], np.tanh(TABLE[IDS]) @ WEIGHT, atol=1e-5)
    assert_no_weights_travel(program)
    assert program.rounds == 2
    assert program.segments[0].in_elements == 4 * 7
    assert program.notes == ("private table table of 7 entries: 28 one-hot values are sent in place of 4 indices",)
    assert program.notes[0] in program.describe()
    assert not any("table" in entry.split(":")[0] for entry in program.public_constants)
    assert all(step.batched for step in program.steps if step.model)


def test_indices_count_from_the_end_too_and_others_are_refused():
    program = convert(network(), embeddings="private")
    np.testing.assert_allclose(run_program(program, IDS - 7)["y"], np.tanh(TABLE[IDS]) @ WEIGHT, atol=1e-5)
    with pytest.raises(ModelError, match="out of data bounds"):
        run_program(program, IDS + 1)


def test_entries_of_other_ranks():
    for table in (TABLE.reshape(7, 3, 1), TABLE[:, 0]):
        nodes = [helper.make_node("Gather", ["table", "ids"], ["y"])]
        model = model_of(nodes, [("ids", ["n", 4], TensorProto.INT64)], [("y", None)], {"table": table})
        np.testing.assert_allclose(run_program(convert(model, embeddings="private"), IDS)["y"], table[IDS], atol=1e-6)


def test_private_tables_encrypted():
    result = he.infer(convert(network(), embeddings="private"), IDS, engine="clear", preset="N11_L1")
    assert float(np.abs(result.output - np.tanh(TABLE[IDS]) @ WEIGHT).max()) <= 4 * 2.0**-result.report.expected_bits


def test_public_tables_are_looked_up_by_the_data_owner():
    for options in ({"embeddings": "public"}, {"public_embeddings": True}):
        program = convert(network(), **options)
        np.testing.assert_allclose(run_program(program, IDS)["y"], np.tanh(TABLE[IDS]) @ WEIGHT, atol=1e-5)
        assert program.rounds == 1
        assert any(entry.startswith("table:") for entry in program.public_constants)


def test_the_default_refuses_and_says_what_to_choose_from():
    with pytest.raises(ModelError) as caught:
        convert(network())
    (problem,) = caught.value.problems
    assert (problem.node, problem.op) == ("embed", "Gather")
    assert 'embeddings="public"' in problem.instead
    assert 'embeddings="private": 28 encrypted one-hot values a row' in problem.instead


def test_lookups_along_another_axis_cannot_be_private():
    nodes = [helper.make_node("Gather", ["table", "ids"], ["y"], name="embed", axis=1)]
    model = model_of(nodes, [("ids", [1, 4], TensorProto.INT64)], [("y", None)], {"table": TABLE})
    with pytest.raises(ModelError) as caught:
        convert(model, embeddings="private")
    assert caught.value.problems[0].node == "embed"


@pytest.mark.parametrize("options", [{"embeddings": "maybe"}, {"embeddings": None}, {"embeddings": "private", "public_embeddings": True}])
def test_other_choices_are_refused(options):
    with pytest.raises(ParameterError, match="embeddings"):
        convert(network(), **options)


def test_a_recurrent_classifier_of_words():
    torch = pytest.importorskip("torch")

    class Words(torch.nn.Module):
        def __init__(self):
            super().__init__()
            self.table = torch.nn.Embedding(11, 4)
            self.layers, self.head = torch.nn.GRU(4, 6, 2, batch_first=True), torch.nn.Linear(6, 3)

        def forward(self, ids):
            return self.head(self.layers(self.table(ids))[1][-1])

    torch.manual_seed(0)
    module, ids = Words().eval(), torch.randint(0, 11, (5, 6))
    due = module(ids).detach().numpy()
    for embeddings, rounds in (("public", 6 + 1 + 1), ("private", 1 + 6 + 1 + 1)):
        program = convert(module, ids, embeddings=embeddings)
        np.testing.assert_allclose(run_program(program, ids.numpy())[program.outputs[0].name], due, atol=1e-5)
        assert program.rounds == rounds, program.describe()
        result = he.infer(program, ids.numpy(), engine="clear", preset="N11_L1")
        assert float(np.abs(result.output - due).max()) <= 2.0**-result.report.expected_bits * max(1.0, float(np.abs(due).max()))


def test_a_bert_with_a_padding_mask_and_three_tables():
    torch = pytest.importorskip("torch")
    nn = torch.nn

    class Bert(nn.Module):
        def __init__(self, width=16, length=9):
            super().__init__()
            self.words, self.positions, self.types = nn.Embedding(30, width), nn.Embedding(length, width), nn.Embedding(2, width)
            self.norm = nn.LayerNorm(width)
            layer = nn.TransformerEncoderLayer(width, 2, 32, batch_first=True, activation="gelu")
            self.layers = nn.TransformerEncoder(layer, 2, enable_nested_tensor=False)
            self.pool, self.head = nn.Linear(width, width), nn.Linear(width, 2)

        def forward(self, ids, types):
            entries = self.words(ids) + self.positions(torch.arange(ids.shape[1])) + self.types(types)
            values = self.layers(self.norm(entries), src_key_padding_mask=ids == 0)
            return self.head(torch.tanh(self.pool(values[:, 0])))

    torch.manual_seed(0)
    module, ids, types = Bert().eval(), torch.randint(1, 30, (4, 9)), torch.randint(0, 2, (4, 9))
    ids[1, 5:] = 0
    ids[2, 2:] = 0
    due, rows = module(ids, types).detach().numpy(), {"input0": ids.numpy(), "input1": types.numpy()}
    rounds = 4 * 2 + 2  # projections, output, up, down; pooling and head
    for embeddings, more in (("public", 0), ("private", 1)):
        program = convert(module, (ids[:2], types[:2]), embeddings=embeddings)
        np.testing.assert_allclose(run_program(program, rows)[program.outputs[0].name], due, atol=1e-5)
        assert program.rounds == rounds + more, program.describe()
        assert all(step.batched for step in program.steps if step.model)
        assert program.segments[more].in_elements == 9 * 16
    assert_no_weights_travel(program)
    assert program.segments[0].in_elements == 9 * (30 + 2)


def test_positions_added_to_a_public_table_are_public_and_what_follows_is_not():
    random = np.random.default_rng(0)
    nodes = [
        helper.make_node("Gather", ["table", "ids"], ["e"]),
        helper.make_node("Add", ["e", "positions"], ["p"]),
        helper.make_node("Mul", ["p", "scale"], ["s"]),
        helper.make_node("Add", ["s", "shift"], ["t"]),
        helper.make_node("Tanh", ["t"], ["y"]),
    ]
    constants = {"table": TABLE, **{n: random.standard_normal((4, 3)).astype(np.float32) for n in ("positions", "scale", "shift")}}
    program = convert(model_of(nodes, [("ids", ["n", 4], TensorProto.INT64)], [("y", None)], constants), embeddings="public")
    due = np.tanh((TABLE[IDS] + constants["positions"]) * constants["scale"] + constants["shift"])
    np.testing.assert_allclose(run_program(program, IDS)["y"], due, atol=1e-5)
    assert [entry.split(":")[0] for entry in program.public_constants] == ["table", "positions"]
    assert program.rounds == 1
