//! Every kernel, compiled for the host and compared with the reference.

mod host;
mod pools;
mod steps;

use std::collections::BTreeSet;

use host::{Host, Values, place};

use super::batch_norm::{BatchNormBackwardPlaces, BatchNormLaunches, add_row_sums};
use super::planes::BiasLaunches;
use super::{ActivationStorage, Launch, Place, RowSizes, chain, dense, depthwise, planes, splits, training};
use crate::cpu;
use crate::cpu::batch_norm::{Affine, BatchNormSlices};
use crate::cpu::dense::PatchShape;
use crate::cpu::depthwise::DepthwiseShape;
use crate::cpu::planes::BiasActivation;
use crate::cpu::testing::values;
use crate::reference;
use space::{Activation, Operator, preset, sampler};

const BOTH: [ActivationStorage; 2] = [ActivationStorage::F32, ActivationStorage::Bf16];
const ACTIVATIONS: [Activation; 5] =
    [Activation::None, Activation::Relu, Activation::Relu6, Activation::HSwish, Activation::HSigmoid];

/// Largest difference of results, relative to the greatest: some roundings of f32, or one of bfloat16 each.
fn tolerance(storage: ActivationStorage) -> f32 {
    match storage {
        ActivationStorage::F32 => 1e-5,
        ActivationStorage::Bf16 => 1.0 / 256.0,
    }
}

/// Compares results, counts comparisons, and prints both when dropped.
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

/// Made-up values in a storage, and the values that it holds.
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
    let given = depthwise::ConvolutionInput { x: x.place(), before: None };
    host.run(storage, [depthwise::forward(shape, given, at_w, y.place())]);
    host.run(storage, [depthwise::backward_input(shape, dy.place(), at_w, dx.place())]);
    let add = depthwise::backward_weight(shape, given, dy.place(), place(&mut dw), at_scratch);
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
                check_batch_norm(host, &mut judge, storage, RowSizes { rows, length }, activation);
            }
        }
    }
}

fn check_batch_norm(
    host: &Host,
    judge: &mut Judge,
    storage: ActivationStorage,
    sizes: RowSizes,
    activation: Activation,
) {
    let RowSizes { rows, length } = sizes;
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
    let forward = BatchNormSlices { x: &x_read, stats: &expected.0, affine };
    reference::batch_norm::backward_in_place(forward, &mut expected.3, &mut expected.2);
    let mut stats = vec![f32::NAN; 2 * rows];
    let mut room = stats.clone();
    // gradients of gamma and beta are added to earlier ones
    let mut sums = values(2 * rows, 6);
    expected.2.iter_mut().zip(&sums).for_each(|(sum, there)| *sum += there);
    let at_sums = place(&mut sums);
    let slopes = [at_sums, Place(at_sums.0 + 4 * rows as u64)];
    let mut scratch = vec![f32::NAN; norm.scratch()];
    let mut y = Values::garbage(storage, rows * length);
    let at_stats = place(&mut stats);
    let at_scratch = place(&mut scratch);
    host.run(storage, norm.statistics(x.place(), at_stats, at_scratch));
    host.run(storage, [norm.apply(x.place(), at_stats, Some(addend.place()), y.place())]);
    let at_dy = dy.place();
    let places =
        BatchNormBackwardPlaces { x: x.place(), dy: at_dy, stats: at_stats, excite: None, slopes, dx: at_dy };
    host.run(storage, norm.backward(places, place(&mut room), at_scratch));
    judge.close(ActivationStorage::F32, &stats, &expected.0, &case);
    judge.close(storage, &y.read(), &expected.1, &case);
    // at a corner of the activation a rounding of z turns a slope on or off: one value of a sum
    judge.close(ActivationStorage::F32, &sums, &expected.2, &case);
    judge.close(storage, &dy.read(), &expected.3, &case);
}

/// The chain of a block compared with the reference, with and without an expansion and squeeze-and-excite.
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

/// Made-up inputs of a chain.
struct ChainInputs {
    x: Vec<f32>,
    dy: Vec<f32>,
    weight: Vec<f32>,
    factors: Vec<f32>,
    dmeans: Vec<f32>,
    /// Gammas and betas.
    before: [Vec<f32>; 2],
    /// Gammas and betas.
    after: [Vec<f32>; 2],
}

impl ChainInputs {
    const ACTIVATION: Activation = Activation::HSwish;

