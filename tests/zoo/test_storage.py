"""Half-size weights, and the word on embeddings in a file's metadata."""

from __future__ import annotations

import numpy as np
import onnx
import onnxruntime
import pytest
from onnx import numpy_helper

from he_backend.errors import ModelError
from he_backend.graph import convert
from he_backend.zoo.storage import is_half, with_embeddings, with_half_weights
from tests.graph.test_embeddings import network


def model():
    return network(table=np.random.default_rng(0).standard_normal((40, 3)).astype(np.float32)).SerializeToString()


def test_large_weights_are_halved_and_the_scores_are_those_of_rounded_weights():
    ids = np.arange(8).reshape(2, 4)

    half = with_half_weights(model())

    kinds = {tensor.name: tensor.data_type for tensor in onnx.load_from_string(half).graph.initializer}
    assert kinds == {"table/float16": onnx.TensorProto.FLOAT16, "w": onnx.TensorProto.FLOAT}
    assert is_half(half) and not is_half(model())
    arrays = {t.name: numpy_helper.to_array(t) for t in onnx.load_from_string(model()).graph.initializer}
    due = np.tanh(arrays["table"].astype(np.float16).astype(np.float32)[ids]) @ arrays["w"]
    found = onnxruntime.InferenceSession(half, providers=["CPUExecutionProvider"]).run(None, {"ids": ids})[0]
    np.testing.assert_allclose(found, due, atol=1e-6)


@pytest.mark.parametrize("choice", ["public", "private"])
def test_the_files_own_word_on_its_tables_is_taken(choice):
    stated, said = convert(with_embeddings(model(), choice)), convert(model(), embeddings=choice)

    assert (stated.rounds, stated.public_constants, stated.notes) == (said.rounds, said.public_constants, said.notes)


def test_a_choice_of_the_caller_is_stronger_than_the_files():
    file = with_embeddings(model(), "public")

    with pytest.raises(ModelError, match="cannot run encrypted"):
        convert(file, embeddings="refuse")
    assert convert(file, embeddings="private").rounds == convert(file).rounds + 1


def test_a_file_that_says_nothing_or_nonsense_is_refused():
    with pytest.raises(ModelError, match="cannot run encrypted"):
        convert(with_embeddings(model(), "refuse"))
    with pytest.raises(ModelError, match=r"he_nn\.embeddings says 'sometimes'; allowed: refuse, public, private"):
        convert(with_embeddings(model(), "sometimes"))


def test_other_metadata_stays():
    proto = onnx.load_from_string(model())
    onnx.helper.set_model_props(proto, {"author": "somebody"})

    kept = onnx.load_from_string(with_embeddings(proto.SerializeToString(), "public")).metadata_props

    assert {entry.key: entry.value for entry in kept} == {"author": "somebody", "he_nn.embeddings": "public"}
