// AVX-512 with the F, DQ, BW and VL parts (Skylake-X, Zen 4 and newer).
#include "kernels.h"

#if defined(__AVX512F__) && defined(__AVX512DQ__)
#include <immintrin.h>

namespace he {
namespace {

#include "transform.h"

#include "portable.h"

#include "avx512.h"

}  // namespace

const Kernels& avx512_kernels() {
    static const Kernels kernels = {
        "avx512",
        word_kernels<Vector512_32>(32, 32),
        WordKernels<u64>{},
        word_kernels<Vector512_64>(64, 64),
        round_scaled_512,
        add_binomial_512,
        reduce_signed_512,
    };
    return kernels;
}

}  // namespace he
#endif
