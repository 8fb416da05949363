//! Every kernel, compiled for the host, beside the reference.

mod host;
mod steps;

use std::collections::BTreeSet;

use host::{Host, Values, place};

use super::batch_norm::{BatchNormLaunches, add_row_sums};
use super::{ActivationStorage, Launch, chain, dense, depthwise, planes, pool, splits, training};
use crate::cpu;
use crate::cpu::batch_norm::Affine;
use crate::cpu::dense::PatchShape;
use crate::cpu::depthwise::DepthwiseShape;
use crate::cpu::pool::Pool;
use crate::cpu::testing::values;
use crate::cpu::updates::{AdamWConstants, AdamWStep, SgdStep};
use crate::reference;
use space::{Activation, Operator, preset, sampler};

const BOTH: [ActivationStorage; 2] = [ActivationStorage::F32, ActivationStorage::Bf16];
const ACTIVATIONS: [Activation; 5] =
    [Activation::None, Activation::Relu, Activation::Relu6, Activation::HSwish, Activation::HSigmoid];

/// How far results may be apart, relative to the greatest: some roundings of f32, or one of bfloat16 each.
fn tolerance(storage: ActivationStorage) -> f32 {
    match storage {
        ActivationStorage::F32 => 1e-5,
        ActivationStorage::Bf16 => 1.0 / 256.0,
    }
}

/// Compares and counts; says in the end what was seen.
struct Judge {
    what: &'static str,
    compared: usize,
    worst: [f32; 2],
}

impl Judge {
    fn new(what: &'static str) -> Self {
        Self { what, compared: 0, worst: [0.0; 2] }
    }

    #[track_caller]
    fn close(
        &mut self,
        storage: ActivationStorage,
        got: &[f32],
        expected: &[f32],
        case: &dyn std::fmt::Debug,
    ) {
        assert_eq!(got.len(), expected.len());
        let greatest = expected.iter().fold(1e-3f32, |greatest, value| greatest.max(value.abs()));
        for (at, (got, expected)) in got.iter().zip(expected).enumerate() {
            let apart = (got - expected).abs() / greatest;
            assert!(apart <= tolerance(storage), "{case:?}: at {at} got {got}, expected {expected}");
            let worst = &mut self.worst[usize::from(storage == ActivationStorage::Bf16)];
            *worst = worst.max(apart);
        }
        self.compared += 1;
    }
}

impl Drop for Judge {
    fn drop(&mut self) {
        let Self { what, compared, worst: [f32, bf16] } = self;
        println!("{what}: {compared} comparisons, worst difference {f32:.1e} (f32), {bf16:.1e} (bf16)");
    }
}

/// Values as the storage keeps them, and a copy.
fn input(storage: ActivationStorage, len: usize, seed: u32) -> (Values, Vec<f32>) {
    let kept = Values::new(storage, &values(len, seed));
    let read = kept.read();
    (kept, read)
}

/// Sizes (height, width, stride) of the depthwise convolutions of some spaces, at every resolution.
fn depthwise_sizes(presets: &[&str]) -> BTreeSet<(usize, usize, usize)> {
    let mut sizes = BTreeSet::new();
    for name in presets {
        let space = preset(name).expect("a preset");
        for &resolution in space.resolutions() {
            let layers = space.lower(&sampler::largest(&space).at(resolution)).expect("legal");
            sizes.extend(layers.iter().filter_map(|layer| match &layer.operator {
                Operator::MbConv(block) => Some((layer.input.height, layer.input.width, block.stride)),
                _ => None,
            }));
        }
    }
    sizes
}

