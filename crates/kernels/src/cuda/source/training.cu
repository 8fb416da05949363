// A step's work outside of layers: the loss's gradient, and the optimizer over all parameters at once.

#include "common.cuh"

// Values of a parameter that a block takes.
#define CHUNK 4096

// One parameter tensor with its gradient and velocity.
struct Parameter {
    float *value, *gradient, *velocity;
    long long length;
    float weight_decay;
};

// Nesterov's step as PyTorch takes it: g += decay * p; v = momentum * v + g; p -= lr * (g + momentum * v); g = 0. Block b
// works on chunk `chunks[b].index` of parameter `chunks[b].parameter`: one launch for all of them.
struct Chunk {
    int parameter, index;
};

KERNEL nesterov(const Parameter *parameters, const Chunk *chunks, float lr, float momentum) {
    EACH_THREAD {
        Chunk chunk = chunks[BLOCK];
        Parameter parameter = parameters[chunk.parameter];
        long long first = (long long)chunk.index * CHUNK, last = smaller(first + CHUNK, parameter.length);
        for (long long at = first + thread; at < last; at += THREADS) {
            float value = parameter.value[at];
            float g = parameter.gradient[at] + parameter.weight_decay * value;
            float v = momentum * parameter.velocity[at] + g;
            parameter.velocity[at] = v;
            parameter.value[at] = value - lr * (g + momentum * v);
            parameter.gradient[at] = 0.0f;
        }
    }
}
EXPORT(nesterov)

// One parameter tensor with its moments and the constants of its own step.
struct Adapted {
    float *value, *gradient, *first, *second;
    long long length;
    float keep, rate, root;
};

// AdamW's step as PyTorch takes it: p *= keep; m += (1 - beta1) * (g - m); v = beta2 * v + (1 - beta2) * g^2;
// p -= rate * m / (sqrt(v) / root + epsilon); g = 0. Blocks take chunks as in Nesterov's step.
KERNEL adamw(const Adapted *parameters, const Chunk *chunks, float first_share, float second_keep, float second_share,
             float epsilon) {
    EACH_THREAD {
        Chunk chunk = chunks[BLOCK];
        Adapted adapted = parameters[chunk.parameter];
        long long begin = (long long)chunk.index * CHUNK, end = smaller(begin + CHUNK, adapted.length);
        for (long long at = begin + thread; at < end; at += THREADS) {
            float g = adapted.gradient[at], m = adapted.first[at];
            m += first_share * (g - m);
            float v = second_keep * adapted.second[at] + second_share * g * g;
            adapted.first[at] = m;
            adapted.second[at] = v;
            float descent = adapted.rate * (m / (sqrtf(v) / adapted.root + epsilon));
            adapted.value[at] = adapted.keep * adapted.value[at] - descent;
            adapted.gradient[at] = 0.0f;
        }
    }
}
EXPORT(adamw)

// Each value to the nearest one within [-most, most]; what is not a number stays so, to be found where losses are read.
KERNEL clamp_values(float *values, float most, long long count) {
    EACH_THREAD {
        for (long long at = BLOCK * CHUNK + thread, end = smaller(BLOCK * CHUNK + CHUNK, count); at < end; at += THREADS) {
            float value = values[at];
            values[at] = value > most ? most : value < -most ? -most : value;
        }
    }
}
EXPORT(clamp_values)

// Each value a share of the way toward another: an exponential moving average.
KERNEL move_toward(float *values, const float *to, float share, long long count) {
    EACH_THREAD {
        for (long long at = BLOCK * CHUNK + thread, end = smaller(BLOCK * CHUNK + CHUNK, count); at < end; at += THREADS)
            values[at] += share * (to[at] - values[at]);
    }
}
EXPORT(move_toward)

// A weight, rows of `columns` values, `stride` apart, and the place of its copy without gaps.
struct Weight {
    const float *from;
    value_t *to;
    long long count;
    int columns, stride;
};

