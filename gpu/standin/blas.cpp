// The stand-in's cuBLAS: matrix products of f32 and bfloat16, with sums in f32.

#include "standin.hpp"

#include <algorithm>
#include <cstdint>
#include <cstring>
#include <vector>

enum Status { SUCCESS = 0, NOT_INITIALIZED = 1, INVALID_VALUE = 7, EXECUTION_FAILED = 13, NOT_SUPPORTED = 15 };
enum Type { F32 = 0, BF16 = 14 };

struct Handle {
    void *stream;
    int pointers;
};

static float number(float value) { return value; }
static float number(uint16_t bits) {
    uint32_t wide = uint32_t(bits) << 16;
    float value;
    memcpy(&value, &wide, sizeof value);
    return value;
}

static void put(float *to, float value) { *to = value; }
static void put(uint16_t *to, float value) {
    uint32_t bits;
    memcpy(&bits, &value, sizeof bits);
    *to = value != value ? bits >> 16 | 64 : (bits + 0x7fff + (bits >> 16 & 1)) >> 16;
}

// A tile of C is summed up in registers, ROWS x COLUMNS of it at a time, from slices of A and B that are laid out in
// the order in which they are read.
constexpr int ROWS = 16, COLUMNS = 6, TALL = 256, WIDE = 384, DEEP = 256;
// two of these are a column of ROWS
typedef float Vector __attribute__((vector_size(32)));

// Strips of WIDTH values side by side, filled up with zeros: `across` apart in memory, and `along` to the next in the
// sum.
template <int WIDTH, typename T>
static void lay_out(const T *from, long long across, long long along, int count, int depth, float *to) {
    for (int first = 0; first < count; first += WIDTH, to += WIDTH * depth) {
        const int width = std::min(WIDTH, count - first);
        if (width < WIDTH) std::fill_n(to, WIDTH * depth, 0.0f);
        const T *strip = from + first * across;
        if (across == 1) {
            for (int d = 0; d < depth; d++) {
                for (int i = 0; i < width; i++) to[d * WIDTH + i] = number(strip[i + d * along]);
            }
        } else {
            for (int i = 0; i < width; i++) {
                for (int d = 0; d < depth; d++) to[d * WIDTH + i] = number(strip[i * across + d * along]);
            }
        }
    }
}

static void add_products(const float *a, const float *b, int depth, float *sums) {
    Vector high[COLUMNS] = {}, low[COLUMNS] = {};
    for (int d = 0; d < depth; d++) {
        const Vector *column = reinterpret_cast<const Vector *>(a + d * ROWS);
#pragma GCC unroll 6
        for (int j = 0; j < COLUMNS; j++) {
            high[j] += column[0] * b[d * COLUMNS + j];
            low[j] += column[1] * b[d * COLUMNS + j];
        }
    }
    for (int j = 0; j < COLUMNS; j++) {
        Vector *column = reinterpret_cast<Vector *>(sums + j * TALL);
        column[0] += high[j];
        column[1] += low[j];
    }
}

struct Product {
    bool a_turned, b_turned;
    int m, n, k;
    float alpha, beta;
    long long lda, ldb, ldc;
};

template <typename In, typename Out> static void multiply(const Product &p, const In *a, const In *b, Out *c) {
    struct Room {
        alignas(64) float sums[TALL * WIDE], a[TALL * DEEP], b[WIDE * DEEP];
    };
    static thread_local std::vector<Room> kept(1);
    Room &room = kept[0];
    for (int column = 0; column < p.n; column += WIDE) {
        const int wide = std::min(WIDE, p.n - column);
        for (int row = 0; row < p.m; row += TALL) {
            const int tall = std::min(TALL, p.m - row);
            std::fill_n(room.sums, TALL * ((wide + COLUMNS - 1) / COLUMNS * COLUMNS), 0.0f);
            for (int at = 0; at < p.k; at += DEEP) {
                const int deep = std::min(DEEP, p.k - at);
                const long long a_row = p.a_turned ? p.lda : 1, a_next = p.a_turned ? 1 : p.lda;
                const long long b_column = p.b_turned ? 1 : p.ldb, b_next = p.b_turned ? p.ldb : 1;
                lay_out<ROWS>(a + row * a_row + at * a_next, a_row, a_next, tall, deep, room.a);
                lay_out<COLUMNS>(b + column * b_column + at * b_next, b_column, b_next, wide, deep, room.b);
                for (int j = 0; j < wide; j += COLUMNS) {
                    for (int i = 0; i < tall; i += ROWS) {
                        add_products(room.a + i * deep, room.b + j * deep, deep, room.sums + j * TALL + i);
                    }
                }
            }
            for (int j = 0; j < wide; j++) {
                Out *to = c + (column + j) * p.ldc + row;
                const float *sums = room.sums + j * TALL;
                for (int i = 0; i < tall; i++) {
                    // what is there is not read for a beta of 0, be it NaN
                    put(to + i, p.alpha * sums[i] + (p.beta == 0.0f ? 0.0f : p.beta * number(to[i])));
                }
            }
        }
    }
}

