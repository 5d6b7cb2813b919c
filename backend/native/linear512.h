// Dot products of digits, packing and modulus switching on 512-bit vectors. Included inside an anonymous namespace, after avx512.h and
// add_pair_products(sum, a, b): sum += a[2i] * b[2i] + a[2i + 1] * b[2i + 1] in 32-bit lanes.

// Position t of a stored vector of 32 digits holds value 4j + r or 16 + 4j + r - 4 (j = t / 8, r = t mod 8), so that interleaving two
// such vectors within 128-bit lanes gives values 0 to 15 and 16 to 31.
inline int stored_value(int t) {
    const int j = t / 8, r = t % 8;
    return r < 4 ? 4 * j + r : 16 + 4 * j + r - 4;
}

struct StoredOrder {
    alignas(64) i16 index[32];
    StoredOrder() {
        for (int t = 0; t < 32; ++t) index[t] = static_cast<i16>(2 * stored_value(t));  // the low 16 bits of each 32-bit value
    }
};

inline __m512i stored_order() {
    static const StoredOrder order;
    return _mm512_load_si512(order.index);
}

// Two digits of 32 values in the low bits of 32-bit lanes.
struct DigitPair {
    DigitPair(i16* out, std::size_t stride, int bits)
        : out_(out), stride_(stride), order_(stored_order()), cut_(_mm512_set1_epi32((1 << bits) - 1)),
          middle_(_mm512_set1_epi16(static_cast<short>(1 << (bits - 1)))), shift_(_mm_cvtsi32_si128(bits)) {}

    void store(int digit, bool second, int half, __m512i x0, __m512i x1) const {
        i16* to = out_ + static_cast<std::size_t>(digit) * stride_ + 32 * half;
        const __m512i low = _mm512_permutex2var_epi16(_mm512_and_si512(x0, cut_), order_, _mm512_and_si512(x1, cut_));
        _mm512_storeu_si512(to, _mm512_sub_epi16(low, middle_));
        if (!second) return;
        const __m512i y0 = _mm512_and_si512(_mm512_srl_epi32(x0, shift_), cut_), y1 = _mm512_and_si512(_mm512_srl_epi32(x1, shift_), cut_);
        _mm512_storeu_si512(to + stride_, _mm512_sub_epi16(_mm512_permutex2var_epi16(y0, order_, y1), middle_));
    }

  private:
    i16* out_;
    std::size_t stride_;
    __m512i order_, cut_, middle_;
    __m128i shift_;
};

// Digits of 32 values in four vectors of 64-bit lanes.
inline void digitize_half(const DigitPair& pair, int half, const __m512i* values, int digits, int bits) {
    const __m512i low_halves = _mm512_set_epi32(30, 28, 26, 24, 22, 20, 18, 16, 14, 12, 10, 8, 6, 4, 2, 0);
    for (int d = 0; d < digits; d += 2) {
        const __m128i away = _mm_cvtsi32_si128(d * bits);
        const auto lanes = [&](int i) { return _mm512_srl_epi64(values[i], away); };
        pair.store(d, d + 1 < digits, half, _mm512_permutex2var_epi32(lanes(0), low_halves, lanes(1)),
                   _mm512_permutex2var_epi32(lanes(2), low_halves, lanes(3)));
    }
}

inline void digitize_512(i16* out, std::size_t stride, const u64* in, int digits, int bits) {
    const DigitPair pair(out, stride, bits);
    for (int half = 0; half < 2; ++half) {
        __m512i values[4];
#pragma GCC unroll 4
        for (int i = 0; i < 4; ++i) values[i] = _mm512_loadu_si512(in + 32 * half + 8 * i);
        digitize_half(pair, half, values, digits, bits);
    }
}

inline void digitize_packed_512(i16* out, std::size_t stride, const u64* words, int packed_bits, int digits, int bits) {
    const DigitPair pair(out, stride, bits);
    if (packed_bits < 32 && digits <= 2) {
        const Unpacker<u32> unpacker(packed_bits);
        for (int half = 0; half < 2; ++half)
            pair.store(0, digits == 2, half, unpacker.group(words, 2 * half), unpacker.group(words, 2 * half + 1));
        return;
    }
    const Unpacker<u64> unpacker(packed_bits);
    for (int half = 0; half < 2; ++half) {
        __m512i values[4];
#pragma GCC unroll 4
        for (int i = 0; i < 4; ++i) values[i] = unpacker.group(words, 4 * half + i);
        digitize_half(pair, half, values, digits, bits);
    }
}

