// The Python face of the core: numpy arrays in and out, sizes checked, the GIL released while computing.
#include <pybind11/numpy.h>
#include <pybind11/pybind11.h>
#include <pybind11/stl.h>

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

Layout layout_of(const Secrets& secrets, const py::array& values, const Array<u64>& body, std::size_t start, std::size_t stop) {
    require(values.ndim() == 2, "values must be [count, rows]");
    require(body.ndim() == 4, "body must be [columns, count, limbs, width]");
    const Layout layout = {extent(values, 0), extent(values, 1), extent(body, 0), extent(body, 3), extent(body, 2), start, stop};
    require(extent(body, 1) == layout.count, "values and body differ in count");
    require(layout.columns == secrets.columns(), "body and secrets differ in columns");
    require(layout.limbs >= 1 && layout.limbs <= secrets.ring().fields().size(), "more limbs than the ring has moduli");
    require(layout.width >= 1 && layout.width <= secrets.ring().n(), "width must be from 1 to N");
    require(layout.rows <= layout.columns * layout.width && layout.rows > (layout.columns - 1) * layout.width,
            "rows do not fill the columns");
    require(start <= stop && stop <= layout.count, "the range of elements lies outside the arrays");
    return layout;
}

bool encrypt_py(const Secrets& secrets, Array<double> values, double scale, double limit, Array<u64> mask, Array<u8> noise,
                Array<u64> body, std::size_t start, std::size_t stop, int threads) {
    const Layout layout = layout_of(secrets, values, body, start, stop);
    require(mask.ndim() == 3 && extent(mask, 0) == stop - start && extent(mask, 1) == layout.limbs &&
                extent(mask, 2) == secrets.ring().n(),
            "mask must be [stop - start, limbs, N]");
    require(static_cast<std::size_t>(noise.size()) >= (stop - start) * layout.columns * noise_bytes(layout.width),
            "too few noise bytes");
    require(limit > 0 && limit <= 0x1p61, "limit must be from 1 to 2^61");
    const double* x = values.data();
    const u64* a = mask.data();
    const u8* e = noise.data();
    u64* out = writable(body);
    py::gil_scoped_release release;
    return encrypt(secrets, layout, x, scale, limit, a, e, out, threads);
}

void decrypt_py(const Secrets& secrets, Array<u64> body, Array<u64> mask, double factor, Array<double> values, std::size_t start,
                std::size_t stop, int threads) {
    const Layout layout = layout_of(secrets, values, body, start, stop);
    require(mask.ndim() == 3 && extent(mask, 0) == layout.count && extent(mask, 1) == layout.limbs &&
                extent(mask, 2) == secrets.ring().n(),
            "mask must be [count, limbs, N]");
    const u64* b = body.data();
    const u64* a = mask.data();
    double* out = writable(values);
    py::gil_scoped_release release;
    decrypt(secrets, layout, b, a, factor, out, threads);
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

void binomial_py(Array<i64> out, Array<u8> bytes, const std::string& level) {
    const Kernels& kernels = select_kernels(level);
    const std::size_t n = static_cast<std::size_t>(out.size());
    require(n % NOISE_BLOCK == 0, "errors come in blocks of 512");
    require(static_cast<std::size_t>(bytes.size()) >= n / NOISE_BLOCK * NOISE_BLOCK_BYTES, "too few bytes");
    kernels.add_binomial(writable(out), bytes.data(), n);
}

}  // namespace
}  // namespace he

PYBIND11_MODULE(_native, m) {
    using namespace he;
    m.doc() = "Polynomial rings, encryption and exact linear algebra on arrays of residues. Use it through he_backend.ckks.ring.";
    m.attr("NOISE_BLOCK") = NOISE_BLOCK;
    m.attr("NOISE_BLOCK_BYTES") = NOISE_BLOCK_BYTES;
    m.def("cpu_levels", &kernel_levels);
    py::class_<Ring, std::shared_ptr<Ring>>(m, "Ring")
        .def(py::init<std::size_t, const std::vector<u64>&, const std::string&>(), py::arg("degree"), py::arg("moduli"), py::arg("cpu"))
        .def_property_readonly("cpu", [](const Ring& ring) { return ring.kernels().name; })
        .def("forward", [](const Ring& r, Array<u64> a, int threads) { transform(r, a, true, threads); }, py::arg("polynomials").noconvert(),
             py::arg("threads"))
        .def("inverse", [](const Ring& r, Array<u64> a, int threads) { transform(r, a, false, threads); }, py::arg("polynomials").noconvert(),
             py::arg("threads"));
    py::class_<Secrets, std::shared_ptr<Secrets>>(m, "Secrets")
        .def(py::init([](std::shared_ptr<Ring> ring, Array<i8> ternary) {
                 require(ternary.ndim() == 2 && extent(ternary, 1) == ring->n() && extent(ternary, 0) >= 1,
                         "secrets must be [columns, N]");
                 return std::make_shared<Secrets>(ring, ternary.data(), extent(ternary, 0));
             }),
             py::arg("ring"), py::arg("ternary").noconvert())
        .def("encrypt", &encrypt_py, py::arg("values").noconvert(), py::arg("scale"), py::arg("limit"), py::arg("mask").noconvert(),
             py::arg("noise").noconvert(), py::arg("body").noconvert(), py::arg("start"), py::arg("stop"), py::arg("threads"))
        .def("decrypt", &decrypt_py, py::arg("body").noconvert(), py::arg("mask").noconvert(), py::arg("factor"),
             py::arg("values").noconvert(), py::arg("start"), py::arg("stop"), py::arg("threads"));
    m.def("uniform", &uniform_py, py::arg("out").noconvert(), py::arg("limb"), py::arg("bytes").noconvert(), py::arg("draws"),
          py::arg("draw_bytes"), py::arg("stride"), py::arg("modulus"));
    m.def("ternary", &ternary_py, py::arg("out").noconvert(), py::arg("bytes").noconvert());
    m.def("add_binomial", &binomial_py, py::arg("out").noconvert(), py::arg("bytes").noconvert(), py::arg("cpu"));
}
