"""Plans: program + parameters -> what the server keeps (ServerPlan) and what travels to the client (ClientPlan).

A plan proves, before any key is made, that every round fits its modulus; the client then picks each round's scale from the published
norms and the data's own size, so that overflow is impossible without any calibration (architecture, idea 5).
"""

from __future__ import annotations

import math
from dataclasses import dataclass, field
from typing import Any, Mapping, Sequence, Tuple, Union

import numpy as np

from he_backend.ckks.engines import RoundMap, Traits, answer_modulus, tensor_moduli, traits
from he_backend.ckks.params import Params
from he_backend.errors import ParameterError
from he_backend.graph.model import ValueSpec
from he_backend.graph.program import Step
from he_backend.inference.cost import Costs
from he_backend.inference.grid import GridLayout
from he_backend.inference.packing import ScaleRuns
from he_backend.inference.product import ProductLayout
from he_backend.inference.quantise import LARGEST_SCALED
from he_backend.inference.selection import Selection

PACKINGS = ("batch", "grid", "product")
GOALS = ("latency", "bytes")
MIN_BITS, MAX_BITS, DEFAULT_BITS = 4, 24, 12
Layout = Union[GridLayout, ProductLayout]
# Of each round, the packings that it could take and the nanoseconds that they are estimated to take.
Considered = Tuple[Tuple[Tuple[str, float], ...], ...]


@dataclass(frozen=True)
class PlanSpec:
    """What determines a plan, with the model: equal specs make equal plans, on any replica."""

    model: str  # id or name of the model
    engine: str
    preset: Mapping[str, Any] | str  # the preset's JSON literal, or 'auto'
    packing: str = "auto"
    bits: int = DEFAULT_BITS
    rows: int = 1  # that one inference is about; packings are chosen for it
    preset_name: str = "custom"
    allow_insecure: bool = False
    costs: Costs = field(default_factory=Costs)  # by which packings are chosen
    goal: str = "latency"  # what is to be least, of estimated time and bytes


@dataclass(frozen=True)
class RoundPlan:
    """One round: which values go in and come out, at which level, and the numbers that relate integers to reals."""

    index: int
    inputs: tuple[str, ...]
    outputs: tuple[str, ...]
    packing: str
    level: int
    scales: tuple[ScaleRuns, ...]  # per output value: integer weight for a real weight of 1
    constant: float  # what the constant element holds; 0 when there is none
    norms: tuple[tuple[int, ...], ...]  # per output value and input value (then the constant): largest L1 norm of a row
    weight_bits: int
    answer_bits: int  # size of the modulus that the answer is switched to; 0 when it stays modulo the round's primes
    expected_bits: float
    multiplications: int  # scalar multiplications per row
    layout: Layout | None = None  # of grid and product packing
    in_scales: tuple[ScaleRuns, ...] = ()  # per input value: what its elements are multiplied by before encryption; (): by 1
    errors: tuple[tuple[float, float], ...] = ()  # per output value: an error's size, see quantise.absolute_errors


