// The base of every kernel: CUDA C for nvrtc, and C++ for a host compiler, with which the kernels are tested where there
// is no GPU.
//
// A kernel runs in blocks of THREADS threads. Code between two barriers stands in EACH_THREAD { ... }: on the GPU
// each thread runs its body once and waits for the others; on the host it is a loop over the threads of the block. Values
// that a thread retains from one such part to the next are PRIVATE, values shared with its block are SHARED. So a barrier
// never stands in a branch that threads take differently, and nothing depends on which thread is first.
//
// Sums are in f32 and in an order that depends on sizes alone, and on whether a tensor begins at a multiple of 16 bytes, as
// those of an allocation do: no atomics.

#define THREADS 256

#ifdef __CUDACC__
typedef unsigned short bits16;
#define KERNEL extern "C" __global__ void __launch_bounds__(THREADS)
// A kernel of which a multiprocessor must have room for `blocks` blocks.
#define KERNEL_OF(blocks) extern "C" __global__ void __launch_bounds__(THREADS, blocks)
#define INLINE static __device__ __forceinline__
#define INLINE_MEMBER __device__ __forceinline__
#define SHARED __shared__ __align__(16)
#define PRIVATE(type, name, count) type name[1][count]
#define MINE(name) name[0]
#define EACH_THREAD for (int thread = threadIdx.x, once = 1; once; once = 0, __syncthreads())
#define BLOCK ((long long)blockIdx.x)
#define UNROLL _Pragma("unroll")
#define EXPORT(kernel)
INLINE unsigned int bits_of(float value) { return __float_as_uint(value); }
INLINE float float_of(unsigned int bits) { return __uint_as_float(bits); }
// Two values as bfloat16, rounded to nearest even, the first in the lower half.
INLINE unsigned int halves_of(float low, float high) {
    unsigned int both;
    asm("cvt.rn.bf16x2.f32 %0, %1, %2;" : "=r"(both) : "f"(high), "f"(low));
    return both;
}
// Sixteen bytes that begin at a multiple of sixteen.
INLINE void fetch16(const void *from, unsigned int *words) {
    uint4 four = *(const uint4 *)from;
    words[0] = four.x, words[1] = four.y, words[2] = four.z, words[3] = four.w;
}
INLINE void put16(void *to, const unsigned int *words) {
    *(uint4 *)to = make_uint4(words[0], words[1], words[2], words[3]);
}
// Eight bytes that begin at a multiple of eight.
INLINE void fetch8(const void *from, unsigned int *words) {
    uint2 two = *(const uint2 *)from;
    words[0] = two.x, words[1] = two.y;
}
INLINE void put8(void *to, const unsigned int *words) { *(uint2 *)to = make_uint2(words[0], words[1]); }
INLINE void put4(void *to, const unsigned int *words) { *(unsigned int *)to = *words; }
#else
#include "host.hpp"
#endif

// Activations are kept as f32 or as the upper half of one (bfloat16), rounded to nearest even; all arithmetic is in f32.
// WIDE values are 16 bytes.
#ifdef BF16
typedef bits16 value_t;
#define WIDE 8
INLINE float load(const value_t *from, long long at) { return float_of((unsigned int)from[at] << 16); }
INLINE void store(value_t *to, long long at, float value) { to[at] = (value_t)halves_of(value, 0.0f); }
#else
typedef float value_t;
#define WIDE 4
INLINE float load(const value_t *from, long long at) { return from[at]; }
INLINE void store(value_t *to, long long at, float value) { to[at] = value; }
#endif

// Neighboring values as they lie in memory: one, or WIDE of them, which begin at a multiple of 16 bytes. Bytes in
// flight keep memory busy: reads of 16 bytes need an eighth of the threads that reads of two bytes need.
template <int WIDTH> struct Pack;
template <> struct Pack<1> {
    value_t only;
    INLINE_MEMBER void fetch(const value_t *from) { only = *from; }
    INLINE_MEMBER float value(int) const { return load(&only, 0); }
};
template <> struct Pack<WIDE> {
    unsigned int words[4];
    INLINE_MEMBER void fetch(const value_t *from) { fetch16(from, words); }
    INLINE_MEMBER float value(int k) const {
#ifdef BF16
        return float_of(k % 2 ? words[k / 2] & 0xffff0000 : words[k / 2] << 16);
#else
        return float_of(words[k]);
#endif
    }
};

