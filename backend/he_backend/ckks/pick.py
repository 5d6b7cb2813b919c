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

    Masks stay whole; decryption takes the index. Raises ProtocolError for a tensor under several primes.
    """
    if len(tensor.moduli) != 1:
        raise ProtocolError("coefficients are picked from answers modulo one prime")
    kept = index.shape[2]
    if isinstance(tensor, CipherTensor):
        at = np.broadcast_to(index, (tensor.columns, tensor.count, kept))[:, :, None]
        return replace(tensor, body=np.where(at >= 0, np.take_along_axis(tensor.body, np.maximum(at, 0), axis=3), np.uint64(0)))
    bits = tensor.moduli[0].bit_length()
    words = np.empty(tensor.count * tensor.columns * packed_words(kept, bits), dtype=np.uint64)
    try:
        core().pick(tensor.body, words, index, tensor.count, tensor.columns, tensor.width, bits, cpu_level(), threads)
    except (TypeError, ValueError) as error:
        raise refusal("coefficients to pick", error) from None
    return replace(tensor, body=words, width=kept)
