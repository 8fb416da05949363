// A stand-in for NVIDIA's driver (libcuda), with which a CUDA build runs on a machine that has no GPU.
//
// With blas.cpp, random.cpp and nvrtc.cpp it rehearses what lies between a program and the hardware: which functions
// are called with what, how memory is allocated, copied and freed, which kernels are launched with which arguments.
// Device memory is host memory, every stream does its work at once, and kernels are this project's own texts compiled
// for the host (see crates/kernels/src/cuda/source/host.hpp).
//
// It is stricter than a GPU: fresh memory is full of NaN, writes outside an allocation are found, copies must lie in one
// allocation. What it cannot show: speed, host memory that is freed or changed while a copy of it is still going on,
// missing waits between streams, host code that reads device memory, rounding of tensor cores, and CUDA C that only a
// host compiler takes. Kernels of candle are not there: asking for one is an error that names it, and so is calling a
// function that nothing here needed yet.
//
// Environment: STANDIN_DEVICES=0 (no device), STANDIN_MEMORY=bytes (the device's memory; 80e9 otherwise),
// STANDIN_CHECK=1 (looks for stray writes after every kernel, not only at waits and frees), STANDIN_REPORT=1 (prints a
// summary at exit), STANDIN_IDLE=1 (kernels and products are taken and not computed: the remaining time of a step is
// that of the host), STANDIN_SOURCE (see nvrtc.cpp).

#include "standin.hpp"

#include <dlfcn.h>

#include <algorithm>
#include <atomic>
#include <chrono>
#include <cstdint>
#include <cstdlib>
#include <cstring>
#include <map>
#include <mutex>
#include <unordered_set>

typedef unsigned long long Address;
typedef std::chrono::steady_clock Clock;

enum Result {
    SUCCESS = 0,
    INVALID_VALUE = 1,
    OUT_OF_MEMORY = 2,
    NOT_INITIALIZED = 3,
    NO_DEVICE = 100,
    INVALID_DEVICE = 101,
    INVALID_IMAGE = 200,
    INVALID_CONTEXT = 201,
    INVALID_HANDLE = 400,
    NOT_FOUND = 500,
    NOT_SUPPORTED = 801,
};

struct Name {
    int result;
    const char *name, *text;
};

static const Name NAMES[] = {
    {SUCCESS, "CUDA_SUCCESS", "no error"},
    {INVALID_VALUE, "CUDA_ERROR_INVALID_VALUE", "invalid argument"},
    {OUT_OF_MEMORY, "CUDA_ERROR_OUT_OF_MEMORY", "out of memory"},
    {NOT_INITIALIZED, "CUDA_ERROR_NOT_INITIALIZED", "initialization error"},
    {NO_DEVICE, "CUDA_ERROR_NO_DEVICE", "no CUDA-capable device is detected"},
    {INVALID_DEVICE, "CUDA_ERROR_INVALID_DEVICE", "invalid device ordinal"},
    {INVALID_IMAGE, "CUDA_ERROR_INVALID_IMAGE", "device kernel image is invalid"},
    {INVALID_CONTEXT, "CUDA_ERROR_INVALID_CONTEXT", "invalid device context"},
    {INVALID_HANDLE, "CUDA_ERROR_INVALID_HANDLE", "invalid resource handle"},
    {NOT_FOUND, "CUDA_ERROR_NOT_FOUND", "named symbol not found"},
    {NOT_SUPPORTED, "CUDA_ERROR_NOT_SUPPORTED", "operation not supported"},
};

struct Allocation {
    size_t bytes;
    bool pinned;
    char *block;
};

struct Stream {
    std::mutex mutex;
};

struct Event {
    bool timed, recorded;
    Clock::time_point time;
};

typedef void Kernel(long long blocks, void **arguments);

struct Function {
    std::string name;
    Kernel *kernel;
    std::atomic<long long> *launches;
};

struct Module {
    void *library;  // null where it is none of ours
    std::map<std::string, Function> functions;
};