// Weights as activations are kept, chunk by chunk as the optimizer takes them: one launch for a network.
KERNEL take_weights(const Weight *weights, const Chunk *chunks) {
    EACH_THREAD {
        Chunk chunk = chunks[BLOCK];
        Weight weight = weights[chunk.parameter];
        unsigned int first = (unsigned int)chunk.index * CHUNK;
        unsigned int last = (unsigned int)smaller(first + (long long)CHUNK, weight.count);
        for (unsigned int at = first + thread; at < last; at += THREADS) {
            long long row = at / weight.columns;
            store(weight.to, at, weight.from[row * weight.stride + at % weight.columns]);
        }
    }
}
EXPORT(take_weights)

// The greatest of a row's logits, and the logarithm of the sum of exponentials of their differences to it, left in the
// first places of `shared` by all threads of the block.
INLINE void log_sum(const float *row, int classes, float (*shared)[THREADS]) {
    PRIVATE(float, greatest, 1);
    EACH_THREAD {
        float most = float_of(0xff800000);  // -infinity
        for (int i = thread; i < classes; i += THREADS) {
            float value = row[i];
            // a NaN takes its place, so that the sum of exponentials is none either
            if (!(value <= most)) most = value;
        }
        shared[0][thread] = most;
    }
    for (int half = THREADS / 2; half > 0; half /= 2) {
        EACH_THREAD {
            if (thread < half && !(shared[0][thread + half] <= shared[0][thread])) {
                shared[0][thread] = shared[0][thread + half];
            }
        }
    }
    EACH_THREAD { MINE(greatest)[0] = shared[0][0]; }
    EACH_THREAD {
        float sum = 0.0f;
        for (int i = thread; i < classes; i += THREADS) sum += expf(row[i] - MINE(greatest)[0]);
        shared[0][thread] = sum;
    }
    add_up<1>(shared);
    EACH_THREAD {
        shared[1][thread] = MINE(greatest)[0];
        if (thread == 0) shared[0][0] = logf(shared[0][0]);
    }
}

// Cross-entropy of logits [N, classes] with smoothed labels, of weight `hard`, plus the soft cross-entropy with a teacher's
// logits, of weight 1, where there are any: each image's loss, and the gradient of their mean. Both are multiplied by the
// image's scale where there are scales. One block per image.
KERNEL cross_entropy(const float *logits, const unsigned int *labels, const float *teacher, const float *scales,
                     float *losses, float *gradient, int images, int classes, float smoothing, float hard) {
    SHARED float sums[2][THREADS];
    SHARED float soft[2][THREADS];
    const long long start = BLOCK * classes;
    log_sum(logits + start, classes, sums);
    if (teacher) log_sum(teacher + start, classes, soft);
    PRIVATE(float, base, 2);
    EACH_THREAD {
        MINE(base)[0] = sums[1][0] + sums[0][0];
        MINE(base)[1] = teacher ? soft[1][0] + soft[0][0] : 0.0f;
    }
    EACH_THREAD {
        float loss = 0.0f, scale = scales ? scales[BLOCK] : 1.0f;
        for (int i = thread; i < classes; i += THREADS) {
            float log_probability = logits[start + i] - MINE(base)[0];
            float wanted = hard * (smoothing / classes + (i == (int)labels[BLOCK] ? 1.0f - smoothing : 0.0f));
            float weight = hard;
            if (teacher) {
                wanted += expf(teacher[start + i] - MINE(base)[1]);
                weight += 1.0f;
            }
            loss -= wanted * log_probability;
            gradient[start + i] = scale * (weight * expf(log_probability) - wanted) / images;
        }
        sums[0][thread] = scale * loss;
    }
    add_up<1>(sums);
    EACH_THREAD {
        if (thread == 0) losses[BLOCK] = sums[0][0];
    }
}
EXPORT(cross_entropy)
