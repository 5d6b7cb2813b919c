// Policies of transform.h and elementwise kernels on 512-bit vectors. Included inside an anonymous namespace.

// Keeps the compiler from reassociating sums across this value, which costs additions in butterflies.
inline __m512i opaque(__m512i v) {
    __asm__("" : "+v"(v));
    return v;
}

struct Vector512_32 {
    using W = u32;
    using V = __m512i;
    struct Factor {
        V w, companion, companion_odd;
    };
    static constexpr std::size_t L = 16;
    static constexpr W R = 2;

    explicit Vector512_32(W modulus) : q(_mm512_set1_epi32(static_cast<int>(modulus))) {}
    static V load(const W* a) { return _mm512_loadu_si512(a); }
    static void store(W* a, V v) { _mm512_storeu_si512(a, v); }
    static V set1(W w) { return _mm512_set1_epi32(static_cast<int>(w)); }
    static V add(V a, V b) { return _mm512_add_epi32(a, b); }
    static V sub(V a, V b) { return _mm512_sub_epi32(a, b); }
    static V min(V a, V b) { return _mm512_min_epu32(a, b); }
    static Factor broadcast(W w, W p) { return {set1(w), set1(p), set1(p)}; }
    static Factor pair_factor(const W* w, const W* p) {
        const V companion = load(p);
        return {load(w), companion, _mm512_srli_epi64(companion, 32)};
    }
    static Factor load_factor(const W* table) { return pair_factor(table, table + L); }

    __attribute__((always_inline)) static void transpose(V* v) {
        V t[16];
#pragma GCC unroll 8
        for (int i = 0; i < 8; ++i) {
            t[2 * i] = _mm512_unpacklo_epi32(v[2 * i], v[2 * i + 1]);
            t[2 * i + 1] = _mm512_unpackhi_epi32(v[2 * i], v[2 * i + 1]);
        }
#pragma GCC unroll 4
        for (int i = 0; i < 4; ++i) {
            v[4 * i] = _mm512_unpacklo_epi64(t[4 * i], t[4 * i + 2]);
            v[4 * i + 1] = _mm512_unpackhi_epi64(t[4 * i], t[4 * i + 2]);
            v[4 * i + 2] = _mm512_unpacklo_epi64(t[4 * i + 1], t[4 * i + 3]);
            v[4 * i + 3] = _mm512_unpackhi_epi64(t[4 * i + 1], t[4 * i + 3]);
        }
#pragma GCC unroll 4
        for (int i = 0; i < 4; ++i) {
            t[i] = _mm512_shuffle_i32x4(v[i], v[4 + i], 0x88);
            t[4 + i] = _mm512_shuffle_i32x4(v[i], v[4 + i], 0xdd);
            t[8 + i] = _mm512_shuffle_i32x4(v[8 + i], v[12 + i], 0x88);
            t[12 + i] = _mm512_shuffle_i32x4(v[8 + i], v[12 + i], 0xdd);
        }
#pragma GCC unroll 4
        for (int i = 0; i < 4; ++i) {
            v[i] = _mm512_shuffle_i32x4(t[i], t[8 + i], 0x88);
            v[4 + i] = _mm512_shuffle_i32x4(t[4 + i], t[12 + i], 0x88);
            v[8 + i] = _mm512_shuffle_i32x4(t[i], t[8 + i], 0xdd);
            v[12 + i] = _mm512_shuffle_i32x4(t[4 + i], t[12 + i], 0xdd);
        }
    }

    // y * w - floor(y * companion / 2^32) * q < 2q for every y
    V multiply(V y, const Factor& f) const {
        const V even = _mm512_mul_epu32(y, f.companion);
        const V odd = _mm512_mul_epu32(_mm512_srli_epi64(y, 32), f.companion_odd);
        const V quotient = _mm512_mask_shuffle_epi32(odd, 0x5555, even, _MM_PERM_CDAB);  // the high halves of both
        return opaque(_mm512_sub_epi32(_mm512_mullo_epi32(y, f.w), _mm512_mullo_epi32(quotient, q)));
    }
    V q;
};

