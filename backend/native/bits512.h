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
    const UnpackOrder<u64>& order = orders().unpack[bits];
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
        store_lanes(out + 2 * bits * g, _mm512_or_si512(_mm512_and_si512(x, low), odd), order, 2 * bits);
    }
}

// 1 to 31 bits
inline void unpack32_512(u32* values, const u64* words, int bits) {
    const UnpackOrder<u32>& order = orders().unpack32[bits];
    const u8* in = reinterpret_cast<const u8*>(words);
    const __m512i lane = _mm512_load_si512(order.lane), next = _mm512_load_si512(order.next);
    const __m512i right = _mm512_load_si512(order.right), left = _mm512_load_si512(order.left);
    const __m512i cut = _mm512_set1_epi32((1 << bits) - 1);
    const __mmask64 present = _cvtu64_mask64((u64{1} << (2 * bits)) - 1);
#pragma GCC unroll 4
    for (int g = 0; g < 4; ++g) {
        const __m512i group = _mm512_maskz_loadu_epi8(present, in + 2 * bits * g);
        const __m512i low = _mm512_srlv_epi32(_mm512_permutexvar_epi32(lane, group), right);
        const __m512i high = _mm512_sllv_epi32(_mm512_permutexvar_epi32(next, group), left);
        _mm512_storeu_si512(values + 16 * g, _mm512_and_si512(_mm512_or_si512(low, high), cut));
    }
}

struct Bits512 {
    static void pack(u64* words, const u64* values, int bits) { pack_512(words, values, bits); }
    static void unpack(u64* values, const u64* words, int bits) { unpack_512(values, words, bits); }
    static void pack(u64* words, const u32* values, int bits) {
        bits < 16 ? PortableBits::pack(words, values, bits) : pack32_512(words, values, bits);
    }
    static void unpack(u32* values, const u64* words, int bits) { unpack32_512(values, words, bits); }
};
