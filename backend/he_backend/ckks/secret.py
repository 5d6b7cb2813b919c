"""Secret keys, encryption and decryption: with column_secret.py, its native half, the only module that handles a secret key.

A SecretKey serves one encryption and the decryption of what the server makes of it. Keys live in this process's memory, are never
written anywhere, and have no representation that shows them.
"""

from __future__ import annotations

import math
from typing import Any, Protocol

import numpy as np

from he_backend.ckks import sampling, seal_format
from he_backend.ckks.clear import centered
from he_backend.ckks.column_secret import ColumnSecrets
from he_backend.ckks.engines import check_engine, traits
from he_backend.ckks.params import Params
from he_backend.ckks.ring import Ring, shared_ring
from he_backend.ckks.seal import SealContext
from he_backend.ckks.tensor import CipherTensor, PackedTensor
from he_backend.errors import CapacityError, EngineError, ProtocolError

_SEAL_SCALE = 2.0**10  # at which SEAL decodes, whatever the scale is: it refuses one as large as the modulus, which has 20 bits or more


class SecretKey(Protocol):
    """What the data owner's half of an engine does. Values are float64 [count, rows]; rows <= columns * column_rows."""

    engine: str
    column_rows: int  # values that a polynomial holds

    def encrypt(self, values: np.ndarray, scale: float, level: int) -> Any:
        """Fresh ciphertexts, in the engine's own form, of round(scale * values) under the first `level` primes."""
        ...

    def decrypt(
        self, tensor: Any, scale: float | np.ndarray, rows: int, by_rows: bool = True, index: np.ndarray | None = None
    ) -> np.ndarray:
        """float32 [count, rows]: what the tensor holds, divided by scale: one number, or one for each element.

        by_rows: the array lies row by row in memory (it is a transpose), else element by element. index: which coefficients the bodies
        have (ckks.pick), where they are not the first.
        """
        ...


def generate(engine: str, params: Params, threads: int = 1) -> SecretKey:
    """A fresh secret key of an engine: 'native', 'seal' or 'clear'. Raises EngineError when the engine is not here."""
    check_engine(engine)
    if engine == "native":
        return NativeKey(params, threads)
    return SealKey(params) if engine == "seal" else ClearKey(params)