static size_t size_of(int type) { return type == F32 ? 4 : 2; }

// Bytes from a matrix's first value to its last.
static unsigned long long extent(long long rows, long long columns, long long lead, int type) {
    return rows && columns ? ((columns - 1) * lead + rows) * size_of(type) : 0;
}

// Whether a matrix is one that cuBLAS takes.
static bool fits(const char *what, long long rows, long long lead, const void *data, int type) {
    if (lead < std::max(1ll, rows)) {
        say("%s: a matrix of %lld rows with a leading dimension of %lld", what, rows, lead);
        return false;
    }
    if (reinterpret_cast<uintptr_t>(data) % size_of(type)) {
        say("%s: a matrix at %p, which is no place for values of %zu bytes", what, data, size_of(type));
        return false;
    }
    return true;
}

static Status products(const char *what, Handle *handle, int a_op, int b_op, int m, int n, int k, const void *alpha,
                       const void *a, int a_type, long long lda, long long a_step, const void *b, int b_type,
                       long long ldb, long long b_step, const void *beta, void *c, int c_type, long long ldc,
                       long long c_step, int count, int compute) {
    if (!handle) return NOT_INITIALIZED;
    if (m < 0 || n < 0 || k < 0 || count < 0 || a_op < 0 || a_op > 2 || b_op < 0 || b_op > 2 || !alpha || !beta) {
        say("%s: m %d, n %d, k %d, %d of them, operations %d and %d", what, m, n, k, count, a_op, b_op);
        return INVALID_VALUE;
    }
    // CUBLAS_COMPUTE_32F and _PEDANTIC take both types, _FAST_16F, _FAST_16BF and _FAST_TF32 only f32
    const bool any = compute == 68 || compute == 69, fast = compute == 74 || compute == 75 || compute == 77;
    const bool singles = a_type == F32 && b_type == F32 && c_type == F32 && (any || fast);
    const bool halves = a_type == BF16 && b_type == BF16 && (c_type == F32 || c_type == BF16) && any;
    if (!singles && !halves) {
        say("%s: types %d times %d into %d with compute type %d", what, a_type, b_type, c_type, compute);
        return NOT_SUPPORTED;
    }
    const int a_rows = a_op ? k : m, a_columns = a_op ? m : k, b_rows = b_op ? n : k, b_columns = b_op ? k : n;
    if (!fits(what, a_rows, lda, a, a_type) || !fits(what, b_rows, ldb, b, b_type) || !fits(what, m, ldc, c, c_type)) {
        return INVALID_VALUE;
    }
    const Product product = {a_op != 0, b_op != 0, m, n, k, *static_cast<const float *>(alpha),
                             *static_cast<const float *>(beta), lda, ldb, ldc};
    if (m == 0 || n == 0 || count == 0) return SUCCESS;
    OnStream on_stream(handle->stream);
    if (!on_stream.entered) return EXECUTION_FAILED;
    for (long long i = 0; i < count; i++) {
        const char *from_a = static_cast<const char *>(a) + i * a_step * size_of(a_type);
        const char *from_b = static_cast<const char *>(b) + i * b_step * size_of(b_type);
        char *to = static_cast<char *>(c) + i * c_step * size_of(c_type);
        auto check = [what](const void *data, unsigned long long bytes) {
            if (bytes) standin_range(reinterpret_cast<unsigned long long>(data), bytes, what);
        };
        check(from_a, extent(a_rows, a_columns, lda, a_type));
        check(from_b, extent(b_rows, b_columns, ldb, b_type));
        check(to, extent(m, n, ldc, c_type));
        if (standin_idle()) continue;
        auto f32 = [](const char *data) { return reinterpret_cast<const float *>(data); };
        auto bf16 = [](const char *data) { return reinterpret_cast<const uint16_t *>(data); };
        if (singles) multiply(product, f32(from_a), f32(from_b), reinterpret_cast<float *>(to));
        else if (c_type == F32) multiply(product, bf16(from_a), bf16(from_b), reinterpret_cast<float *>(to));
        else multiply(product, bf16(from_a), bf16(from_b), reinterpret_cast<uint16_t *>(to));
    }
    standin_product(what);
    return SUCCESS;
}

