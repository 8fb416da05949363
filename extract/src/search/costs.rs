//! The costs of a space's sub-networks, with latencies from a table.

use latency::{Latency, LatencyKind, LatencyModel, LatencyTable};
use search::{CostIndex, Latencies, Microseconds};
use space::{LayerSpec, SearchSpace};

use crate::error::Result;

/// A table as it looks from the searched space.
struct Model<'a>(LatencyModel<'a>);

impl Latencies for Model<'_> {
    fn layer(&self, layer: &LayerSpec) -> search::Result<Microseconds> {
        Ok(microseconds(self.0.layer(layer)?))
    }

    fn constant(&self) -> Microseconds {
        microseconds(self.0.constant())
    }
}

fn microseconds(latency: Latency) -> Microseconds {
    Microseconds { expected: latency.us, upper: latency.high_us }
}

/// The costs with latencies of a kind; typical ones, where the table knows no others.
///
/// # Errors
/// Names the first layer that the table lacks.
pub fn cost_index(space: &SearchSpace, table: &LatencyTable, kind: LatencyKind) -> Result<CostIndex> {
    let model = Model(LatencyModel::of_kind(table, space, kind));
    Ok(CostIndex::new(space, Some(&model))?)
}

/// The costs that need no latency table. Latencies are 0, and none can be limited.
///
/// # Errors
/// If the space cannot be lowered.
pub fn cost_index_without_latency(space: &SearchSpace) -> Result<CostIndex> {
    Ok(CostIndex::new(space, None)?)
}
