// Depthwise convolution of maps [C, N, H, W], one K x K kernel per channel, padding K / 2.
//
// A block takes a rectangle of the output of some maps of one channel. It copies the input that it reads, zeros around it,
// to shared memory, and each thread computes ROWS outputs in each of COLUMNS columns: a value that was read serves many of
// a thread's outputs. Where rows are of a multiple of four values, a thread takes four columns, reads the rectangle 16
// bytes at a time, and stores four values at once; else one, so that neighboring threads store neighbors.
//
// Where a batch norm with its activation stands before the convolution, it is applied to the copied values: its output is
// never in memory, neither forward nor when the gradient of the weights needs it again.

#include "common.cuh"

// Values of the input that a block holds; the planner cuts rectangles that fit.
#define TILE 6144
// Values of the output's gradient that a block holds next to them.
#define GRADIENT_TILE 4096

// Rows that a thread copies ahead of their use.
#define LINES 8

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

INLINE Spot spot_of(Cut cut, long long index) {
    unsigned int block = (unsigned int)index;
    unsigned int groups = (cut.images + cut.maps - 1) / cut.maps;
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

INLINE Before nothing() {
    Before before = {0, 0, 0, 0, 0.0f, NONE};
    return before;
}

// A rectangle in shared memory: `maps` times `rows` rows that begin `pitch` values apart, their first at (y, x) of maps of
// `height` x `width`, of which `left` are there.
struct Tile {
    float *to;
    int maps, rows, columns, pitch;
    int y, x, height, width, left;
};

// An odd number of 16 bytes: rows four apart are in other banks.
INLINE int pitch_of(int columns) { return (((columns + 3) / 4) | 1) * 4; }

// Sets it to zero.
INLINE void clear(Tile tile, int thread) {
    const unsigned int zeros[4] = {0, 0, 0, 0};
    for (int at = thread * 4; at < tile.maps * tile.rows * tile.pitch; at += THREADS * 4) put16(tile.to + at, zeros);
}

// Copies values of the maps, with `before` applied; `from` is the first map. Teams of threads take a row each; several
// rows are in flight before the first is used.
INLINE void copy(Tile tile, const value_t *from, int thread, Before before, long long channel) {
    const int top = tile.y < 0 ? -tile.y : 0, side = tile.x < 0 ? -tile.x : 0;
    const int bottom = tile.y + tile.rows > tile.height ? tile.height - tile.y : tile.rows;
    const int end = tile.x + tile.columns > tile.width ? tile.width - tile.x : tile.columns;
    const int maps = tile.maps < tile.left ? tile.maps : tile.left;
    if (bottom <= top || end <= side) return;
    Affine affine = {};
    if (before.stats) {
        affine = affine_of(before.stats, before.gamma, before.beta, before.channels, channel, before.epsilon,
                           before.activation);
    }
    const unsigned int height = bottom - top, lines = maps * height;
    const int shift = end - side > 16 ? 5 : end - side > 8 ? 4 : 3, team = 1 << shift, teams = THREADS >> shift;
    // from line to line of a thread, in rows and maps
    const unsigned int row_step = teams % height, map_step = teams / height;
    const unsigned int first = thread >> shift, first_row = first % height, first_map = first / height;
    const int area = tile.height * tile.width;
    for (int column = side + (thread & (team - 1)); column < end; column += team) {
        unsigned int row = first_row;
        int source = first_map * area + (tile.y + top + (int)row) * tile.width + tile.x + column;
        int target = (first_map * tile.rows + top + row) * tile.pitch + column;
        for (unsigned int line = first; line < lines; line += LINES * teams) {
            Pack<1> values[LINES];
            int targets[LINES];
            UNROLL for (int j = 0; j < LINES; j++) {
                targets[j] = target;
                if (line + j * teams < lines) values[j].fetch(from + source);
                row += row_step;
                source += map_step * area + row_step * tile.width;
                target += (map_step * tile.rows + row_step) * tile.pitch;
                if (row >= height) {
                    row -= height;
                    source += area - (int)height * tile.width;
                    target += (tile.rows - (int)height) * tile.pitch;
                }
            }
            UNROLL for (int j = 0; j < LINES; j++) {
                if (line + j * teams < lines) {
                    float value = values[j].value(0);
                    tile.to[targets[j]] = before.stats ? affine.apply(value) : value;
                }
            }
        }
    }
}

// The rectangle of the input that outputs of the cut read.
INLINE Tile input_tile(float *to, Cut cut, Spot spot, int kernel, int stride) {
    int columns = (cut.tile_width - 1) * stride + kernel, quads = (cut.tile_width + 3) / 4;
    return {to,
            cut.maps,
            (cut.tile_height - 1) * stride + kernel,
            columns,
            pitch_of((quads * 4 - 1) * stride + kernel),
            spot.y * stride - kernel / 2,
            spot.x * stride - kernel / 2,
            cut.height,
            cut.width,
            cut.images - spot.first_image};
}

// Reads COUNT neighbors of shared memory, so many at a time, of which the first place is a multiple.
template <int COUNT, int TOGETHER> INLINE void read_line(const float *from, float (&line)[COUNT]) {
    static_assert(COUNT % TOGETHER == 0, "all of the line");
    UNROLL for (int i = 0; i < COUNT; i += TOGETHER) {
        unsigned int words[TOGETHER];
        if constexpr (TOGETHER == 4) fetch16(from + i, words);
        if constexpr (TOGETHER == 2) fetch8(from + i, words);
        if constexpr (TOGETHER == 1) words[0] = bits_of(from[i]);
        UNROLL for (int k = 0; k < TOGETHER; k++) line[i + k] = float_of(words[k]);
    }
}

template <int K, int S, int ROWS, int COLUMNS>
INLINE void outputs(const float *weights, value_t *y, Cut cut, Spot spot, Tile tile) {
    const int stacks = (cut.tile_height + ROWS - 1) / ROWS, across = (cut.tile_width + COLUMNS - 1) / COLUMNS;
    value_t *to = y + (spot.channel * cut.images + spot.first_image) * cut.out_height * cut.out_width;
    EACH_THREAD {
        for (unsigned int at = thread; at < (unsigned int)(cut.maps * stacks * across); at += THREADS) {
            const unsigned int line_of = at / across, column = at % across * COLUMNS;
            const int m = line_of / stacks, top = line_of % stacks * ROWS;
            const float *source = tile.to + m * tile.rows * tile.pitch + column * S;
            float sums[ROWS][COLUMNS];
            UNROLL for (int r = 0; r < ROWS; r++) {
                UNROLL for (int c = 0; c < COLUMNS; c++) sums[r][c] = 0.0f;
            }
            UNROLL for (int i = 0; i < S * (ROWS - 1) + K; i++) {
                constexpr int NEEDED = (COLUMNS - 1) * S + K, READ = COLUMNS == 1 ? NEEDED : (NEEDED + 3) / 4 * 4;
                // the last rows may be below the rectangle: they read its last ones again and are not stored
                int row = top * S + i < tile.rows ? top * S + i : tile.rows - 1;
                float line[READ];
                read_line<READ, COLUMNS == 4 ? 4 : 1>(source + row * tile.pitch, line);
                UNROLL for (int r = 0; r < ROWS; r++) {
                    const int ky = i - S * r;
                    if (ky < 0 || ky >= K) continue;
                    UNROLL for (int kx = 0; kx < K; kx++) {
                        UNROLL for (int c = 0; c < COLUMNS; c++) sums[r][c] += line[c * S + kx] * weights[ky * K + kx];
                    }
                }
            }
            if (m >= tile.left || (int)(spot.x + column) >= cut.out_width) continue;
            UNROLL for (int r = 0; r < ROWS; r++) {
                int row = spot.y + top + r;
                if (top + r < cut.tile_height && row < cut.out_height) {
                    store_values(to + (m * cut.out_height + row) * cut.out_width + spot.x + column, sums[r]);
                }
            }
        }
    }
}

// `flipped` turns the kernel by half a circle: at stride 1 that is the gradient of the input.
template <int K, int S, int ROWS>
INLINE void forward(const value_t *x, const float *w, value_t *y, Cut cut, int flipped, Before before) {
    SHARED float values[TILE];
    SHARED float weights[K * K];
    Spot spot = spot_of(cut, BLOCK);
    Tile tile = input_tile(values, cut, spot, K, S);
    EACH_THREAD {
        if (thread < K * K) weights[thread] = w[spot.channel * K * K + (flipped ? K * K - 1 - thread : thread)];
        clear(tile, thread);
    }
    const value_t *from = x + (spot.channel * cut.images + spot.first_image) * cut.height * cut.width;
    EACH_THREAD { copy(tile, from, thread, before, spot.channel); }
    if (cut.out_width % 4 == 0 && even(y)) {
        outputs<K, S, 4, 4>(weights, y, cut, spot, tile);
    } else {
        outputs<K, S, ROWS, 1>(weights, y, cut, spot, tile);
    }
}

// Of inputs at stride 2, in pairs of rows and COLUMNS columns that begin at even places: the rows of dy that reach a pair are
// its half and FIRST on, WINDOW of them; columns alike.
template <int K, int COLUMNS> INLINE void inputs(const float *weights, value_t *dx, Cut cut, Spot spot, Tile tile) {
    constexpr int WINDOW = (K + 1) / 2, FIRST = -((K / 2) / 2), READ = (WINDOW + COLUMNS / 2) / 2 * 2;
    const int pairs = cut.tile_height / 2, across = (cut.tile_width + COLUMNS - 1) / COLUMNS;
    value_t *to = dx + (spot.channel * cut.images + spot.first_image) * cut.height * cut.width;
    EACH_THREAD {
        for (unsigned int at = thread; at < (unsigned int)(cut.maps * pairs * across); at += THREADS) {
            const unsigned int line_of = at / across, column = at % across * COLUMNS;
            const int m = line_of / pairs, pair = line_of % pairs;
            const float *source = tile.to + (m * tile.rows + pair) * tile.pitch + column / 2;
            float sums[2][COLUMNS];
            UNROLL for (int r = 0; r < 2; r++) {
                UNROLL for (int c = 0; c < COLUMNS; c++) sums[r][c] = 0.0f;
            }
            UNROLL for (int i = 0; i < WINDOW; i++) {
                float line[READ];
                read_line<READ, COLUMNS == 4 ? 2 : 1>(source + i * tile.pitch, line);
                UNROLL for (int r = 0; r < 2; r++) {
                    const int ky = r + K / 2 - 2 * (i + FIRST);
                    if (ky < 0 || ky >= K) continue;
                    UNROLL for (int c = 0; c < COLUMNS; c++) {
                        UNROLL for (int j = 0; j < WINDOW; j++) {
                            const int kx = c % 2 + K / 2 - 2 * (j + FIRST);
                            if (kx >= 0 && kx < K) sums[r][c] += line[c / 2 + j] * weights[ky * K + kx];
                        }
                    }
                }
            }
            const int left = cut.width - spot.x - (int)column;
            if (m >= tile.left || left <= 0) continue;
            UNROLL for (int r = 0; r < 2; r++) {
                int row = spot.y + 2 * pair + r;
                if (row >= cut.height) continue;
                value_t *line = to + (m * cut.height + row) * cut.width + spot.x + column;
                if (cut.width % COLUMNS == 0 && even(dx)) {
                    store_values(line, sums[r]);
                } else {
                    UNROLL for (int c = 0; c < COLUMNS; c++) {
                        if (c < left) store(line, c, sums[r][c]);
                    }
                }
            }
        }
    }
}

// The gradient of the input at stride 2. The cut is of the input, its rectangles begin at even places and have even
// heights, and `out_height` and `out_width` are those of dy.
template <int K> INLINE void backward_input(const value_t *dy, const float *w, value_t *dx, Cut cut) {
    SHARED float values[TILE];
    SHARED float weights[K * K];
    constexpr int WINDOW = (K + 1) / 2, FIRST = -((K / 2) / 2);
    Spot spot = spot_of(cut, BLOCK);
    const int rows = cut.tile_height / 2 + WINDOW - 1, columns = (cut.tile_width + 1) / 2 + WINDOW - 1;
    const int pitch = pitch_of((cut.tile_width + 3) / 4 * 2 + WINDOW);
    Tile tile = {values,     cut.maps,        rows,          columns, pitch, spot.y / 2 + FIRST, spot.x / 2 + FIRST,
                 cut.out_height, cut.out_width, cut.images - spot.first_image};
    EACH_THREAD {
        if (thread < K * K) weights[thread] = w[spot.channel * K * K + thread];
        clear(tile, thread);
    }
    const value_t *from = dy + (spot.channel * cut.images + spot.first_image) * cut.out_height * cut.out_width;
    EACH_THREAD { copy(tile, from, thread, nothing(), 0); }
    if (cut.width % 4 == 0) {
        inputs<K, 4>(weights, dx, cut, spot, tile);
    } else {
        inputs<K, 2>(weights, dx, cut, spot, tile);
    }
}

// The gradient of the weights, as partial sums [splits][C][K * K]; with one split it is added to what is there. A block
// takes the rectangles of one channel whose number is its split's; each thread one column of taps and every so many columns
// of a rectangle, down which K inputs stay in registers.
template <int K, int S>
INLINE void backward_weight(const value_t *x, const value_t *dy, float *partials, Cut cut, long long channels,
                            int splits, Before before) {
    SHARED float values[TILE];
    SHARED float gradients[GRADIENT_TILE];
    PRIVATE(float, sums, K);
    const int lanes = THREADS / K;
    const unsigned int block = (unsigned int)BLOCK;
    const long long channel = block / (unsigned int)splits;
    const int split = (int)(block % (unsigned int)splits);
    int groups = (cut.images + cut.maps - 1) / cut.maps, tiles = groups * cut.tiles_y * cut.tiles_x;
    EACH_THREAD {
        for (int k = 0; k < K; k++) MINE(sums)[k] = 0.0f;
    }
    for (int index = split; index < tiles; index += splits) {
        Spot spot = spot_of(cut, channel * tiles + index);
        Tile tile = input_tile(values, cut, spot, K, S);
        Tile slopes = {gradients, cut.maps, cut.tile_height,  cut.tile_width, pitch_of(cut.tile_width),
                       spot.y,    spot.x,   cut.out_height,   cut.out_width,  tile.left};
        EACH_THREAD {
            clear(tile, thread);
            clear(slopes, thread);
        }
        EACH_THREAD {
            const long long map = channel * cut.images + spot.first_image;
            copy(tile, x + map * cut.height * cut.width, thread, before, channel);
            copy(slopes, dy + map * cut.out_height * cut.out_width, thread, nothing(), 0);
        }
        EACH_THREAD {
            int kx = thread / lanes;
            for (unsigned int at = thread % lanes; kx < K && at < (unsigned int)(cut.maps * cut.tile_width); at += lanes) {
                unsigned int m = at / cut.tile_width, column = at % cut.tile_width;
                const float *source = values + m * tile.rows * tile.pitch + column * S + kx;
                const float *gradient = gradients + m * slopes.rows * slopes.pitch + column;
                float window[K];
                UNROLL for (int k = 0; k < K; k++) window[k] = k < K - S ? source[k * tile.pitch] : 0.0f;
                for (int row = 0; row < cut.tile_height; row++) {
                    UNROLL for (int s = 0; s < S; s++) window[K - S + s] = source[(row * S + K - S + s) * tile.pitch];
                    float slope = gradient[row * slopes.pitch];
                    UNROLL for (int k = 0; k < K; k++) MINE(sums)[k] += slope * window[k];
                    UNROLL for (int k = 0; k + S < K; k++) window[k] = window[k + S];
                }
            }
        }
    }
    EACH_THREAD {
        for (int k = 0; k < K; k++) values[thread * K + k] = MINE(sums)[k];
    }
    EACH_THREAD {
        if (thread < K * K) {
            int ky = thread / K, kx = thread % K;
            float sum = 0.0f;
            for (int lane = 0; lane < lanes; lane++) sum += values[(kx * lanes + lane) * K + ky];
            float *to = partials + (split * channels + channel) * K * K + thread;
            *to = splits == 1 ? *to + sum : sum;
        }
    }
}

#define BEFORE                                                                                                         \
    const float *stats, const float *gamma, const float *beta, long long norm_channels, float epsilon, int activation
#define GIVEN                                                                                                          \
    Before { stats, gamma, beta, norm_channels, epsilon, activation }

// While a block waits for its copies, others compute: for a kernel of 7 three that keep a few constants in memory are
// worth more than two that do not.
#define DEPTHWISE(K, S, ROWS, BLOCKS)                                                                                  \
    KERNEL_OF(BLOCKS) depthwise_k##K##_s##S(const value_t *x, const float *w, value_t *y, Cut cut, int flipped,        \
                                            BEFORE) {                                                                  \
        forward<K, S, ROWS>(x, w, y, cut, flipped, GIVEN);                                                             \
    }                                                                                                                  \
    EXPORT(depthwise_k##K##_s##S)                                                                                      \
    KERNEL_OF(4) depthwise_weight_k##K##_s##S(const value_t *x, const value_t *dy, float *partials, Cut cut,           \
                                              long long channels, int splits, BEFORE) {                                \
        backward_weight<K, S>(x, dy, partials, cut, channels, splits, GIVEN);                                          \
    }                                                                                                                  \
    EXPORT(depthwise_weight_k##K##_s##S)
#define DEPTHWISE_INPUT(K, BLOCKS)                                                                                     \
    KERNEL_OF(BLOCKS) depthwise_input_k##K##_s2(const value_t *dy, const float *w, value_t *dx, Cut cut) {              \
        backward_input<K>(dy, w, dx, cut);                                                                             \
    }                                                                                                                  \
    EXPORT(depthwise_input_k##K##_s2)

// Of all sizes, or of one.
#if !defined(SIDE) || SIDE == 3
DEPTHWISE(3, 1, 4, 4)
DEPTHWISE(3, 2, 4, 4)
DEPTHWISE_INPUT(3, 4)
#endif
#if !defined(SIDE) || SIDE == 5
DEPTHWISE(5, 1, 4, 4)
DEPTHWISE(5, 2, 4, 4)
DEPTHWISE_INPUT(5, 4)
#endif
#if !defined(SIDE) || SIDE == 7
DEPTHWISE(7, 1, 8, 3)
DEPTHWISE(7, 2, 4, 3)
DEPTHWISE_INPUT(7, 3)
#endif
