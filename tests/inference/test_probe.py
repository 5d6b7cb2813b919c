"""The environment test: which primes it takes, and what error it allows."""

from __future__ import annotations

import math

import numpy as np
import pytest

from he_backend.ckks.engines import traits
from he_backend.ckks.params import PRESETS, check_params, load_params
from he_backend.client.environment import EnvironmentTest
from he_backend.errors import ParameterError
from he_backend.inference.probe import NORM, probe_map, probe_of, probe_values
from tests.parties import client_of, digits, service_of


def params_of(degree, bits):
    return check_params({"poly_modulus_degree": degree, "coeff_modulus": bits})


@pytest.mark.parametrize("engine", ["native", "seal", "clear"])
@pytest.mark.parametrize("preset", PRESETS)
def test_of_the_presets_it_takes_the_first_prime_and_allows_little(engine, preset):
    probe = probe_of(engine, load_params(preset))

    assert probe.level == 1 and probe.allowed < 0.02


def test_small_primes_are_taken_together():
    assert probe_of("native", params_of(4096, [20, 20, 30])).level == 2
    assert probe_of("native", params_of(2048, [20, 20])).level == 1  # the second is the key-switching prime
    assert probe_of("native", params_of(8192, [20, 60, 60])).level == 1  # to 26 bits of 80, too little would be left
    assert probe_of("clear", params_of(8192, [20, 60, 60])).level == 1  # 80 bits are more than that engine computes with


@pytest.mark.parametrize("engine", ["native", "seal", "clear"])
def test_the_error_allowed_leaves_nothing_to_chance(engine):
    for degree, bits in ((1024, [20]), (2048, [22]), (4096, [24, 30]), (8192, [20, 60, 60]), (32768, [25, 25, 25])):
        params = params_of(degree, bits)
        probe = probe_of(engine, params)
        largest = np.abs(probe_values()).max()

        assert probe.allowed <= 2.0
        assert 4.0 * NORM * largest * probe.scale * traits(engine, params).growth <= probe.modulus / 2.0  # it cannot wrap around
        assert probe.scale < 2.0**52 and probe.modulus == math.prod(params.moduli[: probe.level])
    assert probe_map().in_count == len(probe_values())


def test_primes_under_which_noise_hides_the_values_are_refused_by_name():
    with pytest.raises(ParameterError, match="coeff_modulus: 20 bits are too few for engine 'seal' .* a first prime of at least 22 bits"):
        probe_of("seal", params_of(8192, [20, 60]))
    assert probe_of("seal", params_of(8192, [22, 60])).allowed <= 2.0


@pytest.mark.parametrize("engine, degree, bits", [("native", 1024, [20]), ("native", 32768, [20, 60]), ("seal", 8192, [22, 60])])
def test_it_passes_again_and_again_with_the_smallest_primes(engine, degree, bits):
    client, _ = client_of(service_of(digits(1)[0]), engine="clear")
    session = client.prepare("latest").session

    for _ in range(10):
        EnvironmentTest.make(engine, params_of(degree, bits)).run(session)