API Status cublasCreate_v2(Handle **handle) { return *handle = new Handle(), SUCCESS; }
API Status cublasDestroy_v2(Handle *handle) {
    if (!handle) return NOT_INITIALIZED;
    return delete handle, SUCCESS;
}
API Status cublasSetStream_v2(Handle *handle, void *stream) { return handle->stream = stream, SUCCESS; }
API Status cublasGetStream_v2(Handle *handle, void **stream) { return *stream = handle->stream, SUCCESS; }
// the device reads what the host does
API Status cublasSetPointerMode_v2(Handle *handle, int mode) { return handle->pointers = mode, SUCCESS; }
API Status cublasGetPointerMode_v2(Handle *handle, int *mode) { return *mode = handle->pointers, SUCCESS; }
API Status cublasSetMathMode(Handle *handle, int) { return handle ? SUCCESS : NOT_INITIALIZED; }
API Status cublasSetWorkspace_v2(Handle *handle, void *, size_t) { return handle ? SUCCESS : NOT_INITIALIZED; }
API Status cublasGetVersion_v2(Handle *, int *version) { return *version = 130000, SUCCESS; }

API const char *cublasGetStatusName(int status) {
    switch (status) {
    case SUCCESS: return "CUBLAS_STATUS_SUCCESS";
    case NOT_INITIALIZED: return "CUBLAS_STATUS_NOT_INITIALIZED";
    case INVALID_VALUE: return "CUBLAS_STATUS_INVALID_VALUE";
    case EXECUTION_FAILED: return "CUBLAS_STATUS_EXECUTION_FAILED";
    case NOT_SUPPORTED: return "CUBLAS_STATUS_NOT_SUPPORTED";
    default: return "unknown";
    }
}
API const char *cublasGetStatusString(int status) { return cublasGetStatusName(status); }

API Status cublasGemmEx(Handle *handle, int a_op, int b_op, int m, int n, int k, const void *alpha, const void *a,
                        int a_type, int lda, const void *b, int b_type, int ldb, const void *beta, void *c, int c_type,
                        int ldc, int compute, int) {
    return products(__func__, handle, a_op, b_op, m, n, k, alpha, a, a_type, lda, 0, b, b_type, ldb, 0, beta, c, c_type,
                    ldc, 0, 1, compute);
}
API Status cublasGemmStridedBatchedEx(Handle *handle, int a_op, int b_op, int m, int n, int k, const void *alpha,
                                      const void *a, int a_type, int lda, long long a_step, const void *b, int b_type,
                                      int ldb, long long b_step, const void *beta, void *c, int c_type, int ldc,
                                      long long c_step, int count, int compute, int) {
    return products(__func__, handle, a_op, b_op, m, n, k, alpha, a, a_type, lda, a_step, b, b_type, ldb, b_step, beta,
                    c, c_type, ldc, c_step, count, compute);
}
API Status cublasSgemm_v2(Handle *handle, int a_op, int b_op, int m, int n, int k, const float *alpha, const float *a,
                          int lda, const float *b, int ldb, const float *beta, float *c, int ldc) {
    return products(__func__, handle, a_op, b_op, m, n, k, alpha, a, F32, lda, 0, b, F32, ldb, 0, beta, c, F32, ldc, 0,
                    1, 68);
}
API Status cublasSgemmStridedBatched(Handle *handle, int a_op, int b_op, int m, int n, int k, const float *alpha,
                                     const float *a, int lda, long long a_step, const float *b, int ldb,
                                     long long b_step, const float *beta, float *c, int ldc, long long c_step,
                                     int count) {
    return products(__func__, handle, a_op, b_op, m, n, k, alpha, a, F32, lda, a_step, b, F32, ldb, b_step, beta, c,
                    F32, ldc, c_step, count, 68);
}
