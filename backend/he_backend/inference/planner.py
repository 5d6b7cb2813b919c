"""The planner: packing, ring and primes of every round, so that the bits wanted are reached for the least estimated time or bytes."""

from __future__ import annotations

import math
from typing import Callable, Mapping, NamedTuple, Sequence

import numpy as np

from he_backend.ckks.engines import RoundMap, traits
from he_backend.ckks.params import Params, check_params
from he_backend.errors import CapacityError, EngineError, ParameterError
from he_backend.graph.affine import AffineMap, lower
from he_backend.graph.program import Program, Segment
from he_backend.inference.balance import balance
from he_backend.inference.choice import BATCH, COEFFICIENT_ENGINES, Option, Packing, all_options, worth_taking
from he_backend.inference.grid import lay_out_grid
from he_backend.inference.packing import ScaleRuns
from he_backend.inference.plan import (
    GOALS,
    PACKINGS,
    ClientPlan,
    Layout,
    PlanSpec,
    RoundPlan,
    ServerPlan,
    check_bits,
    rows_class,
    safe_scale,
)
from he_backend.inference.precision import (
    MARGIN_BITS,
    SPARE_BITS,
    Choice,
    choose,
    choose_answer,
    choose_answers,
    choose_round,
    noise_of,
    promise,
    share,
    step_margin,
    total_promise,
)
from he_backend.inference.probe import probe_of
from he_backend.inference.product import lay_out
from he_backend.inference.quantise import QuantisedMap, Statistics, absolute_errors, quantise, statistics
from he_backend.inference.structure import Structure, find_structure

# What 'auto' picks from: ring degree, and bits of its one prime.
AUTO_LADDER = {2048: tuple(range(28, 55)), 4096: tuple(range(55, 61))}
_MOST_PRIME_BITS = 54  # that estimates are made for: a round under a preset of many primes takes about as many as make this
_HARDLY_BITS = 0.5  # of promise that are not worth a dearer ring where the bits wanted are out of reach
_OptionsAt = Callable[[int, int], Sequence[Sequence[Option]]]


def make_plan(program: Program, model_id: str, model_name: str, spec: PlanSpec) -> ServerPlan:
    """The plan of a program under a spec.

    Raises ParameterError for an unknown packing or goal, a precision outside 4 to 24 bits, or primes too small for any precision,
    CapacityError naming the round that does not fit.
    """
    if spec.packing not in (*PACKINGS, "auto"):
        raise ParameterError(f"packing: {spec.packing!r} is not known; allowed: auto, {', '.join(PACKINGS)}")
    check_bits(spec.bits)
    if spec.goal not in GOALS:
        raise ParameterError(f"minimise: {spec.goal!r} is not known; allowed: {', '.join(GOALS)}")
    if spec.packing in ("grid", "product") and spec.engine not in COEFFICIENT_ENGINES:
        raise EngineError(
            f"packing {spec.packing!r} needs engine {' or '.join(COEFFICIENT_ENGINES)}, not {spec.engine!r}; take packing auto or batch"
        )
    due = spec.bits + step_margin(program)
    params = None if spec.preset == "auto" else check_params(spec.preset, spec.preset_name, spec.allow_insecure)
    degrees = tuple(AUTO_LADDER) if params is None else (params.ring_degree,)
    # What is known of each element is dropped here and found again below: of a large network it takes more memory than the whole plan.
    surveys = [_survey(segment, program, spec, degrees) for segment in program.segments]
    stats = [survey.stats for survey in surveys]

    def options_at(degree: int, prime_bits: int) -> list[tuple[Option, ...]]:
        return [worth_taking(survey.options[degree], spec.packing, spec.goal, prime_bits) for survey in surveys]

    if params is None:
        params = _auto_params(stats, options_at, spec, due)
    probe_of(spec.engine, params)  # refused here, where every way to plan comes by, before anything is asked of a server
    prime_bits = _prime_bits(params)
    packings, choices = _choose_within(stats, options_at(params.ring_degree, prime_bits), params, spec, due)
    rounds: list[RoundPlan] = []
    maps: list[RoundMap] = []
    shapes: dict[str, tuple[int, ...]] = {}
    squares = 0.0
    kind = traits(spec.engine, params)
    answers = choose_answers(stats, packings, choices, params, kind, due)
    ways = [_Way(*way) for way in zip(packings, choices, answers)]
    for segment, stat, way in zip(program.segments, stats, ways):
        shapes.update({name: tuple(program.shapes[name]) for name in segment.inputs + segment.outputs})
        this, linear, error = _plan_round(segment, program, stat, way, params, spec)
        rounds.append(this)
        maps.append(linear)
        squares += error**2
    _need_precision(squares, params, spec)
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
        promise(squares) - step_margin(program),
        program.public_constants,
    )
    considered = tuple(_considered(survey.options[params.ring_degree], prime_bits) for survey in surveys)
    return ServerPlan(client, tuple(maps), considered)


