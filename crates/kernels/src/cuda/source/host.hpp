// The part of CUDA C that the kernels use, for a host compiler: threads of a block are loops, blocks are run one after the
// other. For tests; nothing here is fast.

#pragma once
#include <cmath>
#include <cstdint>
#include <cstdio>
#include <cstdlib>
#include <cstring>
#include <utility>

typedef unsigned short bits16;
static thread_local long long block_index;
#define KERNEL static void
#define KERNEL_OF(blocks) static void
#define INLINE static inline
#define INLINE_MEMBER inline
#define SHARED alignas(16) static thread_local
#define PRIVATE(type, name, count) type name[THREADS][count]
#define MINE(name) name[thread]
// Every other launch runs threads and blocks from the last to the first: what a thread reads of another's work between two
// barriers, and a GPU may have done or not, shows as a wrong result in one of the two.
static thread_local bool reversed;
#define EACH_THREAD                                                                                                   \
    for (int turn = 0, thread = reversed ? THREADS - 1 : 0; turn < THREADS; turn++, thread += reversed ? -1 : 1)
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
INLINE unsigned int half_of(float value) {
    unsigned int bits = bits_of(value);
    // no number stays none when its lower half is gone
    return value != value ? (bits >> 16) | 64 : (bits + 0x7fff + ((bits >> 16) & 1)) >> 16;
}
INLINE unsigned int halves_of(float low, float high) { return half_of(low) | half_of(high) << 16; }
// A GPU faults if several bytes are read at a place that is no multiple of their number; so does the host.
INLINE void move(void *to, const void *from, size_t bytes, const void *place) {
    if (reinterpret_cast<uintptr_t>(place) % bytes != 0) {
        fprintf(stderr, "%zu bytes at once at a place that is no multiple of them\n", bytes);
        abort();
    }
    memcpy(to, from, bytes);
}
INLINE void fetch16(const void *from, unsigned int *words) { move(words, from, 16, from); }
INLINE void put16(void *to, const unsigned int *words) { move(to, words, 16, to); }
INLINE void fetch8(const void *from, unsigned int *words) { move(words, from, 8, from); }
INLINE void put8(void *to, const unsigned int *words) { move(to, words, 8, to); }
INLINE void put4(void *to, const unsigned int *words) { move(to, words, 4, to); }

// Calls a kernel with arguments as the driver takes them: pointers to their values.
template <typename... A, size_t... I>
static void call(void (*kernel)(A...), void **arguments, std::index_sequence<I...>) {
    kernel(*static_cast<std::remove_const_t<A> *>(arguments[I])...);
}
template <typename... A> static void launch(void (*kernel)(A...), long long blocks, void **arguments) {
    reversed = !reversed;
    for (long long turn = 0; turn < blocks; turn++) {
        block_index = reversed ? blocks - 1 - turn : turn;
        call(kernel, arguments, std::index_sequence_for<A...>());
    }
}
#define EXPORT(kernel) \
    extern "C" void host_##kernel(long long blocks, void **arguments) { launch(kernel, blocks, arguments); }
