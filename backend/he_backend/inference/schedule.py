"""How many rows go through the rounds together, and how many such chunks at a time, within a bound of memory."""

from __future__ import annotations

from dataclasses import dataclass

from he_backend.errors import CapacityError
from he_backend.inference.grid import GridLayout
from he_backend.inference.plan import ClientPlan

DEFAULT_MEMORY_BYTES = 1 << 29  # for the ciphertexts of the rounds under way, both parties together
# Columns of a chunk share the cost of their mask: four bring it to a quarter, more would bring little and take memory.
_ENOUGH_COLUMNS = 4
_MOST_CHUNK_ROWS = 8192
DEFAULT_LANES = 2  # one chunk at the server, one in the client's hands
_VALUE_BYTES = 32  # that both parties together hold of an encrypted or decrypted value


@dataclass(frozen=True)
class Schedule:
    """Rows of a chunk, and the chunks that are under way at a time."""

    rows: int
    lanes: int = 1

    def chunks(self, rows: int) -> int:
        """Chunks that so many rows make; one of none."""
        return max(1, -(-rows // self.rows))


def make_schedule(plan: ClientPlan, rows: int, memory_bytes: int = DEFAULT_MEMORY_BYTES, lanes: int = DEFAULT_LANES) -> Schedule:
    """Chunks of `rows` rows: whole columns, as many as each round may hold in memory_bytes, with up to `lanes` chunks at a time.

    Rows that would fit one chunk make several if these still have columns enough to share the cost of a mask.
    Raises CapacityError when one column is too many already.
    """
    kind = plan.traits
    of_polynomial = plan.params.ring_degree * _VALUE_BYTES
    sizes = [(plan.in_count(i) + plan.out_count(i)) * of_polynomial for i in range(len(plan.rounds))]  # of a column
    least = [size * plan.columns(i, 1) for i, size in enumerate(sizes)]
    if max(least, default=0) > memory_bytes and memory_bytes != DEFAULT_MEMORY_BYTES:
        raise CapacityError(
            f"memory: {memory_bytes} bytes were allowed, round {least.index(max(least))} needs {max(least)} at least; "
            "allow more, or take a preset with a smaller ring"
        )
    lanes = max(1, min(lanes, memory_bytes // max([1, *least])))
    room = memory_bytes // lanes
    fit = [_most_rows(plan, i, max(1, min(kind.most_columns, room // max(1, size)))) for i, size in enumerate(sizes)]
    most = min([*fit, max(_MOST_CHUNK_ROWS, kind.column_rows), kind.most_columns * kind.column_rows])
    enough = max([1, *(_most_rows(plan, i, _ENOUGH_COLUMNS) for i in range(len(sizes)))])
    whole = 1 if any(this.layout for this in plan.rounds) else kind.column_rows
    most = max(1, most // whole) * whole
    chunks = max(1, -(-rows // most), min(lanes, rows // enough))
    each = -(-rows // chunks)
    return Schedule(min(most, -(-each // whole) * whole), lanes)


def _most_rows(plan: ClientPlan, index: int, columns: int) -> int:
    """The most rows that round `index` takes in so many columns."""
    layout, degree = plan.rounds[index].layout, plan.params.ring_degree
    if isinstance(layout, GridLayout):
        return layout.rows(columns, degree)
    return columns if layout else columns * plan.traits.column_rows