def _need_precision(squared_error: float, params: Params, spec: PlanSpec) -> None:
    """Raises ParameterError where the noise is too near to the outputs' own size for predictions to mean anything."""
    if promise(squared_error) >= 0.0:
        return
    errors = f"errors of about {math.sqrt(squared_error):.0%} of the outputs' size are to be expected with engine {spec.engine!r}"
    if spec.preset == "auto":
        raise ParameterError(f"preset auto: nothing that it picks from gives this network a usable precision: {errors}; split the network")
    raise ParameterError(
        f"preset {params.name}: coeff_modulus: {list(params.coeff_bits)} gives this network no usable precision: {errors}; take larger "
        "primes, N11_L1, or preset auto, which picks them for the bits wanted"
    )


class _Survey(NamedTuple):
    """What choices are made by: statistics of a round's weights, and the options at each ring degree."""

    stats: Sequence[Statistics]
    options: Mapping[int, Sequence[Option]]


def _survey(segment: Segment, program: Program, spec: PlanSpec, degrees: Sequence[int]) -> _Survey:
    affine, _ = balance(lower(segment, program.shapes))
    stats, structure = statistics(affine), _structure(segment, affine, program, spec)
    rows = rows_class(spec.rows)
    return _Survey(stats, {degree: all_options(affine, structure, stats, degree, spec.engine, rows, spec.costs) for degree in degrees})


def _considered(every: Sequence[Option], prime_bits: int) -> tuple[tuple[str, float], ...]:
    """Each packing that a round could take, and the nanoseconds of its cheapest form."""
    names = dict.fromkeys(option.packing.name for option in every)
    return tuple((name, min(one.estimate.nanoseconds(prime_bits) for one in every if one.packing.name == name)) for name in names)


def _prime_bits(params: Params) -> int:
    """Bits that estimates count for a round."""
    return min(_MOST_PRIME_BITS, math.prod(params.moduli).bit_length())


def _structure(segment: Segment, affine: AffineMap, program: Program, spec: PlanSpec) -> Structure | None:
    if spec.packing == "batch" or spec.engine not in COEFFICIENT_ENGINES:
        return None
    return find_structure(affine, [tuple(program.shapes[name]) for name in segment.inputs])


class _Auto(NamedTuple):
    """Parameters that 'auto' can take: what they cost in the goal's unit, and the bits that they promise."""

    price: float
    promised: float
    params: Params


def _auto_params(stats: Sequence[Sequence[Statistics]], options_at: _OptionsAt, spec: PlanSpec, due: float) -> Params:
    """The ring and prime of the ladder that reach the bits wanted for the least price.

    Of each ring these are the smallest prime under which the cheapest packings reach them, with weights that the engine multiplies at once
    or with wide ones, and failing that the largest prime with quieter packings. If nothing reaches them, the cheapest of those that
    promise within half a bit of the most.
    """
    found: list[_Auto] = []
    for degree, sizes in AUTO_LADDER.items():
        found += [one for halves in (1, 2) for one in _smallest_prime(stats, options_at, spec, due, (degree, sizes), halves)]
        if not any(one.params.ring_degree == degree for one in found):
            params, options = _auto(degree, sizes[-1]), options_at(degree, sizes[-1])
            packings, choices = _choose_within(stats, options, params, spec, due)
            taken = [next(one for one in mine if one.packing == packing) for mine, packing in zip(options, packings)]
            found.append(_Auto(sum(one.price(spec.goal, sizes[-1]) for one in taken), total_promise(choices), params))
    most = max(one.promised for one in found)
    enough = due if most >= due else most - _HARDLY_BITS
    return min((one for one in found if one.promised >= enough), key=lambda one: one.price).params


def _smallest_prime(
    stats: Sequence[Sequence[Statistics]],
    options_at: _OptionsAt,
    spec: PlanSpec,
    due: float,
    ring: tuple[int, Sequence[int]],
    halves: int,
) -> list[_Auto]:
    """The smallest of the primes under which the cheapest packings reach what is due, if one does."""
    degree, sizes = ring
    for size in sizes:
        params, options = _auto(degree, size), [mine[0] for mine in options_at(degree, size)]
        kind = traits(spec.engine, params)
        choices = [choose_round(stat, one.packing, params, kind, due, halves == 1) for stat, one in zip(stats, options)]
        promised = total_promise(choices)
        if promised >= due + SPARE_BITS:
            return [_Auto(sum(one.price(spec.goal, size, halves) for one in options), promised, params)]
    return []


