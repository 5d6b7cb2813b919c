// What each instruction set provides. Plain structs only: translation units compiled for different CPUs include this file, and an
// inline function or template instantiated in two of them could end up as the version that this CPU cannot run.
#pragma once

#include <cstddef>
#include <cstdint>

namespace he {

using u8 = std::uint8_t;
using i8 = std::int8_t;
using i16 = std::int16_t;
using u32 = std::uint32_t;
using i32 = std::int32_t;
using u64 = std::uint64_t;
using i64 = std::int64_t;

// Tables of the negacyclic transform of n coefficients modulo q, in words W. Factors come with their Shoup companions
// floor(w * 2^shift / q). `forward[m + i]` is psi^reverse(m + i) (Longa and Naehrig, CANS 2016, algorithm 1), `inverse` its inverse.
// The tails hold the factors of the last log2(lanes) layers in the order in which blocks of lanes x lanes transposed values need them.
template <class W>
struct NttView {
    std::size_t n;
    W q;
    W limit;  // multiples k * q, k <= limit, fit the words and the multiplication
    W one_p;  // companion of 1
    W inverse_n, inverse_n_p;
    W last, last_p;                // factor of the last inverse layer, times 1/n
    W last_plain, last_plain_p;    // the same without 1/n
    const W *forward, *forward_p;
    const W *inverse, *inverse_p;
    const W *forward_tail, *inverse_tail;
};

// Operations on polynomials in words W. "Reduced" is [0, q); "lazy" is [0, bound * q).
template <class W>
struct WordKernels {
    int lanes;
    int shift;          // of the companions
    int range_bits;     // values stay below 2^range_bits
    W product_bound;    // products are below product_bound * q
    // Reduced coefficients -> reduced values, in bit-reversed order, in place.
    void (*forward)(W* a, const NttView<W>& ntt);
    // Reduced values -> reduced coefficients, in place.
    void (*inverse)(W* a, const NttView<W>& ntt);
    // out = n times the coefficients of a * b, reduced; a below 2^range_bits, b reduced with companions b_p.
    void (*inverse_product)(W* out, const W* a, const W* b, const W* b_p, const NttView<W>& ntt);
    // out = a * b, below product_bound * q.
    void (*multiply)(W* out, const W* a, const W* b, const W* b_p, const NttView<W>& ntt);
    void (*narrow)(W* out, const u64* in, std::size_t n);
    void (*widen)(u64* out, const W* in, std::size_t n);
    // tiles of (m - t) mod q -> bit streams of `bits` words, or tiles of words if bits is 0; m and t reduced.
    void (*subtract_pack)(u64* words, const W* m, const W* t, std::size_t tiles, W q, int bits);
    // out = (t + body) mod q; body as subtract_pack writes it, below 2^bits or reduced; out reduced.
    void (*unpack_add)(W* out, const W* t, const u64* words, std::size_t tiles, W q, int bits);
    // out = centered(r) * factor; r reduced.
    void (*to_f64)(double* out, const W* r, std::size_t n, W q, double factor);
    void (*to_f32)(float* out, const W* r, std::size_t n, W q, double factor);
};

// Values per step of the linear algebra and of packing: 64 values of b bits are exactly b words.
constexpr std::size_t TILE = 64;
// Errors are made for blocks of 512 coefficients from 42 planes of 512 random bits; bit c of plane k is the k-th bit of coefficient c.
constexpr std::size_t NOISE_BLOCK = 512;
constexpr std::size_t NOISE_BLOCK_BYTES = 42 * NOISE_BLOCK / 8;
// Outputs that a dot-product kernel computes at a time.
constexpr int MAX_OUTPUTS = 6;

// How an int32 sum joins the accumulators of one output.
struct DotSink {
    bool exact;     // modulo q, else modulo 2^64
    u64 factor;     // of the digit
    u64 companion;  // floor(factor * 2^64 / q), if exact
    u64 q;
    bool first;     // the sums start here, from zero
};

// Products modulo q: factors of at most 54 bits are cut at bit HALF_WORD, and the four kinds of partial products summed apart.
constexpr int HALF_WORD = 27;
constexpr std::size_t MAX_PRODUCTS = 512;  // 2^9 sums of two products of 54 bits fit a word
struct ProductSum {
    u64 q, one_p64;
    u64 half, half_p64;    // 2^HALF_WORD mod q and its companion floor(half * 2^64 / q)
    u64 whole, whole_p64;  // 2^(2 HALF_WORD) mod q likewise
};

struct Kernels {
    const char* name;
    WordKernels<u32> word32;   // q < 2^30
    WordKernels<u64> word52;   // q < 2^50; lanes 0 where the CPU has no 52-bit multiplication
    WordKernels<u64> word54;   // 2^b - 2^40 < q < 2^b, 50 <= b <= 54; likewise
    WordKernels<u64> word64;   // q < 2^61
    // out = round(x * scale), to nearest and ties to even, plus the number of set bits among 42 random ones less 21; n a multiple of
    // NOISE_BLOCK. q is added to what is negative. False if some |x * scale| > limit or is NaN (out is then unspecified).
    bool (*message_f64)(i64* out, const double* x, std::size_t n, double scale, double limit, const u8* noise, u64 q);
    bool (*message_f32)(i64* out, const float* x, std::size_t n, double scale, double limit, const u8* noise, u64 q);
    // The same for limit + 21 < q < 2^30.
    bool (*message32_f64)(u32* out, const double* x, std::size_t n, double scale, double limit, const u8* noise, u32 q);
    bool (*message32_f32)(u32* out, const float* x, std::size_t n, double scale, double limit, const u8* noise, u32 q);
    // Largest bit pattern but for the sign, which is the largest magnitude; infinity and NaN are larger than all numbers.
    u32 (*largest_f32)(const u32* x, std::size_t n);
    u64 (*largest_f64)(const u64* x, std::size_t n);
    // out[c * out_stride + r] = in[r * in_stride + c]
    void (*transpose32)(u32* out, std::size_t out_stride, const u32* in, std::size_t in_stride, std::size_t rows, std::size_t columns);
    void (*transpose64)(u64* out, std::size_t out_stride, const u64* in, std::size_t in_stride, std::size_t rows, std::size_t columns);
    // out = v mod q for |v| < 2^62, q < 2^61; offset is the multiple of q at or above 2^62.
    void (*reduce_signed)(i64* out, const i64* v, std::size_t n, u64 q, u64 one_p64, u64 offset);
    // A tile of residues -> `digits` tiles of digits of `bits` bits (at most 15), each less 2^(bits - 1); digit d of the tile is at
    // out + d * stride, its values in an order of the kernels' own.
    void (*digitize)(i16* out, std::size_t stride, const u64* in, int digits, int bits);
    // The same from a bit stream of `packed_bits` words.
    void (*digitize_packed)(i16* out, std::size_t stride, const u64* words, int packed_bits, int digits, int bits);
    // sums[m][0 .. TILE) += factor * S, S = sum over k of weights[k][m] * panel[rows[k]], for `outputs` <= MAX_OUTPUTS; the caller
    // guarantees that S fits int32. rows [2 * pairs], weights [pairs][outputs][2] int16; panel rows are tiles made by digitize.
    // If exact, S + 2^31 in place of S, and sums stay reduced modulo q.
    void (*dot)(u64* const* sums, const i16* panel, const i32* rows, std::size_t pairs, const i32* weights, int outputs, const DotSink& sink);
    // out = round((sums + constant) / 2^64 * p) mod p, p < 2^31; a bit stream of `bits` words, or a tile of words if bits is 0.
    void (*switch_modulus)(u64* out, const u64* sums, u64 constant, u64 p, int bits);
    // out = (sums + constant) mod q, both reduced.
    void (*add_constant)(u64* out, const u64* sums, u64 constant, u64 q);
    // A tile of out = (out + sum over k of a[k] * b[k]) mod q, all reduced, q < 2^61, terms <= MAX_PRODUCTS.
    void (*add_products)(u64* out, const u64* const* a, const u64* const* b, std::size_t terms, const ProductSum& sum);
    // A tile of values below 2^bits <-> a little-endian bit stream of `bits` words; 1 <= bits <= 61.
    void (*pack)(u64* words, const u64* values, int bits);
    void (*unpack)(u64* values, const u64* words, int bits);
};

const Kernels& scalar_kernels();
#if defined(__x86_64__)
const Kernels& avx2_kernels();
const Kernels& avx512_kernels();
const Kernels& ifma_kernels();
#endif

}  // namespace he
