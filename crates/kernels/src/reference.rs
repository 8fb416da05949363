//! The definition of every CPU kernel: plain loops over single values, sums in f64.
//!
//! The functions and shapes are those of [`super::cpu`], without the instruction set, one module for each of its
//! modules. Slow on purpose: it defines results, not speed.

/// Where tap `tap` of the output at `out` reads along an axis of `len` values, if inside of it; the padding
/// is `kernel / 2`.
fn tapped(out: usize, tap: usize, kernel: usize, stride: usize, len: usize) -> Option<usize> {
    (out * stride + tap).checked_sub(kernel / 2).filter(|&place| place < len)
}

/// Depthwise convolution.
pub mod depthwise {
    use super::tapped;
    use crate::cpu::depthwise::DepthwiseShape;

    /// Calls `visit(place in x, place in w, place in y)` for every product of the convolution.
    fn for_each_product(shape: &DepthwiseShape, mut visit: impl FnMut(usize, usize, usize)) {
        let DepthwiseShape { channels, images, height, width, kernel, stride } = *shape;
        let out_height = shape.out_height();
        let out_width = shape.out_width();
        for map in 0..channels * images {
            let channel = map / images;
            for (oy, ox) in grid(out_height, out_width) {
                for (ky, kx) in grid(kernel, kernel) {
                    let iy = tapped(oy, ky, kernel, stride, height);
                    let ix = tapped(ox, kx, kernel, stride, width);
                    if let (Some(iy), Some(ix)) = (iy, ix) {
                        visit(
                            (map * height + iy) * width + ix,
                            (channel * kernel + ky) * kernel + kx,
                            (map * out_height + oy) * out_width + ox,
                        );
                    }
                }
            }
        }
    }

    fn grid(rows: usize, columns: usize) -> impl Iterator<Item = (usize, usize)> {
        (0..rows).flat_map(move |row| (0..columns).map(move |column| (row, column)))
    }

    fn store(sums: &[f64], out: &mut [f32]) {
        for (out, sum) in out.iter_mut().zip(sums) {
            *out = *sum as f32;
        }
    }

    /// y = x convolved with w.
    pub fn forward(shape: &DepthwiseShape, x: &[f32], w: &[f32], y: &mut [f32]) {
        let mut sums = vec![0.0; y.len()];
        for_each_product(shape, |at_x, at_w, at_y| sums[at_y] += f64::from(x[at_x]) * f64::from(w[at_w]));
        store(&sums, y);
    }

    /// dx from dy.
    pub fn backward_input(shape: &DepthwiseShape, dy: &[f32], w: &[f32], dx: &mut [f32]) {
        let mut sums = vec![0.0; dx.len()];
        for_each_product(shape, |at_x, at_w, at_y| sums[at_x] += f64::from(dy[at_y]) * f64::from(w[at_w]));
        store(&sums, dx);
    }

    /// Adds dw.
    pub fn backward_weight(shape: &DepthwiseShape, x: &[f32], dy: &[f32], dw: &mut [f32]) {
        let mut sums: Vec<f64> = dw.iter().map(|dw| f64::from(*dw)).collect();
        for_each_product(shape, |at_x, at_w, at_y| sums[at_w] += f64::from(dy[at_y]) * f64::from(x[at_x]));
        store(&sums, dw);
    }
}

/// Batch normalization with activation.
pub mod batch_norm {
    use crate::cpu::batch_norm::{Affine, BatchNormSlices, NormalizedSlices};

    /// Mean and biased variance of each row.
    pub fn statistics(x: &[f32], stats: &mut [f32]) {
        let rows = stats.len() / 2;
        let row = x.len() / rows;
        for (i, x) in x.chunks(row).enumerate() {
            let mean = x.iter().map(|x| f64::from(*x)).sum::<f64>() / row as f64;
            let squares: f64 = x.iter().map(|x| (f64::from(*x) - mean).powi(2)).sum();
            stats[i] = mean as f32;
            stats[rows + i] = (squares / row as f64) as f32;
        }
    }