class ClearKey:
    """The clear engine's client half: scaling and rounding only. There is no secret."""

    engine = "clear"

    def __init__(self, params: Params) -> None:
        self._params = params
        self.column_rows = traits("clear", params).column_rows

    def encrypt(self, values: np.ndarray, scale: float, level: int) -> CipherTensor:
        """round(scale * values) modulo the product of the first `level` primes."""
        modulus = math.prod(self._params.moduli[:level])
        scaled = np.rint(values.astype(np.float64) * scale)
        if scaled.size and np.abs(scaled).max() >= modulus / 2:
            raise CapacityError("a scaled value does not fit the modulus: take a smaller scale")
        count, rows = values.shape
        columns = max(1, -(-rows // self.column_rows))
        width = rows if columns == 1 else self.column_rows
        padded = np.zeros((count, columns * width), dtype=np.int64)
        padded[:, :rows] = scaled
        body = np.mod(padded, np.int64(modulus)).astype(np.uint64).reshape(count, columns, 1, width)
        body = np.ascontiguousarray(body.transpose(1, 0, 2, 3))
        return CipherTensor("clear", self._params.ring_degree, (modulus,), False, body)

    def decrypt(
        self, tensor: CipherTensor, scale: float | np.ndarray, rows: int, by_rows: bool = True, index: np.ndarray | None = None
    ) -> np.ndarray:
        """The centered residues divided by scale."""
        signed = centered(tensor.body, tensor.moduli[0])
        values = signed[:, :, 0].transpose(1, 0, 2).reshape(tensor.count, -1)[:, :rows]
        with np.errstate(over="ignore"):  # infinity is for the caller to refuse
            return (values / _by_element(scale)).astype(np.float32)


class NativeKey:
    """Ternary secrets of the native engine, one for each column of N rows; every encryption takes a fresh mask seed and fresh errors."""

    engine = "native"

    def __init__(self, params: Params, threads: int) -> None:
        self._params, self._threads = params, threads
        self._ring = shared_ring(params.ring_degree, params.moduli)
        self._secrets: dict[tuple[int, tuple[int, ...]], ColumnSecrets] = {}
        self.column_rows = params.ring_degree

    def __repr__(self) -> str:
        return f"NativeKey({self._params.name})"

    def encrypt(self, values: np.ndarray, scale: float, level: int) -> PackedTensor:
        """Coefficients of as many columns as the rows need, under one seed; values float32 or float64, contiguous along either axis."""
        count, rows = values.shape
        columns = max(1, -(-rows // self.column_rows))
        secrets = self._column_secrets(columns, self._ring)
        seed = sampling.new_key()
        words = secrets.encrypt_words(values, scale, seed, level, self._threads)
        moduli = self._params.moduli[:level]
        width = secrets.width(rows)
        return PackedTensor("native", self._params.ring_degree, moduli, False, columns, count, width, words, None, seed)

    def decrypt(
        self, tensor: PackedTensor, scale: float | np.ndarray, rows: int, by_rows: bool = True, index: np.ndarray | None = None
    ) -> np.ndarray:
        """The centered coefficients divided by scale, whatever modulus the answer was switched to."""
        if tensor.mask is None:
            raise ProtocolError("an answer came without its mask")
        switched = tensor.moduli != self._ring.moduli[: len(tensor.moduli)]
        ring = shared_ring(tensor.ring_degree, tensor.moduli) if switched else self._ring
        out = np.empty((rows, tensor.count), dtype=np.float32).T if by_rows else np.empty((tensor.count, rows), dtype=np.float32)
        secrets = self._column_secrets(tensor.columns, ring)
        width = tensor.width if rows == tensor.columns * tensor.width else 0
        return secrets.decrypt_words(tensor.body, tensor.mask, scale, out, len(tensor.moduli), self._threads, width, index)

    def _column_secrets(self, columns: int, ring: Ring) -> ColumnSecrets:
        """The secrets of that many columns under a ring's primes."""
        own = (columns, self._ring.moduli)
        if own not in self._secrets:
            self._secrets[own] = ColumnSecrets(self._ring, columns)
        key = (columns, ring.moduli)
        if key not in self._secrets:
            self._secrets[key] = self._secrets[own].under(ring)
        return self._secrets[key]


class SealKey:
    """A SEAL secret key; values sit in the slots of one column."""

    engine = "seal"

    def __init__(self, params: Params) -> None:
        self._seal = SealContext(params)
        api = self._seal.api
        self._secret = api.KeyGenerator(self._seal.context).secret_key()
        self._encryptor = api.Encryptor(self._seal.context, self._secret)
        self._decryptor = api.Decryptor(self._seal.context, self._secret)
        self._complex = params.complex_packing
        self._slots = params.ring_degree // 2
        self.column_rows = traits("seal", params).column_rows

    def __repr__(self) -> str:
        return f"SealKey({self._seal.params.name})"

    def encrypt(self, values: np.ndarray, scale: float, level: int) -> CipherTensor:
        """One seeded ciphertext per element; the row r and row r + N/2 share a complex slot when packing is complex."""
        count, rows = values.shape
        if rows > self.column_rows:
            raise CapacityError(f"{rows} rows do not fit one polynomial; at most {self.column_rows} do under {self._seal.params.name}")
        parms_id = self._seal.parms_id(level)
        body = np.empty((1, count, level, self._seal.params.ring_degree), dtype=np.uint64)
        seeds: list[bytes] = []
        plain = self._seal.api.Plaintext()
        for element in range(count):
            self._seal.encoder.encode(self._slot_values(values[element]), parms_id, scale, plain)
            fresh = self._encryptor.encrypt_symmetric(plain)
            body[0, element], seed = seal_format.ciphertext_parts(seal_format.dump(fresh))
            if not isinstance(seed, bytes):
                raise EngineError("SEAL did not compress a fresh ciphertext to its seed: tenseal 0.3.15 or newer is needed")
            seeds.append(seed)
        moduli = self._seal.params.moduli[:level]
        return CipherTensor("seal", self._seal.params.ring_degree, moduli, True, body, None, b"".join(seeds))

    def decrypt(
        self, tensor: CipherTensor, scale: float | np.ndarray, rows: int, by_rows: bool = True, index: np.ndarray | None = None
    ) -> np.ndarray:
        """Decrypted and decoded slots of each element."""
        out = np.zeros((tensor.count, rows))
        plain = self._seal.api.Plaintext()
        for element in range(tensor.count):
            if tensor.mask is not None and not tensor.mask[element].any() and not tensor.body[0, element].any():
                continue  # a row without weights: exactly zero, which SEAL has no ciphertext for
            try:
                self._decryptor.decrypt(self._seal.ciphertext(tensor, element, _SEAL_SCALE), plain)
            except (ValueError, RuntimeError) as error:
                raise ProtocolError(f"SEAL refuses the answer: {error}") from None
            if self._complex:
                slots = np.asarray(self._seal.encoder.decode_complex(plain))
                out[element] = np.concatenate([slots.real, slots.imag])[:rows]
            else:
                out[element] = np.asarray(self._seal.encoder.decode_double(plain))[:rows]
        with np.errstate(over="ignore"):
            return (out * (_SEAL_SCALE / _by_element(scale))).astype(np.float32)

    def _slot_values(self, row: np.ndarray) -> Any:
        if not self._complex:
            return row.tolist()
        padded = np.zeros(2 * self._slots)
        padded[: len(row)] = row
        return (padded[: self._slots] + 1j * padded[self._slots :]).tolist()


def _by_element(scale: float | np.ndarray) -> Any:
    """A scale for each element as a column."""
    return scale[:, None] if isinstance(scale, np.ndarray) else scale
