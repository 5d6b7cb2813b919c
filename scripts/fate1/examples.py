"""Every job of dsl_examples, and what must be true of each: its end, the guest's table, the figures for FATE-Board, FATE's Evaluation."""

from __future__ import annotations

import json
import time
from typing import Any

from .checks import EXAMPLES, check
from .flow import GUEST, HOST, Flow
from .tables import ROWS

HEADER = ["label", "predict_result", "predict_score", "predict_detail", "type"]
FILE_ROWS = 7
WAYS = {"is_custom_enc_param": "custom_enc_param.json", "server_url": "by an HE-server"}  # examples that are submitted again
EVALUATED = {"he_nn_all_in_one": "accuracy", "he_nn_credit": "auc", "he_nn_vehicle": "accuracy", "he_nn_student": "r2_score"}


class Examples:
    """Submits the examples one after another; `seconds` are those of each job, by what it was."""

    def __init__(self, flow: Flow, counts: dict[str, int]) -> None:
        self.flow, self.counts = flow, counts
        self.seconds: dict[str, float] = {}
        self._ran: set[str] = set()

    def run(self, server_url: str, client_url: str) -> None:
        """All of them; those that go through a service only where the services run. Checks that none was forgotten."""
        self.job("he_nn_model_load")
        self.job("he_nn_model_eval")
        self.predicted(self.job("he_nn_model_inference"))
        self.predicted(self.job("he_nn_model_inference", is_custom_enc_param=True))
        for name, metric in EVALUATED.items():
            job_id = self.job(name)
            self.predicted(job_id, self.counts[_table(name)])
            self.evaluated(job_id, metric)
        if server_url:
            self.job("he_nn_model_load", server_url=server_url)
            served = {"server_url": server_url, "client_url": client_url, "num_inference": FILE_ROWS}
            for name in ("he_nn_model_client_inference", "he_nn_model_service_inference"):
                self.predicted(self.job(name, **served), FILE_ROWS)
        names = {path.name[: -len("_conf.json")] for path in EXAMPLES.glob("*_conf.json")}
        left = names - self._ran - (set() if server_url else {"he_nn_model_client_inference", "he_nn_model_service_inference"})
        check(not left, f"every example was submitted (left out: {', '.join(sorted(left)) or 'none'})")

    def job(self, name: str, **changes: Any) -> str:
        """The id of an example's job that ended in success."""
        started = time.monotonic()
        job_id = self.flow.start(name, **changes)
        state = self.flow.end(job_id)
        seconds = time.monotonic() - started
        shown = " ".join([name, *(f"{key}={value}" for key, value in changes.items())])
        if state != "success":
            print(self.flow.failures(job_id))
        check(state == "success", f"{shown} is a success in {seconds:.0f} s")
        self._ran.add(name)
        self.seconds[" ".join([name, *(f"({WAYS[key]})" for key in changes if key in WAYS and len(changes) == 1)])] = seconds
        for component in _components(name):
            figures = self.flow.figures(job_id, component)
            check("model_name" in figures, f"{name}: {component} has its figures for FATE-Board: {', '.join(list(figures)[:4])}, ...")
        return job_id

    def predicted(self, job_id: str, rows: int = ROWS) -> None:
        """The guest's prediction table, its metrics, and that the host has none."""
        query = {"job_id": job_id, "component_name": "he_nn_inference_0"}
        answer = self.flow.rest("tracking/component/output/data", {**query, "role": GUEST[0], "party_id": GUEST[1]})
        header, lines = answer["meta"]["header"][0], answer["data"][0]
        check(header[-5:] == HEADER and answer["meta"]["total"][0] == rows, f"{rows} rows with {', '.join(header)}")
        check([line[0] for line in lines] == sorted(line[0] for line in lines) or rows != FILE_ROWS, "the rows come in their order")
        host = self.flow.rest("tracking/component/output/data", {**query, "role": HOST[0], "party_id": HOST[1]})
        check(not host.get("data"), "the host has no prediction")
        found = self.flow.metrics(job_id, "he_nn_inference_0").get("he_nn", {})
        figures = dict(found["summary"]["data"])
        quality = {name: figures[name] for name in ("accuracy", "rmse", "r2") if name in figures}
        shown = ", ".join(f"{name} {value:.4f}" for name, value in quality.items()) or "no labels"
        check(figures["rounds"] >= 1, f"{shown}; {figures['rounds']} rounds, {figures['seconds_total']} s")
        if rows == ROWS:
            check(quality["accuracy"] > 0.9, "the digits are recognised")
        if figures["is_encryption"]:
            check(found["progress_loss"]["data"][-1][1] == 100.0, "its progress is a curve that ends at 100")

    def evaluated(self, job_id: str, metric: str) -> None:
        """FATE's Evaluation comes to a figure, and to he-nn-inference's own where both know it."""
        scores = _flat(self.flow.metrics(job_id, "evaluation_0"))
        value = scores.get(metric, scores.get(metric.replace("accuracy", "multi_accuracy")))
        check(value is not None, f"FATE's Evaluation follows he-nn-inference: {metric} {value} (of {', '.join(sorted(scores))})")
        own = self.flow.figures(job_id, "he_nn_inference_0").get({"accuracy": "accuracy", "r2_score": "r2"}.get(metric, ""))
        if own is not None and value is not None:
            check(abs(float(value) - own) < 1e-3, f"and is he-nn-inference's own figure ({own:.4f})")


def refused(flow: Flow) -> None:
    """A wrong parameter shows in the answer to the submission."""
    conf = json.loads((EXAMPLES / "he_nn_model_eval_conf.json").read_text(encoding="utf-8"))
    conf["component_parameters"]["common"]["he_nn_eval_0"]["batch_size"] = 513
    answer = flow.submit(flow.write("conf", conf), EXAMPLES / "he_nn_model_eval_dsl.json")
    check(answer["retcode"] != 0 and "batch_size: 513; allowed: 1 to 512" in json.dumps(answer), "a wrong parameter is refused by name")


def _flat(found: Any) -> dict[str, float]:
    """metric -> value of FATE's Evaluation, whatever data set it was of."""
    rows = [row for by_name in found.values() for one in by_name.values() for row in one.get("data") or []]
    return {str(row[0]): float(row[1]) for row in rows if isinstance(row[0], str) and isinstance(row[1], (int, float))}


def _components(name: str) -> list[str]:
    conf = json.loads((EXAMPLES / f"{name}_conf.json").read_text(encoding="utf-8"))
    return [component for component in conf["component_parameters"]["common"] if component.startswith("he_nn_")]


def _table(name: str) -> str:
    conf = json.loads((EXAMPLES / f"{name}_conf.json").read_text(encoding="utf-8"))
    return str(conf["component_parameters"]["common"]["reader_0"]["table"]["name"])
