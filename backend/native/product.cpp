#include "product.h"

#include <algorithm>
#include <cstring>
#include <stdexcept>

#include "arith.h"
#include "pack.h"

namespace he {

namespace {

inline u64 high(u64 a, u64 b) { return static_cast<u64>(static_cast<u128>(a) * b >> 64); }

// Residues of 64-bit and 128-bit integers modulo one prime.
struct Reducer {
    explicit Reducer(u64 modulus)
        : q(modulus), one(shoup(1, modulus, 64)), word(static_cast<u64>((static_cast<u128>(1) << 64) % modulus)), word_p(shoup(word, modulus, 64)) {}
    u64 below(u64 x, u64 bound) const { return x >= bound ? x - bound : x; }
    u64 operator()(u128 x) const {
        const u64 hi = static_cast<u64>(x >> 64), lo = static_cast<u64>(x);
        const u64 sum = hi * word - high(hi, word_p) * q + lo - high(lo, one) * q;  // below 4q < 2^63
        return below(below(sum, 2 * q), q);
    }
    u64 q, one, word, word_p;
};

void write_row(const Kernels& kernels, const Rows<u64>& rows, std::size_t element, u64* values, std::size_t width, int bits) {
    u64* out = rows.at(element, 0);
    if (rows.packed)
        pack_rows(kernels, values, out, 1, width, bits, 1, true);
    else
        std::memcpy(out, values, width * sizeof(u64));
}

}  // namespace

Product::Product(std::shared_ptr<const Ring> ring, std::size_t limbs, std::size_t in_count, std::size_t out_count, const PairsView& pairs,
                 int threads)
    : ring_(std::move(ring)), limbs_(limbs), in_count_(in_count), out_count_(out_count), terms_(out_count) {
    const auto require = [](bool condition, const char* message) {
        if (!condition) throw std::invalid_argument(message);
    };
    const std::size_t n = ring_->n();
    require(limbs >= 1 && limbs <= ring_->fields().size(), "more limbs than the ring has moduli");
    for (std::size_t k = 0; k < pairs.pairs; ++k) {
        require(pairs.in[k] >= 0 && static_cast<std::size_t>(pairs.in[k]) < in_count, "a pair reads an input that is not there");
        require(pairs.out[k] >= 0 && static_cast<std::size_t>(pairs.out[k]) < out_count, "a pair writes an output that is not there");
        for (i64 i = pairs.starts[k]; i < pairs.starts[k + 1]; ++i)
            require(pairs.index[i] >= 0 && static_cast<std::size_t>(pairs.index[i]) < n, "a coefficient lies outside the polynomial");
        terms_[static_cast<std::size_t>(pairs.out[k])].push_back({static_cast<std::size_t>(pairs.in[k]), k});
    }
    weights_ = Buffer<u64>(pairs.pairs * limbs * n);
    parallel_ranges(pairs.pairs, 16, threads, [&](std::size_t first, std::size_t last) {
        for (std::size_t k = first; k < last; ++k) {
            for (std::size_t l = 0; l < limbs_; ++l) {
                const u64 q = ring_->fields()[l].q;
                u64* w = weights_.data() + (k * limbs_ + l) * n;
                std::fill(w, w + n, u64{0});
                for (i64 i = pairs.starts[k]; i < pairs.starts[k + 1]; ++i) {
                    const i64 weight = pairs.weights[i];
                    const u64 size = static_cast<u64>(weight < 0 ? -weight : weight) % q;
                    u64& at = w[pairs.index[i]];
                    at = (at + (weight < 0 && size ? q - size : size)) % q;
                }
            }
            ring_->forward(weights_.data() + k * limbs_ * n, 1, limbs_, 1);
        }
    });
    for (std::size_t l = 0; l < limbs; ++l) {
        const u64 q = ring_->fields()[l].q;
        u64 rest = 1;
        for (std::size_t other = 0; other < limbs; ++other)
            if (other != l) rest = mul_mod(rest, ring_->fields()[other].q % q, q);
        lift_.push_back(invert_mod(rest, q));
    }
}

void Product::transformed(const Rows<const u64>& in, u64* values, int threads) const {
    const std::size_t n = ring_->n();
    parallel_ranges(in_count_, 8, threads, [&](std::size_t first, std::size_t last) {
        for (std::size_t element = first; element < last; ++element) {
            u64* at = values + element * limbs_ * n;
            for (std::size_t l = 0; l < limbs_; ++l) {
                const u64 q = ring_->fields()[l].q;
                u64* row = at + l * n;
                const u64* words = in.at(element, l);
                if (in.packed) {
                    pack_rows(ring_->kernels(), row, const_cast<u64*>(words), 1, n, bit_length(q), 1, false);
                    for (std::size_t c = 0; c < n; ++c) row[c] = row[c] >= q ? row[c] - q : row[c];  // of bit_length(q) bits: below 2q
                } else {
                    std::memcpy(row, words, n * sizeof(u64));
                }
            }
            ring_->forward(at, 1, limbs_, 1);
        }
    });
}

void Product::accumulate(const u64* values, std::size_t out, std::size_t limb, u128* sums, u64* residues) const {
    const std::size_t n = ring_->n();
    const u64 q = ring_->fields()[limb].q;
    const Reducer reduce(q);
    const int bits = bit_length(q);
    // Terms below 2^(2 bits); one residue may be there already.
    const std::size_t most = (std::size_t{1} << std::min(20, 128 - 2 * bits)) - 1;
    std::fill(sums, sums + n, u128{0});
    std::size_t held = 0;
    for (const Term& term : terms_[out]) {
        if (held == most) {
            for (std::size_t c = 0; c < n; ++c) sums[c] = reduce(sums[c]);
            held = 1;
        }
        const u64* x = values + (term.in * limbs_ + limb) * n;
        const u64* w = weights_at(term.pair, limb);
        for (std::size_t c = 0; c < n; ++c) sums[c] += static_cast<u128>(x[c]) * w[c];
        ++held;
    }
    for (std::size_t c = 0; c < n; ++c) residues[c] = reduce(sums[c]);
}

void Product::switched(const u64* values, const Rows<u64>& out, std::size_t width, u64 p, int threads) const {
    const std::size_t n = ring_->n();
    parallel_ranges(out_count_, 4, threads, [&](std::size_t first, std::size_t last) {
        const Buffer<u128> sums(n);
        const Buffer<u64> residues(limbs_ * n), answer(width);
        const Buffer<double> fractions(width);
        for (std::size_t q_out = first; q_out < last; ++q_out) {
            for (std::size_t l = 0; l < limbs_; ++l) accumulate(values, q_out, l, sums.data(), residues.data() + l * n);
            ring_->inverse(residues.data(), 1, limbs_, 1);
            std::fill(answer.data(), answer.data() + width, u64{0});
            std::fill(fractions.data(), fractions.data() + width, 0.5);
            // x / Q = sum of (x (Q/q)^-1 mod q) / q modulo 1: p times that, integer parts apart from fractions.
            for (std::size_t l = 0; l < limbs_; ++l) {
                const u64 q = ring_->fields()[l].q, p_q = p % q, whole = p / q;
                const u64 companion = shoup(p_q, q, 64), lift_p = shoup(lift_[l], q, 64);
                const double one = 1.0 / static_cast<double>(q);
                const u64* r = residues.data() + l * n;
                for (std::size_t c = 0; c < width; ++c) {
                    u64 y = r[c];
                    if (limbs_ > 1) {
                        y = y * lift_[l] - high(y, lift_p) * q;
                        y = y >= q ? y - q : y;
                    }
                    const u64 quotient = high(y, companion);
                    answer[c] += quotient + whole * y;
                    fractions[c] += static_cast<double>(y * p_q - quotient * q) * one;
                }
            }
            for (std::size_t c = 0; c < width; ++c) answer[c] = (answer[c] + static_cast<u64>(fractions[c])) % p;
            write_row(ring_->kernels(), out, q_out, answer.data(), width, bit_length(p));
        }
    });
}

}  // namespace he
