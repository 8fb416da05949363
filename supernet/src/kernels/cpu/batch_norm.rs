//! Batch normalisation with the activation that follows it.
//!
//! A row holds the M = N*H*W values of one channel. Statistics are `[2 * rows]`: the means, then the biased
//! variances. Forward keeps nothing for backward but its input: z = gamma * (x - mean) / sqrt(var + eps) +
//! beta is computed again there, which is cheaper than to store and to load it.

use super::activation::{Apply, with_activation};
use super::simd::{BLOCK, Lanes, block_sums, map, map_in_place, sums, vectorised};
use super::{Activation, Isa, for_each_group, for_each_pair_group};

/// What follows the normalisation: scale and shift a channel (`[rows]` each), then the activation.
#[derive(Clone, Copy, Debug)]
pub struct Affine<'a> {
    /// Scale of each channel.
    pub gamma: &'a [f32],
    /// Shift of each channel.
    pub beta: &'a [f32],
    /// Added to the variance.
    pub epsilon: f32,
    /// Applied last.
    pub activation: Activation,
}

impl Affine<'_> {
    /// The constants of row `row`.
    fn channel(&self, stats: &[f32], row: usize) -> Channel {
        let inv_std = 1.0 / (stats[stats.len() / 2 + row] + self.epsilon).sqrt();
        Channel {
            mean: stats[row],
            inv_std,
            scale: self.gamma[row] * inv_std,
            beta: self.beta[row],
            activation: self.activation,
        }
    }

    /// Values in a row of `x`, after checking that everything has as many rows as there are statistics.
    fn row_len(&self, x: &[f32], stats: &[f32]) -> usize {
        let rows = stats.len() / 2;
        assert_eq!(stats.len(), 2 * rows);
        assert_eq!((self.gamma.len(), self.beta.len()), (rows, rows));
        row_len(x, rows)
    }
}

/// Values in each of the `rows` rows of `x`.
fn row_len(x: &[f32], rows: usize) -> usize {
    let row = x.len().checked_div(rows).unwrap_or(0);
    assert_eq!(rows * row, x.len());
    row
}

/// One channel's normalisation: z = (x - mean) * scale + beta.
#[derive(Clone, Copy)]
struct Channel {
    mean: f32,
    inv_std: f32,
    scale: f32,
    beta: f32,
    activation: Activation,
}

impl Channel {
    /// z for one vector; the mean goes first, so that a great mean costs no precision.
    #[inline(always)]
    fn normalise<T: Lanes>(self, x: T) -> T {
        x.sub(T::splat(self.mean)).mul_add(T::splat(self.scale), T::splat(self.beta))
    }
}

/// Mean and biased variance of each row.
///
/// # Shapes
/// `x` `[rows, M]` to `stats` `[2 * rows]`: means, then variances.
pub fn statistics(isa: Isa, x: &[f32], rows: usize, stats: &mut [f32]) {
    assert_eq!(stats.len(), 2 * rows);
    let row = row_len(x, rows);
    let (means, variances) = stats.split_at_mut(rows);
    for_each_pair_group(means, variances, row, |first, means, variances| {
        for (i, (mean, variance)) in means.iter_mut().zip(variances).enumerate() {
            (*mean, *variance) = moments_of(isa, &x[(first + i) * row..][..row]);
        }
    });
}

vectorised!(fn moments_of(x: &[f32]) -> (f32, f32) = moments);

/// Mean and biased variance in one pass over memory: two passes over each block while it is in cache, then
/// the blocks are combined pairwise (Chan, Golub and LeVeque 1979).
#[inline(always)]
fn moments<T: Lanes>(x: &[f32]) -> (f32, f32) {
    let (mut count, mut mean, mut squares) = (0.0f64, 0.0f64, 0.0f64);
    for block in x.chunks(BLOCK) {
        let len = block.len() as f64;
        let [sum] = block_sums::<T, 1, 1>([block], [T::splat(0.0)], |[x]| [x]);
        let centre = sum / block.len() as f32;
        let middle = T::splat(centre);
        let [shift, spread] = block_sums::<T, 1, 2>([block], [middle], |[x]| {
            let offset = x.sub(middle);
            [offset, offset.mul(offset)]
        });
        // `centre` is rounded; what the block's true mean lacks is in `shift`.
        let block_mean = f64::from(centre) + f64::from(shift) / len;
        let block_squares = f64::from(spread) - f64::from(shift) * f64::from(shift) / len;
        let step = block_mean - mean;
        let total = count + len;
        mean += step * len / total;
        squares += block_squares + step * step * count * len / total;
        count = total;
    }
    (mean as f32, (squares / count).max(0.0) as f32)
}

