//! Batch normalization with the activation that follows it.
//!
//! A row holds the M = N*H*W values of one channel. Statistics are `[2 * rows]`: the means, then the biased
//! variances. Forward retains nothing but its input for backward, which computes z = gamma * (x - mean) /
//! sqrt(var + eps) + beta again: that is cheaper than storing and loading it. A row is normalized, or
//! differentiated, right after its sums were taken, while it is in the cache.

use super::activation::{Apply, with_activation};
use super::simd::{BLOCK, Lanes, block_sums, map, map_in_place, sums, vectorised, zip_in_place};
use super::{Activation, Isa, for_each_group, for_each_rows};

/// The scale and shift of each channel (`[rows]` each) after the normalization, then the activation.
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
    /// The constants of row `row`, whose values have these moments.
    pub(super) fn channel(&self, row: usize, moments: RowMoments) -> Channel {
        let RowMoments { mean, variance } = moments;
        let inv_std = 1.0 / (variance + self.epsilon).sqrt();
        let scale = self.gamma[row] * inv_std;
        Channel { mean, inv_std, scale, beta: self.beta[row], activation: self.activation }
    }

    /// Values in a row of `x`, after checking that everything has as many rows as there are statistics.
    fn row_len(&self, x: &[f32], stats: &[f32]) -> usize {
        let rows = stats.len() / 2;
        assert_eq!(stats.len(), 2 * rows);
        assert_eq!((self.gamma.len(), self.beta.len()), (rows, rows));
        let row = x.len().checked_div(rows).unwrap_or(0);
        assert_eq!(rows * row, x.len());
        row
    }
}

/// One channel's normalization: z = (x - mean) * scale + beta.
#[derive(Clone, Copy)]
pub(super) struct Channel {
    mean: f32,
    inv_std: f32,
    scale: f32,
    beta: f32,
    activation: Activation,
}

impl Channel {
    /// z for one vector; the mean goes first, so that a great mean costs no precision.
    #[inline(always)]
    fn normalize<T: Lanes>(self, x: T) -> T {
        x.sub(T::splat(self.mean)).mul_add(T::splat(self.scale), T::splat(self.beta))
    }
}

/// Mean and biased variance of one row.
#[derive(Clone, Copy)]
pub(super) struct RowMoments {
    pub mean: f32,
    pub variance: f32,
}

/// Mean and variance of row `row` in statistics.
pub(super) fn moments_in(stats: &[f32], row: usize) -> RowMoments {
    RowMoments { mean: stats[row], variance: stats[stats.len() / 2 + row] }
}

/// The outputs of [`forward`].
pub struct NormalizedSlices<'a> {
    /// Means, then biased variances of the rows, `[2 * rows]`.
    pub stats: &'a mut [f32],
    /// The output, `[rows, M]`.
    pub y: &'a mut [f32],
}

/// A batch norm's forward, as its backward reads it.
#[derive(Clone, Copy)]
pub struct BatchNormSlices<'a> {
    /// The input, `[rows, M]`.
    pub x: &'a [f32],
    /// Means, then biased variances of the rows, `[2 * rows]`.
    pub stats: &'a [f32],
    /// Scale, shift and activation.
    pub affine: Affine<'a>,
}

/// The gradients of one row's scale and shift.
#[derive(Clone, Copy)]
pub(super) struct RowGradients {
    pub gamma: f32,
    pub beta: f32,
}

/// y = act(gamma * (x - mean) / sqrt(var + eps) + beta) + addend, where mean and variance are those of the row.
///
/// # Shapes
/// `x` and `addend` `[rows, M]`; see [`NormalizedSlices`].
pub fn forward(isa: Isa, x: &[f32], affine: Affine, addend: Option<&[f32]>, to: NormalizedSlices) {
    let NormalizedSlices { stats, y } = to;
    assert_eq!(x.len(), y.len());
    assert!(addend.is_none_or(|addend| addend.len() == y.len()));
    let row = affine.row_len(x, stats);
    for_each_rows(y, 4 * row, stats, |first, y, means, variances| {
        for (i, y) in y.chunks_mut(row).enumerate() {
            let at = (first + i) * row..(first + i + 1) * row;
            let moments = moments_of(isa, &x[at.clone()]);
            means[i] = moments.mean;
            variances[i] = moments.variance;
            let channel = affine.channel(first + i, moments);
            match addend {
                Some(addend) => apply_and_add(isa, &x[at.clone()], channel, &addend[at], y),
                None => apply_row(isa, &x[at], channel, y),
            }
        }
    });
}

