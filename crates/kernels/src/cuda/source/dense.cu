// Patches of dense K x K convolutions [C * K * K, images, Ho, Wo] for some images of a batch, and their adjoint.

#include "common.cuh"

// Maps are [C, N, H, W], of which the images from `first` on, `some` of them, are meant.
struct Patches {
    int images, first, some, height, width, out_height, out_width, kernel, stride;
};

KERNEL patches(const value_t *x, value_t *out, Patches shape, long long count) {
    EACH_THREAD {
        long long at = BLOCK * THREADS + thread;
        if (at < count) {
            int ox = (int)(at % shape.out_width), oy = (int)(at / shape.out_width % shape.out_height);
            long long rest = at / shape.out_width / shape.out_height;
            int image = (int)(rest % shape.some) + shape.first;
            long long row = rest / shape.some;
            int kx = (int)(row % shape.kernel), ky = (int)(row / shape.kernel % shape.kernel);
            long long map = row / shape.kernel / shape.kernel * shape.images + image;
            int y = oy * shape.stride + ky - shape.kernel / 2, x_at = ox * shape.stride + kx - shape.kernel / 2;
            bool inside = y >= 0 && y < shape.height && x_at >= 0 && x_at < shape.width;
            store(out, at, inside ? load(x, (map * shape.height + y) * shape.width + x_at) : 0.0f);
        }
    }
}
EXPORT(patches)

// dx from the gradient of the patches, of the same images alone; `count` values of the input.
KERNEL fold_patches(const value_t *slopes, value_t *dx, Patches shape, long long count) {
    EACH_THREAD {
        long long at = BLOCK * THREADS + thread;
        if (at < count) {
            int x = (int)(at % shape.width), y = (int)(at / shape.width % shape.height);
            long long rest = at / shape.width / shape.height;
            int image = (int)(rest % shape.some);
            long long channel = rest / shape.some;
            float sum = 0.0f;
            for (int ky = 0; ky < shape.kernel; ky++) {
                int down = y + shape.kernel / 2 - ky, oy = down / shape.stride;
                if (down < 0 || down % shape.stride || oy >= shape.out_height) continue;
                for (int kx = 0; kx < shape.kernel; kx++) {
                    int along = x + shape.kernel / 2 - kx, ox = along / shape.stride;
                    if (along < 0 || along % shape.stride || ox >= shape.out_width) continue;
                    long long row = (channel * shape.kernel + ky) * shape.kernel + kx;
                    sum += load(slopes, ((row * shape.some + image) * shape.out_height + oy) * shape.out_width + ox);
                }
            }
            long long map = channel * shape.images + shape.first + image;
            store(dx, (map * shape.height + y) * shape.width + x, sum);
        }
    }
}
EXPORT(fold_patches)
