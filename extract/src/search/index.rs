//! Costs of any sub-network as a few additions: everything that does not depend on the candidate is looked up
//! once.
//!
//! A block's costs depend on its own choices, on the resolution and on whether it is the first of its stage,
//! so the sums are exact, not estimates.

use serde::{Deserialize, Serialize};
use supernet::space::{Arch, Block, LayerSpec, SearchSpace, Stage, cost, sampler};

use super::constraint::Quantity;
use crate::encode::choice_indices;
use crate::error::Result;
use crate::file::rounded;
use crate::latency::plan::covering;
use crate::latency::{LatencyModel, LatencyTable};

/// What is known of a sub-network without running it.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub struct Costs {
    /// Expected latency, in microseconds.
    pub latency_us: f64,
    /// The upper end of its interval, in microseconds.
    pub latency_upper_us: f64,
    /// Multiply-accumulates for one image.
    pub macs: u64,
    /// Trainable parameters.
    pub params: u64,
    /// Bytes of the activations that live at once, at most, in f32 at batch 1.
    pub peak_activation_bytes: u64,
}

impl Costs {
    fn add(&mut self, layer: &Self) {
        self.latency_us += layer.latency_us;
        self.latency_upper_us += layer.latency_upper_us;
        self.macs += layer.macs;
        self.params += layer.params;
        self.peak_activation_bytes = self.peak_activation_bytes.max(layer.peak_activation_bytes);
    }

    /// What a limit on `quantity` is compared with: the latency's upper value.
    pub fn of(&self, quantity: Quantity) -> f64 {
        match quantity {
            Quantity::Latency => self.latency_upper_us,
            Quantity::Macs => self.macs as f64,
            Quantity::Params => self.params as f64,
            Quantity::Memory => self.peak_activation_bytes as f64,
        }
    }
}

/// A sub-network with its expected accuracy and its costs.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Candidate {
    /// The sub-network.
    pub arch: Arch,
    /// Expected accuracy, as a share.
    pub accuracy: f64,
    /// Expected latency, in milliseconds.
    pub latency_ms: f64,
    /// The upper end of its interval, in milliseconds: what a limit is compared with.
    pub latency_upper_ms: f64,
    /// Multiply-accumulates for one image.
    pub macs: u64,
    /// Trainable parameters.
    pub params: u64,
    /// Bytes of the activations that live at once, at most, in f32 at batch 1.
    pub peak_activation_bytes: u64,
}

/// Where a stage's entries lie within those of one resolution.
#[derive(Clone, Debug)]
struct StageIndex {
    start: usize,
    kernels: usize,
    expands: usize,
}

/// Costs of every block in every place of a space, for one latency table.
#[derive(Clone, Debug)]
pub struct CostIndex {
    space: SearchSpace,
    stages: Vec<StageIndex>,
    /// Entries of one resolution.
    per_resolution: usize,
    /// By resolution, stage, position, kernel, expand ratio.
    blocks: Vec<Costs>,
    /// The layers that every sub-network has, by resolution.
    fixed: Vec<Costs>,
}

fn layer_costs(layer: &LayerSpec, model: &LatencyModel<'_>) -> Result<Costs> {
    let (latency, cost) = (model.layer(layer)?, cost(std::slice::from_ref(layer)));
    Ok(Costs {
        latency_us: latency.median_us,
        latency_upper_us: latency.high_us,
        macs: cost.macs,
        params: cost.params,
        peak_activation_bytes: cost.peak_activation_bytes,
    })
}

impl CostIndex {
    /// Looks every layer of the space up in the table.
    ///
    /// # Errors
    /// Names the first layer that the table lacks.
    pub fn new(space: &SearchSpace, table: &LatencyTable) -> Result<Self> {
        let (stages, per_resolution) = stage_indices(space);
        let resolutions = space.resolutions().len();
        let blocks = vec![Costs::default(); resolutions * per_resolution];
        let fixed = vec![Costs::default(); resolutions];
        let mut index = Self { space: space.clone(), stages, per_resolution, blocks, fixed };
        let model = LatencyModel::new(table, space);
        for network in covering(space) {
            let layers = space.lower(&network.arch)?;
            index.insert(network.resolution, &network.arch, &layers, &model)?;
        }
        Ok(index)
    }

    /// Enters the layers of one sub-network of full depth.
    fn insert(
        &mut self,
        resolution: usize,
        arch: &Arch,
        layers: &[LayerSpec],
        model: &LatencyModel<'_>,
    ) -> Result<()> {
        let constant = model.constant();
        let (latency_us, latency_upper_us) = (constant.median_us, constant.high_us);
        let mut fixed = Costs { latency_us, latency_upper_us, ..Costs::default() };
        let mut places = arch.stages.iter().enumerate().flat_map(|(stage, blocks)| {
            blocks.iter().enumerate().map(move |(position, block)| (stage, position, block))
        });
        for layer in layers {
            let costs = layer_costs(layer, model)?;
            if layer.place.is_none() {
                fixed.add(&costs);
                continue;
            }
            let (stage, position, block) = places.next().expect("one elastic layer for each block");
            let entry = self.entry(resolution, stage, position, block).expect("the space's own block");
            self.blocks[entry] = costs;
        }
        self.fixed[resolution] = fixed;
        Ok(())
    }

    fn entry(&self, resolution: usize, stage: usize, position: usize, block: &Block) -> Option<usize> {
        let (kernel, expand) = choice_indices(self.space.stages().get(stage)?, block)?;
        let StageIndex { start, kernels, expands } = self.stages[stage];
        let within = start + (position * kernels + kernel) * expands + expand;
        Some(resolution * self.per_resolution + within)
    }

