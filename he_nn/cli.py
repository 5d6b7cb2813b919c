"""`he-nn job`: FATE 1.x conf and dsl files on FATE 2.2."""

from __future__ import annotations

import json
import math
from typing import Any, Mapping

import click

from he_backend.errors import HeError

from .carry import self_contained
from .translate import read_job, to_dag

ADDRESS = "127.0.0.1:9380"

_conf = click.option("-c", "--conf", required=True, type=click.Path(dir_okay=False), help="The job's conf file (JSON).")
_dsl = click.option("-d", "--dsl", required=True, type=click.Path(dir_okay=False), help="The job's dsl file (JSON).")


@click.group()
def job() -> None:
    """Run FATE 1.x conf/dsl jobs of the he-nn components."""


@job.command("dag")
@_conf
@_dsl
def dag(conf: str, dsl: str) -> None:
    """Print the FATE 2.2 DAG of a job (JSON, which `flow job submit` reads as YAML)."""
    try:
        click.echo(json.dumps(to_dag(read_job(conf, dsl)), indent=2))
    except HeError as error:
        raise click.ClickException(str(error)) from None


@job.command("conf")
@_conf
@_dsl
def conf(conf: str, dsl: str) -> None:
    """Print a conf for FATE 1.x that holds what lies beside the dsl file: custom_enc_param.json and the path of the .npy file."""
    try:
        click.echo(json.dumps(self_contained(read_job(conf, dsl)), indent=2))
    except HeError as error:
        raise click.ClickException(str(error)) from None


@job.command("submit")
@_conf
@_dsl
@click.option("--address", default=ADDRESS, envvar="HE_NN_FATE_FLOW", show_default=True, help="FATE Flow's host:port ($HE_NN_FATE_FLOW).")
@click.option("--wait/--no-wait", default=True, show_default=True, help="Follow the job until it ends.")
def submit(conf: str, dsl: str, address: str, wait: bool) -> None:
    """Submit a job; the exit status is 0 when it ended in success (or was taken, with --no-wait)."""
    from .fate2.flow import Flow

    try:
        flow = Flow(address)
        job_id = flow.submit(to_dag(read_job(conf, dsl)))
        click.echo(job_id)
        if wait:
            _wait(flow, job_id)
    except HeError as error:
        raise click.ClickException(str(error)) from None


def _wait(flow: Any, job_id: str) -> None:
    try:
        status = flow.follow(job_id, _show, timeout_s=math.inf)
    except KeyboardInterrupt:
        click.echo(f"job {job_id} goes on; stop it with: flow job stop -j {job_id}", err=True)
        raise click.Abort from None
    if status != "success":
        raise click.ClickException(f"job {job_id} ended as {status}\n{flow.failures(job_id)}")
    click.echo(f"job {job_id} ended as {status}", err=True)


def _show(task: Mapping[str, Any]) -> None:
    click.echo(f"{task['task_name']:<24} {task['role']:>5} {task['party_id']:<8} {task['status']}", err=True)
