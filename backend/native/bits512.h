// Bit streams on 512-bit vectors. Included inside an anonymous namespace, after portable.h.

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

// Values of `bits` bits in a vector of eight 64-bit or sixteen 32-bit lanes.
template <class W>
struct UnpackOrder {
    static constexpr W BITS = 8 * sizeof(W), LANES = 512 / BITS;
    alignas(64) W lane[LANES], next[LANES], right[LANES], left[LANES];
    void make(W bits) {
        for (W k = 0; k < LANES; ++k) {
            lane[k] = k * bits / BITS;
            next[k] = lane[k] + 1 < LANES ? lane[k] + 1 : LANES - 1;
            right[k] = k * bits % BITS;
            left[k] = BITS - right[k];
        }
    }
};

struct Orders {
    PackOrder pack[63];
    UnpackOrder<u64> unpack[62];
    UnpackOrder<u32> unpack32[32];
    const UnpackOrder<u64>& unpack_order(int bits, u64) const { return unpack[bits]; }
    const UnpackOrder<u32>& unpack_order(int bits, u32) const { return unpack32[bits]; }
    Orders() {
        for (u64 bits = 32; bits < 63; ++bits) pack[bits].make(bits);
        for (u64 bits = 1; bits < 62; ++bits) unpack[bits].make(bits);
        for (u32 bits = 1; bits < 32; ++bits) unpack32[bits].make(bits);
    }
};

inline const Orders& orders() {
    static const Orders made;
    return made;
}

inline __m512i merge_lanes(__m512i lanes, const PackOrder& order) {
    const auto term = [&](int t) { return _mm512_permutexvar_epi64(_mm512_load_si512(order.lane[t]), lanes); };
    const __m512i first = _mm512_srlv_epi64(term(0), _mm512_load_si512(order.right));
    const __m512i second = _mm512_sllv_epi64(term(1), _mm512_load_si512(order.left[0]));
    const __m512i third = _mm512_sllv_epi64(term(2), _mm512_load_si512(order.left[1]));
    return _mm512_ternarylogic_epi64(first, second, third, 0xfe);
}

// Groups of eight lanes follow each other; the bytes past a group are left to the next one, none is written past the last.
inline void store_lanes(u8* out, __m512i lanes, const PackOrder& order, int width, bool last) {
    const __m512i words = merge_lanes(lanes, order);
    if (last)
        _mm512_mask_storeu_epi8(out, _cvtu64_mask64((u64{1} << width) - 1), words);
    else
        _mm512_storeu_si512(out, words);
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
            store_lanes(out + 2 * bits * g, _mm512_or_si512(low, _mm512_sll_epi64(high, shift)), order, 2 * bits, g == 3);
        }
    } else {
        const PackOrder& order = orders().pack[bits];
#pragma GCC unroll 8
        for (int g = 0; g < 8; ++g) store_lanes(out + bits * g, _mm512_loadu_si512(values + 8 * g), order, bits, g == 7);
    }
}

// Groups of as many values of `bits` bits as a vector has lanes of W: 1 to 61 bits for u64, 1 to 31 for u32.
template <class W>
struct Unpacker {
    explicit Unpacker(int bits)
        : bytes(static_cast<std::size_t>(bits) * UnpackOrder<W>::LANES / 8), present(_cvtu64_mask64((u64{1} << bytes) - 1)) {
        const UnpackOrder<W>& order = orders().unpack_order(bits, W{0});
        lane = _mm512_load_si512(order.lane);
        next = _mm512_load_si512(order.next);
        right = _mm512_load_si512(order.right);
        left = _mm512_load_si512(order.left);
        cut = sizeof(W) == 8 ? _mm512_set1_epi64((1LL << bits) - 1) : _mm512_set1_epi32((1 << (bits % 32)) - 1);
    }
    __m512i group(const u64* words, int g) const {
        const __m512i in = _mm512_maskz_loadu_epi8(present, reinterpret_cast<const u8*>(words) + bytes * static_cast<std::size_t>(g));
        if constexpr (sizeof(W) == 8) {
            const __m512i low = _mm512_srlv_epi64(_mm512_permutexvar_epi64(lane, in), right);
            const __m512i high = _mm512_sllv_epi64(_mm512_permutexvar_epi64(next, in), left);
            return _mm512_and_si512(_mm512_or_si512(low, high), cut);
        } else {
            const __m512i low = _mm512_srlv_epi32(_mm512_permutexvar_epi32(lane, in), right);
            const __m512i high = _mm512_sllv_epi32(_mm512_permutexvar_epi32(next, in), left);
            return _mm512_and_si512(_mm512_or_si512(low, high), cut);
        }
    }
    std::size_t bytes;
    __mmask64 present;
    __m512i lane, next, right, left, cut;
};

inline void unpack_512(u64* values, const u64* words, int bits) {
    const Unpacker<u64> unpacker(bits);
#pragma GCC unroll 8
    for (int g = 0; g < 8; ++g) _mm512_storeu_si512(values + 8 * g, unpacker.group(words, g));
}

// 16 to 31 bits
inline void pack32_512(u64* words, const u32* values, int bits) {
    const PackOrder& order = orders().pack[2 * bits];
    u8* out = reinterpret_cast<u8*>(words);
    const __m128i shift = _mm_cvtsi32_si128(bits);
    const __m512i low = _mm512_set1_epi64(0xffffffff);
#pragma GCC unroll 4
    for (int g = 0; g < 4; ++g) {
        const __m512i x = _mm512_loadu_si512(values + 16 * g);
        const __m512i odd = _mm512_sll_epi64(_mm512_srli_epi64(x, 32), shift);
        store_lanes(out + 2 * bits * g, _mm512_or_si512(_mm512_and_si512(x, low), odd), order, 2 * bits, g == 3);
    }
}

