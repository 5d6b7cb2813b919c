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

}  // namespace

Secrets::Secrets(std::shared_ptr<const Ring> ring, const i8* ternary, std::size_t columns) : ring_(std::move(ring)), columns_(columns) {
    const std::size_t n = ring_->n();
    for (std::size_t i = 0; i < columns * n; ++i)
        if (ternary[i] < -1 || ternary[i] > 1) throw std::invalid_argument("a ternary secret has a coefficient outside -1, 0, 1");
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
    for (auto& memory : memory_) wipe(memory.data(), memory.size());
}

bool encrypt(const Secrets& secrets, const Layout& layout, const double* values, double scale, double limit, const u64* mask,
             const u8* noise, u64* body, int threads) {
    const Ring& ring = secrets.ring();
    const Kernels& kernels = ring.kernels();
    const std::size_t n = ring.n(), width = layout.width, per_column = noise_bytes(width);
    const std::size_t padded = (width + NOISE_BLOCK - 1) / NOISE_BLOCK * NOISE_BLOCK;
    std::atomic<bool> fits{true};
    parallel_ranges(layout.stop - layout.start, 1, threads, [&](std::size_t first, std::size_t last) {
        const Buffer<i64> message(padded), reduced(padded);
        const Buffer<u64> mask_words(layout.limbs * n), product(n);
        for (std::size_t k = first; k < last; ++k) {
            const std::size_t element = layout.start + k;
            for (std::size_t l = 0; l < layout.limbs; ++l) {
                ring.fields()[l].visit([&](const auto& words, const auto& ntt) {
                    using W = Word<decltype(ntt.q)>;
                    words.narrow(reinterpret_cast<W*>(mask_words.data() + l * n), mask + (k * layout.limbs + l) * n, n);
                });
            }
            for (std::size_t column = 0; column < layout.columns; ++column) {
                const std::size_t from = column * width, here = std::min(width, layout.rows - from);
                if (!kernels.round_scaled(message.data(), values + element * layout.rows + from, here, scale, limit)) fits = false;
                std::fill(message.data() + here, message.data() + padded, 0);
                kernels.add_binomial(message.data(), noise + (k * layout.columns + column) * per_column, padded);
                for (std::size_t l = 0; l < layout.limbs; ++l) {
                    const Field& field = ring.fields()[l];
                    const i64* v = message.data();
                    if (limit + 21 >= static_cast<double>(field.q)) {
                        kernels.reduce_signed(reduced.data(), v, width, field.q, field.one_p64, field.offset);
                        v = reduced.data();
                    }
                    u64* out = body + ((column * layout.count + element) * layout.limbs + l) * width;
                    field.visit([&](const auto& words, const auto& ntt) {
                        using W = Word<decltype(ntt.q)>;
                        const W* s = static_cast<const W*>(secrets.at(column, l));
                        W* t = reinterpret_cast<W*>(product.data());
                        words.multiply(t, reinterpret_cast<const W*>(mask_words.data() + l * n), s, s + n, ntt);
                        words.inverse(t, ntt, words.product_bound, false);
                        words.subtract_from(out, v, t, width, ntt.q);
                    });
                }
            }
        }
        wipe(message.data(), message.size() * sizeof(i64));
        wipe(product.data(), product.size() * sizeof(u64));
    });
    return fits;
}

void decrypt(const Secrets& secrets, const Layout& layout, const u64* body, const u64* mask, double factor, double* values,
             int threads) {
    const Ring& ring = secrets.ring();
    const std::size_t n = ring.n(), width = layout.width;
    const Recombine recombine(ring.fields(), layout.limbs);
    parallel_ranges(layout.stop - layout.start, 1, threads, [&](std::size_t first, std::size_t last) {
        const Buffer<u64> mask_words(layout.limbs * n), product(n), sums(layout.limbs > 1 ? layout.limbs * width : 0);
        for (std::size_t k = first; k < last; ++k) {
            const std::size_t element = layout.start + k;
            for (std::size_t l = 0; l < layout.limbs; ++l) {
                ring.fields()[l].visit([&](const auto& words, const auto& ntt) {
                    using W = Word<decltype(ntt.q)>;
                    W* a = reinterpret_cast<W*>(mask_words.data() + l * n);
                    words.narrow(a, mask + (element * layout.limbs + l) * n, n);
                    words.forward(a, ntt);
                });
            }
            for (std::size_t column = 0; column < layout.columns; ++column) {
                const std::size_t from = column * width, here = std::min(width, layout.rows - from);
                double* out = values + element * layout.rows + from;
                for (std::size_t l = 0; l < layout.limbs; ++l) {
                    const u64* part = body + ((column * layout.count + element) * layout.limbs + l) * width;
                    ring.fields()[l].visit([&](const auto& words, const auto& ntt) {
                        using W = Word<decltype(ntt.q)>;
                        const W* s = static_cast<const W*>(secrets.at(column, l));
                        W* t = reinterpret_cast<W*>(product.data());
                        words.multiply(t, reinterpret_cast<const W*>(mask_words.data() + l * n), s, s + n, ntt);
                        words.inverse(t, ntt, words.product_bound, false);
                        if (layout.limbs == 1) {
                            words.to_real(out, t, part, here, ntt.q, factor);
                        } else {
                            u64* sum = sums.data() + l * width;
                            for (std::size_t c = 0; c < here; ++c) {
                                const u64 x = part[c] + t[c];
                                sum[c] = x >= ntt.q ? x - ntt.q : x;
                            }
                        }
                    });
                }
                if (layout.limbs > 1) recombine(out, sums.data(), here, width, factor);
            }
        }
    });
}

}  // namespace he
