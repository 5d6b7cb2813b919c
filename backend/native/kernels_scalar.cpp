// Plain C++: runs anywhere, and is what every other variant must equal bit for bit.
#include "kernels.h"

#include <type_traits>
#if defined(__SSE2__)
#include <emmintrin.h>
#endif

namespace he {
namespace {

#include "transform.h"

template <class WORD, class DOUBLE_WORD>
struct Scalar {
    using W = WORD;
    using V = WORD;
    struct Factor {
        W w, companion;
    };
    static constexpr std::size_t L = 1;
    static constexpr W R = 2;
    static constexpr int BITS = 8 * sizeof(W);

    explicit Scalar(W modulus) : q(modulus) {}
    static V load(const W* a) { return *a; }
    static void store(W* a, V v) { *a = v; }
    static V set1(W w) { return w; }
    static V add(V a, V b) { return a + b; }
    static V sub(V a, V b) { return a - b; }
    static V min(V a, V b) { return a < b ? a : b; }
    static Factor broadcast(W w, W p) { return {w, p}; }
    static Factor pair_factor(const W* w, const W* p) { return {*w, *p}; }
    static Factor load_factor(const W* table) { return {table[0], table[1]}; }
    static void transpose(V*) {}
    // y * w - floor(y * companion / 2^BITS) * q < 2q for every y (Harvey, section 3)
    V multiply(V y, const Factor& f) const {
        const W quotient = static_cast<W>((static_cast<DOUBLE_WORD>(y) * f.companion) >> BITS);
        return static_cast<W>(y * f.w - quotient * q);
    }
    W q;
};

#include "portable.h"

}  // namespace

const Kernels& scalar_kernels() {
    static const Kernels kernels = {
        "scalar",
        word_kernels<Scalar<u32, u64>, PortableBits>(32, 32),
        WordKernels<u64>{},
        WordKernels<u64>{},
        word_kernels<Scalar<u64, unsigned __int128>, PortableBits>(64, 64),
        message_words<double>,
        message_words<float>,
        message32_words<double>,
        message32_words<float>,
        largest_words<u32>,
        largest_words<u64>,
        transpose_words<u32>,
        transpose_words<u64>,
        reduce_signed_words,
        digitize_words,
        digitize_packed_words,
        dot_words,
        switch_modulus_words,
        add_constant_words,
        add_products_words,
        pack_words,
        unpack_words,
    };
    return kernels;
}

}  // namespace he
