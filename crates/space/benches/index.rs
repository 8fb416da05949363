//! Times everything derived from a list of choices: the index of a space's layers, a row's cost, exact minima, steps.

use std::convert::Infallible;
use std::hint::black_box;

use criterion::Criterion;
use rand::SeedableRng;
use rand_chacha::ChaCha8Rng;
use space::{Elimination, Join, LayerSpec, RESOLUTION, Steps, Table, Var, cost, preset};

/// A sum and a maximum.
#[derive(Clone, Copy, Default, PartialEq)]
struct Both(u64, u64);

impl Join for Both {
    fn join(self, other: Self) -> Self {
        Self(self.0 + other.0, self.1.max(other.1))
    }
}

fn both(layer: &LayerSpec) -> Result<Both, Infallible> {
    let cost = cost(std::slice::from_ref(layer));
    Ok(Both(cost.macs, cost.peak_activation_bytes))
}

fn main() {
    let mut criterion = Criterion::default().configure_from_args();
    for name in ["fashion", "ofa-mbv3-w1.0", "ofa-resnet50"] {
        let space = preset(name).expect("a preset");
        let genome = space.genome();
        criterion
            .bench_function(&format!("{name}: index"), |bench| bench.iter(|| space.index().layers().len()));
        let index = space.index();
        let costs = index.factored(Both::default(), both).expect("it cannot fail");
        criterion.bench_function(&format!("{name}: costs as terms"), |bench| {
            bench.iter(|| index.factored(Both::default(), both).expect("it cannot fail").terms().len())
        });
        let sliced: Vec<Table<f64>> = costs
            .terms()
            .iter()
            .map(|term: &Table<Both>| term.sliced(RESOLUTION as Var, 0).map(|both| both.0 as f64))
            .collect();
        let elimination = Elimination::new(genome, sliced.iter().map(|term| term.vars.as_slice()));
        criterion.bench_function(&format!("{name}: least at a resolution"), |bench| {
            bench.iter(|| elimination.least(sliced.clone(), |sum, more| sum + more).0)
        });
        let row = genome.random(&mut ChaCha8Rng::seed_from_u64(1));
        criterion.bench_function(&format!("{name}: cost of a row"), |bench| {
            bench.iter(|| costs.of(black_box(&row)).0)
        });
        let mut steps = Steps::default();
        criterion.bench_function(&format!("{name}: steps from a row"), |bench| {
            bench.iter(|| {
                genome.steps(&row, |_| true, &mut steps);
                steps.steps.len()
            })
        });
        criterion.bench_function(&format!("{name}: what a step adds"), |bench| {
            let step = steps.steps[steps.steps.len() / 2];
            let mut from = costs.from(&row);
            bench.iter(|| from.added(steps.changes(step), |both| both.0 as f64))
        });
        criterion.bench_function(&format!("{name}: lowering a row"), |bench| {
            bench.iter(|| space.lower_row(black_box(&row)).len())
        });
    }
    criterion.final_summary();
}