// Never taken down: what others keep until the process ends is freed after this library's own objects.
struct State {
    std::mutex mutex;
    std::map<Address, Allocation> allocations;
    std::unordered_set<const void *> handles;  // of streams, events and modules
    std::map<std::string, std::atomic<long long>> launches, products;
    std::atomic<bool> initialized{false};
    std::atomic<int> contexts{0};
    std::atomic<size_t> to_device{0}, from_device{0}, on_device{0};
    size_t used = 0, peak = 0, pinned = 0, pinned_peak = 0, allocated = 0, freed = 0;
    size_t memory = 80'000'000'000;
    bool none = false, check = false, report = false, idle = false;

    State() {
        const char *devices = getenv("STANDIN_DEVICES"), *bytes = getenv("STANDIN_MEMORY");
        none = devices && !strcmp(devices, "0");
        if (bytes) memory = strtoull(bytes, nullptr, 10);
        check = getenv("STANDIN_CHECK");
        report = getenv("STANDIN_REPORT");
        idle = getenv("STANDIN_IDLE");
    }
};

static State &state = *new State;
static Stream legacy_stream;
static thread_local Stream thread_stream;
static thread_local void *current_context;
static int the_context, the_pool;

typedef std::lock_guard<std::mutex> Guard;

template <typename... Values> [[noreturn]] static void die(const char *format, Values... values) {
    say(format, values...);
    abort();
}

// Whether functions that need the driver, and a context on this thread, may be called.
static Result ready(const char *function) {
    if (!state.initialized) return NOT_INITIALIZED;
    if (current_context && state.contexts > 0) return SUCCESS;
    say("%s: this thread has no context", function);
    return INVALID_CONTEXT;
}
#define READY                                       \
    if (Result wrong = ready(__func__)) return wrong

static bool alive(const void *handle) {
    Guard guard(state.mutex);
    return state.handles.count(handle);
}

template <typename T> static T *made(T *handle) {
    Guard guard(state.mutex);
    state.handles.insert(handle);
    return handle;
}

template <typename T> static Result unmade(void *handle) {
    {
        Guard guard(state.mutex);
        if (!state.handles.erase(handle)) return INVALID_HANDLE;
    }
    delete static_cast<T *>(handle);
    return SUCCESS;
}

static Stream *stream_of(void *handle) {
    switch (reinterpret_cast<uintptr_t>(handle)) {
    case 0:
    case 1: return &legacy_stream;
    case 2: return &thread_stream;
    }
    if (alive(handle)) return static_cast<Stream *>(handle);
    say("%p is no stream", handle);
    return nullptr;
}

API bool standin_enter(void *handle) {
    Stream *stream = stream_of(handle);
    if (stream) stream->mutex.lock();
    return stream;
}
API void standin_leave(void *handle) { stream_of(handle)->mutex.unlock(); }
#define ON(stream)             \
    OnStream on_stream(stream); \
    if (!on_stream.entered) return INVALID_HANDLE

// Memory.

// Before an allocation's first byte, for alignment; the last of it are guards.
constexpr size_t LEAD = 256, GUARDS = 64;
constexpr unsigned char GUARD = 0xA5, FRESH = 0xFF;

static void look_at(const Allocation &allocation, const char *when) {
    const char *first = allocation.block + LEAD, *last = first + allocation.bytes;
    for (const char *guards : {first - GUARDS, last}) {
        for (size_t i = 0; i < GUARDS; i++) {
            if (static_cast<unsigned char>(guards[i]) == GUARD) continue;
            const char *side = guards == last ? "past the end" : "before the start";
            long long away = guards == last ? i + 1 : GUARDS - i;
            die("a write, %lld bytes %s of %zu bytes of %s memory at %p, found %s", away, side, allocation.bytes,
                allocation.pinned ? "pinned" : "device", static_cast<const void *>(first), when);
        }
    }
}

static void look_at_all(const char *when) {
    Guard guard(state.mutex);
    for (auto &[address, allocation] : state.allocations) look_at(allocation, when);
}

// Linux grants more memory than there is and kills who uses it; a program that asks for most of a GPU must not end so.
static bool on_this_machine(size_t bytes) {
    if (bytes < size_t(1) << 28) return true;
    FILE *file = fopen("/proc/meminfo", "r");
    char line[256];
    unsigned long long available = ~0ull >> 10;
    while (file && fgets(line, sizeof line, file)) sscanf(line, "MemAvailable: %llu", &available);
    if (file) fclose(file);
    return bytes < available << 10;
}

