"""Part of a stand-in of FATE 1.x: what a table holds after DataTransform."""


class Instance:
    def __init__(self, inst_id=None, weight=None, features=None, label=None):
        self.inst_id, self.weight, self.features, self.label = inst_id, weight, features, label

    @staticmethod
    def is_instance():
        return True


class SparseVector:
    def __init__(self, values, shape):
        self.values, self.shape = values, shape

    def get_all_data(self):
        return iter(self.values.items())
