// Planes: what squeeze-and-excite, biases and shortcuts do to maps [C, N, H, W].

#include "common.cuh"

// Threads that share a plane.
#define TEAM 32
// Values that a thread of an elementwise kernel takes.
#define EACH 4

// Adds up each team's sums, in the place of its first thread.
INLINE void add_up_teams(float *sums) {
    for (int half = TEAM / 2; half > 0; half /= 2) {
        EACH_THREAD {
            if (thread % TEAM < half) sums[thread] += sums[thread + half];
        }
    }
}

// out[i] = factor * sum over plane i of x, or of x * other where there is one.
KERNEL plane_sums(const value_t *x, const value_t *other, value_t *out, long long planes, int plane, float factor) {
    SHARED float sums[THREADS];
    EACH_THREAD {
        long long index = BLOCK * (THREADS / TEAM) + thread / TEAM;
        float sum = 0.0f;
        for (int i = thread % TEAM; index < planes && i < plane; i += TEAM) {
            float value = load(x, index * plane + i);
            sum += other ? value * load(other, index * plane + i) : value;
        }
        sums[thread] = sum;
    }
    add_up_teams(sums);
    EACH_THREAD {
        long long index = BLOCK * (THREADS / TEAM) + thread / TEAM;
        if (thread % TEAM == 0 && index < planes) store(out, index, sums[thread] * factor);
    }
}
EXPORT(plane_sums)

// Runs the statement for each value `at` of `count` that the block has. Places are of 32 bits: dividing one of 64 takes
// longer than fetching a value.
#define EACH_VALUE(count, statement)                                                                                  \
    EACH_THREAD {                                                                                                     \
        unsigned int first = (unsigned int)BLOCK * (THREADS * EACH) + thread;                                         \
        unsigned int last = (unsigned int)smaller((BLOCK + 1) * (THREADS * EACH), count);                             \
        for (unsigned int at = first; at < last; at += THREADS) {                                                     \
            statement                                                                                                 \
        }                                                                                                             \
    }

// y = x * s, s one value a plane; y may be x.
KERNEL scale(const value_t *x, const value_t *s, value_t *y, long long count, unsigned int plane) {
    EACH_VALUE(count, store(y, at, load(x, at) * load(s, at / plane));)
}
EXPORT(scale)

// dx = dy * s + dmean / plane, where s and dmean are one value a plane and either may be null.
KERNEL scale_backward(const value_t *dy, const value_t *s, const value_t *dmean, value_t *dx, long long count,
                      unsigned int plane) {
    EACH_VALUE(count, {
        float value = s ? load(dy, at) * load(s, at / plane) : 0.0f;
        store(dx, at, dmean ? value + load(dmean, at / plane) * (1.0f / plane) : value);
    })
}
EXPORT(scale_backward)

// y = act(x + bias), the bias one value for each `row` values, or null.
KERNEL bias_activation(const value_t *x, const float *bias, value_t *y, long long count, unsigned int row,
                       int activation) {
    EACH_VALUE(count, store(y, at, activate(activation, load(x, at) + (bias ? bias[at / row] : 0.0f)));)
}
EXPORT(bias_activation)

// dx = dy * act'(x + bias).
KERNEL bias_activation_backward(const value_t *x, const float *bias, const value_t *dy, value_t *dx, long long count,
                                unsigned int row, int activation) {
    EACH_VALUE(count, {
        float z = load(x, at) + (bias ? bias[at / row] : 0.0f);
        store(dx, at, load(dy, at) * slope(activation, z));
    })
}
EXPORT(bias_activation_backward)

// y += x.
KERNEL add(value_t *y, const value_t *x, long long count) {
    EACH_VALUE(count, store(y, at, load(y, at) + load(x, at));)
}
EXPORT(add)

// Some of a tensor's values: up to four sizes, and how far apart neighbours are in each.
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

// out[i] (+)= sum over splits of partials[split][i]: what blocks that shared a sum left, in order.
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
