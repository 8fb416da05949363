// Depthwise convolution of maps [C, N, H, W], one K x K kernel a channel, padding K / 2.
//
// A block takes a rectangle of the output of some maps of one channel. It copies what that reads, zeros around it, to
// shared memory, and each thread computes ROWS outputs in a column: neighbouring threads read neighbouring columns, and a
// value that was read serves up to K of a thread's outputs.
//
// Where a batch norm with its activation stands before the convolution, it is applied to what is copied: what it gives is
// never in memory, neither forward nor when the gradient of the weights needs it again.

#include "common.cuh"

// Values of the input that a block holds; the planner cuts rectangles that fit.
#define TILE 6144
// Values of the output's gradient that a block holds beside them.
#define GRADIENT_TILE 4096

// How the output is cut: blocks run over channels, groups of `maps` images, rows of rectangles, rectangles.
struct Cut {
    int images, height, width, out_height, out_width;
    int maps, tile_height, tile_width, tiles_y, tiles_x;
};

// Where a block works.
struct Spot {
    long long channel;
    int first_image, y, x;
};

INLINE Spot spot_of(Cut cut, long long block) {
    int groups = (cut.images + cut.maps - 1) / cut.maps;
    Spot spot;
    spot.x = (int)(block % cut.tiles_x) * cut.tile_width;
    block /= cut.tiles_x;
    spot.y = (int)(block % cut.tiles_y) * cut.tile_height;
    block /= cut.tiles_y;
    spot.first_image = (int)(block % groups) * cut.maps;
    spot.channel = block / groups;
    return spot;
}

// The batch norm before a convolution of `channels` channels; none where `stats` is null.
struct Before {
    const float *stats, *gamma, *beta;
    long long channels;
    float epsilon;
    int activation;
};

// Copies a rectangle of `rows` x `columns` from (y, x) on of maps of `height` x `width`, zeros outside of them; only the
// first `left` maps are there. `before` is applied to what is copied. Teams of threads take a row each, so that places are divided once a row.
INLINE void copy(const value_t *from, float *to, int thread, long long first_map, int maps, int left, int y, int x,
                 int rows, int columns, int height, int width, Before before, long long channel) {
    Affine affine = {0.0f, 1.0f, 1.0f, 0.0f};
    if (before.stats) {
        affine = affine_of(before.stats, before.gamma, before.beta, before.channels, channel, before.epsilon);
    }
    int shift = columns > 16 ? 5 : columns > 8 ? 4 : 3, team = 1 << shift;
    for (int line = thread >> shift; line < maps * rows; line += THREADS >> shift) {
        int map = line / rows, row = y + line % rows;
        bool inside = map < left && row >= 0 && row < height;
        long long start = ((first_map + map) * height + row) * width + x;
        for (int column = thread & (team - 1); column < columns; column += team) {
            bool there = inside && x + column >= 0 && x + column < width;
            float value = there ? load(from, start + column) : 0.0f;
            to[line * columns + column] = there && before.stats ? apply(affine, before.activation, value) : value;
        }
    }
}

INLINE Before nothing() {
    Before before = {0, 0, 0, 0, 0.0f, NONE};
    return before;
}

