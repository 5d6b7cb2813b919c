// AVX2 (Haswell, Zen and newer).
#include "kernels.h"

#include <type_traits>

#if defined(__AVX2__)
#include <immintrin.h>

namespace he {
namespace {

#include "transform.h"

struct Vector256_32 {
    using W = u32;
    using V = __m256i;
    struct Factor {
        V w, companion, companion_odd;
    };
    static constexpr std::size_t L = 8;
    static constexpr W R = 2;

    explicit Vector256_32(W modulus) : q(set1(modulus)) {}
    static V load(const W* a) { return _mm256_loadu_si256(reinterpret_cast<const V*>(a)); }
    static void store(W* a, V v) { _mm256_storeu_si256(reinterpret_cast<V*>(a), v); }
    static V set1(W w) { return _mm256_set1_epi32(static_cast<int>(w)); }
    static V add(V a, V b) { return _mm256_add_epi32(a, b); }
    static V sub(V a, V b) { return _mm256_sub_epi32(a, b); }
    static V min(V a, V b) { return _mm256_min_epu32(a, b); }
    static Factor broadcast(W w, W p) { return {set1(w), set1(p), set1(p)}; }
    static Factor pair_factor(const W* w, const W* p) {
        const V companion = load(p);
        return {load(w), companion, _mm256_srli_epi64(companion, 32)};
    }
    static Factor load_factor(const W* table) { return pair_factor(table, table + L); }

    __attribute__((always_inline)) static void transpose(V* v) {
        V t[8];
#pragma GCC unroll 4
        for (int i = 0; i < 4; ++i) {
            t[2 * i] = _mm256_unpacklo_epi32(v[2 * i], v[2 * i + 1]);
            t[2 * i + 1] = _mm256_unpackhi_epi32(v[2 * i], v[2 * i + 1]);
        }
#pragma GCC unroll 2
        for (int i = 0; i < 2; ++i) {
            v[4 * i] = _mm256_unpacklo_epi64(t[4 * i], t[4 * i + 2]);
            v[4 * i + 1] = _mm256_unpackhi_epi64(t[4 * i], t[4 * i + 2]);
            v[4 * i + 2] = _mm256_unpacklo_epi64(t[4 * i + 1], t[4 * i + 3]);
            v[4 * i + 3] = _mm256_unpackhi_epi64(t[4 * i + 1], t[4 * i + 3]);
        }
#pragma GCC unroll 4
        for (int i = 0; i < 4; ++i) {
            t[i] = _mm256_permute2x128_si256(v[i], v[4 + i], 0x20);
            t[4 + i] = _mm256_permute2x128_si256(v[i], v[4 + i], 0x31);
        }
#pragma GCC unroll 8
        for (int i = 0; i < 8; ++i) v[i] = t[i];
    }

    // y * w - floor(y * companion / 2^32) * q < 2q for every y
    V multiply(V y, const Factor& f) const {
        const V even = _mm256_mul_epu32(y, f.companion);
        const V odd = _mm256_mul_epu32(_mm256_srli_epi64(y, 32), f.companion_odd);
        const V quotient = _mm256_blend_epi32(_mm256_srli_epi64(even, 32), odd, 0xaa);
        return _mm256_sub_epi32(_mm256_mullo_epi32(y, f.w), _mm256_mullo_epi32(quotient, q));
    }
    V q;
};

struct Vector256_64 {
    using W = u64;
    using V = __m256i;
    struct Factor {
        V w, w_high, companion, companion_high;
    };
    static constexpr std::size_t L = 4;
    static constexpr W R = 4;

    explicit Vector256_64(W modulus) : q(set1(modulus)), q_high(_mm256_srli_epi64(q, 32)) {}
    static V load(const W* a) { return _mm256_loadu_si256(reinterpret_cast<const V*>(a)); }
    static void store(W* a, V v) { _mm256_storeu_si256(reinterpret_cast<V*>(a), v); }
    static V set1(W w) { return _mm256_set1_epi64x(static_cast<long long>(w)); }
    static V add(V a, V b) { return _mm256_add_epi64(a, b); }
    static V sub(V a, V b) { return _mm256_sub_epi64(a, b); }
    // For b = a - c with a < 2c and c < 2^63, the only way transform.h uses it: b is "negative" exactly if a < c.
    static V min(V a, V b) {
        return _mm256_castpd_si256(_mm256_blendv_pd(_mm256_castsi256_pd(b), _mm256_castsi256_pd(a), _mm256_castsi256_pd(b)));
    }
    static Factor of(V w, V companion) { return {w, _mm256_srli_epi64(w, 32), companion, _mm256_srli_epi64(companion, 32)}; }
    static Factor broadcast(W w, W p) { return of(set1(w), set1(p)); }
    static Factor pair_factor(const W* w, const W* p) { return of(load(w), load(p)); }
    static Factor load_factor(const W* table) { return of(load(table), load(table + L)); }

    __attribute__((always_inline)) static void transpose(V* v) {
        const V a = _mm256_unpacklo_epi64(v[0], v[1]), b = _mm256_unpackhi_epi64(v[0], v[1]);
        const V c = _mm256_unpacklo_epi64(v[2], v[3]), d = _mm256_unpackhi_epi64(v[2], v[3]);
        v[0] = _mm256_permute2x128_si256(a, c, 0x20);
        v[1] = _mm256_permute2x128_si256(b, d, 0x20);
        v[2] = _mm256_permute2x128_si256(a, c, 0x31);
        v[3] = _mm256_permute2x128_si256(b, d, 0x31);
    }

    static V low_product(V a, V a_high, V b, V b_high) {
        const V cross = add(_mm256_mul_epu32(a_high, b), _mm256_mul_epu32(a, b_high));
        return add(_mm256_mul_epu32(a, b), _mm256_slli_epi64(cross, 32));
    }

    // The quotient leaves out the product of the low halves and three fractions: at most 2 too small, so the result is below 4q.
    V multiply(V y, const Factor& f) const {
        const V high = _mm256_srli_epi64(y, 32);
        const V cross_1 = _mm256_srli_epi64(_mm256_mul_epu32(high, f.companion), 32);
        const V cross_2 = _mm256_srli_epi64(_mm256_mul_epu32(y, f.companion_high), 32);
        const V quotient = add(_mm256_mul_epu32(high, f.companion_high), add(cross_1, cross_2));
        return sub(low_product(y, high, f.w, f.w_high), low_product(quotient, _mm256_srli_epi64(quotient, 32), q, q_high));
    }
    V q, q_high;
};

#include "portable.h"

#include "linear256.h"

}  // namespace

const Kernels& avx2_kernels() {
    static const Kernels kernels = {
        "avx2",
        word_kernels<Vector256_32, PortableBits>(32, 32),
        WordKernels<u64>{},
        WordKernels<u64>{},
        word_kernels<Vector256_64, PortableBits>(64, 64),
        message_words<double>,
        message_words<float>,
        message32_words<double>,
        message32_words<float>,
        largest_words<u32>,
        largest_words<u64>,
        transpose_blocks<Vector256_32>,
        transpose_blocks<Vector256_64>,
        reduce_signed_words,
        digitize_words,
        digitize_packed_words,
        dot_256,
        switch_modulus_words,
        add_constant_words,
        add_products_words,
        pack_words,
        unpack_words,
    };
    return kernels;
}

}  // namespace he
#endif
