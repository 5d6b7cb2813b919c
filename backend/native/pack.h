// Rows of residues <-> bit streams.
#pragma once

#include <algorithm>
#include <cstring>

#include "kernels.h"
#include "parallel.h"
#include "ring.h"

namespace he {

// values [rows, n] below 2^bits -> words [rows, ceil(n * bits / 64)] if forward, else back; 1 <= bits <= 61.
inline void pack_rows(const Kernels& kernels, u64* values, u64* words, std::size_t rows, std::size_t n, int bits, int threads, bool forward) {
    const std::size_t width = static_cast<std::size_t>(bits), per_row = (n * width + 63) / 64;
    parallel_ranges(rows, 16, threads, [&](std::size_t first, std::size_t last) {
        for (std::size_t row = first; row < last; ++row) {
            u64* value = values + row * n;
            u64* word = words + row * per_row;
            std::size_t c = 0;
            for (; c + TILE <= n; c += TILE, value += TILE, word += width) forward ? kernels.pack(word, value, bits) : kernels.unpack(value, word, bits);
            if (c == n) continue;
            u64 last_values[TILE] = {}, last_words[TILE] = {};
            const std::size_t rest = n - c, rest_words = (rest * width + 63) / 64;
            if (forward) {
                std::memcpy(last_values, value, rest * sizeof(u64));
                kernels.pack(last_words, last_values, bits);
                std::memcpy(word, last_words, rest_words * sizeof(u64));
            } else {
                std::memcpy(last_words, word, rest_words * sizeof(u64));
                kernels.unpack(last_values, last_words, bits);
                std::memcpy(value, last_values, rest * sizeof(u64));
            }
        }
    });
}

// Which of a row's values are kept: index [columns or 1, count or 1, kept] of positions, -1 for none.
struct Selection {
    const std::int32_t* index;
    std::size_t column_stride, element_stride, kept;
};

// Bit streams of whole rows [count, columns] of n values -> of the kept ones (forward), or back, with zeros elsewhere.
inline void pick_rows(const Kernels& kernels, const u64* in, u64* out, std::size_t count, std::size_t columns, std::size_t n,
                      const Selection& selection, int bits, int threads, bool forward) {
    const std::size_t from = forward ? n : selection.kept, to = forward ? selection.kept : n, width = static_cast<std::size_t>(bits);
    const std::size_t from_words = (from * width + 63) / 64, to_words = (to * width + 63) / 64;
    parallel_ranges(count * columns, 16, threads, [&](std::size_t first, std::size_t last) {
        const Buffer<u64> source(from), target(to);
        for (std::size_t row = first; row < last; ++row) {
            const std::int32_t* index = selection.index + row % columns * selection.column_stride + row / columns * selection.element_stride;
            u64 *const x = source.data(), *const y = target.data();
            pack_rows(kernels, x, const_cast<u64*>(in + row * from_words), 1, from, bits, 1, false);
            if (forward) {
                for (std::size_t k = 0; k < to; ++k) y[k] = index[k] < 0 ? 0 : x[index[k]];
            } else {
                std::memset(y, 0, to * sizeof(u64));
                for (std::size_t k = 0; k < from; ++k)
                    if (index[k] >= 0) y[index[k]] = x[k];
            }
            pack_rows(kernels, y, out + row * to_words, 1, to, bits, 1, true);
        }
    });
}

}  // namespace he
