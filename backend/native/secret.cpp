// Encryption and decryption of whole arrays, polynomial by polynomial, so that each stays in the first-level cache.
#include <stdexcept>

#include "arith.h"
#include "parallel.h"
#include "ring.h"

namespace he {

namespace {

template <class T>
using Word = std::remove_const_t<std::remove_reference_t<T>>;

void wipe(void* memory, std::size_t bytes) {
    std::memset(memory, 0, bytes);
    __asm__ __volatile__("" : : "r"(memory) : "memory");  // the compiler must not drop the stores
}

// Mixed-radix digits of a residue vector, each centered, so that small values have zero high digits (Garner, 1959).
class Recombine {
  public:
    Recombine(const std::vector<Field>& fields, std::size_t limbs) : limbs_(limbs), inverse_(limbs * limbs) {
        for (std::size_t l = 0; l < limbs; ++l) {
            q_.push_back(fields[l].q);
            for (std::size_t k = 0; k < l; ++k) inverse_[l * limbs + k] = invert_mod(fields[k].q % fields[l].q, fields[l].q);
        }
    }

    // residues: limbs pointers' worth of n values, limb-major.
    void operator()(double* out, const u64* residues, std::size_t n, std::size_t stride, double factor) const {
        i64 digit[64];
        for (std::size_t c = 0; c < n; ++c) {
            for (std::size_t l = 0; l < limbs_; ++l) {
                const u64 q = q_[l];
                u64 x = residues[l * stride + c];
                for (std::size_t k = 0; k < l; ++k) {
                    const i64 lower = digit[k] % static_cast<i64>(q);
                    const u64 reduced = lower < 0 ? static_cast<u64>(lower) + q : static_cast<u64>(lower);
                    x = mul_mod(x >= reduced ? x - reduced : x + q - reduced, inverse_[l * limbs_ + k], q);
                }
                digit[l] = x > q / 2 ? static_cast<i64>(x) - static_cast<i64>(q) : static_cast<i64>(x);
            }
            double value = static_cast<double>(digit[limbs_ - 1]);
            for (std::size_t l = limbs_ - 1; l-- > 0;) value = value * static_cast<double>(q_[l]) + static_cast<double>(digit[l]);
            out[c] = value * factor;
        }
    }

