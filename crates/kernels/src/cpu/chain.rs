//! The depthwise middle of an inverted residual block, between its two matrix products: batch norm and activation,
//! depthwise convolution, batch norm and activation, mean of each map; and the backward of all of it.
//!
//! Each channel goes through the whole chain while it is in the cache, so that memory is read and written once
//! where kernel after kernel would read it five times; and work is handed to threads once, not five times.
//!
//! Backward computes the activated expansion again: that costs less than storing it and reading it back.

use rayon::prelude::*;

use super::batch_norm::{
    Affine, RowGradients, RowMoments, apply_row, apply_row_in_place, differentiate, differentiate_in_place,
    moments_in, moments_of,
};
use super::depthwise::{DepthwiseShape, backward_input_channels, backward_weight_channels, forward_channels};
use super::planes::{activate_in_place, excite_backward, plane_sums};
use super::scratch::with_scratch;
use super::{Activation, Isa, SERIAL_WORK, for_each_group, group_rows};

/// The chain's constants.
#[derive(Clone, Copy, Debug)]
pub struct ChainSlices<'a> {
    /// The depthwise convolution's maps.
    pub shape: DepthwiseShape,
    /// Batch norm and activation before it, where the block has an expansion.
    pub before: Option<Affine<'a>>,
    /// The depthwise convolution's weight, `[C, k * k]`.
    pub weight: &'a [f32],
    /// Batch norm and activation after it.
    pub after: Affine<'a>,
}

/// Outputs of a training pass, and what its backward reads. Every value is written.
pub struct KeptSlices<'a> {
    /// Statistics of the batch norm before, `[2 C]`, or empty.
    pub before: &'a mut [f32],
    /// The depthwise convolution's output, `[C, N, Ho, Wo]`.
    pub convolved: &'a mut [f32],
    /// Statistics of the batch norm after, `[2 C]`.
    pub after: &'a mut [f32],
    /// The chain's output, `[C, N, Ho, Wo]`.
    pub output: &'a mut [f32],
    /// Mean of each map of the output, `[C, N]`, or empty: not computed.
    pub means: &'a mut [f32],
}

/// Channels that are worked on together: as many as stay in a level 1 cache, at least one.
fn chunk_channels(shape: &DepthwiseShape) -> usize {
    (8192 / shape.channel().max(1)).max(1)
}

/// A slice cut into pieces of `piece` values; as many empty ones where there are no values.
fn pieces(data: &mut [f32], piece: usize, count: usize) -> Vec<&mut [f32]> {
    if data.is_empty() {
        return (0..count).map(|_| <&mut [f32]>::default()).collect();
    }
    data.chunks_mut(piece).collect()
}

