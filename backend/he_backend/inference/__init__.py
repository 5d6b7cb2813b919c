"""Where networks and encrypted arithmetic meet: quantisation, packing, plans."""
