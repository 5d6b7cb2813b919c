"""Unit tests of the he-nn components, for fate_test. Placed by he_nn_setup.sh."""
