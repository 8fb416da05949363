//! Benchmarks of single kernels, on shapes of `ofa-mbv3-w1.0` at 64 px and batch 32.
//!
//! `cargo bench -p supernet --bench kernels -- FILTER`. Throughput of products and convolutions is in
//! multiply-accumulates (2 FLOP each), of everything else in bytes read and written.

use std::hint::black_box;

use criterion::{BenchmarkId, Criterion, Throughput, criterion_group, criterion_main};
use kernels::cpu::batch_norm::{self, Affine, BatchNormSlices, NormalizedSlices};
use kernels::cpu::chain::{self, ChainSlices, GradientSlices, KeptSlices, Saved};
use kernels::cpu::depthwise::{self, DepthwiseShape};
use kernels::cpu::product::{Matrix, MatrixMut, Write, product};
use kernels::cpu::{Activation, Isa, planes};

#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

const IMAGES: usize = 32;

/// Different values around zero.
fn values(length: usize) -> Vec<f32> {
    (0..length).map(|index| ((index * 7919) % 1009) as f32 / 504.5 - 1.0).collect()
}

fn rows(values: &[f32], rows: usize, columns: usize) -> Matrix<'_> {
    Matrix { values, rows, columns, row_stride: columns, column_stride: 1 }
}

fn turned(matrix: Matrix<'_>) -> Matrix<'_> {
    Matrix {
        values: matrix.values,
        rows: matrix.columns,
        columns: matrix.rows,
        row_stride: matrix.column_stride,
        column_stride: matrix.row_stride,
    }
}

/// Limits to compare the other benchmarks with: a product that only multiplies, and an addition that only moves memory.
fn limits(criterion: &mut Criterion) {
    let mut group = criterion.benchmark_group("limits");
    let side = 1024;
    let left = values(side * side);
    let right = values(side * side);
    let mut out = vec![0.0; side * side];
    group.throughput(Throughput::Elements((side * side * side) as u64));
    group.bench_function("product 1024", |bencher| {
        bencher.iter(|| {
            let destination = MatrixMut { values: &mut out, row_stride: side };
            product(
                Isa::detect(),
                rows(&left, side, side),
                rows(&right, side, side),
                destination,
                Write::Replace,
            );
        });
    });
    for megabytes in [1, 12, 64] {
        let x = values(megabytes << 18);
        let mut y = x.clone();
        group.throughput(Throughput::Bytes(3 * 4 * x.len() as u64));
        group.bench_function(BenchmarkId::new("add in place, MB", megabytes), |bencher| {
            bencher.iter(|| planes::add_assign(Isa::detect(), &mut y, &x));
        });
    }
    group.finish();
}

/// (input channels, output channels, pixels of a map)
const POINTWISE: [(usize, usize, usize); 12] = [
    (16, 96, 1024),
    (96, 24, 256),
    (24, 144, 256),
    (144, 24, 256),
    (240, 40, 64),
    (40, 240, 64),
    (480, 80, 16),
    (80, 480, 16),
    (672, 112, 16),
    (112, 672, 16),
    (160, 960, 4),
    (960, 160, 4),
];

fn pointwise(criterion: &mut Criterion) {
    let mut group = criterion.benchmark_group("pointwise");
    for (input, output, plane) in POINTWISE {
        let columns = IMAGES * plane;
        let w = values(output * input);
        let x = values(input * columns);
        let dy = values(output * columns);
        let w = rows(&w, output, input);
        let x = rows(&x, input, columns);
        let dy = rows(&dy, output, columns);
        group.throughput(Throughput::Elements((input * output * columns) as u64));
        for (name, left, right, write) in [
            ("forward", w, x, Write::Replace),
            ("dx", turned(w), dy, Write::Replace),
            ("dw", dy, turned(x), Write::Accumulate),
        ] {
            let mut out = vec![0.0; left.rows * right.columns];
            let shape = format!("{input}-{output} @{plane}");
            group.bench_function(BenchmarkId::new(name, shape), |bencher| {
                bencher.iter(|| {
                    let destination = MatrixMut { values: &mut out, row_stride: right.columns };
                    product(Isa::detect(), left, right, destination, write);
                });
            });
        }
    }
    group.finish();
}

/// (channels, side of the input map, kernel, stride)
const DEPTHWISE: [(usize, usize, usize, usize); 14] = [
    (16, 32, 3, 1),
    (96, 32, 7, 2),
    (144, 16, 3, 1),
    (144, 16, 5, 1),
    (144, 16, 7, 1),
    (144, 16, 7, 2),
    (240, 8, 3, 1),
    (240, 8, 7, 1),
    (240, 8, 7, 2),
    (480, 4, 3, 1),
    (480, 4, 7, 1),
    (672, 4, 7, 2),
    (960, 2, 3, 1),
    (960, 2, 7, 1),
];

fn shape(channels: usize, side: usize, kernel: usize, stride: usize) -> (DepthwiseShape, usize, usize) {
    let shape = DepthwiseShape { channels, images: IMAGES, height: side, width: side, kernel, stride };
    let row = IMAGES * side * side;
    (shape, row, IMAGES * shape.out_height() * shape.out_width())
}

fn depthwise(criterion: &mut Criterion) {
    let mut group = criterion.benchmark_group("depthwise");
    for (channels, side, kernel, stride) in DEPTHWISE {
        let (shape, row, out_row) = shape(channels, side, kernel, stride);
        let w = values(channels * kernel * kernel);
        let x = values(channels * row);
        let dy = values(channels * out_row);
        let mut dw = w.clone();
        let mut dx = x.clone();
        let mut y = dy.clone();
        group.throughput(Throughput::Elements((channels * out_row * kernel * kernel) as u64));
        let name = |pass| BenchmarkId::new(pass, format!("{channels} @{side} k{kernel} s{stride}"));
        let isa = Isa::detect();
        group.bench_function(name("forward"), |bencher| {
            bencher.iter(|| depthwise::forward(isa, &shape, &x, &w, &mut y));
        });
        group.bench_function(name("dx"), |bencher| {
            bencher.iter(|| depthwise::backward_input(isa, &shape, &dy, &w, &mut dx));
        });
        group.bench_function(name("dw"), |bencher| {
            bencher.iter(|| depthwise::backward_weight(isa, &shape, &x, &dy, &mut dw));
        });
    }
    group.finish();
}

/// The depthwise convolution with its batch norms, channel by channel.
fn chains(criterion: &mut Criterion) {
    let mut group = criterion.benchmark_group("chain");
    for (channels, side, kernel, stride) in
        [(96, 32, 7, 2), (144, 16, 7, 1), (240, 8, 7, 1), (480, 4, 7, 1), (960, 2, 7, 1), (144, 16, 3, 1)]
    {
        let (shape, row, out_row) = shape(channels, side, kernel, stride);
        let w = values(channels * kernel * kernel);
        let x = values(channels * row);
        let dy = values(channels * out_row);
        let gamma = vec![1.0; channels];
        let beta = vec![0.1; channels];
        let norm = Affine { gamma: &gamma, beta: &beta, epsilon: 1e-5, activation: Activation::HSwish };
        let chain = ChainSlices { shape, before: Some(norm), weight: &w, after: norm };
        let mut convolved = dy.clone();
        let mut output = dy.clone();
        let [mut before, mut after] = [vec![0.0; 2 * channels], vec![0.0; 2 * channels]];
        let name = |pass| BenchmarkId::new(pass, format!("{channels} @{side} k{kernel} s{stride}"));
        group.throughput(Throughput::Bytes(4 * (x.len() + 2 * dy.len()) as u64));
        group.bench_function(name("forward"), |bencher| {
            bencher.iter(|| {
                let kept = KeptSlices {
                    before: &mut before,
                    convolved: &mut convolved,
                    after: &mut after,
                    output: &mut output,
                    means: &mut [],
                };
                chain::forward(Isa::detect(), &chain, &x, kept);
            });
        });
        let saved =
            Saved { x: &x, before: &before, convolved: &convolved, after: &after, dy: &dy, excite: None };
        let mut dx = x.clone();
        let mut dw = w.clone();
        let mut sums = [before.clone(), after.clone()];
        group.throughput(Throughput::Bytes(4 * (2 * x.len() + 2 * dy.len()) as u64));
        group.bench_function(name("backward"), |bencher| {
            bencher.iter(|| {
                let [before, after] = sums.each_mut().map(Vec::as_mut_slice);
                let slopes = GradientSlices { dx: &mut dx, before, weight: &mut dw, after };
                chain::backward(Isa::detect(), &chain, &saved, slopes);
            });
        });
    }
    group.finish();
}

/// (channels, pixels of a map)
const NORMS: [(usize, usize); 3] = [(96, 1024), (480, 16), (960, 4)];

fn batch_norms(criterion: &mut Criterion) {
    let mut group = criterion.benchmark_group("batch norm");
    for (channels, plane) in NORMS {
        let x = values(channels * IMAGES * plane);
        let gamma = vec![1.0; channels];
        let beta = vec![0.1; channels];
        let mut stats = vec![0.0; 2 * channels];
        let affine = Affine { gamma: &gamma, beta: &beta, epsilon: 1e-5, activation: Activation::HSwish };
        let mut y = x.clone();
        let mut dx = x.clone();
        let mut sums = stats.clone();
        group.throughput(Throughput::Bytes(4 * 2 * x.len() as u64));
        group.bench_function(BenchmarkId::new("forward", format!("{channels} @{plane}")), |bencher| {
            bencher.iter(|| {
                let to = NormalizedSlices { stats: &mut stats, y: &mut y };
                batch_norm::forward(Isa::detect(), &x, affine, None, to);
            });
        });
        group.throughput(Throughput::Bytes(4 * 3 * x.len() as u64));
        group.bench_function(BenchmarkId::new("backward", format!("{channels} @{plane}")), |bencher| {
            bencher.iter(|| {
                let forward = BatchNormSlices { x: &x, stats: &stats, affine };
                batch_norm::backward(Isa::detect(), forward, &y, &mut sums, &mut dx);
                black_box(&dx);
            });
        });
    }
    group.finish();
}

criterion_group! {
    name = kernels;
    config = Criterion::default().warm_up_time(std::time::Duration::from_millis(200))
        .measurement_time(std::time::Duration::from_millis(600)).sample_size(15);
    targets = limits, pointwise, depthwise, chains, batch_norms
}
criterion_main!(kernels);
