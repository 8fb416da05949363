// The stand-in's cuRAND: generators that can be made, since candle makes one for each device, but give no numbers.

#include "standin.hpp"

enum Status { SUCCESS = 0, NOT_INITIALIZED = 101 };

struct Generator {
    unsigned long long seed, offset;
    void *stream;
};

API Status curandCreateGenerator(Generator **generator, int) { return *generator = new Generator(), SUCCESS; }
API Status curandDestroyGenerator(Generator *generator) {
    if (!generator) return NOT_INITIALIZED;
    return delete generator, SUCCESS;
}
API Status curandSetPseudoRandomGeneratorSeed(Generator *generator, unsigned long long seed) {
    return generator->seed = seed, SUCCESS;
}
API Status curandSetGeneratorOffset(Generator *generator, unsigned long long offset) {
    return generator->offset = offset, SUCCESS;
}
API Status curandSetStream(Generator *generator, void *stream) { return generator->stream = stream, SUCCESS; }
