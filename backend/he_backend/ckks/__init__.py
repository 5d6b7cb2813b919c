"""Encrypted arithmetic: parameters, keys, ciphertext arrays, exact affine maps. Never hears of a network or a socket."""