@dataclass(frozen=True)
class ClientPlan:
    """All that the data owner needs: shapes, layouts, norms and steps; no weights."""

    model_id: str
    model_name: str
    engine: str
    params: Params
    inputs: tuple[ValueSpec, ...]
    outputs: tuple[ValueSpec, ...]
    shapes: Mapping[str, tuple[int, ...]]  # of every value that goes into or comes out of a round, per row
    rounds: tuple[RoundPlan, ...]
    steps: tuple[Step, ...]  # step i before round i, the last one after the last round
    expected_bits: float  # promised at the output: never more than is reached
    public_constants: tuple[str, ...] = ()

    def size(self, name: str) -> int:
        """Elements per row of a value."""
        return math.prod(self.shapes[name])

    def in_count(self, index: int) -> int:
        """Polynomials a column of round `index` sends."""
        layout = self.rounds[index].layout
        return layout.in_count if layout else self.in_elements(index)

    def in_elements(self, index: int) -> int:
        """Values of a row that round `index` sends, the constant among them."""
        this = self.rounds[index]
        return sum(self.size(name) for name in this.inputs) + (1 if this.constant else 0)

    def out_count(self, index: int) -> int:
        """Polynomials a column of round `index` receives."""
        layout = self.rounds[index].layout
        return layout.out_count if layout else self.out_elements(index)

    def columns(self, index: int, rows: int) -> int:
        """Columns that round `index` takes for `rows` rows."""
        layout, degree = self.rounds[index].layout, self.params.ring_degree
        if isinstance(layout, GridLayout):
            return layout.columns(rows, degree)
        return rows if layout else -(-rows // self.traits.column_rows)

    def sent_width(self, index: int, rows: int) -> int:
        """Coefficients of each polynomial that round `index` sends for `rows` rows."""
        layout, degree = self.rounds[index].layout, self.params.ring_degree
        if isinstance(layout, GridLayout):
            return layout.width(rows, degree)
        return degree if layout or self.engine == "seal" or self.columns(index, rows) > 1 else rows

    def answer_width(self, index: int, rows: int) -> int:
        """Coefficients of each polynomial that the server computes for an answer."""
        layout = self.rounds[index].layout
        return layout.width if isinstance(layout, ProductLayout) else self.sent_width(index, rows)

    def selection(self, index: int) -> Selection | None:
        """Which of an answer's coefficients come back; None: all."""
        layout = self.rounds[index].layout
        return Selection(layout, self.params.ring_degree) if layout else None

    def out_elements(self, index: int) -> int:
        """Values of a row that round `index` receives."""
        return sum(self.size(name) for name in self.rounds[index].outputs)

    def modulus(self, index: int) -> int:
        """The product of the primes that round `index` uses."""
        return math.prod(self.params.moduli[: self.rounds[index].level])

    def sent_moduli(self, index: int) -> tuple[int, ...]:
        """The moduli of the tensor that round `index` sends."""
        return tensor_moduli(self.engine, self.params.moduli[: self.rounds[index].level])

    def answer_moduli(self, index: int) -> tuple[int, ...]:
        """The moduli of the tensor that round `index` gets back."""
        bits = self.rounds[index].answer_bits
        return (answer_modulus(self.params.ring_degree, bits, self.modulus(index)),) if bits else self.sent_moduli(index)

    def answer_scale(self, index: int) -> float:
        """What switching the answer's modulus does to its scale: 1 without it."""
        return math.prod(self.answer_moduli(index)) / self.modulus(index)

    @property
    def traits(self) -> Traits:
        """Capacity and noise of the engine under these parameters."""
        return traits(self.engine, self.params)


@dataclass(frozen=True)
class ServerPlan:
    """The client's plan and the integer maps, which stay with the model owner."""

    client: ClientPlan
    maps: tuple[RoundMap, ...]
    considered: Considered


def check_bits(bits: Any) -> int:
    """The precision wanted; raises ParameterError when it is outside what can be planned for."""
    if type(bits) is not int or not MIN_BITS <= bits <= MAX_BITS:
        raise ParameterError(f"bits: {bits!r}; allowed: {MIN_BITS} to {MAX_BITS} bits of precision")
    return bits


def rows_class(rows: int) -> int:
    """The number of rows that packings are chosen for: the next power of two, so that few plans serve all requests."""
    return 1 << max(0, rows - 1).bit_length()


def safe_scale(this: RoundPlan, modulus: int, kind: Traits, ring_degree: int, largest: Sequence[float]) -> float:
    """safe_scales of one row."""
    return float(safe_scales(this, modulus, kind, ring_degree, np.array([largest], np.float64))[0])


def safe_scales(this: RoundPlan, modulus: int, kind: Traits, ring_degree: int, largest: np.ndarray) -> np.ndarray:
    """[rows] the largest scales under which round `this` cannot wrap around, for inputs [rows, inputs] of at most that magnitude.

    A row of integer weights w turns scaled inputs m_i with errors e_i into sum(w_i (m_i + e_i)); with |m_i| <= growth * scale * max|x_i|
    that is below modulus / 2 when scale * growth * sum(norm_i * max|x_i|) + norm * max|e| < modulus / 2. Switching the answer to p adds
    at most half for the body and half for each coefficient of the mask, times modulus / p. Under product packing the values that meet in
    a coefficient are the same, but errors sit in all coefficients: they meet all weights of the answer's polynomial, layout.error_norm.
    Of a row that is all zeros any scale holds the values; it gets that of ones, so that its errors are as small.
    """
    if not this.constant:
        largest = np.where(largest.max(axis=1, initial=0.0)[:, None] > 0.0, largest, 1.0)
    switching = (1.0 + ring_degree) / 2.0 * 1.01 * modulus / 2.0 ** (this.answer_bits - 1) if this.answer_bits else 0.0
    peak = np.maximum(largest.max(axis=1, initial=0.0), this.constant)
    bound = min(modulus / 2.0 - kind.most_error - 2.0, LARGEST_SCALED) * (1.0 - 2.0**-40) / (peak * kind.growth)
    for row in this.norms:
        reach = largest @ np.array(row[: largest.shape[1]], np.float64) + (row[-1] * this.constant if this.constant else 0.0)
        errors = max(sum(row), this.layout.error_norm) if isinstance(this.layout, ProductLayout) else sum(row)
        room = modulus / 2.0 * (1.0 - 2.0**-40) - 1.0 - errors * kind.most_error - switching
        bound = np.minimum(bound, np.divide(room, reach * kind.growth, out=np.full(len(reach), math.inf), where=reach > 0.0))
    return bound
