//! Costs of any sub-network as a few additions: everything that does not depend on the candidate is looked up
//! once.
//!
//! A block's costs depend on its own choices, on the resolution, on its stage's width and, if it is the first of its
//! stage, on the width of the stage before, so the sums are exact, not estimates.

use base::document::rounded;
use serde::{Deserialize, Serialize};
use space::{Arch, LayerSpec, SearchSpace, cost};

use super::constraint::Quantity;
use super::genes::{Gene, Genome, Move};
use crate::error::Result;

/// What is known of a sub-network without running it.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub struct Costs {
    /// Expected latency, in microseconds; 0 where an index has no latency table.
    pub latency_us: f64,
    /// The upper end of its interval, in microseconds; 0 where an index has no latency table.
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

/// What an expected accuracy is from.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum AccuracyFrom {
    /// A predictor alone.
    #[serde(rename = "predictor")]
    Predictor,
    /// A predictor and a count of validation images.
    #[serde(rename = "predictor+validation")]
    PredictorAndValidation,
}

/// A sub-network with its expected accuracy and its costs.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Candidate {
    /// The sub-network.
    pub arch: Arch,
    /// Expected accuracy, as a share; not forced into 0..=1, so that an order stays.
    pub accuracy: f64,
    /// Lower end of its 95 % interval, for new images; absent where the predictor's error is not known.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub accuracy_low: Option<f64>,
    /// Upper end of the interval.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub accuracy_high: Option<f64>,
    /// What the accuracy is from; absent in files of older versions.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub accuracy_from: Option<AccuracyFrom>,
    /// Expected latency, in milliseconds; absent where no table was given.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub latency_ms: Option<f64>,
    /// The upper end of its interval, in milliseconds: what a limit is compared with; absent where no table was given.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub latency_upper_ms: Option<f64>,
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
    /// The first block's: by width of the stage before, own width, position, kernel and expand ratio.
    blocks: usize,
    /// The fixed layers', by own width; `None` where the stage has no such layers.
    fixed: Option<usize>,
}

/// What a sub-network is to have the least of: a value of each entry, and how two come together.
pub(super) struct Aim<'a> {
    /// Infinite for what must not be chosen.
    pub of: &'a dyn Fn(&Costs) -> f64,
    /// Grows with both.
    pub together: fn(f64, f64) -> f64,
}

/// Costs of every block in every place of a space, with latencies or without.
#[derive(Clone, Debug)]
pub struct CostIndex {
    space: SearchSpace,
    has_latency: bool,
    genome: Genome,
    stages: Vec<StageIndex>,
    /// Entries of one resolution.
    per_resolution: usize,
    /// By resolution, then as the stages say. Layers before the first elastic block count as the first stage's, others
    /// that every sub-network has as those of the last stage before them.
    entries: Vec<Costs>,
}

/// A latency of a layer or of a sub-network, in microseconds.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub struct Microseconds {
    /// What is expected.
    pub expected: f64,
    /// The upper end of its interval: what a limit is compared with.
    pub upper: f64,
}

/// Who knows what layers take: a latency table, as it looks from the searched space.
pub trait Latencies {
    /// What one layer adds.
    ///
    /// # Errors
    /// If it is not known.
    fn layer(&self, layer: &LayerSpec) -> Result<Microseconds>;

    /// What every network has beside its layers.
    fn constant(&self) -> Microseconds;
}

fn layer_costs(layer: &LayerSpec, latencies: Option<&dyn Latencies>) -> Result<Costs> {
    let latency = latencies.map(|known| known.layer(layer)).transpose()?.unwrap_or_default();
    let cost = cost(std::slice::from_ref(layer));
    Ok(Costs {
        latency_us: latency.expected,
        latency_upper_us: latency.upper,
        macs: cost.macs,
        params: cost.params,
        peak_activation_bytes: cost.peak_activation_bytes,
    })
}