fn check_depthwise(host: &Host, judge: &mut Judge, storage: ActivationStorage, shape: &DepthwiseShape) {
    let len = shape.channels * shape.channel();
    let out = shape.channels * shape.out_channel();
    let (mut x, x_read) = input(storage, len, 1);
    let (mut dy, dy_read) = input(storage, out, 2);
    let mut w = values(shape.channels * shape.taps(), 3);
    let mut y = Values::garbage(storage, out);
    let mut dx = Values::garbage(storage, len);
    let mut dw = values(w.len(), 4);
    let mut y_expected = vec![0.0; out];
    let mut dx_expected = vec![0.0; len];
    let mut dw_expected = dw.clone();
    reference::depthwise::forward(shape, &x_read, &w, &mut y_expected);
    reference::depthwise::backward_input(shape, &dy_read, &w, &mut dx_expected);
    reference::depthwise::backward_weight(shape, &x_read, &dy_read, &mut dw_expected);
    let mut scratch = vec![f32::NAN; depthwise::weight_scratch(shape)];
    let at_w = place(&mut w);
    let at_scratch = place(&mut scratch);
    host.run(storage, [depthwise::forward(shape, x.place(), None, at_w, y.place())]);
    host.run(storage, [depthwise::backward_input(shape, dy.place(), at_w, dx.place())]);
    let add = depthwise::backward_weight(shape, x.place(), None, dy.place(), place(&mut dw), at_scratch);
    host.run(storage, add);
    judge.close(storage, &y.read(), &y_expected, shape);
    judge.close(storage, &dx.read(), &dx_expected, shape);
    // sums are kept in f32 for either storage
    judge.close(ActivationStorage::F32, &dw, &dw_expected, shape);
}

#[test]
fn depthwise_at_every_size_of_the_spaces() {
    let Some(host) = Host::get() else { return };
    let mut judge = Judge::new("depthwise");
    for (height, width, stride) in depthwise_sizes(&["tiny", "fashion", "ofa-mbv3-w1.0"]) {
        for kernel in [3, 5, 7] {
            for storage in BOTH {
                let shape = DepthwiseShape { channels: 2, images: 2, height, width, kernel, stride };
                check_depthwise(host, &mut judge, storage, &shape);
            }
        }
    }
}

#[test]
fn depthwise_of_many_small_and_of_odd_maps() {
    let Some(host) = Host::get() else { return };
    let mut judge = Judge::new("depthwise, many and odd maps");
    let small = [(1, 1), (2, 2), (4, 4), (7, 7)].map(|(height, width)| (40, 17, height, width));
    let odd = [(1, 3, 9, 5), (3, 1, 1, 30), (1, 1, 33, 2), (2, 1, 90, 91), (300, 2, 3, 5)];
    for (channels, images, height, width) in small.into_iter().chain(odd) {
        for kernel in [3, 5, 7] {
            for (stride, storage) in
                [(1, ActivationStorage::F32), (2, ActivationStorage::F32), (2, ActivationStorage::Bf16)]
            {
                let shape = DepthwiseShape { channels, images, height, width, kernel, stride };
                check_depthwise(host, &mut judge, storage, &shape);
            }
        }
    }
}

/// Rows and their length: one value, less than a block, many, shared by several blocks.
const ROWS: [(usize, usize); 6] = [(3, 1), (5, 49), (300, 98), (16, 1000), (2, 40_000), (1, 70_001)];

#[test]
fn batch_norms() {
    let Some(host) = Host::get() else { return };
    let mut judge = Judge::new("batch norms");
    for (rows, length) in ROWS {
        for activation in ACTIVATIONS {
            for storage in BOTH {
                check_batch_norm(host, &mut judge, storage, (rows, length), activation);
            }
        }
    }
}

