"""The figures of an inference that records keep and pages show, the same at both services."""

from __future__ import annotations

from typing import Any, Mapping

_KEPT = ("engine", "preset", "rows", "rounds", "bytes_up", "bytes_down")
_OF_A_ROUND = ("index", "in_elements", "out_elements", "bytes_up", "bytes_down")


def inference_figures(report: Mapping[str, Any]) -> dict[str, Any]:
    """Those of a report (Report.to_dict of the client): sums, and for each round its bytes and seconds over all chunks of rows."""
    return {
        **{name: report[name] for name in _KEPT},
        "expected_bits": round(report["expected_bits"], 1),
        "seconds": _rounded(report["seconds"]),
        "round_ms": [round(1000 * sum(this["seconds"].values()), 2) for this in report["per_round"]],
        "per_round": [{**{name: this[name] for name in _OF_A_ROUND}, "seconds": _rounded(this["seconds"])} for this in report["per_round"]],
    }


def _rounded(seconds: Mapping[str, float]) -> dict[str, float]:
    return {name: round(value, 5) for name, value in seconds.items()}