    /// (xhat, z) at place `at` of `x`.
    fn normalized(x: &[f32], at: usize, stats: &[f32], affine: Affine) -> (f64, f64) {
        let rows = stats.len() / 2;
        let row = at / (x.len() / rows);
        let std = (f64::from(stats[rows + row]) + f64::from(affine.epsilon)).sqrt();
        let xhat = (f64::from(x[at]) - f64::from(stats[row])) / std;
        (xhat, f64::from(affine.gamma[row]) * xhat + f64::from(affine.beta[row]))
    }

    /// y = act(gamma * xhat + beta) + addend, with the batch's own statistics.
    pub fn forward(x: &[f32], affine: Affine, addend: Option<&[f32]>, to: NormalizedSlices) {
        to.y.copy_from_slice(x);
        forward_in_place(to.y, affine, addend, to.stats);
    }

    /// [`forward`] in the place of `x`.
    pub fn forward_in_place(x: &mut [f32], affine: Affine, addend: Option<&[f32]>, stats: &mut [f32]) {
        statistics(x, stats);
        apply_in_place(x, stats, affine, addend);
    }

    /// [`forward_in_place`] with given statistics.
    pub fn apply_in_place(x: &mut [f32], stats: &[f32], affine: Affine, addend: Option<&[f32]>) {
        for at in 0..x.len() {
            let activated = affine.activation.apply(normalized(x, at, stats, affine).1 as f32);
            x[at] = activated + addend.map_or(0.0, |addend| addend[at]);
        }
    }

    /// (g, xhat) at place `at`, where g = dy * act'(z).
    fn gradient(forward: BatchNormSlices, dy: &[f32], at: usize) -> (f64, f64) {
        let BatchNormSlices { x, stats, affine } = forward;
        let (xhat, z) = normalized(x, at, stats, affine);
        (f64::from(dy[at]) * f64::from(affine.activation.derivative(z as f32)), xhat)
    }

    /// The gradients of gamma, then those of beta, and dx = gamma / std * (g - (dbeta + xhat * dgamma) / M).
    pub fn backward(forward: BatchNormSlices, dy: &[f32], sums: &mut [f32], dx: &mut [f32]) {
        dx.copy_from_slice(dy);
        backward_in_place(forward, dx, sums);
    }

    /// [`backward`] with dx in the place of `dy`.
    pub fn backward_in_place(forward: BatchNormSlices, dy: &mut [f32], sums: &mut [f32]) {
        let BatchNormSlices { x, stats, affine } = forward;
        let rows = stats.len() / 2;
        let row = x.len() / rows;
        for i in 0..rows {
            let mut gamma = 0.0;
            let mut beta = 0.0;
            for at in i * row..(i + 1) * row {
                let (g, xhat) = gradient(forward, dy, at);
                gamma += g * xhat;
                beta += g;
            }
            let std = (f64::from(stats[rows + i]) + f64::from(affine.epsilon)).sqrt();
            for at in i * row..(i + 1) * row {
                let (g, xhat) = gradient(forward, dy, at);
                dy[at] = (f64::from(affine.gamma[i]) / std * (g - (beta + xhat * gamma) / row as f64)) as f32;
            }
            sums[i] = gamma as f32;
            sums[rows + i] = beta as f32;
        }
    }
}

/// The chain of batch norm, depthwise convolution, batch norm, one kernel after the other.
pub mod chain {
    use super::{batch_norm, depthwise, planes};
    use crate::cpu::batch_norm::{Affine, BatchNormSlices, NormalizedSlices};
    use crate::cpu::chain::{
        ChainSlices, FoldedSlices, GradientSlices, KeptSlices, Moments, OutputSlices, Saved,
    };

