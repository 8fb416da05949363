// Batch normalisation with activation. A row is a channel: activations are [C, N, H, W].
//
// Long rows are shared by several blocks (`splits`), whose sums are added in order.

#include "common.cuh"

// The part of a row that a block reads.
struct Part {
    long long row, first, last;
    int split;
};

INLINE Part part_of(long long length, int splits) {
    Part part;
    part.row = BLOCK / splits;
    part.split = (int)(BLOCK % splits);
    part.first = length * part.split / splits;
    part.last = length * (part.split + 1) / splits;
    return part;
}

// Mean and sum of squared distances from it of each part of each row, [2][splits][rows], in one pass: distances are
// from the mean of the part's first values, so that nothing cancels. With one split `out` gets the statistics themselves,
// means then biased variances, [2][rows].
KERNEL row_moments(const value_t *x, float *out, long long rows, long long length, int splits) {
    SHARED float sums[2][THREADS];
    PRIVATE(float, mine, 1);
    Part part = part_of(length, splits);
    const long long start = part.row * length, count = part.last - part.first;
    const int sample = (int)smaller(count, THREADS);
    EACH_THREAD { sums[0][thread] = thread < sample ? load(x, start + part.first + thread) : 0.0f; }
    add_up<1>(sums);
    EACH_THREAD { MINE(mine)[0] = sums[0][0] / sample; }
    EACH_THREAD {
        float shift = MINE(mine)[0], sum = 0.0f, squares = 0.0f;
        for (long long at = part.first + thread; at < part.last; at += THREADS) {
            float apart = load(x, start + at) - shift;
            sum += apart;
            squares += apart * apart;
        }
        sums[0][thread] = sum;
        sums[1][thread] = squares;
    }
    add_up<2>(sums);
    EACH_THREAD {
        if (thread == 0) {
            float apart = sums[0][0] / count, squares = sums[1][0] - sums[0][0] * apart;
            squares = squares < 0.0f ? 0.0f : squares;
            long long at = part.split * rows + part.row;
            out[at] = MINE(mine)[0] + apart;
            out[splits * rows + at] = splits == 1 ? squares / count : squares;
        }
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
                float more = (float)(length * (split + 1) / splits - length * split / splits);
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
KERNEL normalise(const value_t *x, const float *stats, const float *gamma, const float *beta, const value_t *addend,
                 value_t *y, long long rows, long long length, int splits, float epsilon, int activation) {
    Part part = part_of(length, splits);
    EACH_THREAD {
        Affine affine = affine_of(stats, gamma, beta, rows, part.row, epsilon);
        for (long long i = part.first + thread; i < part.last; i += THREADS) {
            long long at = part.row * length + i;
            float value = apply(affine, activation, load(x, at));
            store(y, at, addend ? value + load(addend, at) : value);
        }
    }
}
EXPORT(normalise)

// Squeeze-and-excite after a batch norm: with its factors and the gradient of the means, one value a plane each, the
// output's gradient is dy * factor + dmean / plane. Without one `factors` is null.
struct Excite {
    const value_t *factors, *dmeans;
    unsigned int plane;
    long long first_plane;
};

INLINE Excite excite_of(const value_t *factors, const value_t *dmeans, unsigned int plane, long long row,
                        long long length) {
    Excite excite = {factors, dmeans, plane, factors ? row * (length / plane) : 0};
    return excite;
}

// The gradient at place i of the row.
INLINE float excited(Excite excite, float dy, long long i) {
    if (!excite.factors) return dy;
    long long plane = excite.first_plane + (unsigned int)i / excite.plane;
    return dy * load(excite.factors, plane) + load(excite.dmeans, plane) * (1.0f / excite.plane);
}

// For each part of each row the sums of g * xhat and of g, where g = dy * act'(z), [splits][2][rows]: the gradients of
// gamma and beta.
KERNEL normalise_sums(const value_t *x, const value_t *dy, const float *stats, const float *gamma, const float *beta,
                      float *out, long long rows, long long length, int splits, float epsilon, int activation,
                      const value_t *factors, const value_t *dmeans, unsigned int plane) {
    SHARED float sums[2][THREADS];
    Part part = part_of(length, splits);
    Excite excite = excite_of(factors, dmeans, plane, part.row, length);
    EACH_THREAD {
        Affine affine = affine_of(stats, gamma, beta, rows, part.row, epsilon);
        float products = 0.0f, slopes = 0.0f;
        for (long long i = part.first + thread; i < part.last; i += THREADS) {
            long long at = part.row * length + i;
            float xhat = (load(x, at) - affine.mean) * affine.scale;
            float above = excited(excite, load(dy, at), i);
            float g = above * slope(activation, affine.gamma * xhat + affine.beta);
            products += g * xhat;
            slopes += g;
        }
        sums[0][thread] = products;
        sums[1][thread] = slopes;
    }
    add_up<2>(sums);
    EACH_THREAD {
        if (thread < 2) out[(part.split * 2 + thread) * rows + part.row] = sums[thread][0];
    }
}
EXPORT(normalise_sums)

// dx = gamma / std * (g - (dbeta + xhat * dgamma) / length), `sums` being dgamma and dbeta, [2][rows], which are added to
// `slopes_gamma` and `slopes_beta`; dx may be dy.
KERNEL normalise_backward(const value_t *x, const value_t *dy, const float *stats, const float *gamma,
                          const float *beta, const float *sums, value_t *dx, long long rows, long long length,
                          int splits, float epsilon, int activation, const value_t *factors, const value_t *dmeans,
                          unsigned int plane, float *slopes_gamma, float *slopes_beta) {
    Part part = part_of(length, splits);
    Excite excite = excite_of(factors, dmeans, plane, part.row, length);
    EACH_THREAD {
        Affine affine = affine_of(stats, gamma, beta, rows, part.row, epsilon);
        float products = sums[part.row] / length, slopes = sums[rows + part.row] / length;
        if (thread == 0 && part.split == 0) {
            slopes_gamma[part.row] += sums[part.row];
            slopes_beta[part.row] += sums[rows + part.row];
        }
        for (long long i = part.first + thread; i < part.last; i += THREADS) {
            long long at = part.row * length + i;
            float xhat = (load(x, at) - affine.mean) * affine.scale;
            float above = excited(excite, load(dy, at), i);
            float g = above * slope(activation, affine.gamma * xhat + affine.beta);
            store(dx, at, affine.gamma * affine.scale * (g - (slopes + xhat * products)));
        }
    }
}
EXPORT(normalise_backward)

// The sum of each part of each row, [splits][rows]; with one split they are added to what is there.
KERNEL row_sums(const value_t *x, float *out, long long rows, long long length, int splits) {
    SHARED float sums[1][THREADS];
    Part part = part_of(length, splits);
    EACH_THREAD {
        float sum = 0.0f;
        for (long long i = part.first + thread; i < part.last; i += THREADS) sum += load(x, part.row * length + i);
        sums[0][thread] = sum;
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