// `flipped` turns the kernel by half a circle: at stride 1 that is the gradient of the input.
template <int K, int S, int ROWS>
INLINE void forward(const value_t *x, const float *w, value_t *y, Cut cut, int flipped, Before before) {
    SHARED float tile[TILE];
    SHARED float weights[K * K];
    Spot spot = spot_of(cut, BLOCK);
    int rows = (cut.tile_height - 1) * S + K, columns = (cut.tile_width - 1) * S + K;
    long long map = spot.channel * cut.images + spot.first_image;
    int left = cut.images - spot.first_image;
    EACH_THREAD {
        if (thread < K * K) weights[thread] = w[spot.channel * K * K + (flipped ? K * K - 1 - thread : thread)];
        copy(x, tile, thread, map, cut.maps, left, spot.y * S - K / 2, spot.x * S - K / 2, rows, columns, cut.height,
             cut.width, before, spot.channel);
    }
    int stacks = (cut.tile_height + ROWS - 1) / ROWS;
    EACH_THREAD {
        for (int at = thread; at < cut.maps * stacks * cut.tile_width; at += THREADS) {
            int column = at % cut.tile_width, stack = at / cut.tile_width % stacks, m = at / cut.tile_width / stacks;
            // the last rows may be below the rectangle: they read its last ones again and are not stored
            int top = stack * ROWS;
            const float *source = tile + m * rows * columns + column * S;
            float sums[ROWS];
            for (int r = 0; r < ROWS; r++) sums[r] = 0.0f;
            UNROLL for (int kx = 0; kx < K; kx++) {
                UNROLL for (int i = 0; i < S * (ROWS - 1) + K; i++) {
                    int row = top * S + i < rows ? top * S + i : rows - 1;
                    float value = source[row * columns + kx];
                    UNROLL for (int r = 0; r < ROWS; r++) {
                        int ky = i - S * r;
                        if (ky >= 0 && ky < K) sums[r] += value * weights[ky * K + kx];
                    }
                }
            }
            for (int r = 0; r < ROWS; r++) {
                int row = spot.y + top + r;
                if (m < left && top + r < cut.tile_height && row < cut.out_height && spot.x + column < cut.out_width) {
                    store(y, ((map + m) * cut.out_height + row) * cut.out_width + spot.x + column, sums[r]);
                }
            }
        }
    }
}

// The gradient of the input at stride 2. The cut is of the input, its rectangles begin at even places, and `out_height`
// and `out_width` are those of dy; each value gathers the taps of its own parity.
template <int K> INLINE void backward_input(const value_t *dy, const float *w, value_t *dx, Cut cut) {
    SHARED float tile[TILE];
    SHARED float weights[K * K];
    Spot spot = spot_of(cut, BLOCK);
    // the outputs that reach the rectangle: (first + P - K + 1) / 2 rounded up to (last + P) / 2 rounded down
    int y = (spot.y + K / 2 - K + 2) >> 1, x = (spot.x + K / 2 - K + 2) >> 1;
    int rows = ((spot.y + cut.tile_height - 1 + K / 2) >> 1) - y + 1;
    int columns = ((spot.x + cut.tile_width - 1 + K / 2) >> 1) - x + 1;
    long long map = spot.channel * cut.images + spot.first_image;
    int left = cut.images - spot.first_image;
    EACH_THREAD {
        if (thread < K * K) weights[thread] = w[spot.channel * K * K + thread];
        copy(dy, tile, thread, map, cut.maps, left, y, x, rows, columns, cut.out_height, cut.out_width, nothing(), 0);
    }
    int values = cut.tile_height * cut.tile_width;
    EACH_THREAD {
        for (int at = thread; at < cut.maps * values; at += THREADS) {
            int m = at / values, row = spot.y + at % values / cut.tile_width, column = spot.x + at % cut.tile_width;
            if (m >= left || row >= cut.height || column >= cut.width) continue;
            const float *source = tile + m * rows * columns;
            float sum = 0.0f;
            UNROLL for (int i = 0; i < (K + 1) / 2; i++) {
                int ky = ((row + K / 2) & 1) + 2 * i;
                if (ky >= K) continue;
                const float *line = source + (((row + K / 2 - ky) >> 1) - y) * columns;
                UNROLL for (int j = 0; j < (K + 1) / 2; j++) {
                    int kx = ((column + K / 2) & 1) + 2 * j;
                    if (kx < K) sum += line[((column + K / 2 - kx) >> 1) - x] * weights[ky * K + kx];
                }
            }
            store(dx, ((map + m) * cut.height + row) * cut.width + column, sum);
        }
    }
}

