//! Costs of any sub-network as a few additions: everything that does not depend on the candidate is looked up once.
//!
//! Each layer depends on few choices ([`space::SpaceIndex`]), so the sums are exact, not estimates.
//!
//! An index prices each layer alone, so its peak memory is exact for chains only. In other networks outputs wait, and
//! tables of them would be over all choices that decide which layers read them; there rows are priced by their layers
//! instead.

use space::{
    Arch, ChangesFrom, Elimination, Factored, GeneRow, Genome, Index, Join, LayerSpec, RESOLUTION,
    SearchSpace, Table, Var, cost,
};

use super::candidate::Candidate;
use super::metric::{Better, LATENCY, Metric, MetricValue};
use super::quantity::Quantity;
use crate::error::Result;

/// Costs of a sub-network that are known without running it.
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
    /// Most bytes of activations that live at once, in f32 at batch 1.
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

    /// The value that is compared with a limit on `quantity`: the latency's upper value.
    pub fn of(&self, quantity: Quantity) -> f64 {
        match quantity {
            Quantity::Latency => self.latency_upper_us,
            Quantity::Macs => self.macs as f64,
            Quantity::Params => self.params as f64,
            Quantity::Memory => self.peak_activation_bytes as f64,
        }
    }

    /// The value of a quantity: for the latency expected and upper value, for the others the exact one.
    pub(crate) fn value(&self, quantity: Quantity) -> MetricValue {
        match quantity {
            Quantity::Latency => {
                MetricValue { high: Some(self.latency_upper_us), ..MetricValue::expected(self.latency_us) }
            }
            exact => MetricValue::exact(self.of(exact)),
        }
    }

    /// The values of all quantities.
    pub(crate) fn all(&self) -> [(Quantity, MetricValue); Quantity::ALL.len()] {
        Quantity::ALL.map(|quantity| (quantity, self.value(quantity)))
    }
}

impl Join for Costs {
    fn join(mut self, other: Self) -> Self {
        self.add(&other);
        self
    }
}

/// A value to minimize: that of each part of the costs, and the combination of two values.
struct Aim<'a> {
    /// Infinite for parts that must not be chosen.
    of: &'a dyn Fn(&Costs) -> f64,
    /// Monotonic in both arguments.
    together: fn(f64, f64) -> f64,
}

/// Costs of every layer in every slot of a space, with latencies or without.
#[derive(Clone, Debug)]
pub struct CostIndex {
    space: SearchSpace,
    /// Whether its terms give memory exactly; else they give a lower bound, and rows are priced by their layers.
    is_chain: bool,
    /// The costs that it reports, with the metrics' names.
    quantities: Vec<Quantity>,
    metrics: Vec<Metric>,
    costs: Factored<Costs>,
    /// The terms at each resolution.
    at_resolutions: Vec<Vec<Table<Costs>>>,
    elimination: Elimination,
}

/// A latency of a layer or of a sub-network, in microseconds.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub struct Microseconds {
    /// The expected value.
    pub expected: f64,
    /// The upper end of its interval, which is compared with limits.
    pub upper: f64,
}

/// A source of layers' latencies: a latency table, read for the searched space.
pub trait Latencies {
    /// The contribution of one layer.
    ///
    /// # Errors
    /// If it is not known.
    fn layer(&self, layer: &LayerSpec) -> Result<Microseconds>;

    /// The latency of every network in addition to its layers.
    fn constant(&self) -> Microseconds;
}

