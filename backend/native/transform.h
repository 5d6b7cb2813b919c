// The negacyclic transform over a policy P: a vector type of one instruction set and its arithmetic modulo q.
// Included inside an anonymous namespace by each kernels_*.cpp.
//
// P::W word, P::V vector of P::L words, P::Factor a factor with its companion; P::R: products are below R * q.
// Forward: Cooley-Tukey; inverse: Gentleman-Sande (Harvey, J. Symb. Comp. 60, 2014, section 3, generalised: the bound of the values, in
// multiples of q, is tracked from layer to layer, and a conditional subtraction is made only where the next sum would not fit).

// Whether P reduces any word to below 2q by P::fold.
template <class P, class = void>
struct Folds {
    static constexpr bool value = false;
};
template <class P>
struct Folds<P, std::enable_if_t<P::FOLDS>> {
    static constexpr bool value = true;
};

template <class P>
struct Transform {
    using W = typename P::W;
    using V = typename P::V;
    using Factor = typename P::Factor;
    static constexpr std::size_t L = P::L;

    static inline V reduce_below(V x, V c) { return P::min(x, P::sub(x, c)); }  // [0, 2c) -> [0, c)

    // How a layer keeps sums in range: subtract `half` conditionally first (0: nothing to do).
    struct Step {
        bool reduce;
        V half;
        V lift;  // multiple of q that makes differences positive
    };

    static W power_above(W bound) {
        W p = 1;
        while (p < bound) p *= 2;
        return p;
    }

    static Step forward_step(W& bound, const NttView<W>& ntt, bool force = false) {
        Step step;
        step.reduce = force || bound + P::R > ntt.limit;
        step.half = P::set1(0);
        if (step.reduce) {
            const W half = bound > 1 ? power_above(bound) / 2 : 1;
            step.half = P::set1(static_cast<W>(half * ntt.q));
            bound = half;
        }
        step.lift = P::set1(static_cast<W>(P::R * ntt.q));
        bound += P::R;
        return step;
    }

    // Keeps 2 * bound <= limit, so that the sum and the difference of two values fit.
    static Step inverse_step(W& bound, const NttView<W>& ntt, bool force = false) {
        Step step;
        step.lift = step.half = P::set1(static_cast<W>(bound * ntt.q));
        step.reduce = force || (4 * bound > ntt.limit && bound >= P::R);
        if (!step.reduce) bound *= 2;
        if (bound < P::R) bound = P::R;
        return step;
    }

    template <bool REDUCE>
    static inline void forward_butterfly(const P& p, V& x, V& y, const Factor& w, const Step& s) {
        const V t = p.multiply(y, w);
        const V u = REDUCE ? reduce_below(x, s.half) : x;
        x = P::add(u, t);
        y = P::add(u, P::sub(s.lift, t));
    }

    template <bool REDUCE>
    static inline void inverse_butterfly(const P& p, V& x, V& y, const Factor& w, const Step& s) {
        const V sum = P::add(x, y);
        const V difference = P::add(x, P::sub(s.lift, y));
        x = REDUCE ? reduce_below(sum, s.half) : sum;
        y = p.multiply(difference, w);
    }

    static inline Factor factor_at(const W* w, const W* w_p, std::size_t i) { return P::broadcast(w[i], w_p[i]); }

    // Lazy values below bound * q -> reduced.
    struct Finish {
        bool barrett, by_4, by_2;
        Factor one;
        V q4, q2, q1;
        Finish(W bound, const NttView<W>& ntt) : barrett(bound > (Folds<P>::value ? 2 : 8)), one(P::broadcast(1, ntt.one_p)) {
            if (barrett) bound = P::R;
            by_4 = bound > 4;
            by_2 = bound > 2;
            q4 = P::set1(by_4 ? static_cast<W>(4 * ntt.q) : 0);
            q2 = P::set1(by_2 ? static_cast<W>(2 * ntt.q) : 0);
            q1 = P::set1(ntt.q);
        }
        inline V operator()(const P& p, V x) const {
            if (barrett) {
                if constexpr (Folds<P>::value)
                    x = p.fold(x);
                else
                    x = p.multiply(x, one);
            }
            if (by_4) x = reduce_below(x, q4);
            if (by_2) x = reduce_below(x, q2);
            return reduce_below(x, q1);
        }
    };