    /// Forward for training.
    pub fn forward(chain: &ChainSlices, x: &[f32], kept: KeptSlices) {
        let mut input = x.to_vec();
        if let Some(before) = chain.before {
            batch_norm::forward_in_place(&mut input, before, None, kept.before);
        }
        depthwise::forward(&chain.shape, &input, chain.weight, kept.convolved);
        let to = NormalizedSlices { stats: kept.after, y: &mut *kept.output };
        batch_norm::forward(kept.convolved, chain.after, None, to);
        planes::mean(kept.output, chain.shape.out_height() * chain.shape.out_width(), kept.means);
    }

    /// Forward that retains nothing for backward.
    pub fn forward_forgetting(chain: &ChainSlices, x: &[f32], moments: Moments, to: OutputSlices) {
        let [given_before, given_after] = match moments {
            Moments::OfBatch => [None, None],
            Moments::Given(before, after) => [Some(before), Some(after)],
        };
        let mut input = x.to_vec();
        if let Some(before) = chain.before {
            normalize(&mut input, before, given_before, to.before);
        }
        depthwise::forward(&chain.shape, &input, chain.weight, to.output);
        normalize(to.output, chain.after, given_after, to.after);
    }

    /// Normalizes `x` in place, with given statistics or its own, and copies them to `seen` if that is not empty.
    fn normalize(x: &mut [f32], affine: Affine, given: Option<&[f32]>, seen: &mut [f32]) {
        let mut stats = vec![0.0; 2 * affine.gamma.len()];
        match given {
            Some(given) => stats.copy_from_slice(given),
            None => batch_norm::statistics(x, &mut stats),
        }
        batch_norm::apply_in_place(x, &stats, affine, None);
        if !seen.is_empty() {
            seen.copy_from_slice(&stats);
        }
    }

    /// Convolution, shift, activation.
    pub fn forward_activated(chain: &FoldedSlices, x: &[f32], y: &mut [f32]) {
        let FoldedSlices { shape, weight, shift, activation } = *chain;
        depthwise::forward(&shape, x, weight, y);
        let row = y.len() / shape.channels;
        for (at, y) in y.iter_mut().enumerate() {
            *y = activation.apply(*y + shift[at / row]);
        }
    }

    /// All gradients.
    pub fn backward(chain: &ChainSlices, saved: &Saved, slopes: GradientSlices) {
        let mut dy = saved.dy.to_vec();
        if let Some((factor, dmean)) = saved.excite {
            let plane = chain.shape.out_height() * chain.shape.out_width();
            planes::scale_backward_input(saved.dy, factor, dmean, plane, &mut dy);
        }
        let after = BatchNormSlices { x: saved.convolved, stats: saved.after, affine: chain.after };
        batch_norm::backward_in_place(after, &mut dy, slopes.after);
        let mut input = saved.x.to_vec();
        if let Some(before) = chain.before {
            batch_norm::apply_in_place(&mut input, saved.before, before, None);
        }
        slopes.weight.fill(0.0);
        depthwise::backward_weight(&chain.shape, &input, &dy, slopes.weight);
        depthwise::backward_input(&chain.shape, &dy, chain.weight, slopes.dx);
        if let Some(before) = chain.before {
            let before = BatchNormSlices { x: saved.x, stats: saved.before, affine: before };
            batch_norm::backward_in_place(before, slopes.dx, slopes.before);
        }
    }
}

/// Planes and rows.
pub mod planes {
    use crate::cpu::planes::BiasActivation;

    /// The sum of `f` over the `len` values from `start` on.
    fn sum(start: usize, len: usize, f: impl Fn(usize) -> f32) -> f64 {
        (start..start + len).map(|at| f64::from(f(at))).sum()
    }

    /// The mean of each plane.
    pub fn mean(x: &[f32], plane: usize, out: &mut [f32]) {
        for (i, out) in out.iter_mut().enumerate() {
            *out = (sum(i * plane, plane, |at| x[at]) / plane as f64) as f32;
        }
    }

    /// dx = dy / plane.
    pub fn mean_backward(dy: &[f32], plane: usize, dx: &mut [f32]) {
        for (at, dx) in dx.iter_mut().enumerate() {
            *dx = dy[at / plane] / plane as f32;
        }
    }