def _auto(degree: int, size: int) -> Params:
    literal = {"poly_modulus_degree": degree, "coeff_modulus": [size], "security_level": 128, "complex_packing": True}
    return check_params(literal, f"auto_N{degree.bit_length() - 1}_{size}")


def _choose_within(
    stats: Sequence[Sequence[Statistics]], options: Sequence[Sequence[Option]], params: Params, spec: PlanSpec, due: float
) -> tuple[list[Packing], list[Choice]]:
    """Packings and choices: the cheapest packings, and where they miss the precision wanted, quieter ones.

    Rounds are made quieter one by one, each time the one that gains most for what it costs, until the precision is reached or comes to
    half a bit less than the quietest packings would have.
    """
    taken = [0] * len(options)

    def packings() -> list[Packing]:
        return [mine[at].packing for mine, at in zip(options, taken)]

    kind = traits(spec.engine, params)
    choices = choose(stats, packings(), params, kind, due)
    if total_promise(choices) >= due or all(len(mine) == 1 for mine in options):
        return packings(), choices
    goal = due + share(len(stats)) + SPARE_BITS
    prices = [[one.price(spec.goal, _prime_bits(params)) for one in mine] for mine in options]
    errors = [[choose_round(stat, one.packing, params, kind, goal, False).error ** 2 for one in mine] for stat, mine in zip(stats, options)]
    enough = max(2.0 ** (-2.0 * (due + MARGIN_BITS)), 2.0 * sum(min(mine) for mine in errors))
    while sum(mine[at] for mine, at in zip(errors, taken)) > enough:
        better = [
            ((errors[i][taken[i]] - errors[i][to]) / (prices[i][to] - prices[i][taken[i]] + 1.0), i, to)
            for i in range(len(options))
            for to in range(taken[i] + 1, len(options[i]))
            if errors[i][to] < errors[i][taken[i]]
        ]
        if not better:
            break
        _, i, to = max(better)
        taken[i] = to
    return packings(), choose(stats, packings(), params, kind, due)


class _Way(NamedTuple):
    """What was chosen for a round: packing, primes and weights, bits of the answer and the relative error to expect."""

    packing: Packing
    choice: Choice
    answer: tuple[int, float]


def _plan_round(
    segment: Segment, program: Program, stats: Sequence[Statistics], way: _Way, params: Params, spec: PlanSpec
) -> tuple[RoundPlan, RoundMap, float]:
    """One round, its integer map, and the relative error to expect."""
    kind = traits(spec.engine, params)
    (level, width, _), (answer_bits, error) = way.choice, way.answer
    modulus = math.prod(params.moduli[:level])
    affine, in_factors = balance(lower(segment, program.shapes))
    structure = None if way.packing is BATCH else _structure(segment, affine, program, spec)
    map_ = quantise(affine, width)

    def in_batches() -> tuple[RoundPlan, RoundMap, float]:
        answer = choose_answer(stats, BATCH, way.choice, params, kind, promise(error**2))
        return _plan_round(segment, program, stats, _Way(BATCH, way.choice, answer), params, spec)

    linear: RoundMap = map_.linear
    layout: Layout | None = None
    if structure is not None:
        laid = _lay_out(structure, way.packing, map_)
        if laid is None:
            return in_batches()
        layout, linear = laid
    this = RoundPlan(
        segment.index,
        segment.inputs,
        segment.outputs,
        way.packing.name,
        level,
        tuple(_runs(scales) for scales in map_.scales),
        map_.constant,
        tuple(tuple(int(n) for n in row) for row in map_.norms),
        map_.weight_bits,
        answer_bits,
        promise(error**2),
        map_.linear.multiplications,
        layout,
        tuple(_runs(factors) for factors in in_factors),
        tuple(
            absolute_errors(stat, map_.weight_bits, modulus, noise_of(kind, params, modulus, way.packing, answer_bits)) for stat in stats
        ),
    )
    if safe_scale(this, modulus, kind, params.ring_degree, tuple(1.0 for _ in segment.inputs)) < 1.0:
        if layout is not None and spec.packing == "auto":
            return in_batches()
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


def _runs(scales: np.ndarray) -> ScaleRuns:
    """Equal neighbours as (how many, scale)."""
    starts = np.flatnonzero(np.concatenate([[True], scales[1:] != scales[:-1]])) if len(scales) else np.zeros(0, int)
    counts = np.diff(np.append(starts, len(scales)))
    return tuple((int(count), float(scales[start])) for start, count in zip(starts, counts))
