"""The he-nn components and their parameters in this FATE. Placed by he_nn_setup.sh; `fate_test unittest federatedml` runs it."""

import importlib
import importlib.util
import traceback
import unittest

SHIM = "federatedml.components.he_nn"  # not there where the components come by a provider

try:
    if importlib.util.find_spec(SHIM) is not None:
        importlib.import_module(SHIM)
    from he_nn.fate1 import components
    from he_nn.fate1.params import HeNNEvalParam, HeNNInferenceParam, HeNNLoadParam
except Exception:
    traceback.print_exc()
    print("FAILED (the he-nn components cannot be imported)")  # fate_test looks for this word alone
    raise SystemExit(1)


class HeNNParamsTest(unittest.TestCase):
    def test_the_components_are_registered_for_guest_and_host(self):
        from federatedml.components.components import ComponentMeta

        for module, name in (("HeNNLoad", "he-nn-load"), ("HeNNEval", "he-nn-eval"), ("HeNNInference", "he-nn-inference")):
            meta = ComponentMeta.get_meta(module)
            self.assertIs(meta, ComponentMeta.get_meta(name))
            self.assertEqual({"guest", "host"}, meta.get_supported_roles())
            for role in ("guest", "host"):
                self.assertTrue(meta.get_run_obj_name(role).startswith(module))
        self.assertTrue(components.he_nn_load_cpn_meta.get_param_obj("he_nn_load_0").check())

    def test_the_defaults_pass(self):
        for param in (HeNNLoadParam(), HeNNEvalParam(), HeNNInferenceParam()):
            self.assertTrue(param.check())

    def test_a_wrong_value_is_refused_by_name_and_range(self):
        for param, value, field in ((HeNNEvalParam(), 513, "batch_size"), (HeNNInferenceParam(), 0, "num_inference")):
            param.update({field: value})
            with self.assertRaises(ValueError) as refused:
                param.check()
            self.assertIn(field, str(refused.exception))
            self.assertIn(str(value), str(refused.exception))

    def test_an_unknown_parameter_is_refused(self):
        with self.assertRaises(ValueError):
            HeNNLoadParam().set_name("he_nn_load_0").update({"modeltype": "CNN"})


if __name__ == "__main__":
    unittest.main()