/// [`forward`] with the result in the place of `x`.
pub fn forward_in_place(isa: Isa, x: &mut [f32], affine: Affine, addend: Option<&[f32]>, stats: &mut [f32]) {
    assert!(addend.is_none_or(|addend| addend.len() == x.len()));
    let row = affine.row_len(x, stats);
    for_each_rows(x, 3 * row, stats, |first, x, means, variances| {
        for (i, x) in x.chunks_mut(row).enumerate() {
            let moments = moments_of(isa, x);
            means[i] = moments.mean;
            variances[i] = moments.variance;
            let channel = affine.channel(first + i, moments);
            finish_in_place(isa, x, channel, addend.map(|addend| &addend[(first + i) * row..][..row]));
        }
    });
}

/// [`forward_in_place`] with given statistics.
pub fn apply_in_place(isa: Isa, x: &mut [f32], stats: &[f32], affine: Affine, addend: Option<&[f32]>) {
    assert!(addend.is_none_or(|addend| addend.len() == x.len()));
    let row = affine.row_len(x, stats);
    for_each_group(x, row, 2 * row, |first, x| {
        for (i, x) in x.chunks_mut(row).enumerate() {
            let channel = affine.channel(first + i, moments_in(stats, first + i));
            finish_in_place(isa, x, channel, addend.map(|addend| &addend[(first + i) * row..][..row]));
        }
    });
}

fn finish_in_place(isa: Isa, x: &mut [f32], channel: Channel, addend: Option<&[f32]>) {
    match addend {
        Some(addend) => apply_and_add_in_place(isa, x, channel, addend),
        None => apply_row_in_place(isa, x, channel),
    }
}

vectorised!(pub(super) fn moments_of(x: &[f32]) -> RowMoments = moments);

/// Mean and biased variance in one pass over memory: two passes over each block while it is in cache, then
/// the blocks are combined pairwise (Chan, Golub and LeVeque 1979).
#[inline(always)]
fn moments<T: Lanes>(x: &[f32]) -> RowMoments {
    let mut count = 0.0f64;
    let mut mean = 0.0f64;
    let mut squares = 0.0f64;
    for block in x.chunks(BLOCK) {
        let len = block.len() as f64;
        let [sum] = block_sums::<T, 1, 1>([block], [T::splat(0.0)], |[x]| [x]);
        let center = sum / block.len() as f32;
        let middle = T::splat(center);
        let [shift, spread] = block_sums::<T, 1, 2>([block], [middle], |[x]| {
            let offset = x.sub(middle);
            [offset, offset.mul(offset)]
        });
        // `center` is rounded; what the block's true mean lacks is in `shift`.
        let block_mean = f64::from(center) + f64::from(shift) / len;
        let block_squares = f64::from(spread) - f64::from(shift) * f64::from(shift) / len;
        let step = block_mean - mean;
        let total = count + len;
        mean += step * len / total;
        squares += block_squares + step * step * count * len / total;
        count = total;
    }
    RowMoments { mean: mean as f32, variance: (squares / count).max(0.0) as f32 }
}

vectorised!(pub(super) fn apply_row(x: &[f32], channel: Channel, y: &mut [f32]) = apply_row_on);

#[inline(always)]
fn apply_row_on<T: Lanes>(x: &[f32], channel: Channel, y: &mut [f32]) {
    with_activation!(channel.activation, A => map([x], y, |[x]: [T; 1]| A::apply(channel.normalize(x))));
}

vectorised!(pub(super) fn apply_row_in_place(x: &mut [f32], channel: Channel) = apply_row_in_place_on);

#[inline(always)]
fn apply_row_in_place_on<T: Lanes>(x: &mut [f32], channel: Channel) {
    with_activation!(channel.activation, A => map_in_place(x, |x: T| A::apply(channel.normalize(x))));
}

vectorised!(fn apply_and_add(x: &[f32], channel: Channel, addend: &[f32], y: &mut [f32]) = apply_and_add_on);

#[inline(always)]
fn apply_and_add_on<T: Lanes>(x: &[f32], channel: Channel, addend: &[f32], y: &mut [f32]) {
    with_activation!(channel.activation, A => {
        map([x, addend], y, |[x, addend]: [T; 2]| A::apply(channel.normalize(x)).add(addend))
    });
}

vectorised!(
    fn apply_and_add_in_place(x: &mut [f32], channel: Channel, addend: &[f32]) = apply_and_add_in_place_on
);

#[inline(always)]
fn apply_and_add_in_place_on<T: Lanes>(x: &mut [f32], channel: Channel, addend: &[f32]) {
    with_activation!(channel.activation, A => {
        zip_in_place(x, addend, |x: T, addend| A::apply(channel.normalize(x)).add(addend))
    });
}

