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

template <class W>
void subtract_from_words(u64* out, const i64* v, const W* t, std::size_t n, W q) {
    const u64 modulus = q;
    for (std::size_t i = 0; i < n; ++i) {
        const u64 lifted = static_cast<u64>(v[i]) + (static_cast<u64>(v[i] >> 63) & modulus);
        const u64 sum = lifted + (modulus - t[i]);
        out[i] = sum >= modulus ? sum - modulus : sum;
    }
}

template <class W>
void to_real_words(double* out, const W* t, const u64* body, std::size_t n, W q, double factor) {
    const u64 modulus = q;
    const u64 half = modulus / 2;
    for (std::size_t i = 0; i < n; ++i) {
        const u64 sum = body[i] + t[i];
        const u64 reduced = sum >= modulus ? sum - modulus : sum;
        const i64 centered = static_cast<i64>(reduced) - static_cast<i64>(reduced > half ? modulus : 0);
        out[i] = static_cast<double>(centered) * factor;
    }
}

inline bool round_scaled_doubles(i64* out, const double* x, std::size_t n, double scale, double limit) {
    bool fits = true;
    for (std::size_t i = 0; i < n; ++i) {
        const double scaled = x[i] * scale;
        const bool inside = __builtin_fabs(scaled) <= limit;  // false for NaN
        fits &= inside;
        out[i] = inside ? static_cast<i64>(__builtin_rint(scaled)) : 0;
    }
    return fits;
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


inline void full_adder(u64& sum, u64& carry, u64 a, u64 b, u64 c) {
    const u64 ab = a ^ b;
    sum = ab ^ c;
    carry = (a & b) | (ab & c);
}

// 512 coefficients take 42 planes of 64 bytes; bit c of plane k is the k-th random bit of coefficient c.
inline void add_binomial_words(i64* v, const u8* bytes, std::size_t n) {
    for (std::size_t block = 0; block < n; block += 512, bytes += 42 * 64) {
        for (std::size_t word = 0; word < 8; ++word) {
            // Three planes of weight w make one of weight w and one of weight 2w, until one is left of each.
            u64 level[42], next[21];
            std::size_t count = 42;
            for (std::size_t k = 0; k < 42; ++k) __builtin_memcpy(&level[k], bytes + 64 * k + 8 * word, 8);
            u64 bits[6] = {0, 0, 0, 0, 0, 0};
            for (std::size_t weight = 0; weight < 6; ++weight) {
                std::size_t carries = 0;
                while (count >= 3) {
                    u64 sum, carry;
                    full_adder(sum, carry, level[count - 1], level[count - 2], level[count - 3]);
                    count -= 3;
                    level[count++] = sum;
                    next[carries++] = carry;
                }
                if (count == 2) {
                    next[carries++] = level[0] & level[1];
                    level[0] ^= level[1];
                }
                bits[weight] = count ? level[0] : 0;
                for (std::size_t k = 0; k < carries; ++k) level[k] = next[k];
                count = carries;
            }
            i64* out = v + block + 64 * word;
            for (std::size_t c = 0; c < 64; ++c) {
                i64 set = 0;
                for (std::size_t weight = 0; weight < 6; ++weight) set += static_cast<i64>((bits[weight] >> c) & 1) << weight;
                out[c] += set - 21;
            }
        }
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

inline void switch_modulus_words(u64* out, const u64* sums, u64 constant, u64 p) {
    for (std::size_t c = 0; c < TILE; ++c) {
        const u64 y = (((sums[c] + constant) >> 32) * p + (u64{1} << 31)) >> 32;
        out[c] = y >= p ? y - p : y;
    }
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

template <class P>
WordKernels<typename P::W> word_kernels(int shift, int range_bits) {
    using W = typename P::W;
    using T = Transform<P>;
    return {static_cast<int>(P::L), shift, range_bits, P::R, T::forward, T::inverse, T::multiply, narrow_words<W>, widen_words<W>,
            subtract_from_words<W>, to_real_words<W>};
}