  private:
    std::size_t limbs_;
    std::vector<u64> q_;
    std::vector<u64> inverse_;
};

// Elements worked on together: a vector of float32.
constexpr std::size_t GROUP = 16;
// Reals between the rows of a group besides their own, so that rows do not share the sets of a cache.
constexpr std::size_t SKEW = 32;

std::size_t whole_tiles(std::size_t width) { return width / TILE; }

// Residues of one polynomial: width values of words W from plain words or a bit stream, added to t.
template <class W>
void read_add(const WordKernels<W>& words, W* out, const W* t, const u64* in, std::size_t width, W q, bool packed) {
    const int bits = packed ? bit_length(q) : 0;
    const std::size_t tiles = whole_tiles(width), rest = width % TILE;
    words.unpack_add(out, t, in, tiles, q, bits);
    if (!rest) return;
    u64 tail[TILE] = {};
    const u64* from = in + tiles * (packed ? static_cast<std::size_t>(bits) : TILE);
    std::memcpy(tail, from, (packed ? (rest * static_cast<std::size_t>(bits) + 63) / 64 : rest) * sizeof(u64));
    words.unpack_add(out + tiles * TILE, t + tiles * TILE, tail, 1, q, bits);
}

// m - t, reduced, to plain words or a bit stream.
template <class W>
void write_difference(const WordKernels<W>& words, u64* out, const W* m, const W* t, std::size_t width, W q, bool packed) {
    const int bits = packed ? bit_length(q) : 0;
    const std::size_t tiles = whole_tiles(width), rest = width % TILE;
    words.subtract_pack(out, m, t, tiles, q, bits);
    if (!rest) return;
    W difference[2][TILE] = {};
    std::memcpy(difference[0], m + tiles * TILE, rest * sizeof(W));
    std::memcpy(difference[1], t + tiles * TILE, rest * sizeof(W));
    u64 tail[TILE] = {};
    words.subtract_pack(tail, difference[0], difference[1], 1, q, bits);
    u64* to = out + tiles * (packed ? static_cast<std::size_t>(bits) : TILE);
    std::memcpy(to, tail, (packed ? (rest * static_cast<std::size_t>(bits) + 63) / 64 : rest) * sizeof(u64));
}

}  // namespace

// Wiped when it goes.
struct Secrets::Scratch {
    Scratch(std::size_t n, std::size_t limbs)
        : values(GROUP * (n + SKEW)), mask(GROUP * limbs * n), message(n), residues(n), product(n), sums(limbs * n), reals(n) {}
    ~Scratch() {
        wipe(values.data(), values.size() * sizeof(u64));
        wipe(message.data(), message.size() * sizeof(i64));
        wipe(residues.data(), residues.size() * sizeof(u64));
        wipe(product.data(), product.size() * sizeof(u64));
        wipe(sums.data(), sums.size() * sizeof(u64));
        wipe(reals.data(), reals.size() * sizeof(double));
    }
    Buffer<u64> values;  // reals of a group, element by element
    Buffer<u64> mask;    // [GROUP, limbs, n] words
    Buffer<i64> message;
    Buffer<u64> residues, product;
    Buffer<u64> sums;    // [limbs, n]
    Buffer<double> reals;
};

Secrets::Secrets(std::shared_ptr<const Ring> ring, const i8* ternary, std::size_t columns)
    : ring_(std::move(ring)), columns_(columns), ternary_(columns * ring_->n()) {
    const std::size_t n = ring_->n();
    for (std::size_t i = 0; i < columns * n; ++i)
        if (ternary[i] < -1 || ternary[i] > 1) throw std::invalid_argument("a ternary secret has a coefficient outside -1, 0, 1");
    std::memcpy(ternary_.data(), ternary, columns * n);
    for (const Field& field : ring_->fields()) {
        field.visit([&](const auto& words, const auto& ntt) {
            using W = Word<decltype(ntt.q)>;
            const std::size_t stride = 2 * n * sizeof(W);
            Buffer<u8> memory(columns * stride);
            const u64 inverse_n = invert_mod(n, field.q);
            for (std::size_t column = 0; column < columns; ++column) {
                W* s = reinterpret_cast<W*>(memory.data() + column * stride);
                for (std::size_t c = 0; c < n; ++c) {
                    const i8 t = ternary[column * n + c];
                    s[c] = static_cast<W>(t < 0 ? field.q - inverse_n : t ? inverse_n : 0);
                }
                words.forward(s, ntt);
                for (std::size_t c = 0; c < n; ++c) s[n + c] = static_cast<W>(shoup(s[c], field.q, words.shift));
            }
            memory_.push_back(std::move(memory));
            stride_.push_back(stride);
        });
    }
}

Secrets::~Secrets() {
    wipe(ternary_.data(), ternary_.size());
    for (auto& memory : memory_) wipe(memory.data(), memory.size());
}

std::shared_ptr<Secrets> Secrets::under(std::shared_ptr<const Ring> ring) const {
    if (ring->n() != ring_->n()) throw std::invalid_argument("the rings differ in degree");
    return std::make_shared<Secrets>(std::move(ring), ternary_.data(), columns_);
}

namespace {

// Rows [from, from + here) of elements [first, first + group): at every `stride` reals, `padded` of them, zeros after the last.
template <class REAL>
const REAL* gather_reals(const Kernels& kernels, const Reals<const void>& values, std::size_t first, std::size_t group, std::size_t from,
                         std::size_t here, std::size_t padded, std::size_t stride, REAL* scratch) {
    const REAL* in = static_cast<const REAL*>(values.data) + first * values.element_stride + from * values.row_stride;
    if (values.row_stride == 1) {
        for (std::size_t e = 0; e < group; ++e) std::memcpy(scratch + e * stride, in + e * values.element_stride, here * sizeof(REAL));
    } else if constexpr (sizeof(REAL) == 4) {
        kernels.transpose32(reinterpret_cast<u32*>(scratch), stride, reinterpret_cast<const u32*>(in), values.row_stride, here, group);
    } else {
        kernels.transpose64(reinterpret_cast<u64*>(scratch), stride, reinterpret_cast<const u64*>(in), values.row_stride, here, group);
    }
    for (std::size_t e = 0; e < group; ++e) std::fill(scratch + e * stride + here, scratch + e * stride + padded, REAL{0});
    return scratch;
}

// Asks for one part in `parts` of the rows that gather_reals will transpose next: they lie far apart, beyond what the hardware foresees.
inline void prefetch_reals(const Reals<const void>& values, std::size_t element, std::size_t from, std::size_t here, std::size_t part,
                           std::size_t parts) {
    if (values.row_stride == 1) return;
    const std::size_t item = values.single ? sizeof(float) : sizeof(double);
    const char* at = static_cast<const char*>(values.data) + (element * values.element_stride + from * values.row_stride) * item;
    for (std::size_t row = here * part / parts; row < here * (part + 1) / parts; ++row) {
        const char* line = at + row * values.row_stride * item;
        for (std::size_t offset = 0; offset < GROUP * item; offset += 64) __builtin_prefetch(line + offset, 0, 2);
        __builtin_prefetch(line + GROUP * item - 1, 0, 2);
    }
}

template <class REAL>
void scatter_reals(const Kernels& kernels, const Reals<void>& values, std::size_t first, std::size_t group, std::size_t from,
                   std::size_t here, std::size_t stride, const REAL* scratch) {
    REAL* out = static_cast<REAL*>(values.data) + first * values.element_stride + from * values.row_stride;
    if constexpr (sizeof(REAL) == 4) {
        kernels.transpose32(reinterpret_cast<u32*>(out), values.row_stride, reinterpret_cast<const u32*>(scratch), stride, group, here);
    } else {
        kernels.transpose64(reinterpret_cast<u64*>(out), values.row_stride, reinterpret_cast<const u64*>(scratch), stride, group, here);
    }
}

template <class REAL>
bool make_message(const Kernels& kernels, i64* out, const REAL* x, std::size_t n, double scale, double limit, const u8* noise, u64 q) {
    if constexpr (sizeof(REAL) == 4)
        return kernels.message_f32(out, x, n, scale, limit, noise, q);
    else
        return kernels.message_f64(out, x, n, scale, limit, noise, q);
}

template <class REAL>
bool make_message(const Kernels& kernels, u32* out, const REAL* x, std::size_t n, double scale, double limit, const u8* noise, u64 q) {
    if constexpr (sizeof(REAL) == 4)
        return kernels.message32_f32(out, x, n, scale, limit, noise, static_cast<u32>(q));
    else
        return kernels.message32_f64(out, x, n, scale, limit, noise, static_cast<u32>(q));
}

template <class REAL>
class Encryption {
  public:
    Encryption(const Secrets& secrets, const Layout& layout, const Reals<const void>& values, double scale, double limit, const u64* mask,
               const u8* noise, const std::vector<Rows<u64>>& body)
        : secrets_(secrets), ring_(secrets.ring()), layout_(layout), values_(values), scale_(scale), limit_(limit), mask_(mask),
          noise_(noise), body_(body), n_(ring_.n()), padded_((layout.width + NOISE_BLOCK - 1) / NOISE_BLOCK * NOISE_BLOCK) {}