static Result allocate(Address *address, size_t bytes, bool pinned) {
    Guard guard(state.mutex);
    if (!pinned && bytes > state.memory - state.used) return OUT_OF_MEMORY;
    void *block = nullptr;
    if (!on_this_machine(bytes) || posix_memalign(&block, LEAD, LEAD + bytes + GUARDS)) {
        say("this machine has no %zu bytes for it, the device would", bytes);
        return OUT_OF_MEMORY;
    }
    char *first = static_cast<char *>(block) + LEAD;
    memset(first - GUARDS, GUARD, GUARDS);
    if (!state.idle) memset(first, FRESH, bytes);
    memset(first + bytes, GUARD, GUARDS);
    *address = reinterpret_cast<Address>(first);
    state.allocations[*address] = {bytes, pinned, static_cast<char *>(block)};
    state.allocated++;
    size_t &used = pinned ? state.pinned : state.used, &peak = pinned ? state.pinned_peak : state.peak;
    used += bytes;
    peak = std::max(peak, used);
    return SUCCESS;
}

static Result release(Address address, bool pinned) {
    if (!address) return SUCCESS;
    Guard guard(state.mutex);
    auto found = state.allocations.find(address);
    const char *kind = pinned ? "pinned" : "device";
    if (found == state.allocations.end() || found->second.pinned != pinned) {
        die("%p is freed, which is no %s memory, or no longer", reinterpret_cast<void *>(address), kind);
    }
    const Allocation allocation = found->second;
    look_at(allocation, "when it was freed");
    state.allocations.erase(found);
    memset(allocation.block + LEAD, FRESH, allocation.bytes);
    free(allocation.block);
    state.freed++;
    (pinned ? state.pinned : state.used) -= allocation.bytes;
    return SUCCESS;
}

// The allocation that the address lies in; the state is locked.
static const Allocation *around(Address address) {
    auto after = state.allocations.upper_bound(address);
    if (after == state.allocations.begin()) return nullptr;
    auto &[first, allocation] = *std::prev(after);
    return address < first + std::max<size_t>(allocation.bytes, 1) ? &allocation : nullptr;
}

static bool holds(const Allocation *allocation, Address address, Address bytes) {
    Address at = address - reinterpret_cast<Address>(allocation->block + LEAD);
    return bytes <= allocation->bytes - at;
}

API void standin_range(Address address, Address bytes, const char *what) {
    Guard guard(state.mutex);
    const Allocation *allocation = around(address);
    void *at = reinterpret_cast<void *>(address);
    if (!allocation || allocation->pinned) die("%s: %llu bytes at %p are not on the device", what, bytes, at);
    if (!holds(allocation, address, bytes)) {
        die("%s: %llu bytes at %p, byte %lld of an allocation of %zu", what, bytes, at,
            static_cast<char *>(at) - allocation->block - static_cast<long long>(LEAD), allocation->bytes);
    }
}

// Host memory is not known, but for what is pinned and for what is not the host's.
static void check_host(const void *from, size_t bytes, const char *what) {
    Guard guard(state.mutex);
    Address address = reinterpret_cast<Address>(from);
    const Allocation *allocation = around(address);
    if (!allocation) return;
    if (!allocation->pinned) die("%s: %p is on the device, not on the host", what, from);
    if (!holds(allocation, address, bytes)) {
        die("%s: %zu bytes at %p in a pinned allocation of %zu", what, bytes, from, allocation->bytes);
    }
}

static void *pointer(Address address) { return reinterpret_cast<void *>(address); }

static Result to_device(Address to, const void *from, size_t bytes) {
    if (!bytes) return SUCCESS;
    standin_range(to, bytes, "a copy to the device");
    check_host(from, bytes, "a copy to the device");
    memcpy(pointer(to), from, bytes);
    state.to_device += bytes;
    return SUCCESS;
}

static Result from_device(void *to, Address from, size_t bytes) {
    if (!bytes) return SUCCESS;
    standin_range(from, bytes, "a copy from the device");
    check_host(to, bytes, "a copy from the device");
    memcpy(to, pointer(from), bytes);
    state.from_device += bytes;
    return SUCCESS;
}

