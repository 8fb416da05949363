//! Sub-networks as PyTorch's `ofa` writes them: samples, and the configs of its classes.

pub(crate) mod config;
pub(crate) mod sample;

use crate::arch::Arch;
use crate::families::stages::{Block, Blocks, Stage};
use crate::search_space::SearchSpace;
use crate::value::{Extent, Ratio};

pub use config::{NET_CONFIG, RUN_CONFIG, net_config, run_config};

impl SearchSpace {
    fn stages(&self) -> &[Stage] {
        &self.structure().stages().stages
    }
}

/// The sub-network of these blocks and widths, not checked yet.
fn arch_of(resolution: Extent, stages: Vec<Vec<Block>>, widths: Vec<Ratio>) -> Arch {
    Arch::new(resolution, Blocks { stages, widths }.to_string())
}
