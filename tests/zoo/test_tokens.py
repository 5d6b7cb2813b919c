"""Rows of token ids: which ids have entries of their own, images read as ids, and the lookup."""

from __future__ import annotations

import numpy as np
import pytest

from he_backend.zoo import datasets, tokens


def test_rare_tokens_share_an_entry_and_padding_has_its_own():
    rows = np.array([[5, 5, 7, 0], [5, 7, 9, 0]])

    table = tokens.entries(rows, ids=12, least=2)

    assert table.tolist() == [0, 1, 1, 1, 1, 2, 1, 3, 1, 1, 1, 1]
    assert table.dtype == np.int16


def test_an_image_becomes_one_id_for_each_line():
    image = np.zeros((1, 1, 3, 8), np.float32)
    image[0, 0, 1, 0], image[0, 0, 2, 7], image[0, 0, 2, 3] = 1.0, 0.5, 0.49

    ids = tokens.image_tokens(image)

    assert ids.tolist() == [[1, 2, 129]] and ids.dtype == np.int64
    assert tokens.image_tokens(np.ones((1, 1, 1, 8), np.float32)).max() == tokens.IMAGE_IDS - 1


def test_digits_as_ids_have_no_padding():
    ids = tokens.image_tokens(datasets.digits().test_x)

    assert ids.shape == (653, 8) and ids.min() >= 1 and len(np.unique(ids)) > 40


def test_lookup_takes_the_entry_of_each_id_and_zero_for_padding():
    torch = pytest.importorskip("torch")
    lookup = tokens.lookup(np.array([0, 1, 2, 1], np.int16), 4)

    vectors = lookup(torch.tensor([[0, 1, 2, 3]])).detach()

    assert vectors.shape == (1, 4, 4) and not vectors[0, 0].any()
    assert torch.equal(vectors[0, 1], vectors[0, 3]) and not torch.equal(vectors[0, 1], vectors[0, 2])
