"""LinearMap: an integer matrix over the elements of a CipherTensor, kept as gathered blocks."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Iterator

import numpy as np

# Weights of at most 24 bits, sign included. Exact float64 sums need limb + log2(L1 norm of a row) <= 53 bits; a limb of 27 bits, sign
# included, leaves 27 bits for the norm before a row has to be cut into blocks.
MAX_WEIGHT_BITS = 24


@dataclass(frozen=True)
class LinearBlock:
    """out[scatter[g, p, m]] += sum over k of weights[g, k, m] * in[gather[g, p, k]]; gather -1 reads zero."""

    gather: np.ndarray  # int32 [groups, places, terms]
    weights: np.ndarray  # int32 [groups, terms, outs]
    scatter: np.ndarray  # int32 [groups, places, outs]

    @property
    def multiplications(self) -> int:
        """Scalar multiplications that applying it to one column takes."""
        return int(self.gather.shape[0] * self.gather.shape[1] * self.gather.shape[2] * self.weights.shape[2])


@dataclass(frozen=True)
class LinearMap:
    """An integer linear map from `in_count` to `out_count` elements: the sum of its blocks."""

    in_count: int
    out_count: int
    blocks: tuple[LinearBlock, ...]

    @property
    def multiplications(self) -> int:
        """Scalar multiplications of one application to one column."""
        return sum(block.multiplications for block in self.blocks)

    def norms(self, boundaries: tuple[int, ...]) -> np.ndarray:
        """int64 [out_count, len(boundaries)]: each row's L1 norm over the elements below each boundary and not below the one before.

        Boundaries are increasing element counts, the last one in_count.
        """
        total = np.zeros((self.out_count, len(boundaries)), dtype=np.int64)
        owner = np.searchsorted(np.asarray(boundaries), np.arange(self.in_count), side="right")
        for block in self.blocks:
            size = np.abs(block.weights.astype(np.int64))
            for source in range(len(boundaries)):
                mine = (block.gather >= 0) & (owner[block.gather] == source)
                if mine.any():
                    sums = np.matmul(mine.astype(np.float64), size.astype(np.float64)).astype(np.int64)
                    np.add.at(total[:, source], block.scatter.ravel(), sums.ravel())
        return total

    def rows(self) -> Iterator[tuple[int, np.ndarray, np.ndarray]]:
        """For each output element: its index, the input elements with a non-zero weight, and these weights (int64)."""
        columns = [[] for _ in range(self.out_count)]  # type: list[list[tuple[np.ndarray, np.ndarray]]]
        for block in self.blocks:
            groups, places, _ = block.gather.shape
            for g in range(groups):
                for p in range(places):
                    for m in range(block.weights.shape[2]):
                        columns[block.scatter[g, p, m]].append((block.gather[g, p], block.weights[g, :, m]))
        for out, parts in enumerate(columns):
            if not parts:
                yield out, np.zeros(0, np.int64), np.zeros(0, np.int64)
                continue
            index = np.concatenate([part[0] for part in parts]).astype(np.int64)
            weight = np.concatenate([part[1] for part in parts]).astype(np.int64)
            keep = index >= 0
            unique, inverse = np.unique(index[keep], return_inverse=True)
            sums = np.zeros(len(unique), dtype=np.int64)
            np.add.at(sums, inverse, weight[keep])
            yield out, unique[sums != 0], sums[sums != 0]


@dataclass(frozen=True)
class ShiftedMap:
    """A linear map over shifted elements: input i of `linear` is element elements[i] times X^-shifts[i], modulo X^N + 1.

    Of tensors narrower than the ring, only outputs that read within their width are meant.
    """

    in_count: int  # elements; linear.in_count is how many shifted ones there are
    elements: np.ndarray  # int32 [linear.in_count]
    shifts: np.ndarray  # int32 [linear.in_count], in [0, N)
    linear: LinearMap

    @property
    def out_count(self) -> int:
        """Elements that come out."""
        return self.linear.out_count

    def expanded(self, values: np.ndarray, degree: int) -> np.ndarray:
        """Signed values [in_count, columns, limbs, width] -> [linear.in_count, columns, limbs, width], wrapped around if the width is N."""
        width = values.shape[-1]
        out = np.zeros((self.linear.in_count, *values.shape[1:]), dtype=values.dtype)
        for i, (element, shift) in enumerate(zip(self.elements, self.shifts)):
            if shift < width:
                out[i, ..., : width - shift] = values[element][..., shift:]
            if width == degree and shift:
                out[i, ..., width - shift :] = -values[element][..., :shift]
        return out


def apply_blocks(linear: LinearMap, values: np.ndarray, tile_bytes: int = 1 << 26) -> np.ndarray:
    """values [in_count, ...] -> [out_count, ...] of the same dtype, by one matrix product per group and tile of places.

    The caller guarantees that no sum leaves the range in which the dtype is exact.
    """
    tail = values.shape[1:]
    flat = values.reshape(values.shape[0], -1)
    padded = np.concatenate([flat, np.zeros((1, flat.shape[1]), dtype=flat.dtype)])  # index -1 reads the row of zeros
    out = np.zeros((linear.out_count, flat.shape[1]), dtype=flat.dtype)
    for block in linear.blocks:
        groups, places, terms = block.gather.shape
        weights = block.weights.astype(flat.dtype).transpose(0, 2, 1)
        step = max(1, tile_bytes // max(1, groups * terms * flat.shape[1] * flat.itemsize))
        for start in range(0, places, step):
            gathered = padded[block.gather[:, start : start + step]]  # [groups, places, terms, columns]
            product = np.matmul(weights[:, None], gathered)
            index = block.scatter[:, start : start + step].ravel()
            product = product.reshape(len(index), flat.shape[1])
            if len(np.unique(index)) == len(index):
                out[index] += product
            else:
                np.add.at(out, index, product)
    return out.reshape((linear.out_count, *tail))
