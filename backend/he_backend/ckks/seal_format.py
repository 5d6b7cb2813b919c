"""SEAL's ciphertext bytes <-> arrays of residues (SEAL 4.x, native/src/seal/ciphertext.cpp and serialization.h).

TenSEAL's bindings read and write files only; an anonymous memory file keeps that off the disk.
"""

from __future__ import annotations

import functools
import os
import struct
import tempfile
from typing import Any

import numpy as np
import zstandard

from he_backend.errors import EngineError

_HEADER = struct.Struct("<HBBBBHQ")  # magic, header size, version major and minor, compression, reserved, total size
_MEMBERS = struct.Struct("<4QBQQQdQ")  # parms_id, is_ntt, polynomials, N, primes, scale, correction factor
_MAGIC, _HEADER_BYTES = 0xA15E, 16
_PLAIN, _ZSTD = 0, 2
SEED_BYTES = 65  # generator type and 64 bytes of seed
_MAX_BYTES = 1 << 26


def dump(saveable: Any) -> bytes:
    """The members that SEAL saves of an object, without the header, decompressed."""
    handle, path = _memory_file()
    try:
        saveable.save(path)
        data = os.pread(handle, os.fstat(handle).st_size, 0)
    finally:
        os.close(handle)
    compression = data[5]
    if compression == _ZSTD:
        return bytes(zstandard.ZstdDecompressor().decompressobj().decompress(data[_HEADER_BYTES:]))
    if compression == _PLAIN:
        return data[_HEADER_BYTES:]
    raise EngineError(f"SEAL saved with compression mode {compression}; zstandard (2) or none (0) is expected: reinstall tenseal")


def load(target: Any, context: Any, members: bytes) -> Any:
    """target (a SEAL Ciphertext) filled from members."""
    handle, path = _memory_file()
    try:
        os.write(handle, _block(members))
        os.lseek(handle, 0, os.SEEK_SET)
        target.load(context, path)
    finally:
        os.close(handle)
    return target


def ciphertext_members(parms_id: Any, body: np.ndarray, mask: np.ndarray | bytes, scale: float) -> bytes:
    """SEAL's members of a two-polynomial ciphertext in NTT form: body and mask uint64 [limbs, N], or a seed in place of the mask."""
    limbs, degree = body.shape
    head = _MEMBERS.pack(*parms_id, 1, 2, degree, limbs, scale, 1)
    if isinstance(mask, bytes):
        return head + _array(body.tobytes()) + _block(mask)
    return head + _array(body.tobytes() + mask.tobytes())


def ciphertext_parts(members: bytes) -> tuple[np.ndarray, np.ndarray | bytes]:
    """body uint64 [limbs, N] and the mask likewise, or the seed (bytes) of a fresh one."""
    fields = _MEMBERS.unpack_from(members)
    polynomials, degree, limbs = fields[5:8]
    start = _MEMBERS.size + _HEADER_BYTES
    (count,) = struct.unpack_from("<Q", members, start)
    words = np.frombuffer(members, dtype="<u8", count=count, offset=start + 8).reshape(-1, limbs, degree)
    if polynomials != 2 or len(words) not in (1, 2):
        raise EngineError(f"SEAL saved {polynomials} polynomials in {len(words)} parts; 2 are expected")
    if len(words) == 2:
        return words[0], words[1]
    seed = members[start + 8 + 8 * count + _HEADER_BYTES :]
    if len(seed) != SEED_BYTES:
        raise EngineError(f"SEAL saved a seed of {len(seed)} bytes; {SEED_BYTES} are expected: tenseal 0.3.15 or newer is needed")
    return words[0], seed


def _block(payload: bytes) -> bytes:
    return _HEADER.pack(_MAGIC, _HEADER_BYTES, *_version(), _PLAIN, 0, _HEADER_BYTES + len(payload)) + payload


@functools.lru_cache(maxsize=1)
def _version() -> tuple[int, int]:
    """SEAL's version here, major and minor, from something that it saved: it reads no ciphertext of a later one than itself."""
    import tenseal.sealapi as api

    handle, path = _memory_file()
    try:
        api.EncryptionParameters(api.SCHEME_TYPE.CKKS).save(path)
        header = os.pread(handle, _HEADER_BYTES, 0)
    finally:
        os.close(handle)
    return header[3], header[4]


def _array(payload: bytes) -> bytes:
    return _block(struct.pack("<Q", len(payload) // 8) + payload)


def _memory_file() -> tuple[int, str]:
    """An open descriptor and its path; holds ciphertexts only, never a key or a value."""
    if hasattr(os, "memfd_create"):
        handle = os.memfd_create("he_nn")
        return handle, f"/proc/self/fd/{handle}"
    handle, path = tempfile.mkstemp()
    return handle, path
