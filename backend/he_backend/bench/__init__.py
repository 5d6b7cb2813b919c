"""Measurements, each figure beside a baseline of the same run: plain ONNX Runtime and the SEAL engine."""