    fn new(shape: &DepthwiseShape) -> Self {
        let channels = shape.channels;
        Self {
            x: values(channels * shape.channel(), 1),
            dy: values(channels * shape.out_channel(), 2),
            weight: values(channels * shape.taps(), 3),
            factors: values(channels * shape.images, 4),
            dmeans: values(channels * shape.images, 5),
            before: norm_constants(channels, 6),
            after: norm_constants(channels, 8),
        }
    }

    fn slices(&self, shape: &DepthwiseShape, expansion: bool) -> cpu::chain::ChainSlices<'_> {
        let activation = Self::ACTIVATION;
        let [before, after] = [&self.before, &self.after].map(|[gamma, beta]| Affine {
            gamma,
            beta,
            epsilon: 1e-3,
            activation,
        });
        let before = expansion.then_some(before);
        cpu::chain::ChainSlices { shape: *shape, before, weight: &self.weight, after }
    }

    fn launches(&mut self, shape: &DepthwiseShape, expansion: bool) -> chain::ChainLaunches {
        let norm = |[gamma, beta]: &mut [Vec<f32>; 2], length: usize| BatchNormLaunches {
            rows: shape.channels,
            length,
            gamma: place(gamma),
            beta: place(beta),
            epsilon: 1e-3,
            activation: Self::ACTIVATION,
        };
        chain::ChainLaunches {
            shape: *shape,
            before: expansion.then(|| norm(&mut self.before, shape.channel())),
            weight: place(&mut self.weight),
            after: norm(&mut self.after, shape.out_channel()),
        }
    }
}

fn check_chain(host: &Host, judge: &mut Judge, shape: &DepthwiseShape, expansion: bool, excited: bool) {
    let case = (*shape, expansion, excited);
    let mut given = ChainInputs::new(shape);
    let mut naive = NaiveChain::new(shape, expansion);
    let excite = excited.then_some((&given.factors, &given.dmeans));
    naive.run(&given.slices(shape, expansion), &given.x, &given.dy, excite);

    let launched = given.launches(shape, expansion);
    let mut got = NaiveChain::new(shape, expansion);
    let kept = got.kept();
    let slopes = got.gradients();
    let mut scratch = vec![f32::NAN; launched.scratch()];
    let mut inner = vec![f32::NAN; given.dy.len()];
    let mut sums = vec![f32::NAN; 2 * shape.channels];
    let at_x = place(&mut given.x);
    let at_scratch = place(&mut scratch);
    host.run(ActivationStorage::F32, launched.forward(at_x, kept, at_scratch));
    let output = chain::OutputGradientPlaces {
        dy: place(&mut given.dy),
        excite: excited.then(|| [place(&mut given.factors), place(&mut given.dmeans)]),
    };
    let rooms = chain::ChainRooms { inner: place(&mut inner), sums: place(&mut sums), scratch: at_scratch };
    host.run(ActivationStorage::F32, launched.backward(at_x, kept, output, slopes, rooms));
    for (got, expected) in got.all().into_iter().zip(naive.all()) {
        judge.close(ActivationStorage::F32, got, expected, &case);
    }
}

/// The places of gammas and betas that lie one after the other.
fn halves(values: &mut [f32]) -> [Place; 2] {
    let (gamma, beta) = values.split_at_mut(values.len() / 2);
    [place(gamma), place(beta)]
}

/// All outputs of a chain.
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

    fn kept(&mut self) -> chain::KeptPlaces {
        chain::KeptPlaces {
            before: place(&mut self.before),
            convolved: place(&mut self.convolved),
            after: place(&mut self.after),
            output: place(&mut self.output),
            means: Some(place(&mut self.means)),
        }
    }

    fn gradients(&mut self) -> chain::GradientPlaces {
        chain::GradientPlaces {
            dx: place(&mut self.dx),
            before: halves(&mut self.slopes_before),
            weight: place(&mut self.slopes_weight),
            after: halves(&mut self.slopes_after),
        }
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
            let sizes = RowSizes { rows, length };
            let add = add_row_sums(x.place(), sizes, place(&mut out), place(&mut scratch));
            host.run(storage, add);
            judge.close(ActivationStorage::F32, &out, &expected, &(storage, rows, length));
        }
    }
}

/// Checks of single launches, all on activations of one storage.
struct LaunchChecks<'a> {
    judge: &'a mut Judge,
    host: &'a Host,
    storage: ActivationStorage,
    case: &'a dyn std::fmt::Debug,
}

