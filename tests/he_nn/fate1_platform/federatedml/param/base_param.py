"""Part of a stand-in of FATE 1.x: parameters are attributes, an unknown one is refused."""


class BaseParam:
    def __init__(self):
        pass

    def set_name(self, name):
        self._name = name
        return self

    def check(self):
        raise NotImplementedError("Parameter Object should be checked.")

    def as_dict(self):
        return dict(vars(self))

    def update(self, conf, allow_redundant=False):
        redundant = [key for key in conf if key not in vars(self)]
        if redundant and not allow_redundant:
            raise ValueError(f"cpn `{getattr(self, '_name', type(self))}` has redundant parameters: `{[redundant]}`")
        for key, value in conf.items():
            if key in vars(self):
                setattr(self, key, value)
        return self
