"""Plans: program + parameters -> what the server keeps (ServerPlan) and what travels to the client (ClientPlan).

A plan proves, before any key is made, that every round fits its modulus; the client then picks each round's scale from the published
norms and the data's own size, so that overflow is impossible without any calibration (architecture, idea 5).
"""

from __future__ import annotations

import functools
import math
from dataclasses import dataclass, field
from typing import Any, Callable, Mapping, NamedTuple, Sequence, Tuple, Union

import numpy as np

from he_backend.ckks.engines import RoundMap, Traits, answer_modulus, tensor_moduli, traits
from he_backend.ckks.exact_linear import MAX_ANSWER_BITS
from he_backend.ckks.linear import MAX_WEIGHT_BITS
from he_backend.ckks.params import Params, check_params
from he_backend.errors import CapacityError, EngineError, ParameterError
from he_backend.graph.affine import AffineMap, lower
from he_backend.graph.model import ValueSpec
from he_backend.graph.program import Program, Segment, Step
from he_backend.inference.choice import BATCH, COEFFICIENT_ENGINES, Option, Packing, all_options, worth_taking
from he_backend.inference.cost import Costs
from he_backend.inference.grid import GridLayout, lay_out_grid
from he_backend.inference.packing import ScaleRuns
from he_backend.inference.product import ProductLayout, lay_out
from he_backend.inference.quantise import LARGEST_SCALED, Noise, QuantisedMap, Statistics, best_width, quantise, relative_error, statistics
from he_backend.inference.selection import Selection
from he_backend.inference.structure import Structure, find_structure

PACKINGS = ("batch", "grid", "product")
MIN_BITS, MAX_BITS, DEFAULT_BITS = 4, 24, 12
# The promise leaves 2 bits for the largest of many errors over the typical one, and more where a client step makes errors larger: one
# that raises to powers by the size of the exponents, one that divides (a normalisation of rows that vary little) by the divisor.
_MARGIN_BITS, _POWER_MARGIN_BITS, _DIVISION_MARGIN_BITS = 2.0, 1.0, 5.0
_POWERS = frozenset({"Softmax", "LogSoftmax", "Exp", "Pow"})
_DIVISIONS = frozenset(
    {"LayerNormalization", "InstanceNormalization", "GroupNormalization", "MeanVarianceNormalization", "LpNormalization", "LRN", "Div"}
    | {"Reciprocal", "Log", "Sqrt"}
)
_MOST_BITS = 52.0
_SPARE_BITS = 0.1  # that a smaller answer may cost
# Primes that are 1 modulo 2N exist from a few bits above the size of 2N on.
_SPARE_ANSWER_BITS = 6
# What 'auto' picks from: ring degree and bits of its one prime, cheapest first.
AUTO_LADDER = tuple((2048, size) for size in range(28, 55)) + tuple((4096, size) for size in range(55, 61))


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
        return (answer_modulus(self.params.ring_degree, bits),) if bits else self.sent_moduli(index)

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


