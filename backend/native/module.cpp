// The Python face of the core: numpy arrays in and out, sizes checked, the GIL released while computing.
#include <pybind11/numpy.h>
#include <pybind11/pybind11.h>
#include <pybind11/stl.h>

#include "linear.h"
#include "pack.h"
#include "product.h"
#include "ring.h"
#include "sampling.h"

namespace py = pybind11;

namespace he {
namespace {

template <class T>
using Array = py::array_t<T, py::array::c_style>;

void require(bool condition, const char* message) {
    if (!condition) throw std::invalid_argument(message);
}

template <class T>
T* writable(Array<T>& a) {
    require(a.writeable(), "an output array is read-only");
    return a.mutable_data();
}

std::size_t extent(const py::array& a, int axis) { return static_cast<std::size_t>(a.shape(axis)); }

void transform(const Ring& ring, Array<u64> a, bool forward, int threads) {
    require(a.ndim() >= 2 && extent(a, a.ndim() - 1) == ring.n(), "an array of polynomials must be [..., limbs, N]");
    const std::size_t limbs = extent(a, a.ndim() - 2);
    require(limbs >= 1 && limbs <= ring.fields().size(), "more limbs than the ring has moduli");
    u64* data = writable(a);
    const std::size_t count = static_cast<std::size_t>(a.size()) / (limbs * ring.n());
    py::gil_scoped_release release;
    forward ? ring.forward(data, count, limbs, threads) : ring.inverse(data, count, limbs, threads);
}

// Arrays [columns, count, limbs, width] in C order, or packed words: element by element, in it limb by limb, in it column by column,
// each row rounded up to words.
template <class T>
std::vector<Rows<T>> rows_of(T* data, bool packed, std::size_t columns, std::size_t count, std::size_t width, const std::vector<u64>& moduli) {
    std::vector<std::size_t> row_words;
    std::size_t element_words = 0;
    for (u64 q : moduli) {
        row_words.push_back(packed ? (width * static_cast<std::size_t>(bit_length(q)) + 63) / 64 : width);
        element_words += row_words.back();
    }
    std::vector<Rows<T>> all;
    for (std::size_t column = 0; column < columns; ++column) {
        Rows<T> rows{data, packed ? columns * element_words : element_words, {}, packed};
        std::size_t offset = packed ? 0 : column * count * element_words;
        for (std::size_t words : row_words) {
            rows.limb_offset.push_back(offset + (packed ? column * words : 0));
            offset += packed ? columns * words : words;
        }
        all.push_back(std::move(rows));
    }
    return all;
}

std::size_t words_of(bool packed, std::size_t columns, std::size_t count, std::size_t width, const std::vector<u64>& moduli) {
    std::size_t words = 0;
    for (u64 q : moduli) words += packed ? (width * static_cast<std::size_t>(bit_length(q)) + 63) / 64 : width;
    return columns * count * words;
}

// [.., limbs, N] -> how many polynomials and limbs.
std::pair<std::size_t, std::size_t> polynomials(const Ring& ring, const py::array& a) {
    require(a.ndim() >= 2 && extent(a, a.ndim() - 1) == ring.n(), "an array of polynomials must be [..., limbs, N]");
    const std::size_t limbs = extent(a, a.ndim() - 2);
    require(limbs >= 1 && limbs <= ring.fields().size(), "more limbs than the ring has moduli");
    return {static_cast<std::size_t>(a.size()) / (limbs * ring.n()), limbs};
}

void add_products_py(const Ring& ring, Array<u64> out, Array<u64> a, Array<u64> b, int threads) {
    require(out.ndim() == 3 && a.ndim() == 4 && b.ndim() == 3, "out must be [outputs, limbs, N], a [outputs, terms, limbs, N], b [terms, limbs, N]");
    const auto [outputs, limbs] = polynomials(ring, out);
    const auto [terms, limbs_b] = polynomials(ring, b);
    const auto [products, limbs_a] = polynomials(ring, a);
    require(limbs_a == limbs && limbs_b == limbs && extent(a, 0) == outputs && extent(a, 1) == terms, "out, a and b differ in their sizes");
    u64* to = writable(out);
    const u64 *left = a.data(), *right = b.data();
    py::gil_scoped_release release;
    ring.add_products(to, left, right, outputs, terms, limbs, threads);
}

void shift_py(const Ring& ring, Array<u64> out, Array<u64> a, std::size_t power, int threads) {
    const auto [count, limbs] = polynomials(ring, a);
    require(out.size() == a.size() && out.data() != a.data(), "out must be another array of the same size");
    require(power < 2 * ring.n(), "the power must be below 2N");
    u64* to = writable(out);
    const u64* from = a.data();
    py::gil_scoped_release release;
    ring.shift(to, from, count, limbs, power, threads);
}

void switch_modulus_py(const Ring& ring, Array<u64> out, Array<u64> a, u64 p, int threads) {
    const auto [count, limbs] = polynomials(ring, a);
    require(static_cast<std::size_t>(out.size()) == count * ring.n(), "out must be [..., 1, N]");
    require(p >= 2 && !(p >> 61), "a modulus has 2 to 61 bits");
    u64* to = writable(out);
    const u64* from = a.data();
    py::gil_scoped_release release;
    ring.switch_modulus(to, from, count, limbs, p, threads);
}

// float32 or float64 [count, rows], contiguous along one axis.
template <class VOID>
Reals<VOID> reals_of(const py::array& a, VOID* data) {
    require(a.ndim() == 2, "values must be [count, rows]");
    const bool single = py::isinstance<py::array_t<float>>(a);
    require(single || py::isinstance<py::array_t<double>>(a), "values must be float32 or float64");
    const py::ssize_t item = a.itemsize();
    require(a.strides(0) % item == 0 && a.strides(1) % item == 0 && a.strides(0) > 0 && a.strides(1) > 0, "values have strides of another kind");
    const Reals<VOID> reals = {data, single, static_cast<std::size_t>(a.strides(0) / item), static_cast<std::size_t>(a.strides(1) / item)};
    require(reals.element_stride == 1 || reals.row_stride == 1 || a.size() <= 1, "values must be contiguous along one axis");
    return reals;
}

// Ciphertexts are arrays [columns, count, limbs, width], or packed words of these sizes.
Layout layout_of(const Secrets& secrets, const py::array& values, std::size_t limbs, std::size_t width, std::size_t start, std::size_t stop) {
    require(values.ndim() == 2, "values must be [count, rows]");
    const Layout layout = {extent(values, 1), width, limbs, start, stop};
    const std::size_t columns = secrets.columns();
    require(limbs >= 1 && limbs <= secrets.ring().fields().size(), "more limbs than the ring has moduli");
    require(width >= 1 && width <= secrets.ring().n(), "width must be from 1 to N");
    require(layout.rows <= columns * width && layout.rows > (columns - 1) * width, "rows do not fill the columns");
    require(start <= stop && stop <= extent(values, 0), "the range of elements lies outside the arrays");
    return layout;
}

std::vector<u64> moduli_of(const Ring& ring, std::size_t limbs) {
    std::vector<u64> moduli;
    for (std::size_t l = 0; l < limbs; ++l) moduli.push_back(ring.fields()[l].q);
    return moduli;
}

bool encrypt_py(const Secrets& secrets, py::array values, double scale, double limit, Array<u64> mask, Array<u8> noise, Array<u64> body,
                bool packed, std::size_t limbs, std::size_t width, std::size_t start, std::size_t stop, int threads) {
    const Layout layout = layout_of(secrets, values, limbs, width, start, stop);
    const Reals<const void> reals = reals_of<const void>(values, values.data());
    const std::size_t count = extent(values, 0), columns = secrets.columns();
    require(mask.ndim() == 3 && extent(mask, 0) == stop - start && extent(mask, 1) == limbs && extent(mask, 2) == secrets.ring().n(),
            "mask must be [stop - start, limbs, N]");
    require(static_cast<std::size_t>(noise.size()) >= (stop - start) * columns * noise_bytes(width), "too few noise bytes");
    const std::vector<u64> moduli = moduli_of(secrets.ring(), limbs);
    require(limit > 0 && limit <= 0x1p61 && (limbs > 1 || limit < static_cast<double>(moduli[0]) / 2 - 21), "limit is outside the modulus");
    require(static_cast<std::size_t>(body.size()) == words_of(packed, columns, count, width, moduli), "the body has another size");
    const auto out = rows_of<u64>(writable(body), packed, columns, count, width, moduli);
    const u64* a = mask.data();
    const u8* e = noise.data();
    py::gil_scoped_release release;
    return encrypt(secrets, layout, reals, scale, limit, a, e, out, threads);
}

void decrypt_py(const Secrets& secrets, Array<u64> body, bool body_packed, Array<u64> mask, bool mask_packed, Array<double> factors, py::array values,
                std::size_t limbs, std::size_t width, std::size_t start, std::size_t stop, int threads) {
    const Layout layout = layout_of(secrets, values, limbs, width, start, stop);
    require(values.writeable(), "an output array is read-only");
    const Reals<void> reals = reals_of<void>(values, values.mutable_data());
    const std::size_t count = extent(values, 0), columns = secrets.columns(), n = secrets.ring().n();
    const std::vector<u64> moduli = moduli_of(secrets.ring(), limbs);
    require(static_cast<std::size_t>(body.size()) == words_of(body_packed, columns, count, width, moduli), "the body has another size");
    require(static_cast<std::size_t>(mask.size()) == words_of(mask_packed, 1, count, n, moduli), "the mask has another size");
    require(factors.ndim() == 1 && extent(factors, 0) == count, "factors must be [count]");
    const double* factor = factors.data();
    const auto in = rows_of<const u64>(body.data(), body_packed, columns, count, width, moduli);
    const auto masks = rows_of<const u64>(mask.data(), mask_packed, 1, count, n, moduli);
    py::gil_scoped_release release;
    decrypt(secrets, layout, in, masks[0], factor, reals, threads);
}

std::size_t uniform_py(Array<u64> out, std::size_t limb, Array<u8> bytes, std::size_t draws, std::size_t draw_bytes, std::size_t stride,
                       u64 q) {
    require(out.ndim() == 3 && limb < extent(out, 1), "out must be [count, limbs, N]");
    const std::size_t count = extent(out, 0), n = extent(out, 2);
    require(draw_bytes >= 1 && draw_bytes <= 8 && q > 1 && (draw_bytes == 8 || !(q >> (8 * draw_bytes))), "a draw is too short");
    require(draws >= n && draws * draw_bytes <= stride, "the stride is too short");
    require(static_cast<std::size_t>(bytes.size()) >= count * stride, "too few bytes");
    const UniformDraw draw = {n, draws, draw_bytes, stride, q};
    u64* residues = writable(out) + limb * n;
    const std::size_t step = extent(out, 1) * n;
    const u8* data = bytes.data();
    py::gil_scoped_release release;
    return uniform(residues, step, data, count, draw);
}

std::size_t ternary_py(Array<i8> out, Array<u8> bytes) {
    i8* values = writable(out);
    return ternary(values, static_cast<std::size_t>(out.size()), bytes.data(), static_cast<std::size_t>(bytes.size()));
}

// Largest |x| of contiguous reals; infinity or NaN if there is one.
double largest_py(py::array values, const std::string& level, int threads) {
    require((values.flags() & (py::array::c_style | py::array::f_style)) != 0, "values must be contiguous");
    const bool single = py::isinstance<py::array_t<float>>(values);
    require(single || py::isinstance<py::array_t<double>>(values), "values must be float32 or float64");
    const Kernels& kernels = select_kernels(level);
    const std::size_t n = static_cast<std::size_t>(values.size());
    const void* data = values.data();
    std::mutex lock;
    u64 largest = 0;
    {
        py::gil_scoped_release release;
        parallel_ranges(n, 1 << 18, threads, [&](std::size_t first, std::size_t last) {
            const u64 here = single ? kernels.largest_f32(static_cast<const u32*>(data) + first, last - first)
                                    : kernels.largest_f64(static_cast<const u64*>(data) + first, last - first);
            const std::lock_guard<std::mutex> guard(lock);
            largest = std::max(largest, here);
        });
    }
    if (single) {
        float x;
        const u32 bits = static_cast<u32>(largest);
        std::memcpy(&x, &bits, sizeof x);
        return x;
    }
    double x;
    std::memcpy(&x, &largest, sizeof x);
    return x;
}

// out = errors, from the bytes of whole blocks
void binomial_py(Array<i64> out, Array<u8> bytes, const std::string& level) {
    const Kernels& kernels = select_kernels(level);
    const std::size_t n = static_cast<std::size_t>(out.size());
    require(n % NOISE_BLOCK == 0, "errors come in blocks of 512");
    require(static_cast<std::size_t>(bytes.size()) >= n / NOISE_BLOCK * NOISE_BLOCK_BYTES, "too few bytes");
    const std::vector<double> zeros(n, 0.0);
    kernels.message_f64(writable(out), zeros.data(), n, 1.0, 1.0, bytes.data(), 0);
}

std::shared_ptr<Linear> linear_py(std::shared_ptr<Ring> ring, std::size_t limbs, std::size_t in_count, std::size_t out_count,
                                  const std::vector<std::tuple<Array<i32>, Array<i32>, Array<i32>>>& blocks, Array<i32> elements,
                                  Array<i32> shifts) {
    require(elements.size() == shifts.size(), "every source needs a shift");
    std::vector<Source> sources;
    for (py::ssize_t i = 0; i < elements.size(); ++i) sources.push_back({static_cast<u32>(elements.data()[i]), static_cast<u32>(shifts.data()[i])});
    std::vector<BlockView> views;
    for (const auto& [gather, weights, scatter] : blocks) {
        require(gather.ndim() == 3 && weights.ndim() == 3 && scatter.ndim() == 3, "gather, weights and scatter must have three axes");
        const BlockView view = {extent(gather, 0), extent(gather, 1), extent(gather, 2), extent(weights, 2),
                                gather.data(),     weights.data(),    scatter.data()};
        require(extent(weights, 0) == view.groups && extent(weights, 1) == view.terms, "weights must be [groups, terms, outs]");
        require(extent(scatter, 0) == view.groups && extent(scatter, 1) == view.places && extent(scatter, 2) == view.outs,
                "scatter must be [groups, places, outs]");
        views.push_back(view);
    }
    py::gil_scoped_release release;
    return std::make_shared<Linear>(ring, limbs, in_count, out_count, views, std::move(sources));
}

void apply_py(const Linear& linear, Array<u64> in, bool in_packed, Array<u64> out, bool out_packed, std::size_t columns, std::size_t width,
              u64 p, int threads) {
    const std::size_t n = linear.ring().n();
    require(columns >= 1 && width >= 1 && width <= n, "width must be from 1 to N");
    std::vector<u64> moduli;
    for (std::size_t l = 0; l < linear.limbs(); ++l) moduli.push_back(linear.ring().fields()[l].q);
    const std::vector<u64> answers = p ? std::vector<u64>{p} : moduli;
    require(static_cast<std::size_t>(in.size()) == words_of(in_packed, columns, linear.in_count(), width, moduli), "the input has another size");
    require(static_cast<std::size_t>(out.size()) == words_of(out_packed, columns, linear.out_count(), width, answers),
            "the output has another size");
    const auto sources = rows_of<const u64>(in.data(), in_packed, columns, linear.in_count(), width, moduli);
    const auto sinks = rows_of<u64>(writable(out), out_packed, columns, linear.out_count(), width, answers);
    std::vector<Column> all;
    for (std::size_t column = 0; column < columns; ++column) all.push_back({sources[column], sinks[column]});
    py::gil_scoped_release release;
    p ? linear.switched(all, width, p, threads) : linear.exact(all, width, threads);
}

std::shared_ptr<Product> product_py(std::shared_ptr<Ring> ring, std::size_t limbs, std::size_t in_count, std::size_t out_count, Array<i32> out,
                                    Array<i32> in, Array<i64> starts, Array<i32> index, Array<i32> weights, Array<u64> storage, int threads) {
    const std::size_t pairs = static_cast<std::size_t>(out.size()), terms = static_cast<std::size_t>(index.size());
    require(static_cast<std::size_t>(in.size()) == pairs && static_cast<std::size_t>(starts.size()) == pairs + 1, "pairs need an input and a start");
    require(static_cast<std::size_t>(weights.size()) == terms, "a weight for each index is needed");
    const i64* start = starts.data();
    require(start[0] == 0 && start[pairs] == static_cast<i64>(terms) && std::is_sorted(start, start + pairs + 1), "starts must rise to the end");
    require(static_cast<std::size_t>(storage.size()) == pairs * limbs * ring->n(), "the storage has another size");
    u64* stored = writable(storage);
    const PairsView view = {pairs, out.data(), in.data(), start, index.data(), weights.data()};
    py::gil_scoped_release release;
    return std::make_shared<Product>(ring, limbs, in_count, out_count, view, stored, threads);
}

// Products of packed coefficients [columns] of width N, or of one column of values [in_count, limbs, N], to packed words modulo p.
void products_py(const Product& product, Array<u64> in, bool transformed, Array<u64> out, std::size_t columns, std::size_t width, u64 p,
                 int threads) {
    const std::size_t n = product.ring().n(), values = product.value_words();
    require(columns >= 1 && (columns == 1 || !transformed) && width >= 1 && width <= n, "width must be from 1 to N");
    require(p >= 2 && !(p >> 31), "an answer modulus has 2 to 31 bits");
    const std::vector<u64> moduli = moduli_of(product.ring(), product.limbs()), answers = {p};
    require(static_cast<std::size_t>(in.size()) == (transformed ? values : words_of(true, columns, product.in_count(), n, moduli)),
            "the input has another size");
    require(static_cast<std::size_t>(out.size()) == words_of(true, columns, product.out_count(), width, answers), "the output has another size");
    const auto sources = rows_of<const u64>(in.data(), true, columns, product.in_count(), n, moduli);
    const auto sinks = rows_of<u64>(writable(out), true, columns, product.out_count(), width, answers);
    py::gil_scoped_release release;
    // A few columns at a time: they share the reading of the weights.
    constexpr std::size_t TOGETHER_WORDS = std::size_t{1} << 23;
    const std::size_t together = std::min(columns, std::max<std::size_t>(1, TOGETHER_WORDS / std::max<std::size_t>(1, values)));
    const Buffer<u64> scratch(together * values);
    for (std::size_t first = 0; first < columns; first += together) {
        const std::size_t last = std::min(columns, first + together);
        for (std::size_t column = first; column < last; ++column) {
            u64* to = scratch.data() + (column - first) * values;
            transformed ? product.arranged(in.data(), to, threads) : product.transformed(sources[column], to, threads);
        }
        product.switched(scratch.data(), {sinks.begin() + static_cast<std::ptrdiff_t>(first), sinks.begin() + static_cast<std::ptrdiff_t>(last)}, width,
                         p, threads);
    }
}

// rows of values [rows, n] <-> words [rows, ceil(n * bits / 64)], a little-endian bit stream each.
void pack_py(Array<u64> values, int bits, Array<u64> words, const std::string& level, int threads, bool forward) {
    require(values.ndim() == 2 && words.ndim() == 2 && extent(values, 0) == extent(words, 0), "values and words must be rows");
    require(bits >= 1 && bits <= 61, "values of 1 to 61 bits can be packed");
    const std::size_t rows = extent(values, 0), n = extent(values, 1), per_row = (n * static_cast<std::size_t>(bits) + 63) / 64;
    require(extent(words, 1) == per_row, "words must be [rows, ceil(n * bits / 64)]");
    const Kernels& kernels = select_kernels(level);
    u64* value = forward ? const_cast<u64*>(values.data()) : writable(values);
    u64* word = forward ? writable(words) : const_cast<u64*>(words.data());
    py::gil_scoped_release release;
    pack_rows(kernels, value, word, rows, n, bits, threads, forward);
}

// Packed rows [count, columns] of n values <-> those that index [columns or 1, count or 1, kept] names; -1 names none.
void pick_py(Array<u64> in, Array<u64> out, Array<i32> index, std::size_t count, std::size_t columns, std::size_t n, int bits,
             const std::string& level, int threads, bool forward) {
    require(bits >= 1 && bits <= 61 && n >= 1 && index.ndim() == 3 && extent(index, 2) >= 1, "an index of three axes is needed");
    require((extent(index, 0) == 1 || extent(index, 0) == columns) && (extent(index, 1) == 1 || extent(index, 1) == count),
            "index must be [columns or 1, count or 1, kept]");
    const std::size_t kept = extent(index, 2), whole = count * columns * ((n * static_cast<std::size_t>(bits) + 63) / 64);
    const std::size_t picked = count * columns * ((kept * static_cast<std::size_t>(bits) + 63) / 64);
    require(static_cast<std::size_t>(in.size()) == (forward ? whole : picked), "the input has another size");
    require(static_cast<std::size_t>(out.size()) == (forward ? picked : whole), "the output has another size");
    const i32* positions = index.data();
    require(std::all_of(positions, positions + index.size(), [n](i32 at) { return at >= -1 && at < static_cast<i64>(n); }),
            "a position lies outside the row");
    const Selection selection = {positions, extent(index, 0) == 1 ? 0 : extent(index, 1) * kept, extent(index, 1) == 1 ? 0 : kept, kept};
    const Kernels& kernels = select_kernels(level);
    u64* to = writable(out);
    py::gil_scoped_release release;
    pick_rows(kernels, in.data(), to, count, columns, n, selection, bits, threads, forward);
}

}  // namespace
}  // namespace he