fn metric(quantity: Quantity) -> Metric {
    let unit = match quantity {
        Quantity::Latency => "us",
        Quantity::Macs | Quantity::Params => "1",
        Quantity::Memory => "B",
    };
    Metric::new(quantity.metric(), unit, Better::Lower)
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
    /// Looks up every layer of the space once. Without a source all latencies are 0, and none can be limited.
    ///
    /// # Errors
    /// An error of the latencies.
    pub fn new(space: &SearchSpace, latencies: Option<&dyn Latencies>) -> Result<Self> {
        let constant = latencies.map(Latencies::constant).unwrap_or_default();
        let constant =
            Costs { latency_us: constant.expected, latency_upper_us: constant.upper, ..Costs::default() };
        let index = space.index();
        let costs = index.factored(constant, |layer| layer_costs(layer, latencies))?;
        let at_resolutions: Vec<_> = space
            .genome()
            .allowed(RESOLUTION)
            .iter()
            .map(|value: &Index| -> Vec<Table<Costs>> {
                costs.terms().iter().map(|term| term.sliced(RESOLUTION as Var, *value)).collect()
            })
            .collect();
        let scopes = at_resolutions[0].iter().map(|term| term.vars.as_slice());
        let elimination = Elimination::new(space.genome(), scopes);
        let quantities: Vec<Quantity> = Quantity::ALL
            .into_iter()
            .filter(|quantity: &Quantity| *quantity != Quantity::Latency || latencies.is_some())
            .collect();
        let metrics = quantities.iter().map(|quantity| metric(*quantity)).collect();
        let space = space.clone();
        let is_chain = index.is_chain();
        Ok(Self { space, is_chain, quantities, metrics, costs, at_resolutions, elimination })
    }

    /// The same costs, with the latency named as that of one of several devices: `latency@NAME`.
    #[must_use]
    pub fn of_device(mut self, name: &str) -> Self {
        let latencies = self.metrics.iter_mut().zip(&self.quantities);
        for (metric, _) in latencies.filter(|(_, quantity)| **quantity == Quantity::Latency) {
            metric.name = format!("{LATENCY}@{name}");
        }
        self
    }

    /// The same costs without the metrics that every index of the space has: for all devices but the first.
    #[must_use]
    pub fn latency_alone(mut self) -> Self {
        self.quantities.retain(|quantity| *quantity == Quantity::Latency);
        self.metrics.retain(|metric| metric.name.starts_with(LATENCY));
        self
    }

    /// The name of its latency; `None` without a table.
    pub fn latency_name(&self) -> Option<&str> {
        let mut pairs = self.metrics.iter().zip(&self.quantities);
        pairs.find(|(_, quantity)| **quantity == Quantity::Latency).map(|(metric, _)| metric.name.as_str())
    }

    /// The metrics that it reports.
    pub fn metrics(&self) -> &[Metric] {
        &self.metrics
    }

    /// The quantities behind the metrics, in the same order.
    pub(super) fn quantities(&self) -> &[Quantity] {
        &self.quantities
    }

    /// A quantity's name in messages.
    pub(super) fn label(&self, quantity: Quantity) -> String {
        let named = self.metrics.iter().zip(&self.quantities).find(|(_, own)| **own == quantity);
        match named {
            Some((metric, Quantity::Latency)) => metric.name.clone(),
            _ => quantity.to_string(),
        }
    }

    /// The searched space.
    pub fn space(&self) -> &SearchSpace {
        &self.space
    }

    /// Whether it includes a latency table.
    pub fn has_latency(&self) -> bool {
        self.quantities.contains(&Quantity::Latency)
    }

    /// A sub-network with its expected metrics.
    pub fn candidate(&self, arch: Arch, accuracy: f32, costs: &Costs) -> Candidate {
        let mut candidate = Candidate::new(arch, accuracy, costs);
        if !self.has_latency() {
            candidate.values.remove(LATENCY);
        }
        candidate
    }

    /// The list of its sub-networks' choices.
    pub(super) fn genome(&self) -> &Genome {
        self.space.genome()
    }

    /// Number of resolutions.
    pub(super) fn resolutions(&self) -> usize {
        self.at_resolutions.len()
    }

    /// The costs of a sub-network; `None` if it is not in the space.
    pub fn costs(&self, arch: &Arch) -> Option<Costs> {
        Some(self.costs_of(&self.space.row(arch).ok()?))
    }

    /// The costs of a row.
    pub(super) fn costs_of(&self, row: &GeneRow) -> Costs {
        let mut costs = self.costs.of(row);
        if !self.is_chain {
            costs.peak_activation_bytes = cost(&self.space.lower_row(row)).peak_activation_bytes;
        }
        costs
    }

    /// The row as a starting point, from which steps are priced in quantities that are sums over layers: all but
    /// memory.
    pub(super) fn from(&self, row: &GeneRow) -> ChangesFrom<'_, Costs> {
        self.costs.from(row)
    }

    /// The sub-network with the least of a quantity, and its costs. Exact, except for the memory of networks that are
    /// no chains: there it is the least by the lower bound from single layers.
    pub fn least(&self, quantity: Quantity) -> (Arch, Costs) {
        let (row, costs) = self.least_row(quantity);
        (self.space.arch(&row), costs)
    }

    /// [`CostIndex::least`] as a row.
    pub(super) fn least_row(&self, quantity: Quantity) -> (Vec<Index>, Costs) {
        let all = (0..self.resolutions()).map(|resolution: usize| {
            let row = self.least_at(resolution, quantity);
            let costs = self.costs_of(&row);
            (row, costs)
        });
        let least = all.min_by(|a, b| a.1.of(quantity).total_cmp(&b.1.of(quantity)));
        least.expect("a checked space has a resolution")
    }

    /// The row with the least of a quantity at one resolution.
    pub(super) fn least_at(&self, resolution: usize, quantity: Quantity) -> Vec<Index> {
        let together: fn(f64, f64) -> f64 =
            if quantity == Quantity::Memory { f64::max } else { |sum, more| sum + more };
        self.least_by(resolution, &Aim { of: &|costs: &Costs| costs.of(quantity), together }).1
    }

    /// The least value of an aim at one resolution, exactly, and a row that has it.
    fn least_by(&self, resolution: usize, aim: &Aim<'_>) -> (f64, Vec<Index>) {
        let terms = self.at_resolutions[resolution].iter().map(|term| term.map(aim.of)).collect();
        self.least_of(resolution, terms, aim.together)
    }

    /// The terms over all genes.
    pub(super) fn terms(&self) -> &[Table<Costs>] {
        self.costs.terms()
    }

    /// The terms of one resolution; those of two indices of a space have the same genes, in the same order.
    pub(super) fn terms_at(&self, resolution: usize) -> &[Table<Costs>] {
        &self.at_resolutions[resolution]
    }

    /// The least of terms like [`CostIndex::terms_at`], exactly, and a row that has it.
    pub(super) fn least_of(
        &self,
        resolution: usize,
        terms: Vec<Table<f64>>,
        together: fn(f64, f64) -> f64,
    ) -> (f64, Vec<Index>) {
        let (least, mut row) = self.elimination.least(terms, together);
        row[RESOLUTION] = self.genome().allowed(RESOLUTION)[resolution];
        self.genome().make_canonical(&mut row);
        (least, row)
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
                let latency = model.network(&layers).expect("covered");
                let exact = cost(&layers);
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
        let device = table.device.clone();
        let engine = table.engine.clone();
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