    template <bool R1>
    static void forward_layer(const P& p, W* a, const NttView<W>& ntt, std::size_t m, const Step& s) {
        const std::size_t t = ntt.n / (2 * m);
        for (std::size_t i = 0; i < m; ++i) {
            const Factor w = factor_at(ntt.forward, ntt.forward_p, m + i);
            W* lo = a + 2 * i * t;
            for (std::size_t j = 0; j < t; j += L) {
                V x = P::load(lo + j), y = P::load(lo + t + j);
                forward_butterfly<R1>(p, x, y, w, s);
                P::store(lo + j, x);
                P::store(lo + t + j, y);
            }
        }
    }

    // Two layers in one pass over the values.
    template <bool R1, bool R2>
    static void forward_pair(const P& p, W* a, const NttView<W>& ntt, std::size_t m, const Step& s1, const Step& s2) {
        const std::size_t t = ntt.n / (4 * m);
        for (std::size_t i = 0; i < m; ++i) {
            const Factor w1 = factor_at(ntt.forward, ntt.forward_p, m + i);
            const Factor w2 = factor_at(ntt.forward, ntt.forward_p, 2 * m + 2 * i);
            const Factor w3 = factor_at(ntt.forward, ntt.forward_p, 2 * m + 2 * i + 1);
            W* lo = a + 4 * i * t;
            for (std::size_t j = 0; j < t; j += L) {
                V x0 = P::load(lo + j), x1 = P::load(lo + t + j), x2 = P::load(lo + 2 * t + j), x3 = P::load(lo + 3 * t + j);
                forward_butterfly<R1>(p, x0, x2, w1, s1);
                forward_butterfly<R1>(p, x1, x3, w1, s1);
                forward_butterfly<R2>(p, x0, x1, w2, s2);
                forward_butterfly<R2>(p, x2, x3, w3, s2);
                P::store(lo + j, x0);
                P::store(lo + t + j, x1);
                P::store(lo + 2 * t + j, x2);
                P::store(lo + 3 * t + j, x3);
            }
        }
    }

    template <bool R1>
    static void inverse_layer(const P& p, W* a, const NttView<W>& ntt, std::size_t h, const Step& s) {
        const std::size_t t = ntt.n / (2 * h);
        for (std::size_t i = 0; i < h; ++i) {
            const Factor w = factor_at(ntt.inverse, ntt.inverse_p, h + i);
            W* lo = a + 2 * i * t;
            for (std::size_t j = 0; j < t; j += L) {
                V x = P::load(lo + j), y = P::load(lo + t + j);
                inverse_butterfly<R1>(p, x, y, w, s);
                P::store(lo + j, x);
                P::store(lo + t + j, y);
            }
        }
    }

    // Layers 2h and h in one pass.
    template <bool R1, bool R2>
    static void inverse_pair(const P& p, W* a, const NttView<W>& ntt, std::size_t h, const Step& s1, const Step& s2) {
        const std::size_t t = ntt.n / (4 * h);
        for (std::size_t i = 0; i < h; ++i) {
            const Factor w1 = factor_at(ntt.inverse, ntt.inverse_p, 2 * h + 2 * i);
            const Factor w2 = factor_at(ntt.inverse, ntt.inverse_p, 2 * h + 2 * i + 1);
            const Factor w3 = factor_at(ntt.inverse, ntt.inverse_p, h + i);
            W* lo = a + 4 * i * t;
            for (std::size_t j = 0; j < t; j += L) {
                V x0 = P::load(lo + j), x1 = P::load(lo + t + j), x2 = P::load(lo + 2 * t + j), x3 = P::load(lo + 3 * t + j);
                inverse_butterfly<R1>(p, x0, x1, w1, s1);
                inverse_butterfly<R1>(p, x2, x3, w2, s1);
                inverse_butterfly<R2>(p, x0, x2, w3, s2);
                inverse_butterfly<R2>(p, x1, x3, w3, s2);
                P::store(lo + j, x0);
                P::store(lo + t + j, x1);
                P::store(lo + 2 * t + j, x2);
                P::store(lo + 3 * t + j, x3);
            }
        }
    }

    static constexpr int tail_layers() {
        int k = 0;
        while ((std::size_t{1} << k) < L) ++k;
        return k;
    }
    static constexpr int K = tail_layers();