/// One group of channels of [`KeptSlices`].
struct Group<'a> {
    first: usize,
    channels: usize,
    before: [&'a mut [f32]; 2],
    convolved: &'a mut [f32],
    after: [&'a mut [f32]; 2],
    output: &'a mut [f32],
    means: &'a mut [f32],
}

/// Runs `body` on every group, on several threads where the work is worth it.
fn for_each<T: Send>(groups: Vec<T>, body: impl Fn(T) + Send + Sync) {
    if groups.len() == 1 {
        groups.into_iter().for_each(body);
    } else {
        groups.into_par_iter().for_each(body);
    }
}

/// Channels per task.
fn group_channels(shape: &DepthwiseShape, passes: usize) -> usize {
    let work = shape.work() + passes * (shape.channel() + shape.out_channel());
    if shape.channels * work <= SERIAL_WORK { shape.channels.max(1) } else { group_rows(work) }
}

/// Forward with the batch's own statistics, for training.
///
/// # Shapes
/// `x` `[C, N, H, W]`; see [`KeptSlices`].
pub fn forward(isa: Isa, chain: &ChainSlices, x: &[f32], kept: KeptSlices) {
    let ChainSlices { shape, before, .. } = chain;
    let channels = shape.channels;
    let statistics = if before.is_some() { 2 * channels } else { 0 };
    assert_eq!(x.len(), channels * shape.channel());
    assert_eq!((kept.before.len(), kept.convolved.len()), (statistics, channels * shape.out_channel()));
    assert_eq!((kept.output.len(), kept.after.len()), (kept.convolved.len(), 2 * channels));
    assert!(kept.means.is_empty() || kept.means.len() == channels * shape.images);
    let size = group_channels(shape, 3);
    let count = channels.div_ceil(size);
    let (before_means, before_variances) = kept.before.split_at_mut(statistics / 2);
    let (after_means, after_variances) = kept.after.split_at_mut(channels);
    let mut before = [before_means, before_variances].map(|half| pieces(half, size, count).into_iter());
    let mut convolved = pieces(kept.convolved, size * shape.out_channel(), count).into_iter();
    let mut after = [after_means, after_variances].map(|half| pieces(half, size, count).into_iter());
    let mut output = pieces(kept.output, size * shape.out_channel(), count).into_iter();
    let mut means = pieces(kept.means, size * shape.images, count).into_iter();
    let groups = (0..count).map(|index| Group {
        first: index * size,
        channels: size.min(channels - index * size),
        before: before.each_mut().map(|halves| halves.next().unwrap_or_default()),
        convolved: convolved.next().unwrap_or_default(),
        after: after.each_mut().map(|halves| halves.next().unwrap_or_default()),
        output: output.next().unwrap_or_default(),
        means: means.next().unwrap_or_default(),
    });
    for_each(groups.collect(), |group| forward_group(isa, chain, x, group));
}

fn forward_group(isa: Isa, chain: &ChainSlices, x: &[f32], group: Group) {
    let ChainSlices { shape, before, weight, after } = chain;
    let row = shape.channel();
    let out_row = shape.out_channel();
    let size = chunk_channels(shape);
    with_scratch(if before.is_some() { size * row } else { 0 }, |scratch| {
        for start in (0..group.channels).step_by(size) {
            let chunk = start..group.channels.min(start + size);
            let channels = group.first + chunk.start..group.first + chunk.end;
            let mut input = &x[channels.start * row..channels.end * row];
            if let Some(before) = before {
                for (i, (x, to)) in input.chunks(row).zip(scratch.chunks_mut(row)).enumerate() {
                    let moments = moments_of(isa, x);
                    group.before[0][start + i] = moments.mean;
                    group.before[1][start + i] = moments.variance;
                    apply_row(isa, x, before.channel(channels.start + i, moments), to);
                }
                input = scratch;
            }
            let convolved = &mut group.convolved[chunk.start * out_row..chunk.end * out_row];
            forward_channels(isa, shape, input, &weight[channels.start * shape.taps()..], convolved);
            for (i, channel) in channels.enumerate() {
                let convolved = &convolved[i * out_row..][..out_row];
                let moments = moments_of(isa, convolved);
                group.after[0][start + i] = moments.mean;
                group.after[1][start + i] = moments.variance;
                let output = &mut group.output[(start + i) * out_row..][..out_row];
                apply_row(isa, convolved, after.channel(channel, moments), output);
                if !group.means.is_empty() {
                    let means = &mut group.means[(start + i) * shape.images..][..shape.images];
                    plane_sums(isa, output, shape.out_plane(), 1.0 / shape.out_plane() as f64, means);
                }
            }
        }
    });
}

/// Statistics to normalize with.
#[derive(Clone, Copy)]
pub enum Moments<'a> {
    /// The batch's own.
    OfBatch,
    /// Given ones of the batch norms before and after, `[2 C]` each; without a batch norm before, its own are empty.
    Given(&'a [f32], &'a [f32]),
}

/// Outputs of a pass that keeps nothing for backward.
pub struct OutputSlices<'a> {
    /// Statistics that the batch norm before normalized with, `[2 C]`, or empty: not written.
    pub before: &'a mut [f32],
    /// Statistics that the batch norm after normalized with, `[2 C]`, or empty: not written.
    pub after: &'a mut [f32],
    /// The chain's output, `[C, N, Ho, Wo]`.
    pub output: &'a mut [f32],
}