/// The gradients of gamma (sum of g * xhat), beta (sum of g) and x, where g = dy * act'(z) and the statistics
/// are those of x itself: dx = gamma / sqrt(var + eps) * (g - (dbeta + xhat * dgamma) / M).
///
/// # Shapes
/// `dy` and `dx` `[rows, M]`; `sums` `[2 * rows]`: of gamma, then of beta; see [`BatchNormSlices`].
pub fn backward(isa: Isa, forward: BatchNormSlices, dy: &[f32], sums: &mut [f32], dx: &mut [f32]) {
    let BatchNormSlices { x, stats, affine } = forward;
    assert_eq!((x.len(), x.len()), (dy.len(), dx.len()));
    assert_eq!(stats.len(), sums.len());
    let row = affine.row_len(x, stats);
    for_each_rows(dx, 5 * row, sums, |first, dx, gammas, betas| {
        for (i, dx) in dx.chunks_mut(row).enumerate() {
            let at = (first + i) * row..(first + i + 1) * row;
            let channel = affine.channel(first + i, moments_in(stats, first + i));
            let gradients = differentiate(isa, &x[at.clone()], &dy[at], channel, dx);
            gammas[i] = gradients.gamma;
            betas[i] = gradients.beta;
        }
    });
}

/// [`backward`] with the gradient of x in the place of `dy`.
pub fn backward_in_place(isa: Isa, forward: BatchNormSlices, dy: &mut [f32], sums: &mut [f32]) {
    let BatchNormSlices { x, stats, affine } = forward;
    assert_eq!(x.len(), dy.len());
    assert_eq!(stats.len(), sums.len());
    let row = affine.row_len(x, stats);
    for_each_rows(dy, 4 * row, sums, |first, dy, gammas, betas| {
        for (i, dy) in dy.chunks_mut(row).enumerate() {
            let channel = affine.channel(first + i, moments_in(stats, first + i));
            let x = &x[(first + i) * row..][..row];
            let gradients = differentiate_in_place(isa, x, dy, channel);
            gammas[i] = gradients.gamma;
            betas[i] = gradients.beta;
        }
    });
}

/// One row of [`backward`]; returns the gradients of gamma and beta.
pub(super) fn differentiate(
    isa: Isa,
    x: &[f32],
    dy: &[f32],
    channel: Channel,
    dx: &mut [f32],
) -> RowGradients {
    let gradients = row_gradients(isa, x, dy, channel);
    row_backward(isa, x, dy, channel, gradients, dx);
    gradients
}

/// One row of [`backward_in_place`]; returns the gradients of gamma and beta.
pub(super) fn differentiate_in_place(isa: Isa, x: &[f32], dy: &mut [f32], channel: Channel) -> RowGradients {
    let gradients = row_gradients(isa, x, dy, channel);
    row_backward_in_place(isa, x, dy, channel, gradients);
    gradients
}

vectorised!(fn row_gradients(x: &[f32], dy: &[f32], channel: Channel) -> RowGradients = row_gradients_on);

#[inline(always)]
fn row_gradients_on<T: Lanes>(x: &[f32], dy: &[f32], channel: Channel) -> RowGradients {
    let [gamma, beta] = with_activation!(channel.activation, A => sums([x, dy], |[x, dy]: [T; 2]| {
        let g = dy.mul(A::derivative(channel.normalize(x)));
        [g.mul(x.sub(T::splat(channel.mean))), g]
    }));
    RowGradients { gamma: (gamma * f64::from(channel.inv_std)) as f32, beta: beta as f32 }
}

vectorised!(
    fn row_backward(x: &[f32], dy: &[f32], channel: Channel, gradients: RowGradients, dx: &mut [f32]) =
        row_backward_on
);

#[inline(always)]
fn row_backward_on<T: Lanes>(
    x: &[f32],
    dy: &[f32],
    channel: Channel,
    gradients: RowGradients,
    dx: &mut [f32],
) {
    let slope = Slope::new(channel, gradients, x.len());
    with_activation!(channel.activation, A => {
        map([x, dy], dx, |[x, dy]: [T; 2]| slope.gradient(x, dy.mul(A::derivative(channel.normalize(x)))))
    });
}

vectorised!(
    fn row_backward_in_place(x: &[f32], dy: &mut [f32], channel: Channel, gradients: RowGradients) =
        row_backward_in_place_on
);

#[inline(always)]
fn row_backward_in_place_on<T: Lanes>(x: &[f32], dy: &mut [f32], channel: Channel, gradients: RowGradients) {
    let slope = Slope::new(channel, gradients, x.len());
    with_activation!(channel.activation, A => {
        zip_in_place(dy, x, |dy: T, x| slope.gradient(x, dy.mul(A::derivative(channel.normalize(x)))))
    });
}

/// dx = scale * (g - beta / M - (x - mean) * slope), with the signs folded into the constants.
#[derive(Clone, Copy)]
struct Slope {
    mean: f32,
    scale: f32,
    offset: f32,
    slope: f32,
}

