#include "sampling.h"

#include <cstring>

namespace he {

namespace {

// Reads 8 bytes where they exist and the rest of a row byte by byte, so that no read leaves the buffer.
inline u64 read_draw(const u8* at, const u8* end, std::size_t bytes) {
    u64 value = 0;
    std::memcpy(&value, at, end - at >= 8 ? 8 : bytes);
    return value;
}

}  // namespace

std::size_t uniform(u64* out, std::size_t out_stride, const u8* bytes, std::size_t count, const UniformDraw& draw) {
    int bits = 0;
    while (bits < 64 && draw.q >> bits) ++bits;
    const u64 cut = bits == 64 ? ~u64{0} : (u64{1} << bits) - 1;
    const u8* end = bytes + count * draw.stride;
    for (std::size_t k = 0; k < count; ++k) {
        const u8* row = bytes + k * draw.stride;
        u64* residues = out + k * out_stride;
        u64 excess = 0;
        const std::size_t unchecked = end - row >= static_cast<std::ptrdiff_t>(draw.n * draw.draw_bytes + 8) ? draw.n : 0;
        for (std::size_t c = 0; c < unchecked; ++c) {
            u64 value;
            std::memcpy(&value, row + c * draw.draw_bytes, 8);
            value &= cut;
            residues[c] = value;
            excess |= draw.q - 1 - value;  // the top bit is set where value >= q
        }
        for (std::size_t c = unchecked; c < draw.n; ++c) {
            const u64 value = read_draw(row + c * draw.draw_bytes, end, draw.draw_bytes) & cut;
            residues[c] = value;
            excess |= draw.q - 1 - value;
        }
        if (!(excess >> 63)) continue;
        std::size_t next = draw.n;
        for (std::size_t c = 0; c < draw.n; ++c) {
            while (residues[c] >= draw.q) {
                if (next == draw.draws) return k;
                residues[c] = read_draw(row + next * draw.draw_bytes, end, draw.draw_bytes) & cut;
                ++next;
            }
        }
    }
    return count;
}

std::size_t ternary(i8* out, std::size_t n, const u8* bytes, std::size_t size) {
    std::size_t filled = 0;
    for (std::size_t k = 0; k < size && filled < n; ++k)
        if (bytes[k] != 255) out[filled++] = static_cast<i8>(bytes[k] % 3) - 1;
    return filled;
}

}  // namespace he