/// One group of channels of [`OutputSlices`].
struct OutputGroup<'a> {
    first: usize,
    before: [&'a mut [f32]; 2],
    after: [&'a mut [f32]; 2],
    output: &'a mut [f32],
}

/// Forward that keeps nothing for backward.
///
/// # Shapes
/// `x` `[C, N, H, W]`; see [`OutputSlices`].
pub fn forward_forgetting(isa: Isa, chain: &ChainSlices, x: &[f32], moments: Moments, to: OutputSlices) {
    let shape = &chain.shape;
    let channels = shape.channels;
    assert_eq!((x.len(), to.output.len()), (channels * shape.channel(), channels * shape.out_channel()));
    assert!([&to.before, &to.after].iter().all(|seen| seen.is_empty() || seen.len() == 2 * channels));
    let size = group_channels(shape, 2);
    let count = channels.div_ceil(size);
    let [mut before, mut after] = [to.before, to.after].map(|seen| {
        let (means, variances) = seen.split_at_mut(seen.len() / 2);
        [pieces(means, size, count).into_iter(), pieces(variances, size, count).into_iter()]
    });
    let groups = pieces(to.output, size * shape.out_channel(), count).into_iter().enumerate();
    let groups = groups.map(|(index, output)| OutputGroup {
        first: index * size,
        before: before.each_mut().map(|half| half.next().unwrap_or_default()),
        after: after.each_mut().map(|half| half.next().unwrap_or_default()),
        output,
    });
    for_each(groups.collect(), |group| forgetting_group(isa, chain, x, moments, group));
}

/// Writes the moments of one row to the means and the variances, unless these are empty.
fn note(halves: &mut [&mut [f32]; 2], row: usize, moments: RowMoments) {
    if !halves[0].is_empty() {
        halves[0][row] = moments.mean;
        halves[1][row] = moments.variance;
    }
}

fn forgetting_group(isa: Isa, chain: &ChainSlices, x: &[f32], moments: Moments, group: OutputGroup) {
    let ChainSlices { shape, before, weight, after } = chain;
    let OutputGroup { first, before: mut seen_before, after: mut seen_after, output } = group;
    let row = shape.channel();
    let out_row = shape.out_channel();
    let size = chunk_channels(shape);
    with_scratch(if before.is_some() { size * row } else { 0 }, |scratch| {
        for (index, output) in output.chunks_mut(size * out_row).enumerate() {
            let start = index * size;
            let channels = first + start..first + start + output.len() / out_row;
            let mut input = &x[channels.start * row..channels.end * row];
            if let Some(before) = before {
                for (i, (x, to)) in input.chunks(row).zip(scratch.chunks_mut(row)).enumerate() {
                    let found = match moments {
                        Moments::OfBatch => moments_of(isa, x),
                        Moments::Given(before, _) => moments_in(before, channels.start + i),
                    };
                    note(&mut seen_before, start + i, found);
                    apply_row(isa, x, before.channel(channels.start + i, found), to);
                }
                input = scratch;
            }
            forward_channels(isa, shape, input, &weight[channels.start * shape.taps()..], output);
            for (i, output) in output.chunks_mut(out_row).enumerate() {
                let found = match moments {
                    Moments::OfBatch => moments_of(isa, output),
                    Moments::Given(_, after) => moments_in(after, channels.start + i),
                };
                note(&mut seen_after, start + i, found);
                apply_row_in_place(isa, output, after.channel(channels.start + i, found));
            }
        }
    });
}

/// A depthwise convolution that a batch norm was folded into, and its activation.
#[derive(Clone, Copy, Debug)]
pub struct FoldedSlices<'a> {
    /// The depthwise convolution's maps.
    pub shape: DepthwiseShape,
    /// The depthwise convolution's weight, `[C, k * k]`.
    pub weight: &'a [f32],
    /// Added to the convolution's output, `[C]`.
    pub shift: &'a [f32],
    /// Applied last.
    pub activation: Activation,
}

/// y = act(x convolved with weight + shift).
///
/// # Shapes
/// `x` `[C, N, H, W]` to `y` `[C, N, Ho, Wo]`.
pub fn forward_activated(isa: Isa, chain: &FoldedSlices, x: &[f32], y: &mut [f32]) {
    let FoldedSlices { shape, weight, shift, activation } = *chain;
    let out_row = shape.out_channel();
    assert_eq!((x.len(), y.len()), (shape.channels * shape.channel(), shape.channels * out_row));
    assert_eq!((weight.len(), shift.len()), (shape.channels * shape.taps(), shape.channels));
    let chunk = chunk_channels(&shape);
    for_each_group(y, out_row, shape.work() + out_row, |first, y| {
        for (index, y) in y.chunks_mut(chunk * out_row).enumerate() {
            let first = first + index * chunk;
            forward_channels(isa, &shape, &x[first * shape.channel()..], &weight[first * shape.taps()..], y);
            for (y, shift) in y.chunks_mut(out_row).zip(&shift[first..]) {
                activate_in_place(isa, y, *shift, activation);
            }
        }
    });
}

