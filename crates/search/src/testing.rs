//! Costs by a latency table, and all sub-networks of a small space, for tests.

use latency::{LatencyKind, LatencyModel, LatencyTable};
use space::{Arch, LayerSpec, SearchSpace};

use crate::error::Result;
use crate::index::{CostIndex, Latencies, Microseconds};
use crate::prices::{Column, Prices};
use crate::quantity::Quantity;

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
    CostIndex::new(space, Some(&model)).expect("covered")
}

/// All sub-networks.
pub(crate) fn all(index: &CostIndex) -> Vec<Arch> {
    index.genome().all().iter().map(|row| index.space().arch(row)).collect()
}

/// Limits on an index's quantities.
pub(crate) fn priced<'a>(index: &'a CostIndex, limits: &[(Quantity, f64)]) -> Prices<'a> {
    let on = |prices: Prices<'a>, &(quantity, most): &(Quantity, f64)| {
        prices.within(Column { index: 0, quantity }, most)
    };
    limits.iter().fold(Prices::new(vec![index]), on)
}
