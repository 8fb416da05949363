// Batch normalization with activation. A row is a channel: activations are [C, N, H, W].
//
// Long rows are shared by several blocks (`splits`), whose sums are added in order.

#include "common.cuh"

// Where a part of a row begins: at a multiple of eight values, for packs. A row has less than 2^31 values: dividing numbers
// of 64 bits takes longer than fetching one.
INLINE unsigned int part_begin(unsigned int length, unsigned int split, unsigned int splits) {
    if (split == splits) return length;
    unsigned int packs = length / 8, more = packs % splits;
    return (packs / splits * split + (split < more ? split : more)) * 8;
}

// The part of a row that a block reads.
struct Part {
    long long row, start;
    unsigned int first, last, length;
    int split;
};

INLINE Part part_of(long long length, int splits) {
    Part part;
    unsigned int block = (unsigned int)BLOCK;
    part.length = (unsigned int)length;
    part.row = block / (unsigned int)splits;
    part.start = part.row * length;
    part.split = (int)(block % (unsigned int)splits);
    part.first = part_begin(part.length, part.split, splits);
    part.last = part_begin(part.length, part.split + 1, splits);
    return part;
}

// Mean and sum of squared distances from it of each part of each row, [2][splits][rows], in one pass: distances are
// from the mean of the part's first values, so that nothing cancels. With one split `out` gets the statistics themselves,
// means then biased variances, [2][rows].
template <int WIDTH>
INLINE void moments(Part part, const value_t *x, float *out, long long rows, int splits, float (*sums)[THREADS]) {
    PRIVATE(float, shift, 1);
    const value_t *const from[1] = {x + part.start};
    const unsigned int count = part.last - part.first;
    const int sample = (int)smaller(count, THREADS);
    EACH_THREAD { sums[0][thread] = thread < sample ? load(from[0], part.first + thread) : 0.0f; }
    add_up<1>(sums);
    EACH_THREAD { MINE(shift)[0] = sums[0][0] / sample; }
    EACH_THREAD {
        float away = MINE(shift)[0], sum = 0.0f, squares = 0.0f;
        stream<WIDTH>(from, part.first, part.last, thread, [&](unsigned int, const Pack<WIDTH> *packs) {
            UNROLL for (int k = 0; k < WIDTH; k++) {
                float apart = packs[0].value(k) - away;
                sum += apart;
                squares += apart * apart;
            }
        });
        sums[0][thread] = sum;
        sums[1][thread] = squares;
    }
    add_up<2>(sums);
    EACH_THREAD {
        if (thread == 0) {
            float apart = sums[0][0] / count, squares = sums[1][0] - sums[0][0] * apart;
            // a NaN stays one
            squares = squares < 0.0f ? 0.0f : squares;
            long long at = part.split * rows + part.row;
            out[at] = MINE(shift)[0] + apart;
            out[splits * rows + at] = splits == 1 ? squares / count : squares;
        }
    }
}

KERNEL row_moments(const value_t *x, float *out, long long rows, long long length, int splits) {
    SHARED float sums[2][THREADS];
    Part part = part_of(length, splits);
    if (part.length % WIDE == 0 && even(x)) {
        moments<WIDE>(part, x, out, rows, splits, sums);
    } else {
        moments<1>(part, x, out, rows, splits, sums);
    }
}
EXPORT(row_moments)

// Statistics [2][rows] from the moments of parts (Chan, Golub and LeVeque 1979).
KERNEL join_moments(const float *parts, float *stats, long long rows, long long length, int splits) {
    EACH_THREAD {
        long long row = BLOCK * THREADS + thread;
        if (row < rows) {
            float count = 0.0f, mean = 0.0f, squares = 0.0f;
            for (int split = 0; split < splits; split++) {
                float more = (float)(part_begin((unsigned int)length, split + 1, splits) -
                                     part_begin((unsigned int)length, split, splits));
                float apart = parts[split * rows + row] - mean;
                count += more;
                mean += apart * (more / count);
                squares += parts[(splits + split) * rows + row] + apart * apart * (count - more) * (more / count);
            }
            stats[row] = mean;
            stats[rows + row] = squares / length;
        }
    }
}
EXPORT(join_moments)