PYBIND11_MODULE(_native, m) {
    using namespace he;
    m.doc() = "Polynomial rings, encryption and exact linear algebra on arrays of residues. Use it through he_backend.ckks.ring.";
    m.attr("NOISE_BLOCK") = NOISE_BLOCK;
    m.attr("NOISE_BLOCK_BYTES") = NOISE_BLOCK_BYTES;
    m.def("cpu_levels", &kernel_levels);
    py::class_<Ring, std::shared_ptr<Ring>> ring(m, "Ring");
    ring.def(py::init<std::size_t, const std::vector<u64>&, const std::string&>(), py::arg("degree"), py::arg("moduli"), py::arg("cpu"))
        .def_property_readonly("cpu", [](const Ring& ring) { return ring.kernels().name; })
        .def("forward", [](const Ring& r, Array<u64> a, int threads) { transform(r, a, true, threads); }, py::arg("polynomials").noconvert(),
             py::arg("threads"))
        .def("inverse", [](const Ring& r, Array<u64> a, int threads) { transform(r, a, false, threads); }, py::arg("polynomials").noconvert(),
             py::arg("threads"));
    ring.def("add_products", &add_products_py, py::arg("out").noconvert(), py::arg("a").noconvert(), py::arg("b").noconvert(), py::arg("threads"))
        .def("shift", &shift_py, py::arg("out").noconvert(), py::arg("a").noconvert(), py::arg("power"), py::arg("threads"))
        .def("switch_modulus", &switch_modulus_py, py::arg("out").noconvert(), py::arg("a").noconvert(), py::arg("modulus"), py::arg("threads"));
    py::class_<Secrets, std::shared_ptr<Secrets>>(m, "Secrets")
        .def(py::init([](std::shared_ptr<Ring> ring, Array<i8> ternary) {
                 require(ternary.ndim() == 2 && extent(ternary, 1) == ring->n() && extent(ternary, 0) >= 1,
                         "secrets must be [columns, N]");
                 return std::make_shared<Secrets>(ring, ternary.data(), extent(ternary, 0));
             }),
             py::arg("ring"), py::arg("ternary").noconvert())
        .def("under", [](const Secrets& s, std::shared_ptr<Ring> ring) { return s.under(ring); }, py::arg("ring"))
        .def("encrypt", &encrypt_py, py::arg("values").noconvert(), py::arg("scale"), py::arg("limit"), py::arg("mask").noconvert(),
             py::arg("noise").noconvert(), py::arg("body").noconvert(), py::arg("packed"), py::arg("limbs"), py::arg("width"),
             py::arg("start"), py::arg("stop"), py::arg("threads"))
        .def("decrypt", &decrypt_py, py::arg("body").noconvert(), py::arg("body_packed"), py::arg("mask").noconvert(),
             py::arg("mask_packed"), py::arg("factors").noconvert(), py::arg("values").noconvert(), py::arg("limbs"), py::arg("width"),
             py::arg("start"), py::arg("stop"), py::arg("threads"));
    py::class_<Linear, std::shared_ptr<Linear>>(m, "Linear")
        .def(py::init(&linear_py), py::arg("ring"), py::arg("limbs"), py::arg("in_count"), py::arg("out_count"), py::arg("blocks"),
             py::arg("elements"), py::arg("shifts"))
        .def_property_readonly("digit_bits", &Linear::digit_bits)
        .def_property_readonly("digits", &Linear::digits)
        .def_property_readonly("stages", &Linear::stages)
        .def("apply", &apply_py, py::arg("input").noconvert(), py::arg("input_packed"), py::arg("output").noconvert(),
             py::arg("output_packed"), py::arg("columns"), py::arg("width"), py::arg("modulus"), py::arg("threads"));
    py::class_<Product, std::shared_ptr<Product>>(m, "Product")
        .def(py::init(&product_py), py::arg("ring"), py::arg("limbs"), py::arg("in_count"), py::arg("out_count"), py::arg("out").noconvert(),
             py::arg("in").noconvert(), py::arg("starts").noconvert(), py::arg("index").noconvert(), py::arg("weights").noconvert(),
             py::arg("storage").noconvert(), py::keep_alive<1, 11>(), py::arg("threads"))
        .def("apply", &products_py, py::arg("input").noconvert(), py::arg("transformed"), py::arg("output").noconvert(), py::arg("columns"),
             py::arg("width"), py::arg("modulus"), py::arg("threads"));
    m.def(
        "pack", [](Array<u64> values, int bits, Array<u64> words, const std::string& cpu, int threads) { pack_py(values, bits, words, cpu, threads, true); },
        py::arg("values").noconvert(), py::arg("bits"), py::arg("words").noconvert(), py::arg("cpu"), py::arg("threads"));
    m.def(
        "unpack", [](Array<u64> values, int bits, Array<u64> words, const std::string& cpu, int threads) { pack_py(values, bits, words, cpu, threads, false); },
        py::arg("values").noconvert(), py::arg("bits"), py::arg("words").noconvert(), py::arg("cpu"), py::arg("threads"));
    m.def("pick", &pick_py, py::arg("input").noconvert(), py::arg("output").noconvert(), py::arg("index").noconvert(), py::arg("count"),
          py::arg("columns"), py::arg("values"), py::arg("bits"), py::arg("cpu"), py::arg("threads"), py::arg("forward"));
    m.def("largest", &largest_py, py::arg("values").noconvert(), py::arg("cpu"), py::arg("threads"));
    m.def("uniform", &uniform_py, py::arg("out").noconvert(), py::arg("limb"), py::arg("bytes").noconvert(), py::arg("draws"),
          py::arg("draw_bytes"), py::arg("stride"), py::arg("modulus"));
    m.def("ternary", &ternary_py, py::arg("out").noconvert(), py::arg("bytes").noconvert());
    m.def("binomial", &binomial_py, py::arg("out").noconvert(), py::arg("bytes").noconvert(), py::arg("cpu"));
}
