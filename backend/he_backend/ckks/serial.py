"""Ciphertext arrays <-> bytes: residues bit-packed to the size of their prime, fresh masks as seeds, everything from a peer checked.

Wire form of a CipherTensor: a small header (JSON) and a row of payload pieces. First comes the seed or the mask, if there is one, then
the body; each is cut by element, so that neither side needs a second copy of a large tensor.
"""

from __future__ import annotations

import json
from dataclasses import dataclass
from typing import Any, Iterable, Iterator

import numpy as np

from he_backend.ckks import bits as native_bits
from he_backend.ckks import ring
from he_backend.ckks.seal_format import SEED_BYTES as SEAL_SEED_BYTES
from he_backend.ckks.tensor import CipherTensor, PackedTensor
from he_backend.errors import ProtocolError

MAX_ELEMENTS = 1 << 24
MAX_COLUMNS = 1 << 12
_PIECE_BYTES = 1 << 20
_ENGINES = ("native", "seal", "clear")
_SEED_BYTES = {"native": lambda count: 32, "seal": lambda count: count * SEAL_SEED_BYTES}


@dataclass(frozen=True)
class TensorHeader:
    """What the bytes of a tensor are: enough to know how many must come."""

    engine: str
    ring_degree: int
    moduli: tuple[int, ...]
    ntt: bool
    columns: int
    count: int
    width: int
    mask: str  # 'seed', 'array' or 'none'

    def to_bytes(self) -> bytes:
        """The header as JSON."""
        return json.dumps(self.__dict__, sort_keys=True).encode()

    @property
    def seed_bytes(self) -> int:
        """Bytes of the seed, 0 without one."""
        return _SEED_BYTES[self.engine](self.count) if self.mask == "seed" else 0

    def element_bytes(self, width: int, columns: int) -> int:
        """Bytes of one element: `columns` polynomials of `width` coefficients under every prime."""
        return columns * sum(packed_bytes(width, q.bit_length()) for q in self.moduli)

    @property
    def payload_bytes(self) -> int:
        """Bytes of all pieces together."""
        mask = self.count * self.element_bytes(self.ring_degree, 1) if self.mask == "array" else 0
        return self.seed_bytes + mask + self.count * self.element_bytes(self.width, self.columns)


def header_of(tensor: CipherTensor | PackedTensor) -> TensorHeader:
    """The header that describes a tensor."""
    mask = "seed" if tensor.seed else "none" if tensor.mask is None else "array"
    return TensorHeader(tensor.engine, tensor.ring_degree, tensor.moduli, tensor.ntt, tensor.columns, tensor.count, tensor.width, mask)


def read_header(data: bytes) -> TensorHeader:
    """A header from a peer's bytes; raises ProtocolError when it is not one."""
    try:
        raw: dict[str, Any] = json.loads(data.decode("utf-8"))
        header = TensorHeader(**{**raw, "moduli": tuple(raw["moduli"])})
    except (ValueError, TypeError, KeyError, RecursionError):
        raise ProtocolError("the header of a ciphertext tensor cannot be read: both sides must run the same version of he-nn") from None
    whole = (header.ring_degree, header.columns, header.count, header.width, *header.moduli)
    if not all(type(n) is int for n in whole) or type(header.ntt) is not bool:
        raise ProtocolError("the header of a ciphertext tensor has a field of the wrong type")
    limits = (
        (header.engine in _ENGINES, "engine"),
        (1024 <= header.ring_degree <= 1 << 16, "ring_degree"),
        (1 <= len(header.moduli) <= 40 and all(1 << 10 < q < 1 << 63 for q in header.moduli), "moduli"),
        (1 <= header.columns <= MAX_COLUMNS, "columns"),
        (1 <= header.count <= MAX_ELEMENTS, "count"),
        (1 <= header.width <= header.ring_degree, "width"),
        (header.mask in ("seed", "array", "none") and (header.mask == "none") == (header.engine == "clear"), "mask"),
        (header.width == header.ring_degree or not header.ntt, "width"),
    )
    for right, field in limits:
        if not right:
            raise ProtocolError(f"the header of a ciphertext tensor has a {field} outside what is allowed")
    return header


