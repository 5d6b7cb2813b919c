// Dot products of digits, packing and modulus switching on 512-bit vectors. Included inside an anonymous namespace, after avx512.h and
// add_pair_products(sum, a, b): sum += a[2i] * b[2i] + a[2i + 1] * b[2i + 1] in 32-bit lanes.

// Position t of a stored vector of 32 digits holds value 4j + r or 16 + 4j + r - 4 (j = t / 8, r = t mod 8), so that interleaving two
// such vectors within 128-bit lanes gives values 0 to 15 and 16 to 31.
inline int stored_value(int t) {
    const int j = t / 8, r = t % 8;
    return r < 4 ? 4 * j + r : 16 + 4 * j + r - 4;
}

inline void digitize_512(i16* out, std::size_t stride, const u64* in, int digits, int bits) {
    alignas(64) static const struct Order {
        i16 index[32];
        Order() {
            for (int t = 0; t < 32; ++t) index[t] = static_cast<i16>(2 * stored_value(t));  // the low 16 bits of each 32-bit value
        }
    } order;
    const __m512i index = _mm512_load_si512(order.index);
    const __m512i cut = _mm512_set1_epi32((1 << bits) - 1);
    const __m512i middle = _mm512_set1_epi16(static_cast<short>(1 << (bits - 1)));
    const __m512i low_halves = _mm512_set_epi32(30, 28, 26, 24, 22, 20, 18, 16, 14, 12, 10, 8, 6, 4, 2, 0);
    const __m128i shift = _mm_cvtsi32_si128(bits);
    for (int d = 0; d < digits; d += 2) {
        const __m128i away = _mm_cvtsi32_si128(d * bits);
        for (int half = 0; half < 2; ++half) {
            __m512i x[2];  // 32 values, the two digits in the low bits of 32-bit lanes
#pragma GCC unroll 2
            for (int i = 0; i < 2; ++i) {
                const u64* from = in + 32 * half + 16 * i;
                const __m512i a = _mm512_srl_epi64(_mm512_loadu_si512(from), away);
                const __m512i b = _mm512_srl_epi64(_mm512_loadu_si512(from + 8), away);
                x[i] = _mm512_permutex2var_epi32(a, low_halves, b);
            }
            const __m512i first = _mm512_permutex2var_epi16(_mm512_and_si512(x[0], cut), index, _mm512_and_si512(x[1], cut));
            _mm512_storeu_si512(out + d * stride + 32 * half, _mm512_sub_epi16(first, middle));
            if (d + 1 < digits) {
                const __m512i y0 = _mm512_and_si512(_mm512_srl_epi32(x[0], shift), cut);
                const __m512i y1 = _mm512_and_si512(_mm512_srl_epi32(x[1], shift), cut);
                const __m512i second = _mm512_permutex2var_epi16(y0, index, y1);
                _mm512_storeu_si512(out + (d + 1) * stride + 32 * half, _mm512_sub_epi16(second, middle));
            }
        }
    }
}

