// Planes: squeeze-and-excite, biases and shortcuts on maps [C, N, H, W].

#include "common.cuh"

// Threads that share a plane.
#define TEAM 32
// Adds up each team's sums, in the place of its first thread.
INLINE void add_up_teams(float *sums) {
    for (int half = TEAM / 2; half > 0; half /= 2) {
        EACH_THREAD {
            if (thread % TEAM < half) sums[thread] += sums[thread + half];
        }
    }
}

template <int WIDTH, bool TIMES>
INLINE void sum_planes(const value_t *x, const value_t *other, long long planes, unsigned int plane, float *sums) {
    EACH_THREAD {
        long long index = BLOCK * (THREADS / TEAM) + thread / TEAM;
        const unsigned int step = TEAM * WIDTH;
        float sum = 0.0f;
        if (index < planes) {
            const value_t *from = x + index * plane, *second = TIMES ? other + index * plane : from;
            for (unsigned int at = thread % TEAM * WIDTH; at < plane; at += 2 * step) {
                // two of each array are in flight before the first is used
                Pack<WIDTH> packs[2][1 + TIMES];
                UNROLL for (int j = 0; j < 2; j++) {
                    if (at + j * step < plane) {
                        packs[j][0].fetch(from + at + j * step);
                        if constexpr (TIMES) packs[j][1].fetch(second + at + j * step);
                    }
                }
                UNROLL for (int j = 0; j < 2; j++) {
                    if (at + j * step < plane) {
                        UNROLL for (int k = 0; k < WIDTH; k++) {
                            float value = packs[j][0].value(k);
                            if constexpr (TIMES) value *= packs[j][1].value(k);
                            sum += value;
                        }
                    }
                }
            }
        }
        sums[thread] = sum;
    }
}

// out[i] = factor * sum over plane i of x, or of x * other where there is one.
KERNEL plane_sums(const value_t *x, const value_t *other, value_t *out, long long planes, int plane, float factor) {
    SHARED float sums[THREADS];
    bool wide = plane % WIDE == 0 && even(x) && even(other);
    if (other) {
        wide ? sum_planes<WIDE, true>(x, other, planes, plane, sums) : sum_planes<1, true>(x, other, planes, plane, sums);
    } else {
        wide ? sum_planes<WIDE, false>(x, other, planes, plane, sums)
             : sum_planes<1, false>(x, other, planes, plane, sums);
    }
    add_up_teams(sums);
    EACH_THREAD {
        long long index = BLOCK * (THREADS / TEAM) + thread / TEAM;
        if (thread % TEAM == 0 && index < planes) store(out, index, sums[thread] * factor);
    }
}
EXPORT(plane_sums)

// Values that a thread of an elementwise kernel takes. Counts are below 2^31.
#define EACH 16
#define EACH_BLOCK (EACH * THREADS)

// Runs the statement for each value `at` of `count` that the block has. Places are of 32 bits.
#define EACH_VALUE(count, statement)                                                                                  \
    EACH_THREAD {                                                                                                     \
        unsigned int first = (unsigned int)BLOCK * EACH_BLOCK + thread;                                               \
        unsigned int last = (unsigned int)smaller((BLOCK + 1) * EACH_BLOCK, count);                                   \
        for (unsigned int at = first; at < last; at += THREADS) {                                                     \
            statement                                                                                                 \
        }                                                                                                             \
    }

// For the block's values of `INPUTS` arrays `to[at] = body(of, values)`, where `of = look(n)` for the n-th of spans of
// `span` values. Outputs may be written over inputs.
template <int WIDTH, int INPUTS, class Look, class Body>
INLINE void map_values(const value_t *const (&from)[INPUTS], value_t *to, unsigned int count, unsigned int span,
                       Look look, Body body) {
    EACH_THREAD {
        unsigned int first = (unsigned int)BLOCK * EACH_BLOCK, last = (unsigned int)smaller(first + EACH_BLOCK, count);
        stream<WIDTH>(from, first, last, thread, [&](unsigned int at, const Pack<WIDTH> *packs) {
            float results[WIDTH];
            Walk walk(at, span);
            auto of = look(walk.span);
            UNROLL for (int k = 0; k < WIDTH; k++) {
                float values[INPUTS];
                UNROLL for (int i = 0; i < INPUTS; i++) values[i] = packs[i].value(k);
                results[k] = body(of, values);
                if (k + 1 < WIDTH && walk.next()) of = look(walk.span);
            }
            store_values(to + at, results);
        });
    }
}

// [`map_values`] by packs where they may be.
template <int INPUTS, class Look, class Body>
INLINE void map(const value_t *const (&from)[INPUTS], value_t *to, long long count, unsigned int span, Look look,
                Body body) {
    bool wide = (unsigned int)count % WIDE == 0 && even(to);
    for (int i = 0; i < INPUTS; i++) wide = wide && even(from[i]);
    if (wide) {
        map_values<WIDE>(from, to, (unsigned int)count, span, look, body);
    } else {
        map_values<1>(from, to, (unsigned int)count, span, look, body);
    }
}

