"""The picture of an evaluation: accuracy with its intervals, where the time went, bytes by round."""

from __future__ import annotations

from pathlib import Path
from typing import Any, Mapping

_PARTS = ("encrypt", "server", "wire", "decrypt", "step")


def draw(values: Mapping[str, Any], path: Path) -> bool:
    """Writes a PNG from the figures of an evaluation as JSON-able values; False without matplotlib."""
    try:
        import matplotlib

        matplotlib.use("Agg")
        from matplotlib import pyplot
    except ImportError:
        return False
    report = values["report"]
    figure, axes = pyplot.subplots(1, 3 if report else 1, figsize=(15 if report else 5, 4.5), layout="constrained", squeeze=False)
    _accuracies(axes[0][0], values)
    if report:
        _times(axes[0][1], values)
        _bytes(axes[0][2], report)
    title = values.get("model_name", values["model"])
    figure.suptitle(f"{title}: {values['rows']} test rows" + (f", {report['preset']}, {report['engine']} engine" if report else ""))
    figure.savefig(path, dpi=110, format="png")
    pyplot.close(figure)
    return True


def _accuracies(axes: Any, values: Mapping[str, Any]) -> None:
    names = [name for name in ("plain", "encrypted") if values[name]]
    for place, name in enumerate(names):
        measured = values[name]
        low, high = measured["interval"]
        accuracy = measured["accuracy"]
        axes.bar(place, 100 * accuracy, width=0.5)
        axes.errorbar(place, 100 * accuracy, [[100 * (accuracy - low)], [100 * (high - accuracy)]], color="black", capsize=6)
        axes.annotate(f"{100 * accuracy:.2f}", (place, 100 * accuracy), xytext=(8, 4), textcoords="offset points")
    lowest = min(values[name]["interval"][0] for name in names)
    axes.set(ylabel="accuracy, % (95% interval)", title="accuracy", ylim=(max(0.0, 100 * lowest - 5), 101), xticks=range(len(names)))
    axes.set_xticklabels(names)


def _times(axes: Any, values: Mapping[str, Any]) -> None:
    seconds = values["report"]["seconds"]
    axes.bar(["plain"], [1e3 * values["plain"]["seconds"]])
    bottom = 0.0
    for part in _PARTS:
        axes.bar(["encrypted"], [1e3 * seconds[part]], bottom=[bottom], label=part)
        bottom += 1e3 * seconds[part]
    axes.set(ylabel="milliseconds", title="where the time went")
    axes.legend()


def _bytes(axes: Any, report: Mapping[str, Any]) -> None:
    rounds = report["per_round"]
    places = [part["index"] + 1 for part in rounds]
    axes.bar([place - 0.2 for place in places], [part["bytes_up"] / 2**10 for part in rounds], width=0.4, label="up")
    axes.bar([place + 0.2 for place in places], [part["bytes_down"] / 2**10 for part in rounds], width=0.4, label="down")
    axes.set(xlabel="round", ylabel="KiB", title="sent each way")
    axes.xaxis.get_major_locator().set_params(integer=True)
    axes.legend()