    // Layer k of the tail on transposed values: pairs at distance L / 2^(k+1), 2^k factors.
    template <bool REDUCE, bool FORWARD, int k>
    static inline const W* tail_layer(const P& p, V* v, const W* table, const Step& s) {
        constexpr std::size_t t = L >> (k + 1), groups = std::size_t{1} << k;
#pragma GCC unroll 16
        for (std::size_t g = 0; g < groups; ++g) {
            const Factor w = P::load_factor(table + 2 * L * g);
#pragma GCC unroll 16
            for (std::size_t c = 0; c < t; ++c) {
                if (FORWARD)
                    forward_butterfly<REDUCE>(p, v[2 * g * t + c], v[2 * g * t + t + c], w, s);
                else
                    inverse_butterfly<REDUCE>(p, v[2 * g * t + c], v[2 * g * t + t + c], w, s);
            }
        }
        return table + 2 * L * groups;
    }

    template <bool REDUCE>
    static void forward_tail(const P& p, W* a, const NttView<W>& ntt, W bound) {
        Step steps[K + 1];
        for (int k = 0; k < K; ++k) steps[k] = forward_step(bound, ntt, REDUCE);
        const Finish finish(bound, ntt);
        const W* table = ntt.forward_tail;
        V v[L];
        for (std::size_t block = 0; block < ntt.n; block += L * L) {
#pragma GCC unroll 16
            for (std::size_t r = 0; r < L; ++r) v[r] = P::load(a + block + r * L);
            P::transpose(v);
            table = tail_layer<REDUCE, true, 0>(p, v, table, steps[0]);
            if constexpr (K > 1) table = tail_layer<REDUCE, true, 1>(p, v, table, steps[1]);
            if constexpr (K > 2) table = tail_layer<REDUCE, true, 2>(p, v, table, steps[2]);
            if constexpr (K > 3) table = tail_layer<REDUCE, true, 3>(p, v, table, steps[3]);
#pragma GCC unroll 16
            for (std::size_t r = 0; r < L; ++r) v[r] = finish(p, v[r]);
            P::transpose(v);
#pragma GCC unroll 16
            for (std::size_t r = 0; r < L; ++r) P::store(a + block + r * L, v[r]);
        }
    }

    // Where the inverse starts from: values, or products of values and factors.
    struct Values {
        const W* a;
        V operator()(const P&, std::size_t i) const { return P::load(a + i); }
    };
    struct Products {
        const W *a, *b, *b_p;
        V operator()(const P& p, std::size_t i) const { return p.multiply(P::load(a + i), P::pair_factor(b + i, b_p + i)); }
    };

    template <bool REDUCE, class Start>
    static void inverse_tail(const P& p, W* a, const Start& start, const NttView<W>& ntt, W& bound) {
        Step steps[K + 1];
        for (int k = K - 1; k >= 0; --k) steps[k] = inverse_step(bound, ntt, REDUCE);
        const W* table = ntt.inverse_tail;
        V v[L];
        for (std::size_t block = 0; block < ntt.n; block += L * L) {
#pragma GCC unroll 16
            for (std::size_t r = 0; r < L; ++r) v[r] = start(p, block + r * L);
            P::transpose(v);
            if constexpr (K > 3) table = tail_layer<REDUCE, false, 3>(p, v, table, steps[3]);
            if constexpr (K > 2) table = tail_layer<REDUCE, false, 2>(p, v, table, steps[2]);
            if constexpr (K > 1) table = tail_layer<REDUCE, false, 1>(p, v, table, steps[1]);
            table = tail_layer<REDUCE, false, 0>(p, v, table, steps[0]);
            P::transpose(v);
#pragma GCC unroll 16
            for (std::size_t r = 0; r < L; ++r) P::store(a + block + r * L, v[r]);
        }
    }

    static bool tail_reduces(W bound, const NttView<W>& ntt, bool forward) {
        bool any = false;
        for (int k = 0; k < K; ++k) any = (forward ? forward_step(bound, ntt) : inverse_step(bound, ntt)).reduce || any;
        return any;
    }