impl CostIndex {
    /// Looks up every layer of the space: those of `covering`, sub-networks of full depth that between them contain all.
    /// Without latencies these are 0, and none can be limited.
    ///
    /// # Errors
    /// As the latencies, or if a sub-network is not in the space.
    pub fn new(space: &SearchSpace, covering: &[Arch], latencies: Option<&dyn Latencies>) -> Result<Self> {
        let genome = Genome::new(space);
        let (mut stages, mut end) = (Vec::new(), 0);
        for (index, stage) in genome.stages.iter().enumerate() {
            let before = genome.stages[index.saturating_sub(1)].widths;
            // where nothing has a width, all fixed layers are the first stage's
            let fixed = (index == 0 || stage.width.is_some()).then_some(end);
            let blocks = end + fixed.map_or(0, |_| stage.widths);
            stages.push(StageIndex { blocks, fixed });
            end = blocks + before * stage.widths * stage.places() * stage.choices();
        }
        let entries = vec![Costs::default(); space.resolutions().len() * end];
        let has_latency = latencies.is_some();
        let mut index =
            Self { space: space.clone(), has_latency, genome, stages, per_resolution: end, entries };
        for network in covering {
            index.insert(network, &space.lower(network)?, latencies)?;
        }
        Ok(index)
    }

    /// Enters the layers of one sub-network of full depth.
    fn insert(&mut self, arch: &Arch, layers: &[LayerSpec], latencies: Option<&dyn Latencies>) -> Result<()> {
        let mut genes = vec![0; self.genome.len()];
        self.genome.encode(&self.space, arch, &mut genes).expect("the space's own sub-network");
        let constant = latencies.map(Latencies::constant).unwrap_or_default();
        let (latency_us, latency_upper_us) = (constant.expected, constant.upper);
        let mut fixed = vec![Costs::default(); self.stages.len()];
        fixed[0] = Costs { latency_us, latency_upper_us, ..Costs::default() };
        let mut latest = 0;
        for layer in layers {
            let costs = layer_costs(layer, latencies)?;
            let Some(place) = layer.place else {
                let stage = if self.stages[latest].fixed.is_some() { latest } else { 0 };
                fixed[stage].add(&costs);
                continue;
            };
            latest = place.stage;
            let entry = self.block_entry(&genes, place.stage, place.position);
            self.entries[entry] = costs;
        }
        for (stage, costs) in fixed.into_iter().enumerate() {
            if let Some(entry) = self.fixed_entry(&genes, stage) {
                self.entries[entry] = costs;
            }
        }
        Ok(())
    }

    fn of_resolution(&self, genes: &[Gene]) -> usize {
        usize::from(genes[self.genome.resolution()]) * self.per_resolution
    }

    fn width(&self, genes: &[Gene], stage: usize) -> usize {
        self.genome.stages[stage].width.map_or(0, |width| usize::from(genes[width]))
    }

    fn fixed_entry(&self, genes: &[Gene], stage: usize) -> Option<usize> {
        Some(self.of_resolution(genes) + self.stages[stage].fixed? + self.width(genes, stage))
    }

    /// The entry of a block that is there. A stage's later blocks read its own width and lie as if the first one's
    /// width were before them, and so do all of the first stage.
    fn block_entry(&self, genes: &[Gene], stage: usize, position: usize) -> usize {
        self.block_entry_of(genes, stage, position, genes[self.genome.stages[stage].blocks + position])
    }

    /// The same for another value of the block's own gene.
    fn block_entry_of(&self, genes: &[Gene], stage: usize, position: usize, value: Gene) -> usize {
        let genome = &self.genome.stages[stage];
        let before = if position == 0 && stage > 0 { self.width(genes, stage - 1) } else { 0 };
        let choice = usize::from(value) - 1;
        let within = (before * genome.widths + self.width(genes, stage)) * genome.places() + position;
        self.of_resolution(genes) + self.stages[stage].blocks + within * genome.choices() + choice
    }

    /// The space whose sub-networks it knows.
    pub fn space(&self) -> &SearchSpace {
        &self.space
    }

    /// Whether a latency table is part of it.
    pub fn has_latency(&self) -> bool {
        self.has_latency
    }

    /// A sub-network with what is expected of it.
    pub fn candidate(&self, arch: Arch, accuracy: f32, costs: &Costs) -> Candidate {
        let candidate = Candidate::new(arch, accuracy, costs);
        if self.has_latency {
            return candidate;
        }
        Candidate { latency_ms: None, latency_upper_ms: None, ..candidate }
    }

    /// How its sub-networks are written as genes.
    pub(super) fn genome(&self) -> &Genome {
        &self.genome
    }

    /// The costs of a sub-network; `None` if it is not in the space.
    pub fn costs(&self, arch: &Arch) -> Option<Costs> {
        let mut genes = vec![0; self.genome.len()];
        self.genome.encode(&self.space, arch, &mut genes)?;
        Some(self.costs_of(&genes))
    }