impl LaunchChecks<'_> {
    /// Compares the `len` values that a launch leaves in garbage with the reference.
    fn check(&mut self, len: usize, launch: impl FnOnce(Place) -> Launch, expect: impl FnOnce(&mut [f32])) {
        let mut out = Values::garbage(self.storage, len);
        let mut expected = vec![0.0; len];
        expect(&mut expected);
        self.host.run(self.storage, [launch(out.place())]);
        self.judge.close(self.storage, &out.read(), &expected, self.case);
    }
}

/// Planes and the values of each.
const PLANES: [(usize, usize); 6] = [(1, 1), (7, 49), (8, 49), (64, 2), (130, 16), (3, 5000)];

#[test]
fn planes_of_maps() {
    let Some(host) = Host::get() else { return };
    let mut judge = Judge::new("planes");
    for (rows, plane) in PLANES {
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
            let mut checks = LaunchChecks { judge: &mut judge, host, storage, case: &case };
            let sizes = RowSizes { rows, length: plane };
            use reference::planes as naive;
            checks.check(rows, |out| planes::mean(x, sizes, out), |out| naive::mean(&xs, plane, out));
            checks.check(
                rows,
                |out| planes::scale_backward_scale(x, dy, sizes, out),
                |out| naive::scale_backward_scale(&xs, &dys, plane, out),
            );
            checks.check(
                len,
                |out| planes::scale(x, s, sizes, out),
                |out| naive::scale(&xs, &ss, plane, out),
            );
            checks.check(
                len,
                |out| planes::scale_backward_input(dy, Some(s), Some(dmean), sizes, out),
                |out| naive::scale_backward_input(&dys, &ss, &dmeans, plane, out),
            );
            checks.check(
                len,
                |out| planes::scale_backward_input(dy, None, Some(dmean), sizes, out),
                |out| naive::mean_backward(&dmeans, plane, out),
            );
            let (mut y, mut expected) = input(storage, len, 6);
            reference::planes::add_assign(&mut expected, &xs);
            host.run(storage, [planes::add(y.place(), x, len)]);
            judge.close(storage, &y.read(), &expected, &case);
        }
    }
}

#[test]
fn biases() {
    let Some(host) = Host::get() else { return };
    let mut judge = Judge::new("biases");
    for (rows, length) in PLANES {
        for storage in BOTH {
            let case = (storage, rows, length);
            let len = rows * length;
            let (mut x, xs) = input(storage, len, 1);
            let (mut dy, dys) = input(storage, len, 2);
            let x = x.place();
            let dy = dy.place();
            let mut checks = LaunchChecks { judge: &mut judge, host, storage, case: &case };
            let sizes = RowSizes { rows, length };
            for activation in ACTIVATIONS {
                let mut bias = values(rows, 5);
                let unbiased = BiasLaunches { sizes, bias: None, activation };
                let biased = BiasLaunches { bias: Some(place(&mut bias)), ..unbiased };
                let expect_unbiased = BiasActivation { rows, bias: None, activation };
                let expect_biased = BiasActivation { bias: Some(&bias), ..expect_unbiased };
                checks.check(
                    len,
                    |out| biased.forward(x, out),
                    |out| reference::planes::bias_activation(&xs, expect_biased, out),
                );
                checks.check(
                    len,
                    |out| unbiased.forward(x, out),
                    |out| reference::planes::bias_activation(&xs, expect_unbiased, out),
                );
                checks.check(
                    len,
                    |out| biased.backward(x, dy, out),
                    |out| reference::planes::bias_activation_backward(&xs, expect_biased, &dys, out),
                );
            }
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
                LaunchChecks { judge: &mut judge, host, storage, case: &case }.check(
                    len,
                    |out| dense::patches(&shape, images.clone(), at, out),
                    |out| reference::dense::patches(&shape, images.clone(), &xs, out),
                );
                // other images' values stay unchanged
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

/// Constants that sources and plans share.
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

/// bfloat16 rounds to the nearest, to the even of two as near, and NaN stays NaN.
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
    let sizes = RowSizes { rows, length: 1 };
    let bias = BiasLaunches { sizes, bias: Some(place(&mut given)), activation: Activation::None };
    host.run(ActivationStorage::Bf16, [bias.forward(x.place(), y.place())]);
    let got: Vec<u32> = y.read().iter().map(|value| value.to_bits()).collect();
    let is_nan = |bits: u32| f32::from_bits(bits).is_nan();
    for (got, expected) in got.into_iter().zip(expected) {
        assert!(got == expected || is_nan(got) && is_nan(expected), "{got:x} and {expected:x}");
    }
}
