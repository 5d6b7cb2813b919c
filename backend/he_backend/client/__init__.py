"""HE-client: the data owner's side. It holds rows, secret keys, activations and predictions, and never a weight."""
