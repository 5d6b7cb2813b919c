"""Draws what FATE-Board 2.x shows of a he-nn task, from the answers of FATE Flow that the Board reads.

    scripts/board_picture.py OUT.png --address 127.0.0.1:9380 --job JOB_ID --task he_nn_inference_0
    scripts/board_picture.py OUT.png --metrics FILE.json        # such an answer, kept in a file

The Board's rules for a component that it does not know: the metric named `summary` is a table of variable and value, numbers with six
digits; all metrics whose type contains `loss` are lines in one chart titled Loss, step by step, with a new line at each step 0.
"""

from __future__ import annotations

import argparse
import json
import sys
from pathlib import Path
from typing import Any

TOP = Path(__file__).resolve().parents[1]
sys.path[:0] = [str(TOP), str(TOP / "backend")]

INK, GREY, LINE = "#3e4052", "#8f93a3", "#4159d1"


def main() -> None:
    """Reads the metrics and writes the picture."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("out", type=Path)
    parser.add_argument("--address", default="127.0.0.1:9380", help="FATE Flow's host:port")
    parser.add_argument("--job", default="", help="job id")
    parser.add_argument("--task", default="he_nn_inference_0")
    parser.add_argument("--role", default="guest")
    parser.add_argument("--party", default="9999")
    parser.add_argument("--metrics", type=Path, help="a JSON list of metrics instead of a job")
    options = parser.parse_args()
    if options.metrics is not None:
        metrics = json.loads(options.metrics.read_text(encoding="utf-8"))
    else:
        from he_nn.fate2.flow import Flow

        metrics = Flow(options.address).metrics(options.job, options.role, options.party, options.task)
    draw(metrics, options.out, options.task)


def summary(metrics: list[dict[str, Any]]) -> list[tuple[str, str]]:
    """The lines of the table."""
    found = next(metric for metric in metrics if metric["name"] == "summary")
    return [(name, _shown(value)) for name, value in found["data"].items()]


def curves(metrics: list[dict[str, Any]]) -> list[list[tuple[float, float]]]:
    """The lines of the chart."""
    lines: list[list[tuple[float, float]]] = []
    for metric in metrics:
        if "loss" in str(metric.get("type")).lower():
            for point in metric["data"]:
                if point["step"] == 0 or not lines:
                    lines.append([])
                lines[-1].append((point["step"], point["metric"]))
    return lines


def draw(metrics: list[dict[str, Any]], out: Path, task: str) -> None:
    """Writes the table and the chart side by side."""
    import matplotlib

    matplotlib.use("Agg")
    from matplotlib import pyplot

    rows = summary(metrics)
    figure, (left, right) = pyplot.subplots(1, 2, figsize=(10.5, 0.62 + 0.2 * len(rows)), width_ratios=[3, 2], layout="constrained")
    figure.suptitle(f"{task}   model output", x=0.01, ha="left", color=INK, fontsize=11, fontweight="bold")
    left.axis("off")
    cells = [[str(index + 1), *row] for index, row in enumerate(rows)]
    table = left.table(cells, colLabels=["index", "variable", "value"], colWidths=[0.1, 0.36, 0.54], cellLoc="left", bbox=[0, 0, 1, 1])
    table.auto_set_font_size(False)
    table.set_fontsize(8)
    for (row, _), cell in table.get_celld().items():
        cell.set_linewidth(0.4)
        cell.set_edgecolor("#e8e8ef")
        cell.set_text_props(color=GREY if row == 0 else INK)
    right.set_title("Loss", loc="left", fontsize=9, color=INK)
    for index, line in enumerate(curves(metrics)):
        right.plot(*zip(*line), marker="o", markersize=4, color=LINE, label=f"loss_{index}")
    right.set_xlabel("epoch", color=GREY, fontsize=8)
    right.set_ylabel("loss", color=GREY, fontsize=8)
    right.tick_params(labelsize=8, colors=GREY)
    right.spines[["top", "right"]].set_visible(False)
    right.legend(frameon=False, fontsize=8)
    right.xaxis.get_major_locator().set_params(integer=True)
    out.parent.mkdir(parents=True, exist_ok=True)
    figure.savefig(out, dpi=90)
    pyplot.close(figure)


def _shown(value: Any) -> str:
    if isinstance(value, bool):
        return str(value).lower()
    if isinstance(value, float):
        return f"{value:.6f}".rstrip("0").rstrip(".")
    return str(value)


if __name__ == "__main__":
    main()