fn check_batch_norm(
    host: &Host,
    judge: &mut Judge,
    storage: ActivationStorage,
    (rows, length): (usize, usize),
    activation: Activation,
) {
    let case = (storage, rows, length, activation);
    // means of some standard deviations: a sum of squares by itself would cancel
    let shifted: Vec<f32> = values(rows * length, 1).iter().map(|value| 0.5 * value + 3.0).collect();
    let mut x = Values::new(storage, &shifted);
    let x_read = x.read();
    let (mut dy, dy_read) = input(storage, rows * length, 2);
    let (mut addend, addend_read) = input(storage, rows * length, 3);
    let mut gamma = values(rows, 4);
    let mut beta = values(rows, 5);
    let norm = BatchNormLaunches {
        rows,
        length,
        gamma: place(&mut gamma),
        beta: place(&mut beta),
        epsilon: 1e-3,
        activation,
    };
    let affine = Affine { gamma: &gamma, beta: &beta, epsilon: 1e-3, activation };
    let mut expected = (vec![0.0; 2 * rows], x_read.clone(), vec![0.0; 2 * rows], dy_read);
    reference::batch_norm::forward_in_place(&mut expected.1, affine, Some(&addend_read), &mut expected.0);
    reference::batch_norm::backward_in_place(&x_read, &mut expected.3, &expected.0, affine, &mut expected.2);
    let mut stats = vec![f32::NAN; 2 * rows];
    let mut room = stats.clone();
    // gradients of gamma and beta are added to what is there
    let mut sums = values(2 * rows, 6);
    expected.2.iter_mut().zip(&sums).for_each(|(sum, there)| *sum += there);
    let at_sums = place(&mut sums);
    let slopes = [at_sums, super::Place(at_sums.0 + 4 * rows as u64)];
    let mut scratch = vec![f32::NAN; norm.scratch()];
    let mut y = Values::garbage(storage, rows * length);
    let at_stats = place(&mut stats);
    let at_scratch = place(&mut scratch);
    host.run(storage, norm.statistics(x.place(), at_stats, at_scratch));
    host.run(storage, [norm.apply(x.place(), at_stats, Some(addend.place()), y.place())]);
    let at_dy = dy.place();
    let given = [x.place(), at_dy, at_stats];
    host.run(storage, norm.backward(given, None, (place(&mut room), slopes), at_dy, at_scratch));
    judge.close(ActivationStorage::F32, &stats, &expected.0, &case);
    judge.close(storage, &y.read(), &expected.1, &case);
    // at a corner of the activation a rounding of z turns a slope on or off: one value of a sum
    judge.close(ActivationStorage::F32, &sums, &expected.2, &case);
    judge.close(storage, &dy.read(), &expected.3, &case);
}

/// The chain of a block beside the reference, with and without an expansion and squeeze-and-excite.
#[test]
fn chains_of_blocks() {
    let Some(host) = Host::get() else { return };
    let mut judge = Judge::new("chains");
    for (channels, images, side, kernel, stride) in [
        (3, 2, 12, 3, 1),
        (2, 3, 9, 5, 2),
        (5, 2, 7, 7, 1),
        (2, 8, 7, 3, 1),
        (1, 2, 80, 7, 2),
        (40, 16, 4, 5, 1),
    ] {
        let shape = DepthwiseShape { channels, images, height: side, width: side, kernel, stride };
        for expansion in [false, true] {
            for excited in [false, true] {
                check_chain(host, &mut judge, &shape, expansion, excited);
            }
        }
    }
}

/// Gammas around 1, so that no channel is faint, and betas.
fn norm_constants(channels: usize, seed: u32) -> [Vec<f32>; 2] {
    let gammas = values(channels, seed).iter().map(|value| 1.0 + 0.5 * value).collect();
    [gammas, values(channels, seed + 1)]
}