    /// The costs of a row of genes.
    pub(super) fn costs_of(&self, genes: &[Gene]) -> Costs {
        let mut sum = Costs::default();
        for stage in 0..self.stages.len() {
            if let Some(entry) = self.fixed_entry(genes, stage) {
                sum.add(&self.entries[entry]);
            }
            for position in 0..self.genome.stages[stage].depth(genes) {
                sum.add(&self.entries[self.block_entry(genes, stage, position)]);
            }
        }
        sum
    }

    /// By how much a step adds to a quantity; `None` where that is no sum of blocks: for a step that changes a width,
    /// which other blocks cost by, and for memory.
    pub(super) fn added(&self, genes: &[Gene], step: Move, quantity: Quantity) -> Option<f64> {
        let (stage, position) = self.genome.block(step.first).filter(|_| quantity != Quantity::Memory)?;
        let of = |place: usize, value: Gene| match value {
            0 => 0.0,
            _ => self.entries[self.block_entry_of(genes, stage, position + place, value)].of(quantity),
        };
        let places = genes[step.first..=step.last].iter().enumerate();
        Some(places.map(|(place, value)| of(place, step.value) - of(place, *value)).sum())
    }

    /// The sub-network with the least of a quantity, exactly, and its costs.
    ///
    /// Sums are least where each block is; the greatest of some values likewise. So blocks and depths can be chosen by
    /// themselves, for each resolution and each pair of neighbouring widths, and widths from the first stage to the last.
    pub fn least(&self, quantity: Quantity) -> (Arch, Costs) {
        let (genes, costs) = self.least_genes(quantity);
        (self.genome.decode(&self.space, &genes), costs)
    }

    /// [`CostIndex::least`] as genes.
    pub(super) fn least_genes(&self, quantity: Quantity) -> (Vec<Gene>, Costs) {
        let of_resolution = |resolution: usize| {
            let genes = self.least_at(resolution, quantity);
            let costs = self.costs_of(&genes);
            (genes, costs)
        };
        let all = (0..self.genome.resolutions).map(of_resolution);
        let least = all.min_by(|a, b| a.1.of(quantity).total_cmp(&b.1.of(quantity)));
        least.expect("a checked space has a resolution")
    }

    /// The genes with the least of a quantity at one resolution.
    pub(super) fn least_at(&self, resolution: usize, quantity: Quantity) -> Vec<Gene> {
        let of = |costs: &Costs| costs.of(quantity);
        let together: fn(f64, f64) -> f64 =
            if quantity == Quantity::Memory { f64::max } else { |sum, more| sum + more };
        self.least_by(resolution, &Aim { of: &of, together }).1
    }

    /// The least value of an aim at one resolution, exactly, and genes that have it.
    pub(super) fn least_by(&self, resolution: usize, aim: &Aim<'_>) -> (f64, Vec<Gene>) {
        let mut start = vec![0; self.genome.len()];
        start[self.genome.resolution()] = resolution as Gene;
        // the least so far for each width of the latest stage, and its genes
        let mut ends: Vec<(f64, Vec<Gene>)> = vec![(0.0, start)];
        for (stage, genome) in self.genome.stages.iter().enumerate() {
            let with_width = |width: usize| {
                let least = |(value, genes): &(f64, Vec<Gene>)| {
                    let mut genes = genes.clone();
                    genome.width.into_iter().for_each(|at| genes[at] = width as Gene);
                    (self.least_stage(*value, &mut genes, stage, aim), genes)
                };
                ends.iter().map(least).min_by(|a, b| a.0.total_cmp(&b.0)).expect("at least one width")
            };
            ends = (0..genome.widths).map(with_width).collect();
        }
        ends.into_iter().min_by(|a, b| a.0.total_cmp(&b.0)).expect("at least one width")
    }

    /// Gives a stage whose widths are chosen its least blocks and depth; the value then, if it was `value` before.
    fn least_stage(&self, value: f64, genes: &mut [Gene], stage: usize, aim: &Aim<'_>) -> f64 {
        let genome = &self.genome.stages[stage];
        let together = |value: f64, entry: usize| (aim.together)(value, (aim.of)(&self.entries[entry]));
        let mut value = self.fixed_entry(genes, stage).map_or(value, |entry| together(value, entry));
        let mut least = (f64::INFINITY, genome.depths.first().copied().unwrap_or(0));
        for position in 0..=genome.places() {
            if genome.depths.contains(&position) && value < least.0 {
                least = (value, position);
            }
            if position < genome.places() {
                let entry = self.least_block(genes, stage, position, aim);
                value = together(value, entry);
            }
        }
        genes[genome.blocks + least.1..genome.blocks + genome.places()].fill(0);
        least.0
    }

