"""Pictures of measurements. matplotlib is an extra (bench); without it there are tables only."""

from __future__ import annotations

from pathlib import Path
from typing import Any

_PARTS = ("encrypt", "server", "wire", "decrypt", "step")


def draw(results: dict[str, list[dict[str, Any]]], path: Path) -> bool:
    """Writes a PNG with where the time goes, precision against speed, and throughput against rows; False without matplotlib."""
    try:
        import matplotlib

        matplotlib.use("Agg")
        from matplotlib import pyplot
    except ImportError:
        return False
    figure, (parts, bits, rows) = pyplot.subplots(1, 3, figsize=(17, 5), layout="constrained")
    _parts(parts, [row for row in results["networks"] if row["engine"] == "native"])
    for network in sorted({row["network"] for row in results["precision"]}):
        mine = [row for row in results["precision"] if row["network"] == network]
        bits.plot([row["bits_of_precision"] for row in mine], [row["rows_per_second"] for row in mine], marker="o", label=network)
    bits.set(xlabel="bits of precision reached", ylabel="rows per second", title="precision against speed, 2048 rows", ylim=(0, None))
    bits.legend()
    for cores in sorted({row["cores"] for row in results["scaling"]}):
        mine = [row for row in results["scaling"] if row["cores"] == cores]
        rows.loglog([row["rows"] for row in mine], [row["rows_per_second"] for row in mine], marker="o", label=f"{cores} cores")
        plain = [row["rows"] / row["plain_seconds"] for row in mine]
        rows.loglog([row["rows"] for row in mine], plain, marker=".", linestyle=":", label=f"plain, {cores} cores")
    rows.set(xlabel="rows", ylabel="rows per second", title="CryptoNets against rows")
    rows.legend()
    figure.savefig(path, dpi=110)
    pyplot.close(figure)
    return True


def _parts(axes: Any, measured: list[dict[str, Any]]) -> None:
    labels = [f"{row['network']} {row['rows']}\n{row['preset']}" for row in measured]
    bottom = [0.0] * len(measured)
    for part in _PARTS:
        heights = [1e6 * row["seconds"][part] / row["rows"] for row in measured]
        axes.bar(labels, heights, bottom=bottom, label=part)
        bottom = [low + height for low, height in zip(bottom, heights)]
    axes.set(ylabel="microseconds per row", title="where the time goes")
    axes.tick_params(axis="x", labelsize=7)
    axes.legend()
