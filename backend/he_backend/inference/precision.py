"""How precise a round is: primes, weight width and answer size that reach the bits wanted, and what can be promised of them."""

from __future__ import annotations

import math
from typing import NamedTuple, Sequence

from he_backend.ckks.engines import Traits, answer_modulus
from he_backend.ckks.exact_linear import MAX_ANSWER_BITS
from he_backend.ckks.linear import MAX_WEIGHT_BITS
from he_backend.ckks.params import Params
from he_backend.graph.program import Program
from he_backend.inference.choice import Packing
from he_backend.inference.quantise import Noise, Statistics, best_width, relative_error

# The promise leaves 2 bits for the largest of many errors over the typical one, and more where a client step makes errors larger: one
# that raises to powers by the size of the exponents, one that divides (a normalisation of rows that vary little) by the divisor.
MARGIN_BITS, _POWER_MARGIN_BITS, _DIVISION_MARGIN_BITS = 2.0, 1.0, 5.0
_POWERS = frozenset({"Softmax", "LogSoftmax", "Exp", "Pow"})
_DIVISIONS = frozenset(
    {"LayerNormalization", "InstanceNormalization", "GroupNormalization", "MeanVarianceNormalization", "LpNormalization", "LRN", "Div"}
    | {"Reciprocal", "Log", "Sqrt"}
)
_MOST_BITS = 52.0
SPARE_BITS = 0.1  # that a smaller answer may cost
# Primes that are 1 modulo 2N exist from a few bits above the size of 2N on.
_SPARE_ANSWER_BITS = 6


class Choice(NamedTuple):
    """Primes and weight width of one round, and the relative error that they lead to."""

    level: int
    width: int
    error: float


def step_margin(program: Program) -> float:
    """Bits that client steps after the first round may cost."""
    ops = {op for step in program.steps[1:] for op in step.ops}
    return (_POWER_MARGIN_BITS if ops & _POWERS else 0.0) + (_DIVISION_MARGIN_BITS if ops & _DIVISIONS else 0.0)


def choose(stats: Sequence[Sequence[Statistics]], packings: Sequence[Packing], params: Params, kind: Traits, due: float) -> list[Choice]:
    """The cheapest choices that reach what is due over all rounds; the most precise ones if none do."""
    goal = due + share(len(stats)) + SPARE_BITS
    ways = [[choose_round(stat, packing, params, kind, goal, single) for stat, packing in zip(stats, packings)] for single in (True, False)]
    for choices in ways:
        if total_promise(choices) >= due + SPARE_BITS:
            return choices
    return max(ways, key=total_promise)


def choose_round(stats: Sequence[Statistics], packing: Packing, params: Params, kind: Traits, goal: float, single: bool) -> Choice:
    """The fewest primes that reach the goal, or as many as help; `single` keeps weights to what the engine computes at once."""
    most_bits = kind.single_weight_bits if single else MAX_WEIGHT_BITS
    best = Choice(1, 0, math.inf)
    for level in range(1, len(params.moduli) + 1):
        modulus = math.prod(params.moduli[:level])
        if modulus.bit_length() > kind.most_modulus_bits:
            break
        width, error = best_width(stats, modulus, noise_of(kind, params, modulus, packing), most_bits)
        if error < best.error:
            best = Choice(level, width, error)
        if promise(error**2) >= goal:
            break
    return best


def share(rounds: int) -> float:
    """Bits by which each of several equal rounds must be better than the whole: their errors add up like independent ones."""
    return 0.5 * math.log2(max(1, rounds))


def total_promise(choices: Sequence[Choice]) -> float:
    """Bits of precision promised of a whole network whose rounds err independently."""
    return promise(sum(choice.error**2 for choice in choices))


def noise_of(kind: Traits, params: Params, modulus: int, packing: Packing, answer_bits: int = MAX_ANSWER_BITS) -> Noise:
    """The noise of rounds whose answers are switched to so many bits, or to as many as can be."""
    factor = kind.noise_factor * packing.noise_factor
    if not kind.switches:
        return Noise(factor)
    return Noise(factor, params.ring_degree, answer_modulus(params.ring_degree, answer_bits, modulus))


def choose_answers(
    stats: Sequence[Sequence[Statistics]], packings: Sequence[Packing], choices: Sequence[Choice], params: Params, kind: Traits, due: float
) -> list[tuple[int, float]]:
    """Of each round the bits of its answer and the error it leads to, small as long as all together keep what is due."""
    goal, equal = min(due, total_promise(choices) - SPARE_BITS), due + share(len(stats))
    found: list[tuple[int, float]] = []
    for extra in (0.0, 0.25, 0.5, 1.0, 2.0, _MOST_BITS):  # where one round is worse than its share, others must be better
        found = [choose_answer(*of_round, params, kind, equal + extra) for of_round in zip(stats, packings, choices)]
        if promise(sum(error**2 for _, error in found)) >= goal:
            break
    return found


def choose_answer(
    stats: Sequence[Statistics], packing: Packing, choice: Choice, params: Params, kind: Traits, due: float
) -> tuple[int, float]:
    """The smallest answer that keeps the precision wanted, or costs a tenth of a bit of what there is; and the error it leads to."""
    modulus = math.prod(params.moduli[: choice.level])

    def error(noise: Noise) -> float:
        return max((relative_error(stat, choice.width, modulus, noise) for stat in stats), default=0.0)

    largest = noise_of(kind, params, modulus, packing)
    if not kind.switches:
        return 0, error(largest)
    top = min(MAX_ANSWER_BITS, modulus.bit_length())
    due = min(due, promise(error(largest) ** 2) - SPARE_BITS)
    for size in range(params.ring_degree.bit_length() + _SPARE_ANSWER_BITS, top):
        found = error(Noise(largest.factor, params.ring_degree, answer_modulus(params.ring_degree, size, modulus)))
        if promise(found**2) >= due:
            return size, found
    return top, error(largest)


def promise(squared_error: float) -> float:
    """Bits of precision promised for a squared relative error; at most 52, as float64 has."""
    return round(min(_MOST_BITS, -0.5 * math.log2(squared_error)) - MARGIN_BITS, 2) if squared_error > 0 else _MOST_BITS