// Stores neighbors at once: a place that is a multiple of so many values.
template <int COUNT> INLINE void store_values(value_t *to, const float (&values)[COUNT]) {
    if constexpr (COUNT == 1) {
        store(to, 0, values[0]);
    } else {
        constexpr int WORDS = COUNT * sizeof(value_t) / 4;
        unsigned int words[WORDS];
#ifdef BF16
        UNROLL for (int k = 0; k < WORDS; k++) words[k] = halves_of(values[2 * k], values[2 * k + 1]);
#else
        UNROLL for (int k = 0; k < WORDS; k++) words[k] = bits_of(values[k]);
#endif
        if constexpr (WORDS == 4) put16(to, words);
        if constexpr (WORDS == 2) put8(to, words);
        if constexpr (WORDS == 1) put4(to, words);
    }
}

// Whether an array may be read by packs; null may.
INLINE bool even(const void *from) { return (unsigned long long)from % 16 == 0; }

// Visits the values from `first` to before `last` of `INPUTS` arrays, WIDTH neighbors at a time: `body(at, packs)` gets
// those that begin at `at`, a pack of each array. Several packs are read before the first is used. Both ends are multiples
// of WIDTH.
template <int WIDTH, int INPUTS, class Body>
INLINE void stream(const value_t *const (&from)[INPUTS], unsigned int first, unsigned int last, int thread, Body body) {
    constexpr int ahead = WIDTH == 1 ? 8 : INPUTS == 1 ? 4 : 2;
    constexpr unsigned int step = THREADS * WIDTH;
    for (unsigned int at = first + thread * WIDTH; at < last; at += ahead * step) {
        Pack<WIDTH> packs[ahead][INPUTS];
        UNROLL for (int j = 0; j < ahead; j++) {
            if (at + j * step < last) {
                UNROLL for (int i = 0; i < INPUTS; i++) packs[j][i].fetch(from[i] + at + j * step);
            }
        }
        UNROLL for (int j = 0; j < ahead; j++) {
            if (at + j * step < last) body(at + j * step, packs[j]);
        }
    }
}

INLINE long long smaller(long long a, long long b) { return a < b ? a : b; }

// The span, of several equal ones, that a place is in, and its distance to the next: for a walk from value to value that
// divides only at its beginning.
struct Walk {
    unsigned int span, left, size;
    INLINE_MEMBER Walk(unsigned int at, unsigned int size) : span(at / size), left(size - at % size), size(size) {}
    // Moves to the next value; returns whether it is in another span.
    INLINE_MEMBER bool next() {
        if (--left) return false;
        span++;
        left = size;
        return true;
    }
};

// Activations by number, as `cuda::number` gives them.
enum { NONE, RELU, RELU6, HSWISH, HSIGMOID };

// An activation without branches: clamp(z + shift, low, high) * factor, or z times that. A NaN stays one.
struct Activation {
    float shift, low, high, factor;
    bool times;
};

INLINE Activation activation_of(int number) {
    const float endless = float_of(0x7f800000);
    Activation hard = {3.0f, 0.0f, 6.0f, 1.0f / 6.0f, number == HSWISH};
    Activation plain = {0.0f, number == NONE ? -endless : 0.0f, number == RELU6 ? 6.0f : endless, 1.0f, false};
    return number == HSWISH || number == HSIGMOID ? hard : plain;
}

INLINE float activate(Activation activation, float z) {
    float moved = z + activation.shift;
    moved = moved < activation.low ? activation.low : moved > activation.high ? activation.high : moved;
    return (activation.times ? z : 1.0f) * (moved * activation.factor);
}

INLINE float slope(Activation activation, float z) {
    float moved = z + activation.shift;
    bool inside = moved > activation.low && moved < activation.high;
    float bounded = moved < activation.low ? activation.low : moved > activation.high ? activation.high : moved;
    float here = inside ? activation.factor : 0.0f;
    return activation.times ? bounded * activation.factor + z * here : here;
}

// A batch norm and its activation on the values of one row.
struct Affine {
    float mean, scale, gamma, beta;
    Activation activation;
    INLINE_MEMBER float unscaled(float x) const { return (x - mean) * scale; }
    INLINE_MEMBER float shifted(float xhat) const { return gamma * xhat + beta; }
    INLINE_MEMBER float apply(float x) const { return activate(activation, shifted(unscaled(x))); }
};

INLINE Affine affine_of(const float *stats, const float *gamma, const float *beta, long long rows, long long row,
                        float epsilon, int activation) {
    float scale = 1.0f / sqrtf(stats[rows + row] + epsilon);
    Affine affine = {stats[row], scale, gamma[row], beta[row], activation_of(activation)};
    return affine;
}

// Adds up the threads' values of `count` arrays, each in its first place.
template <int COUNT> INLINE void add_up(float (*sums)[THREADS]) {
    for (int half = THREADS / 2; half > 0; half /= 2) {
        EACH_THREAD {
            if (thread < half) {
                for (int i = 0; i < COUNT; i++) sums[i][thread] += sums[i][thread + half];
            }
        }
    }
}