fn check_chain(host: &Host, judge: &mut Judge, shape: &DepthwiseShape, expansion: bool, excited: bool) {
    let case = (*shape, expansion, excited);
    let channels = shape.channels;
    let len = channels * shape.channel();
    let out = channels * shape.out_channel();
    let mut x = values(len, 1);
    let mut dy = values(out, 2);
    let mut weight = values(channels * shape.taps(), 3);
    let [mut factors, mut dmeans] = [4, 5].map(|seed| values(channels * shape.images, seed));
    let [mut gamma, mut beta] = norm_constants(channels, 6);
    let [mut gamma_after, mut beta_after] = norm_constants(channels, 8);
    let activation = Activation::HSwish;

    let mut naive = NaiveChain::new(shape, expansion);
    let affine = |gamma, beta| Affine { gamma, beta, epsilon: 1e-3, activation };
    let chain = cpu::chain::ChainSlices {
        shape: *shape,
        before: expansion.then_some(affine(&gamma, &beta)),
        weight: &weight,
        after: affine(&gamma_after, &beta_after),
    };
    naive.run(&chain, &x, &dy, excited.then_some((&factors, &dmeans)));

    let norm = |gamma, beta, length| BatchNormLaunches {
        rows: channels,
        length,
        gamma,
        beta,
        epsilon: 1e-3,
        activation,
    };
    let at_gamma = place(&mut gamma);
    let at_beta = place(&mut beta);
    let at_gamma_after = place(&mut gamma_after);
    let at_beta_after = place(&mut beta_after);
    let launched = chain::ChainLaunches {
        shape: *shape,
        before: expansion.then(|| norm(at_gamma, at_beta, shape.channel())),
        weight: place(&mut weight),
        after: norm(at_gamma_after, at_beta_after, shape.out_channel()),
    };
    let mut got = NaiveChain::new(shape, expansion);
    let mut scratch = vec![f32::NAN; launched.scratch()];
    let kept = chain::KeptPlaces {
        before: place(&mut got.before),
        convolved: place(&mut got.convolved),
        after: place(&mut got.after),
        output: place(&mut got.output),
        means: Some(place(&mut got.means)),
    };
    let halves = |values: &mut [f32]| {
        let (gamma, beta) = values.split_at_mut(values.len() / 2);
        [place(gamma), place(beta)]
    };
    let slopes = chain::GradientPlaces {
        dx: place(&mut got.dx),
        before: halves(&mut got.slopes_before),
        weight: place(&mut got.slopes_weight),
        after: halves(&mut got.slopes_after),
    };
    let at_x = place(&mut x);
    let at_scratch = place(&mut scratch);
    host.run(ActivationStorage::F32, launched.forward(at_x, kept, at_scratch));
    let excite = excited.then(|| [place(&mut factors), place(&mut dmeans)]);
    let mut inner = vec![f32::NAN; dy.len()];
    let mut sums = vec![f32::NAN; 2 * channels];
    let given = [place(&mut dy), place(&mut inner)];
    let rooms = [place(&mut sums), at_scratch];
    host.run(ActivationStorage::F32, launched.backward(at_x, kept, given, excite, slopes, rooms));
    for (got, expected) in got.all().into_iter().zip(naive.all()) {
        judge.close(ActivationStorage::F32, got, expected, &case);
    }
}

/// All that a chain writes.
struct NaiveChain {
    before: Vec<f32>,
    convolved: Vec<f32>,
    after: Vec<f32>,
    output: Vec<f32>,
    means: Vec<f32>,
    dx: Vec<f32>,
    slopes_before: Vec<f32>,
    slopes_weight: Vec<f32>,
    slopes_after: Vec<f32>,
}

impl NaiveChain {
    fn new(shape: &DepthwiseShape, expansion: bool) -> Self {
        let channels = shape.channels;
        let zeros = |len| vec![0.0; len];
        Self {
            before: zeros(if expansion { 2 * channels } else { 0 }),
            convolved: zeros(channels * shape.out_channel()),
            after: zeros(2 * channels),
            output: zeros(channels * shape.out_channel()),
            means: zeros(channels * shape.images),
            dx: zeros(channels * shape.channel()),
            slopes_before: zeros(if expansion { 2 * channels } else { 0 }),
            slopes_weight: zeros(channels * shape.taps()),
            slopes_after: zeros(2 * channels),
        }
    }

