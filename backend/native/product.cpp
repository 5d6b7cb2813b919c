#include "product.h"

#include <algorithm>
#include <cstring>
#include <stdexcept>

#include "arith.h"
#include "pack.h"

namespace he {

namespace {

inline u64 high(u64 a, u64 b) { return static_cast<u64>(static_cast<u128>(a) * b >> 64); }

void write_row(const Kernels& kernels, const Rows<u64>& rows, std::size_t element, u64* values, std::size_t width, int bits) {
    u64* out = rows.at(element, 0);
    if (rows.packed)
        pack_rows(kernels, values, out, 1, width, bits, 1, true);
    else
        std::memcpy(out, values, width * sizeof(u64));
}

}  // namespace

Product::Product(std::shared_ptr<const Ring> ring, std::size_t limbs, std::size_t in_count, std::size_t out_count, const PairsView& pairs,
                 u64* storage, int threads)
    : ring_(std::move(ring)), limbs_(limbs), in_count_(in_count), out_count_(out_count), pairs_(pairs.pairs), terms_(out_count), weights_(storage) {
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
    // Pairs in the order in which they are read: by output.
    std::size_t first_of_output = 0;
    std::vector<std::size_t> place(pairs.pairs);
    for (std::vector<Term>& terms : terms_) {
        for (Term& term : terms) {
            place[term.pair] = first_of_output;
            term.pair = first_of_output++;
        }
    }
    parallel_ranges(pairs.pairs, 16, threads, [&](std::size_t first, std::size_t last) {
        const Buffer<u64> polynomial(limbs_ * n);
        for (std::size_t k = first; k < last; ++k) {
            for (std::size_t l = 0; l < limbs_; ++l) {
                const u64 q = ring_->fields()[l].q;
                u64* w = polynomial.data() + l * n;
                std::fill(w, w + n, u64{0});
                for (i64 i = pairs.starts[k]; i < pairs.starts[k + 1]; ++i) {
                    const i64 weight = pairs.weights[i];
                    const u64 size = static_cast<u64>(weight < 0 ? -weight : weight) % q;
                    u64& at = w[pairs.index[i]];
                    at = (at + (weight < 0 && size ? q - size : size)) % q;
                }
            }
            ring_->forward(polynomial.data(), 1, limbs_, 1);
            spread(polynomial.data(), weights_, place[k], pairs.pairs);
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

// Values [limbs, n] of polynomial `index` of `count` to their places among tiles [limbs * n / TILE, count, TILE].
void Product::spread(const u64* values, u64* tiles, std::size_t index, std::size_t count) const {
    for (std::size_t t = 0; t < limbs_ * ring_->n() / TILE; ++t)
        std::memcpy(tiles + (t * count + index) * TILE, values + t * TILE, TILE * sizeof(u64));
}

void Product::transformed(const Rows<const u64>& in, u64* values, int threads) const {
    const std::size_t n = ring_->n();
    parallel_ranges(in_count_, 8, threads, [&](std::size_t first, std::size_t last) {
        const Buffer<u64> polynomial(limbs_ * n);
        for (std::size_t element = first; element < last; ++element) {
            for (std::size_t l = 0; l < limbs_; ++l) {
                const u64 q = ring_->fields()[l].q;
                u64* row = polynomial.data() + l * n;
                const u64* words = in.at(element, l);
                if (in.packed) {
                    pack_rows(ring_->kernels(), row, const_cast<u64*>(words), 1, n, bit_length(q), 1, false);
                    for (std::size_t c = 0; c < n; ++c) row[c] = row[c] >= q ? row[c] - q : row[c];  // of bit_length(q) bits: below 2q
                } else {
                    std::memcpy(row, words, n * sizeof(u64));
                }
            }
            ring_->forward(polynomial.data(), 1, limbs_, 1);
            spread(polynomial.data(), values, element, in_count_);
        }
    });
}

void Product::arranged(const u64* transformed, u64* values, int threads) const {
    parallel_ranges(in_count_, 8, threads, [&](std::size_t first, std::size_t last) {
        for (std::size_t element = first; element < last; ++element)
            spread(transformed + element * limbs_ * ring_->n(), values, element, in_count_);
    });
}

// Sums [columns, out_count, limbs, n] of products. Weights are read once for all columns.
void Product::multiply(const u64* values, std::size_t columns, u64* sums, int threads) const {
    const std::size_t n = ring_->n(), pairs = pairs_;
    std::vector<ProductSum> moduli;
    for (std::size_t l = 0; l < limbs_; ++l) moduli.push_back(ring_->product_sum(l));
    parallel_ranges(limbs_ * n / TILE, 1, threads, [&](std::size_t first, std::size_t last) {
        std::vector<const u64*> left(std::min(in_count_, MAX_PRODUCTS)), right(left.size());
        for (std::size_t t = first; t < last; ++t) {
            for (std::size_t out = 0; out < out_count_; ++out) {
                const std::vector<Term>& terms = terms_[out];
                for (std::size_t column = 0; column < columns; ++column) {
                    u64* sum = sums + ((column * out_count_ + out) * limbs_) * n + t * TILE;
                    std::memset(sum, 0, TILE * sizeof(u64));
                    const u64* tile = values + (column * in_count_ * limbs_ * n) + t * in_count_ * TILE;
                    for (std::size_t begin = 0; begin < terms.size(); begin += left.size()) {
                        const std::size_t count = std::min(left.size(), terms.size() - begin);
                        for (std::size_t k = 0; k < count; ++k) {
                            left[k] = tile + terms[begin + k].in * TILE;
                            right[k] = weights_ + (t * pairs + terms[begin + k].pair) * TILE;
                        }
                        ring_->kernels().add_products(sum, left.data(), right.data(), count, moduli[t * TILE / n]);
                    }
                }
            }
        }
    });
}

void Product::switched(const u64* values, const std::vector<Rows<u64>>& out, std::size_t width, u64 p, int threads) const {
    const std::size_t n = ring_->n();
    const Buffer<u64> sums(out.size() * out_count_ * limbs_ * n);
    multiply(values, out.size(), sums.data(), threads);
    parallel_ranges(out.size() * out_count_, 4, threads, [&](std::size_t first, std::size_t last) {
        const Buffer<u64> answer(width);
        const Buffer<double> fractions(width);
        for (std::size_t k = first; k < last; ++k) {
            u64* const residues = sums.data() + k * limbs_ * n;
            ring_->inverse(residues, 1, limbs_, 1);
            std::fill(answer.data(), answer.data() + width, u64{0});
            std::fill(fractions.data(), fractions.data() + width, 0.5);
            // x / Q = sum of (x (Q/q)^-1 mod q) / q modulo 1: p times that, integer parts apart from fractions.
            for (std::size_t l = 0; l < limbs_; ++l) {
                const u64 q = ring_->fields()[l].q, p_q = p % q, whole = p / q;
                const u64 companion = shoup(p_q, q, 64), lift_p = shoup(lift_[l], q, 64);
                const double one = 1.0 / static_cast<double>(q);
                const u64* r = residues + l * n;
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
            // Each prime adds less than p.
            for (std::size_t c = 0; c < width; ++c) answer[c] += static_cast<u64>(fractions[c]);
            for (std::size_t l = 0; l < limbs_; ++l)
                for (std::size_t c = 0; c < width; ++c) answer[c] = answer[c] >= p ? answer[c] - p : answer[c];
            write_row(ring_->kernels(), out[k / out_count_], k % out_count_, answer.data(), width, bit_length(p));
        }
    });
}

}  // namespace he
