// AVX-512 with 52-bit multiply-add and 16-bit dot products (Ice Lake, Zen 4 and newer).
#if defined(__GNUC__) && !defined(__clang__)
// GCC 12 takes _mm512_undefined in its own headers for a mistake.
#pragma GCC diagnostic ignored "-Wuninitialized"
#pragma GCC diagnostic ignored "-Wmaybe-uninitialized"
#endif
#include "kernels.h"

#include <type_traits>

#if defined(__AVX512IFMA__)
#include <immintrin.h>

namespace he {
namespace {

#include "transform.h"

#include "portable.h"

#include "bits512.h"

#include "avx512.h"

// As assembly because GCC 12 copies and spills accumulators of the intrinsic.
inline void add_pair_products(__m512i& sum, __m512i a, __m512i b) { __asm__("vpdpwssd %2, %1, %0" : "+v"(sum) : "v"(a), "v"(b)); }

#include "linear512.h"

struct Vector512_52 : Words512 {
    struct Factor {
        V w, companion;
    };
    static constexpr W R = 2;

    explicit Vector512_52(W modulus) : minus_q(set1((W{1} << 52) - modulus)) {}
    static Factor broadcast(W w, W p) { return {set1(w), set1(p)}; }
    static Factor pair_factor(const W* w, const W* p) { return {load(w), load(p)}; }
    static Factor load_factor(const W* table) { return {load(table), load(table + L)}; }

    // y * w - floor(y * companion / 2^52) * q < 2q for every y < 2^52; the subtraction is an addition modulo 2^52.
    V multiply(V y, const Factor& f) const {
        const V zero = _mm512_setzero_si512();
        const V quotient = _mm512_madd52hi_epu64(zero, y, f.companion);
        const V sum = _mm512_madd52lo_epu64(_mm512_madd52lo_epu64(zero, y, f.w), quotient, minus_q);
        return _mm512_and_si512(sum, _mm512_set1_epi64((1LL << 52) - 1));
    }
    V minus_q;
};

// Primes of 50 to 54 bits that are just below a power of two, 2^b - c: what is above bit b folds back as a multiple of c.
struct Vector512_54 : Words512 {
    struct Factor {
        V w, companion;
    };
    static constexpr W R = 2;
    static constexpr bool FOLDS = true;
    static constexpr int LOW = 8;  // bits of y that the estimate of the quotient leaves out

    explicit Vector512_54(W modulus) : minus_q(set1(0 - (modulus << LOW))) {
        int bits = 0;
        while (modulus >> bits) ++bits;
        cut = set1((W{1} << bits) - 1);
        excess = set1((W{1} << bits) - modulus);
        shift = _mm_cvtsi32_si128(bits);
    }
    static Factor broadcast(W w, W p) { return {set1(w), set1(p)}; }
    static Factor pair_factor(const W* w, const W* p) { return {load(w), load(p)}; }
    static Factor load_factor(const W* table) { return {load(table), load(table + L)}; }

    // x < 2^64 -> x mod q or that plus q, as long as 2^(64 - b) * c < q
    V fold(V x) const { return opaque(_mm512_madd52lo_epu64(_mm512_and_si512(x, cut), _mm512_srl_epi64(x, shift), excess)); }

    // floor(floor(y / 2^8) * companion / 2^52) * 2^8 is at most 3 * 2^8 below y * w / q for y < 2^60; the remainder fits 64 bits.
    V multiply(V y, const Factor& f) const {
        const V quotient = _mm512_madd52hi_epu64(_mm512_setzero_si512(), _mm512_srli_epi64(y, LOW), f.companion);
        return fold(add(_mm512_mullo_epi64(y, f.w), _mm512_mullo_epi64(quotient, minus_q)));
    }
    V minus_q, cut, excess;
    __m128i shift;
};

}  // namespace

const Kernels& ifma_kernels() {
    static const Kernels kernels = {
        "ifma",
        word_kernels<Vector512_32, Bits512>(32, 32),
        word_kernels<Vector512_52, Bits512>(52, 52),
        word_kernels<Vector512_54, Bits512>(52, 60),
        word_kernels<Vector512_64, Bits512>(64, 64),
        message_512<double>,
        message_512<float>,
        message32_512<double>,
        message32_512<float>,
        largest_words<u32>,
        largest_words<u64>,
        transpose_blocks<Vector512_32>,
        transpose_blocks<Words512>,
        reduce_signed_512,
        digitize_512,
        digitize_packed_512,
        dot_512,
        switch_modulus_512,
        add_constant_words,
        add_products_512,
        pack_512,
        unpack_512,
    };
    return kernels;
}

}  // namespace he
#endif