    /// The space whose sub-networks it knows.
    pub fn space(&self) -> &SearchSpace {
        &self.space
    }

    /// The costs of a sub-network; `None` if it is not in the space.
    pub fn costs(&self, arch: &Arch) -> Option<Costs> {
        let resolution = self.space.resolutions().iter().position(|&side| side == arch.resolution)?;
        if arch.stages.len() != self.stages.len() {
            return None;
        }
        let mut sum = self.fixed[resolution];
        for (stage, blocks) in arch.stages.iter().enumerate() {
            if !self.space.stages()[stage].choices.depth.contains(&blocks.len()) {
                return None;
            }
            for (position, block) in blocks.iter().enumerate() {
                sum.add(&self.blocks[self.entry(resolution, stage, position, block)?]);
            }
        }
        Some(sum)
    }

    /// The sub-network with the least of a quantity, exactly, and its costs.
    ///
    /// Sums are least where each block is and each stage's depth is; the greatest of some values likewise. So
    /// every part can be chosen by itself, for each resolution.
    pub fn least(&self, quantity: Quantity) -> (Arch, Costs) {
        let mut best: Option<(f64, Arch, Costs)> = None;
        for (resolution, &side) in self.space.resolutions().iter().enumerate() {
            let stage = |stage: usize| self.least_stage(resolution, stage, quantity);
            let arch = Arch {
                resolution: side,
                stages: (0..self.stages.len()).map(stage).collect(),
                widths: sampler::smallest(&self.space).widths,
            };
            let costs = self.costs(&arch).expect("made of the space's own choices");
            let value = costs.of(quantity);
            if best.as_ref().is_none_or(|(least, ..)| value < *least) {
                best = Some((value, arch, costs));
            }
        }
        let (_, arch, costs) = best.expect("a checked space has a resolution");
        (arch, costs)
    }

    fn least_stage(&self, resolution: usize, stage: usize, quantity: Quantity) -> Vec<Block> {
        let choices = &self.space.stages()[stage].choices;
        let value = |position: usize, block: &Block| {
            let entry = self.entry(resolution, stage, position, block).expect("the space's own block");
            self.blocks[entry].of(quantity)
        };
        let mut blocks = Vec::new();
        for position in 0..choices.max_depth() {
            let all = choices
                .kernel
                .iter()
                .flat_map(|&kernel| choices.expand.iter().map(move |&expand| Block { kernel, expand }));
            let least = all.min_by(|a, b| value(position, a).total_cmp(&value(position, b)));
            blocks.push(least.expect("a checked space has choices"));
        }
        // each quantity grows with depth or stays, so the shallowest stage has the least
        blocks.truncate(choices.depth.first().copied().unwrap_or(0));
        blocks
    }
}

fn stage_indices(space: &SearchSpace) -> (Vec<StageIndex>, usize) {
    let (mut indices, mut start) = (Vec::new(), 0);
    for Stage { choices, .. } in space.stages() {
        let (kernels, expands) = (choices.kernel.len(), choices.expand.len());
        indices.push(StageIndex { start, kernels, expands });
        start += choices.max_depth() * kernels * expands;
    }
    (indices, start)
}

impl Candidate {
    /// A sub-network with what is expected of it; an estimate beyond 0 to 1 is reported as that end.
    pub fn new(arch: Arch, accuracy: f32, costs: &Costs) -> Self {
        Self {
            arch,
            accuracy: rounded(f64::from(accuracy.clamp(0.0, 1.0)), 9),
            latency_ms: rounded(costs.latency_us / 1e3, 9),
            latency_upper_ms: rounded(costs.latency_upper_us / 1e3, 9),
            macs: costs.macs,
            params: costs.params,
            peak_activation_bytes: costs.peak_activation_bytes,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::latency::table::tests::made_up;
    use rand::SeedableRng;
    use rand_chacha::ChaCha8Rng;
    use supernet::space::{preset, preset_names};

    #[test]
    fn an_index_says_what_lowering_says() {
        for name in preset_names() {
            let space = preset(name).expect("a preset");
            let table = made_up(&space);
            let index = CostIndex::new(&space, &table).expect("covered");
            let model = LatencyModel::new(&table, &space);
            let mut rng = ChaCha8Rng::seed_from_u64(4);
            for _ in 0..200 {
                let arch = sampler::random(&space, &mut rng);
                let layers = space.lower(&arch).expect("legal");
                let (latency, exact) = (model.network(&layers).expect("covered"), cost(&layers));
                let costs = index.costs(&arch).expect("legal");
                assert!((costs.latency_us / latency.median_us - 1.0).abs() < 1e-12, "{arch}");
                assert!((costs.latency_upper_us / latency.high_us - 1.0).abs() < 1e-12, "{arch}");
                assert_eq!(
                    (costs.macs, costs.params, costs.peak_activation_bytes),
                    (exact.macs, exact.params, exact.peak_activation_bytes),
                    "{arch}"
                );
            }
            assert_eq!(index.costs(&"r9:k3e3".parse().expect("an arch")), None);
        }
    }

    #[test]
    fn nothing_is_below_the_least() {
        for name in preset_names() {
            let space = preset(name).expect("a preset");
            let index = CostIndex::new(&space, &made_up(&space)).expect("covered");
            let mut rng = ChaCha8Rng::seed_from_u64(5);
            let archs: Vec<Arch> = (0..2000).map(|_| sampler::random(&space, &mut rng)).collect();
            for quantity in Quantity::ALL {
                let (arch, least) = index.least(quantity);
                assert_eq!(index.costs(&arch), Some(least));
                for other in &archs {
                    assert!(index.costs(other).expect("legal").of(quantity) >= least.of(quantity));
                }
            }
        }
    }
}