    fn run(
        &mut self,
        chain: &cpu::chain::ChainSlices,
        x: &[f32],
        dy: &[f32],
        excite: Option<(&Vec<f32>, &Vec<f32>)>,
    ) {
        use cpu::chain::{GradientSlices, KeptSlices, Saved};
        let kept = KeptSlices {
            before: &mut self.before,
            convolved: &mut self.convolved,
            after: &mut self.after,
            output: &mut self.output,
            means: &mut self.means,
        };
        reference::chain::forward(chain, x, kept);
        let saved = Saved {
            x,
            before: &self.before,
            convolved: &self.convolved,
            after: &self.after,
            dy,
            excite: excite.map(|(factors, dmeans)| (&factors[..], &dmeans[..])),
        };
        let slopes = GradientSlices {
            dx: &mut self.dx,
            before: &mut self.slopes_before,
            weight: &mut self.slopes_weight,
            after: &mut self.slopes_after,
        };
        reference::chain::backward(chain, &saved, slopes);
    }

    fn all(&self) -> [&[f32]; 9] {
        [
            &self.before,
            &self.convolved,
            &self.after,
            &self.output,
            &self.means,
            &self.dx,
            &self.slopes_before,
            &self.slopes_weight,
            &self.slopes_after,
        ]
    }
}

#[test]
fn sums_of_rows() {
    let Some(host) = Host::get() else { return };
    let mut judge = Judge::new("sums of rows");
    for (rows, length) in ROWS {
        for storage in BOTH {
            let (mut x, read) = input(storage, rows * length, 1);
            let mut out = values(rows, 2);
            let mut expected = out.clone();
            reference::planes::row_sums(&read, rows, &mut expected);
            let mut scratch = vec![f32::NAN; splits(rows, length) * rows];
            let add = add_row_sums(x.place(), (rows, length), place(&mut out), place(&mut scratch));
            host.run(storage, add);
            judge.close(ActivationStorage::F32, &out, &expected, &(storage, rows, length));
        }
    }
}

/// Compares one launch with what the reference makes of a copy of garbage.
fn check_one(
    judge: &mut Judge,
    host: &Host,
    storage: ActivationStorage,
    len: usize,
    launch: impl FnOnce(super::Place) -> Launch,
    expect: impl FnOnce(&mut [f32]),
    case: &dyn std::fmt::Debug,
) {
    let mut out = Values::garbage(storage, len);
    let mut expected = vec![0.0; len];
    expect(&mut expected);
    host.run(storage, [launch(out.place())]);
    judge.close(storage, &out.read(), &expected, case);
}

#[test]
fn planes_and_biases() {
    let Some(host) = Host::get() else { return };
    let mut judge = Judge::new("planes and biases");
    for (rows, plane) in [(1, 1), (7, 49), (8, 49), (64, 2), (130, 16), (3, 5000)] {
        for storage in BOTH {
            let case = (storage, rows, plane);
            let len = rows * plane;
            let (mut x, xs) = input(storage, len, 1);
            let (mut dy, dys) = input(storage, len, 2);
            let (mut s, ss) = input(storage, rows, 3);
            let (mut dmean, dmeans) = input(storage, rows, 4);
            let x = x.place();
            let dy = dy.place();
            let s = s.place();
            let dmean = dmean.place();
            let mut check = |len, launch: &dyn Fn(super::Place) -> Launch, expect: &dyn Fn(&mut [f32])| {
                check_one(&mut judge, host, storage, len, launch, expect, &case);
            };
            let sizes = (rows, plane);
            use reference::planes as naive;
            check(rows, &|out| planes::mean(x, sizes, out), &|out| naive::mean(&xs, plane, out));
            check(rows, &|out| planes::scale_backward_scale(x, dy, sizes, out), &|out| {
                naive::scale_backward_scale(&xs, &dys, plane, out);
            });
            check(len, &|out| planes::scale(x, s, sizes, out), &|out| naive::scale(&xs, &ss, plane, out));
            check(len, &|out| planes::scale_backward_input(dy, [Some(s), Some(dmean)], sizes, out), &|out| {
                naive::scale_backward_input(&dys, &ss, &dmeans, plane, out);
            });
            check(len, &|out| planes::scale_backward_input(dy, [None, Some(dmean)], sizes, out), &|out| {
                naive::mean_backward(&dmeans, plane, out);
            });
            for activation in ACTIVATIONS {
                let mut bias = values(rows, 5);
                let at_bias = Some(place(&mut bias));
                let given = Some(&bias[..]);
                check(len, &|out| planes::bias_activation(x, at_bias, sizes, activation, out), &|out| {
                    naive::bias_activation(&xs, given, rows, activation, out);
                });
                check(len, &|out| planes::bias_activation(x, None, sizes, activation, out), &|out| {
                    naive::bias_activation(&xs, None, rows, activation, out);
                });
                check(
                    len,
                    &|out| planes::bias_activation_backward([x, dy], at_bias, sizes, activation, out),
                    &|out| naive::bias_activation_backward(&xs, given, rows, activation, &dys, out),
                );
            }
            let (mut y, mut expected) = input(storage, len, 6);
            reference::planes::add_assign(&mut expected, &xs);
            host.run(storage, [planes::add(y.place(), x, len)]);
            judge.close(storage, &y.read(), &expected, &case);
        }
    }
}