def check_header(header: TensorHeader, engine: str, ring_degree: int, moduli: tuple[int, ...], count: int, most_columns: int) -> None:
    """Raises ProtocolError unless a peer's tensor is of this engine, ring, moduli and size."""
    wrong = [
        f"{name} {came!r} (expected {due!r})"
        for name, came, due in (
            ("engine", header.engine, engine),
            ("ring degree", header.ring_degree, ring_degree),
            ("moduli", header.moduli, moduli),
            ("elements", header.count, count),
        )
        if came != due
    ]
    if header.columns > most_columns:
        wrong.append(f"columns {header.columns} (at most {most_columns})")
    if wrong:
        raise ProtocolError(
            f"the ciphertext tensor does not fit this round: {'; '.join(wrong)}; use the same preset and engine on both sides"
        )


def to_pieces(tensor: CipherTensor | PackedTensor) -> Iterator[bytes | memoryview]:
    """The payload in pieces of about a mebibyte."""
    if tensor.seed:
        yield tensor.seed
    if isinstance(tensor, PackedTensor):
        for words in (tensor.mask, tensor.body):
            if words is not None:
                yield words.data.cast("B")
        return
    if tensor.mask is not None:
        for start, stop in _tiles(header_of(tensor).element_bytes(tensor.ring_degree, 1), tensor.count):
            yield _pack_elements(tensor.mask[None, start:stop], tensor.moduli)
    for start, stop in _tiles(header_of(tensor).element_bytes(tensor.width, tensor.columns), tensor.count):
        yield _pack_elements(tensor.body[:, start:stop], tensor.moduli)


def from_pieces(header: TensorHeader, pieces: Iterable[bytes | memoryview]) -> CipherTensor:
    """The tensor that a header and its payload describe; raises ProtocolError for missing, excess or unreduced residues."""
    reader = _Reader(pieces)
    seed = reader.take(header.seed_bytes)
    mask = _read_elements(reader, header, header.ring_degree, 1)[0] if header.mask == "array" else None
    body = _read_elements(reader, header, header.width, header.columns)
    reader.finish()
    return CipherTensor(header.engine, header.ring_degree, header.moduli, header.ntt, body, mask, seed)


def packed_from_pieces(header: TensorHeader, pieces: Iterable[bytes | memoryview]) -> PackedTensor:
    """The tensor as packed words; raises ProtocolError for missing or excess bytes. Unreduced residues count modulo their prime."""
    reader = _Reader(pieces)
    seed = reader.take(header.seed_bytes)
    mask = reader.words(header.count * header.element_bytes(header.ring_degree, 1)) if header.mask == "array" else None
    body = reader.words(header.count * header.element_bytes(header.width, header.columns))
    reader.finish()
    return PackedTensor(
        header.engine, header.ring_degree, header.moduli, header.ntt, header.columns, header.count, header.width, body, mask, seed
    )