    /// Gives a place its least block; the block's entry.
    fn least_block(&self, genes: &mut [Gene], stage: usize, position: usize, aim: &Aim<'_>) -> usize {
        let (at, mut least) = (self.genome.stages[stage].blocks + position, (f64::INFINITY, 1));
        for choice in 1..=self.genome.stages[stage].choices() as Gene {
            genes[at] = choice;
            let own = (aim.of)(&self.entries[self.block_entry(genes, stage, position)]);
            if own < least.0 {
                least = (own, choice);
            }
        }
        genes[at] = least.1;
        self.block_entry(genes, stage, position)
    }
}

impl Candidate {
    /// A sub-network with what a predictor says of it.
    pub fn new(arch: Arch, accuracy: f32, costs: &Costs) -> Self {
        Self {
            arch,
            accuracy: rounded(f64::from(accuracy), 9),
            accuracy_low: None,
            accuracy_high: None,
            accuracy_from: None,
            latency_ms: Some(rounded(costs.latency_us / 1e3, 9)),
            latency_upper_ms: Some(rounded(costs.latency_upper_us / 1e3, 9)),
            macs: costs.macs,
            params: costs.params,
            peak_activation_bytes: costs.peak_activation_bytes,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::testing::{all, index_of};
    use latency::testing::made_up;
    use latency::{LatencyModel, LatencyTable};
    use rand::SeedableRng;
    use rand_chacha::ChaCha8Rng;
    use space::{preset, preset_names, sampler};

    #[test]
    fn an_index_says_what_lowering_says() {
        for name in preset_names() {
            let space = preset(name).expect("a preset");
            let table = made_up(&space);
            let index = index_of(&space, &table);
            let model = LatencyModel::new(&table, &space);
            let mut rng = ChaCha8Rng::seed_from_u64(4);
            for _ in 0..200 {
                let arch = sampler::random(&space, &mut rng);
                let layers = space.lower(&arch).expect("legal");
                let (latency, exact) = (model.network(&layers).expect("covered"), cost(&layers));
                let costs = index.costs(&arch).expect("legal");
                assert!((costs.latency_us / latency.us - 1.0).abs() < 1e-12, "{name}: {arch}");
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
            let index = index_of(&space, &made_up(&space));
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

    /// A ResNet of 2 x 2 x (1 + 1 x 1) x 3 x ... sub-networks, on a device where wide layers can be the fast ones.
    #[test]
    fn the_least_of_a_small_resnet_is_that_of_all_its_networks() {
        let text = preset("ofa-resnet50").expect("a preset").to_toml();
        let (front, _) = text.split_once("[[stages]]").expect("stages");
        let front = front.split_once("resolutions = [").map(|(before, rest)| {
            let (_, after) = rest.split_once(']').expect("the end of a list");
            format!("{before}resolutions = [32, 64]{after}")
        });
        let stage = |channels: usize| {
            format!(
                "[[stages]]\nchannels = {channels}\nstride = 2\nactivation = \"relu\"\ndepth = [1, 2]\nexpand = [0.2, 0.35]\n"
            )
        };
        let text = format!("{}{}{}", front.expect("resolutions"), stage(32), stage(64));
        let space = SearchSpace::from_toml("small.toml", &text).expect("a space");
        let table = made_up(&space);
        let rows = table.rows().iter().map(|(key, row)| {
            let hash = blake3::hash(key.as_bytes()).as_bytes()[1];
            let us = row.us * (0.2 + f64::from(hash) / 64.0);
            (key.clone(), latency::Row { us, interval_us: Some([us, us]), ..*row })
        });
        let (device, engine) = (table.device.clone(), table.engine.clone());
        let table =
            LatencyTable::new("x.json", device, engine, "none", rows.collect()).expect("checked numbers");
        let index = index_of(&space, &table);
        let everything = all(&index);
        assert_eq!(num_bigint(&space), everything.len());
        for quantity in Quantity::ALL {
            let least = everything.iter().map(|arch| index.costs(arch).expect("legal").of(quantity));
            assert_eq!(
                index.least(quantity).1.of(quantity),
                least.fold(f64::INFINITY, f64::min),
                "{quantity}"
            );
        }
    }

    /// Number of sub-networks at all resolutions.
    fn num_bigint(space: &SearchSpace) -> usize {
        let at_one: usize = space.subnetworks().to_string().parse().expect("few");
        at_one * space.resolutions().len()
    }
}
