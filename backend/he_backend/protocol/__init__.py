"""Bytes and turns: messages, the order they may come in, and links that carry them. Knows neither ciphertexts nor networks."""
