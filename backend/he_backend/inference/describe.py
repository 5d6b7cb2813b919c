"""What a plan costs and who holds what, before anything is run: figures, and a table of them."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Callable, Sequence

from he_backend.ckks.serial import TensorHeader
from he_backend.inference.plan import ClientPlan, Considered
from he_backend.inference.schedule import make_schedule


@dataclass(frozen=True)
class RoundCost:
    """One round for a number of rows."""

    index: int
    inputs: tuple[str, ...]
    outputs: tuple[str, ...]
    packing: str
    in_elements: int
    out_elements: int
    in_polynomials: int  # of a column, which is one row under product packing
    out_polynomials: int
    modulus_bits: int
    weight_bits: int
    expected_bits: float
    multiplications: int  # scalar multiplications of polynomials' coefficients by weights
    bytes_up: int
    bytes_down: int


def round_costs(plan: ClientPlan, rows: int) -> tuple[RoundCost, ...]:
    """The cost of every round for `rows` rows; bytes are those of ciphertexts."""
    return tuple(_round_cost(plan, index, rows) for index in range(len(plan.rounds)))


def plan_figures(plan: ClientPlan, rows: int, considered: Considered = (), measured: Sequence[float] = ()) -> dict[str, Any]:
    """The plan's figures as JSON-able values: with what the planner considered, and `measured` seconds of each round, where known."""
    costs = round_costs(plan, rows)
    return {
        "model": plan.model_name,
        "engine": plan.engine,
        "preset": plan.params.name,
        "security_level": plan.params.security_level,
        "rows": rows,
        "chunks": _chunks(plan, rows),
        "rounds": len(costs),
        "bytes_up": sum(cost.bytes_up for cost in costs),
        "bytes_down": sum(cost.bytes_down for cost in costs),
        "expected_bits": round(plan.expected_bits, 1),
        "public_constants": list(plan.public_constants),
        **({"estimated_seconds": sum(estimates(plan, considered))} if considered else {}),
        **({"measured_seconds": sum(measured)} if measured else {}),
        "per_round": [
            {
                **cost.__dict__,
                "inputs": list(cost.inputs),
                "outputs": list(cost.outputs),
                **({"estimated_seconds": {name: ns * 1e-9 for name, ns in considered[cost.index]}} if considered else {}),
                **({"measured_seconds": measured[cost.index]} if measured else {}),
            }
            for cost in costs
        ],
    }


def estimates(plan: ClientPlan, considered: Considered) -> list[float]:
    """Seconds that each round is estimated to take under its packing, both parties and a loopback wire together, for one prime."""
    return [1e-9 * dict(options)[this.packing] for this, options in zip(plan.rounds, considered)]


def plan_table(plan: ClientPlan, rows: int, considered: Considered = (), measured: Sequence[float] = ()) -> str:
    """The plan as a table for people: with what the planner considered, and `measured` seconds of each round, where they are known."""
    costs, times = round_costs(plan, rows), estimates(plan, considered)
    head = ("round", "sends", "values", "gets", "values", "packing", "polynomials", "modulus", "weights", "bits", "up", "down", "ms", "ran")
    lines = [
        (
            str(cost.index),
            _short(cost.inputs),
            str(cost.in_elements),
            _short(cost.outputs),
            str(cost.out_elements),
            cost.packing,
            f"{cost.in_polynomials} / {cost.out_polynomials}",
            f"{cost.modulus_bits} bits",
            f"{cost.weight_bits} bits",
            f"{cost.expected_bits:.1f}",
            size_text(cost.bytes_up),
            size_text(cost.bytes_down),
            f"{1e3 * times[cost.index]:.2f}{_instead(plan, considered, cost.index)}" if considered else "",
            f"{1e3 * measured[cost.index]:.2f}" if measured else "",
        )
        for cost in costs
    ]
    widths = [max(len(line[i]) for line in (head, *lines)) for i in range(len(head))]
    table = ["  ".join(cell.ljust(width) for cell, width in zip(line, widths)).rstrip() for line in (head, *lines)]
    security = f"{plan.params.security_level}-bit secure" if plan.params.security_level else "security NOT checked"
    chunks = _chunks(plan, rows)
    return "\n".join(
        [
            f"{plan.model_name}: {len(costs)} rounds for {rows} rows in {chunks} chunk{'s' if chunks > 1 else ''}, engine {plan.engine}, "
            f"preset {plan.params.name} ({security}, ring degree {plan.params.ring_degree})",
            "",
            *table,
            "",
            f"in all {size_text(sum(c.bytes_up for c in costs))} up, {size_text(sum(c.bytes_down for c in costs))} down; "
            f"at least {plan.expected_bits:.1f} bits of precision expected",
            *([f"estimated {sum(times):.3f} s (in brackets: under other packings)"] if considered else []),
            *([f"ran in {sum(measured):.3f} s"] if measured else []),
            "server: all weights; sees ciphertexts, shapes and the number of rows",
            "client: rows, secret key, activations, predictions; the values of every round in the clear",
            *(["travels to the client of the model: " + "; ".join(plan.public_constants)] if plan.public_constants else []),
        ]
    )


def _instead(plan: ClientPlan, considered: Considered, index: int) -> str:
    """What the round's other packings are estimated to take, in milliseconds."""
    others = [(name, value) for name, value in considered[index] if name != plan.rounds[index].packing]
    return f" ({', '.join(f'{name} {value * 1e-6:.2f}' for name, value in others)})" if others else ""


def size_text(size: float) -> str:
    """Bytes for people: 512 B, 1.5 KiB, 20.3 MiB."""
    for unit in ("B", "KiB", "MiB"):
        if size < 1024:
            return f"{size:.0f} {unit}" if unit == "B" else f"{size:.1f} {unit}"
        size /= 1024
    return f"{size:.1f} GiB"


def _chunks(plan: ClientPlan, rows: int) -> int:
    return make_schedule(plan, rows).chunks(rows)


def _round_cost(plan: ClientPlan, index: int, rows: int) -> RoundCost:
    this, degree, chunk = plan.rounds[index], plan.params.ring_degree, make_schedule(plan, rows).rows
    selection = plan.selection(index)

    def returned(index: int, part: int) -> int:
        width = plan.answer_width(index, part)
        return selection.width(plan.columns(index, part), width) if selection else width

    def payload(moduli: tuple[int, ...], count: int, mask: str, width_of: Callable[[int, int], int]) -> int:
        kind = "none" if plan.engine == "clear" else mask

        def of_chunk(part: int) -> int:
            columns = plan.columns(index, part)
            return TensorHeader(plan.engine, degree, moduli, False, columns, count, width_of(index, part), kind).payload_bytes

        whole, rest = divmod(rows, chunk)
        return (whole * of_chunk(chunk) if whole else 0) + (of_chunk(rest) if rest else 0)

    return RoundCost(
        index,
        this.inputs,
        this.outputs,
        this.packing,
        plan.in_elements(index),
        plan.out_elements(index),
        plan.in_count(index),
        plan.out_count(index),
        plan.modulus(index).bit_length(),
        this.weight_bits,
        this.expected_bits,
        this.multiplications * rows,
        payload(plan.sent_moduli(index), plan.in_count(index), "seed", plan.sent_width),
        payload(plan.answer_moduli(index), plan.out_count(index), "array", returned),
    )


def _short(names: tuple[str, ...]) -> str:
    text = ", ".join(names)
    return text if len(text) <= 28 else text[:27] + "…"
