// Shared by the libraries of the stand-in, which driver.cpp describes.

#pragma once
#include <cstdarg>
#include <cstdio>
#include <string>

#define API extern "C" __attribute__((visibility("default")))

// Says why something failed: NVIDIA's libraries only return a number.
__attribute__((format(printf, 1, 2))) static inline void say(const char *format, ...) {
    char text[2048];
    va_list values;
    va_start(values, format);
    vsnprintf(text, sizeof text, format, values);
    va_end(values);
    // in one piece, since other threads may write too
    fputs((std::string("stand-in: ") + text + "\n").c_str(), stderr);
}

// First line of what the compiler makes in place of a GPU's code, before the path of a shared library.
static const char MADE_HERE[] = "// kernels of the stand-in: ";

// Of libcuda, for the others.

// Ends the process unless the bytes lie in one live allocation on the device.
API void standin_range(unsigned long long address, unsigned long long bytes, const char *what);
// Work on one stream is in order, whichever threads bring it. `standin_enter` is false for what is no stream.
API bool standin_enter(void *stream);
API void standin_leave(void *stream);
// Whether products are taken and not computed.
API bool standin_idle();
// Counts a matrix product that was just made.
API void standin_product(const char *what);

struct OnStream {
    void *stream;
    bool entered;
    explicit OnStream(void *stream) : stream(stream), entered(standin_enter(stream)) {}
    ~OnStream() {
        if (entered) standin_leave(stream);
    }
    OnStream(const OnStream &) = delete;
};