def make_plan(program: Program, model_id: str, model_name: str, spec: PlanSpec) -> ServerPlan:
    """The plan of a program under a spec.

    Raises ParameterError for an unknown packing or a precision outside 4 to 24 bits, CapacityError naming the round that does not fit.
    """
    if spec.packing not in (*PACKINGS, "auto"):
        raise ParameterError(f"packing: {spec.packing!r} is not known; allowed: auto, {', '.join(PACKINGS)}")
    if type(spec.bits) is not int or not MIN_BITS <= spec.bits <= MAX_BITS:
        raise ParameterError(f"bits: {spec.bits!r}; allowed: {MIN_BITS} to {MAX_BITS} bits of precision")
    if spec.packing in ("grid", "product") and spec.engine not in COEFFICIENT_ENGINES:
        raise EngineError(
            f"packing {spec.packing!r} needs engine {' or '.join(COEFFICIENT_ENGINES)}, not {spec.engine!r}; take packing auto or batch"
        )
    affines = [lower(segment, program.shapes) for segment in program.segments]
    stats = [statistics(affine) for affine in affines]
    margin = _step_margin(program)
    due = spec.bits + margin
    structures = [_structure(segment, affine, program, spec) for segment, affine in zip(program.segments, affines)]
    rows = rows_class(spec.rows)

    @functools.lru_cache(maxsize=None)
    def every_option(degree: int) -> list[list[Option]]:
        return [all_options(*parts, degree, spec.engine, rows, spec.costs) for parts in zip(affines, structures, stats)]

    def options_at(degree: int) -> list[tuple[Option, ...]]:
        return [worth_taking(every, spec.packing) for every in every_option(degree)]

    if spec.preset == "auto":
        params = _auto_params(stats, options_at, spec, due)
    else:
        params = check_params(spec.preset, spec.preset_name, spec.allow_insecure)
    packings, choices = _choose_within(stats, options_at(params.ring_degree), params, spec, due)
    rounds: list[RoundPlan] = []
    maps: list[RoundMap] = []
    shapes: dict[str, tuple[int, ...]] = {}
    squares = 0.0
    for segment, affine, stat, structure, packing, choice in zip(program.segments, affines, stats, structures, packings, choices):
        shapes.update({name: tuple(program.shapes[name]) for name in segment.inputs + segment.outputs})
        this, linear, error = _plan_round(segment, affine, stat, structure, packing, choice, params, spec, due + _share(len(stats)))
        rounds.append(this)
        maps.append(linear)
        squares += error**2
    client = ClientPlan(
        model_id,
        model_name,
        spec.engine,
        params,
        program.inputs,
        program.outputs,
        shapes,
        tuple(rounds),
        program.steps,
        _promise(squares) - margin,
        program.public_constants,
    )
    considered = tuple(
        tuple((name, min(one.nanoseconds for one in every if one.packing.name == name)) for name in _names(every))
        for every in every_option(params.ring_degree)
    )
    return ServerPlan(client, tuple(maps), considered)


def _names(options: Sequence[Option]) -> list[str]:
    return list(dict.fromkeys(option.packing.name for option in options))


def _step_margin(program: Program) -> float:
    """Bits that client steps after the first round may cost."""
    ops = {op for step in program.steps[1:] for op in step.ops}
    return (_POWER_MARGIN_BITS if ops & _POWERS else 0.0) + (_DIVISION_MARGIN_BITS if ops & _DIVISIONS else 0.0)


def rows_class(rows: int) -> int:
    """The number of rows that packings are chosen for: the next power of two, so that few plans serve all requests."""
    return 1 << max(0, rows - 1).bit_length()


def _structure(segment: Segment, affine: AffineMap, program: Program, spec: PlanSpec) -> Structure | None:
    if spec.packing == "batch" or spec.engine not in COEFFICIENT_ENGINES:
        return None
    return find_structure(affine, [tuple(program.shapes[name]) for name in segment.inputs])


def _auto_params(
    stats: Sequence[Sequence[Statistics]], options_at: Callable[[int], Sequence[Sequence[Option]]], spec: PlanSpec, due: float
) -> Params:
    """The smallest ring and prime of the ladder whose promise reaches the bits wanted; the most precise of them if none does."""
    best, most = None, -math.inf
    degrees = sorted({degree for degree, _ in AUTO_LADDER})
    packings = {degree: [options[0].packing for options in options_at(degree)] for degree in degrees}
    for single in (True, False):  # weights that the engine computes at once cost half
        for degree, size in AUTO_LADDER:
            literal = {"poly_modulus_degree": degree, "coeff_modulus": [size], "security_level": 128, "complex_packing": True}
            params = check_params(literal, f"auto_N{degree.bit_length() - 1}_{size}")
            kind = traits(spec.engine, params)
            promise = _total_promise([_choice(stat, packing, params, kind, due, single) for stat, packing in zip(stats, packings[degree])])
            if promise > most:
                best, most = params, promise
            if promise >= due + _SPARE_BITS:
                return params
    assert best is not None
    return best


class _Choice(NamedTuple):
    """Primes and weight width of one round, and the relative error that they lead to."""

    level: int
    width: int
    error: float


