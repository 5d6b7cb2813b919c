// AVX-512 with the F, DQ, BW and VL parts (Skylake-X, Zen 4 and newer).
#if defined(__GNUC__) && !defined(__clang__)
// GCC 12 takes _mm512_undefined in its own headers for a mistake.
#pragma GCC diagnostic ignored "-Wuninitialized"
#pragma GCC diagnostic ignored "-Wmaybe-uninitialized"
#endif
#include "kernels.h"

#include <type_traits>

#if defined(__AVX512F__) && defined(__AVX512DQ__)
#include <immintrin.h>

namespace he {
namespace {

#include "transform.h"

#include "portable.h"

#include "bits512.h"

#include "avx512.h"

// As assembly because GCC 12 copies and spills accumulators of the intrinsics.
inline void add_pair_products(__m512i& sum, __m512i a, __m512i b) {
    __m512i products;
    __asm__("vpmaddwd %3, %2, %1\n\tvpaddd %1, %0, %0" : "+v"(sum), "=&v"(products) : "v"(a), "v"(b));
}

#include "linear512.h"

}  // namespace

const Kernels& avx512_kernels() {
    static const Kernels kernels = {
        "avx512",
        word_kernels<Vector512_32, Bits512>(32, 32),
        WordKernels<u64>{},
        WordKernels<u64>{},
        word_kernels<Vector512_64, Bits512>(64, 64),
        message_512<double>,
        message_512<float>,
        message32_512<double>,
        message32_512<float>,
        largest_words<u32>,
        largest_words<u64>,
        transpose_blocks<Vector512_32>,
        transpose_blocks<Words512>,
        reduce_signed_512,
        digitize_512,
        digitize_packed_512,
        dot_512,
        switch_modulus_512,
        add_constant_words,
        add_products_512,
        pack_512,
        unpack_512,
    };
    return kernels;
}

}  // namespace he
#endif
