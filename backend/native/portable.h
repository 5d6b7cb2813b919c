// Elementwise kernels in plain C++, which the compiler vectorises for whatever the including translation unit is compiled for.
// Included inside an anonymous namespace by each kernels_*.cpp.

template <class W>
void narrow_words(W* out, const u64* in, std::size_t n) {
    for (std::size_t i = 0; i < n; ++i) out[i] = static_cast<W>(in[i]);
}

template <class W>
void widen_words(u64* out, const W* in, std::size_t n) {
    for (std::size_t i = 0; i < n; ++i) out[i] = in[i];
}

// BITS packs and unpacks tiles of words W.
template <class BITS, class W>
void subtract_pack_words(u64* words, const W* m, const W* t, std::size_t tiles, W q, int bits) {
    for (std::size_t tile = 0; tile < tiles; ++tile, m += TILE, t += TILE) {
        alignas(64) W values[TILE];
        for (std::size_t c = 0; c < TILE; ++c) {
            const W difference = m[c] - t[c], lifted = difference + q;  // a negative difference wraps to more than the lifted one
            values[c] = difference < lifted ? difference : lifted;
        }
        if (bits) {
            BITS::pack(words, values, bits);
            words += bits;
        } else {
            for (std::size_t c = 0; c < TILE; ++c) words[c] = values[c];
            words += TILE;
        }
    }
}

template <class BITS, class W>
void unpack_add_words(W* out, const W* t, const u64* words, std::size_t tiles, W q, int bits) {
    for (std::size_t tile = 0; tile < tiles; ++tile, out += TILE, t += TILE) {
        alignas(64) W values[TILE];
        if (bits) {
            BITS::unpack(values, words, bits);
            words += bits;
        } else {
            for (std::size_t c = 0; c < TILE; ++c) values[c] = static_cast<W>(words[c]);
            words += TILE;
        }
        for (std::size_t c = 0; c < TILE; ++c) {
            W sum = values[c] + t[c];  // below 3q
            sum = sum >= q ? sum - q : sum;
            out[c] = sum >= q ? sum - q : sum;
        }
    }
}

template <class W, class REAL>
void to_real_words(REAL* out, const W* r, std::size_t n, W q, double factor) {
    using Signed = std::conditional_t<sizeof(W) == 4, i32, i64>;
    const W half = q / 2;
    for (std::size_t i = 0; i < n; ++i) {
        const Signed centered = static_cast<Signed>(r[i] > half ? r[i] - q : r[i]);
        out[i] = static_cast<REAL>(static_cast<double>(centered) * factor);
    }
}

#if defined(__AVX512F__)
using BitPlane = __m512i;
inline BitPlane xor3(BitPlane a, BitPlane b, BitPlane c) { return _mm512_ternarylogic_epi64(a, b, c, 0x96); }
inline BitPlane majority(BitPlane a, BitPlane b, BitPlane c) { return _mm512_ternarylogic_epi64(a, b, c, 0xe8); }
#else
#if defined(__AVX2__)
using BitPlane = u64 __attribute__((vector_size(32)));
#else
using BitPlane = u64;
#endif
inline BitPlane xor3(BitPlane a, BitPlane b, BitPlane c) { return a ^ b ^ c; }
inline BitPlane majority(BitPlane a, BitPlane b, BitPlane c) { return (a & b) | (c & (a ^ b)); }
#endif

