"""Part of a stand-in of FATE 1.x; see tests/he_nn/fate1_job.py."""
