"""A small encrypted inference in this FATE's Python. Placed by he_nn_setup.sh; `fate_test unittest federatedml` runs it."""

import traceback
import unittest

try:
    from he_backend import local, zoo
    from he_nn.artifact import ModelArtifact
    from he_nn.fate1.models import export_model, read_model
except Exception:
    traceback.print_exc()
    print("FAILED (he-nn cannot be imported)")  # fate_test looks for this word alone
    raise SystemExit(1)


class HeNNInferenceTest(unittest.TestCase):
    def test_encrypted_digits_are_recognised_as_plain_ones_are(self):
        network = zoo.shipped("MLP", "digits")
        rows, labels = network.load_test()

        result = local.infer(str(network.onnx_path), rows[:32], preset="N11_L1")

        self.assertEqual((32, 10), result.output.shape)
        self.assertEqual(1.0, result.report.agreement)
        self.assertGreater((result.output.argmax(axis=1) == labels[:32]).mean(), 0.9)

    def test_a_model_artifact_survives_fates_model_store(self):
        artifact = ModelArtifact("id", "name", "MLP", "N11_L1", 0.5, {"rounds": 3}, {"rows": 2})

        stored = {name: (type(one).__name__, one.SerializeToString()) for name, one in export_model("HeNNLoad", artifact).items()}

        self.assertEqual(artifact, read_model({"model": {"he_nn_load_0": stored}}))


if __name__ == "__main__":
    unittest.main()
