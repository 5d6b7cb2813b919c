"""FATE 1.x conf and dsl JSON (dsl_version 2) as a FATE 2.2 DAG, so that the same two files run on both.

A Reader becomes an external input of the tasks that read from it (FATE 2.x tables are data frames already), DataTransform and DataIO pass
their input on, and the three he-nn components and Evaluation become tasks. Everything that has no place in FATE 2.2 is reported at once.
"""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Iterator, Mapping

from he_backend.errors import InputError, ParameterError

from .params import COMPONENTS, CUSTOM_FILE, InferenceParams
from .roles import by_service

SCHEMA_VERSION = "2.2.0"
MODULES = {"hennload": "he-nn-load", "henneval": "he-nn-eval", "henninference": "he-nn-inference", "evaluation": "evaluation"}
READERS = {"reader"}
PASSED_ON = {"datatransform", "dataio"}
# What DataTransform and DataIO may say without changing a value; what else they do belongs before the upload in FATE 2.x.
HARMLESS = {
    "input_format",
    "delimitor",
    "data_type",
    "exclusive_data_type",
    "tag_with_value",
    "tag_value_delimitor",
    "missing_fill",
    "outlier_replace",
    "with_label",
    "label_name",
    "label_type",
    "output_format",
    "with_match_id",
    "match_id_name",
    "need_run",
}
SWITCHES = {"missing_fill", "outlier_replace"}
JOB_PARAMETERS = {
    "job_type",
    "inheritance_info",
    "task_cores",
    "computing_partitions",
    "auto_retries",
    "auto_retry_delay",
    "timeout",
    "model_id",
    "model_version",
    "work_mode",
    "backend",
    "task_parallelism",
    "federated_status_collect_type",
    "eggroll_run",
    "spark_run",
    "adaptation_parameters",
    "computing_engine",
    "federation_engine",
    "storage_engine",
    "engines_address",
}
EVALUATIONS = {"binary": "binary", "multi": "multi", "regression": "regression"}


@dataclass(frozen=True)
class Job:
    """The two files of a FATE 1.x job, and the folder that their relative paths start from."""

    conf: Mapping[str, Any]
    dsl: Mapping[str, Any]
    folder: Path


def read_job(conf: str, dsl: str) -> Job:
    """The job in two files. Raises InputError for a file that is missing or not a JSON object."""
    return Job(_read_json(conf, "conf"), _read_json(dsl, "dsl"), Path(dsl).resolve().parent)


def to_dag(job: Job) -> dict[str, Any]:
    """The DAG schema that FATE Flow 2.2 takes. Raises ParameterError that lists everything wrong or unsupported."""
    return _Translation(job).run()


def rows_beside(job: Job, component: Any) -> str:
    """The path of the default file_inference of an inference without a table, where it lies beside the dsl file; '' otherwise."""
    if not isinstance(component, dict) or MODULES.get(str(component.get("module", "")).lower()) != "he-nn-inference":
        return ""
    given = component.get("input")
    path = (job.folder / InferenceParams.file_inference).resolve()
    has_table = isinstance(given, dict) and bool(given.get("data"))
    return str(path) if path.is_file() and not has_table else ""


def _read_json(path: str, what: str) -> dict[str, Any]:
    try:
        content = json.loads(Path(path).read_text(encoding="utf-8"))
    except OSError as failure:
        raise InputError(f"{what}: {path} cannot be read ({failure.strerror})") from None
    except ValueError as failure:
        raise InputError(f"{what}: {path} is not JSON ({failure})") from None
    if not isinstance(content, dict):
        raise InputError(f"{what}: {path} holds {type(content).__name__}, a JSON object is expected")
    return content