struct Words512 {
    using W = u64;
    using V = __m512i;
    static constexpr std::size_t L = 8;
    static V load(const W* a) { return _mm512_loadu_si512(a); }
    static void store(W* a, V v) { _mm512_storeu_si512(a, v); }
    static V set1(W w) { return _mm512_set1_epi64(static_cast<long long>(w)); }
    static V add(V a, V b) { return _mm512_add_epi64(a, b); }
    static V sub(V a, V b) { return _mm512_sub_epi64(a, b); }
    static V min(V a, V b) { return _mm512_min_epu64(a, b); }

    __attribute__((always_inline)) static void transpose(V* v) {
        V t[8];
#pragma GCC unroll 4
        for (int i = 0; i < 4; ++i) {
            t[2 * i] = _mm512_unpacklo_epi64(v[2 * i], v[2 * i + 1]);
            t[2 * i + 1] = _mm512_unpackhi_epi64(v[2 * i], v[2 * i + 1]);
        }
#pragma GCC unroll 2
        for (int i = 0; i < 2; ++i) {
            v[i] = _mm512_shuffle_i64x2(t[i], t[2 + i], 0x88);
            v[2 + i] = _mm512_shuffle_i64x2(t[i], t[2 + i], 0xdd);
            v[4 + i] = _mm512_shuffle_i64x2(t[4 + i], t[6 + i], 0x88);
            v[6 + i] = _mm512_shuffle_i64x2(t[4 + i], t[6 + i], 0xdd);
        }
#pragma GCC unroll 2
        for (int i = 0; i < 2; ++i) {
            t[i] = _mm512_shuffle_i64x2(v[i], v[4 + i], 0x88);
            t[2 + i] = _mm512_shuffle_i64x2(v[2 + i], v[6 + i], 0x88);
            t[4 + i] = _mm512_shuffle_i64x2(v[i], v[4 + i], 0xdd);
            t[6 + i] = _mm512_shuffle_i64x2(v[2 + i], v[6 + i], 0xdd);
        }
#pragma GCC unroll 8
        for (int i = 0; i < 8; ++i) v[i] = t[i];
    }
};

struct Vector512_64 : Words512 {
    struct Factor {
        V w, companion, companion_high;
    };
    static constexpr W R = 4;

    explicit Vector512_64(W modulus) : q(set1(modulus)) {}
    static Factor of(V w, V companion) { return {w, companion, _mm512_srli_epi64(companion, 32)}; }
    static Factor broadcast(W w, W p) { return of(set1(w), set1(p)); }
    static Factor pair_factor(const W* w, const W* p) { return of(load(w), load(p)); }
    static Factor load_factor(const W* table) { return of(load(table), load(table + L)); }

    // The quotient leaves out the product of the low halves and three fractions: at most 2 too small, so the result is below 4q.
    V multiply(V y, const Factor& f) const {
        const V high = _mm512_srli_epi64(y, 32);
        const V cross_1 = _mm512_srli_epi64(_mm512_mul_epu32(high, f.companion), 32);
        const V cross_2 = _mm512_srli_epi64(_mm512_mul_epu32(y, f.companion_high), 32);
        const V quotient = add(_mm512_mul_epu32(high, f.companion_high), add(cross_1, cross_2));
        return opaque(sub(_mm512_mullo_epi64(y, f.w), _mm512_mullo_epi64(quotient, q)));
    }
    V q;
};

// NOISE_BLOCK errors: the set bits at each position of 42 planes, less 21.
inline void binomial_512(i8* out, const u8* bytes) {
    alignas(64) u64 masks[6][8];
    __m512i weights[6];
    count_planes(weights, [&](std::size_t k) { return _mm512_loadu_si512(bytes + NOISE_BLOCK / 8 * k); });
#pragma GCC unroll 6
    for (int k = 0; k < 6; ++k) _mm512_store_si512(masks[k], weights[k]);
    for (int word = 0; word < 8; ++word) {
        __m512i sum = _mm512_set1_epi8(-21);
#pragma GCC unroll 6
        for (int k = 0; k < 6; ++k)
            sum = _mm512_mask_add_epi8(sum, _cvtu64_mask64(masks[k][word]), sum, _mm512_set1_epi8(static_cast<char>(1 << k)));
        _mm512_store_si512(out + 64 * word, sum);
    }
}

inline __m512d load_reals(const double* x) { return _mm512_loadu_pd(x); }
inline __m512d load_reals(const float* x) { return _mm512_cvtps_pd(_mm256_loadu_ps(x)); }

