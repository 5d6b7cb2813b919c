"""`make demo-two-sites`: guest and host as two separate FATE 2.2 sites on this machine, with a message broker (RabbitMQ) each.

Two FATE Flow servers with databases, logs, model registries and brokers of their own; the brokers reach each other through relays that keep
every byte, and so does the router of FATE Flow's requests. After the job, what crossed is searched for the guest's rows.
"""

from __future__ import annotations

import argparse
import json
import signal
import sys
import time
from contextlib import ExitStack
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, Sequence

import click

from he_backend import zoo
from he_backend.errors import HeError
from he_backend.inference.describe import size_text

from ..translate import read_job, to_dag
from .broker import MISSING, Broker, binary
from .crossing import Crossing, inspect, row_needles
from .demo import EXAMPLE, GUEST, HOST, TOP, Comparison, adapt, compare, figures, follow, in_process_seconds, upload
from .flow import Flow
from .standalone import Federation, Standalone, free_ports
from .wires import Management, Relay, Router

SEARCHED_ROWS = 100


@dataclass(frozen=True)
class Sites:
    """Two running sites: FATE Flow of each, and where what crosses between them is recorded."""

    guest: Flow
    host: Flow
    crossed: Path

    def recordings(self) -> list[Path]:
        """Files of what crossed so far."""
        return sorted(path for path in self.crossed.rglob("*") if path.is_file())


class TwoSites:
    """Guest 9999 and host 10000 as separate sites under `home`; leaving the `with` block ends all their processes."""

    def __init__(self, home: Path) -> None:
        self.home = home.resolve()
        self._stack = ExitStack()

    def __enter__(self) -> Sites:
        try:
            return self._start()
        except BaseException:
            self._stack.close()
            raise

    def __exit__(self, *exception: object) -> None:
        self._stack.close()

    def _start(self) -> Sites:
        parties = (GUEST[1], HOST[1])
        crossed = self.home / "crossed"
        for path in crossed.rglob("*") if crossed.is_dir() else ():
            if path.is_file():
                path.unlink()
        brokers = {party: Broker(self.home / party / "broker") for party in parties}
        for broker in brokers.values():
            self._stack.callback(broker.stop)
            broker.start()
        ports = dict(zip(parties, ((http, grpc) for http, grpc in (free_ports(2), free_ports(2)))))
        router = self._stack.enter_context(Router({party: http for party, (http, _) in ports.items()}, crossed / "requests"))
        relays = {party: self._stack.enter_context(Relay(brokers[party].port, crossed / f"broker-{party}")) for party in parties}
        for broker in brokers.values():
            broker.wait()
        flows = []
        for party in parties:
            broker, home = brokers[party], self.home / party
            management = self._stack.enter_context(Management(broker.management_port))
            federation = Federation(
                broker.port,
                management.port,
                broker.user,
                broker.password,
                router.port,
                {other: relays[other].port for other in parties},
            )
            site = Standalone(home, {"HE_NN_HOME": str(home)}, party_id=party, federation=federation, ports=ports[party])
            flows.append(self._stack.enter_context(site))
        return Sites(flows[0], flows[1], crossed)


def main(arguments: Sequence[str] | None = None) -> int:
    """Runs the demo; 0: predictions agree and no row was found in what crossed, 1: something failed, 2: no RabbitMQ, 130: stopped."""
    parser = argparse.ArgumentParser(prog="make demo-two-sites", description=__doc__)
    parser.add_argument("--home", type=Path, default=TOP / ".demo-two-sites", help="folder for both sites' data, logs and brokers")
    parser.add_argument("--model-type", default="MLP", help="MLP or CNN")
    parser.add_argument("--preset", default="N12_L4", help="N11_L1, N12_L4 or N13_L8")
    parser.add_argument("--rows", type=int, default=0, help="held-out rows to infer (default: all)")
    parser.add_argument("--control", action="store_true", help="then the same in the clear, to show that the search does find rows")
    parser.add_argument("--json", type=Path, help="file for the figures as JSON")
    options = parser.parse_args(arguments)
    for sign in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
        signal.signal(sign, signal.default_int_handler)
    if binary() is None:
        click.echo(MISSING, err=True)
        return 2
    try:
        return _run(options, time.monotonic())
    except KeyboardInterrupt:
        click.echo("\nstopped; every process of the demo has been ended", err=True)
        return 130
    except HeError as failure:
        click.echo(f"\nthe demo failed: {failure}", err=True)
        return 1