/// The inputs of backward: results of the training pass, and the gradient of its output.
#[derive(Clone, Copy)]
pub struct Saved<'a> {
    /// The chain's input, `[C, N, H, W]`.
    pub x: &'a [f32],
    /// As in [`KeptSlices`].
    pub before: &'a [f32],
    /// As in [`KeptSlices`].
    pub convolved: &'a [f32],
    /// As in [`KeptSlices`].
    pub after: &'a [f32],
    /// Gradient of the chain's output, `[C, N, Ho, Wo]`.
    pub dy: &'a [f32],
    /// Where squeeze-and-excite follows: its factors and the gradient of the means, `[C, N]` each, with which the
    /// output's gradient is `dy * factor + dmean / (Ho * Wo)`.
    pub excite: Option<(&'a [f32], &'a [f32])>,
}

/// The outputs of backward. Every value is written.
pub struct GradientSlices<'a> {
    /// Of the chain's input, `[C, N, H, W]`.
    pub dx: &'a mut [f32],
    /// Of gamma, then of beta of the batch norm before, `[2 C]`, or empty.
    pub before: &'a mut [f32],
    /// Of the weight, `[C, k * k]`.
    pub weight: &'a mut [f32],
    /// Of gamma, then of beta of the batch norm after, `[2 C]`.
    pub after: &'a mut [f32],
}