template <class REAL>
bool message_512(i64* out, const REAL* x, std::size_t n, double scale, double limit, const u8* noise, u64 q) {
    const __m512d factor = _mm512_set1_pd(scale), most = _mm512_set1_pd(limit);
    const __m512i modulus = _mm512_set1_epi64(static_cast<long long>(q));
    __mmask8 inside = 0xff;
    for (std::size_t block = 0; block < n; block += NOISE_BLOCK, noise += NOISE_BLOCK_BYTES) {
        alignas(64) i8 errors[NOISE_BLOCK];
        binomial_512(errors, noise);
        for (std::size_t c = 0; c < NOISE_BLOCK; c += 8) {
            const __m512d scaled = _mm512_mul_pd(load_reals(x + block + c), factor);
            inside &= _mm512_cmp_pd_mask(_mm512_abs_pd(scaled), most, _CMP_LE_OQ);
            const __m512i m = _mm512_cvt_roundpd_epi64(scaled, _MM_FROUND_TO_NEAREST_INT | _MM_FROUND_NO_EXC);
            const __m512i e = _mm512_cvtepi8_epi64(_mm_loadl_epi64(reinterpret_cast<const __m128i*>(errors + c)));
            const __m512i sum = _mm512_add_epi64(m, e);
            _mm512_storeu_si512(out + block + c, _mm512_mask_add_epi64(sum, _mm512_movepi64_mask(sum), sum, modulus));
        }
    }
    return inside == 0xff;
}

template <class REAL>
bool message32_512(u32* out, const REAL* x, std::size_t n, double scale, double limit, const u8* noise, u32 q) {
    const __m512d factor = _mm512_set1_pd(scale), most = _mm512_set1_pd(limit);
    const __m512i modulus = _mm512_set1_epi32(static_cast<int>(q));
    __mmask8 inside = 0xff;
    for (std::size_t block = 0; block < n; block += NOISE_BLOCK, noise += NOISE_BLOCK_BYTES) {
        alignas(64) i8 errors[NOISE_BLOCK];
        binomial_512(errors, noise);
        for (std::size_t c = 0; c < NOISE_BLOCK; c += 16) {
            const __m512d a = _mm512_mul_pd(load_reals(x + block + c), factor), b = _mm512_mul_pd(load_reals(x + block + c + 8), factor);
            inside &= _mm512_cmp_pd_mask(_mm512_abs_pd(a), most, _CMP_LE_OQ) & _mm512_cmp_pd_mask(_mm512_abs_pd(b), most, _CMP_LE_OQ);
            constexpr int NEAREST = _MM_FROUND_TO_NEAREST_INT | _MM_FROUND_NO_EXC;
            const __m512i m = _mm512_inserti64x4(_mm512_castsi256_si512(_mm512_cvt_roundpd_epi32(a, NEAREST)),
                                                 _mm512_cvt_roundpd_epi32(b, NEAREST), 1);
            const __m512i e = _mm512_cvtepi8_epi32(_mm_load_si128(reinterpret_cast<const __m128i*>(errors + c)));
            const __m512i sum = _mm512_add_epi32(m, e);
            _mm512_storeu_si512(out + block + c, _mm512_min_epu32(sum, _mm512_add_epi32(sum, modulus)));  // a negative sum wraps
        }
    }
    return inside == 0xff;
}

inline void reduce_signed_512(i64* out, const i64* v, std::size_t n, u64 q, u64 one_p64, u64 offset) {
    const Vector512_64 p(q);
    const Vector512_64::Factor one = Vector512_64::broadcast(1, one_p64);
    const __m512i lift = _mm512_set1_epi64(static_cast<long long>(offset)), q2 = _mm512_set1_epi64(static_cast<long long>(2 * q));
    std::size_t i = 0;
    for (; i + 8 <= n; i += 8) {
        __m512i x = p.multiply(_mm512_add_epi64(_mm512_loadu_si512(v + i), lift), one);
        x = _mm512_min_epu64(x, _mm512_sub_epi64(x, q2));
        _mm512_storeu_si512(out + i, _mm512_min_epu64(x, _mm512_sub_epi64(x, p.q)));
    }
    reduce_signed_words(out + i, v + i, n - i, q, one_p64, offset);
}