def _run(options: argparse.Namespace, started: float) -> int:
    network = zoo.shipped(options.model_type)
    x, y = network.load_test()
    rows = min(len(x), options.rows) if options.rows > 0 else len(x)
    x, y = x[:rows], y[:rows]
    job = adapt(read_job(f"{EXAMPLE}_conf.json", f"{EXAMPLE}_dsl.json"), options.model_type, options.preset, len(x))
    needles = row_needles(x[:SEARCHED_ROWS])
    _say(started, f"starting two FATE 2.2 sites and their brokers, home {options.home}")
    with TwoSites(options.home) as sites:
        _say(started, f"guest {GUEST[1]} at {sites.guest.address}, host {HOST[1]} at {sites.host.address}")
        upload(sites.guest, options.home.resolve() / GUEST[1], x, y, started)
        job_id = sites.guest.submit(to_dag(job))
        job_started = time.monotonic()
        _say(started, f"job {job_id}")
        follow(sites.guest, job_id, started)
        seconds = time.monotonic() - job_started
        compared = compare(sites.guest.output_table(job_id, *GUEST, "he_nn_inference_0"), network, x, y)
        inferred = figures(sites.guest, job_id, *GUEST, "he_nn_inference_0")
        crossing = inspect(sites.recordings(), needles)
        kept: dict[str, Any] = {"job_id": job_id, "seconds": round(seconds, 1), "comparison": asdict(compared), "inference": inferred}
        kept["crossing"] = asdict(crossing)
        kept["in_process_seconds"] = in_process_seconds(network, x, options.preset)
        _report(compared, inferred, crossing, len(x), kept["in_process_seconds"])
        control = _control(sites, job, needles, started) if options.control else None
        if control is not None:
            kept["control"] = asdict(control)
            click.echo(f"control          the same in the clear: {control.found} of {control.needles} searched pieces of rows were found")
    click.echo(f"recordings       {options.home.resolve() / 'crossed'}")
    click.echo(f"whole demo       {time.monotonic() - started:.1f} s, the job {seconds:.1f} s")
    if options.json is not None:
        options.json.write_text(json.dumps(kept, indent=1), encoding="utf-8")
    return 0 if compared.clear_agreement == 1.0 and crossing.found == 0 and (control is None or control.found) else 1


def _control(sites: Sites, job: Any, needles: Sequence[bytes], started: float) -> Crossing:
    """What crosses when is_encryption is false at both parties: the same search must find rows."""
    dag = to_dag(job)
    tasks = dag["dag"]["tasks"]
    inference = tasks["he_nn_inference_0"]
    inference["parameters"]["is_encryption"] = False
    inference["inputs"].pop("model")
    dag["dag"]["tasks"] = {"he_nn_inference_0": inference}
    follow(sites.guest, sites.guest.submit(dag), started)
    return inspect(sites.recordings(), needles)


def _report(compared: Comparison, inferred: dict[str, Any], crossing: Crossing, rows: int, within: float) -> None:
    seconds = [f"{name} {inferred[f'seconds_{name}']:.3f}" for name in ("encrypt", "server", "decrypt", "step", "wire")]
    for line in (
        "",
        f"he-nn-inference  {rows} rows: accuracy {compared.plain_accuracy:.4f} plain, {compared.accuracy:.4f} encrypted",
        f"                 agreement with ONNX Runtime {compared.agreement:.2%}, "
        f"largest error of a probability {compared.max_abs_error:.1e}",
        f"inference        {inferred['seconds_total']:.3f} s in {inferred['rounds']} rounds ({', '.join(seconds)})",
        f"                 the same in one process, without FATE: {within:.3f} s",
        f"traffic          {size_text(inferred['bytes_up'])} up, {size_text(inferred['bytes_down'])} down",
        f"crossed          {size_text(crossing.bytes)} between the sites, {crossing.random_share:.0%} of it looks random",
        f"                 {crossing.found} of {crossing.needles} searched pieces of the guest's rows were found in it",
    ):
        click.echo(line)


def _say(started: float, text: str) -> None:
    seconds = time.monotonic() - started
    click.echo(f"[{int(seconds // 60)}:{seconds % 60:04.1f}] {text}")


if __name__ == "__main__":
    sys.exit(main())