// Set bits at each position of the 42 planes that plane(k) gives, as six planes of weights 1 to 32.
template <class PLANE>
void count_planes(BitPlane* weights, const PLANE& plane) {
    // Each group of seven planes becomes three of weights 1, 2 and 4.
    BitPlane ones[6], twos[6], fours[6];
#pragma GCC unroll 6
    for (std::size_t g = 0; g < 6; ++g) {
        const BitPlane a = plane(7 * g), b = plane(7 * g + 1), c = plane(7 * g + 2), d = plane(7 * g + 3), e = plane(7 * g + 4),
                       f = plane(7 * g + 5), h = plane(7 * g + 6);
        const BitPlane s1 = xor3(a, b, c), c1 = majority(a, b, c);
        const BitPlane s2 = xor3(d, e, f), c2 = majority(d, e, f);
        const BitPlane c3 = majority(s1, s2, h);
        ones[g] = xor3(s1, s2, h);
        twos[g] = xor3(c1, c2, c3);
        fours[g] = majority(c1, c2, c3);
    }
    // Weight 1: six planes; what they carry joins weight 2, and so on.
    const BitPlane o1 = xor3(ones[0], ones[1], ones[2]), o2 = xor3(ones[3], ones[4], ones[5]);
    const BitPlane p1 = majority(ones[0], ones[1], ones[2]), p2 = majority(ones[3], ones[4], ones[5]), p3 = o1 & o2;
    weights[0] = o1 ^ o2;
    // Weight 2: nine planes.
    const BitPlane t1 = xor3(twos[0], twos[1], twos[2]), t2 = xor3(twos[3], twos[4], twos[5]), t3 = xor3(p1, p2, p3);
    const BitPlane u1 = majority(twos[0], twos[1], twos[2]), u2 = majority(twos[3], twos[4], twos[5]), u3 = majority(p1, p2, p3);
    const BitPlane u4 = majority(t1, t2, t3);
    weights[1] = xor3(t1, t2, t3);
    // Weight 4: ten planes.
    const BitPlane f1 = xor3(fours[0], fours[1], fours[2]), f2 = xor3(fours[3], fours[4], fours[5]), f3 = xor3(u1, u2, u3);
    const BitPlane g1 = majority(fours[0], fours[1], fours[2]), g2 = majority(fours[3], fours[4], fours[5]), g3 = majority(u1, u2, u3);
    const BitPlane f4 = xor3(f1, f2, f3), g4 = majority(f1, f2, f3), g5 = f4 & u4;
    weights[2] = f4 ^ u4;
    // Weight 8: five planes.
    const BitPlane e1 = xor3(g1, g2, g3);
    const BitPlane h1 = majority(g1, g2, g3), h2 = majority(e1, g4, g5);
    weights[3] = xor3(e1, g4, g5);
    weights[4] = h1 ^ h2;
    weights[5] = h1 & h2;
}

// Bit c of a byte to the lowest bit of byte c.
inline u64 spread_bits(u8 byte) {
    return ((byte & 0x7f) * u64{0x02040810204081} & u64{0x0101010101010101}) | (static_cast<u64>(byte & 0x80) << 49);
}

// NOISE_BLOCK errors: the set bits at each position of 42 planes, less 21.
inline void binomial_words(i8* out, const u8* bytes) {
    constexpr std::size_t SIZE = sizeof(BitPlane);
    for (std::size_t part = 0; part < NOISE_BLOCK / 8; part += SIZE) {
        BitPlane weights[6];
        count_planes(weights, [&](std::size_t k) {
            BitPlane plane;
            __builtin_memcpy(&plane, bytes + NOISE_BLOCK / 8 * k + part, SIZE);
            return plane;
        });
        u8 bits[6][SIZE];
        __builtin_memcpy(bits, weights, sizeof bits);
        for (std::size_t byte = 0; byte < SIZE; ++byte) {
            u64 counts = 0;  // of eight positions, a byte each
            for (std::size_t weight = 0; weight < 6; ++weight) counts += spread_bits(bits[weight][byte]) << weight;
            for (std::size_t c = 0; c < 8; ++c) out[8 * (part + byte) + c] = static_cast<i8>(static_cast<int>((counts >> (8 * c)) & 63) - 21);
        }
    }
}

// To nearest, ties to even: the mode in which Python leaves the processor.
inline i64 nearest(double x) {
#if defined(__SSE2__)
    return _mm_cvtsd_si64(_mm_set_sd(x));
#else
    return static_cast<i64>(__builtin_rint(x));
#endif
}

template <class REAL>
bool message_words(i64* out, const REAL* x, std::size_t n, double scale, double limit, const u8* noise, u64 q) {
    bool fits = true;
    for (std::size_t block = 0; block < n; block += NOISE_BLOCK, noise += NOISE_BLOCK_BYTES) {
        i8 errors[NOISE_BLOCK];
        binomial_words(errors, noise);
        for (std::size_t c = 0; c < NOISE_BLOCK; ++c) {
            const double scaled = static_cast<double>(x[block + c]) * scale;
            const bool inside = __builtin_fabs(scaled) <= limit;  // false for NaN
            fits &= inside;
            const i64 sum = (inside ? nearest(scaled) : 0) + errors[c];
            out[block + c] = sum + static_cast<i64>(static_cast<u64>(sum >> 63) & q);
        }
    }
    return fits;
}

template <class REAL>
bool message32_words(u32* out, const REAL* x, std::size_t n, double scale, double limit, const u8* noise, u32 q) {
    bool fits = true;
    for (std::size_t block = 0; block < n; block += NOISE_BLOCK, noise += NOISE_BLOCK_BYTES) {
        i64 v[NOISE_BLOCK];
        fits &= message_words(v, x + block, NOISE_BLOCK, scale, limit, noise, q);
        for (std::size_t c = 0; c < NOISE_BLOCK; ++c) out[block + c] = static_cast<u32>(v[c]);
    }
    return fits;
}