    /// y = x * s.
    pub fn scale(x: &[f32], s: &[f32], plane: usize, y: &mut [f32]) {
        for (at, y) in y.iter_mut().enumerate() {
            *y = x[at] * s[at / plane];
        }
    }

    /// [`scale`] in the place of `x`.
    pub fn scale_in_place(x: &mut [f32], s: &[f32], plane: usize) {
        for (at, x) in x.iter_mut().enumerate() {
            *x *= s[at / plane];
        }
    }

    /// ds = sum of dy * x over the plane.
    pub fn scale_backward_scale(x: &[f32], dy: &[f32], plane: usize, ds: &mut [f32]) {
        for (i, ds) in ds.iter_mut().enumerate() {
            *ds = sum(i * plane, plane, |at| x[at] * dy[at]) as f32;
        }
    }

    /// dx = dy * s + dmean / plane.
    pub fn scale_backward_input(dy: &[f32], s: &[f32], dmean: &[f32], plane: usize, dx: &mut [f32]) {
        for (at, dx) in dx.iter_mut().enumerate() {
            *dx = dy[at] * s[at / plane] + dmean[at / plane] / plane as f32;
        }
    }

    /// The bias of the row of place `at`.
    fn bias_at(bias: Option<&[f32]>, at: usize, len: usize, rows: usize) -> f32 {
        bias.map_or(0.0, |bias| bias[at / (len / rows)])
    }

    /// y = act(x + bias).
    pub fn bias_activation(x: &[f32], with: BiasActivation, y: &mut [f32]) {
        let BiasActivation { rows, bias, activation } = with;
        for (at, y) in y.iter_mut().enumerate() {
            *y = activation.apply(x[at] + bias_at(bias, at, x.len(), rows));
        }
    }

    /// dx = dy * act'(x + bias).
    pub fn bias_activation_backward(x: &[f32], with: BiasActivation, dy: &[f32], dx: &mut [f32]) {
        let BiasActivation { rows, bias, activation } = with;
        for (at, dx) in dx.iter_mut().enumerate() {
            *dx = dy[at] * activation.derivative(x[at] + bias_at(bias, at, x.len(), rows));
        }
    }

    /// Adds the sum of each row.
    pub fn row_sums(dy: &[f32], rows: usize, out: &mut [f32]) {
        let row = dy.len() / rows;
        for (i, out) in out.iter_mut().enumerate() {
            *out = (f64::from(*out) + sum(i * row, row, |at| dy[at])) as f32;
        }
    }

    /// y += x.
    pub fn add_assign(y: &mut [f32], x: &[f32]) {
        for (y, x) in y.iter_mut().zip(x) {
            *y += x;
        }
    }
}

/// Patches of dense convolutions.
pub mod dense {
    use std::ops::Range;

    use super::tapped;
    use crate::cpu::dense::PatchShape;

    /// Calls `visit(place in x if inside, place in the patches)` for every value of some images' patches.
    fn for_each_value(shape: &PatchShape, of: Range<usize>, mut visit: impl FnMut(Option<usize>, usize)) {
        let PatchShape { channels, images, height, width, kernel, stride } = *shape;
        let out_height = shape.out_height();
        let out_width = shape.out_width();
        let plane = out_height * out_width;
        for at in 0..channels * kernel * kernel * of.len() * plane {
            let ox = at % out_width;
            let oy = at / out_width % out_height;
            let image = of.start + at / plane % of.len();
            let row = at / plane / of.len();
            let kx = row % kernel;
            let ky = row / kernel % kernel;
            let channel = row / kernel / kernel;
            let iy = tapped(oy, ky, kernel, stride, height);
            let ix = tapped(ox, kx, kernel, stride, width);
            let map = channel * images + image;
            visit(iy.zip(ix).map(|(iy, ix)| (map * height + iy) * width + ix), at);
        }
    }