    static void forward(W* a, const NttView<W>& ntt) {
        const P p(ntt.q);
        W bound = 1;
        std::size_t m = 1;
        const std::size_t end = ntt.n / L;  // layers with at least L neighbours under one factor
        int layers = 0;
        while ((std::size_t{1} << layers) < end) ++layers;
        if (layers & 1) {
            const Step s = forward_step(bound, ntt);
            s.reduce ? forward_layer<true>(p, a, ntt, m, s) : forward_layer<false>(p, a, ntt, m, s);
            m *= 2;
        }
        for (; m < end; m *= 4) {
            const Step s1 = forward_step(bound, ntt);
            const Step s2 = forward_step(bound, ntt);
            if (s1.reduce)
                s2.reduce ? forward_pair<true, true>(p, a, ntt, m, s1, s2) : forward_pair<true, false>(p, a, ntt, m, s1, s2);
            else
                s2.reduce ? forward_pair<false, true>(p, a, ntt, m, s1, s2) : forward_pair<false, false>(p, a, ntt, m, s1, s2);
        }
        if constexpr (L > 1) {
            tail_reduces(bound, ntt, true) ? forward_tail<true>(p, a, ntt, bound) : forward_tail<false>(p, a, ntt, bound);
        } else {
            const Finish finish(bound, ntt);
            for (std::size_t j = 0; j < ntt.n; j += L) P::store(a + j, finish(p, P::load(a + j)));
        }
    }

    template <class Start>
    static void inverse_from(W* a, const Start& start, const NttView<W>& ntt, W bound, bool scale) {
        const P p(ntt.q);
        if constexpr (L > 1) {
            tail_reduces(bound, ntt, false) ? inverse_tail<true>(p, a, start, ntt, bound) : inverse_tail<false>(p, a, start, ntt, bound);
        } else {
            for (std::size_t j = 0; j < ntt.n; ++j) P::store(a + j, start(p, j));
        }
        std::size_t h = ntt.n / L / 2;  // L = 1: h = n / 2, all layers below
        int layers = 0;
        while ((std::size_t{1} << layers) < h) ++layers;
        if (layers & 1) {
            const Step s = inverse_step(bound, ntt);
            s.reduce ? inverse_layer<true>(p, a, ntt, h, s) : inverse_layer<false>(p, a, ntt, h, s);
            h /= 2;
        }
        for (; h > 1; h /= 4) {
            const Step s1 = inverse_step(bound, ntt);
            const Step s2 = inverse_step(bound, ntt);
            if (s1.reduce)
                s2.reduce ? inverse_pair<true, true>(p, a, ntt, h / 2, s1, s2) : inverse_pair<true, false>(p, a, ntt, h / 2, s1, s2);
            else
                s2.reduce ? inverse_pair<false, true>(p, a, ntt, h / 2, s1, s2) : inverse_pair<false, false>(p, a, ntt, h / 2, s1, s2);
        }
        // Last layer: both outputs are multiplied, by 1 or 1/n and by the factor times the same.
        const Factor w0 = scale ? P::broadcast(ntt.inverse_n, ntt.inverse_n_p) : P::broadcast(1, ntt.one_p);
        const Factor w1 = scale ? P::broadcast(ntt.last, ntt.last_p) : P::broadcast(ntt.last_plain, ntt.last_plain_p);
        const Finish finish(P::R, ntt);
        const V lift = P::set1(static_cast<W>(bound * ntt.q));
        const std::size_t t = ntt.n / 2;
        for (std::size_t j = 0; j < t; j += L) {
            const V x = P::load(a + j), y = P::load(a + t + j);
            P::store(a + j, finish(p, p.multiply(P::add(x, y), w0)));
            P::store(a + t + j, finish(p, p.multiply(P::add(x, P::sub(lift, y)), w1)));
        }
    }

    static void inverse(W* a, const NttView<W>& ntt) { inverse_from(a, Values{a}, ntt, 1, true); }

    static void inverse_product(W* out, const W* a, const W* b, const W* b_p, const NttView<W>& ntt) {
        inverse_from(out, Products{a, b, b_p}, ntt, P::R, false);
    }

    static void multiply(W* out, const W* a, const W* b, const W* b_p, const NttView<W>& ntt) {
        const P p(ntt.q);
        for (std::size_t j = 0; j < ntt.n; j += L) P::store(out + j, p.multiply(P::load(a + j), P::pair_factor(b + j, b_p + j)));
    }
};
