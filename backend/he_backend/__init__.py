"""he_backend: encrypted neural-network inference (CKKS, client-aided activations)."""
