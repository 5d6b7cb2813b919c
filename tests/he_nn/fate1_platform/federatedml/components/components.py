"""Part of a stand-in of FATE 1.x: the registry of components, whose parameters and runners are found by functions."""


class _Runners:
    def __init__(self, meta):
        self._meta, self._roles = meta, []

    def __getattr__(self, name):
        self._roles.append(name[len("on_") :])
        return self

    def __call__(self, getter):
        self._meta.runners.update(dict.fromkeys(self._roles, getter))
        return getter


class ComponentMeta:
    _by_name: dict = {}  # noqa: RUF012 - FATE's is one registry too

    def __init__(self, name, *others):
        self.alias = [name, *others]
        self.name = "|".join(self.alias)
        self.runners, self._param = {}, None
        self._by_name.update(dict.fromkeys(self.alias, self))

    @classmethod
    def get_meta(cls, name):
        return cls._by_name[name]

    @property
    def bind_runner(self):
        return _Runners(self)

    def bind_param(self, getter):
        self._param = getter
        return getter

    def get_supported_roles(self):
        return set(self.runners)

    def get_run_obj(self, role):
        runner = self.runners[role]()
        runner.set_component_name(self.alias[0])
        return runner()

    def get_run_obj_name(self, role):
        return self.runners[role]().__name__

    def get_param_obj(self, cpn_name):
        return self._param()().set_name(f"{self.name}#{cpn_name}")