    /// im2col.
    pub fn patches(shape: &PatchShape, images: Range<usize>, x: &[f32], out: &mut [f32]) {
        for_each_value(shape, images, |from, to| out[to] = from.map_or(0.0, |from| x[from]));
    }

    /// The adjoint of im2col.
    pub fn fold_patches(shape: &PatchShape, images: Range<usize>, patches: &[f32], dx: &mut [f32]) {
        let mut sums = vec![None; dx.len()];
        for_each_value(shape, images.clone(), |to, from| {
            if let Some(to) = to {
                *sums[to].get_or_insert(0.0) += f64::from(patches[from]);
            }
        });
        let plane = shape.height * shape.width;
        for (at, (dx, sum)) in dx.iter_mut().zip(sums).enumerate() {
            if images.contains(&(at / plane % shape.images)) {
                *dx = sum.unwrap_or(0.0) as f32;
            }
        }
    }
}

/// Pooling over windows.
pub mod pool {
    use crate::cpu::pool::{Pool, Sampling};

    /// Places in the map that a window covers, row by row.
    fn window(pool: &Pool, map: usize, oy: usize, ox: usize) -> Vec<usize> {
        let Pool { height, width, side, stride, padding } = *pool;
        let axis = |out: usize, len: usize| {
            (0..side).filter_map(move |tap| (out * stride + tap).checked_sub(padding).filter(|at| *at < len))
        };
        axis(oy, height).flat_map(|y| axis(ox, width).map(move |x| (map * height + y) * width + x)).collect()
    }

    fn for_each_window(pool: &Pool, windows: usize, mut visit: impl FnMut(usize, Vec<usize>)) {
        let height = pool.out_height();
        let width = pool.out_width();
        for at in 0..windows {
            visit(at, window(pool, at / width / height, at / width % height, at % width));
        }
    }

    fn greatest(x: &[f32], window: &[usize]) -> usize {
        window
            .iter()
            .copied()
            .reduce(|best, at| if x[at] > x[best] || x[at].is_nan() { at } else { best })
            .expect("a window holds a value")
    }

    /// y = maximum of each window.
    pub fn max(pool: &Pool, x: &[f32], y: &mut [f32]) {
        for_each_window(pool, y.len(), |at, window| y[at] = x[greatest(x, &window)]);
    }

    /// dx: each dy at the first maximum of its window.
    pub fn max_backward(pool: &Pool, x: &[f32], dy: &[f32], dx: &mut [f32]) {
        dx.fill(0.0);
        for_each_window(pool, dy.len(), |at, window| dx[greatest(x, &window)] += dy[at]);
    }

    /// For each place of the output, the place of the input that it is sampled from, if that lies in the map.
    fn sampled(sampling: &Sampling, outputs: usize) -> impl Iterator<Item = Option<usize>> {
        let Sampling { height, width, first } = *sampling;
        let [out_height, out_width] = [sampling.out_height(), sampling.out_width()];
        (0..outputs).map(move |at| {
            let [y, x] = [2 * (at / out_width % out_height) + first, 2 * (at % out_width) + first];
            (y < height && x < width).then(|| (at / out_width / out_height * height + y) * width + x)
        })
    }

    /// y = every second place.
    pub fn sample(sampling: &Sampling, x: &[f32], y: &mut [f32]) {
        let places = sampled(sampling, y.len());
        y.iter_mut().zip(places).for_each(|(y, place)| *y = place.map_or(0.0, |place| x[place]));
    }

    /// dx: each dy at the place that it was sampled from.
    pub fn sample_backward(sampling: &Sampling, dy: &[f32], dx: &mut [f32]) {
        dx.fill(0.0);
        for (dy, place) in dy.iter().zip(sampled(sampling, dy.len())) {
            if let Some(place) = place {
                dx[place] = *dy;
            }
        }
    }

    /// y = mean of each window's values inside the map.
    pub fn average(pool: &Pool, x: &[f32], y: &mut [f32]) {
        for_each_window(pool, y.len(), |at, window| {
            let sum: f64 = window.iter().map(|&from| f64::from(x[from])).sum();
            y[at] = (sum / window.len() as f64) as f32;
        });
    }

