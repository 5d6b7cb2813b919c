"""A network of the zoo on disk: NAME.onnx, NAME.json that says what it is and how to make it again, and NAME.png, its training curve."""

from __future__ import annotations

import json
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from he_backend.zoo.train import TrainResult


def save(result: TrainResult, folder: Path) -> Path:
    """The path of the ONNX file; beside it a JSON file with type, data set, accuracy, seed, curve and the command that makes it again.

    Existing files of the same type and data set are replaced, so that training again leaves one network.
    """
    folder.mkdir(parents=True, exist_ok=True)
    model = folder / f"{result.model_type.lower()}-{result.dataset}.onnx"
    command = f"he-nn train {result.model_type} --data {result.dataset} --activation {result.activation}"
    record = {
        "type": result.model_type,
        "dataset": result.dataset,
        "activation": result.activation,
        "input_shape": list(result.input_shape),
        "classes": result.classes,
        "test_acc": result.test_acc,
        "test_rows": result.test_rows,
        "seed": result.seed,
        "epochs": len(result.curve),
        "reproduce": f"{command} --epochs {len(result.curve)} --seed {result.seed}",
    }
    if result.embeddings:
        record["embeddings"] = result.embeddings
    record["curve"] = [asdict(point) for point in result.curve]
    model.write_bytes(result.onnx)
    model.with_suffix(".json").write_text(_json_with_one_line_per_epoch(record), encoding="utf-8")
    return model


def draw_curve(result: TrainResult, path: Path) -> bool:
    """Draws loss and accuracy by epoch to a PNG; False, and no file, where matplotlib is not installed."""
    try:
        from matplotlib.figure import Figure
    except ImportError:
        return False
    figure = Figure(figsize=(6, 3.5), layout="constrained")
    epochs = [point.epoch for point in result.curve]
    left = figure.subplots()
    left.plot(epochs, [point.loss for point in result.curve], color="tab:blue")
    left.set_xlabel("epoch")
    left.set_ylabel("cross-entropy of training rows", color="tab:blue")
    right = left.twinx()
    right.plot(epochs, [100 * point.test_acc for point in result.curve], color="tab:orange")
    right.set_ylabel(f"accuracy on {result.test_rows} held-out rows (%)", color="tab:orange")
    left.set_title(f"{result.model_type} on {result.dataset}, seed {result.seed}: {result.test_acc:.2%}")
    figure.savefig(path, dpi=120)
    return True


def _json_with_one_line_per_epoch(record: dict) -> str:
    lines = []
    for key, value in record.items():
        if key == "curve":
            points = ",\n".join("  " + json.dumps(_rounded(point)) for point in value)
            lines.append(f' "curve": [\n{points}\n ]')
        else:
            lines.append(f" {json.dumps(key)}: {json.dumps(value)}")
    return "{\n" + ",\n".join(lines) + "\n}\n"


def _rounded(point: dict) -> dict:
    return {key: round(value, 6) if isinstance(value, float) else value for key, value in point.items()}