static Result on_device(Address to, Address from, size_t bytes) {
    if (!bytes) return SUCCESS;
    standin_range(from, bytes, "what is copied on the device");
    standin_range(to, bytes, "a copy on the device");
    if (from < to + bytes && to < from + bytes) die("a copy on the device onto itself");
    memcpy(pointer(to), pointer(from), bytes);
    state.on_device += bytes;
    return SUCCESS;
}

static Result fill(Address to, unsigned char value, size_t bytes) {
    if (!bytes) return SUCCESS;
    standin_range(to, bytes, "a fill");
    memset(pointer(to), value, bytes);
    return SUCCESS;
}

// The driver, its device and contexts.

API Result cuInit(unsigned int) {
    if (state.none) return NO_DEVICE;
    state.initialized = true;
    return SUCCESS;
}
API Result cuDriverGetVersion(int *version) { return *version = 13000, SUCCESS; }

static const Name *name_of(int result) {
    auto is = [=](const Name &name) { return name.result == result; };
    const Name *found = std::find_if(std::begin(NAMES), std::end(NAMES), is);
    return found == std::end(NAMES) ? nullptr : found;
}
API Result cuGetErrorName(int result, const char **name) {
    const Name *found = name_of(result);
    *name = found ? found->name : nullptr;
    return found ? SUCCESS : INVALID_VALUE;
}
API Result cuGetErrorString(int result, const char **text) {
    const Name *found = name_of(result);
    *text = found ? found->text : nullptr;
    return found ? SUCCESS : INVALID_VALUE;
}

API Result cuDeviceGetCount(int *count) {
    *count = 1;
    return state.initialized ? SUCCESS : NOT_INITIALIZED;
}
API Result cuDeviceGet(int *device, int ordinal) {
    if (!state.initialized) return NOT_INITIALIZED;
    *device = ordinal;
    return ordinal == 0 ? SUCCESS : INVALID_DEVICE;
}
API Result cuDeviceGetName(char *name, int size, int) { return snprintf(name, size, "stand-in"), SUCCESS; }
API Result cuDeviceTotalMem_v2(size_t *bytes, int) { return *bytes = state.memory, SUCCESS; }
API Result cuDeviceGetAttribute(int *value, int attribute, int) {
    // by number in `CUdevice_attribute`, as an H100 has them; what nobody asks for is 0
    static const std::map<int, int> values = {
        {1, 1024},     {2, 1024},    {3, 1024},      {4, 64},     {5, 2147483647}, {6, 65535},    // threads, blocks
        {7, 65535},    {8, 49152},   {9, 65536},     {10, 32},    {12, 65536},     {13, 1980000}, // a block's, warp
        {14, 512},     {15, 1},      {16, 132},      {19, 1},     {31, 1},         {32, 1},       // multiprocessors
        {36, 2619000}, {37, 5120},   {38, 52428800}, {39, 2048},  {40, 3},         {41, 1},       // memory
        {75, 9},       {76, 0},      {78, 1},        {79, 1},     {80, 1},         {81, 233472},  // capability 9.0
        {82, 65536},   {83, 1},      {89, 1},        {95, 1},     {97, 232448},    {106, 32},     // a multiprocessor's
        {115, 1},                                                                                 // memory pools
    };
    auto found = values.find(attribute);
    *value = found == values.end() ? 0 : found->second;
    return SUCCESS;
}

API Result cuDevicePrimaryCtxRetain(void **context, int) {
    if (!state.initialized) return NOT_INITIALIZED;
    state.contexts++;
    return *context = &the_context, SUCCESS;
}
API Result cuDevicePrimaryCtxRelease_v2(int) {
    if (--state.contexts >= 0) return SUCCESS;
    state.contexts++;
    return INVALID_CONTEXT;
}
API Result cuCtxGetCurrent(void **context) {
    *context = current_context;
    return state.initialized ? SUCCESS : NOT_INITIALIZED;
}
API Result cuCtxSetCurrent(void *context) {
    if (context && context != &the_context) return INVALID_CONTEXT;
    current_context = context;
    return SUCCESS;
}
API Result cuCtxSetFlags(unsigned int) { return ready(__func__); }
API Result cuCtxSynchronize() {
    READY;
    look_at_all("when the context was waited for");
    return SUCCESS;
}