template <class W>
W largest_words(const W* x, std::size_t n) {
    constexpr W SIGN = W{1} << (8 * sizeof(W) - 1);
    W largest = 0;
    for (std::size_t i = 0; i < n; ++i) {
        const W magnitude = x[i] & static_cast<W>(~SIGN);
        largest = magnitude > largest ? magnitude : largest;
    }
    return largest;
}

template <class W>
void transpose_words(W* out, std::size_t out_stride, const W* in, std::size_t in_stride, std::size_t rows, std::size_t columns) {
    for (std::size_t r = 0; r < rows; ++r)
        for (std::size_t c = 0; c < columns; ++c) out[c * out_stride + r] = in[r * in_stride + c];
}

// The same by blocks of P::L x P::L.
template <class P>
void transpose_blocks(typename P::W* out, std::size_t out_stride, const typename P::W* in, std::size_t in_stride, std::size_t rows,
                      std::size_t columns) {
    constexpr std::size_t L = P::L;
    std::size_t r = 0;
    for (; r + L <= rows; r += L) {
        std::size_t c = 0;
        for (; c + L <= columns; c += L) {
            typename P::V v[L];
#pragma GCC unroll 16
            for (std::size_t i = 0; i < L; ++i) {
                v[i] = P::load(in + (r + i) * in_stride + c);
                __builtin_prefetch(in + (r + i + 16) * in_stride + c);
            }
            P::transpose(v);
#pragma GCC unroll 16
            for (std::size_t i = 0; i < L; ++i) P::store(out + (c + i) * out_stride + r, v[i]);
        }
        transpose_words(out + c * out_stride + r, out_stride, in + r * in_stride + c, in_stride, L, columns - c);
    }
    transpose_words(out + r, out_stride, in + r * in_stride, in_stride, rows - r, columns);
}

// v mod q for |v| < 2^62: v + offset is positive, and its quotient by q is estimated with floor(2^64 / q) to within 2.
inline void reduce_signed_words(i64* out, const i64* v, std::size_t n, u64 q, u64 one_p64, u64 offset) {
    for (std::size_t i = 0; i < n; ++i) {
        const u64 x = static_cast<u64>(v[i]) + offset;
        const u64 quotient = static_cast<u64>((static_cast<unsigned __int128>(x) * one_p64) >> 64);
        u64 r = x - quotient * q;
        r = r >= q ? r - q : r;
        out[i] = static_cast<i64>(r >= q ? r - q : r);
    }
}


inline void digitize_words(i16* out, std::size_t stride, const u64* in, int digits, int bits) {
    const u64 cut = (u64{1} << bits) - 1;
    const int middle = 1 << (bits - 1);
    for (int d = 0; d < digits; ++d) {
        i16* digit = out + d * stride;
        for (std::size_t c = 0; c < TILE; ++c) digit[c] = static_cast<i16>(static_cast<int>((in[c] >> (d * bits)) & cut) - middle);
    }
}

// x * factor mod q, below 2q (Harvey, section 3).
inline u64 shoup_product(u64 x, u64 factor, u64 companion, u64 q) {
    return x * factor - static_cast<u64>((static_cast<unsigned __int128>(x) * companion) >> 64) * q;
}

inline void join_sums(u64* sums, const i32* partial, const DotSink& sink) {
    if (sink.first) __builtin_memset(sums, 0, TILE * sizeof(u64));
    if (sink.exact) {
        for (std::size_t c = 0; c < TILE; ++c) {
            const u64 lifted = static_cast<u64>(static_cast<i64>(partial[c]) + (i64{1} << 31));
            u64 sum = sums[c] + shoup_product(lifted, sink.factor, sink.companion, sink.q);
            sum = sum >= 2 * sink.q ? sum - 2 * sink.q : sum;
            sums[c] = sum >= sink.q ? sum - sink.q : sum;
        }
    } else {
        for (std::size_t c = 0; c < TILE; ++c) sums[c] += static_cast<u64>(static_cast<i64>(partial[c])) * sink.factor;
    }
}

inline void dot_words(u64* const* sums, const i16* panel, const i32* rows, std::size_t pairs, const i32* weights, int outputs,
                      const DotSink& sink) {
    i32 partial[MAX_OUTPUTS][TILE] = {};
    for (std::size_t k = 0; k < pairs; ++k) {
        const i16* a = panel + static_cast<std::size_t>(rows[2 * k]) * TILE;
        const i16* b = panel + static_cast<std::size_t>(rows[2 * k + 1]) * TILE;
        for (int m = 0; m < outputs; ++m) {
            const i32 pair = weights[k * static_cast<std::size_t>(outputs) + static_cast<std::size_t>(m)];
            const i32 first = static_cast<i16>(pair), second = pair >> 16;
            for (std::size_t c = 0; c < TILE; ++c) partial[m][c] += first * a[c] + second * b[c];
        }
    }
    for (int m = 0; m < outputs; ++m) join_sums(sums[m], partial[m], sink);
}

