"""Plans: program + parameters -> what the server keeps (ServerPlan) and what travels to the client (ClientPlan).

A plan proves, before any key is made, that every round fits its modulus; the client then picks each round's scale from the published
norms and the data's own size, so that overflow is impossible without any calibration (architecture, idea 5).
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any, Mapping, Sequence

from he_backend.ckks.engines import Traits, traits
from he_backend.ckks.linear import LinearMap
from he_backend.ckks.params import Params, check_params
from he_backend.errors import CapacityError, ParameterError
from he_backend.graph.affine import AffineMap, lower
from he_backend.graph.model import ValueSpec
from he_backend.graph.program import Program, Segment, Step
from he_backend.inference.quantise import Statistics, best_width, quantise, statistics

PACKINGS = ("batch",)
MIN_BITS, MAX_BITS, DEFAULT_BITS = 4, 24, 12
# The promise leaves 3 bits for the largest of many errors over the typical one, and for what client steps make of errors.
_MARGIN_BITS = 3.0
# With several rounds of about equal errors a round needs a bit more than the whole.
_ROUND_MARGIN_BITS = 1.0
_MAX_MODULUS_BITS = 62
# What 'auto' picks from: ring degree and bits of its one prime, cheapest first.
AUTO_LADDER = tuple((2048, size) for size in range(28, 55, 2)) + tuple((4096, size) for size in (56, 58, 60))


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


@dataclass(frozen=True)
class RoundPlan:
    """One round: which values go in and come out, at which level, and the numbers that relate integers to reals."""

    index: int
    inputs: tuple[str, ...]
    outputs: tuple[str, ...]
    packing: str
    level: int
    scales: tuple[float, ...]  # per output value: integer weight for a real weight of 1
    constant: float  # what the constant element holds; 0 when there is none
    norms: tuple[tuple[int, ...], ...]  # per output value and input value (then the constant): largest L1 norm of a row
    weight_bits: int
    expected_bits: float
    multiplications: int  # scalar multiplications per row


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
        this = self.rounds[index]
        return sum(self.size(name) for name in this.inputs) + (1 if this.constant else 0)

    def out_count(self, index: int) -> int:
        """Polynomials a column of round `index` receives."""
        return sum(self.size(name) for name in self.rounds[index].outputs)

    def modulus(self, index: int) -> int:
        """The product of the primes that round `index` uses."""
        return math.prod(self.params.moduli[: self.rounds[index].level])

    @property
    def traits(self) -> Traits:
        """Capacity and noise of the engine under these parameters."""
        return traits(self.engine, self.params)


@dataclass(frozen=True)
class ServerPlan:
    """The client's plan and the integer maps, which stay with the model owner."""

    client: ClientPlan
    maps: tuple[LinearMap, ...]


def make_plan(program: Program, model_id: str, model_name: str, spec: PlanSpec) -> ServerPlan:
    """The plan of a program under a spec.

    Raises ParameterError for an unknown packing or a precision outside 4 to 24 bits, CapacityError naming the round that does not fit.
    """
    if spec.packing not in (*PACKINGS, "auto"):
        raise ParameterError(f"packing: {spec.packing!r} is not known; allowed: auto, {', '.join(PACKINGS)}")
    if type(spec.bits) is not int or not MIN_BITS <= spec.bits <= MAX_BITS:
        raise ParameterError(f"bits: {spec.bits!r}; allowed: {MIN_BITS} to {MAX_BITS} bits of precision")
    affines = [lower(segment, program.shapes) for segment in program.segments]
    stats = [statistics(affine) for affine in affines]
    params = _auto_params(stats, spec) if spec.preset == "auto" else check_params(spec.preset, spec.preset_name, spec.allow_insecure)
    rounds: list[RoundPlan] = []
    maps: list[LinearMap] = []
    shapes: dict[str, tuple[int, ...]] = {}
    squares = 0.0
    for segment, affine, stat in zip(program.segments, affines, stats):
        shapes.update({name: tuple(program.shapes[name]) for name in segment.inputs + segment.outputs})
        this, linear, error = _plan_round(segment, affine, stat, params, spec)
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
        _promise(squares),
        program.public_constants,
    )
    return ServerPlan(client, tuple(maps))