    // Elements [first, last) of the range, at most GROUP. False if a value does not fit.
    bool group(std::size_t first, std::size_t last, Secrets::Scratch& scratch) const {
        bool fits = true;
        for (std::size_t k = first; k < last; ++k) load_mask(k, scratch.mask.data() + (k - first) * layout_.limbs * n_);
        for (std::size_t column = 0; column < secrets_.columns(); ++column) {
            const std::size_t from = column * layout_.width, here = std::min(layout_.width, layout_.rows - from);
            const REAL* x = gather_reals(ring_.kernels(), values_, layout_.start + first, last - first, from, here, padded_,
                                         n_ + SKEW, reinterpret_cast<REAL*>(scratch.values.data()));
            const bool same = column + 1 < secrets_.columns();  // the same elements come next, in the next column
            const std::size_t then = same ? from + layout_.width : 0, element = layout_.start + (same ? first : last);
            const std::size_t there = same || layout_.start + last + GROUP <= layout_.stop ? std::min(layout_.width, layout_.rows - then) : 0;
            for (std::size_t k = first; k < last; ++k) {
                prefetch_reals(values_, element, then, there, k - first, last - first);
                fits &= polynomial(k, column, x + (k - first) * (n_ + SKEW), scratch.mask.data() + (k - first) * layout_.limbs * n_, scratch);
            }
        }
        return fits;
    }

  private:
    void load_mask(std::size_t k, u64* out) const {
        for (std::size_t l = 0; l < layout_.limbs; ++l)
            ring_.fields()[l].visit([&](const auto& words, const auto& ntt) {
                words.narrow(reinterpret_cast<Word<decltype(ntt.q)>*>(out + l * n_), mask_ + (k * layout_.limbs + l) * n_, n_);
            });
    }

