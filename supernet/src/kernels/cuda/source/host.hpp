// The part of CUDA C that the kernels use, for a host compiler: threads of a block are loops, blocks are run one after the
// other. For tests; nothing here is fast.

#pragma once
#include <cmath>
#include <cstring>
#include <utility>

typedef unsigned short bits16;
static thread_local long long block_index;
#define KERNEL static void
#define INLINE static inline
#define SHARED static thread_local
#define PRIVATE(type, name, count) type name[THREADS][count]
#define MINE(name) name[thread]
#define EACH_THREAD for (int thread = 0; thread < THREADS; thread++)
#define BLOCK block_index
#define UNROLL

INLINE unsigned int bits_of(float value) {
    unsigned int bits;
    memcpy(&bits, &value, sizeof bits);
    return bits;
}
INLINE float float_of(unsigned int bits) {
    float value;
    memcpy(&value, &bits, sizeof value);
    return value;
}

// Calls a kernel with arguments as the driver takes them: pointers to their values.
template <typename... A, size_t... I>
static void call(void (*kernel)(A...), void **arguments, std::index_sequence<I...>) {
    kernel(*static_cast<std::remove_const_t<A> *>(arguments[I])...);
}
template <typename... A> static void launch(void (*kernel)(A...), long long blocks, void **arguments) {
    for (block_index = 0; block_index < blocks; block_index++) {
        call(kernel, arguments, std::index_sequence_for<A...>());
    }
}
#define EXPORT(kernel) \
    extern "C" void host_##kernel(long long blocks, void **arguments) { launch(kernel, blocks, arguments); }
