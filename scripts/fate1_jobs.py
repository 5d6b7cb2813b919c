"""`make test-fate1`: the examples on a real FATE 1.9 to 1.11, from installation to a deployment without a trace of it.

Installs with he_nn_setup.sh, (re)starts FATE Flow, submits every example with `flow job submit -c -d`, waits, and checks states, output
rows and metrics over FATE Flow's REST interface; then a refused parameter, jobs that fail, are stopped, or lose a party's process, and what
the channel costs; then removes its tables and uninstalls, unless he-nn was installed before. Standard library only, so that any Python
runs it. Without FATE_PROJECT_BASE it says so and ends well.
"""

from __future__ import annotations

import os
import sys
import tempfile
from pathlib import Path

from fate1 import endings, overhead
from fate1.checks import check
from fate1.examples import Examples, refused
from fate1.flow import GUEST, HOST, Flow
from fate1.platform import flow_server, is_installed, services, setup, snapshot, surroundings
from fate1.tables import prepared
from fate1.unit import unit_tests
from fate_setup import deployment as deployments


def main() -> int:
    """The exit status is 0 when every check held, or when there is no deployment."""
    base = os.environ.get("FATE_PROJECT_BASE", "")
    if not base:
        print("test-fate1 skipped: FATE_PROJECT_BASE names no FATE 1.9 to 1.11 (make test-fate1 FATE_PROJECT_BASE=/data/projects/fate)")
        return 0
    try:
        found = deployments.find(base=base)
        stays = is_installed(found)
    except deployments.SetupError as problem:
        print(f"test-fate1: {problem}", file=sys.stderr)
        return 1
    before = snapshot(found)
    with tempfile.TemporaryDirectory() as folder:
        home = Path(folder)
        environment = surroundings(found, home)
        try:
            setup(found)
            setup(found, "--check")
            unit_tests(found, environment)
            with flow_server(found, environment) as address, services(home) as (server_url, client_url):
                seconds = jobs(Flow(found, address, home, environment), server_url, client_url)
        finally:
            if not stays:
                setup(found, "--uninstall")
    if stays:
        print("he-nn was installed before this check: it was brought up to date and stays")
    else:
        left = sorted(set(snapshot(found)) ^ set(before))
        check(not left, f"uninstalled without a trace (left or gone: {left[:5]})")
    print(f"FATE {found.version}: seconds from submission to success")
    for name, value in seconds.items():
        print(f"  {name:<48} {value:6.1f}")
    print("test-fate1 passed")
    return 0


def jobs(flow: Flow, server_url: str, client_url: str) -> dict[str, float]:
    """Seconds of each example that ended in success; then the jobs that do not, and the measurement."""
    with prepared(flow) as counts:
        examples = Examples(flow, counts)
        examples.run(server_url, client_url)
        refused(flow)
        for failure in endings.FAILURES:
            endings.failed(flow, *failure)
        endings.apart(flow, HOST[0])
        endings.stopped(flow)
        for role in (HOST[0], GUEST[0]):
            endings.killed(flow, role)
        overhead.measure(flow)
    return examples.seconds


if __name__ == "__main__":
    sys.exit(main())