impl Slope {
    fn new(channel: Channel, gradients: RowGradients, count: usize) -> Self {
        let RowGradients { gamma, beta } = gradients;
        let count = count as f32;
        let offset = -beta / count;
        let slope = -gamma * channel.inv_std / count;
        Self { mean: channel.mean, scale: channel.scale, offset, slope }
    }

    #[inline(always)]
    fn gradient<T: Lanes>(self, x: T, g: T) -> T {
        let centered = x.sub(T::splat(self.mean));
        centered.mul_add(T::splat(self.slope), g.add(T::splat(self.offset))).mul(T::splat(self.scale))
    }
}

#[cfg(test)]
mod tests {
    use super::super::testing::{assert_close, garbage, on_every_isa, values};
    use super::*;
    use crate::reference::batch_norm as reference;

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
            reference::statistics(&x, &mut stats);
            let gamma = values(rows, 3).iter().map(|gamma| gamma + 1.5).collect();
            Self { x, dy: values(rows * row, 2), gamma, beta: values(rows, 4), stats, activation }
        }

        fn affine(&self) -> Affine<'_> {
            Affine { gamma: &self.gamma, beta: &self.beta, epsilon: 1e-5, activation: self.activation }
        }

        fn slices(&self) -> BatchNormSlices<'_> {
            BatchNormSlices { x: &self.x, stats: &self.stats, affine: self.affine() }
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
            reference::statistics(&x, &mut expect);
            let gamma = vec![1.0; rows];
            let beta = vec![0.0; rows];
            let affine = Affine { gamma: &gamma, beta: &beta, epsilon: 1e-5, activation: Activation::None };
            on_every_isa(
                |isa| {
                    let mut stats = garbage(2 * rows);
                    forward_in_place(isa, &mut x.clone(), affine, None, &mut stats);
                    stats
                },
                |isa, stats| {
                    assert_close(&stats[..rows], &expect[..rows], &("means", isa, rows, row));
                    assert_close(&stats[rows..], &expect[rows..], &("variances", isa, rows, row));
                },
            );
        }
    }

    /// The output of [`forward`], which the functions in place must equal.
    fn every_forward(isa: Isa, case: &Case, addend: Option<&[f32]>) -> Vec<f32> {
        let mut y = garbage(case.x.len());
        let mut stats = garbage(case.stats.len());
        let to = NormalizedSlices { stats: &mut stats, y: &mut y };
        forward(isa, &case.x, case.affine(), addend, to);
        let mut in_place = case.x.clone();
        apply_in_place(isa, &mut in_place, &stats, case.affine(), addend);
        assert_eq!(y, in_place);
        in_place.copy_from_slice(&case.x);
        forward_in_place(isa, &mut in_place, case.affine(), addend, &mut stats);
        assert_eq!(y, in_place);
        y
    }

    /// The sums of [`backward`], then its gradient; the function in place must equal them.
    fn every_backward(isa: Isa, case: &Case) -> Vec<f32> {
        let mut sums = garbage(case.stats.len());
        let mut dx = garbage(case.x.len());
        backward(isa, case.slices(), &case.dy, &mut sums, &mut dx);
        let mut again = garbage(sums.len());
        let mut in_place = case.dy.clone();
        backward_in_place(isa, case.slices(), &mut in_place, &mut again);
        assert_eq!((&sums, &dx), (&again, &in_place));
        [sums, dx].concat()
    }

    #[test]
    fn forward_agrees_with_the_reference() {
        for_each_case(|case, what| {
            for addend in [None, Some(&case.dy[..])] {
                let mut expect = case.x.clone();
                reference::apply_in_place(&mut expect, &case.stats, case.affine(), addend);
                if case.x.len() > case.stats.len() {
                    on_every_isa(
                        |isa| every_forward(isa, case, addend),
                        |isa, y| assert_close(y, &expect, &(isa, what)),
                    );
                }
            }
        });
    }

    #[test]
    fn backward_agrees_with_the_reference() {
        for_each_case(|case, what| {
            let mut sums = garbage(case.stats.len());
            let mut dx = garbage(case.x.len());
            reference::backward(case.slices(), &case.dy, &mut sums, &mut dx);
            on_every_isa(
                |isa| every_backward(isa, case),
                |isa, got| {
                    let (got_sums, got_dx) = got.split_at(sums.len());
                    assert_close(got_sums, &sums, &("sums", isa, what));
                    // With one or two values per row the gradient is 0 but for rounding.
                    if case.x.len() > case.stats.len() {
                        assert_close(got_dx, &dx, &("dx", isa, what));
                    }
                },
            );
        });
    }
}