/// y = act(gamma * (x - mean) / sqrt(var + eps) + beta).
///
/// # Shapes
/// `x` and `y` `[rows, M]`, `stats` `[2 * rows]`.
pub fn apply(isa: Isa, x: &[f32], stats: &[f32], affine: Affine, y: &mut [f32]) {
    assert_eq!(x.len(), y.len());
    let row = affine.row_len(x, stats);
    for_each_group(y, row, 2 * row, |first, y| {
        for (i, y) in y.chunks_mut(row).enumerate() {
            let x = &x[(first + i) * row..][..row];
            apply_row(isa, x, affine.channel(stats, first + i), y);
        }
    });
}

vectorised!(fn apply_row(x: &[f32], channel: Channel, y: &mut [f32]) = apply_row_on);

#[inline(always)]
fn apply_row_on<T: Lanes>(x: &[f32], channel: Channel, y: &mut [f32]) {
    with_activation!(channel.activation, A => map([x], y, |[x]: [T; 1]| A::apply(channel.normalise(x))));
}

/// [`apply`] with the result in the place of `x`.
pub fn apply_in_place(isa: Isa, x: &mut [f32], stats: &[f32], affine: Affine) {
    let row = affine.row_len(x, stats);
    for_each_group(x, row, 2 * row, |first, x| {
        for (i, x) in x.chunks_mut(row).enumerate() {
            apply_row_in_place(isa, x, affine.channel(stats, first + i));
        }
    });
}

vectorised!(fn apply_row_in_place(x: &mut [f32], channel: Channel) = apply_row_in_place_on);

#[inline(always)]
fn apply_row_in_place_on<T: Lanes>(x: &mut [f32], channel: Channel) {
    with_activation!(channel.activation, A => map_in_place(x, |x: T| A::apply(channel.normalise(x))));
}

/// The gradients of gamma (sum of g * xhat) and beta (sum of g), where g = dy * act'(z).
///
/// # Shapes
/// `x` and `dy` `[rows, M]`, `stats` `[2 * rows]` to `sums` `[2 * rows]`: of gamma, then of beta.
pub fn backward_sums(isa: Isa, x: &[f32], dy: &[f32], stats: &[f32], affine: Affine, sums: &mut [f32]) {
    assert_eq!(x.len(), dy.len());
    assert_eq!(stats.len(), sums.len());
    let row = affine.row_len(x, stats);
    let (gammas, betas) = sums.split_at_mut(stats.len() / 2);
    for_each_pair_group(gammas, betas, 2 * row, |first, gammas, betas| {
        for (i, (gamma, beta)) in gammas.iter_mut().zip(betas).enumerate() {
            let at = (first + i) * row;
            let channel = affine.channel(stats, first + i);
            (*gamma, *beta) = row_gradients(isa, &x[at..][..row], &dy[at..][..row], channel);
        }
    });
}

vectorised!(fn row_gradients(x: &[f32], dy: &[f32], channel: Channel) -> (f32, f32) = row_gradients_on);

#[inline(always)]
fn row_gradients_on<T: Lanes>(x: &[f32], dy: &[f32], channel: Channel) -> (f32, f32) {
    let [gamma, beta] = with_activation!(channel.activation, A => sums([x, dy], |[x, dy]: [T; 2]| {
        let g = dy.mul(A::derivative(channel.normalise(x)));
        [g.mul(x.sub(T::splat(channel.mean))), g]
    }));
    ((gamma * f64::from(channel.inv_std)) as f32, beta as f32)
}

/// The gradient of x where the statistics are those of x itself:
/// dx = gamma / sqrt(var + eps) * (g - (dbeta + xhat * dgamma) / M).
///
/// # Shapes
/// `x`, `dy`, `dx` `[rows, M]`; `stats`, `sums` (of [`backward_sums`]) `[2 * rows]`.
pub fn backward_input(
    isa: Isa,
    x: &[f32],
    dy: &[f32],
    stats: &[f32],
    sums: &[f32],
    affine: Affine,
    dx: &mut [f32],
) {
    assert_eq!((x.len(), x.len()), (dy.len(), dx.len()));
    assert_eq!(stats.len(), sums.len());
    let rows = stats.len() / 2;
    let row = affine.row_len(x, stats);
    for_each_group(dx, row, 3 * row, |first, dx| {
        for (i, dx) in dx.chunks_mut(row).enumerate() {
            let at = (first + i) * row;
            let gradients = (sums[first + i], sums[rows + first + i]);
            let channel = affine.channel(stats, first + i);
            row_backward(isa, &x[at..][..row], &dy[at..][..row], channel, gradients, dx);
        }
    });
}

vectorised!(
    fn row_backward(x: &[f32], dy: &[f32], channel: Channel, gradients: (f32, f32), dx: &mut [f32]) =
        row_backward_on
);

