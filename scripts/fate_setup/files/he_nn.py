"""he-nn-load, he-nn-eval and he-nn-inference in FATE's list of components. Placed by he_nn_setup.sh; take it out with --uninstall."""

try:
    from he_nn.fate1.components import (
        he_nn_eval_cpn_meta,
        he_nn_inference_cpn_meta,
        he_nn_load_cpn_meta,
    )

    __all__ = ["he_nn_eval_cpn_meta", "he_nn_inference_cpn_meta", "he_nn_load_cpn_meta"]
except Exception as problem:  # FATE Flow imports this file to list its components: it must start without these too
    __all__ = []

    def _refuse(said: str) -> None:
        """Leaves the components out of FATE's list. FATE Flow knows their names from before: a job with one is refused with the reason."""
        from federatedml.components.components import ComponentMeta
        from federatedml.util import LOGGER

        why = (
            f"he-nn cannot be imported in FATE's Python ({said}): run he_nn_setup.sh again and restart FATE Flow, or take he-nn out with "
            "he_nn_setup.sh --uninstall"
        )
        LOGGER.warning(f"the components he-nn-load, he-nn-eval and he-nn-inference are left out: {why}")

        def refuse():
            raise ImportError(why)

        for names in (("HeNNLoad", "he-nn-load"), ("HeNNEval", "he-nn-eval"), ("HeNNInference", "he-nn-inference")):
            meta = ComponentMeta(*names)
            meta.bind_param(refuse)
            meta.bind_runner.on_guest.on_host(refuse)

    _refuse(f"{type(problem).__name__}: {problem}")
