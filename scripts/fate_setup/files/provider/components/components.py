"""How FATE Flow finds the he-nn provider's components. Placed by he_nn_setup.sh --provider."""

from federatedml.components.components import Components as FateComponents


class Components(FateComponents):
    """The components of this folder, found as FATE finds its own."""
