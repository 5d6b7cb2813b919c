"""The FATE plugin: he-nn-load, he-nn-eval and he-nn-inference."""
