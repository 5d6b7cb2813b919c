"""The binding to FATE 2.2: components, the standalone server of demo and tests, and the client of FATE Flow."""
