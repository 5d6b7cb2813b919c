"""The components of the he-nn provider. Placed by he_nn_setup.sh --provider."""
