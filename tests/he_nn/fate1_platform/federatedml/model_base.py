"""Part of a stand-in of FATE 1.x: what every runner inherits, as far as a runner with a `run` of its own uses it."""

import copy


class Metric:
    def __init__(self, key, value, timestamp=None):
        self.key, self.value, self.timestamp = key, value, timestamp

    def to_dict(self):
        return {"key": self.key, "value": self.value, "timestamp": self.timestamp}


class MetricMeta:
    def __init__(self, name, metric_type, extra_metas=None):
        self.name, self.metric_type, self.extra_metas, self.metas = name, metric_type, extra_metas, {}

    def update_metas(self, metas):
        self.metas.update(metas)


class ComponentOutput:
    def __init__(self, data, models, cache):
        self.data = data if isinstance(data, list) else [data]
        self._models, self.cache = models or {}, cache

    @property
    def model(self):
        return {name: (type(one).__name__, one.SerializeToString()) for name, one in self._models.items()}


class _Properties:
    role = None
    host_party_idlist = ()
    need_run = True

    def parse_component_param(self, roles, param):
        self.role, self.host_party_idlist = roles["local"]["role"], roles["role"].get("host")
        return self


class _Tracker:
    def __init__(self, tracker):
        self._tracker = tracker

    def set_metric_meta(self, metric_namespace, metric_name, metric_meta):
        self._tracker.set_metric_meta(metric_namespace, metric_name, {"type": metric_meta.metric_type, **metric_meta.metas})

    def log_metric_data(self, metric_namespace, metric_name, metrics):
        self._tracker.log_metric_data(metric_namespace, metric_name, [metric.to_dict() for metric in metrics])

    def log_component_summary(self, summary_data):
        self._tracker.log_component_summary(summary_data)


class ModelBase:
    component_name = None

    @classmethod
    def set_component_name(cls, name):
        cls.component_name = name

    @classmethod
    def get_component_name(cls):
        return cls.component_name

    def __init__(self):
        self.model_output = self.data_output = self.cache_output = self.model_param = self.role = None
        self.component_properties = _Properties()
        self._summary, self._tracker = {}, None

    @property
    def tracker(self):
        if self._tracker is None:
            raise RuntimeError("use tracker before set")
        return self._tracker

    @tracker.setter
    def tracker(self, value):
        self._tracker = _Tracker(value)

    def run(self, cpn_input, retry=True):
        raise AssertionError("FATE's own run looks protobuf classes up where ours are not, and needs a data input")

    def _export(self):
        exported = self.export_model()
        if exported is None:
            return None
        meta = exported[next(key for key in exported if key.endswith("Meta"))]
        next(key for key in exported if key.endswith("Param"))
        meta.component = self.get_component_name()
        return exported

    def export_model(self):
        return self.model_output

    def save_data(self):
        return self.data_output

    def save_cache(self):
        return self.cache_output

    def callback_meta(self, metric_name, metric_namespace, metric_meta):
        metric_meta.update_metas({"curve_name": metric_name})
        self.tracker.set_metric_meta(metric_namespace, metric_name, metric_meta)

    def callback_metric(self, metric_name, metric_namespace, metric_data):
        self.tracker.log_metric_data(metric_namespace, metric_name, metric_data)

    def set_summary(self, new_summary):
        if not isinstance(new_summary, dict):
            raise ValueError("summary should be of dict type")
        self._summary = copy.deepcopy(new_summary)

    def save_summary(self):
        self.tracker.log_component_summary(copy.deepcopy(self._summary))
