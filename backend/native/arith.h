// Modular arithmetic on machine words, used to build tables and in the portable kernels.
#pragma once

#include <cstdint>
#include <stdexcept>

namespace he {

using u8 = std::uint8_t;
using i8 = std::int8_t;
using i16 = std::int16_t;
using u32 = std::uint32_t;
using i32 = std::int32_t;
using u64 = std::uint64_t;
using i64 = std::int64_t;
using u128 = unsigned __int128;

inline u64 mul_mod(u64 a, u64 b, u64 q) { return static_cast<u64>(static_cast<u128>(a) * b % q); }

inline u64 pow_mod(u64 base, u64 exponent, u64 q) {
    u64 result = 1 % q;
    for (base %= q; exponent; exponent >>= 1, base = mul_mod(base, base, q))
        if (exponent & 1) result = mul_mod(result, base, q);
    return result;
}

// The inverse of a modulo a prime.
inline u64 invert_mod(u64 a, u64 prime) { return pow_mod(a, prime - 2, prime); }

// floor(w * 2^shift / q), Shoup's companion of the factor w.
inline u64 shoup(u64 w, u64 q, int shift) { return static_cast<u64>((static_cast<u128>(w) << shift) / q); }

inline int log2_exact(u64 n) {
    int k = 0;
    while ((u64{1} << k) < n) ++k;
    return k;
}

inline u32 reverse_bits(u32 value, int bits) {
    u32 result = 0;
    for (int i = 0; i < bits; ++i, value >>= 1) result = (result << 1) | (value & 1);
    return result;
}

// The smallest primitive 2n-th root of unity modulo a prime q = 1 mod 2n: the root that SEAL takes (util/numth.cpp).
inline u64 minimal_root(u64 n, u64 q) {
    const u64 order = 2 * n;
    if ((q - 1) % order) throw std::invalid_argument("the modulus is not 1 modulo 2N");
    u64 root = 0;
    for (u64 x = 2; x < 4096; ++x) {
        const u64 candidate = pow_mod(x, (q - 1) / order, q);
        if (pow_mod(candidate, n, q) == q - 1) {
            root = candidate;
            break;
        }
    }
    if (!root) throw std::invalid_argument("the modulus has no primitive 2N-th root of unity: it is not a prime");
    const u64 square = mul_mod(root, root, q);
    u64 power = root, smallest = root;
    for (u64 i = 0; i < n; ++i, power = mul_mod(power, square, q))
        if (power < smallest) smallest = power;
    return smallest;
}

}  // namespace he
