"""Training rows in random order, changed a little each time: images moved and mirrored, tokens hidden."""

from __future__ import annotations

from typing import Any, Iterator

from he_backend.zoo import tokens
from he_backend.zoo.registry import ModelType, Recipe

_MASK = 103  # the id of [MASK] in BERT's vocabulary
_SORTED_BATCHES = 50  # rows are sorted by length within so many batches


def batches(kind: ModelType, rows: Any, labels: Any, recipe: Recipe, whole: bool = False) -> Iterator[tuple[Any, Any]]:
    """One pass over the rows: inputs of the network and their labels, torch tensors of up to `batch_rows` rows.

    rows: a data set's rows as a tensor, images for a network of images, ids for one of text. whole: rows of ids keep
    their length. Draws from torch's random numbers.
    """
    import torch

    if kind.text:
        yield from _token_batches(rows, labels, recipe, whole)
        return
    shape = kind.input_shape(tuple(rows.shape[1:]))
    for chosen in torch.randperm(len(rows)).split(recipe.batch_rows):
        images = shifted(rows[chosen], recipe.shift_pixels)
        if recipe.mirror:
            images = torch.where(torch.rand(len(images), 1, 1, 1) < 0.5, images.flip(3), images)
        yield images.reshape(-1, *shape), labels[chosen]


def count(rows: int, recipe: Recipe) -> int:
    """How many batches one pass over so many rows has."""
    return -(-rows // recipe.batch_rows)


def _token_batches(ids: Any, labels: Any, recipe: Recipe, whole: bool) -> Iterator[tuple[Any, Any]]:
    """Batches of rows of about the same length, cut behind the longest unless `whole`: [PAD] is most of a padded batch."""
    import torch

    lengths = (ids != tokens.PAD).sum(1)
    parts = [part[lengths[part].argsort()] for part in torch.randperm(len(ids)).split(recipe.batch_rows * _SORTED_BATCHES)]
    made = [batch for part in parts for batch in part.split(recipe.batch_rows)]
    for index in torch.randperm(len(made)).tolist():
        chosen = made[index]
        rows = ids[chosen] if whole else ids[chosen, : int(lengths[chosen].max())]
        if recipe.hide_tokens:
            rows = torch.where((torch.rand(rows.shape) < recipe.hide_tokens) & (rows != tokens.PAD), _MASK, rows)
        yield rows, labels[chosen]


def shifted(images: Any, pixels: int) -> Any:
    """Each image moved by up to `pixels` in both directions, zeros moving in; images [rows, channels, height, width]."""
    if pixels == 0:
        return images
    import torch
    from torch.nn import functional

    height, width = images.shape[2:]
    # windows [rows, channels, 2p+1, 2p+1, height, width]: every shift of every image, as a view
    windows = functional.pad(images, (pixels,) * 4).unfold(2, height, 1).unfold(3, width, 1)
    down, right = torch.randint(0, 2 * pixels + 1, (2, len(images)))
    return windows[torch.arange(len(images)), :, down, right]
