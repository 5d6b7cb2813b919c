"""The binding to FATE 1.9 to 1.11: everything that imports federatedml. Nothing here is imported outside of such a FATE."""