/// Views of f32 and of activations: turned, narrowed, of less than four axes.
#[test]
fn copies_of_views() {
    let Some(host) = Host::get() else { return };
    let mut judge = Judge::new("copies of views");
    let views: [(&[usize], &[usize]); 5] = [
        (&[3, 5, 7, 11], &[77, 231, 11, 1]),
        (&[4, 1, 3, 3], &[49, 49, 7, 1]),
        (&[1000, 33], &[1, 1000]),
        (&[5], &[2]),
        (&[], &[]),
    ];
    for (sizes, strides) in views {
        let count = sizes.iter().product::<usize>();
        let furthest = 1 + sizes.iter().zip(strides).map(|(size, stride)| (size - 1) * stride).sum::<usize>();
        let view = planes::Strided { sizes, strides };
        let at = |mut index: usize| {
            let mut place = 0;
            for (size, stride) in sizes.iter().zip(strides).rev() {
                place += index % size * stride;
                index /= size;
            }
            place
        };
        let given = values(furthest, 1);
        for from in BOTH {
            for to in BOTH {
                let mut x = Values::new(from, &given);
                let mut y = Values::garbage(to, count);
                let read = x.read();
                let expected: Vec<f32> = (0..count).map(|index| read[at(index)]).collect();
                let expected = Values::new(to, &expected).read();
                let (copying, storage) = planes::copying(from, to);
                host.run(storage, [planes::copy(x.place(), &view, y.place(), copying)]);
                assert_eq!(y.read(), expected);
                judge.compared += 1;
            }
        }
        let mut sums = given.clone();
        let mut more = values(count, 2);
        let mut expected = given;
        (0..count).for_each(|index| expected[at(index)] += more[index]);
        host.run(ActivationStorage::F32, [planes::add_to_view(place(&mut sums), &view, place(&mut more))]);
        judge.close(ActivationStorage::F32, &sums, &expected, &view);
    }
}

#[test]
fn pools() {
    let Some(host) = Host::get() else { return };
    let mut judge = Judge::new("pools");
    for (side, stride, padding) in [(3, 2, 1), (2, 2, 0), (3, 1, 1), (1, 1, 0)] {
        for (maps, height, width) in [(1, 1, 1), (3, 7, 4), (2, 16, 15), (2, 56, 56)] {
            for storage in BOTH {
                let shape = Pool { height, width, side, stride, padding };
                let len = maps * height * width;
                let out = maps * shape.out_height() * shape.out_width();
                let (mut x, xs) = input(storage, len, 1);
                let (mut dy, dys) = input(storage, out, 2);
                let x = x.place();
                let dy = dy.place();
                let mut check =
                    |len, launch: &dyn Fn(super::Place) -> Launch, expect: &dyn Fn(&mut [f32])| {
                        check_one(&mut judge, host, storage, len, launch, expect, &(storage, shape, maps));
                    };
                use reference::pool as naive;
                check(out, &|y| pool::max(&shape, maps, x, y), &|y| naive::max(&shape, &xs, y));
                check(out, &|y| pool::average(&shape, maps, x, y), &|y| naive::average(&shape, &xs, y));
                check(len, &|dx| pool::max_backward(&shape, maps, [x, dy], dx), &|dx| {
                    naive::max_backward(&shape, &xs, &dys, dx);
                });
                check(len, &|dx| pool::average_backward(&shape, maps, dy, dx), &|dx| {
                    naive::average_backward(&shape, &dys, dx);
                });
            }
        }
    }
}

