"""The he-nn component provider. Placed by he_nn_setup.sh --provider; take it out with --uninstall."""