// Memory, as the driver has it.

API Result cuMemGetInfo_v2(size_t *free, size_t *total) {
    READY;
    Guard guard(state.mutex);
    return *total = state.memory, *free = state.memory - state.used, SUCCESS;
}
API Result cuMemAlloc_v2(Address *address, size_t bytes) {
    READY;
    return bytes ? allocate(address, bytes, false) : INVALID_VALUE;
}
API Result cuMemAllocAsync(Address *address, size_t bytes, void *stream) {
    READY;
    ON(stream);
    // nothing is nowhere, but no error here
    if (!bytes) return *address = 0, SUCCESS;
    return allocate(address, bytes, false);
}
API Result cuMemFree_v2(Address address) { return release(address, false); }
API Result cuMemFreeAsync(Address address, void *stream) {
    ON(stream);
    return release(address, false);
}
API Result cuMemHostAlloc(void **address, size_t bytes, unsigned int) {
    READY;
    return bytes ? allocate(reinterpret_cast<Address *>(address), bytes, true) : INVALID_VALUE;
}
API Result cuMemFreeHost(void *address) { return release(reinterpret_cast<Address>(address), true); }

API Result cuMemcpyHtoDAsync_v2(Address to, const void *from, size_t bytes, void *stream) {
    ON(stream);
    return to_device(to, from, bytes);
}
API Result cuMemcpyDtoHAsync_v2(void *to, Address from, size_t bytes, void *stream) {
    ON(stream);
    return from_device(to, from, bytes);
}
API Result cuMemcpyDtoDAsync_v2(Address to, Address from, size_t bytes, void *stream) {
    ON(stream);
    return on_device(to, from, bytes);
}
API Result cuMemsetD8Async(Address to, unsigned char value, size_t bytes, void *stream) {
    ON(stream);
    return fill(to, value, bytes);
}

API Result cuDeviceGetDefaultMemPool(void **pool, int) { return *pool = &the_pool, SUCCESS; }
API Result cuMemPoolSetAttribute(void *pool, int, void *) { return pool == &the_pool ? SUCCESS : INVALID_VALUE; }

// Streams and events.

API Result cuStreamCreate(void **stream, unsigned int) {
    READY;
    return *stream = made(new Stream), SUCCESS;
}
API Result cuStreamDestroy_v2(void *stream) { return unmade<Stream>(stream); }
API Result cuStreamSynchronize(void *stream) {
    ON(stream);
    look_at_all("when a stream was waited for");
    return SUCCESS;
}
API Result cuStreamQuery(void *stream) { return stream_of(stream) ? SUCCESS : INVALID_HANDLE; }
API Result cuStreamWaitEvent(void *stream, void *event, unsigned int) {
    return stream_of(stream) && alive(event) ? SUCCESS : INVALID_HANDLE;
}
API Result cuStreamIsCapturing(void *stream, int *status) {
    *status = 0;
    return stream_of(stream) ? SUCCESS : INVALID_HANDLE;
}
API Result cuLaunchHostFunc(void *stream, void (*function)(void *), void *argument) {
    ON(stream);
    function(argument);
    return SUCCESS;
}

API Result cuEventCreate(void **event, unsigned int flags) {
    READY;
    const unsigned int untimed = 2;
    return *event = made(new Event{!(flags & untimed), false, {}}), SUCCESS;
}
API Result cuEventDestroy_v2(void *event) { return unmade<Event>(event); }
API Result cuEventRecord(void *handle, void *stream) {
    ON(stream);
    if (!alive(handle)) return INVALID_HANDLE;
    Event *event = static_cast<Event *>(handle);
    event->recorded = true;
    event->time = Clock::now();
    return SUCCESS;
}
API Result cuEventQuery(void *event) { return alive(event) ? SUCCESS : INVALID_HANDLE; }
API Result cuEventSynchronize(void *event) { return alive(event) ? SUCCESS : INVALID_HANDLE; }
API Result cuEventElapsedTime_v2(float *milliseconds, void *from, void *to) {
    if (!alive(from) || !alive(to)) return INVALID_HANDLE;
    const Event *start = static_cast<Event *>(from), *end = static_cast<Event *>(to);
    if (!start->timed || !end->timed || !start->recorded || !end->recorded) {
        say("the time between events that were made without time, or not recorded");
        return INVALID_HANDLE;
    }
    *milliseconds = std::chrono::duration<float, std::milli>(end->time - start->time).count();
    return SUCCESS;
}