def _auto_params(stats: Sequence[Sequence[Statistics]], spec: PlanSpec) -> Params:
    """The smallest ring and prime of the ladder whose promise reaches the bits wanted; the most precise of them if none does."""
    best, most = None, -math.inf
    for degree, size in AUTO_LADDER:
        literal = {"poly_modulus_degree": degree, "coeff_modulus": [size], "security_level": 128, "complex_packing": True}
        params = check_params(literal, f"auto_N{degree.bit_length() - 1}_{size}")
        factor = traits(spec.engine, params).noise_factor
        promise = _promise(sum(best_width(stat, params.moduli[0], factor)[1] ** 2 for stat in stats))
        if promise > most:
            best, most = params, promise
        if promise >= spec.bits:
            break
    assert best is not None
    return best


def _plan_round(
    segment: Segment, affine: AffineMap, stats: Sequence[Statistics], params: Params, spec: PlanSpec
) -> tuple[RoundPlan, LinearMap, float]:
    """The fewest primes that reach the precision wanted, or as many as help."""
    kind = traits(spec.engine, params)
    choice = (1, 0, math.inf)
    for level in range(1, len(params.moduli) + 1):
        modulus = math.prod(params.moduli[:level])
        if modulus.bit_length() > _MAX_MODULUS_BITS:
            break
        width, error = best_width(stats, modulus, kind.noise_factor)
        if error < choice[2]:
            choice = (level, width, error)
        if _promise(error**2) >= spec.bits + _ROUND_MARGIN_BITS:
            break
    level, width, _ = choice
    modulus = math.prod(params.moduli[:level])
    map_ = quantise(affine, width, modulus, kind.noise_factor)
    this = RoundPlan(
        segment.index,
        segment.inputs,
        segment.outputs,
        "batch",
        level,
        map_.scales,
        map_.constant,
        tuple(tuple(int(n) for n in row) for row in map_.norms),
        map_.weight_bits,
        _promise(map_.relative_error**2),
        map_.linear.multiplications,
    )
    if safe_scale(this, modulus, kind, tuple(1.0 for _ in segment.inputs)) < 1.0:
        raise CapacityError(
            f"round {segment.index} ({segment.name}): sums of its weights leave no room for values under preset {params.name} "
            f"({modulus.bit_length()} bits); take a preset with a larger modulus"
        )
    return this, map_.linear, map_.relative_error


def safe_scale(this: RoundPlan, modulus: int, kind: Traits, largest: tuple[float, ...]) -> float:
    """The largest scale under which round `this` cannot wrap around, for inputs of at most largest[i] in magnitude.

    A row of integer weights w turns scaled inputs m_i with errors e_i into sum(w_i (m_i + e_i)); with |m_i| <= growth * scale * max|x| that
    is below modulus / 2 when scale * growth * sum(norm_i * max|x_i|) + norm * max|e| < modulus / 2.
    """
    bound = math.inf
    for row in this.norms:
        reach = sum(norm * size for norm, size in zip(row, largest))
        if this.constant:
            reach += row[-1] * this.constant
        room = modulus / 2.0 * (1.0 - 2.0**-40) - 1.0 - sum(row) * kind.most_error
        if reach > 0.0:
            bound = min(bound, room / (reach * kind.growth))
    # Encoding rounds in float64: scaled inputs stay below 2^52 even where weights are tiny.
    peak = max([*largest, this.constant])
    return min(bound, min(modulus / 2.0, 2.0**52) * (1.0 - 2.0**-40) / (peak * kind.growth)) if peak > 0 else 1.0


def _promise(squared_error: float) -> float:
    """Bits of precision promised for a squared relative error; at most 52, as float64 has."""
    return round(min(52.0, -0.5 * math.log2(squared_error)) - _MARGIN_BITS, 2) if squared_error > 0 else 52.0