// sums[0 .. 16) += factor * partial, modulo 2^64 or q.
inline void join_sums_512(u64* sums, __m512i partial, const DotSink& sink) {
    const __m512i factor = _mm512_set1_epi64(static_cast<long long>(sink.factor));
    __m512i wide[2] = {_mm512_cvtepi32_epi64(_mm512_castsi512_si256(partial)), _mm512_cvtepi32_epi64(_mm512_extracti64x4_epi64(partial, 1))};
    if (sink.exact) {
        const Vector512_64 p(sink.q);
        const Vector512_64::Factor f = Vector512_64::broadcast(sink.factor, sink.companion);
        const __m512i lift = _mm512_set1_epi64(1LL << 31), q4 = _mm512_slli_epi64(p.q, 2), q2 = _mm512_slli_epi64(p.q, 1);
#pragma GCC unroll 2
        for (int i = 0; i < 2; ++i) {
            __m512i sum = _mm512_add_epi64(_mm512_loadu_si512(sums + 8 * i), p.multiply(_mm512_add_epi64(wide[i], lift), f));
            sum = _mm512_min_epu64(sum, _mm512_sub_epi64(sum, q4));
            sum = _mm512_min_epu64(sum, _mm512_sub_epi64(sum, q2));
            _mm512_storeu_si512(sums + 8 * i, _mm512_min_epu64(sum, _mm512_sub_epi64(sum, p.q)));
        }
    } else {
#pragma GCC unroll 2
        for (int i = 0; i < 2; ++i)
            _mm512_storeu_si512(sums + 8 * i, _mm512_add_epi64(_mm512_loadu_si512(sums + 8 * i), _mm512_mullo_epi64(wide[i], factor)));
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

inline void switch_modulus_512(u64* out, const u64* sums, u64 constant, u64 p) {
    const __m512i add = _mm512_set1_epi64(static_cast<long long>(constant)), modulus = _mm512_set1_epi64(static_cast<long long>(p));
    const __m512i half = _mm512_set1_epi64(1LL << 31);
#pragma GCC unroll 8
    for (std::size_t c = 0; c < TILE; c += 8) {
        const __m512i high = _mm512_srli_epi64(_mm512_add_epi64(_mm512_loadu_si512(sums + c), add), 32);
        const __m512i y = _mm512_srli_epi64(_mm512_add_epi64(_mm512_mul_epu32(high, modulus), half), 32);
        _mm512_storeu_si512(out + c, _mm512_min_epu64(y, _mm512_sub_epi64(y, modulus)));
    }
}

// Eight lanes of `width` bits (32 to 62) are `width` bytes. Word w of them takes bits of up to three lanes, the first of which is
// lane 64w / width.
struct PackOrder {
    alignas(64) u64 lane[3][8];
    alignas(64) u64 right[8];
    alignas(64) u64 left[2][8];
    void make(u64 width) {
        for (u64 w = 0; w < 8; ++w) {
            const u64 first = 64 * w / width;
            right[w] = 64 * w - first * width;
            for (u64 t = 0; t < 3; ++t) lane[t][w] = first + t < 8 ? first + t : 0;
            // Shifts of 64 or more give 0.
            for (u64 t = 0; t < 2; ++t) left[t][w] = first + t + 1 < 8 ? (first + t + 1) * width - 64 * w : 64;
            if (first >= 8) right[w] = 64;
        }
    }
};

struct UnpackOrder {
    alignas(64) u64 lane[8], next[8], right[8], left[8];
    void make(u64 bits) {
        for (u64 k = 0; k < 8; ++k) {
            lane[k] = k * bits / 64;
            next[k] = lane[k] + 1 < 8 ? lane[k] + 1 : 7;
            right[k] = k * bits % 64;
            left[k] = 64 - right[k];
        }
    }
};

struct Orders {
    PackOrder pack[63];
    UnpackOrder unpack[62];
    Orders() {
        for (u64 bits = 32; bits < 63; ++bits) pack[bits].make(bits);
        for (u64 bits = 1; bits < 62; ++bits) unpack[bits].make(bits);
    }
};

inline const Orders& orders() {
    static const Orders made;
    return made;
}

inline void store_lanes(u8* out, __m512i lanes, const PackOrder& order, int width) {
    const auto term = [&](int t) { return _mm512_permutexvar_epi64(_mm512_load_si512(order.lane[t]), lanes); };
    const __m512i first = _mm512_srlv_epi64(term(0), _mm512_load_si512(order.right));
    const __m512i second = _mm512_sllv_epi64(term(1), _mm512_load_si512(order.left[0]));
    const __m512i third = _mm512_sllv_epi64(term(2), _mm512_load_si512(order.left[1]));
    _mm512_mask_storeu_epi8(out, _cvtu64_mask64((u64{1} << width) - 1), _mm512_ternarylogic_epi64(first, second, third, 0xfe));
}

inline void pack_512(u64* words, const u64* values, int bits) {
    if (bits < 16) return pack_words(words, values, bits);
    u8* out = reinterpret_cast<u8*>(words);
    if (bits < 32) {
        const PackOrder& order = orders().pack[2 * bits];
        const __m512i even = _mm512_set_epi64(14, 12, 10, 8, 6, 4, 2, 0), odd = _mm512_set_epi64(15, 13, 11, 9, 7, 5, 3, 1);
        const __m128i shift = _mm_cvtsi32_si128(bits);
#pragma GCC unroll 4
        for (int g = 0; g < 4; ++g) {
            const __m512i a = _mm512_loadu_si512(values + 16 * g), b = _mm512_loadu_si512(values + 16 * g + 8);
            const __m512i low = _mm512_permutex2var_epi64(a, even, b), high = _mm512_permutex2var_epi64(a, odd, b);
            store_lanes(out + 2 * bits * g, _mm512_or_si512(low, _mm512_sll_epi64(high, shift)), order, 2 * bits);
        }
    } else {
        const PackOrder& order = orders().pack[bits];
#pragma GCC unroll 8
        for (int g = 0; g < 8; ++g) store_lanes(out + bits * g, _mm512_loadu_si512(values + 8 * g), order, bits);
    }
}

inline void unpack_512(u64* values, const u64* words, int bits) {
    const UnpackOrder& order = orders().unpack[bits];
    const u8* in = reinterpret_cast<const u8*>(words);
    const __m512i lane = _mm512_load_si512(order.lane), next = _mm512_load_si512(order.next);
    const __m512i right = _mm512_load_si512(order.right), left = _mm512_load_si512(order.left);
    const __m512i cut = _mm512_set1_epi64((1LL << bits) - 1);
    const __mmask64 present = _cvtu64_mask64((u64{1} << bits) - 1);
#pragma GCC unroll 8
    for (int g = 0; g < 8; ++g) {
        const __m512i group = _mm512_maskz_loadu_epi8(present, in + bits * g);
        const __m512i low = _mm512_srlv_epi64(_mm512_permutexvar_epi64(lane, group), right);
        const __m512i high = _mm512_sllv_epi64(_mm512_permutexvar_epi64(next, group), left);
        _mm512_storeu_si512(values + 8 * g, _mm512_and_si512(_mm512_or_si512(low, high), cut));
    }
}