def _choose_within(
    stats: Sequence[Sequence[Statistics]], options: Sequence[Sequence[Option]], params: Params, spec: PlanSpec, due: float
) -> tuple[list[Packing], list[_Choice]]:
    """Packings and choices: the cheapest packings, and where they miss the precision wanted, quieter ones.

    Rounds are made quieter one by one, each time the one that gains most for what it costs, until the precision is reached or comes to
    half a bit less than the quietest packings would have.
    """
    taken = [0] * len(options)

    def packings() -> list[Packing]:
        return [mine[at].packing for mine, at in zip(options, taken)]

    choices = _choose(stats, packings(), params, spec, due)
    if _total_promise(choices) >= due or all(len(mine) == 1 for mine in options):
        return packings(), choices
    kind, goal = traits(spec.engine, params), due + _share(len(stats)) + _SPARE_BITS
    errors = [[_choice(stat, one.packing, params, kind, goal, False).error ** 2 for one in mine] for stat, mine in zip(stats, options)]
    enough = max(2.0 ** (-2.0 * (due + _MARGIN_BITS)), 2.0 * sum(min(mine) for mine in errors))
    while sum(mine[at] for mine, at in zip(errors, taken)) > enough:
        better = [
            ((errors[i][taken[i]] - errors[i][to]) / (options[i][to].nanoseconds - options[i][taken[i]].nanoseconds + 1.0), i, to)
            for i in range(len(options))
            for to in range(taken[i] + 1, len(options[i]))
            if errors[i][to] < errors[i][taken[i]]
        ]
        if not better:
            break
        _, i, to = max(better)
        taken[i] = to
    return packings(), _choose(stats, packings(), params, spec, due)


def _choose(
    stats: Sequence[Sequence[Statistics]], packings: Sequence[Packing], params: Params, spec: PlanSpec, due: float
) -> list[_Choice]:
    """The cheapest choices that reach what is due over all rounds; the most precise ones if none do."""
    kind = traits(spec.engine, params)
    goal = due + _share(len(stats)) + _SPARE_BITS
    ways = [[_choice(stat, packing, params, kind, goal, single) for stat, packing in zip(stats, packings)] for single in (True, False)]
    for choices in ways:
        if _total_promise(choices) >= due + _SPARE_BITS:
            return choices
    return max(ways, key=_total_promise)


def _choice(stats: Sequence[Statistics], packing: Packing, params: Params, kind: Traits, goal: float, single: bool) -> _Choice:
    """The fewest primes that reach the goal, or as many as help; `single` keeps weights to what the engine computes at once."""
    most_bits = kind.single_weight_bits if single else MAX_WEIGHT_BITS
    best = _Choice(1, 0, math.inf)
    for level in range(1, len(params.moduli) + 1):
        modulus = math.prod(params.moduli[:level])
        if modulus.bit_length() > kind.most_modulus_bits:
            break
        width, error = best_width(stats, modulus, _noise(kind, params, modulus.bit_length(), packing), most_bits)
        if error < best.error:
            best = _Choice(level, width, error)
        if _promise(error**2) >= goal:
            break
    return best


def _share(rounds: int) -> float:
    """Bits by which each of several equal rounds must be better than the whole: their errors add up like independent ones."""
    return 0.5 * math.log2(max(1, rounds))


def _total_promise(choices: Sequence[_Choice]) -> float:
    return _promise(sum(choice.error**2 for choice in choices))


def _plan_round(
    segment: Segment,
    affine: AffineMap,
    stats: Sequence[Statistics],
    structure: Structure | None,
    packing: Packing,
    choice: _Choice,
    params: Params,
    spec: PlanSpec,
    due: float,
) -> tuple[RoundPlan, RoundMap, float]:
    """One round, its integer map, and the relative error to expect."""
    kind = traits(spec.engine, params)
    level, width, _ = choice
    modulus = math.prod(params.moduli[:level])
    answer_bits, error = _answer_bits(stats, packing, width, modulus, kind, params, due)
    map_ = quantise(affine, width)
    linear: RoundMap = map_.linear
    layout: Layout | None = None
    if structure is not None and packing is not BATCH:
        laid = _lay_out(structure, packing, map_)
        if laid is None:
            return _plan_round(segment, affine, stats, None, BATCH, choice, params, spec, due)
        layout, linear = laid
    this = RoundPlan(
        segment.index,
        segment.inputs,
        segment.outputs,
        packing.name,
        level,
        tuple(_runs(scales) for scales in map_.scales),
        map_.constant,
        tuple(tuple(int(n) for n in row) for row in map_.norms),
        map_.weight_bits,
        answer_bits,
        _promise(error**2),
        map_.linear.multiplications,
        layout,
    )
    if safe_scale(this, modulus, kind, params.ring_degree, tuple(1.0 for _ in segment.inputs)) < 1.0:
        if layout is not None and spec.packing == "auto":
            return _plan_round(segment, affine, stats, None, BATCH, choice, params, spec, due)
        raise CapacityError(
            f"round {segment.index} ({segment.name}): sums of its weights leave no room for values under preset {params.name} "
            f"({modulus.bit_length()} bits); take a preset with a larger modulus"
        )
    return this, linear, error