inline void add_constant_words(u64* out, const u64* sums, u64 constant, u64 q) {
    for (std::size_t c = 0; c < TILE; ++c) {
        const u64 sum = sums[c] + constant;
        out[c] = sum >= q ? sum - q : sum;
    }
}

inline void pack_words(u64* words, const u64* values, int bits) {
    u64 word = 0;
    int filled = 0;
    for (std::size_t c = 0; c < TILE; ++c) {
        word |= values[c] << filled;
        filled += bits;
        if (filled >= 64) {
            *words++ = word;
            filled -= 64;
            word = filled ? values[c] >> (bits - filled) : 0;
        }
    }
}

inline void unpack_words(u64* values, const u64* words, int bits) {
    const u64 cut = (u64{1} << bits) - 1;
    for (std::size_t c = 0; c < TILE; ++c) {
        const std::size_t at = c * static_cast<std::size_t>(bits), word = at / 64, shift = at % 64;
        u64 value = words[word] >> shift;
        if (shift + static_cast<std::size_t>(bits) > 64) value |= words[word + 1] << (64 - shift);
        values[c] = value & cut;
    }
}

inline void add_products_words(u64* out, const u64* const* a, const u64* const* b, std::size_t terms, const ProductSum& sum) {
    for (std::size_t c = 0; c < TILE; ++c) {
        unsigned __int128 total = out[c];
        for (std::size_t k = 0; k < terms; ++k) {
            total += static_cast<unsigned __int128>(a[k][c]) * b[k][c];
            if ((k & 31) == 31) total %= sum.q;  // 2^5 products of 122 bits fit
        }
        out[c] = static_cast<u64>(total % sum.q);
    }
}

inline void switch_modulus_words(u64* out, const u64* sums, u64 constant, u64 p, int bits) {
    u64 values[TILE];
    for (std::size_t c = 0; c < TILE; ++c) {
        const u64 y = (((sums[c] + constant) >> 32) * p + (u64{1} << 31)) >> 32;
        values[c] = y >= p ? y - p : y;
    }
    bits ? pack_words(out, values, bits) : static_cast<void>(__builtin_memcpy(out, values, sizeof values));
}

inline void digitize_packed_words(i16* out, std::size_t stride, const u64* words, int packed_bits, int digits, int bits) {
    u64 values[TILE];
    unpack_words(values, words, packed_bits);
    digitize_words(out, stride, values, digits, bits);
}

struct PortableBits {
    static void pack(u64* words, const u64* values, int bits) { pack_words(words, values, bits); }
    static void unpack(u64* values, const u64* words, int bits) { unpack_words(values, words, bits); }
    static void pack(u64* words, const u32* values, int bits) {
        u64 wide[TILE];
        widen_words(wide, values, TILE);
        pack_words(words, wide, bits);
    }
    static void unpack(u32* values, const u64* words, int bits) {
        u64 wide[TILE];
        unpack_words(wide, words, bits);
        narrow_words(values, wide, TILE);
    }
    template <class W>
    static void subtract_pack(u64* words, const W* m, const W* t, std::size_t tiles, W q, int bits) {
        subtract_pack_words<PortableBits>(words, m, t, tiles, q, bits);
    }
    template <class W>
    static void unpack_add(W* out, const W* t, const u64* words, std::size_t tiles, W q, int bits) {
        unpack_add_words<PortableBits>(out, t, words, tiles, q, bits);
    }
};

template <class P, class BITS>
WordKernels<typename P::W> word_kernels(int shift, int range_bits) {
    using W = typename P::W;
    using T = Transform<P>;
    WordKernels<W> kernels;
    kernels.lanes = static_cast<int>(P::L);
    kernels.shift = shift;
    kernels.range_bits = range_bits;
    kernels.product_bound = P::R;
    kernels.forward = T::forward;
    kernels.inverse = T::inverse;
    kernels.inverse_product = T::inverse_product;
    kernels.multiply = T::multiply;
    kernels.narrow = narrow_words<W>;
    kernels.widen = widen_words<W>;
    kernels.subtract_pack = BITS::subtract_pack;
    kernels.unpack_add = BITS::unpack_add;
    kernels.to_f64 = to_real_words<W, double>;
    kernels.to_f32 = to_real_words<W, float>;
    return kernels;
}