class _Translation:
    """One translation: walks the job once and collects the problems on its way."""

    def __init__(self, job: Job) -> None:
        self._job = job
        self._problems: list[str] = []
        self._components: Mapping[str, Any] = self._mapping(job.dsl.get("components"), "dsl: components")
        self._roles = self._read_roles()
        parameters = self._mapping(job.conf.get("component_parameters", {}), "conf: component_parameters")
        self._common = self._mapping(parameters.get("common", {}), "conf: component_parameters.common")
        self._special = self._mapping(parameters.get("role", {}), "conf: component_parameters.role")

    def run(self) -> dict[str, Any]:
        if self._job.conf.get("dsl_version", 2) != 2:
            self._problem(f"conf: dsl_version is {self._job.conf['dsl_version']!r}; only 2 is known")
        for name in [*self._common, *(name for part in self._each_special() for name in part[2])]:
            if name not in self._components:
                self._problem(f"conf: parameters for {name}, which is not among the dsl's components")
        tasks = {name: self._task(name) for name in self._components if self._kind(name) not in READERS | PASSED_ON}
        for name in self._components:
            if self._kind(name) in PASSED_ON:
                self._check_passed_on(name)
        dag: dict[str, Any] = {"parties": self._parties(), "stage": "default", "conf": self._configuration(), "tasks": tasks}
        party_tasks = self._party_tasks(tasks)
        if party_tasks:
            dag["party_tasks"] = party_tasks
        if not tasks and not self._problems:
            self._problem("dsl: there is no component to run")
        if self._problems:
            unique = list(dict.fromkeys(self._problems))
            raise ParameterError("\n  ".join(["this job does not run on FATE 2.2:", *unique]))
        return {"schema_version": SCHEMA_VERSION, "kind": "fate", "dag": dag}

    def _problem(self, text: str) -> None:
        self._problems.append(text)

    def _mapping(self, value: Any, where: str) -> Mapping[str, Any]:
        if isinstance(value, dict):
            return value
        self._problem(f"{where}: a JSON object is expected, {type(value).__name__} came")
        return {}

    def _kind(self, name: str) -> str:
        component = self._components[name]
        return str(component.get("module", "")).lower() if isinstance(component, dict) else ""

    # parties

    def _read_roles(self) -> dict[str, list[str]]:
        roles = {}
        for role, parties in self._mapping(self._job.conf.get("role"), "conf: role").items():
            if role not in ("guest", "host", "arbiter") or not isinstance(parties, list) or not parties:
                self._problem(f"conf: role.{role}: allowed are guest, host and arbiter, each with a list of party ids")
            elif role != "arbiter":  # nobody in these jobs needs one
                roles[role] = [str(party) for party in parties]
        if "guest" not in roles:
            self._problem("conf: role.guest is missing: the data owner's party id")
        return roles

    def _parties(self, *only: str) -> list[dict[str, Any]]:
        return [{"role": role, "party_id": ids} for role, ids in self._roles.items() if not only or role in only]

    def _configuration(self) -> dict[str, Any]:
        initiator = self._mapping(self._job.conf.get("initiator", {}), "conf: initiator")
        given = self._mapping(self._job.conf.get("job_parameters", {}), "conf: job_parameters")
        values = self._mapping(given.get("common", {}), "conf: job_parameters.common")
        for name in sorted(set(values) - JOB_PARAMETERS):
            self._problem(f"conf: job_parameters.common.{name} has no counterpart in FATE 2.2")
        if given.get("role"):
            self._problem("conf: job_parameters.role has no counterpart in FATE 2.2; say it under job_parameters.common")
        if values.get("job_type", "train") != "train":
            self._problem(f"conf: job_type {values['job_type']!r}: he-nn jobs have one kind in FATE 2.2; leave it 'train'")
        conf: dict[str, Any] = {}
        party = str(initiator.get("party_id", "")) or self._roles.get("guest", [""])[0]
        conf["initiator_party_id"] = conf["scheduler_party_id"] = party
        for name, target in (("computing_partitions", "computing_partitions"), ("auto_retries", "auto_retries"), ("task_cores", "cores")):
            if name in values:
                conf[target] = values[name]
        if "timeout" in values:
            conf["task"] = {"timeout": values["timeout"]}
        return conf

    # tasks

    def _task(self, name: str) -> dict[str, Any]:
        component = self._mapping(self._components[name], f"dsl: {name}")
        reference = MODULES.get(self._kind(name))
        if reference is None:
            known = "HeNNLoad, HeNNEval, HeNNInference, Evaluation, Reader, DataTransform, DataIO"
            self._problem(f"dsl: {name}: module {component.get('module')!r} is not translated; known are {known}")
            return {}
        given = self._mapping(component.get("input", {}), f"dsl: {name}: input")
        inputs: dict[str, Any] = {}
        tables = self._sources(name, given.get("data", {}))
        models = given.get("model", [])
        if reference == "evaluation":
            if not tables:
                self._problem(f"dsl: {name}: Evaluation needs the data output of another component")
            channels = [self._data_channel(name, source) for source in tables]
            inputs["data"] = {"input_datas": channels[0] if len(channels) == 1 else channels}
        else:
            if len(tables) > 1 or (tables and reference != "he-nn-inference"):
                allowed = "one data input" if reference == "he-nn-inference" else "no data input"
                self._problem(f"dsl: {name}: {reference} takes {allowed}, {len(tables)} came")
            if tables:
                inputs["data"] = {"input_data": self._data_channel(name, tables[0])}
            if not isinstance(models, list) or len(models) > (0 if reference == "he-nn-load" else 1):
                self._problem(f"dsl: {name}: input.model takes {'nothing' if reference == 'he-nn-load' else 'a list of one component'}")
            elif models:
                inputs["model"] = {"input_model": {"task_output_artifact": self._model_channel(name, str(models[0]))}}
        for key in sorted(set(given) - {"data", "model"}):
            self._problem(f"dsl: {name}: input.{key} has no counterpart in FATE 2.2")
        parameters = dict(self._mapping(self._common.get(name, {}), f"conf: parameters of {name}"))
        beside = rows_beside(self._job, component)
        if beside:
            parameters.setdefault("file_inference", beside)
        task: dict[str, Any] = {"component_ref": reference, "parameters": self._parameters(name, reference, parameters)}
        if inputs:
            task["inputs"] = inputs
        if reference == "evaluation":
            task["parties"] = self._parties("guest")  # predictions are the guest's alone
        elif reference in COMPONENTS:
            task["parties"] = self._parties()
            self._check_parameters(name, reference)
        return task

    def _sources(self, name: str, data: Any) -> list[str]:
        """component.output of every data input, whatever FATE 1.x calls it."""
        found = []
        for key, sources in self._mapping(data, f"dsl: {name}: input.data").items():
            if key not in ("data", "test_data", "train_data") or not isinstance(sources, list):
                self._problem(f"dsl: {name}: input.data.{key}: allowed is data (or test_data) with a list of component outputs")
            else:
                found += [str(source) for source in sources]
        return found

    def _data_channel(self, name: str, source: str) -> dict[str, Any]:
        seen = []
        while True:
            producer = source.split(".")[0]
            if producer not in self._components or producer in seen:
                self._problem(f"dsl: {name}: its data comes from {source!r}, which is not there (or is itself)")
                return {}
            seen.append(producer)
            if self._kind(producer) in READERS:
                return {"data_warehouse": self._tables(name, producer)}
            if self._kind(producer) not in PASSED_ON:
                if MODULES.get(self._kind(producer)) != "he-nn-inference":
                    self._problem(f"dsl: {name}: {producer} has no data output")
                channel = {"producer_task": producer, "output_artifact_key": "output_data", "parties": self._parties("guest")}
                return {"task_output_artifact": channel}
            upstream = self._sources(producer, self._mapping(self._components[producer].get("input", {}), "input").get("data", {}))
            if len(upstream) != 1:
                self._problem(f"dsl: {producer}: one data input is expected, {len(upstream)} came")
                return {}
            source = upstream[0]

    def _tables(self, name: str, reader: str) -> dict[str, Any]:
        """The guest's table of a Reader. The one that FATE 1.x wants of every host is nobody's here: the model owner brings no rows."""
        table = None
        for role, _, values in self._each_special():
            own = self._mapping(values.get(reader, {}), f"conf: parameters of {reader}")
            if role == "guest" and own:
                table = own.get("table")
        table = table or self._mapping(self._common.get(reader, {}), f"conf: {reader}").get("table")
        if not isinstance(table, dict) or not table.get("name") or not table.get("namespace"):
            self._problem(f"conf: {reader}: a table with name and namespace is missing under component_parameters.role.guest")
            return {}
        return {"name": table["name"], "namespace": table["namespace"], "parties": self._parties("guest")}

    def _model_channel(self, name: str, source: str) -> dict[str, Any]:
        producer = source.split(".")[0]
        if producer not in self._components or MODULES.get(self._kind(producer)) not in COMPONENTS:
            self._problem(f"dsl: {name}: its model comes from {source!r}; a HeNNLoad, HeNNEval or HeNNInference is expected")
        return {"producer_task": producer, "output_artifact_key": "output_model", "parties": self._parties()}

    def _check_passed_on(self, name: str) -> None:
        for values in [self._common.get(name, {}), *(part[2].get(name, {}) for part in self._each_special())]:
            for key, value in self._mapping(values, f"conf: parameters of {name}").items():
                if key not in HARMLESS or (key in SWITCHES and value):
                    self._problem(f"conf: {name}.{key}: FATE 2.x has no such step; do it before the upload")

    # parameters

    def _each_special(self) -> Iterator[tuple[str, str, Mapping[str, Any]]]:
        """(role, party id, parameters by component) for each party that has parameters of its own; '0|1' and 'all' are spelled out."""
        for role, by_index in self._special.items():
            ids = self._roles.get(role, [])
            for key, values in self._mapping(by_index, f"conf: component_parameters.role.{role}").items():
                for index in range(len(ids)) if key == "all" else key.split("|"):
                    if not str(index).isdigit() or int(index) >= len(ids):
                        self._problem(f"conf: component_parameters.role.{role}.{key}: there are {len(ids)} parties, counted from 0")
                    else:
                        yield role, ids[int(index)], self._mapping(values, f"conf: component_parameters.role.{role}.{key}")

    def _party_tasks(self, tasks: Mapping[str, Any]) -> dict[str, Any]:
        found: dict[str, Any] = {}
        for role, party, values in self._each_special():
            own = {name: part for name, part in values.items() if name in tasks and part}
            for name, part in own.items():
                place = found.setdefault(f"{role}_{party}", {"parties": [{"role": role, "party_id": [party]}], "tasks": {}})
                parameters = self._parameters(name, tasks[name].get("component_ref", ""), dict(part))
                place["tasks"].setdefault(name, {"parameters": {}})["parameters"].update(parameters)
        return found

    def _parameters(self, name: str, reference: str, values: dict[str, Any]) -> dict[str, Any]:
        """A component's parameters as FATE 2.2 takes them."""
        values.pop("need_run", None)
        if reference == "evaluation":
            return self._evaluation(name, values)
        if values.get("is_custom_enc_param") is True:
            path = self._job.folder / CUSTOM_FILE
            try:
                values["encryption_parameters"] = path.read_text(encoding="utf-8")
            except OSError:
                self._problem(f"{name}: is_custom_enc_param is true and there is no {CUSTOM_FILE} beside the dsl file")
        rows = values.get("file_inference")
        if isinstance(rows, str) and not Path(rows).is_absolute() and (self._job.folder / rows).is_file():
            values["file_inference"] = str((self._job.folder / rows).resolve())
        return values

    def _evaluation(self, name: str, values: dict[str, Any]) -> dict[str, Any]:
        kind = values.pop("eval_type", "binary")
        if kind not in EVALUATIONS:
            self._problem(f"conf: {name}.eval_type {kind!r}: FATE 2.2 knows {', '.join(EVALUATIONS)}")
        values.pop("pos_label", None)
        result: dict[str, Any] = {"default_eval_setting": EVALUATIONS.get(kind, kind)}
        if values.get("metrics"):
            result["metrics"] = values.pop("metrics")
        values.pop("metrics", None)
        for key in values:
            self._problem(f"conf: {name}.{key} has no counterpart in FATE 2.2's Evaluation")
        return result

    def _check_parameters(self, name: str, reference: str) -> None:
        """The component's own check, now rather than minutes later: for all, and for each party that has values of its own."""
        common = self._parameters(name, reference, dict(self._mapping(self._common.get(name, {}), name)))
        sets = {(role, party): common for role, parties in self._roles.items() for party in parties}
        for role, party, values in self._each_special():
            own = values.get(name)
            if own:
                sets[role, party] = {**sets[role, party], **self._parameters(name, reference, dict(self._mapping(own, name)))}
        services = set()
        for values in sets.values():
            try:
                params = COMPONENTS[reference].of(values)
            except ParameterError as wrong:
                for line in str(wrong).split("\n  ")[1:]:
                    self._problem(f"conf: {name}.{line}")
                continue
            services.add(by_service(params))
            if "host" not in self._roles and not getattr(params, "server_url", ""):
                self._problem(f"conf: {name}.server_url is '' (embedded mode), which needs a host party; role has none")
        if len(services) > 1:
            self._problem(
                f"conf: {name}: one party goes by a service (server_url or client) and the other does not; say both in "
                "component_parameters.common"
            )