    bool polynomial(std::size_t k, std::size_t column, const REAL* x, const u64* mask, Secrets::Scratch& scratch) const {
        const Kernels& kernels = ring_.kernels();
        const u8* noise = noise_ + (k * secrets_.columns() + column) * noise_bytes(layout_.width);
        const Field& only = ring_.fields()[0];
        const bool narrow = layout_.limbs == 1 && only.width == Width::word32;
        // With one prime the message is a reduced residue at once; with several it is an integer until each prime's turn.
        const u64 lift = layout_.limbs == 1 ? only.q : 0;
        const bool fits = narrow ? make_message(kernels, reinterpret_cast<u32*>(scratch.message.data()), x, padded_, scale_, limit_, noise, lift)
                                 : make_message(kernels, scratch.message.data(), x, padded_, scale_, limit_, noise, lift);
        if (!fits) return false;
        for (std::size_t l = 0; l < layout_.limbs; ++l) {
            const Field& field = ring_.fields()[l];
            field.visit([&](const auto& words, const auto& ntt) {
                using W = Word<decltype(ntt.q)>;
                const W* m = reinterpret_cast<const W*>(scratch.message.data());
                if (layout_.limbs > 1) {
                    i64* reduced = reinterpret_cast<i64*>(scratch.product.data());
                    kernels.reduce_signed(reduced, scratch.message.data(), layout_.width, field.q, field.one_p64, field.offset);
                    words.narrow(reinterpret_cast<W*>(scratch.residues.data()), scratch.product.data(), layout_.width);
                    m = reinterpret_cast<const W*>(scratch.residues.data());
                }
                W* t = reinterpret_cast<W*>(scratch.product.data());
                const W* s = static_cast<const W*>(secrets_.at(column, l));
                words.inverse_product(t, reinterpret_cast<const W*>(mask + l * n_), s, s + n_, ntt);
                const Rows<u64>& out = body_[column];
                write_difference(words, out.at(layout_.start + k, l), m, t, layout_.width, ntt.q, out.packed);
            });
        }
        return true;
    }

    const Secrets& secrets_;
    const Ring& ring_;
    const Layout& layout_;
    const Reals<const void>& values_;
    double scale_, limit_;
    const u64* mask_;
    const u8* noise_;
    const std::vector<Rows<u64>>& body_;
    std::size_t n_, padded_;
};

template <class REAL>
class Decryption {
  public:
    Decryption(const Secrets& secrets, const Layout& layout, const std::vector<Rows<const u64>>& body, const Rows<const u64>& mask,
               const double* factors, const Reals<void>& values)
        : secrets_(secrets), ring_(secrets.ring()), layout_(layout), body_(body), mask_(mask), factors_(factors), values_(values),
          n_(ring_.n()), recombine_(ring_.fields(), layout.limbs), zeros_(n_) {
        std::memset(zeros_.data(), 0, n_ * sizeof(u64));
    }

    void group(std::size_t first, std::size_t last, Secrets::Scratch& scratch) const {
        for (std::size_t k = first; k < last; ++k) load_mask(layout_.start + k, scratch.mask.data() + (k - first) * layout_.limbs * n_);
        const bool direct = values_.row_stride == 1;
        for (std::size_t column = 0; column < secrets_.columns(); ++column) {
            const std::size_t from = column * layout_.width, here = std::min(layout_.width, layout_.rows - from);
            for (std::size_t k = first; k < last; ++k) {
                REAL* out = direct ? static_cast<REAL*>(values_.data) + (layout_.start + k) * values_.element_stride + from
                                   : reinterpret_cast<REAL*>(scratch.values.data()) + (k - first) * (n_ + SKEW);
                polynomial(layout_.start + k, column, here, scratch.mask.data() + (k - first) * layout_.limbs * n_, out, scratch);
            }
            if (!direct)
                scatter_reals(ring_.kernels(), values_, layout_.start + first, last - first, from, here, n_ + SKEW,
                              reinterpret_cast<const REAL*>(scratch.values.data()));
        }
    }

  private:
    void load_mask(std::size_t element, u64* out) const {
        for (std::size_t l = 0; l < layout_.limbs; ++l)
            ring_.fields()[l].visit([&](const auto& words, const auto& ntt) {
                using W = Word<decltype(ntt.q)>;
                W* a = reinterpret_cast<W*>(out + l * n_);
                read_add(words, a, reinterpret_cast<const W*>(zeros_.data()), mask_.at(element, l), n_, ntt.q, mask_.packed);
                words.forward(a, ntt);
            });
    }