// sums[0 .. 16) += factor * partial, modulo 2^64 or q.
inline void join_sums_512(u64* sums, __m512i partial, const DotSink& sink) {
    const __m512i factor = _mm512_set1_epi64(static_cast<long long>(sink.factor));
    const __mmask8 kept = sink.first ? 0 : 0xff;
    __m512i wide[2] = {_mm512_cvtepi32_epi64(_mm512_castsi512_si256(partial)), _mm512_cvtepi32_epi64(_mm512_extracti64x4_epi64(partial, 1))};
    if (sink.exact) {
        const Vector512_64 p(sink.q);
        const Vector512_64::Factor f = Vector512_64::broadcast(sink.factor, sink.companion);
        const __m512i lift = _mm512_set1_epi64(1LL << 31), q4 = _mm512_slli_epi64(p.q, 2), q2 = _mm512_slli_epi64(p.q, 1);
#pragma GCC unroll 2
        for (int i = 0; i < 2; ++i) {
            __m512i sum = _mm512_add_epi64(_mm512_maskz_loadu_epi64(kept, sums + 8 * i), p.multiply(_mm512_add_epi64(wide[i], lift), f));
            sum = _mm512_min_epu64(sum, _mm512_sub_epi64(sum, q4));
            sum = _mm512_min_epu64(sum, _mm512_sub_epi64(sum, q2));
            _mm512_storeu_si512(sums + 8 * i, _mm512_min_epu64(sum, _mm512_sub_epi64(sum, p.q)));
        }
    } else {
#pragma GCC unroll 2
        for (int i = 0; i < 2; ++i)
            _mm512_storeu_si512(sums + 8 * i, _mm512_add_epi64(_mm512_maskz_loadu_epi64(kept, sums + 8 * i), _mm512_mullo_epi64(wide[i], factor)));
    }
}

template <int OUTPUTS>
inline void dot_outputs(u64* const* sums, const i16* panel, const i32* rows, std::size_t pairs, const i32* weights, const DotSink& sink) {
    __m512i partial[OUTPUTS][4];
#pragma GCC unroll 8
    for (int m = 0; m < OUTPUTS; ++m)
#pragma GCC unroll 4
        for (int v = 0; v < 4; ++v) partial[m][v] = _mm512_setzero_si512();
    for (std::size_t k = 0; k < pairs; ++k) {
        const i16* a = panel + static_cast<std::size_t>(rows[2 * k]) * TILE;
        const i16* b = panel + static_cast<std::size_t>(rows[2 * k + 1]) * TILE;
        const __m512i a0 = _mm512_loadu_si512(a), a1 = _mm512_loadu_si512(a + 32);
        const __m512i b0 = _mm512_loadu_si512(b), b1 = _mm512_loadu_si512(b + 32);
        const __m512i x[4] = {_mm512_unpacklo_epi16(a0, b0), _mm512_unpackhi_epi16(a0, b0), _mm512_unpacklo_epi16(a1, b1),
                              _mm512_unpackhi_epi16(a1, b1)};
#pragma GCC unroll 8
        for (int m = 0; m < OUTPUTS; ++m) {
            const __m512i w = _mm512_set1_epi32(weights[k * OUTPUTS + static_cast<std::size_t>(m)]);
#pragma GCC unroll 4
            for (int v = 0; v < 4; ++v) add_pair_products(partial[m][v], x[v], w);
        }
    }
#pragma GCC unroll 8
    for (int m = 0; m < OUTPUTS; ++m)
#pragma GCC unroll 4
        for (int v = 0; v < 4; ++v) join_sums_512(sums[m] + 16 * v, partial[m][v], sink);
}

