// Random bytes -> uniform residues and ternary secrets. The bytes come from the caller; nothing here makes randomness.
#pragma once

#include <cstddef>

#include "kernels.h"

namespace he {

// How a polynomial of uniform residues is drawn: `draws` little-endian integers of `draw_bytes` bytes are cut to the bits of the
// modulus; the first n are the coefficients, the others replace, in order, those that are not below the modulus.
struct UniformDraw {
    std::size_t n, draws, draw_bytes, stride;  // stride: bytes from one polynomial to the next
    u64 q;
};

// out[k * out_stride ...] = polynomial k of `count`. Returns the index of the first polynomial whose replacements ran out, or count.
std::size_t uniform(u64* out, std::size_t out_stride, const u8* bytes, std::size_t count, const UniformDraw& draw);

// Bytes below 255 modulo 3, minus 1, are uniform in {-1, 0, 1}; bytes of 255 are skipped. Returns how many of n were filled.
std::size_t ternary(i8* out, std::size_t n, const u8* bytes, std::size_t size);

}  // namespace he