    void polynomial(std::size_t element, std::size_t column, std::size_t here, const u64* mask, REAL* out,
                    Secrets::Scratch& scratch) const {
        u64* sums = scratch.sums.data();
        double* reals = scratch.reals.data();
        const Rows<const u64>& body = body_[column];
        for (std::size_t l = 0; l < layout_.limbs; ++l) {
            // What is read after the transform comes while it runs.
            const std::size_t bits = body.packed ? static_cast<std::size_t>(bit_length(ring_.fields()[l].q)) : 64;
            for (std::size_t word = 0; word < layout_.width * bits / 64; word += 8) __builtin_prefetch(body.at(element, l) + word, 0, 2);
            ring_.fields()[l].visit([&](const auto& words, const auto& ntt) {
                using W = Word<decltype(ntt.q)>;
                const W* s = static_cast<const W*>(secrets_.at(column, l));
                W* t = reinterpret_cast<W*>(scratch.product.data());
                words.inverse_product(t, reinterpret_cast<const W*>(mask + l * n_), s, s + n_, ntt);
                if (layout_.kept.index) t = kept(t, reinterpret_cast<W*>(sums), column, element);
                read_add(words, t, t, body.at(element, l), layout_.width, ntt.q, body.packed);
                if (layout_.limbs > 1) {
                    words.widen(sums + l * n_, t, here);
                } else if constexpr (sizeof(REAL) == 4) {
                    words.to_f32(out, t, here, ntt.q, factors_[element]);
                } else {
                    words.to_f64(out, t, here, ntt.q, factors_[element]);
                }
            });
        }
        if (layout_.limbs > 1) {
            recombine_(reals, sums, here, n_, factors_[element]);
            for (std::size_t c = 0; c < here; ++c) out[c] = static_cast<REAL>(reals[c]);
        }
    }

    // The coefficients that a body has, then zeros up to a whole tile.
    template <class W>
    W* kept(const W* from, W* to, std::size_t column, std::size_t element) const {
        const i32* index = layout_.kept.index + column * layout_.kept.column_stride + element * layout_.kept.element_stride;
        const std::size_t tiles = (layout_.width + TILE - 1) / TILE * TILE;
        for (std::size_t k = 0; k < layout_.width; ++k) to[k] = index[k] < 0 ? W{0} : from[index[k]];
        std::fill(to + layout_.width, to + tiles, W{0});
        return to;
    }

    const Secrets& secrets_;
    const Ring& ring_;
    const Layout& layout_;
    const std::vector<Rows<const u64>>& body_;
    const Rows<const u64>& mask_;
    const double* factors_;
    const Reals<void>& values_;
    std::size_t n_;
    Recombine recombine_;
    Buffer<u64> zeros_;
};

std::unique_ptr<Secrets::Scratch> take_scratch(const Secrets& secrets) {
    return secrets.scratch().take([&] { return std::make_unique<Secrets::Scratch>(secrets.ring().n(), secrets.ring().fields().size()); });
}

template <class REAL>
bool encrypt_reals(const Secrets& secrets, const Layout& layout, const Reals<const void>& values, double scale, double limit,
                   const u64* mask, const u8* noise, const std::vector<Rows<u64>>& body, int threads) {
    const Encryption<REAL> encryption(secrets, layout, values, scale, limit, mask, noise, body);
    std::atomic<bool> fits{true};
    parallel_ranges(layout.stop - layout.start, GROUP, threads, [&](std::size_t first, std::size_t last) {
        auto scratch = take_scratch(secrets);
        if (!encryption.group(first, last, *scratch)) fits = false;
        secrets.scratch().give(std::move(scratch));
    });
    return fits;
}

template <class REAL>
void decrypt_reals(const Secrets& secrets, const Layout& layout, const std::vector<Rows<const u64>>& body, const Rows<const u64>& mask,
                   const double* factors, const Reals<void>& values, int threads) {
    const Decryption<REAL> decryption(secrets, layout, body, mask, factors, values);
    parallel_ranges(layout.stop - layout.start, GROUP, threads, [&](std::size_t first, std::size_t last) {
        auto scratch = take_scratch(secrets);
        decryption.group(first, last, *scratch);
        secrets.scratch().give(std::move(scratch));
    });
}

}  // namespace

bool encrypt(const Secrets& secrets, const Layout& layout, const Reals<const void>& values, double scale, double limit, const u64* mask,
             const u8* noise, const std::vector<Rows<u64>>& body, int threads) {
    return values.single ? encrypt_reals<float>(secrets, layout, values, scale, limit, mask, noise, body, threads)
                         : encrypt_reals<double>(secrets, layout, values, scale, limit, mask, noise, body, threads);
}

void decrypt(const Secrets& secrets, const Layout& layout, const std::vector<Rows<const u64>>& body, const Rows<const u64>& mask,
             const double* factors, const Reals<void>& values, int threads) {
    values.single ? decrypt_reals<float>(secrets, layout, body, mask, factors, values, threads)
                  : decrypt_reals<double>(secrets, layout, body, mask, factors, values, threads);
}

}  // namespace he
