"""What FATE's channel costs: the same network, rows and parameters by a job of both parties, and in one process. Medians of three."""

from __future__ import annotations

import json
import statistics

from .checks import check
from .flow import Flow

TIMES = 3
ROWS = 512
PRESET = "N12_L4"
EXAMPLE = "he_nn_model_service_inference"
MOST_FACTOR = 10.0
# A process of its own each time, as a task has: what is done once by a process is in both figures.
WITHIN = """
import json, sys
import numpy as np
from he_backend import local
from he_backend.server.models import registered_program
from he_backend.server.registry import Registry, default_root
registry = Registry(default_root())
program = registered_program(registry, registry.get('latest', 'MLP'))
rows = np.load(sys.argv[1])[: int(sys.argv[2])].reshape(-1, *program.inputs[0].shape).astype(program.inputs[0].dtype)
print(json.dumps(local.infer(program, rows, preset=sys.argv[3]).report.seconds))
"""


def measure(flow: Flow) -> None:
    """Prints both medians: an MLP's inference, its set-up (keys, plan, environment test) included."""
    flow.end(flow.start("he_nn_model_load", model_type="MLP"))
    changes = {"model_type": "MLP", "server_url": "", "num_inference": ROWS, "encryption_parameters": PRESET}
    over, within, rounds = [], [], 0
    for _ in range(TIMES):
        job_id = flow.start(EXAMPLE, **changes)
        check(flow.end(job_id) == "success", f"an MLP on {ROWS} rows")
        figures = flow.figures(job_id, "he_nn_inference_0")
        over.append(figures["seconds_total"] + figures["seconds_setup"])
        rounds = figures["rounds"]
        seconds = json.loads(flow.python("-c", WITHIN, str(flow.home / "inference_data.npy"), str(ROWS), PRESET).splitlines()[-1])
        within.append(seconds["total"] + seconds["setup"])
    one, other = statistics.median(over), statistics.median(within)
    what = f"MLP, {ROWS} rows, {PRESET}, {rounds} rounds, median of {TIMES}"
    check(one < MOST_FACTOR * other + 1.0, f"over FATE's channel {one:.2f} s, in process {other:.2f} s: {one / other:.1f}x ({what})")
