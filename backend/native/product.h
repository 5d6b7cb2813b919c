// Sums of negacyclic products of ciphertext polynomials with integer weight polynomials, in the transform's domain.
//
// out[q] = sum over p of w[q][p] * in[p]. Weights are transformed once and kept, tile by tile in the order in which they are read. Of each
// result the first `width` coefficients are switched to a modulus p < 2^31.
#pragma once

#include <memory>
#include <vector>

#include "ring.h"

namespace he {

// Weight polynomials of few coefficients: pair k multiplies input in[k] into output out[k], by the coefficients index[i], weights[i] for i in
// [starts[k], starts[k + 1]); equal indices add up.
struct PairsView {
    std::size_t pairs;
    const i32* out;
    const i32* in;
    const i64* starts;  // [pairs + 1]
    const i32* index;
    const i32* weights;
};

class Product {
  public:
    // The weights are written to `storage`, pairs * limbs * n words that outlive this. Throws std::invalid_argument for indices out of range.
    Product(std::shared_ptr<const Ring> ring, std::size_t limbs, std::size_t in_count, std::size_t out_count, const PairsView& pairs,
            u64* storage, int threads);

    std::size_t in_count() const { return in_count_; }
    std::size_t out_count() const { return out_count_; }
    std::size_t limbs() const { return limbs_; }
    const Ring& ring() const { return *ring_; }

    // Words of the values of one column, in the order in which `switched` reads them.
    std::size_t value_words() const { return in_count_ * limbs_ * ring_->n(); }
    // Coefficients of one column (limbs() of them an element, reduced) -> its values.
    void transformed(const Rows<const u64>& in, u64* values, int threads) const;
    // Reduced values [in_count, limbs, n] -> the same in that order.
    void arranged(const u64* transformed, u64* values, int threads) const;
    // The products of the values of each column: the first `width` coefficients, modulo p, rounded from (p / Q) times the exact ones.
    void switched(const u64* values, const std::vector<Rows<u64>>& out, std::size_t width, u64 p, int threads) const;

  private:
    struct Term {
        std::size_t in, pair;
    };
    void spread(const u64* values, u64* tiles, std::size_t index, std::size_t count) const;
    void multiply(const u64* values, std::size_t columns, u64* sums, int threads) const;

    std::shared_ptr<const Ring> ring_;
    std::size_t limbs_, in_count_, out_count_, pairs_;
    std::vector<std::vector<Term>> terms_;  // per output
    u64* weights_;                          // values as tiles [limbs * n / TILE, pairs, TILE], pairs by output
    std::vector<u64> lift_;                 // per limb: (Q / q)^-1 mod q
};

}  // namespace he
