"""A component of a FATE 1.x job on a stand-in of the platform (fate1_platform), guest and host in a thread each.

The stand-in holds what the binding uses of federatedml and fate_arch, with their refusals: unknown parameters, a (variable, suffix) pair
used twice, objects that are not bytes, objects that FATE cleans up. It was compared with FATE 1.9.0 and 1.11.5, where the same jobs ran.
"""

from __future__ import annotations

import asyncio
import sys
import threading
from pathlib import Path
from types import SimpleNamespace

PLATFORM = Path(__file__).with_name("fate1_platform")
NAMES = ("federatedml", "fate_arch", "he_nn.fate1")


class Tracker:
    """What a task reported, as FATE Flow keeps it."""

    def __init__(self):
        self.metas, self.points, self.summary = {}, {}, {}

    def set_metric_meta(self, namespace, name, meta):
        self.metas[namespace, name] = meta

    def log_metric_data(self, namespace, name, metrics):
        assert (namespace, name) in self.metas, "FATE-Board shows no metric without meta"
        self.points.setdefault(name, {}).update({metric["key"]: metric["value"] for metric in metrics})

    def log_component_summary(self, summary_data):
        self.summary = summary_data


class Party:
    """One role's task of a component: `data`, `model` (as FATE stores it) and `tracker` when it is done, `error` when it failed."""

    def __init__(self, role):
        self.role, self.tracker = role, Tracker()
        self.data = self.error = None
        self.model = {}


def start():
    """Puts the stand-in where FATE's packages would be, with the components registered; gives what undoes it."""
    before = set(sys.modules)
    sys.path.insert(0, str(PLATFORM))
    import he_nn.fate1.components  # noqa: F401

    def stop():
        sys.path.remove(str(PLATFORM))
        for name in set(sys.modules) - before:
            if name.startswith(NAMES):
                del sys.modules[name]

    return stop


def parameters(module, values, alias="component_0"):
    """What FATE Flow makes of a component's part of the conf; raises what the submission is refused with."""
    from federatedml.components.components import ComponentMeta

    param = ComponentMeta.get_meta(module).get_param_obj(alias).update(values)
    param.check()
    return {name: value for name, value in param.as_dict().items() if not name.startswith("_")}


def run(module, values, table=None, models=None, hosts=1, host_values=None, told=None):
    """(guest, host) of one component, told first; raises the guest's error, or the host's where the guest was only broken off by it."""
    from fate_arch.session import Federation

    federation = Federation()
    parties = [Party("guest"), Party("host")][: 1 + min(hosts, 1)]
    threads = []
    for party in parties:
        own = values if party.role == "guest" or host_values is None else host_values
        given = dict.fromkeys(("model",), models[party.role]) if models else {"model": None}
        arguments = (party, module, parameters(module, own), table if party.role == "guest" else None, given, hosts, federation)
        threads.append(threading.Thread(target=_task, args=arguments, daemon=True))
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(120)
    guest, host = parties[0], parties[1] if len(parties) > 1 else None
    guest.crossed = federation.sizes
    if told is not None:
        told(parties)
    errors = [party.error for party in parties if party.error is not None]
    if errors:
        raise next((error for error in errors if "task has failed" not in str(error)), errors[0])
    return guest, host


def chained(name, guest, host):
    """The model output of both parties as the next component gets it."""
    return {"guest": {name: guest.model}, "host": {name: host.model if host else {}}}


def _task(party, module, values, table, models, hosts, federation):
    from fate_arch.session import Session
    from federatedml.components.components import ComponentMeta

    ids = {"guest": [9999], **({"host": [10000 + index for index in range(hosts)]} if hosts else {})}
    given = SimpleNamespace(
        parameters=values,
        datasets={"reader_0": {"data": [table]}},
        models=models,
        roles={"role": ids, "local": {"role": party.role, "party_id": ids[party.role][0]}},
        tracker=party.tracker,
        task_version_id="0",
        checkpoint_manager=None,
        caches=None,
    )
    asyncio.set_event_loop(asyncio.new_event_loop())  # as a process has one
    with Session(party.role, {role: len(members) for role, members in ids.items()}, federation):
        try:
            done = ComponentMeta.get_meta(module).get_run_obj(party.role).run(given)
            party.data, party.model = done.data[0], done.model
        except Exception as error:  # noqa: BLE001 - the test looks at it
            party.error = error
            federation.break_off()
