// Rings Z_q[X]/(X^N + 1) for a list of primes: tables, transforms, and what is done with whole arrays of polynomials.
#pragma once

#include <cstdlib>
#include <cstring>
#include <memory>
#include <new>
#include <string>
#include <vector>

#include "kernels.h"
#include "parallel.h"

namespace he {

// Uninitialised memory aligned to a cache line.
template <class T>
class Buffer {
  public:
    Buffer() = default;
    explicit Buffer(std::size_t size) : size_(size) {
        const std::size_t bytes = (size * sizeof(T) + 63) / 64 * 64;
        data_ = static_cast<T*>(::operator new(bytes ? bytes : 64, std::align_val_t(64)));
    }
    Buffer(Buffer&& other) noexcept : data_(other.data_), size_(other.size_) { other.data_ = nullptr, other.size_ = 0; }
    Buffer& operator=(Buffer&& other) noexcept {
        std::swap(data_, other.data_);
        std::swap(size_, other.size_);
        return *this;
    }
    ~Buffer() {
        if (data_) ::operator delete(data_, std::align_val_t(64));
    }
    T* data() const { return data_; }
    std::size_t size() const { return size_; }
    T& operator[](std::size_t i) const { return data_[i]; }

  private:
    T* data_ = nullptr;
    std::size_t size_ = 0;
};

// The tables behind an NttView.
template <class W>
struct NttTables {
    NttTables(std::size_t n, u64 q, const WordKernels<W>& words);
    NttView<W> view;

  private:
    Buffer<W> memory_;
};

enum class Width { word32, word64 };

// One prime with the words and kernels that suit it.
struct Field {
    Field(std::size_t n, u64 q, const Kernels& kernels);
    u64 q;
    u64 one_p64;   // floor(2^64 / q)
    u64 offset;    // the multiple of q at or above 2^62
    Width width;
    std::unique_ptr<NttTables<u32>> ntt32;
    std::unique_ptr<NttTables<u64>> ntt64;
    const WordKernels<u32>* words32 = nullptr;
    const WordKernels<u64>* words64 = nullptr;

    // visit(kernels, view) for the words of this field.
    template <class F>
    void visit(F&& f) const {
        if (width == Width::word32)
            f(*words32, ntt32->view);
        else
            f(*words64, ntt64->view);
    }
};

// "auto" or a level's name -> its kernels; throws std::invalid_argument when this CPU or build lacks them.
const Kernels& select_kernels(const std::string& level);
// Levels that run here, slowest first.
std::vector<std::string> kernel_levels();

class Ring {
  public:
    Ring(std::size_t n, const std::vector<u64>& moduli, const std::string& level);
    std::size_t n() const { return n_; }
    const std::vector<Field>& fields() const { return fields_; }
    const Kernels& kernels() const { return kernels_; }

    // polynomials [count, limbs, n] in place; limb l modulo fields()[l].
    void forward(u64* a, std::size_t count, std::size_t limbs, int threads) const;
    void inverse(u64* a, std::size_t count, std::size_t limbs, int threads) const;

    // out[m] += sum over k of a[m, k] * b[k] for polynomials in NTT form: out [outputs, limbs, n], a [outputs, terms, limbs, n],
    // What sums of products modulo a prime need.
    ProductSum product_sum(std::size_t limb) const;
    // b [terms, limbs, n], all reduced.
    void add_products(u64* out, const u64* a, const u64* b, std::size_t outputs, std::size_t terms, std::size_t limbs, int threads) const;
    // out = a * X^power for coefficients [count, limbs, n]; power from 0 to 2n - 1, out apart from a.
    void shift(u64* out, const u64* a, std::size_t count, std::size_t limbs, std::size_t power, int threads) const;
    // Coefficients [count, limbs, n] modulo the product Q of the first primes -> round(p / Q * a) mod p, [count, n], for any p < 2^61.
    void switch_modulus(u64* out, const u64* a, std::size_t count, std::size_t limbs, u64 p, int threads) const;

  private:
    std::size_t n_;
    const Kernels& kernels_;
    std::vector<Field> fields_;
};

// The polynomials [count, limbs] of one column in memory. Rows are plain words, or bit streams of the bits of their modulus.
template <class T>
struct Rows {
    T* data;
    std::size_t element_stride;            // words from one element to the next
    std::vector<std::size_t> limb_offset;  // words from an element to its limbs
    bool packed;

    T* at(std::size_t element, std::size_t limb) const { return data + element * element_stride + limb_offset[limb]; }
};

inline int bit_length(u64 x) {
    int bits = 0;
    while (bits < 64 && x >> bits) ++bits;
    return bits;
}

// Ternary secrets of `columns` columns, transformed under every prime and divided by n. Wiped when destroyed.
class Secrets {
  public:
    // ternary [columns, n] in {-1, 0, 1}
    Secrets(std::shared_ptr<const Ring> ring, const i8* ternary, std::size_t columns);
    ~Secrets();
    Secrets(const Secrets&) = delete;
    Secrets& operator=(const Secrets&) = delete;
    // The same secrets under other primes.
    std::shared_ptr<Secrets> under(std::shared_ptr<const Ring> ring) const;
    const Ring& ring() const { return *ring_; }
    std::size_t columns() const { return columns_; }
    // Values and companions [2, n] of a column under a prime, in the prime's words.
    const void* at(std::size_t column, std::size_t limb) const { return memory_[limb].data() + column * stride_[limb]; }

    struct Scratch;  // memory of one thread that encrypts or decrypts
    Pool<Scratch>& scratch() const { return scratch_; }

  private:
    std::shared_ptr<const Ring> ring_;
    std::size_t columns_;
    mutable Pool<Scratch> scratch_;
    Buffer<i8> ternary_;
    std::vector<Buffer<u8>> memory_;
    std::vector<std::size_t> stride_;
};

// Which of a row's values are kept: index [columns or 1, count or 1, kept] of positions, -1 for none.
struct Selection {
    const i32* index;
    std::size_t column_stride, element_stride, kept;
};

// Column j holds rows [j * width, (j + 1) * width) of each element, short ones padded with zeros.
struct Layout {
    std::size_t rows, width, limbs;
    std::size_t start, stop;  // elements to work on
    Selection kept = {};      // of a body that lacks coefficients, where those of its row lie
};

// A matrix of float32 or float64 [count, rows] with one stride of 1.
template <class VOID>
struct Reals {
    VOID* data;
    bool single;
    std::size_t element_stride, row_stride;  // items
};

inline std::size_t noise_bytes(std::size_t width) { return (width + NOISE_BLOCK - 1) / NOISE_BLOCK * NOISE_BLOCK_BYTES; }

// body[j, i] = round(scale * values) + error - mask[i] * secret_j, coefficients, for i in [start, stop); one body for each column.
// mask [stop - start, limbs, n] in NTT form, noise [stop - start, columns, noise_bytes(width)]. False if a scaled value is beyond limit.
bool encrypt(const Secrets& secrets, const Layout& layout, const Reals<const void>& values, double scale, double limit, const u64* mask,
             const u8* noise, const std::vector<Rows<u64>>& body, int threads);

// values[i] = centered(body[j, i] + mask[i] * secret_j) * factors[i] for i in [start, stop); body and mask are coefficients.
void decrypt(const Secrets& secrets, const Layout& layout, const std::vector<Rows<const u64>>& body, const Rows<const u64>& mask,
             const double* factors, const Reals<void>& values, int threads);

}  // namespace he
