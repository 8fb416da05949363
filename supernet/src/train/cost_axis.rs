//! The cost by which sub-networks are compared in training: multiply-accumulates, or latency by a table.

use std::sync::Arc;

use latency::LatencyTable;
use serde::{Deserialize, Serialize};
use space::{Arch, SearchSpace, cost};

use crate::error::{Error, Result};

/// Which cost.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum CostKind {
    /// Multiply-accumulates.
    #[default]
    Macs,
    /// Latency by the table that is given at the start of the run.
    Latency,
}

/// A cost of the sub-networks of a space.
#[derive(Clone, Debug)]
pub enum CostAxis {
    /// Multiply-accumulates.
    Macs,
    /// Latency by this table.
    Latency(Arc<LatencyTable>),
}

impl CostAxis {
    /// The cost of a recipe's phases; they compare by one cost alone.
    ///
    /// # Errors
    /// If the recipe compares by latency and there is no table, or the table lacks layers of the space, or no phase needs the
    /// table.
    pub fn for_kind(
        kind: Option<CostKind>,
        table: Option<Arc<LatencyTable>>,
        space: &SearchSpace,
    ) -> Result<Self> {
        match (kind, table) {
            (None | Some(CostKind::Macs), None) => Ok(Self::Macs),
            (None | Some(CostKind::Macs), Some(_)) => {
                let expected = "a recipe that draws by latency, and a space with something to draw";
                let advice = "leave the table out; attentive draws with by = \"latency\" need it";
                Err(Error::invalid("recipe", "draws", expected, "others").and_then_do(advice))
            }
            (Some(CostKind::Latency), None) => {
                let expected = "one, because the recipe draws sub-networks by latency";
                Err(Error::invalid("recipe", "latency table", expected, "none")
                    .and_then_do("give --latency-table, or put by = \"macs\" into the recipe"))
            }
            (Some(CostKind::Latency), Some(table)) => {
                let coverage = table.coverage(space)?;
                if let Some(missing) = coverage.missing.first() {
                    let expected = format!("all {} layers of space {}", coverage.layers, space.name());
                    let got = format!("none for {} of them, such as {missing}", coverage.missing.len());
                    return Err(Error::invalid("latency table", "rows", expected, got)
                        .and_then_do("measure the space on the device: extract measure"));
                }
                Ok(Self::Latency(table))
            }
        }
    }

    /// The table's hash, if there is a table.
    pub(super) fn table_hash(&self) -> Option<String> {
        match self {
            Self::Macs => None,
            Self::Latency(table) => Some(table.hash()),
        }
    }

    /// The cost of a sub-network.
    ///
    /// # Errors
    /// If it is not in the space, or the table lacks one of its layers.
    pub(super) fn of(&self, space: &SearchSpace, arch: &Arch) -> Result<f64> {
        match self {
            Self::Macs => Ok(cost(&space.lower(arch)?).macs as f64),
            Self::Latency(table) => Ok(table.latency(space, arch)?.us),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use latency::testing::made_up;
    use space::{preset, sampler};

    #[test]
    fn latencies_are_those_of_the_table() {
        let space = preset("tiny").expect("a preset");
        let table = Arc::new(made_up(&space));
        let axis = CostAxis::for_kind(Some(CostKind::Latency), Some(table.clone()), &space).expect("covered");
        let arch = sampler::largest(&space);
        let rows: f64 = space
            .lower(&arch)
            .expect("in the space")
            .iter()
            .map(|layer| table.layer(layer).expect("a row").us)
            .sum();
        assert!((axis.of(&space, &arch).expect("known") - rows).abs() < 1e-9 * rows);
        assert_eq!(axis.table_hash(), Some(table.hash()));
        let macs = CostAxis::for_kind(Some(CostKind::Macs), None, &space).expect("no table");
        assert_eq!(
            macs.of(&space, &arch).expect("known"),
            cost(&space.lower(&arch).expect("lowered")).macs as f64
        );
        assert_eq!(macs.table_hash(), None);
    }

    #[test]
    fn a_table_is_given_where_it_is_needed_and_covers_the_space() {
        let [tiny, fashion] = ["tiny", "fashion"].map(|name| preset(name).expect("a preset"));
        let table = || Some(Arc::new(made_up(&tiny)));
        for (kind, table, space, part) in [
            (Some(CostKind::Latency), None, &tiny, "latency table: expected one, because the recipe draws"),
            (Some(CostKind::Macs), table(), &tiny, "draws: expected a recipe that draws by latency"),
            (None, table(), &tiny, "leave the table out"),
            (Some(CostKind::Latency), table(), &fashion, "measure the space on the device: extract measure"),
        ] {
            let error = CostAxis::for_kind(kind, table, space).expect_err(part).to_string();
            assert!(error.contains(part), "{error}");
        }
    }
}
