"""HE-server: the model owner's side. It holds networks and plans, sees ciphertexts, and has no way to a secret key."""