#[inline(always)]
fn row_backward_on<T: Lanes>(x: &[f32], dy: &[f32], channel: Channel, gradients: (f32, f32), dx: &mut [f32]) {
    let (gamma, beta) = gradients;
    let count = x.len() as f32;
    let (mean, scale) = (T::splat(channel.mean), T::splat(channel.scale));
    // scale * (g - beta/M - (x - mean) * slope), with the signs folded into the constants.
    let offset = T::splat(-beta / count);
    let slope = T::splat(-gamma * channel.inv_std / count);
    with_activation!(channel.activation, A => map([x, dy], dx, |[x, dy]: [T; 2]| {
        let g = dy.mul_add(A::derivative(channel.normalise(x)), offset);
        x.sub(mean).mul_add(slope, g).mul(scale)
    }));
}

#[cfg(test)]
mod tests {
    use super::super::testing::{assert_close, garbage, on_every_isa, values};
    use super::*;
    use crate::kernels::reference::batch_norm as reference;

    /// (rows, values of a row)
    const SIZES: [(usize, usize); 9] =
        [(1, 1), (3, 2), (17, 4), (8, 25), (3, 49), (2, 1089), (5, 5000), (64, 4096), (300, 300)];

    struct Case {
        x: Vec<f32>,
        dy: Vec<f32>,
        gamma: Vec<f32>,
        beta: Vec<f32>,
        stats: Vec<f32>,
        activation: Activation,
    }

    impl Case {
        fn new(rows: usize, row: usize, activation: Activation) -> Self {
            let x: Vec<f32> = values(rows * row, 1).iter().map(|x| 3.0 * x + 0.7).collect();
            let mut stats = garbage(2 * rows);
            reference::statistics(&x, rows, &mut stats);
            let gamma = values(rows, 3).iter().map(|gamma| gamma + 1.5).collect();
            Self { x, dy: values(rows * row, 2), gamma, beta: values(rows, 4), stats, activation }
        }

        fn affine(&self) -> Affine<'_> {
            Affine { gamma: &self.gamma, beta: &self.beta, epsilon: 1e-5, activation: self.activation }
        }
    }

    fn for_each_case(check: impl Fn(&Case, (usize, usize, Activation))) {
        for (i, (rows, row)) in SIZES.into_iter().enumerate() {
            for (j, activation) in Activation::ALL.into_iter().enumerate() {
                if rows * row < 1000 || i % Activation::ALL.len() == j {
                    check(&Case::new(rows, row, activation), (rows, row, activation));
                }
            }
        }
    }

    #[test]
    fn statistics_agree_with_the_reference() {
        for (rows, row) in SIZES {
            let x: Vec<f32> = values(rows * row, 1).iter().map(|x| x + 20.0).collect();
            let mut expect = garbage(2 * rows);
            reference::statistics(&x, rows, &mut expect);
            let kernel = |isa| {
                let mut stats = garbage(2 * rows);
                statistics(isa, &x, rows, &mut stats);
                stats
            };
            on_every_isa(kernel, |isa, stats| {
                assert_close(&stats[..rows], &expect[..rows], &("means", isa, rows, row));
                assert_close(&stats[rows..], &expect[rows..], &("variances", isa, rows, row));
            });
        }
    }

    #[test]
    fn application_agrees_with_the_reference() {
        for_each_case(|case, what| {
            let mut expect = garbage(case.x.len());
            reference::apply(&case.x, &case.stats, case.affine(), &mut expect);
            let kernel = |isa| {
                let mut y = garbage(case.x.len());
                apply(isa, &case.x, &case.stats, case.affine(), &mut y);
                let mut in_place = case.x.clone();
                apply_in_place(isa, &mut in_place, &case.stats, case.affine());
                assert_eq!(y, in_place);
                y
            };
            on_every_isa(kernel, |isa, y| assert_close(y, &expect, &(isa, what)));
        });
    }

    #[test]
    fn backward_agrees_with_the_reference() {
        for_each_case(|case, what| {
            let (mut sums, mut dx) = (garbage(case.stats.len()), garbage(case.x.len()));
            reference::backward_sums(&case.x, &case.dy, &case.stats, case.affine(), &mut sums);
            reference::backward_input(&case.x, &case.dy, &case.stats, &sums, case.affine(), &mut dx);
            let kernel = |isa| {
                let mut out = garbage(sums.len());
                backward_sums(isa, &case.x, &case.dy, &case.stats, case.affine(), &mut out);
                out
            };
            on_every_isa(kernel, |isa, got| assert_close(got, &sums, &("sums", isa, what)));
            if case.x.len() <= case.stats.len() {
                return; // one or two values a row: the gradient is 0 but for rounding
            }
            let kernel = |isa| {
                let mut out = garbage(dx.len());
                backward_input(isa, &case.x, &case.dy, &case.stats, &sums, case.affine(), &mut out);
                out
            };
            on_every_isa(kernel, |isa, got| assert_close(got, &dx, &("dx", isa, what)));
        });
    }
}
