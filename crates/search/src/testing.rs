//! Costs by a latency table, and all sub-networks of a small space, for tests.

use std::collections::BTreeSet;

use latency::{LatencyKind, LatencyModel, LatencyTable, covering};
use space::{Arch, LayerSpec, SearchSpace};

use crate::constraint::Quantity;
use crate::error::Result;
use crate::genes::Gene;
use crate::index::{CostIndex, Latencies, Microseconds};

struct Model<'a>(LatencyModel<'a>);

impl Latencies for Model<'_> {
    fn layer(&self, layer: &LayerSpec) -> Result<Microseconds> {
        Ok(microseconds(self.0.layer(layer)?))
    }

    fn constant(&self) -> Microseconds {
        microseconds(self.0.constant())
    }
}

fn microseconds(latency: latency::Latency) -> Microseconds {
    Microseconds { expected: latency.us, upper: latency.high_us }
}

/// The costs of a space with the latencies of a table that has all its layers.
pub(crate) fn index_of(space: &SearchSpace, table: &LatencyTable) -> CostIndex {
    let model = Model(LatencyModel::of_kind(table, space, LatencyKind::Undisturbed));
    CostIndex::new(space, &covering(space), Some(&model)).expect("covered")
}

/// All sub-networks, by single steps from the smallest at each resolution.
pub(crate) fn all(index: &CostIndex) -> Vec<Arch> {
    let (genome, space) = (index.genome(), index.space());
    let mut found = BTreeSet::new();
    let mut open: Vec<Vec<Gene>> =
        (0..genome.resolutions).map(|resolution| index.least_at(resolution, Quantity::Macs)).collect();
    let mut moves = Vec::new();
    while let Some(genes) = open.pop() {
        if found.insert(genes.clone()) {
            genome.moves(&genes, &mut moves);
            for step in &moves {
                let mut next = genes.clone();
                step.apply(&mut next);
                open.push(next);
            }
        }
    }
    found.iter().map(|genes| genome.decode(space, genes)).collect()
}
