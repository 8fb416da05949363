// What every kernel stands on. All of it is CUDA C for nvrtc, and C++ for a host compiler, with which the kernels are
// tested where there is no GPU.
//
// A kernel runs in blocks of THREADS threads. What lies between two barriers stands in EACH_THREAD { ... }: on the GPU
// each thread runs its body once and waits for the others; on the host it is a loop over the threads of the block. What a
// thread keeps from one such part to the next is PRIVATE, what it shares with its block is SHARED. So a barrier never
// stands in a branch that threads take differently, and nothing depends on which thread is first.
//
// Sums are in f32 and in an order that depends on sizes alone: no atomics.

#define THREADS 256

#ifdef __CUDACC__
typedef unsigned short bits16;
#define KERNEL extern "C" __global__ void __launch_bounds__(THREADS)
#define INLINE static __device__ __forceinline__
#define SHARED __shared__
#define PRIVATE(type, name, count) type name[1][count]
#define MINE(name) name[0]
#define EACH_THREAD for (int thread = threadIdx.x, once = 1; once; once = 0, __syncthreads())
#define BLOCK ((long long)blockIdx.x)
#define UNROLL _Pragma("unroll")
#define EXPORT(kernel)
INLINE unsigned int bits_of(float value) { return __float_as_uint(value); }
INLINE float float_of(unsigned int bits) { return __uint_as_float(bits); }
#else
#include "host.hpp"
#endif

// Activations are kept as f32 or as the upper half of one (bfloat16), rounded to nearest even; all arithmetic is in f32.
#ifdef BF16
typedef bits16 value_t;
INLINE float load(const value_t *from, long long at) { return float_of((unsigned int)from[at] << 16); }
INLINE void store(value_t *to, long long at, float value) {
    unsigned int bits = bits_of(value);
    if (value != value) {
        to[at] = (value_t)((bits >> 16) | 64);  // still no number when its lower half is gone
    } else {
        to[at] = (value_t)((bits + 0x7fff + ((bits >> 16) & 1)) >> 16);
    }
}
#else
typedef float value_t;
INLINE float load(const value_t *from, long long at) { return from[at]; }
INLINE void store(value_t *to, long long at, float value) { to[at] = value; }
#endif

INLINE long long smaller(long long a, long long b) { return a < b ? a : b; }

// Activations by number, as `cuda::activation_number` gives them.
enum { NONE, RELU, RELU6, HSWISH, HSIGMOID };

INLINE float clamp(float value, float low, float high) {
    // a NaN stays one
    return value < low ? low : value > high ? high : value;
}

INLINE float activate(int activation, float z) {
    switch (activation) {
    case RELU: return z < 0.0f ? 0.0f : z;
    case RELU6: return clamp(z, 0.0f, 6.0f);
    case HSWISH: return z * (clamp(z + 3.0f, 0.0f, 6.0f) * (1.0f / 6.0f));
    case HSIGMOID: return clamp(z + 3.0f, 0.0f, 6.0f) * (1.0f / 6.0f);
    default: return z;
    }
}

INLINE float slope(int activation, float z) {
    switch (activation) {
    case RELU: return z > 0.0f ? 1.0f : 0.0f;
    case RELU6: return z > 0.0f && z < 6.0f ? 1.0f : 0.0f;
    case HSWISH: return z <= -3.0f ? 0.0f : z >= 3.0f ? 1.0f : z * (1.0f / 3.0f) + 0.5f;
    case HSIGMOID: return z > -3.0f && z < 3.0f ? 1.0f / 6.0f : 0.0f;
    default: return 1.0f;
    }
}

// What a batch norm does to the values of one row.
struct Affine {
    float mean, scale, gamma, beta;
};

INLINE Affine affine_of(const float *stats, const float *gamma, const float *beta, long long rows, long long row,
                        float epsilon) {
    Affine affine = {stats[row], 1.0f / sqrtf(stats[rows + row] + epsilon), gamma[row], beta[row]};
    return affine;
}

INLINE float apply(Affine affine, int activation, float x) {
    return activate(activation, affine.gamma * ((x - affine.mean) * affine.scale) + affine.beta);
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