// The gradient of the weights, as partial sums [splits][C][K * K]; with one split it is added to what is there. A block takes the rectangles of one channel whose number
// is its split's; each thread one column of taps and every so many columns of a rectangle, down which K inputs stay in
// registers.
template <int K, int S>
INLINE void backward_weight(const value_t *x, const value_t *dy, float *partials, Cut cut, long long channels,
                            int splits, Before before) {
    SHARED float tile[TILE];
    SHARED float gradients[GRADIENT_TILE];
    PRIVATE(float, sums, K);
    const int lanes = THREADS / K;
    long long channel = BLOCK / splits;
    int groups = (cut.images + cut.maps - 1) / cut.maps, tiles = groups * cut.tiles_y * cut.tiles_x;
    int rows = (cut.tile_height - 1) * S + K, columns = (cut.tile_width - 1) * S + K;
    EACH_THREAD {
        for (int k = 0; k < K; k++) MINE(sums)[k] = 0.0f;
    }
    for (int index = (int)(BLOCK % splits); index < tiles; index += splits) {
        Spot spot = spot_of(cut, channel * tiles + index);
        long long map = channel * cut.images + spot.first_image;
        int left = cut.images - spot.first_image;
        EACH_THREAD {
            copy(x, tile, thread, map, cut.maps, left, spot.y * S - K / 2, spot.x * S - K / 2, rows, columns, cut.height,
                 cut.width, before, channel);
            copy(dy, gradients, thread, map, cut.maps, left, spot.y, spot.x, cut.tile_height, cut.tile_width,
                 cut.out_height, cut.out_width, nothing(), 0);
        }
        EACH_THREAD {
            int kx = thread / lanes;
            for (int at = thread % lanes; kx < K && at < cut.maps * cut.tile_width; at += lanes) {
                int m = at / cut.tile_width, column = at % cut.tile_width;
                const float *source = tile + m * rows * columns + column * S + kx;
                const float *gradient = gradients + m * cut.tile_height * cut.tile_width + column;
                float window[K];
                UNROLL for (int k = 0; k < K; k++) window[k] = k < K - S ? source[k * columns] : 0.0f;
                for (int row = 0; row < cut.tile_height; row++) {
                    UNROLL for (int s = 0; s < S; s++) window[K - S + s] = source[(row * S + K - S + s) * columns];
                    float slope = gradient[row * cut.tile_width];
                    UNROLL for (int k = 0; k < K; k++) MINE(sums)[k] += slope * window[k];
                    UNROLL for (int k = 0; k + S < K; k++) window[k] = window[k + S];
                }
            }
        }
    }
    EACH_THREAD {
        for (int k = 0; k < K; k++) tile[thread * K + k] = MINE(sums)[k];
    }
    EACH_THREAD {
        if (thread < K * K) {
            int ky = thread / K, kx = thread % K;
            float sum = 0.0f;
            for (int lane = 0; lane < lanes; lane++) sum += tile[(kx * lanes + lane) * K + ky];
            float *to = partials + ((BLOCK % splits) * channels + channel) * K * K + thread;
            *to = splits == 1 ? *to + sum : sum;
        }
    }
}

#define BEFORE                                                                                                         \
    const float *stats, const float *gamma, const float *beta, long long norm_channels, float epsilon, int activation
#define GIVEN                                                                                                          \
    Before { stats, gamma, beta, norm_channels, epsilon, activation }

#define DEPTHWISE(K, S, ROWS)                                                                                          \
    KERNEL depthwise_k##K##_s##S(const value_t *x, const float *w, value_t *y, Cut cut, int flipped, BEFORE) {          \
        forward<K, S, ROWS>(x, w, y, cut, flipped, GIVEN);                                                             \
    }                                                                                                                  \
    EXPORT(depthwise_k##K##_s##S)                                                                                      \
    KERNEL depthwise_weight_k##K##_s##S(const value_t *x, const value_t *dy, float *partials, Cut cut,                 \
                                        long long channels, int splits, BEFORE) {                                      \
        backward_weight<K, S>(x, dy, partials, cut, channels, splits, GIVEN);                                          \
    }                                                                                                                  \
    EXPORT(depthwise_weight_k##K##_s##S)
#define DEPTHWISE_INPUT(K)                                                                                             \
    KERNEL depthwise_input_k##K##_s2(const value_t *dy, const float *w, value_t *dx, Cut cut) {                        \
        backward_input<K>(dy, w, dx, cut);                                                                             \
    }                                                                                                                  \
    EXPORT(depthwise_input_k##K##_s2)

DEPTHWISE(3, 1, 4)
DEPTHWISE(5, 1, 4)
DEPTHWISE(7, 1, 8)
DEPTHWISE(3, 2, 4)
DEPTHWISE(5, 2, 4)
DEPTHWISE(7, 2, 4)
DEPTHWISE_INPUT(3)
DEPTHWISE_INPUT(5)
DEPTHWISE_INPUT(7)
