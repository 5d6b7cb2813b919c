#include "ring.h"

#include <limits>
#include <stdexcept>

#include "arith.h"
#include "parallel.h"

namespace he {

namespace {

constexpr int MAX_MODULUS_BITS = 61;

// Polynomials per range of a parallel loop: enough to make the hand-out cheap.
constexpr std::size_t GRAIN = 4;

template <class W>
u64 power_limit(u64 q, int range_bits) {
    u64 limit = 1;
    while (static_cast<u128>(2 * limit) * q <= (static_cast<u128>(1) << range_bits) && limit < (1u << 20)) limit *= 2;
    return limit;
}

}  // namespace

template <class W>
NttTables<W>::NttTables(std::size_t n, u64 q, const WordKernels<W>& words) {
    const std::size_t lanes = static_cast<std::size_t>(words.lanes);
    const int log_n = log2_exact(n);
    const std::size_t tail = lanes > 1 ? 2 * n / lanes * (lanes - 1) : 0;
    memory_ = Buffer<W>(4 * n + 2 * tail);
    W* forward = memory_.data();
    W* forward_p = forward + n;
    W* inverse = forward_p + n;
    W* inverse_p = inverse + n;
    W* forward_tail = inverse_p + n;
    W* inverse_tail = forward_tail + tail;

    const auto companion = [&](u64 w) { return static_cast<W>(shoup(w, q, words.shift)); };
    const u64 root = minimal_root(n, q);
    const u64 root_inverse = invert_mod(root, q);
    u64 power = 1, power_inverse = 1;
    for (std::size_t i = 0; i < n; ++i) {
        const std::size_t at = reverse_bits(static_cast<u32>(i), log_n);
        forward[at] = static_cast<W>(power);
        forward_p[at] = companion(power);
        inverse[at] = static_cast<W>(power_inverse);
        inverse_p[at] = companion(power_inverse);
        power = mul_mod(power, root, q);
        power_inverse = mul_mod(power_inverse, root_inverse, q);
    }
    // Blocks of lanes rows; row r of block b is group b * lanes + r of the layer with n / lanes groups.
    const int tail_layers = log2_exact(lanes);
    W* f = forward_tail;
    W* g = inverse_tail;
    const auto put = [&](W*& out, const W* w, const W* w_p, std::size_t first_row, int k, std::size_t group) {
        for (std::size_t r = 0; r < lanes; ++r) {
            const std::size_t at = (n / lanes << k) + ((first_row + r) << k) + group;
            out[r] = w[at];
            out[lanes + r] = w_p[at];
        }
        out += 2 * lanes;
    };
    for (std::size_t row = 0; row < n / lanes && lanes > 1; row += lanes) {
        for (int k = 0; k < tail_layers; ++k)
            for (std::size_t group = 0; group < (std::size_t{1} << k); ++group) put(f, forward, forward_p, row, k, group);
        for (int k = tail_layers - 1; k >= 0; --k)
            for (std::size_t group = 0; group < (std::size_t{1} << k); ++group) put(g, inverse, inverse_p, row, k, group);
    }
    const u64 inverse_n = invert_mod(n, q);
    const u64 last = n > 1 ? inverse[1] : 1;
    const u64 last_scaled = mul_mod(last, inverse_n, q);
    view = {n,
            static_cast<W>(q),
            static_cast<W>(power_limit<W>(q, words.range_bits)),
            companion(1),
            static_cast<W>(inverse_n),
            companion(inverse_n),
            static_cast<W>(last_scaled),
            companion(last_scaled),
            static_cast<W>(last),
            companion(last),
            forward,
            forward_p,
            inverse,
            inverse_p,
            forward_tail,
            inverse_tail};
}

Field::Field(std::size_t n, u64 modulus, const Kernels& kernels) : q(modulus) {
    if (modulus < 3 || modulus >> MAX_MODULUS_BITS) throw std::invalid_argument("a modulus must have 2 to 61 bits");
    one_p64 = shoup(1, q, 64);
    offset = static_cast<u64>((((static_cast<u128>(1) << 62) + q - 1) / q) * q);
    if (q < (u64{1} << 30)) {
        width = Width::word32;
        words32 = &kernels.word32;
        ntt32 = std::make_unique<NttTables<u32>>(n, q, *words32);
    } else {
        const int bits = bit_length(q);
        const bool near_power = bits >= 50 && bits <= 54 && (u64{1} << bits) - q < (u64{1} << 40);
        width = Width::word64;
        words64 = &kernels.word64;
        if (kernels.word52.lanes && q < (u64{1} << 50)) words64 = &kernels.word52;
        if (kernels.word54.lanes && near_power) words64 = &kernels.word54;
        ntt64 = std::make_unique<NttTables<u64>>(n, q, *words64);
    }
}

Ring::Ring(std::size_t n, const std::vector<u64>& moduli, const std::string& level) : n_(n), kernels_(select_kernels(level)) {
    if (n < 1024 || n > 65536 || (n & (n - 1))) throw std::invalid_argument("the ring degree must be a power of two from 1024 to 65536");
    if (moduli.empty()) throw std::invalid_argument("a ring needs at least one modulus");
    for (u64 q : moduli) fields_.emplace_back(n, q, kernels_);
}

namespace {

template <class W>
void transform(const WordKernels<W>& words, const NttView<W>& ntt, u64* a, W* scratch, bool forward) {
    W* values;
    if constexpr (sizeof(W) == 8) {
        values = a;
    } else {
        words.narrow(scratch, a, ntt.n);
        values = scratch;
    }
    forward ? words.forward(values, ntt) : words.inverse(values, ntt);
    if constexpr (sizeof(W) != 8) words.widen(a, scratch, ntt.n);
}

void transform_all(const std::vector<Field>& fields, std::size_t n, u64* a, std::size_t count, std::size_t limbs, int threads,
                   bool forward) {
    parallel_ranges(count * limbs, GRAIN, threads, [&](std::size_t first, std::size_t last) {
        const Buffer<u64> scratch(n);
        for (std::size_t k = first; k < last; ++k) {
            fields[k % limbs].visit([&](const auto& words, const auto& ntt) {
                using W = std::remove_const_t<std::remove_reference_t<decltype(ntt.q)>>;
                transform<W>(words, ntt, a + k * n, reinterpret_cast<W*>(scratch.data()), forward);
            });
        }
    });
}

}  // namespace

void Ring::forward(u64* a, std::size_t count, std::size_t limbs, int threads) const {
    transform_all(fields_, n_, a, count, limbs, threads, true);
}

void Ring::inverse(u64* a, std::size_t count, std::size_t limbs, int threads) const {
    transform_all(fields_, n_, a, count, limbs, threads, false);
}

ProductSum Ring::product_sum(std::size_t limb) const {
    const u64 q = fields_[limb].q;
    const u64 half = (u64{1} << HALF_WORD) % q, whole = mul_mod(half, half, q);
    return {q, fields_[limb].one_p64, half, shoup(half, q, 64), whole, shoup(whole, q, 64)};
}

void Ring::add_products(u64* out, const u64* a, const u64* b, std::size_t outputs, std::size_t terms, std::size_t limbs, int threads) const {
    std::vector<ProductSum> sums;
    for (std::size_t l = 0; l < limbs; ++l) sums.push_back(product_sum(l));
    // Several outputs share what they read of b while it is in the cache.
    const std::size_t tiles = limbs * n_ / TILE;
    parallel_ranges(tiles, 4, threads, [&](std::size_t first, std::size_t last) {
        std::vector<const u64*> left(std::min(terms, MAX_PRODUCTS)), right(left.size());
        for (std::size_t tile = first; tile < last; ++tile) {
            const std::size_t at = tile * TILE;
            for (std::size_t begin = 0; begin < terms; begin += MAX_PRODUCTS) {
                const std::size_t count = std::min(MAX_PRODUCTS, terms - begin);
                for (std::size_t k = 0; k < count; ++k) right[k] = b + (begin + k) * limbs * n_ + at;
                for (std::size_t m = 0; m < outputs; ++m) {
                    for (std::size_t k = 0; k < count; ++k) left[k] = a + (m * terms + begin + k) * limbs * n_ + at;
                    kernels_.add_products(out + m * limbs * n_ + at, left.data(), right.data(), count, sums[at / n_]);
                }
            }
        }
    });
}

void Ring::shift(u64* out, const u64* a, std::size_t count, std::size_t limbs, std::size_t power, int threads) const {
    const bool negative = power >= n_;
    const std::size_t k = power % n_;
    parallel_ranges(count * limbs, GRAIN, threads, [&](std::size_t first, std::size_t last) {
        for (std::size_t row = first; row < last; ++row) {
            const u64 q = fields_[row % limbs].q;
            const u64* from = a + row * n_;
            u64* to = out + row * n_;
            // X^n = -1: what leaves at the top comes back negated at the bottom.
            for (std::size_t i = 0; i < k; ++i) to[i] = negative ? from[n_ - k + i] : (from[n_ - k + i] ? q - from[n_ - k + i] : 0);
            for (std::size_t i = k; i < n_; ++i) to[i] = negative ? (from[i - k] ? q - from[i - k] : 0) : from[i - k];
        }
    });
}

void Ring::switch_modulus(u64* out, const u64* a, std::size_t count, std::size_t limbs, u64 p, int threads) const {
    // a / Q modulo 1 is the sum of a_l * inverse_l / q_l, here in units of 2^-128, of which 2^-64 are kept.
    std::vector<u64> high, low;
    for (std::size_t l = 0; l < limbs; ++l) {
        const u64 q = fields_[l].q;
        u64 others = 1;
        for (std::size_t k = 0; k < limbs; ++k)
            if (k != l) others = mul_mod(others, fields_[k].q % q, q);
        const u64 inverse = invert_mod(others, q);
        const u128 top = static_cast<u128>(inverse) << 64;
        high.push_back(static_cast<u64>(top / q));
        low.push_back(static_cast<u64>((static_cast<u128>(static_cast<u64>(top % q)) << 64) / q));
    }
    parallel_ranges(count, GRAIN, threads, [&](std::size_t first, std::size_t last) {
        for (std::size_t row = first; row < last; ++row) {
            for (std::size_t i = 0; i < n_; ++i) {
                u64 fraction = 0;
                for (std::size_t l = 0; l < limbs; ++l) {
                    const u64 x = a[(row * limbs + l) * n_ + i];
                    fraction += x * high[l] + static_cast<u64>((static_cast<u128>(x) * low[l]) >> 64);
                }
                const u128 scaled = static_cast<u128>(fraction) * p + (static_cast<u128>(1) << 63);
                const u64 rounded = static_cast<u64>(scaled >> 64);
                out[row * n_ + i] = rounded >= p ? rounded - p : rounded;
            }
        }
    });
}

template struct NttTables<u32>;
template struct NttTables<u64>;

}  // namespace he
