// Work whose time shows the clock of a GPU's multiprocessors.

#include "common.cuh"

// Each thread multiplies and adds `steps` times, each time the result of the last: only the clock decides how long that
// takes.
KERNEL chain(float *values, int steps) {
    EACH_THREAD {
        float value = values[thread];
        for (int step = 0; step < steps; step++) value = value * 0.999f + 0.001f;
        values[thread] = value;
    }
}
EXPORT(chain)