inline void dot_512(u64* const* sums, const i16* panel, const i32* rows, std::size_t pairs, const i32* weights, int outputs,
                    const DotSink& sink) {
    switch (outputs) {
        case 1: return dot_outputs<1>(sums, panel, rows, pairs, weights, sink);
        case 2: return dot_outputs<2>(sums, panel, rows, pairs, weights, sink);
        case 3: return dot_outputs<3>(sums, panel, rows, pairs, weights, sink);
        case 4: return dot_outputs<4>(sums, panel, rows, pairs, weights, sink);
        case 5: return dot_outputs<5>(sums, panel, rows, pairs, weights, sink);
        default: return dot_outputs<6>(sums, panel, rows, pairs, weights, sink);
    }
}

inline void switch_modulus_512(u64* out, const u64* sums, u64 constant, u64 p, int bits) {
    const __m512i add = _mm512_set1_epi64(static_cast<long long>(constant)), modulus = _mm512_set1_epi64(static_cast<long long>(p));
    const __m512i half = _mm512_set1_epi64(1LL << 31);
    alignas(64) u64 values[TILE];
    u64* to = bits ? values : out;
#pragma GCC unroll 8
    for (std::size_t c = 0; c < TILE; c += 8) {
        const __m512i high = _mm512_srli_epi64(_mm512_add_epi64(_mm512_loadu_si512(sums + c), add), 32);
        const __m512i y = _mm512_srli_epi64(_mm512_add_epi64(_mm512_mul_epu32(high, modulus), half), 32);
        _mm512_storeu_si512(to + c, _mm512_min_epu64(y, _mm512_sub_epi64(y, modulus)));
    }
    if (bits) pack_512(out, values, bits);
}

inline void add_products_512(u64* out, const u64* const* a, const u64* const* b, std::size_t terms, const ProductSum& sum) {
    if (sum.q >> (2 * HALF_WORD)) return add_products_words(out, a, b, terms, sum);
    const Vector512_64 p(sum.q);
    const auto one = Vector512_64::broadcast(1, sum.one_p64), half = Vector512_64::broadcast(sum.half, sum.half_p64),
               whole = Vector512_64::broadcast(sum.whole, sum.whole_p64);
    const __m512i cut = _mm512_set1_epi64((1LL << HALF_WORD) - 1);
    const bool narrow = !(sum.q >> HALF_WORD);
    for (std::size_t c = 0; c < TILE; c += 16) {
        __m512i low[2], middle[2], high[2];
#pragma GCC unroll 2
        for (int i = 0; i < 2; ++i) {
            low[i] = _mm512_loadu_si512(out + c + 8 * static_cast<std::size_t>(i));
            middle[i] = high[i] = _mm512_setzero_si512();
        }
        for (std::size_t k = 0; k < terms; ++k) {
#pragma GCC unroll 2
            for (int i = 0; i < 2; ++i) {
                const __m512i x = _mm512_loadu_si512(a[k] + c + 8 * static_cast<std::size_t>(i));
                const __m512i y = _mm512_loadu_si512(b[k] + c + 8 * static_cast<std::size_t>(i));
                if (narrow) {
                    low[i] = _mm512_add_epi64(low[i], _mm512_mul_epu32(x, y));
                } else {
                    const __m512i x0 = _mm512_and_si512(x, cut), x1 = _mm512_srli_epi64(x, HALF_WORD);
                    const __m512i y0 = _mm512_and_si512(y, cut), y1 = _mm512_srli_epi64(y, HALF_WORD);
                    low[i] = _mm512_add_epi64(low[i], _mm512_mul_epu32(x0, y0));
                    middle[i] = _mm512_add_epi64(middle[i], _mm512_add_epi64(_mm512_mul_epu32(x0, y1), _mm512_mul_epu32(x1, y0)));
                    high[i] = _mm512_add_epi64(high[i], _mm512_mul_epu32(x1, y1));
                }
            }
        }
#pragma GCC unroll 2
        for (int i = 0; i < 2; ++i) {
            __m512i total = p.multiply(low[i], one);  // each of the three below 4q
            if (!narrow) total = _mm512_add_epi64(total, _mm512_add_epi64(p.multiply(middle[i], half), p.multiply(high[i], whole)));
            for (int times = 8; times >= 1; times /= 2) {
                const __m512i step = _mm512_set1_epi64(static_cast<long long>(sum.q * static_cast<u64>(times)));
                total = _mm512_min_epu64(total, _mm512_sub_epi64(total, step));
            }
            _mm512_storeu_si512(out + c + 8 * static_cast<std::size_t>(i), total);
        }
    }
}
