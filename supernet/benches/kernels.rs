//! Each kernel by itself, on the shapes of `ofa-mbv3-w1.0` at 64 px and batch 32.
//!
//! `cargo bench -p supernet --bench kernels -- FILTER`. Throughput of products and depthwise convolutions is in
//! multiply-accumulates (2 FLOP each), of everything else in bytes read and written.

use criterion::{BenchmarkId, Criterion, Throughput, criterion_group, criterion_main};
use supernet::kernels::cpu::product::{Matrix, MatrixMut, Write, product};
use supernet::kernels::cpu::{Isa, depthwise};

#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

/// Values around zero that are all different.
fn values(length: usize) -> Vec<f32> {
    (0..length).map(|index| ((index * 7919) % 1009) as f32 / 504.5 - 1.0).collect()
}

/// (input channels, output channels, pixels of a map)
const POINTWISE: [(usize, usize, usize); 9] = [
    (16, 96, 1024),
    (144, 24, 256),
    (24, 144, 256),
    (240, 40, 64),
    (40, 240, 64),
    (480, 80, 16),
    (112, 672, 16),
    (160, 960, 4),
    (960, 160, 4),
];

const IMAGES: usize = 32;

fn rows(values: &[f32], rows: usize, columns: usize) -> Matrix<'_> {
    Matrix { values, rows, columns, row_stride: columns, column_stride: 1 }
}

fn turned(matrix: Matrix<'_>) -> Matrix<'_> {
    Matrix {
        rows: matrix.columns,
        columns: matrix.rows,
        row_stride: matrix.column_stride,
        column_stride: matrix.row_stride,
        ..matrix
    }
}

fn pointwise(criterion: &mut Criterion) {
    let mut group = criterion.benchmark_group("pointwise");
    for (input, output, plane) in POINTWISE {
        let columns = IMAGES * plane;
        let (w, x, dy) = (values(output * input), values(input * columns), values(output * columns));
        let (w, x, dy) = (rows(&w, output, input), rows(&x, input, columns), rows(&dy, output, columns));
        group.throughput(Throughput::Elements((input * output * columns) as u64));
        let shape = format!("{input}-{output} @{plane}");
        let mut bench = |name: &str, left: Matrix<'static>, right: Matrix<'static>, write: Write<'static>| {
            let mut out = vec![0.0; left.rows * right.columns];
            group.bench_function(BenchmarkId::new(name, &shape), |bencher| {
                bencher.iter(|| {
                    let destination = MatrixMut { values: &mut out, row_stride: right.columns };
                    product(Isa::detect(), left, right, destination, write);
                });
            });
        };
        // SAFETY-free way to give the closures what they borrow: everything lives to the end of this scope.
        let [w, x, dy] = [w, x, dy].map(leak);
        bench("forward", w, x, Write::Replace);
        bench("dx", turned(w), dy, Write::Replace);
        bench("dw", dy, turned(x), Write::Accumulate);
    }
    group.finish();
}