#[test]
fn patches_of_dense_convolutions() {
    let Some(host) = Host::get() else { return };
    let mut judge = Judge::new("patches");
    for (channels, height, width, kernel, stride) in
        [(3, 32, 32, 3, 2), (4, 7, 5, 3, 1), (2, 9, 8, 5, 2), (1, 1, 1, 3, 1), (5, 6, 6, 1, 2)]
    {
        for images in [0..3, 1..3, 2..3] {
            for storage in BOTH {
                let shape = PatchShape { channels, images: 3, height, width, kernel, stride };
                let case = (storage, shape, images.clone());
                let (mut x, xs) = input(storage, channels * 3 * height * width, 1);
                let len = shape.taps() * images.len() * shape.out_plane();
                let at = x.place();
                check_one(
                    &mut judge,
                    host,
                    storage,
                    len,
                    |out| dense::patches(&shape, images.clone(), at, out),
                    |out| reference::dense::patches(&shape, images.clone(), &xs, out),
                    &case,
                );
                // other images' values stay what they were
                let (mut slopes, read) = input(storage, len, 2);
                let (mut dx, mut expected) = input(storage, xs.len(), 3);
                reference::dense::fold_patches(&shape, images.clone(), &read, &mut expected);
                let launch = dense::fold_patches(&shape, images.clone(), slopes.place(), dx.place());
                host.run(storage, [launch]);
                judge.close(storage, &dx.read(), &expected, &case);
            }
        }
    }
}

#[test]
fn one_step_of_all_parameters() {
    let Some(host) = Host::get() else { return };
    let mut judge = Judge::new("optimizer");
    let lengths = [1, 5000, 0, 256, 8192];
    let step = SgdStep { lr: 0.05, momentum: 0.9, weight_decay: 3e-4 };
    let mut tensors: Vec<[Vec<f32>; 3]> =
        lengths.iter().map(|len| [1, 2, 3].map(|seed| values(*len, seed))).collect();
    let mut expected = tensors.clone();
    let mut parameters = Vec::new();
    for (index, ([value, gradient, velocity], [p, g, v])) in tensors.iter_mut().zip(&mut expected).enumerate()
    {
        let weight_decay = if index % 2 == 0 { step.weight_decay } else { 0.0 };
        reference::updates::nesterov(p, g, v, SgdStep { weight_decay, ..step });
        let length = value.len() as i64;
        let [value, gradient, velocity] = [value, gradient, velocity].map(|values| place(values));
        let parameter = training::Parameter { value, gradient, velocity, length, weight_decay };
        parameters.extend(parameter.words());
    }
    let mut chunks = training::chunks(&lengths);
    assert_eq!(chunks.len(), 6);
    let count = chunks.len();
    let launch =
        training::nesterov(place(&mut parameters), place(&mut chunks), count, step.lr, step.momentum);
    host.run(ActivationStorage::F32, [launch]);
    for (got, expected) in tensors.iter().flatten().zip(expected.iter().flatten()) {
        judge.close(ActivationStorage::F32, got, expected, &"nesterov");
    }
}