// y = act(gamma * xhat + beta) + addend, which may be null; y may be x.
template <int WIDTH, bool ADDEND>
INLINE void normalized(Part part, Affine affine, const value_t *x, const value_t *addend, value_t *y) {
    const value_t *from[1 + ADDEND];
    from[0] = x + part.start;
    if constexpr (ADDEND) from[1] = addend + part.start;
    EACH_THREAD {
        stream<WIDTH>(from, part.first, part.last, thread, [&](unsigned int at, const Pack<WIDTH> *packs) {
            float values[WIDTH];
            UNROLL for (int k = 0; k < WIDTH; k++) {
                values[k] = affine.apply(packs[0].value(k));
                if constexpr (ADDEND) values[k] += packs[1].value(k);
            }
            store_values(y + part.start + at, values);
        });
    }
}

KERNEL normalize(const value_t *x, const float *stats, const float *gamma, const float *beta, const value_t *addend,
                 value_t *y, long long rows, long long length, int splits, float epsilon, int activation) {
    Part part = part_of(length, splits);
    Affine affine = affine_of(stats, gamma, beta, rows, part.row, epsilon, activation);
    bool wide = part.length % WIDE == 0 && even(x) && even(addend) && even(y);
    if (addend) {
        wide ? normalized<WIDE, true>(part, affine, x, addend, y) : normalized<1, true>(part, affine, x, addend, y);
    } else {
        wide ? normalized<WIDE, false>(part, affine, x, addend, y) : normalized<1, false>(part, affine, x, addend, y);
    }
}
EXPORT(normalize)

// Squeeze-and-excite after a batch norm: with its factors and the gradient of the means, one value per plane each, the
// output's gradient is dy * factor + dmean / plane. Without one `factors` is null.
struct Excite {
    const value_t *factors, *dmeans;
    unsigned int plane;
};

// The factor of the values of a row's plane, and the value added to them.
struct Excited {
    float factor, more;
};

INLINE Excited excited(Excite excite, long long plane) {
    Excited excited = {load(excite.factors, plane), load(excite.dmeans, plane) * (1.0f / excite.plane)};
    return excited;
}

// Calls `body(at, g, xhat)` for the values of a part of a row, WIDTH neighbors at once: g = dy * act'(z).
template <int WIDTH, bool EXCITED, class Body>
INLINE void slopes_of(Part part, Affine affine, Excite excite, const value_t *x, const value_t *dy, int thread,
                      Body body) {
    const value_t *const from[2] = {x + part.start, dy + part.start};
    const long long first_plane = EXCITED ? part.row * (part.length / excite.plane) : 0;
    stream<WIDTH>(from, part.first, part.last, thread, [&](unsigned int at, const Pack<WIDTH> *packs) {
        float g[WIDTH], xhat[WIDTH];
        Walk walk(EXCITED ? at : 0, EXCITED ? excite.plane : 1);
        Excited here = {1.0f, 0.0f};
        if constexpr (EXCITED) here = excited(excite, first_plane + walk.span);
        UNROLL for (int k = 0; k < WIDTH; k++) {
            float above = packs[1].value(k);
            if constexpr (EXCITED) {
                above = above * here.factor + here.more;
                if (k + 1 < WIDTH && walk.next()) here = excited(excite, first_plane + walk.span);
            }
            xhat[k] = affine.unscaled(packs[0].value(k));
            g[k] = above * slope(affine.activation, affine.shifted(xhat[k]));
        }
        body(at, g, xhat);
    });
}

template <int WIDTH, bool EXCITED>
INLINE void sum_slopes(Part part, Affine affine, Excite excite, const value_t *x, const value_t *dy,
                       float (*sums)[THREADS]) {
    EACH_THREAD {
        float products = 0.0f, slopes = 0.0f;
        slopes_of<WIDTH, EXCITED>(part, affine, excite, x, dy, thread,
                                  [&](unsigned int, const float(&g)[WIDTH], const float(&xhat)[WIDTH]) {
                                      UNROLL for (int k = 0; k < WIDTH; k++) {
                                          products += g[k] * xhat[k];
                                          slopes += g[k];
                                      }
                                  });
        sums[0][thread] = products;
        sums[1][thread] = slopes;
    }
}

