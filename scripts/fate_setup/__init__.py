"""Adds the he-nn components to a FATE deployment and takes them out again: the logic of he_nn_setup.sh. Standard library only."""
