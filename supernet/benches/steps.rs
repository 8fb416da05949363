//! Benchmarks of whole steps of `ofa-mbv3-w1.0`, as in `supernet bench`, by criterion.
//!
//! `cargo bench -p supernet --bench steps -- FILTER`. Throughput is in images; in `shrink` each image counts four
//! times.

use std::time::Duration;

use criterion::{BenchmarkId, Criterion, Throughput, criterion_group, criterion_main};
use kernels::Backend;
use space::{preset, sampler};
use supernet::bench::{Bench, BenchSubject, Mode, Runner};

#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

fn steps(criterion: &mut Criterion) {
    let space = preset("ofa-mbv3-w1.0").expect("a preset");
    let [largest, smallest] =
        [sampler::largest, sampler::smallest].map(|pick| BenchSubject::Fixed(vec![pick(&space)]));
    let mut group = criterion.benchmark_group("step");
    for (name, mode, subject, resolution, batch) in [
        ("train largest", Mode::Train, largest.clone(), 64, 32),
        ("train smallest", Mode::Train, smallest, 64, 32),
        ("train uniform", Mode::Train, BenchSubject::Uniform, 64, 32),
        ("train largest", Mode::Train, largest.clone(), 128, 16),
        ("shrink", Mode::Shrink, BenchSubject::Uniform, 64, 32),
        ("calibrate largest", Mode::Calibrate, largest.clone(), 128, 100),
        ("infer largest", Mode::Infer, largest, 224, 1),
    ] {
        let backend = Backend::detect();
        let setup = Bench {
            space: space.clone(),
            subject,
            resolution: resolution.into(),
            batch,
            steps: 0,
            warmup: 0,
            mode,
            backend,
            profile: None,
        };
        let mut runner = Runner::new(&setup).expect("a legal setup");
        group.throughput(Throughput::Elements(runner.images_per_step() as u64));
        let id = BenchmarkId::new(name, format!("{resolution} px, batch {batch}"));
        let mut step = 0;
        group.bench_function(id, |bencher| {
            bencher.iter(|| {
                runner.step(step).expect("a step");
                step += 1;
            });
        });
    }
    group.finish();
}

criterion_group! {
    name = benches;
    config = Criterion::default().warm_up_time(Duration::from_secs(1)).measurement_time(Duration::from_secs(4))
        .sample_size(20);
    targets = steps
}
criterion_main!(benches);