// y = x * s, s one value per plane; y may be x.
KERNEL scale(const value_t *x, const value_t *s, value_t *y, long long count, unsigned int plane) {
    const value_t *const from[1] = {x};
    map(
        from, y, count, plane, [&](unsigned int of) { return load(s, of); },
        [](float factor, const float *values) { return values[0] * factor; });
}
EXPORT(scale)

// The two terms of a plane's gradient.
struct Factors {
    float of_dy, more;
};

// dx = dy * s + dmean / plane, with s and dmean one value per plane. Without s the first term is left out, without dmean
// the second.
KERNEL scale_backward(const value_t *dy, const value_t *s, const value_t *dmean, value_t *dx, long long count,
                      unsigned int plane) {
    const float part = 1.0f / plane;
    auto look = [&](unsigned int of) {
        Factors factors = {s ? load(s, of) : 0.0f, dmean ? load(dmean, of) * part : 0.0f};
        return factors;
    };
    if (s) {
        const value_t *const from[1] = {dy};
        map(from, dx, count, plane, look,
            [](Factors of, const float *values) { return values[0] * of.of_dy + of.more; });
    } else {
        // dy is one value per plane then: it is `dmean`
        EACH_VALUE(count, store(dx, at, look(at / plane).more);)
    }
}
EXPORT(scale_backward)

// y = act(x + bias), the bias one value for each `row` values, or null; y may be x.
KERNEL bias_activation(const value_t *x, const float *bias, value_t *y, long long count, unsigned int row,
                       int activation) {
    const value_t *const from[1] = {x};
    const Activation act = activation_of(activation);
    map(
        from, y, count, row, [&](unsigned int of) { return bias ? bias[of] : 0.0f; },
        [&](float moved, const float *values) { return activate(act, values[0] + moved); });
}
EXPORT(bias_activation)

// dx = dy * act'(x + bias).
KERNEL bias_activation_backward(const value_t *x, const float *bias, const value_t *dy, value_t *dx, long long count,
                                unsigned int row, int activation) {
    const value_t *const from[2] = {x, dy};
    const Activation act = activation_of(activation);
    map(
        from, dx, count, row, [&](unsigned int of) { return bias ? bias[of] : 0.0f; },
        [&](float moved, const float *values) { return values[1] * slope(act, values[0] + moved); });
}
EXPORT(bias_activation_backward)

// out = the factor where a bit is set, else 0.
KERNEL mask(const unsigned int *bits, value_t *out, long long count, float factor) {
    EACH_VALUE(count, store(out, at, bits[at / 32] >> at % 32 & 1 ? factor : 0.0f);)
}
EXPORT(mask)

// y += x.
KERNEL add(value_t *y, const value_t *x, long long count) {
    const value_t *const from[2] = {y, x};
    map(
        from, y, count, (unsigned int)count, [](unsigned int) { return 0.0f; },
        [](float, const float *values) { return values[0] + values[1]; });
}
EXPORT(add)

// Some of a tensor's values: up to four sizes, and how far apart neighbors are in each.
struct View {
    int sizes[4], strides[4];
};

INLINE long long place_in(View view, unsigned int at) {
    unsigned int place = 0;
    for (int axis = 3; axis >= 0; axis--) {
        place += at % view.sizes[axis] * view.strides[axis];
        at /= view.sizes[axis];
    }
    return place;
}

// A view's values one after the other: as activations are kept, as numbers, and from one to the other.
KERNEL copy_activations(const value_t *x, value_t *y, View view, long long count) {
    EACH_VALUE(count, store(y, at, load(x, place_in(view, at)));)
}
EXPORT(copy_activations)

KERNEL copy_numbers(const float *x, float *y, View view, long long count) {
    EACH_VALUE(count, y[at] = x[place_in(view, at)];)
}
EXPORT(copy_numbers)

KERNEL to_activations(const float *x, value_t *y, View view, long long count) {
    EACH_VALUE(count, store(y, at, x[place_in(view, at)]);)
}
EXPORT(to_activations)

KERNEL to_numbers(const value_t *x, float *y, View view, long long count) {
    EACH_VALUE(count, y[at] = load(x, place_in(view, at));)
}
EXPORT(to_numbers)

// view += x.
KERNEL add_to_view(float *y, const float *x, View view, long long count) {
    EACH_VALUE(count, y[place_in(view, at)] += x[at];)
}
EXPORT(add_to_view)

// out[i] (+)= sum over splits of partials[split][i]: the sums of blocks that shared one, in order.
KERNEL add_splits(const float *partials, float *out, long long count, int splits, int accumulate) {
    EACH_THREAD {
        long long at = BLOCK * THREADS + thread;
        if (at < count) {
            float sum = accumulate ? out[at] : 0.0f;
            for (int split = 0; split < splits; split++) sum += partials[split * count + at];
            out[at] = sum;
        }
    }
}
EXPORT(add_splits)