inline void unpack32_512(u32* values, const u64* words, int bits) {
    const Unpacker<u32> unpacker(bits);
#pragma GCC unroll 4
    for (int g = 0; g < 4; ++g) _mm512_storeu_si512(values + 16 * g, unpacker.group(words, g));
}

inline __m512i subtract_lanes(const u64* m, const u64* t, __m512i q) {
    const __m512i difference = _mm512_sub_epi64(_mm512_loadu_si512(m), _mm512_loadu_si512(t));
    return _mm512_mask_add_epi64(difference, _mm512_movepi64_mask(difference), difference, q);
}

inline __m512i subtract_lanes(const u32* m, const u32* t, __m512i q) {
    const __m512i difference = _mm512_sub_epi32(_mm512_loadu_si512(m), _mm512_loadu_si512(t));
    return _mm512_min_epu32(difference, _mm512_add_epi32(difference, q));
}

struct Bits512 {
    static void pack(u64* words, const u64* values, int bits) { pack_512(words, values, bits); }
    static void unpack(u64* values, const u64* words, int bits) { unpack_512(values, words, bits); }
    static void pack(u64* words, const u32* values, int bits) {
        bits < 16 ? PortableBits::pack(words, values, bits) : pack32_512(words, values, bits);
    }
    static void unpack(u32* values, const u64* words, int bits) { unpack32_512(values, words, bits); }

    static void subtract_pack(u64* words, const u64* m, const u64* t, std::size_t tiles, u64 q, int bits) {
        if (bits < 32) return subtract_pack_words<Bits512>(words, m, t, tiles, q, bits);
        const __m512i modulus = _mm512_set1_epi64(static_cast<long long>(q));
        const PackOrder& order = orders().pack[bits];
        for (std::size_t tile = 0; tile < tiles; ++tile, m += TILE, t += TILE, words += bits) {
            u8* out = reinterpret_cast<u8*>(words);
#pragma GCC unroll 8
            for (int g = 0; g < 8; ++g) store_lanes(out + bits * g, subtract_lanes(m + 8 * g, t + 8 * g, modulus), order, bits, g == 7);
        }
    }

    static void subtract_pack(u64* words, const u32* m, const u32* t, std::size_t tiles, u32 q, int bits) {
        if (bits < 16) return subtract_pack_words<Bits512>(words, m, t, tiles, q, bits);
        const __m512i modulus = _mm512_set1_epi32(static_cast<int>(q)), low = _mm512_set1_epi64(0xffffffff);
        const PackOrder& order = orders().pack[2 * bits];
        const __m128i shift = _mm_cvtsi32_si128(bits);
        for (std::size_t tile = 0; tile < tiles; ++tile, m += TILE, t += TILE, words += bits) {
            u8* out = reinterpret_cast<u8*>(words);
#pragma GCC unroll 4
            for (int g = 0; g < 4; ++g) {
                const __m512i x = subtract_lanes(m + 16 * g, t + 16 * g, modulus);
                const __m512i odd = _mm512_sll_epi64(_mm512_srli_epi64(x, 32), shift);
                store_lanes(out + 2 * bits * g, _mm512_or_si512(_mm512_and_si512(x, low), odd), order, 2 * bits, g == 3);
            }
        }
    }

    static void unpack_add(u64* out, const u64* t, const u64* words, std::size_t tiles, u64 q, int bits) {
        if (!bits) return unpack_add_words<Bits512>(out, t, words, tiles, q, bits);
        const __m512i modulus = _mm512_set1_epi64(static_cast<long long>(q));
        const Unpacker<u64> unpacker(bits);
        for (std::size_t tile = 0; tile < tiles; ++tile, out += TILE, t += TILE, words += bits) {
#pragma GCC unroll 8
            for (int g = 0; g < 8; ++g) {
                __m512i sum = _mm512_add_epi64(unpacker.group(words, g), _mm512_loadu_si512(t + 8 * g));
                sum = _mm512_min_epu64(sum, _mm512_sub_epi64(sum, modulus));
                _mm512_storeu_si512(out + 8 * g, _mm512_min_epu64(sum, _mm512_sub_epi64(sum, modulus)));
            }
        }
    }

    static void unpack_add(u32* out, const u32* t, const u64* words, std::size_t tiles, u32 q, int bits) {
        if (!bits) return unpack_add_words<Bits512>(out, t, words, tiles, q, bits);
        const __m512i modulus = _mm512_set1_epi32(static_cast<int>(q));
        const Unpacker<u32> unpacker(bits);
        for (std::size_t tile = 0; tile < tiles; ++tile, out += TILE, t += TILE, words += bits) {
#pragma GCC unroll 4
            for (int g = 0; g < 4; ++g) {
                __m512i sum = _mm512_add_epi32(unpacker.group(words, g), _mm512_loadu_si512(t + 16 * g));
                sum = _mm512_min_epu32(sum, _mm512_sub_epi32(sum, modulus));
                _mm512_storeu_si512(out + 16 * g, _mm512_min_epu32(sum, _mm512_sub_epi32(sum, modulus)));
            }
        }
    }
};