// Modules and kernels.

API Result cuModuleLoadData(void **module, const void *image) {
    READY;
    const char *text = static_cast<const char *>(image);
    void *library = nullptr;
    if (!strncmp(text, MADE_HERE, strlen(MADE_HERE))) {
        text += strlen(MADE_HERE);
        library = dlopen(std::string(text, strcspn(text, "\n")).c_str(), RTLD_NOW | RTLD_LOCAL);
        if (!library) {
            say("a module that is not there: %s", dlerror());
            return INVALID_IMAGE;
        }
    }
    return *module = made(new Module{library, {}}), SUCCESS;
}
API Result cuModuleUnload(void *module) {
    if (!alive(module)) return INVALID_HANDLE;
    if (void *library = static_cast<Module *>(module)->library) dlclose(library);
    return unmade<Module>(module);
}
API Result cuModuleGetFunction(void **function, void *handle, const char *name) {
    Guard guard(state.mutex);
    if (!state.handles.count(handle)) return INVALID_HANDLE;
    Module *module = static_cast<Module *>(handle);
    auto found = module->functions.find(name);
    if (found == module->functions.end()) {
        void *kernel = module->library ? dlsym(module->library, (std::string("host_") + name).c_str()) : nullptr;
        if (!kernel) {
            if (module->library) say("the module has no kernel %s", name);
            else say("no stand-in for candle's kernel %s", name);
            return NOT_FOUND;
        }
        Function made = {name, reinterpret_cast<Kernel *>(kernel), &state.launches[name]};
        found = module->functions.emplace(name, made).first;
    }
    return *function = &found->second, SUCCESS;
}
API Result cuFuncGetAttribute(int *value, int attribute, void *) {
    // by number in `CUfunction_attribute`: threads of a block, registers, versions
    const bool version = attribute == 5 || attribute == 6;
    *value = attribute == 0 ? 1024 : attribute == 4 ? 32 : version ? 90 : 0;
    return SUCCESS;
}
API Result cuLaunchKernel(void *handle, unsigned int blocks, unsigned int grid_y, unsigned int grid_z,
                          unsigned int threads, unsigned int block_y, unsigned int block_z, unsigned int shared,
                          void *stream, void **arguments, void **extra) {
    READY;
    if (!handle) return INVALID_HANDLE;
    const Function &function = *static_cast<Function *>(handle);
    // a GPU refuses the first of these too; the others are none of this project's launches
    if (blocks == 0 || blocks > 0x7fffffff || grid_y != 1 || grid_z != 1 || threads != 256 || block_y != 1 ||
        block_z != 1 || shared != 0 || extra) {
        say("%s is launched as %u x %u x %u blocks of %u x %u x %u threads with %u shared bytes", function.name.c_str(),
            blocks, grid_y, grid_z, threads, block_y, block_z, shared);
        return INVALID_VALUE;
    }
    ON(stream);
    if (!state.idle) function.kernel(blocks, arguments);
    ++*function.launches;
    if (state.check) look_at_all(("after kernel " + function.name).c_str());
    return SUCCESS;
}

API bool standin_idle() { return state.idle; }
API void standin_product(const char *what) {
    {
        Guard guard(state.mutex);
        state.products[what]++;
    }
    if (state.check) look_at_all((std::string("after ") + what).c_str());
}

__attribute__((destructor)) static void report() {
    if (!state.report) return;
    look_at_all("at exit");
    Guard guard(state.mutex);
    say("device memory: %zu bytes at most, %zu at exit; pinned: %zu at most, %zu at exit", state.peak, state.used,
        state.pinned_peak, state.pinned);
    say("%zu allocations, %zu frees; bytes copied: %zu to the device, %zu from it, %zu on it", state.allocated,
        state.freed, state.to_device.load(), state.from_device.load(), state.on_device.load());
    for (auto *counts : {&state.products, &state.launches}) {
        for (auto &[name, count] : *counts) say("%12lld %s", count.load(), name.c_str());
    }
}
