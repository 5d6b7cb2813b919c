#include "linear.h"

#include <algorithm>
#include <cstring>
#include <stdexcept>

#include "arith.h"
#include "parallel.h"

namespace he {

namespace {

constexpr std::size_t PANEL_BYTES = 512 * 1024;  // of digits that a stage reads: half a second-level cache
constexpr int LEAST_DIGIT_BITS = 8, MOST_DIGIT_BITS = 15;
constexpr i64 MOST_WEIGHT = (1 << 23) - 1, LEAST_WEIGHT = -(1 << 23);
// Weights of more than 16 bits are cut into a signed lower half of HALF_BITS bits and the rest.
constexpr int HALF_BITS = 12;
constexpr u64 MOST_WHOLE = 32767;
// Neighbouring tiles of one column that a thread takes at a time.
constexpr std::size_t TILES_AT_A_TIME = 4;
constexpr std::size_t KEPT_TILES = 16;
constexpr u32 NOTHING = ~u32{0};
// Work of joining a block's sum to an accumulator, in pairs of terms.
constexpr double JOIN_PAIRS = 5;

// Half 0 or 1 of a weight, or all of it (half -1).
i32 part_of(i32 weight, int half) {
    if (half < 0) return weight;
    const i32 lower = ((weight + (1 << (HALF_BITS - 1))) & ((1 << HALF_BITS) - 1)) - (1 << (HALF_BITS - 1));
    return half ? (weight - lower) >> HALF_BITS : lower;
}

u64 magnitude(i32 weight) { return static_cast<u64>(weight < 0 ? -static_cast<i64>(weight) : weight); }

// Largest L1 norm of weights whose sums fit int32.
u64 most_norm(int bits) { return ((u64{1} << 31) - 1) >> (bits - 1); }

// round(2^64 * v / q) modulo 2^64, v < q.
u64 fraction_of(u64 v, u64 q) { return static_cast<u64>(((static_cast<u128>(v) << 64) + q / 2) / q); }

void check(const BlockView& block, std::size_t in_count, std::size_t out_count) {
    const std::size_t gathers = block.groups * block.places * block.terms, scatters = block.groups * block.places * block.outs;
    for (std::size_t i = 0; i < gathers; ++i)
        if (block.gather[i] < -1 || block.gather[i] >= static_cast<i64>(in_count)) throw std::invalid_argument("gather: an index is not an input");
    for (std::size_t i = 0; i < scatters; ++i)
        if (block.scatter[i] < 0 || block.scatter[i] >= static_cast<i64>(out_count)) throw std::invalid_argument("scatter: an index is not an output");
    for (std::size_t i = 0; i < block.groups * block.terms * block.outs; ++i)
        if (block.weights[i] > MOST_WEIGHT || block.weights[i] < LEAST_WEIGHT) throw std::invalid_argument("weights: one has more than 24 bits");
}

}  // namespace

// Buffers of one thread.
struct Linear::Work {
    Buffer<i16> panel;   // [digits, rows, TILE]
    Buffer<u64> sums;    // [slots, TILE]
    Buffer<u64> tile;    // one tile and one packed tile
    // Tiles of shifted elements as residues, found by their number modulo KEPT_TILES; two neighbours are put side by side in `joined`.
    Buffer<u64> kept, joined;
    struct Tag {
        u32 element;
        u32 limb;
        std::size_t tile;
    } tags[KEPT_TILES];
};

Linear::Linear(std::shared_ptr<const Ring> ring, std::size_t limbs, std::size_t in_count, std::size_t out_count,
               const std::vector<BlockView>& blocks, std::vector<Source> sources)
    : ring_(std::move(ring)), limbs_(limbs), in_count_(in_count), out_count_(out_count), sources_(std::move(sources)), joins_(out_count, 0) {
    if (!limbs || limbs > ring_->fields().size()) throw std::invalid_argument("more limbs than the ring has moduli");
    if (in_count >= (u64{1} << 31) || out_count >= (u64{1} << 31) || sources_.size() >= (u64{1} << 31))
        throw std::invalid_argument("too many elements");
    for (const Source& source : sources_)
        if (source.element >= in_count || source.shift >= ring_->n()) throw std::invalid_argument("sources: an element or a shift is out of range");
    for (const BlockView& block : blocks) check(block, input_count(), out_count);
    choose_digits(blocks);
    make_stages(blocks);
    make_constants(blocks);
}

Linear::~Linear() = default;

// The width of digits with the least work: fewer digits need fewer products, smaller ones longer blocks.
void Linear::choose_digits(const std::vector<BlockView>& blocks) {
    double pairs = 0;
    std::vector<std::pair<double, u64>> norms;  // how many rows, their L1 norm
    for (const BlockView& block : blocks) {
        pairs += static_cast<double>(block.groups * block.places * block.outs) * static_cast<double>((block.terms + 1) / 2);
        std::vector<u64> norm(block.outs);
        for (std::size_t g = 0; g < block.groups; ++g) {
            std::fill(norm.begin(), norm.end(), 0);
            for (std::size_t k = 0; k < block.terms; ++k)
                for (std::size_t m = 0; m < block.outs; ++m) norm[m] += magnitude(block.weights[(g * block.terms + k) * block.outs + m]);
            for (u64 n : norm) norms.emplace_back(static_cast<double>(block.places), n);
        }
    }
    double least = 0;
    for (int bits = MOST_DIGIT_BITS; bits >= LEAST_DIGIT_BITS; --bits) {
        // A pair of the largest weights must fit.
        if (most_norm(bits) < 2 * (u64{1} << 15)) continue;
        double joins = 0;
        for (const auto& [count, norm] : norms) joins += count * static_cast<double>(1 + norm / most_norm(bits));
        double digits = 0;
        for (std::size_t l = 0; l < limbs_; ++l) digits += (bit_length(ring_->fields()[l].q - 1) + bits - 1) / bits;
        const double work = digits * (pairs + JOIN_PAIRS * joins);
        if (least == 0 || work < least) least = work, bits_ = bits;
    }
    for (std::size_t l = 0; l < limbs_; ++l) {
        const u64 q = ring_->fields()[l].q;
        u64 others = 1;
        for (std::size_t k = 0; k < limbs_; ++k)
            if (k != l) others = mul_mod(others, ring_->fields()[k].q % q, q);
        const u64 inverse = invert_mod(others, q);
        const int count = (bit_length(q - 1) + bits_ - 1) / bits_;
        for (int d = 0; d < count; ++d) {
            Digit digit{l, {}};
            for (int half = 0; half < 2; ++half) {
                const u64 unit = pow_mod(2, static_cast<u64>(d * bits_ + half * HALF_BITS), q);
                digit.unit[half] = {unit, shoup(unit, q, 64), fraction_of(mul_mod(unit, inverse, q), q)};
            }
            factors_.push_back(digit);
        }
    }
}

Linear::Weights Linear::make_weights(const BlockView& block, std::size_t group, std::size_t begin, std::size_t end, std::size_t first,
                                     std::size_t last, int half) const {
    const u64 limit = most_norm(bits_);
    const std::size_t pairs = (end - begin + 1) / 2, outputs = last - first;
    Weights made{half == 1 ? HALF_BITS : 0, std::vector<i32>(pairs * outputs), {}};
    std::vector<u64> norm(outputs, 0), added(outputs);
    for (std::size_t pair = 0; pair < pairs; ++pair) {
        bool over = false;
        for (std::size_t m = 0; m < outputs; ++m) {
            const std::size_t k = begin + 2 * pair;
            const i32* weight = block.weights + (group * block.terms + k) * block.outs + first + m;
            const i32 a = part_of(weight[0], half), b = k + 1 < end ? part_of(weight[block.outs], half) : 0;
            made.pairs[pair * outputs + m] = static_cast<i32>((static_cast<u32>(b) << 16) | (static_cast<u32>(a) & 0xffff));
            added[m] = magnitude(a) + magnitude(b);
            over = over || norm[m] + added[m] > limit;
        }
        if (over) {
            made.ends.push_back(pair);
            std::fill(norm.begin(), norm.end(), 0);
        }
        for (std::size_t m = 0; m < outputs; ++m) norm[m] += added[m];
    }
    made.ends.push_back(pairs);
    return made;
}

std::vector<const Linear::Part*> Linear::make_parts(const BlockView& block, std::size_t group, std::size_t most_terms) {
    std::vector<const Part*> made;
    u64 largest = 0;
    for (std::size_t i = 0; i < block.terms * block.outs; ++i)
        largest = std::max(largest, magnitude(block.weights[group * block.terms * block.outs + i]));
    const std::size_t tiles = (block.outs + MAX_OUTPUTS - 1) / MAX_OUTPUTS;
    for (std::size_t begin = 0; begin < block.terms; begin += most_terms) {
        const std::size_t end = std::min(block.terms, begin + most_terms);
        auto part = std::make_unique<Part>();
        part->pairs = (end - begin + 1) / 2;
        for (std::size_t t = 0; t < tiles; ++t) {
            const std::size_t first = t * block.outs / tiles, last = (t + 1) * block.outs / tiles;
            Outputs outputs{static_cast<int>(last - first), first, {}};
            if (largest <= MOST_WHOLE) {
                outputs.halves.push_back(make_weights(block, group, begin, end, first, last, -1));
            } else {
                for (int half = 0; half < 2; ++half) outputs.halves.push_back(make_weights(block, group, begin, end, first, last, half));
            }
            part->tiles.push_back(std::move(outputs));
        }
        made.push_back(part.get());
        parts_.push_back(std::move(part));
    }
    return made;
}

void Linear::make_stages(const std::vector<BlockView>& blocks) {
    const std::size_t row_bytes = factors_.size() * TILE * sizeof(i16);
    // A panel may be twice its usual size if that holds all inputs.
    std::size_t most_rows = std::max<std::size_t>(256, PANEL_BYTES / row_bytes);
    const std::size_t inputs = input_count();
    if (inputs + 1 <= 2 * most_rows) most_rows = inputs + 1;
    const std::size_t most_terms = std::max<std::size_t>(2, (most_rows - 1) / 2 * 2);

    std::vector<std::size_t> seen(inputs, 0);  // 1 + stage in which an input last got a panel row
    std::vector<i32> panel_row(inputs, 0);
    std::vector<std::size_t> first_stage(out_count_, 0), last_stage(out_count_, 0);  // 1 + stage
    std::vector<std::vector<i32>> task_outputs;
    const auto open_stage = [&] {
        stages_.emplace_back();
        stages_.back().rows.push_back(-1);
    };
    open_stage();
    for (const BlockView& block : blocks) {
        for (std::size_t g = 0; g < block.groups && block.terms && block.outs; ++g) {
            const std::vector<const Part*> parts = make_parts(block, g, most_terms);
            for (std::size_t index = 0; index < parts.size(); ++index) {
                const std::size_t begin = index * most_terms, end = std::min(block.terms, begin + most_terms);
                for (std::size_t place = 0; place < block.places; ++place) {
                    const i32* gather = block.gather + (g * block.places + place) * block.terms;
                    const i32* scatter = block.scatter + (g * block.places + place) * block.outs;
                    std::size_t fresh = 0;
                    for (std::size_t k = begin; k < end; ++k) fresh += gather[k] >= 0 && seen[gather[k]] != stages_.size();
                    if (inputs + 1 > most_rows && stages_.back().rows.size() + fresh > most_rows) open_stage();
                    Stage& stage = stages_.back();
                    const Task task{parts[index], gather_.size(), slots_.size(), 0};
                    for (std::size_t k = begin; k < begin + 2 * task.part->pairs; ++k) {
                        const i32 input = k < end ? gather[k] : -1;
                        if (input >= 0 && seen[input] != stages_.size()) {
                            seen[input] = stages_.size();
                            panel_row[input] = static_cast<i32>(stage.rows.size());
                            stage.rows.push_back(input);
                        }
                        gather_.push_back(input < 0 ? 0 : panel_row[input]);
                    }
                    for (const Outputs& outputs : task.part->tiles) {
                        u64 joins = 0;
                        for (const Weights& weights : outputs.halves) joins += static_cast<u64>(weights.ends.size()) << weights.shift;
                        for (int m = 0; m < outputs.count; ++m) {
                            const i32 output = scatter[outputs.first + static_cast<std::size_t>(m)];
                            joins_[output] += joins;
                            if (!first_stage[output]) first_stage[output] = stages_.size();
                            last_stage[output] = stages_.size();
                            slots_.push_back(static_cast<u32>(output));  // becomes an accumulator below
                        }
                    }
                    stage.tasks.push_back(task);
                    stage.tiles += task.part->tiles.size();
                }
            }
        }
    }
    // Accumulators are handed out when an output first appears and taken back after it last did.
    std::vector<std::vector<u32>> opens(stages_.size()), closes(stages_.size());
    for (std::size_t output = 0; output < out_count_; ++output) {
        if (!first_stage[output]) {
            untouched_.push_back(static_cast<u32>(output));
            continue;
        }
        opens[first_stage[output] - 1].push_back(static_cast<u32>(output));
        closes[last_stage[output] - 1].push_back(static_cast<u32>(output));
    }
    std::vector<u32> slot(out_count_, 0), idle, begun;
    std::vector<u8> started(out_count_, 0);
    for (std::size_t s = 0; s < stages_.size(); ++s) {
        Stage& stage = stages_[s];
        most_rows_ = std::max(most_rows_, stage.rows.size());
        for (u32 output : opens[s]) {
            if (idle.empty()) idle.push_back(static_cast<u32>(slot_count_++));
            slot[output] = idle.back();
            idle.pop_back();
        }
        for (Task& task : stage.tasks) {
            task.firsts = firsts_.size();
            u32* outputs = slots_.data() + task.slots;
            for (const Outputs& tile : task.part->tiles) {
                // A tile whose outputs are all new and different starts them; other new ones are set to zero before.
                std::size_t fresh = 0;
                for (int m = 0; m < tile.count; ++m) {
                    fresh += !started[outputs[m]];
                    if (!started[outputs[m]]) begun.push_back(outputs[m]);
                    started[outputs[m]] = 1;
                }
                const bool first = fresh == static_cast<std::size_t>(tile.count);
                if (!first)
                    for (u32 output : begun) stage.open.push_back(slot[output]);
                begun.clear();
                firsts_.push_back(first);
                for (int m = 0; m < tile.count; ++m) outputs[m] = slot[outputs[m]];
                outputs += tile.count;
            }
        }
        for (u32 output : closes[s]) {
            stage.close.emplace_back(slot[output], output);
            idle.push_back(slot[output]);
        }
    }
}

void Linear::make_constants(const std::vector<BlockView>& blocks) {
    std::vector<i64> row_sums(out_count_, 0);
    for (const BlockView& block : blocks) {
        std::vector<i64> sums(block.outs);
        for (std::size_t g = 0; g < block.groups; ++g) {
            std::fill(sums.begin(), sums.end(), 0);
            for (std::size_t k = 0; k < block.terms; ++k)
                for (std::size_t m = 0; m < block.outs; ++m) sums[m] += block.weights[(g * block.terms + k) * block.outs + m];
            for (std::size_t place = 0; place < block.places && block.terms; ++place)
                for (std::size_t m = 0; m < block.outs; ++m) row_sums[block.scatter[(g * block.places + place) * block.outs + m]] += sums[m];
        }
    }
    switch_constants_.assign(out_count_, 0);
    for (std::size_t l = 0; l < limbs_; ++l) {
        const u64 q = ring_->fields()[l].q;
        u64 others = 1, units = 0;
        for (std::size_t k = 0; k < limbs_; ++k)
            if (k != l) others = mul_mod(others, ring_->fields()[k].q % q, q);
        for (const Digit& digit : factors_)
            if (digit.limb == l) units = (units + digit.unit[0].residue) % q;
        const u64 inverse = invert_mod(others, q);
        const u64 offset = mul_mod(units, pow_mod(2, static_cast<u64>(bits_ - 1), q), q);  // what each input was lowered by
        const u64 lift = mul_mod(units, (u64{1} << 31) % q, q);                            // what each exact block adds
        std::vector<u64> exact(out_count_);
        for (std::size_t output = 0; output < out_count_; ++output) {
            const i64 sum = row_sums[output] % static_cast<i64>(q);
            const u64 lowered = mul_mod(static_cast<u64>(sum < 0 ? sum + static_cast<i64>(q) : sum), offset, q);
            const u64 lifted = mul_mod(joins_[output] % q, lift, q);
            exact[output] = lowered >= lifted ? lowered - lifted : lowered + q - lifted;
            switch_constants_[output] += fraction_of(mul_mod(lowered, inverse, q), q);
        }
        exact_constants_.push_back(std::move(exact));
    }
}

std::unique_ptr<Linear::Work> Linear::make_work() const {
    auto work = std::make_unique<Work>();
    work->panel = Buffer<i16>(factors_.size() * most_rows_ * TILE);
    work->sums = Buffer<u64>(std::max<std::size_t>(1, slot_count_) * TILE);  // one for outputs that no block writes
    work->tile = Buffer<u64>(2 * TILE);
    if (!sources_.empty()) {
        work->kept = Buffer<u64>(KEPT_TILES * TILE);
        work->joined = Buffer<u64>(2 * TILE);
    }
    return work;
}

void Linear::exact(const std::vector<Column>& columns, std::size_t width, int threads) const {
    for (std::size_t l = 0; l < limbs_; ++l) run(columns, width, 0, l, l + 1, threads);
}

void Linear::switched(const std::vector<Column>& columns, std::size_t width, u64 p, int threads) const {
    if (p < 2 || p >> 31) throw std::invalid_argument("answers are switched to moduli below 2^31");
    run(columns, width, p, 0, limbs_, threads);
}

void Linear::run(const std::vector<Column>& columns, std::size_t width, u64 p, std::size_t first_limb, std::size_t last_limb,
                 int threads) const {
    std::size_t first_digit = 0, last_digit = 0;
    for (const Digit& digit : factors_) {
        first_digit += digit.limb < first_limb;
        last_digit += digit.limb < last_limb;
    }
    const std::size_t tiles = (width + TILE - 1) / TILE;
    parallel_ranges(columns.size() * tiles, TILES_AT_A_TIME, threads, [&](std::size_t begin, std::size_t end) {
        std::unique_ptr<Work> work = work_.take([this] { return make_work(); });
        for (std::size_t k = begin; k < end; ++k) {
            const std::size_t first = k % tiles * TILE;
            const Column* next = k + 1 < end ? &columns[(k + 1) / tiles] : nullptr;
            run_tile(columns[k / tiles], first, width, p, first_digit, last_digit, next, (k + 1) % tiles * TILE, *work);
        }
        work_.give(std::move(work));
    });
}

void Linear::run_tile(const Column& column, std::size_t first, std::size_t width, u64 p, std::size_t first_digit, std::size_t last_digit,
                      const Column* next, std::size_t next_first, Work& work) const {
    const std::size_t stride = most_rows_ * TILE, values = std::min(TILE, width - first);
    for (Work::Tag& tag : work.tags) tag.element = NOTHING;
    const std::size_t first_limb = factors_[first_digit].limb, last_limb = factors_[last_digit - 1].limb;
    for (std::size_t s = 0; s < stages_.size(); ++s) {
        const Stage& stage = stages_[s];
        for (std::size_t row = 0; row < stage.rows.size(); ++row) {
            i16* out = work.panel.data() + row * TILE;
            for (std::size_t digit = first_digit; digit < last_digit;) {
                const std::size_t l = factors_[digit].limb;
                std::size_t end = digit;
                while (end < last_digit && factors_[end].limb == l) ++end;
                read_row(column.in, stage.rows[row], first, values, width, l, out, static_cast<int>(end - digit), work);
                out += (end - digit) * stride;
                digit = end;
            }
        }
        for (u32 slot : stage.open) std::memset(work.sums.data() + slot * TILE, 0, TILE * sizeof(u64));
        const bool last = s + 1 == stages_.size();
        Ahead ahead{last ? &stages_[0] : &stages_[s + 1], last ? next : &column, last ? next_first : first, first_limb, last_limb, 0, 0};
        if (ahead.column) ahead.step = (ahead.stage->rows.size() + stage.tiles - 1) / std::max<std::size_t>(1, stage.tiles);
        for (const Task& task : stage.tasks) run_task(task, !p, first_digit, last_digit, ahead, work);
        for (const auto& [slot, output] : stage.close)
            write_row(column.out, output, first, values, p, first_limb, work.sums.data() + slot * TILE, work);
    }
    if (untouched_.empty()) return;
    std::memset(work.sums.data(), 0, TILE * sizeof(u64));
    for (u32 output : untouched_) write_row(column.out, output, first, values, p, first_limb, work.sums.data(), work);
}

// One tile of one input under one prime, as digits.
void Linear::read_row(const Rows<const u64>& rows, i32 input, std::size_t first, std::size_t values, std::size_t width, std::size_t limb,
                      i16* out, int digits, Work& work) const {
    const Kernels& kernels = ring_->kernels();
    const std::size_t stride = most_rows_ * TILE;
    u64* copy = work.tile.data();
    if (input >= 0 && !sources_.empty()) {
        const Source& source = sources_[static_cast<std::size_t>(input)];
        if (source.shift) return kernels.digitize(out, stride, shifted_tile(rows, source, first, width, limb, work), digits, bits_);
        input = static_cast<i32>(source.element);
    }
    if (input < 0 || values < TILE) std::memset(copy, 0, TILE * sizeof(u64));
    if (input < 0) return kernels.digitize(out, stride, copy, digits, bits_);
    const u64* at = rows.at(static_cast<std::size_t>(input), limb);
    if (rows.packed) {
        const int bits = bit_length(ring_->fields()[limb].q);
        at += first / TILE * static_cast<std::size_t>(bits);
        if (values < TILE) std::memcpy(copy, at, (values * static_cast<std::size_t>(bits) + 63) / 64 * sizeof(u64));
        kernels.digitize_packed(out, stride, values < TILE ? copy : at, bits, digits, bits_);
    } else {
        if (values < TILE) std::memcpy(copy, at + first, values * sizeof(u64));
        kernels.digitize(out, stride, values < TILE ? copy : at + first, digits, bits_);
    }
}

// One tile of an element times X^-shift: residues that end in the middle of a tile and go on in the next.
const u64* Linear::shifted_tile(const Rows<const u64>& rows, const Source& source, std::size_t first, std::size_t width, std::size_t limb,
                                Work& work) const {
    const u64 q = ring_->fields()[limb].q;
    const std::size_t n = ring_->n(), bits = static_cast<std::size_t>(bit_length(q));
    const std::size_t at = first + source.shift, tile = at / TILE;
    for (std::size_t side = 0; side < 2; ++side) {
        u64* half = work.joined.data() + side * TILE;
        const std::size_t wanted = tile + side;
        u64* values = work.kept.data() + wanted % KEPT_TILES * TILE;
        Work::Tag& tag = work.tags[wanted % KEPT_TILES];
        if (tag.element != source.element || tag.limb != limb || tag.tile != wanted) {
            tag = {source.element, static_cast<u32>(limb), wanted};
            const bool wraps = width == n && wanted * TILE >= n;
            const std::size_t begin = wraps ? wanted * TILE - n : wanted * TILE;
            if (begin >= width) {
                std::memset(values, 0, TILE * sizeof(u64));
            } else {
                const std::size_t count = std::min(TILE, width - begin);
                const u64* from = rows.at(source.element, limb) + (rows.packed ? begin / TILE * bits : begin);
                if (count < TILE) {
                    u64* copy = work.tile.data();
                    std::memset(copy, 0, TILE * sizeof(u64));
                    std::memcpy(copy, from, (rows.packed ? (count * bits + 63) / 64 : count) * sizeof(u64));
                    from = copy;
                }
                if (rows.packed)
                    ring_->kernels().unpack(values, from, static_cast<int>(bits));
                else
                    std::memcpy(values, from, TILE * sizeof(u64));
                if (wraps)
                    for (std::size_t c = 0; c < TILE; ++c) values[c] = values[c] ? q - values[c] : 0;
            }
        }
        std::memcpy(half, values, TILE * sizeof(u64));
    }
    return work.joined.data() + at % TILE;
}

// One tile of one output, from its accumulators.
void Linear::write_row(const Rows<u64>& rows, std::size_t output, std::size_t first, std::size_t values, u64 p, std::size_t limb,
                       const u64* sums, Work& work) const {
    const Kernels& kernels = ring_->kernels();
    const u64 q = p ? p : ring_->fields()[limb].q;
    const std::size_t bits = static_cast<std::size_t>(bit_length(q));
    u64* to = rows.at(output, p ? 0 : limb) + (rows.packed ? first / TILE * bits : first);
    if (p && values == TILE) return kernels.switch_modulus(to, sums, switch_constants_[output], p, rows.packed ? static_cast<int>(bits) : 0);
    u64* tile = work.tile.data();
    u64* packed = tile + TILE;
    if (p)
        kernels.switch_modulus(tile, sums, switch_constants_[output], p, 0);
    else
        kernels.add_constant(tile, sums, exact_constants_[limb][output], q);
    if (!rows.packed) {
        std::memcpy(to, tile, values * sizeof(u64));
        return;
    }
    std::fill(tile + values, tile + TILE, 0);
    kernels.pack(packed, tile, static_cast<int>(bits));
    std::memcpy(to, packed, (values * bits + 63) / 64 * sizeof(u64));
}

// Fetches some of the rows that come next into the second-level cache: they lie far apart, beyond what the hardware foresees.
void Linear::prefetch(Ahead& ahead) const {
    const std::size_t end = std::min(ahead.row + ahead.step, ahead.stage->rows.size());
    for (; ahead.row < end; ++ahead.row) {
        const i32 input = ahead.stage->rows[ahead.row];
        for (std::size_t l = ahead.first_limb; input >= 0 && l <= ahead.last_limb; ++l) {
            const Rows<const u64>& rows = ahead.column->in;
            const std::size_t words = rows.packed ? static_cast<std::size_t>(bit_length(ring_->fields()[l].q)) : TILE;
            const std::size_t element = sources_.empty() ? static_cast<std::size_t>(input) : sources_[static_cast<std::size_t>(input)].element;
            const u64* at = rows.at(element, l) + ahead.first / TILE * words;
            for (std::size_t word = 0; word < words; word += 8) __builtin_prefetch(at + word, 0, 2);
        }
    }
}

void Linear::run_task(const Task& task, bool exact, std::size_t first_digit, std::size_t last_digit, Ahead& ahead, Work& work) const {
    const Kernels& kernels = ring_->kernels();
    const u32* slots = slots_.data() + task.slots;
    const u8* firsts = firsts_.data() + task.firsts;
    for (const Outputs& outputs : task.part->tiles) {
        bool first = *firsts++;
        prefetch(ahead);
        u64* sums[MAX_OUTPUTS];
        for (int m = 0; m < outputs.count; ++m) sums[m] = work.sums.data() + static_cast<std::size_t>(slots[m]) * TILE;
        slots += outputs.count;
        for (std::size_t d = first_digit; d < last_digit; ++d) {
            const Digit& digit = factors_[d];
            const i16* panel = work.panel.data() + (d - first_digit) * most_rows_ * TILE;
            for (const Weights& weights : outputs.halves) {
                const auto& unit = digit.unit[weights.shift ? 1 : 0];
                DotSink sink = {exact, exact ? unit.residue : unit.fraction, unit.companion, ring_->fields()[digit.limb].q, first};
                std::size_t begin = 0;
                for (std::size_t end : weights.ends) {
                    sink.first = first;
                    first = false;
                    kernels.dot(sums, panel, gather_.data() + task.gather + 2 * begin, end - begin,
                                weights.pairs.data() + begin * static_cast<std::size_t>(outputs.count), outputs.count, sink);
                    begin = end;
                }
            }
        }
    }
}

}  // namespace he
