"""Parameter presets: a JSON file becomes checked Params, or an error that names the field.

The files have the format that he-transformer users know: scheme_name, poly_modulus_degree, security_level, coeff_modulus (bits of each
prime), optional scale and complex_packing.
"""

from __future__ import annotations

import json
import os
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Mapping

from he_backend.ckks.primes import seal_moduli
from he_backend.errors import ParameterError, SecurityError

# Largest log2 of the whole coefficient modulus for a uniform ternary secret and 128, 192 or 256 bits of classical security:
# Albrecht et al., "Homomorphic Encryption Standard", HomomorphicEncryption.org, November 2018, table 1.
MAX_MODULUS_BITS: Mapping[int, Mapping[int, int]] = {
    128: {1024: 27, 2048: 54, 4096: 109, 8192: 218, 16384: 438, 32768: 881},
    192: {1024: 19, 2048: 37, 4096: 75, 8192: 152, 16384: 305, 32768: 611},
    256: {1024: 14, 2048: 29, 4096: 58, 8192: 118, 16384: 237, 32768: 476},
}
PRESETS = ("N11_L1", "N11_L1_small", "N12_L4", "N13_L8")
_FIELDS = {"scheme_name", "poly_modulus_degree", "security_level", "coeff_modulus", "scale", "complex_packing"}
_MAX_FILE_BYTES = 64 * 1024


@dataclass(frozen=True)
class Params:
    """A checked parameter set: ring degree N, primes, packing of complex slots, and the security level it was checked for.

    `moduli` are the primes ciphertexts use, first ones first; a round uses only as many as it needs. With several primes the last
    one of the file is the key-switching prime of SEAL: it counts for security, and no ciphertext carries it.
    """

    name: str
    ring_degree: int
    coeff_bits: tuple[int, ...]
    all_moduli: tuple[int, ...]
    security_level: int
    complex_packing: bool

    @property
    def moduli(self) -> tuple[int, ...]:
        """Primes of a fresh ciphertext at full level."""
        return self.all_moduli[:-1] if len(self.all_moduli) > 1 else self.all_moduli

    @property
    def log2_modulus(self) -> int:
        """Bits of the whole modulus, the figure that the security table bounds."""
        return sum(self.coeff_bits)

    def literal(self) -> dict[str, Any]:
        """The JSON literal that makes these Params again (what the two parties compare)."""
        return {
            "scheme_name": "HE_SEAL",
            "poly_modulus_degree": self.ring_degree,
            "security_level": self.security_level,
            "coeff_modulus": list(self.coeff_bits),
            "complex_packing": self.complex_packing,
        }


def load_params(name_or_file: str | os.PathLike[str], allow_insecure: bool = False) -> Params:
    """Checked Params from a preset name (N11_L1, N11_L1_small, N12_L4, N13_L8) or a JSON file.

    Raises ParameterError when the name or file is unknown or a field is wrong, SecurityError when the set is below 128 bits.
    """
    text = os.fspath(name_or_file)
    if text in PRESETS:
        path, name = _presets_folder() / f"{text}.json", text
    else:
        path, name = Path(text), Path(text).stem
        if not _is_file(path):
            shown = repr(text if len(text) <= 200 else text[:199] + "…")
            raise ParameterError(
                f"preset: {shown} is neither a file nor one of {', '.join(PRESETS)}; name one of these or give the path of a JSON file"
            )
    if path.stat().st_size > _MAX_FILE_BYTES:
        raise ParameterError(f"preset: {path} has {path.stat().st_size} bytes; a parameter file has at most {_MAX_FILE_BYTES}")
    try:
        literal = json.loads(path.read_text(encoding="utf-8"))
    except OSError as error:
        raise ParameterError(f"preset: {path} cannot be read: {error.strerror}") from None
    except (ValueError, RecursionError) as error:
        raise ParameterError(f"preset: {path} is not JSON: {error}") from None
    return check_params(literal, name, allow_insecure)


