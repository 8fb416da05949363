// Pooling over square windows. Backward gathers: each value of the input looks at the windows that cover it.

#include "common.cuh"

struct Pool {
    int height, width, out_height, out_width, side, stride, padding;
};

// A place in one of many maps of `height` x `width`.
struct Place {
    long long map;
    int y, x;
};

INLINE Place place_of(long long at, int height, int width) {
    Place place;
    place.map = at / ((long long)height * width);
    place.y = (int)(at / width % height);
    place.x = (int)(at % width);
    return place;
}

// The part of a window that lies in the map: from `first` to before `last` along an axis.
struct Span {
    int first, last;
};

INLINE Span window(Pool pool, int out, int len) {
    int first = out * pool.stride - pool.padding, last = first + pool.side;
    Span span = {first < 0 ? 0 : first, last < len ? last : len};
    return span;
}

// The outputs whose windows cover a place along an axis.
INLINE Span covering(Pool pool, int at, int out_len) {
    int first = (at + pool.padding - pool.side + pool.stride) / pool.stride, last = (at + pool.padding) / pool.stride + 1;
    // the division rounds towards zero, which is the first output where windows begin before the map
    Span span = {first < 0 ? 0 : first, last < out_len ? last : out_len};
    return span;
}

// The place in its map of the greatest value of a window, the first of equals; a NaN is greater than all.
INLINE int greatest(Pool pool, const value_t *x, long long map, int oy, int ox) {
    Span rows = window(pool, oy, pool.height), columns = window(pool, ox, pool.width);
    long long start = map * pool.height * pool.width;
    int best = rows.first * pool.width + columns.first;
    for (int y = rows.first; y < rows.last; y++) {
        for (int x_at = columns.first; x_at < columns.last; x_at++) {
            float value = load(x, start + y * pool.width + x_at);
            if (value > load(x, start + best) || value != value) best = y * pool.width + x_at;
        }
    }
    return best;
}

KERNEL max_pool(const value_t *x, value_t *y, Pool pool, long long count) {
    EACH_THREAD {
        long long at = BLOCK * THREADS + thread;
        if (at < count) {
            Place place = place_of(at, pool.out_height, pool.out_width);
            int best = greatest(pool, x, place.map, place.y, place.x);
            store(y, at, load(x, place.map * pool.height * pool.width + best));
        }
    }
}
EXPORT(max_pool)

KERNEL max_pool_backward(const value_t *x, const value_t *dy, value_t *dx, Pool pool, long long count) {
    EACH_THREAD {
        long long at = BLOCK * THREADS + thread;
        if (at < count) {
            Place place = place_of(at, pool.height, pool.width);
            Span rows = covering(pool, place.y, pool.out_height), columns = covering(pool, place.x, pool.out_width);
            float sum = 0.0f;
            for (int oy = rows.first; oy < rows.last; oy++) {
                for (int ox = columns.first; ox < columns.last; ox++) {
                    if (greatest(pool, x, place.map, oy, ox) == place.y * pool.width + place.x) {
                        sum += load(dy, (place.map * pool.out_height + oy) * pool.out_width + ox);
                    }
                }
            }
            store(dx, at, sum);
        }
    }
}
EXPORT(max_pool_backward)

KERNEL average_pool(const value_t *x, value_t *y, Pool pool, long long count) {
    EACH_THREAD {
        long long at = BLOCK * THREADS + thread;
        if (at < count) {
            Place place = place_of(at, pool.out_height, pool.out_width);
            Span rows = window(pool, place.y, pool.height), columns = window(pool, place.x, pool.width);
            float sum = 0.0f;
            for (int iy = rows.first; iy < rows.last; iy++) {
                for (int ix = columns.first; ix < columns.last; ix++) {
                    sum += load(x, (place.map * pool.height + iy) * pool.width + ix);
                }
            }
            store(y, at, sum / ((rows.last - rows.first) * (columns.last - columns.first)));
        }
    }
}
EXPORT(average_pool)

KERNEL average_pool_backward(const value_t *dy, value_t *dx, Pool pool, long long count) {
    EACH_THREAD {
        long long at = BLOCK * THREADS + thread;
        if (at < count) {
            Place place = place_of(at, pool.height, pool.width);
            Span rows = covering(pool, place.y, pool.out_height), columns = covering(pool, place.x, pool.out_width);
            float sum = 0.0f;
            for (int oy = rows.first; oy < rows.last; oy++) {
                for (int ox = columns.first; ox < columns.last; ox++) {
                    Span height = window(pool, oy, pool.height), width = window(pool, ox, pool.width);
                    int covered = (height.last - height.first) * (width.last - width.first);
                    sum += load(dy, (place.map * pool.out_height + oy) * pool.out_width + ox) / covered;
                }
            }
            store(dx, at, sum);
        }
    }
}
EXPORT(average_pool_backward)

struct Sampling {
    int height, width, out_height, out_width, first;
};

KERNEL sample(const value_t *x, value_t *y, Sampling sampling, long long count) {
    EACH_THREAD {
        long long at = BLOCK * THREADS + thread;
        if (at < count) {
            Place place = place_of(at, sampling.out_height, sampling.out_width);
            int row = 2 * place.y + sampling.first, column = 2 * place.x + sampling.first;
            int inside = row < sampling.height && column < sampling.width;
            store(y, at, inside ? load(x, (place.map * sampling.height + row) * sampling.width + column) : 0.0f);
        }
    }
}
EXPORT(sample)

KERNEL sample_backward(const value_t *dy, value_t *dx, Sampling sampling, long long count) {
    EACH_THREAD {
        long long at = BLOCK * THREADS + thread;
        if (at < count) {
            Place place = place_of(at, sampling.height, sampling.width);
            int row = place.y - sampling.first, column = place.x - sampling.first;
            int sampled = row >= 0 && column >= 0 && row % 2 == 0 && column % 2 == 0;
            long long from = (place.map * sampling.out_height + row / 2) * sampling.out_width + column / 2;
            store(dx, at, sampled ? load(dy, from) : 0.0f);
        }
    }
}
EXPORT(sample_backward)
