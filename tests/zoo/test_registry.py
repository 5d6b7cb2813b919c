"""Model types by name and alias."""

from __future__ import annotations

import pytest

from he_backend.errors import NotFoundError
from he_backend.zoo import model_types, resolve


@pytest.mark.parametrize(
    "name, expected", [("MLP", "MLP"), ("mlp", "MLP"), ("CNN", "CNN"), ("Cryptonets", "CNN"), ("CryptoNets", "CNN"), ("bert", "BERT")]
)
def test_names_and_aliases(name, expected):
    assert resolve(name).name == expected


def test_unknown_type_lists_what_there_is():
    with pytest.raises(NotFoundError, match=r"'GPT'.*MLP, CNN \(Cryptonets\), AlexNet, RNN, BERT"):
        resolve("GPT")


@pytest.mark.parametrize("image_shape", [(1, 8, 8), (1, 28, 28)])
@pytest.mark.parametrize("activation", ["relu", "square"])
@pytest.mark.parametrize("kind", [kind for kind in model_types() if not kind.text], ids=lambda kind: kind.name)
def test_module_maps_a_row_to_scores(kind, activation, image_shape):
    torch = pytest.importorskip("torch")
    module = kind.build(image_shape, 10, activation)

    scores = module(torch.zeros(3, *kind.input_shape(image_shape)))

    assert scores.shape == (3, 10)


def test_cryptonets_has_the_sizes_of_the_paper():
    pytest.importorskip("torch")

    shapes = [tuple(p.shape) for p in resolve("Cryptonets").build((1, 28, 28), 10, "square").parameters() if p.dim() > 1]

    assert shapes == [(5, 1, 5, 5), (100, 845), (10, 100)]