def _lay_out(structure: Structure, packing: Packing, map_: QuantisedMap) -> tuple[Layout, RoundMap] | None:
    values = sum(map_.in_sizes)
    if packing.blocking is None:
        return lay_out_grid(structure, map_.linear, values)
    return lay_out(structure, packing.blocking, map_.linear, values)


def _noise(kind: Traits, params: Params, modulus_bits: int, packing: Packing) -> Noise:
    """The noise of rounds whose answers are switched to as many bits as can be."""
    factor = kind.noise_factor * packing.noise_factor
    if not kind.switches:
        return Noise(factor)
    return Noise(factor, params.ring_degree, answer_modulus(params.ring_degree, min(MAX_ANSWER_BITS, modulus_bits)))


def _answer_bits(
    stats: Sequence[Statistics], packing: Packing, width: int, modulus: int, kind: Traits, params: Params, due: float
) -> tuple[int, float]:
    """The smallest answer that keeps the precision wanted, or costs a tenth of a bit of what there is; and the error it leads to."""

    def error(noise: Noise) -> float:
        return max((relative_error(stat, width, modulus, noise) for stat in stats), default=0.0)

    largest = _noise(kind, params, modulus.bit_length(), packing)
    if not kind.switches:
        return 0, error(largest)
    top = min(MAX_ANSWER_BITS, modulus.bit_length())
    due = min(due, _promise(error(largest) ** 2) - _SPARE_BITS)
    for size in range(params.ring_degree.bit_length() + _SPARE_ANSWER_BITS, top):
        found = error(Noise(largest.factor, params.ring_degree, answer_modulus(params.ring_degree, size)))
        if _promise(found**2) >= due:
            return size, found
    return top, error(largest)


def safe_scale(this: RoundPlan, modulus: int, kind: Traits, ring_degree: int, largest: tuple[float, ...]) -> float:
    """The largest scale under which round `this` cannot wrap around, for inputs of at most largest[i] in magnitude.

    A row of integer weights w turns scaled inputs m_i with errors e_i into sum(w_i (m_i + e_i)); with |m_i| <= growth * scale * max|x_i|
    that is below modulus / 2 when scale * growth * sum(norm_i * max|x_i|) + norm * max|e| < modulus / 2. Switching the answer to p adds
    at most half for the body and half for each coefficient of the mask, times modulus / p. Under product packing the values that meet in
    a coefficient are the same, but errors sit in all coefficients: they meet all weights of the answer's polynomial, layout.error_norm.
    """
    switching = (1.0 + ring_degree) / 2.0 * 1.01 * modulus / 2.0 ** (this.answer_bits - 1) if this.answer_bits else 0.0
    bound = math.inf
    for row in this.norms:
        reach = sum(norm * size for norm, size in zip(row, largest))
        if this.constant:
            reach += row[-1] * this.constant
        errors = max(sum(row), this.layout.error_norm) if isinstance(this.layout, ProductLayout) else sum(row)
        room = modulus / 2.0 * (1.0 - 2.0**-40) - 1.0 - errors * kind.most_error - switching
        if reach > 0.0:
            bound = min(bound, room / (reach * kind.growth))
    peak = max([*largest, this.constant])
    return min(bound, min(modulus / 2.0, LARGEST_SCALED) * (1.0 - 2.0**-40) / (peak * kind.growth)) if peak > 0 else 1.0


def _runs(scales: np.ndarray) -> ScaleRuns:
    """Equal neighbours as (how many, scale)."""
    starts = np.flatnonzero(np.concatenate([[True], scales[1:] != scales[:-1]])) if len(scales) else np.zeros(0, int)
    counts = np.diff(np.append(starts, len(scales)))
    return tuple((int(count), float(scales[start])) for start, count in zip(starts, counts))


def _promise(squared_error: float) -> float:
    """Bits of precision promised for a squared relative error; at most 52, as float64 has."""
    return round(min(_MOST_BITS, -0.5 * math.log2(squared_error)) - _MARGIN_BITS, 2) if squared_error > 0 else _MOST_BITS