/// One group of channels of [`GradientSlices`].
struct SlopeGroup<'a> {
    first: usize,
    channels: usize,
    dx: &'a mut [f32],
    before: [&'a mut [f32]; 2],
    weight: &'a mut [f32],
    after: [&'a mut [f32]; 2],
}

/// All gradients of [`forward`].
///
/// # Shapes
/// See [`Saved`] and [`GradientSlices`].
pub fn backward(isa: Isa, chain: &ChainSlices, saved: &Saved, slopes: GradientSlices) {
    let shape = &chain.shape;
    let channels = shape.channels;
    let values = (channels * shape.channel(), channels * shape.out_channel());
    assert_eq!((saved.x.len(), saved.convolved.len()), values);
    assert_eq!((slopes.dx.len(), saved.dy.len()), values);
    assert_eq!((slopes.weight.len(), slopes.after.len()), (channels * shape.taps(), 2 * channels));
    let size = group_channels(shape, 6);
    let count = channels.div_ceil(size);
    let mut dx = pieces(slopes.dx, size * shape.channel(), count).into_iter();
    let before_half = slopes.before.len() / 2;
    let (gammas, betas) = slopes.before.split_at_mut(before_half);
    let mut before = [gammas, betas].map(|half| pieces(half, size, count).into_iter());
    let mut weight = pieces(slopes.weight, size * shape.taps(), count).into_iter();
    let (gammas, betas) = slopes.after.split_at_mut(channels);
    let mut after = [gammas, betas].map(|half| pieces(half, size, count).into_iter());
    let groups = (0..count).map(|index| SlopeGroup {
        first: index * size,
        channels: size.min(channels - index * size),
        dx: dx.next().unwrap_or_default(),
        before: before.each_mut().map(|halves| halves.next().unwrap_or_default()),
        weight: weight.next().unwrap_or_default(),
        after: after.each_mut().map(|halves| halves.next().unwrap_or_default()),
    });
    for_each(groups.collect(), |group| backward_group(isa, chain, saved, group));
}

fn backward_group(isa: Isa, chain: &ChainSlices, saved: &Saved, group: SlopeGroup) {
    let ChainSlices { shape, before, weight, .. } = chain;
    let row = shape.channel();
    let out_row = shape.out_channel();
    let taps = shape.taps();
    let size = chunk_channels(shape);
    let expanded = if before.is_some() { size * row } else { 0 };
    with_scratch(size * out_row + expanded, |scratch| {
        let (dy, expanded) = scratch.split_at_mut(size * out_row);
        for start in (0..group.channels).step_by(size) {
            let count = size.min(group.channels - start);
            let channels = group.first + start..group.first + start + count;
            let dy = &mut dy[..count * out_row];
            for (i, dy) in dy.chunks_mut(out_row).enumerate() {
                let sums = differentiate_output(isa, chain, saved, channels.start + i, dy);
                group.after[0][start + i] = sums.gamma;
                group.after[1][start + i] = sums.beta;
            }
            let x = &saved.x[channels.start * row..channels.end * row];
            let constants = |before: &Affine, i| {
                before.channel(channels.start + i, moments_in(saved.before, channels.start + i))
            };
            let mut input = x;
            if let Some(before) = before {
                // Computed again: cheaper than storing it.
                for (i, (x, to)) in x.chunks(row).zip(expanded.chunks_mut(row)).enumerate() {
                    apply_row(isa, x, constants(before, i), to);
                }
                input = expanded;
            }
            let dw = &mut group.weight[start * taps..(start + count) * taps];
            dw.fill(0.0);
            backward_weight_channels(isa, shape, input, dy, dw);
            let dx = &mut group.dx[start * row..(start + count) * row];
            backward_input_channels(isa, shape, dy, &weight[channels.start * taps..], dx);
            if let Some(before) = before {
                for (i, (dx, x)) in dx.chunks_mut(row).zip(x.chunks(row)).enumerate() {
                    let sums = differentiate_in_place(isa, x, dx, constants(before, i));
                    group.before[0][start + i] = sums.gamma;
                    group.before[1][start + i] = sums.beta;
                }
            }
        }
    });
}

/// Writes the gradient of one channel of the convolution's output, through squeeze-and-excite where there is one; returns
/// the gradients of gamma and beta.
fn differentiate_output(
    isa: Isa,
    chain: &ChainSlices,
    saved: &Saved,
    channel: usize,
    to: &mut [f32],
) -> RowGradients {
    let shape = &chain.shape;
    let constants = chain.after.channel(channel, moments_in(saved.after, channel));
    let values = channel * shape.out_channel()..(channel + 1) * shape.out_channel();
    let x = &saved.convolved[values.clone()];
    let dy = &saved.dy[values];
    let Some((factor, dmean)) = saved.excite else { return differentiate(isa, x, dy, constants, to) };
    let planes = channel * shape.images..(channel + 1) * shape.images;
    excite_backward(isa, dy, &factor[planes.clone()], &dmean[planes], shape.out_plane(), to);
    differentiate_in_place(isa, x, to, constants)
}

#[cfg(test)]
mod tests {
    use super::super::testing::{assert_close, garbage, on_every_isa, values};
    use super::*;
    use crate::reference::chain as reference;

    /// (channels, images, height, kernel, stride): small maps, large ones, and enough channels for threads.
    const SHAPES: [[usize; 5]; 8] = [
        [1, 2, 3, 3, 1],
        [17, 20, 2, 7, 1],
        [5, 16, 4, 5, 2],
        [9, 3, 14, 5, 1],
        [33, 2, 20, 3, 2],
        [3, 2, 33, 7, 2],
        [130, 16, 7, 5, 1],
        [40, 8, 28, 3, 1],
    ];

    /// One chain with made-up values.
    struct Case {
        shape: DepthwiseShape,
        expands: bool,
        x: Vec<f32>,
        weight: Vec<f32>,
        constants: [Vec<f32>; 4],
        dy: Vec<f32>,
        factors: [Vec<f32>; 2],
    }

    impl Case {
        fn new(shape: DepthwiseShape, expands: bool) -> Self {
            let DepthwiseShape { channels, images, .. } = shape;
            let scaled = |seed| values(channels, seed).iter().map(|gamma| gamma + 1.5).collect::<Vec<f32>>();
            Self {
                shape,
                expands,
                x: values(channels * shape.channel(), 1).iter().map(|x| 2.0 * x + 0.3).collect(),
                weight: values(channels * shape.taps(), 2),
                constants: [scaled(3), values(channels, 4), scaled(5), values(channels, 6)],
                dy: values(channels * shape.out_channel(), 7),
                factors: [values(channels * images, 8), values(channels * images, 9)],
            }
        }

        fn chain(&self) -> ChainSlices<'_> {
            let affine = |which: usize| Affine {
                gamma: &self.constants[which],
                beta: &self.constants[which + 1],
                epsilon: 1e-5,
                activation: Activation::HSwish,
            };
            let before = self.expands.then(|| affine(0));
            ChainSlices { shape: self.shape, before, weight: &self.weight, after: affine(2) }
        }

        /// The lengths of [`KeptSlices`].
        fn lengths(&self) -> [usize; 5] {
            let channels = self.shape.channels;
            let before = if self.expands { 2 * channels } else { 0 };
            [before, self.dy.len(), 2 * channels, self.dy.len(), channels * self.shape.images]
        }

        fn forward(&self, run: impl Fn(&ChainSlices, &[f32], KeptSlices)) -> [Vec<f32>; 5] {
            let mut out = self.lengths().map(garbage);
            let [before, convolved, after, output, means] = out.each_mut().map(Vec::as_mut_slice);
            run(&self.chain(), &self.x, KeptSlices { before, convolved, after, output, means });
            out
        }

        fn backward(
            &self,
            kept: &[Vec<f32>; 5],
            excited: bool,
            run: impl Fn(&ChainSlices, &Saved, GradientSlices),
        ) -> [Vec<f32>; 4] {
            let channels = self.shape.channels;
            let before = if self.expands { 2 * channels } else { 0 };
            let mut out = [self.x.len(), before, self.weight.len(), 2 * channels].map(garbage);
            let [dx, before, weight, after] = out.each_mut().map(Vec::as_mut_slice);
            let saved = Saved {
                x: &self.x,
                before: &kept[0],
                convolved: &kept[1],
                after: &kept[2],
                dy: &self.dy,
                excite: excited.then_some((&self.factors[0], &self.factors[1])),
            };
            run(&self.chain(), &saved, GradientSlices { dx, before, weight, after });
            out
        }
    }

    fn for_each_case(check: impl Fn(&Case)) {
        for [channels, images, height, kernel, stride] in SHAPES {
            let shape = DepthwiseShape { channels, images, height, width: height, kernel, stride };
            for expands in [true, false] {
                check(&Case::new(shape, expands));
            }
        }
    }

    /// Compares the parts of a result that [`on_every_isa`] takes as one slice.
    fn check_parts<const N: usize>(
        case: &Case,
        expect: &[Vec<f32>; N],
        run: impl Fn(Isa) -> [Vec<f32>; N] + Sync,
    ) {
        on_every_isa(
            |isa| run(isa).concat(),
            |isa, got| {
                let mut start = 0;
                for (part, expect) in expect.iter().enumerate() {
                    let got = &got[start..start + expect.len()];
                    assert_close(got, expect, &(isa, case.shape, case.expands, part));
                    start += expect.len();
                }
            },
        );
    }

    #[test]
    fn forward_agrees_with_the_reference() {
        for_each_case(|case| {
            let expect = case.forward(reference::forward);
            check_parts(case, &expect, |isa| case.forward(|chain, x, kept| forward(isa, chain, x, kept)));
        });
    }

    #[test]
    fn forgetting_changes_no_bit() {
        for_each_case(|case| {
            for isa in Isa::available() {
                let [before, _, after, output, _] =
                    case.forward(|chain, x, kept| forward(isa, chain, x, kept));
                let mut seen = [garbage(before.len()), garbage(after.len())];
                let mut got = garbage(output.len());
                let [seen_before, seen_after] = seen.each_mut().map(Vec::as_mut_slice);
                let to = OutputSlices { before: seen_before, after: seen_after, output: &mut got };
                forward_forgetting(isa, &case.chain(), &case.x, Moments::OfBatch, to);
                assert!(got == output && seen[0] == before && seen[1] == after, "{isa:?} {:?}", case.shape);
                let mut given = garbage(output.len());
                let moments = Moments::Given(&before, &after);
                let to = OutputSlices { before: &mut [], after: &mut [], output: &mut given };
                forward_forgetting(isa, &case.chain(), &case.x, moments, to);
                assert!(given == output, "{isa:?} {:?}", case.shape);
            }
        });
    }

    #[test]
    fn folded_chains_agree_with_the_reference() {
        for_each_case(|case| {
            let chain = FoldedSlices {
                shape: case.shape,
                weight: &case.weight,
                shift: &case.constants[1],
                activation: Activation::Relu,
            };
            let mut expect = garbage(case.dy.len());
            reference::forward_activated(&chain, &case.x, &mut expect);
            check_parts(case, &[expect], |isa| {
                let mut y = garbage(case.dy.len());
                forward_activated(isa, &chain, &case.x, &mut y);
                [y]
            });
        });
    }

    #[test]
    fn backward_agrees_with_the_reference() {
        for_each_case(|case| {
            let kept = case.forward(reference::forward);
            for excited in [false, true] {
                let expect = case.backward(&kept, excited, reference::backward);
                check_parts(case, &expect, |isa| {
                    case.backward(&kept, excited, |chain, saved, slopes| backward(isa, chain, saved, slopes))
                });
            }
        });
    }
}
