// AVX-512 with 52-bit multiply-add, byte permutations and dot products (Ice Lake, Zen 4 and newer).
#if defined(__x86_64__) && defined(__GNUC__) && !defined(__clang__)
#pragma GCC target("avx512vbmi,avx512vbmi2,avx512vnni")
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

}  // namespace

const Kernels& ifma_kernels() {
    static const Kernels kernels = {
        "ifma",
        word_kernels<Vector512_32, Bits512>(32, 32),
        word_kernels<Vector512_52, Bits512>(52, 52),
        word_kernels<Vector512_64, Bits512>(64, 64),
        message_512<double>,
        message_512<float>,
        message32_512<double>,
        message32_512<float>,
        transpose32_512,
        transpose64_512,
        reduce_signed_512,
        digitize_512,
        dot_512,
        switch_modulus_512,
        add_constant_words,
        pack_512,
        unpack_512,
    };
    return kernels;
}

}  // namespace he
#endif