#[test]
fn one_step_of_adamw() {
    let Some(host) = Host::get() else { return };
    let mut judge = Judge::new("adamw");
    let lengths = [1, 5000, 0, 256, 8192];
    let constants = AdamWConstants { beta1: 0.9, beta2: 0.999, epsilon: 1e-8 };
    let fresh = |len: usize| {
        let [value, gradient, first, second] = [1, 2, 3, 4].map(|seed| values(len, seed));
        [value, gradient, first, second.iter().map(|value| value.abs()).collect()]
    };
    let mut tensors: Vec<[Vec<f32>; 4]> = lengths.iter().map(|len| fresh(*len)).collect();
    let mut expected = tensors.clone();
    let mut parameters = Vec::new();
    let mut steps = Vec::new();
    for (index, (tensors, [p, g, m, v])) in tensors.iter_mut().zip(&mut expected).enumerate() {
        let weight_decay = if index % 2 == 0 { 3e-4 } else { 0.0 };
        // each has taken another number of steps
        let step = AdamWStep::new(constants, 0.05, weight_decay, 1 + index as u64 * 7);
        reference::updates::adamw(p, g, [m, v], step);
        let length = tensors[0].len() as i64;
        let [value, gradient, first, second] = tensors.each_mut().map(|values| place(values));
        let adapted = training::Adapted { value, gradient, moments: [first, second], length, step };
        parameters.extend(adapted.words());
        steps.push(step);
    }
    let mut chunks = training::chunks(&lengths);
    let count = chunks.len();
    let launch = training::adamw(place(&mut parameters), place(&mut chunks), count, steps[0]);
    host.run(ActivationStorage::F32, [launch]);
    for (got, expected) in tensors.iter().flatten().zip(expected.iter().flatten()) {
        judge.close(ActivationStorage::F32, got, expected, &"adamw");
    }
}

/// What source and plan both count with.
#[test]
fn sources_and_plans_agree_on_sizes() {
    let defined = |text: &str, name: &str| -> usize {
        let line = text.lines().find_map(|line| line.strip_prefix(&format!("#define {name} ")));
        line.and_then(|value| value.trim().parse().ok()).unwrap_or_else(|| panic!("no {name}"))
    };
    let source = |name| super::SOURCES.iter().find(|(other, _)| *other == name).expect("a source").1;
    assert_eq!(defined(super::COMMON, "THREADS"), super::THREADS);
    assert_eq!(defined(source("depthwise_3"), "TILE"), depthwise::TILE);
    assert_eq!(defined(source("depthwise_3"), "GRADIENT_TILE"), depthwise::GRADIENT_TILE);
    assert_eq!(defined(source("training"), "CHUNK"), training::CHUNK);
    assert_eq!(defined(source("planes"), "EACH") * super::THREADS, planes::EACH_BLOCK);
    assert_eq!(super::THREADS / defined(source("planes"), "TEAM"), planes::PLANES);
}

/// bfloat16 rounds to the nearest, to the even of two as near, and keeps what is no number.
#[test]
fn bfloat16_is_rounded_as_elsewhere() {
    let Some(host) = Host::get() else { return };
    let bits = (0..4000u32).map(|at| at.wrapping_mul(2_654_435_761));
    let odd = [0x3f80_8000, 0x3f81_8000, 0x7f80_0000, 0xff80_0000, 0x7f7f_ffff, 0x7f80_0001, 0x0000_0001];
    let mut given: Vec<f32> = bits.chain(odd).map(f32::from_bits).collect();
    // x + bias at x = 0 stores the bias, rounded
    let rows = given.len();
    let mut x = Values::new(ActivationStorage::Bf16, &vec![0.0; rows]);
    let mut y = Values::garbage(ActivationStorage::Bf16, rows);
    let expected: Vec<u32> =
        given.iter().map(|value| half::bf16::from_f32(0.0 + *value).to_f32().to_bits()).collect();
    let bias = Some(place(&mut given));
    let launch = planes::bias_activation(x.place(), bias, (rows, 1), Activation::None, y.place());
    host.run(ActivationStorage::Bf16, [launch]);
    let got: Vec<u32> = y.read().iter().map(|value| value.to_bits()).collect();
    let is_nan = |bits: u32| f32::from_bits(bits).is_nan();
    for (got, expected) in got.into_iter().zip(expected) {
        assert!(got == expected || is_nan(got) && is_nan(expected), "{got:x} and {expected:x}");
    }
}
