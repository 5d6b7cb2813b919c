// Dot products of digits on 256-bit vectors. Included inside an anonymous namespace, after portable.h.

// sums[0 .. 4) += factor * partial, modulo 2^64 or q.
inline void join_sums_256(u64* sums, __m128i partial, const DotSink& sink) {
    const __m256i wide = _mm256_cvtepi32_epi64(partial);
    const __m256i before = sink.first ? _mm256_setzero_si256() : Vector256_64::load(sums);
    if (!sink.exact) {
        const __m256i factor = Vector256_64::set1(sink.factor);
        const __m256i product = Vector256_64::low_product(wide, _mm256_srli_epi64(wide, 32), factor, _mm256_srli_epi64(factor, 32));
        Vector256_64::store(sums, _mm256_add_epi64(before, product));
        return;
    }
    const Vector256_64 p(sink.q);
    const __m256i lifted = _mm256_add_epi64(wide, Vector256_64::set1(u64{1} << 31));
    __m256i sum = _mm256_add_epi64(before, p.multiply(lifted, Vector256_64::broadcast(sink.factor, sink.companion)));  // below 5q
    for (u64 times = 4; times >= 1; times /= 2) sum = Vector256_64::min(sum, _mm256_sub_epi64(sum, Vector256_64::set1(times * sink.q)));
    Vector256_64::store(sums, sum);
}

// sum += a[2i] * b[2i] + a[2i + 1] * b[2i + 1]; as assembly because GCC 12 spills accumulators of the intrinsics.
inline void add_pair_products_256(__m256i& sum, __m256i a, __m256i b) {
    __m256i products;
    __asm__("vpmaddwd %3, %2, %1\n\tvpaddd %1, %0, %0" : "+x"(sum), "=&x"(products) : "x"(a), "x"(b));
}

template <int OUTPUTS>
inline void dot_outputs_256(u64* const* sums, const i16* panel, const i32* rows, std::size_t pairs, const i32* weights, const DotSink& sink) {
    for (std::size_t column = 0; column < TILE; column += 16) {
        __m256i partial[OUTPUTS][2];
#pragma GCC unroll 8
        for (int m = 0; m < OUTPUTS; ++m) partial[m][0] = partial[m][1] = _mm256_setzero_si256();
        for (std::size_t k = 0; k < pairs; ++k) {
            const i16* a = panel + static_cast<std::size_t>(rows[2 * k]) * TILE + column;
            const i16* b = panel + static_cast<std::size_t>(rows[2 * k + 1]) * TILE + column;
            const __m256i x = _mm256_loadu_si256(reinterpret_cast<const __m256i*>(a)), y = _mm256_loadu_si256(reinterpret_cast<const __m256i*>(b));
            const __m256i low = _mm256_unpacklo_epi16(x, y), high = _mm256_unpackhi_epi16(x, y);
#pragma GCC unroll 8
            for (int m = 0; m < OUTPUTS; ++m) {
                const __m256i w = _mm256_set1_epi32(weights[k * OUTPUTS + static_cast<std::size_t>(m)]);
                add_pair_products_256(partial[m][0], low, w);
                add_pair_products_256(partial[m][1], high, w);
            }
        }
        // Interleaving worked within 128-bit lanes: the low half of `low` holds values 0 to 3, that of `high` 4 to 7, and so on.
#pragma GCC unroll 8
        for (int m = 0; m < OUTPUTS; ++m) {
#pragma GCC unroll 2
            for (int v = 0; v < 2; ++v) {
                join_sums_256(sums[m] + column + 4 * v, _mm256_castsi256_si128(partial[m][v]), sink);
                join_sums_256(sums[m] + column + 8 + 4 * v, _mm256_extracti128_si256(partial[m][v], 1), sink);
            }
        }
    }
}

inline void dot_256(u64* const* sums, const i16* panel, const i32* rows, std::size_t pairs, const i32* weights, int outputs,
                    const DotSink& sink) {
    switch (outputs) {
        case 1: return dot_outputs_256<1>(sums, panel, rows, pairs, weights, sink);
        case 2: return dot_outputs_256<2>(sums, panel, rows, pairs, weights, sink);
        case 3: return dot_outputs_256<3>(sums, panel, rows, pairs, weights, sink);
        case 4: return dot_outputs_256<4>(sums, panel, rows, pairs, weights, sink);
        case 5: return dot_outputs_256<5>(sums, panel, rows, pairs, weights, sink);
        default: return dot_outputs_256<6>(sums, panel, rows, pairs, weights, sink);
    }
}
