"""Parameter presets: what is accepted, and that each refusal names the field."""

from __future__ import annotations

import json

import pytest

from he_backend.ckks.params import MAX_MODULUS_BITS, PRESETS, check_params, load_params
from he_backend.ckks.primes import is_prime, seal_moduli
from he_backend.errors import ParameterError, SecurityError

GOOD = {"scheme_name": "HE_SEAL", "poly_modulus_degree": 4096, "security_level": 128, "coeff_modulus": [30, 30, 30]}


@pytest.mark.parametrize("name", PRESETS)
def test_presets_are_within_the_128_bit_table(name):
    params = load_params(name)
    assert params.log2_modulus <= MAX_MODULUS_BITS[128][params.ring_degree]
    assert params.security_level == 128
    assert [q.bit_length() for q in params.all_moduli] == list(params.coeff_bits)


@pytest.mark.parametrize("degree, bits", [(2048, [54]), (2048, [30]), (4096, [30, 22, 22, 30]), (8192, [30, 24, 24, 24, 24, 24, 24, 30])])
def test_primes_are_those_of_seal(degree, bits):
    api = pytest.importorskip("tenseal.sealapi")
    assert list(seal_moduli(degree, bits)) == [m.value() for m in api.CoeffModulus.Create(degree, bits)]


def test_is_prime_agrees_with_trial_division():
    assert [n for n in range(200) if is_prime(n)] == [n for n in range(2, 200) if all(n % d for d in range(2, n))]
    assert not is_prime(3215031751)  # a strong pseudoprime to bases 2, 3, 5 and 7


def test_a_custom_file_is_read(tmp_path):
    path = tmp_path / "custom_enc_param.json"
    path.write_text(json.dumps(GOOD))
    params = load_params(path)
    assert (params.name, params.ring_degree, len(params.moduli)) == ("custom_enc_param", 4096, 2)
    assert check_params(params.literal(), params.name) == params


@pytest.mark.parametrize(
    "change, error, names",
    [
        ({"coeff_modulus": [40, 40, 40]}, SecurityError, "at most 109 bits"),
        ({"security_level": 0}, SecurityError, "--allow-insecure"),
        ({"security_level": 100}, ParameterError, "security_level is 100"),
        ({"poly_modulus_degree": 3000}, ParameterError, "poly_modulus_degree is 3000"),
        ({"poly_modulus_degree": "4096"}, ParameterError, "poly_modulus_degree must be an integer"),
        ({"coeff_modulus": []}, ParameterError, "coeff_modulus must be a list"),
        ({"coeff_modulus": [61]}, ParameterError, "20 to 60 bits"),
        ({"coeff_modulus": 54}, ParameterError, "coeff_modulus must be a list"),
        ({"scheme_name": "BFV"}, ParameterError, "scheme_name is 'BFV'"),
        ({"complex_packing": "yes"}, ParameterError, "complex_packing is 'yes'"),
        ({"scale": -1}, ParameterError, "scale is -1"),
        ({"ring": 1}, ParameterError, "unknown field ring"),
    ],
)
def test_refusals_name_the_field(change, error, names):
    with pytest.raises(error, match=names):
        check_params({**GOOD, **change})


def test_insecure_sets_need_consent_on_both_sides():
    weak = {**GOOD, "security_level": 0, "coeff_modulus": [50, 50, 50]}
    assert check_params(weak, allow_insecure=True).security_level == 0


def test_unknown_names_list_the_presets(tmp_path):
    with pytest.raises(ParameterError, match="N11_L1"):
        load_params("N99")
    path = tmp_path / "broken.json"
    path.write_text("{")
    with pytest.raises(ParameterError, match="not JSON"):
        load_params(path)