    /// dx: each dy spread over its window.
    pub fn average_backward(pool: &Pool, dy: &[f32], dx: &mut [f32]) {
        dx.fill(0.0);
        for_each_window(pool, dy.len(), |at, window| {
            window.iter().for_each(|&to| dx[to] += dy[at] / window.len() as f32);
        });
    }
}

/// The optimizer.
pub mod updates {
    use crate::cpu::updates::{AdamWStep, SgdStep};

    /// g += wd * p; v = mu * v + g; p -= lr * (g + mu * v); then g = 0.
    pub fn nesterov(parameter: &mut [f32], gradient: &mut [f32], velocity: &mut [f32], step: SgdStep) {
        let [lr, momentum, decay] = [step.lr, step.momentum, step.weight_decay].map(f64::from);
        for ((p, gradient), v) in parameter.iter_mut().zip(gradient).zip(velocity) {
            let g = f64::from(*gradient) + decay * f64::from(*p);
            let speed = momentum * f64::from(*v) + g;
            *v = speed as f32;
            *p = (f64::from(*p) - lr * (g + momentum * speed)) as f32;
            *gradient = 0.0;
        }
    }

    /// p *= keep; m += first_share * (g - m); v = second_keep * v + second_share * g^2;
    /// p -= rate * m / (sqrt(v) / root + eps); then g = 0.
    pub fn adamw(parameter: &mut [f32], gradient: &mut [f32], moments: [&mut [f32]; 2], step: AdamWStep) {
        let [first, second] = moments;
        let [keep, first_share, second_keep] = [step.keep, step.first_share, step.second_keep].map(f64::from);
        let [second_share, rate, root, epsilon] =
            [step.second_share, step.rate, step.root, step.epsilon].map(f64::from);
        let moments = first.iter_mut().zip(second);
        for ((p, gradient), (first, second)) in parameter.iter_mut().zip(gradient).zip(moments) {
            let g = f64::from(*gradient);
            let m = f64::from(*first) + first_share * (g - f64::from(*first));
            let v = second_keep * f64::from(*second) + second_share * g * g;
            *p = (keep * f64::from(*p) - rate * m / (v.sqrt() / root + epsilon)) as f32;
            (*first, *second) = (m as f32, v as f32);
            *gradient = 0.0;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::cpu::batch_norm::{Affine, BatchNormSlices, NormalizedSlices};
    use crate::cpu::depthwise::DepthwiseShape;
    use space::Activation;

    /// Values in -1..1 that depend on `seed`.
    fn values(len: usize, seed: usize) -> Vec<f32> {
        (0..len).map(|i| ((i * 7919 + seed * 104_729 + 13) % 2003) as f32 / 1001.5 - 1.0).collect()
    }

    /// `gradient` against central differences of `loss` at `at`.
    fn check_differences(at: &[f32], gradient: &[f32], loss: impl Fn(&[f32]) -> f64) {
        let step = 1.0 / 128.0; // exact in f32 next to the values
        for i in (0..at.len()).step_by(1 + at.len() / 40) {
            let [up, down] = [step, -step].map(|step| {
                let mut moved = at.to_vec();
                moved[i] += step;
                (loss(&moved), moved[i])
            });
            let slope = (up.0 - down.0) / f64::from(up.1 - down.1);
            let error = (slope - f64::from(gradient[i])).abs();
            assert!(error < 2e-3 * (1.0 + slope.abs()), "at {i}: {slope} against {}", gradient[i]);
        }
    }

    fn dot(a: &[f32], b: &[f32]) -> f64 {
        a.iter().zip(b).map(|(a, b)| f64::from(*a) * f64::from(*b)).sum()
    }

    #[test]
    fn depthwise_gradients_are_differences() {
        for (height, width, kernel, stride) in [(5, 4, 3, 1), (7, 6, 5, 2), (2, 3, 7, 1), (1, 1, 7, 2)] {
            let shape = DepthwiseShape { channels: 3, images: 2, height, width, kernel, stride };
            let x = values(6 * height * width, 1);
            let w = values(3 * kernel * kernel, 2);
            let dy = values(6 * shape.out_height() * shape.out_width(), 3);
            let loss = |x: &[f32], w: &[f32]| {
                let mut y = vec![0.0; dy.len()];
                depthwise::forward(&shape, x, w, &mut y);
                dot(&y, &dy)
            };
            let mut dx = vec![0.0; x.len()];
            let mut dw = vec![0.0; w.len()];
            depthwise::backward_input(&shape, &dy, &w, &mut dx);
            depthwise::backward_weight(&shape, &x, &dy, &mut dw);
            check_differences(&x, &dx, |x| loss(x, &w));
            check_differences(&w, &dw, |w| loss(&x, w));
        }
    }

    #[test]
    fn batch_norm_gradients_are_differences() {
        for activation in [Activation::None, Activation::HSwish, Activation::HSigmoid] {
            let rows = 3;
            let row = 40;
            let x = values(rows * row, 1);
            let dy = values(rows * row, 2);
            let gamma = [0.5, 0.7, -0.4];
            let beta = [0.1, -0.2, 0.3];
            let loss = |x: &[f32], gamma: &[f32], beta: &[f32]| {
                let mut stats = vec![0.0; 2 * rows];
                let mut y = vec![0.0; x.len()];
                let affine = Affine { gamma, beta, epsilon: 1e-5, activation };
                batch_norm::forward(x, affine, None, NormalizedSlices { stats: &mut stats, y: &mut y });
                dot(&y, &dy)
            };
            let affine = Affine { gamma: &gamma, beta: &beta, epsilon: 1e-5, activation };
            let mut stats = vec![0.0; 2 * rows];
            let mut sums = vec![0.0; 2 * rows];
            let mut dx = vec![0.0; x.len()];
            batch_norm::statistics(&x, &mut stats);
            let forward = BatchNormSlices { x: &x, stats: &stats, affine };
            batch_norm::backward(forward, &dy, &mut sums, &mut dx);
            check_differences(&x, &dx, |x| loss(x, &gamma, &beta));
            check_differences(&gamma, &sums[..rows], |gamma| loss(&x, gamma, &beta));
            check_differences(&beta, &sums[rows..], |beta| loss(&x, &gamma, beta));
        }
    }
}

/// Matrix products.
pub mod matrix {
    use crate::cpu::product::{Matrix, MatrixMut, Write};

    /// `sums += factor * row` for each term `(row, factor)`.
    pub fn add_rows(matrix: &[f32], terms: &[(u32, f32)], sums: &mut [f32]) {
        let width = sums.len();
        for (column, sum) in sums.iter_mut().enumerate() {
            let value = |row: u32| matrix[row as usize * width + column];
            let products = terms.iter().map(|&(row, factor)| f64::from(factor) * f64::from(value(row)));
            *sum = (f64::from(*sum) + products.sum::<f64>()) as f32;
        }
    }

    /// `destination (+)= left x right`.
    pub fn product(left: Matrix, right: Matrix, destination: MatrixMut, write: Write) {
        for row in 0..left.rows {
            for column in 0..right.columns {
                let out = &mut destination.values[row * destination.row_stride + column];
                let products = (0..left.columns).map(|i| {
                    let left = left.values[row * left.row_stride + i * left.column_stride];
                    let right = right.values[i * right.row_stride + column * right.column_stride];
                    f64::from(left) * f64::from(right)
                });
                let sum: f64 = products.sum();
                *out = match write {
                    Write::Replace => sum as f32,
                    Write::Accumulate => (f64::from(*out) + sum) as f32,
                    Write::Activate { shift, activation } => {
                        activation.apply((sum + f64::from(shift[row])) as f32)
                    }
                };
            }
        }
    }
}
