"""Part of a stand-in of FATE 1.x: named variables from some roles to others."""

from fate_arch.session import get_session


class Variable:
    _by_name: dict = {}  # noqa: RUF012 - FATE's variables are one for each name too

    def __init__(self, name, src, dst):
        self.name, self.src, self.dst = name, src, dst
        self.cleans = True  # FATE drops all but the last objects where this stays

    def disable_auto_clean(self):
        self.cleans = False
        return self

    def remote(self, obj, role=None, idx=-1, suffix=()):
        session = get_session()
        if session.role not in self.src or role not in self.dst:
            raise RuntimeError(f"not allowed to remote object from {session.role} to {role} using {self.name}")
        if idx >= session.parties.get(role, 0):
            raise RuntimeError(f"try to remote to {idx}th party while only {session.parties.get(role, 0)} configurated, check {self.name}")
        session.remote(obj, self.name, ".".join(map(str, suffix)), self.cleans)

    def get(self, idx=-1, role=None, suffix=()):
        session = get_session()
        if session.role not in self.dst:
            raise RuntimeError(f"not allowed to get object to {session.role} using {self.name}")
        got = session.get(self.name, ".".join(map(str, suffix)))
        return got if idx >= 0 else [got]


class BaseTransferVariables:
    def __init__(self, *args):
        pass

    def _create_variable(self, name, src, dst):
        full = f"{self.__module__}.{type(self).__name__}.{name}"
        return Variable._by_name.setdefault(full, Variable(full, tuple(src), tuple(dst)))