def check_params(literal: Any, name: str = "custom", allow_insecure: bool = False) -> Params:
    """Checked Params from a JSON literal; see load_params for what it raises."""
    if not isinstance(literal, dict):
        raise ParameterError(f"preset {name}: a JSON object is expected, not {type(literal).__name__}")
    unknown = sorted(set(literal) - _FIELDS)
    if unknown:
        raise ParameterError(f"preset {name}: unknown field {', '.join(map(str, unknown))}; allowed: {', '.join(sorted(_FIELDS))}")
    scheme = literal.get("scheme_name", "HE_SEAL")
    if scheme not in ("HE_SEAL", "HE_SEAL_CKKS"):
        raise ParameterError(f"preset {name}: scheme_name is {scheme!r}; allowed: 'HE_SEAL' (the scheme is CKKS)")
    degree = _integer(literal, name, "poly_modulus_degree")
    if degree not in MAX_MODULUS_BITS[128]:
        allowed = ", ".join(map(str, MAX_MODULUS_BITS[128]))
        raise ParameterError(f"preset {name}: poly_modulus_degree is {degree}; allowed: {allowed}")
    bits = literal.get("coeff_modulus")
    if not isinstance(bits, list) or not 1 <= len(bits) <= 40 or not all(type(b) is int and 20 <= b <= 60 for b in bits):
        raise ParameterError(
            f"preset {name}: coeff_modulus must be a list of 1 to 40 prime sizes of 20 to 60 bits each, such as [30, 22, 22, 30]"
        )
    packing = literal.get("complex_packing", False)
    if type(packing) is not bool:
        raise ParameterError(f"preset {name}: complex_packing is {packing!r}; allowed: true, false")
    scale = literal.get("scale")
    if scale is not None and (isinstance(scale, bool) or not isinstance(scale, (int, float)) or not scale > 0):
        raise ParameterError(
            f"preset {name}: scale is {scale!r}; leave it out (the client picks the largest safe scale) or give a positive number"
        )
    level = _check_security(literal, name, degree, sum(bits), allow_insecure)
    try:
        moduli = seal_moduli(degree, bits)
    except ValueError as error:
        raise ParameterError(f"preset {name}: coeff_modulus: {error}; take fewer or larger primes") from None
    return Params(name, degree, tuple(bits), moduli, level, packing)


def _check_security(literal: Mapping[str, Any], name: str, degree: int, total_bits: int, allow_insecure: bool) -> int:
    level = _integer(literal, name, "security_level", 128)
    if level == 0:
        if not allow_insecure:
            raise SecurityError(
                f"preset {name}: security_level 0 asks for no security check; that is refused unless the run says so too "
                "(--allow-insecure); for real data take a 128-bit preset such as N11_L1"
            )
        return 0
    if level not in MAX_MODULUS_BITS:
        raise ParameterError(f"preset {name}: security_level is {level}; allowed: 128, 192, 256 (or 0 in a run that allows insecure sets)")
    most = MAX_MODULUS_BITS[level][degree]
    if total_bits > most:
        raise SecurityError(
            f"preset {name}: coeff_modulus adds up to {total_bits} bits; at poly_modulus_degree {degree} at most {most} bits are "
            f"{level}-bit secure (HomomorphicEncryption.org standard, 2018, table 1); take fewer or smaller primes or a larger degree"
        )
    return level


def _integer(literal: Mapping[str, Any], name: str, field: str, default: Any = None) -> int:
    value = literal.get(field, default)
    if type(value) is not int:
        raise ParameterError(f"preset {name}: {field} must be an integer, not {value!r}")
    return value


def _is_file(path: Path) -> bool:
    try:
        return path.is_file()
    except (OSError, ValueError):  # a name too long, or with a zero byte
        return False


def _presets_folder() -> Path:
    """conf/ inside the installed package, or of the checkout."""
    here = Path(__file__).resolve().parents[1]
    for folder in (here / "conf", here.parents[1] / "conf"):
        if (folder / "N11_L1.json").is_file():
            return folder
    raise ParameterError("the preset files conf/*.json are not installed with the package: install he-nn again")