// For each part of each row the sums of g * xhat and of g, where g = dy * act'(z), [splits][2][rows]: the gradients of
// gamma and beta.
KERNEL normalize_sums(const value_t *x, const value_t *dy, const float *stats, const float *gamma, const float *beta,
                      float *out, long long rows, long long length, int splits, float epsilon, int activation,
                      const value_t *factors, const value_t *dmeans, unsigned int plane) {
    SHARED float sums[2][THREADS];
    Part part = part_of(length, splits);
    Affine affine = affine_of(stats, gamma, beta, rows, part.row, epsilon, activation);
    Excite excite = {factors, dmeans, plane};
    bool wide = part.length % WIDE == 0 && even(x) && even(dy);
    if (factors) {
        wide ? sum_slopes<WIDE, true>(part, affine, excite, x, dy, sums)
             : sum_slopes<1, true>(part, affine, excite, x, dy, sums);
    } else {
        wide ? sum_slopes<WIDE, false>(part, affine, excite, x, dy, sums)
             : sum_slopes<1, false>(part, affine, excite, x, dy, sums);
    }
    add_up<2>(sums);
    EACH_THREAD {
        if (thread < 2) out[(part.split * 2 + thread) * rows + part.row] = sums[thread][0];
    }
}
EXPORT(normalize_sums)

template <int WIDTH, bool EXCITED>
INLINE void slopes_before(Part part, Affine affine, Excite excite, const value_t *x, const value_t *dy, value_t *dx,
                          float products, float slopes) {
    const float scale = affine.gamma * affine.scale;
    EACH_THREAD {
        slopes_of<WIDTH, EXCITED>(part, affine, excite, x, dy, thread,
                                  [&](unsigned int at, const float(&g)[WIDTH], const float(&xhat)[WIDTH]) {
                                      float values[WIDTH];
                                      UNROLL for (int k = 0; k < WIDTH; k++) {
                                          values[k] = scale * (g[k] - (slopes + xhat[k] * products));
                                      }
                                      store_values(dx + part.start + at, values);
                                  });
    }
}

// dx = gamma / std * (g - (dbeta + xhat * dgamma) / length), `sums` being dgamma and dbeta, [2][rows], which are added to
// `slopes_gamma` and `slopes_beta`; dx may be dy.
KERNEL normalize_backward(const value_t *x, const value_t *dy, const float *stats, const float *gamma,
                          const float *beta, const float *sums, value_t *dx, long long rows, long long length,
                          int splits, float epsilon, int activation, const value_t *factors, const value_t *dmeans,
                          unsigned int plane, float *slopes_gamma, float *slopes_beta) {
    Part part = part_of(length, splits);
    Affine affine = affine_of(stats, gamma, beta, rows, part.row, epsilon, activation);
    Excite excite = {factors, dmeans, plane};
    float products = sums[part.row], slopes = sums[rows + part.row];
    EACH_THREAD {
        if (thread == 0 && part.split == 0) {
            slopes_gamma[part.row] += products;
            slopes_beta[part.row] += slopes;
        }
    }
    products /= length;
    slopes /= length;
    bool wide = part.length % WIDE == 0 && even(x) && even(dy) && even(dx);
    if (factors) {
        wide ? slopes_before<WIDE, true>(part, affine, excite, x, dy, dx, products, slopes)
             : slopes_before<1, true>(part, affine, excite, x, dy, dx, products, slopes);
    } else {
        wide ? slopes_before<WIDE, false>(part, affine, excite, x, dy, dx, products, slopes)
             : slopes_before<1, false>(part, affine, excite, x, dy, dx, products, slopes);
    }
}
EXPORT(normalize_backward)

template <int WIDTH> INLINE void sum_rows(Part part, const value_t *x, float (*sums)[THREADS]) {
    const value_t *const from[1] = {x + part.start};
    EACH_THREAD {
        float sum = 0.0f;
        stream<WIDTH>(from, part.first, part.last, thread, [&](unsigned int, const Pack<WIDTH> *packs) {
            UNROLL for (int k = 0; k < WIDTH; k++) sum += packs[0].value(k);
        });
        sums[0][thread] = sum;
    }
}

// The sum of each part of each row, [splits][rows]; with one split they are added to what is there.
KERNEL row_sums(const value_t *x, float *out, long long rows, long long length, int splits) {
    SHARED float sums[1][THREADS];
    Part part = part_of(length, splits);
    if (part.length % WIDE == 0 && even(x)) {
        sum_rows<WIDE>(part, x, sums);
    } else {
        sum_rows<1>(part, x, sums);
    }
    add_up<1>(sums);
    EACH_THREAD {
        if (thread == 0) {
            float *to = out + part.split * rows + part.row;
            *to = splits == 1 ? *to + sums[0][0] : sums[0][0];
        }
    }
}
EXPORT(row_sums)
