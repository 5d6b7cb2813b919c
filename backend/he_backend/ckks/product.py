"""ProductMap: sums of negacyclic products of polynomials with integer weight polynomials that have few coefficients."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Iterator

import numpy as np

from he_backend.ckks import sampling
from he_backend.ckks.bits import packed_words
from he_backend.ckks.clear import centered
from he_backend.ckks.params import Params
from he_backend.ckks.ring import core, refusal, shared_ring
from he_backend.ckks.tensor import CipherTensor, PackedTensor
from he_backend.ckks.weights import WeightRoom
from he_backend.errors import ProtocolError


@dataclass(frozen=True)
class ProductMap:
    """out[q] = sum over p of w[q][p] * in[p] modulo X^N + 1, for tensors whose columns are independent.

    Pair k is the weight polynomial from input inputs[k] to output outputs[k]: the sum of weights[i] X^index[i] for i from starts[k] to
    starts[k + 1]. Of every output only the first `width` coefficients are wanted.
    """

    degree: int
    in_count: int
    out_count: int
    width: int
    outputs: np.ndarray  # int32 [pairs]
    inputs: np.ndarray  # int32 [pairs]
    starts: np.ndarray  # int64 [pairs + 1]
    index: np.ndarray  # int32 [terms]
    weights: np.ndarray  # int32 [terms]

    @property
    def pairs(self) -> int:
        """Weight polynomials that are not zero: products of polynomials per column."""
        return len(self.outputs)

    def polynomials(self) -> Iterator[tuple[int, int, np.ndarray]]:
        """Output, input and int64 [N] coefficients of each weight polynomial."""
        for k in range(self.pairs):
            part = slice(int(self.starts[k]), int(self.starts[k + 1]))
            dense = np.zeros(self.degree, dtype=np.int64)
            np.add.at(dense, self.index[part], self.weights[part].astype(np.int64))
            yield int(self.outputs[k]), int(self.inputs[k]), dense

    def error_norms(self) -> tuple[np.ndarray, np.ndarray]:
        """Per output, int64 [out_count] the L1 norm and float64 [out_count] the squared L2 norm of all its weight polynomials.

        They bound what fresh errors, which sit in all coefficients of the inputs, add up to in any coefficient of an output.
        """
        l1, squares = np.zeros(self.out_count, dtype=np.int64), np.zeros(self.out_count)
        owner = np.repeat(self.outputs, np.diff(self.starts))
        size = np.abs(self.weights.astype(np.int64))
        np.add.at(l1, owner, size)
        np.add.at(squares, owner, size.astype(np.float64) ** 2)
        return l1, squares


def clear_product(tensor: CipherTensor, product: ProductMap) -> CipherTensor:
    """The map of an unencrypted tensor, by direct multiplication.

    Sums run modulo 2^64, so those that stay below half the modulus, as the plan sees to for all that is read, are exact.
    """
    if len(tensor.moduli) != 1 or tensor.count != product.in_count or tensor.width != product.degree:
        raise ProtocolError(f"this round computes on {product.in_count} whole polynomials modulo one number, not on {tensor!r}")
    modulus, n = tensor.moduli[0], product.degree
    values = centered(tensor.body, modulus)[:, :, 0]
    out = np.zeros((tensor.columns, product.out_count, product.width), dtype=np.int64)
    for target, source, weights in product.polynomials():
        for column in range(tensor.columns):
            whole = np.convolve(values[column, source], weights)
            whole[: n - 1] -= whole[n:]
            out[column, target] += whole[: product.width]
    body = np.mod(out, np.int64(modulus)).astype(np.uint64)[:, :, None]
    return tensor.with_parts(body, None)


class NativeProduct:
    """A ProductMap ready for ciphertexts of one level, its weights transformed; the answer is modulo answer_modulus.

    The products with the masks, which the columns share, are computed once for all of them.
    """

    def __init__(
        self, params: Params, product: ProductMap, level: int, answer_modulus: int, threads: int, room: WeightRoom | None = None
    ) -> None:
        self._ring, self._degree = shared_ring(params.ring_degree, params.moduli[:level]), params.ring_degree
        self._in_count, self._out_count, self._width = product.in_count, product.out_count, product.width
        self._answer_modulus, self._threads = answer_modulus, threads
        words = product.pairs * level * params.ring_degree
        storage = np.empty(words, dtype=np.uint64) if room is None else room.take(words)
        try:
            self._handle = core().Product(
                self._ring.handle,
                level,
                product.in_count,
                product.out_count,
                product.outputs,
                product.inputs,
                product.starts,
                product.index,
                product.weights,
                storage,
                threads,
            )
        except (TypeError, ValueError) as error:
            raise refusal("weight polynomials", error) from None

    def __call__(self, tensor: PackedTensor) -> PackedTensor:
        """Every column's products: bodies of the coefficients in use, whole masks, words modulo answer_modulus."""
        n = self._degree
        if tensor.count != self._in_count or tensor.ntt or tensor.moduli != self._ring.moduli or tensor.width != n or not tensor.seed:
            raise ProtocolError(f"this round computes on {self._in_count} fresh, whole polynomials in coefficient form, not on {tensor!r}")
        body = self._apply(tensor.body, False, tensor.columns, self._width)
        fresh = sampling.expand_masks(self._ring, tensor.seed, len(self._ring.moduli), 0, tensor.count)
        mask = self._apply(fresh, True, 1, n)
        modulus = (self._answer_modulus,)
        return PackedTensor(tensor.engine, n, modulus, False, tensor.columns, self._out_count, self._width, body, mask)

    def _apply(self, source: np.ndarray, transformed: bool, columns: int, width: int) -> np.ndarray:
        words = np.empty(columns * self._out_count * packed_words(width, self._answer_modulus.bit_length()), dtype=np.uint64)
        try:
            self._handle.apply(source, transformed, words, columns, width, self._answer_modulus, self._threads)
        except (TypeError, ValueError) as error:
            raise refusal("ciphertext arrays", error) from None
        return words
