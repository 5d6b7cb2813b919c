"""he-nn-load, he-nn-eval and he-nn-inference in FATE's list of components. Placed by he_nn_setup.sh; take it out with --uninstall."""

from he_nn.fate1.components import (
    he_nn_eval_cpn_meta,
    he_nn_inference_cpn_meta,
    he_nn_load_cpn_meta,
)

__all__ = ["he_nn_eval_cpn_meta", "he_nn_inference_cpn_meta", "he_nn_load_cpn_meta"]
