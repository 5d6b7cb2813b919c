"""A picture of a plan: what each round is estimated to take under each packing, which one it took, and what was measured."""

from __future__ import annotations

from pathlib import Path
from typing import Any, Sequence

_COLOURS = {"batch": "#7f8fa6", "grid": "#2a9d8f", "product": "#e76f51"}


def draw(title: str, rounds: Sequence[dict[str, Any]], path: Path) -> bool:
    """Writes a PNG; False without matplotlib.

    rounds: per round `label`, `packing`, `estimated` (milliseconds by packing), `bytes` (up and down), `measured` (milliseconds or None).
    """
    try:
        import matplotlib

        matplotlib.use("Agg")
        from matplotlib import pyplot
        from matplotlib.patches import Patch
    except ImportError:
        return False
    count = len(rounds)
    size = (max(7.0, 0.32 * count + 4.0), 7.5)
    figure, (times, sizes) = pyplot.subplots(2, 1, figsize=size, layout="constrained", height_ratios=(3, 1.2))
    at = list(range(count))
    times.bar(at, [this["estimated"][this["packing"]] for this in rounds], color=[_COLOURS[this["packing"]] for this in rounds], width=0.7)
    for name, colour in _COLOURS.items():
        others = [(i, this["estimated"][name]) for i, this in enumerate(rounds) if name in this["estimated"] and name != this["packing"]]
        times.scatter([i for i, _ in others], [value for _, value in others], marker="_", s=90, color=colour, linewidths=2)
    handles: list[Any] = [Patch(color=colour, label=name) for name, colour in _COLOURS.items()]
    if all(this["measured"] is not None for this in rounds):
        times.plot(at, [this["measured"] for this in rounds], "k.", markersize=7)
        handles.append(pyplot.Line2D([], [], color="k", marker=".", linestyle="", label="measured"))
    times.set_yscale("log")
    times.set_ylabel("milliseconds a round")
    times.set_title(title, loc="left")
    said = "bar: taken; dash: other packings"
    figure.legend(handles=handles, ncols=4, fontsize=9, title=said, title_fontsize=9, loc="outside upper right")
    for side, sign, colour in (("up", 1, "#457b9d"), ("down", -1, "#a8dadc")):
        sizes.bar(at, [sign * this["bytes"][side == "down"] / 1e6 for this in rounds], color=colour, width=0.7, label=side)
    sizes.axhline(0, color="black", linewidth=0.6)
    sizes.set(ylabel="MB up, down", xlabel="round")
    sizes.yaxis.set_major_formatter(lambda value, _: f"{abs(value):g}")
    for axes in (times, sizes):
        axes.spines[["top", "right"]].set_visible(False)
        axes.set_xlim(-0.7, count - 0.3)
        axes.set_xticks(at, [this["label"] for this in rounds], fontsize=7 if count > 20 else 9, rotation=90 if count > 20 else 0)
    figure.savefig(path, dpi=120)
    pyplot.close(figure)
    return True
