"""The general way: affine expressions as sparse matrices, multiplied, and cut into blocks again."""

from __future__ import annotations

from typing import Any, Iterable, Sequence

import numpy as np
from scipy import sparse

from he_backend.errors import CapacityError
from he_backend.graph.affine import Block

MAX_NONZEROS = 1 << 24  # about 400 MB while it is worked on


def check_size(nonzeros: int, what: str) -> None:
    """Raises CapacityError when a matrix would be too large to build."""
    if nonzeros > MAX_NONZEROS:
        raise CapacityError(f"{what} needs a matrix of {nonzeros} nonzeros, more than {MAX_NONZEROS}; make its layers smaller")


def matrix_of(blocks: Iterable[Block], rows: int, columns: int) -> Any:
    """The blocks as one CSR matrix [rows, columns]; blocks add up."""
    blocks = list(blocks)
    check_size(sum(block.nonzeros for block in blocks), "a composed layer")
    parts: list[list[np.ndarray]] = [[], [], []]
    for block in blocks:
        shape = (*block.gather.shape, block.weights.shape[2])  # [G, P, K, M]
        kept = np.broadcast_to((block.gather >= 0)[..., None], shape)
        parts[0].append(np.broadcast_to(block.scatter[:, :, None, :], shape)[kept])
        parts[1].append(np.broadcast_to(block.gather[..., None], shape)[kept])
        parts[2].append(np.broadcast_to(block.weights[:, None], shape)[kept])
    if not blocks:
        return sparse.csr_matrix((rows, columns))
    row, column, value = (np.concatenate(part) for part in parts)
    return sparse.coo_matrix((value, (row, column)), shape=(rows, columns)).tocsr()


def blocks_of(matrix: Any, source: int) -> list[Block]:
    """The matrix as blocks: rows that read the same columns become one group; groups of one size become one block."""
    matrix = matrix.tocsr()
    matrix.sum_duplicates()
    matrix.eliminate_zeros()
    matrix.sort_indices()
    lengths = np.diff(matrix.indptr)
    blocks = []
    for length in np.unique(lengths[lengths > 0]):
        rows = np.flatnonzero(lengths == length)
        places = matrix.indptr[rows][:, None] + np.arange(length)[None]
        columns, values = matrix.indices[places], matrix.data[places]
        patterns, member = np.unique(columns, axis=0, return_inverse=True)
        blocks += _grouped(source, rows, columns, values, patterns, np.asarray(member).ravel())
    return blocks


def _grouped(
    source: int, rows: np.ndarray, columns: np.ndarray, values: np.ndarray, patterns: np.ndarray, member: np.ndarray
) -> list[Block]:
    """One block per number of rows that share a pattern."""
    shared = np.bincount(member, minlength=len(patterns))
    order = np.argsort(member, kind="stable")
    starts = np.concatenate([[0], np.cumsum(shared)[:-1]])
    blocks = []
    for count in np.unique(shared):
        chosen = np.flatnonzero(shared == count)
        places = order[starts[chosen][:, None] + np.arange(count)[None]]  # [G, M]
        blocks.append(
            Block(
                source,
                patterns[chosen][:, None, :].astype(np.int32),
                np.ascontiguousarray(values[places].swapaxes(1, 2), np.float64),  # [G, K, M]
                rows[places][:, None, :].astype(np.int32),
            )
        )
    return blocks


def compose(outer: Sequence[Block], inner: Sequence[Block], middle: int, out: int, in_sizes: Sequence[int]) -> list[Block]:
    """outer ∘ inner as blocks: `outer` reads the `middle` elements that `inner` writes from the segment inputs."""
    left = matrix_of(outer, out, middle)
    blocks = []
    for source in sorted({block.source for block in inner}):
        right = matrix_of([b for b in inner if b.source == source], middle, in_sizes[source])
        blocks += blocks_of(left @ right, source)
    return blocks
