// Integer linear maps on arrays of residues, computed exactly with 16-bit dot products.
//
// A residue x in [0, q) is cut into digits of at most 15 bits, each less half its range: x = sum_d 2^(bits d) (D_d + 2^(bits - 1)). Sums of
// weight times D_d are exact in int32 as long as the weights' L1 norm times 2^(bits - 1) is below 2^31, so a row of weights is cut into
// blocks for which that holds. What a block sums up to joins 64-bit accumulators, which hold either
//   - residues modulo q (exact), or
//   - the fraction v/q modulo 1 in units of 2^-64 (switched): digit d counts 2^(bits d) / q. With several primes q_l the fraction of the whole
//     modulus Q is the sum of the fractions v_l ((Q/q_l)^-1 mod q_l) / q_l, so one accumulator serves all of them. Rounding it to multiples
//     of 1/p is switching to the modulus p.
#pragma once

#include <memory>
#include <utility>
#include <vector>

#include "kernels.h"
#include "parallel.h"
#include "ring.h"

namespace he {

// out[scatter[g, p, m]] += sum over k of weights[g, k, m] * in[gather[g, p, k]]; gather -1 reads zero.
struct BlockView {
    std::size_t groups, places, terms, outs;
    const i32* gather;   // [groups, places, terms]
    const i32* weights;  // [groups, terms, outs], each of at most 24 bits
    const i32* scatter;  // [groups, places, outs]
};

// An input of a map: an element times X^-shift, 0 <= shift < n. Only whole polynomials wrap around; shorter rows read zero past their end.
struct Source {
    u32 element, shift;
};

struct Column {
    Rows<const u64> in;
    Rows<u64> out;
};

class Linear {
  public:
    // The blocks gather from `sources`, or from the elements themselves if there are none. Throws std::invalid_argument for indices, shifts
    // or weights out of range.
    Linear(std::shared_ptr<const Ring> ring, std::size_t limbs, std::size_t in_count, std::size_t out_count,
           const std::vector<BlockView>& blocks, std::vector<Source> sources = {});
    ~Linear();

    std::size_t in_count() const { return in_count_; }
    std::size_t input_count() const { return sources_.empty() ? in_count_ : sources_.size(); }
    std::size_t out_count() const { return out_count_; }
    std::size_t limbs() const { return limbs_; }
    const Ring& ring() const { return *ring_; }
    int digit_bits() const { return bits_; }
    std::size_t digits() const { return factors_.size(); }
    std::size_t stages() const { return stages_.size(); }

    // Every column's `width` coefficients or values: residues modulo the same primes.
    void exact(const std::vector<Column>& columns, std::size_t width, int threads) const;
    // Every column's `width` coefficients, switched from the product of the primes to p < 2^31; out has one limb.
    void switched(const std::vector<Column>& columns, std::size_t width, u64 p, int threads) const;

  private:
    // 16-bit weights as pairs of terms, in units of 2^shift, and where each exact block of pairs ends.
    struct Weights {
        int shift;
        std::vector<i32> pairs;  // [pairs, outputs]
        std::vector<std::size_t> ends;
    };
    // Up to MAX_OUTPUTS outputs of one group. Weights of more than 16 bits come in two halves.
    struct Outputs {
        int count;
        std::size_t first;  // output of the group
        std::vector<Weights> halves;
    };
    // A range of one group's terms.
    struct Part {
        std::size_t pairs;
        std::vector<Outputs> tiles;
    };
    // One part at one place: which panel rows it reads (2 * pairs of gather_) and which accumulators it joins (of slots_).
    struct Task {
        const Part* part;
        std::size_t gather, slots;
        std::size_t firsts;  // of firsts_: whether each tile's accumulators start with this task
    };
    // Tasks that together read no more rows than a panel holds. `open` accumulators are set to zero before, `close` ones are complete after.
    struct Stage {
        std::vector<i32> rows;  // inputs in panel order; -1 is zero
        std::vector<Task> tasks;
        std::size_t tiles = 0;  // of all tasks
        std::vector<u32> open;                     // accumulators
        std::vector<std::pair<u32, u32>> close;  // accumulator, output
    };
    // A digit of one limb, alone and times 2^HALF_BITS.
    struct Digit {
        std::size_t limb;
        struct {
            u64 residue, companion;  // 2^(bits d) mod q_l
            u64 fraction;            // 2^64 times the fraction that one unit of this digit is of the whole modulus
        } unit[2];
    };
    struct Work;
    // The rows that will be read next, and how far they have been prefetched.
    struct Ahead {
        const Stage* stage;
        const Column* column;  // null: none
        std::size_t first, first_limb, last_limb;
        std::size_t row, step;
    };

    void choose_digits(const std::vector<BlockView>& blocks);
    Weights make_weights(const BlockView& block, std::size_t group, std::size_t begin, std::size_t end, std::size_t first, std::size_t last,
                         int half) const;
    std::vector<const Part*> make_parts(const BlockView& block, std::size_t group, std::size_t most_terms);
    void make_stages(const std::vector<BlockView>& blocks);
    void make_constants(const std::vector<BlockView>& blocks);
    void run(const std::vector<Column>& columns, std::size_t width, u64 p, std::size_t first_limb, std::size_t last_limb, int threads) const;
    void run_tile(const Column& column, std::size_t first, std::size_t width, u64 p, std::size_t first_digit, std::size_t last_digit,
                  const Column* next, std::size_t next_first, Work& work) const;
    void read_row(const Rows<const u64>& rows, i32 input, std::size_t first, std::size_t values, std::size_t width, std::size_t limb, i16* out,
                  int digits, Work& work) const;
    const u64* shifted_tile(const Rows<const u64>& rows, const Source& source, std::size_t first, std::size_t width, std::size_t limb,
                            Work& work) const;
    void write_row(const Rows<u64>& rows, std::size_t output, std::size_t first, std::size_t values, u64 p, std::size_t limb, const u64* sums,
                   Work& work) const;
    void prefetch(Ahead& ahead) const;
    void run_task(const Task& task, bool exact, std::size_t first_digit, std::size_t last_digit, Ahead& ahead, Work& work) const;
    std::unique_ptr<Work> make_work() const;

    std::shared_ptr<const Ring> ring_;
    std::size_t limbs_, in_count_, out_count_;
    std::vector<Source> sources_;  // what the blocks gather from; empty: the elements
    int bits_ = 15;
    std::vector<Digit> factors_;  // limb by limb
    std::size_t most_rows_ = 0, slot_count_ = 0;
    std::vector<std::unique_ptr<Part>> parts_;
    std::vector<i32> gather_;
    std::vector<u32> slots_;
    std::vector<u8> firsts_;
    std::vector<Stage> stages_;
    std::vector<u32> untouched_;                     // outputs without a term
    std::vector<u64> joins_;                         // per output: blocks that join it, in units of the lower half
    std::vector<u64> switch_constants_;              // per output
    std::vector<std::vector<u64>> exact_constants_;  // per limb and output
    mutable Pool<Work> work_;
};

}  // namespace he