def packed_bytes(values: int, bits: int) -> int:
    """Bytes of `values` integers of `bits` bits, rounded up to whole 64-bit words."""
    return -(-values * bits // 64) * 8


def pack(values: np.ndarray, bits: int) -> np.ndarray:
    """uint64 [rows, n] of values below 2^bits -> uint64 words [rows, words]: a little-endian bit stream per row."""
    if bits <= native_bits.MAX_BITS and ring.available():
        return native_bits.pack(values, bits)
    rows, n = values.shape
    groups = -(-n // 64)
    padded = values if n == groups * 64 else np.pad(values, ((0, 0), (0, groups * 64 - n)))
    source = padded.reshape(rows, groups, 64)
    words = np.zeros((rows, groups, bits), dtype=np.uint64)  # 64 values of `bits` bits are exactly `bits` words
    for k in range(64):
        word, shift = divmod(k * bits, 64)
        words[:, :, word] |= source[:, :, k] << np.uint64(shift)
        if shift + bits > 64:
            words[:, :, word + 1] |= source[:, :, k] >> np.uint64(64 - shift)
    return words.reshape(rows, groups * bits)[:, : packed_bytes(n, bits) // 8]


def unpack(words: np.ndarray, bits: int, n: int) -> np.ndarray:
    """The inverse of pack: uint64 words [rows, words] -> uint64 [rows, n]."""
    if bits <= native_bits.MAX_BITS and ring.available():
        return native_bits.unpack(words, bits, n)
    rows = words.shape[0]
    groups = -(-n // 64)
    short = groups * bits - words.shape[1]
    source = (np.pad(words, ((0, 0), (0, short))) if short else words).reshape(rows, groups, bits)
    values = np.empty((rows, groups, 64), dtype=np.uint64)
    low = np.uint64((1 << bits) - 1)
    for k in range(64):
        word, shift = divmod(k * bits, 64)
        value = source[:, :, word] >> np.uint64(shift)
        if shift + bits > 64:
            value = value | source[:, :, word + 1] << np.uint64(64 - shift)
        values[:, :, k] = value & low
    return values.reshape(rows, groups * 64)[:, :n]


def _tiles(element_bytes: int, count: int) -> Iterator[tuple[int, int]]:
    step = max(1, _PIECE_BYTES // max(1, element_bytes))
    for start in range(0, count, step):
        yield start, min(count, start + step)


def _pack_elements(part: np.ndarray, moduli: tuple[int, ...]) -> bytes:
    """part uint64 [columns, elements, limbs, width]: element by element, in it limb by limb, in it column by column."""
    _, elements, limbs, width = part.shape
    rows = [pack(part[:, :, limb].transpose(1, 0, 2).reshape(-1, width), moduli[limb].bit_length()) for limb in range(limbs)]
    return rows[0].tobytes() if limbs == 1 else np.concatenate([row.reshape(elements, -1) for row in rows], axis=1).tobytes()


def _read_elements(reader: _Reader, header: TensorHeader, width: int, columns: int) -> np.ndarray:
    """uint64 [columns, count, limbs, width] read tile by tile."""
    out = np.empty((columns, header.count, len(header.moduli), width), dtype=np.uint64)
    element = header.element_bytes(width, columns)
    for start, stop in _tiles(element, header.count):
        data = reader.take(element * (stop - start))
        words = np.frombuffer(data, dtype="<u8").reshape(stop - start, -1)
        offset = 0
        for limb, q in enumerate(header.moduli):
            size = columns * packed_bytes(width, q.bit_length()) // 8
            rows = words[:, offset : offset + size].reshape((stop - start) * columns, -1)
            values = unpack(np.ascontiguousarray(rows), q.bit_length(), width)
            if values.size and int(values.max()) >= q:
                raise ProtocolError("a ciphertext has a residue that is not reduced modulo its prime: the bytes were damaged or forged")
            out[:, start:stop, limb] = values.reshape(stop - start, columns, width).transpose(1, 0, 2)
            offset += size
    return out


class _Reader:
    """Takes exact numbers of bytes from a row of pieces."""

    def __init__(self, pieces: Iterable[bytes | memoryview]) -> None:
        self._pieces = iter(pieces)
        self._rest = memoryview(b"")

    def take(self, size: int) -> bytes:
        data = bytearray(size)
        self._fill(memoryview(data))
        return bytes(data)

    def words(self, size: int) -> np.ndarray:
        words = np.empty(size // 8, dtype="<u8")
        if size:
            self._fill(words.data.cast("B"))
        return words

    def _fill(self, target: memoryview) -> None:
        done = 0
        while done < len(target):
            if not len(self._rest):
                piece = next(self._pieces, None)
                if piece is None:
                    raise ProtocolError(f"a ciphertext tensor ends {len(target) - done} bytes too early: the message was cut off")
                self._rest = memoryview(piece).cast("B")
            part = self._rest[: len(target) - done]
            target[done : done + len(part)] = part
            done += len(part)
            self._rest = self._rest[len(part) :]

    def finish(self) -> None:
        if len(self._rest) or any(len(piece) for piece in self._pieces):
            raise ProtocolError("a ciphertext tensor has more bytes than its header says")
