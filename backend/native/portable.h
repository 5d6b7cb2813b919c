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

template <class P>
WordKernels<typename P::W> word_kernels(int shift, int range_bits) {
    using W = typename P::W;
    using T = Transform<P>;
    return {static_cast<int>(P::L), shift, range_bits, P::R, T::forward, T::inverse, T::multiply, narrow_words<W>, widen_words<W>,
            subtract_from_words<W>, to_real_words<W>};
}
