//! Sub-networks in the formats of PyTorch's `ofa`: samples, and the configs of its classes.

pub(crate) mod config;
pub(crate) mod sample;

use base::error::{Error, Result};

use crate::arch::Arch;
use crate::families::stages::{Block, Blocks, Stages};
use crate::search_space::SearchSpace;
use crate::value::{Extent, Ratio};

pub use config::{NET_CONFIG, RUN_CONFIG, net_config, run_config};

impl SearchSpace {
    /// The stages that the formats describe.
    fn ofa_stages(&self) -> Result<&Stages> {
        let stages = self.structure().stages();
        stages.ok_or_else(|| self.is_not_of_ofa())
    }

    /// The blocks of a sub-network.
    fn ofa_blocks(&self, arch: &Arch) -> Result<Blocks> {
        let row = self.row_at_any_resolution(arch)?;
        Ok(self.ofa_stages()?.blocks(self.genome(), &row))
    }

    fn is_not_of_ofa(&self) -> Error {
        let expected = "one that PyTorch's ofa has, of stages of kernels, expand ratios and depths";
        Error::invalid(format!("space {}", self.name()), "family", expected, self.family())
    }
}

/// The sub-network of these blocks and widths, not yet checked.
fn arch_of(resolution: Extent, stages: Vec<Vec<Block>>, widths: Vec<Ratio>) -> Arch {
    Arch::new(resolution, Blocks { stages, widths }.to_string())
}
