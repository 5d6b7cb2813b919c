"""Some coefficients of each body: those of an answer that somebody reads, so that the others are never sent."""

from __future__ import annotations

from dataclasses import replace

import numpy as np

from he_backend.ckks.bits import packed_words
from he_backend.ckks.ring import core, cpu_level, refusal
from he_backend.ckks.tensor import CipherTensor, PackedTensor
from he_backend.errors import ProtocolError


def pick(tensor: CipherTensor | PackedTensor, index: np.ndarray, threads: int = 1) -> CipherTensor | PackedTensor:
    """The tensor with only those coefficients of its bodies that index int32 [columns or 1, count or 1, kept] names; -1 gives a zero.

    Masks stay whole. Raises ProtocolError for a tensor under several primes.
    """
    return _moved(tensor, index, tensor.width, True, threads)


def put_back(tensor: CipherTensor | PackedTensor, index: np.ndarray, width: int, threads: int = 1) -> CipherTensor | PackedTensor:
    """The inverse of `pick` for bodies of `width` coefficients: zeros where nothing was kept."""
    if tensor.width != index.shape[2]:
        raise ProtocolError(f"the answer has {tensor.width} coefficients of each polynomial where {index.shape[2]} are read")
    return _moved(tensor, index, width, False, threads)


def _moved(tensor: CipherTensor | PackedTensor, index: np.ndarray, width: int, forward: bool, threads: int) -> CipherTensor | PackedTensor:
    if len(tensor.moduli) != 1:
        raise ProtocolError("coefficients are picked from answers modulo one prime")
    to = index.shape[2] if forward else width
    if isinstance(tensor, CipherTensor):
        return replace(tensor, body=_moved_array(tensor.body, index, to, forward))
    bits = tensor.moduli[0].bit_length()
    words = np.empty(tensor.count * tensor.columns * packed_words(to, bits), dtype=np.uint64)
    try:
        core().pick(tensor.body, words, index, tensor.count, tensor.columns, width, bits, cpu_level(), threads, forward)
    except (TypeError, ValueError) as error:
        raise refusal("coefficients to pick", error) from None
    return replace(tensor, body=words, width=to)


def _moved_array(body: np.ndarray, index: np.ndarray, to: int, forward: bool) -> np.ndarray:
    columns, count, limbs, _ = body.shape
    at = np.broadcast_to(index, (columns, count, index.shape[2]))[:, :, None]
    out = np.zeros((columns, count, limbs, to), dtype=body.dtype)
    if forward:
        out[...] = np.where(at >= 0, np.take_along_axis(body, np.maximum(at, 0), axis=3), 0)
    else:
        column, element, limb, kept = np.nonzero(at >= 0)
        out[column, element, limb, at[column, element, limb, kept]] = body[column, element, limb, kept]
    return out
