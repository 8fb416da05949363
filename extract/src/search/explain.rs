//! Why a search chose its sub-network: what every other choice would give and cost, where the time goes, what relaxed limits
//! would buy, and what rules the largest one out.

use std::collections::BTreeMap;
use std::sync::atomic::AtomicBool;

use latency::{LatencyKind, LatencyModel, LatencyTable};
use search::{
    AccuracySearch, Better, Candidate, CostIndex, Estimator, Fidelity, GeneRows, Limits, Metric, MetricValue,
    SearchConfig, Solution, TOP1,
};
use serde::Serialize;
use space::{Arch, SearchSpace, Steps, sampler};

use super::found::{Found, MetricForm};
use super::validation::expect;
use crate::accuracy::AccuracyEstimator;
use crate::error::Result;

/// What the explanation of a found sub-network needs.
#[derive(Clone, Copy)]
pub struct Explaining<'a> {
    /// The result of the search.
    pub found: &'a Found,
    /// Its space.
    pub space: &'a SearchSpace,
    /// Predicts accuracies.
    pub estimator: &'a AccuracyEstimator,
    /// Costs of sub-networks.
    pub index: &'a CostIndex,
    /// Latencies on further devices, named.
    pub devices: &'a [CostIndex],
    /// The latency tables, with the metrics of their latencies.
    pub tables: &'a [(String, &'a LatencyTable)],
    /// The kind of latency.
    pub kind: LatencyKind,
    /// Ends the searches with relaxed limits when set.
    pub stop: &'a AtomicBool,
}

/// Why a search chose its sub-network.
#[derive(Clone, Debug, Serialize)]
pub struct Explanation {
    /// The sub-network, as the estimator and the tables see it.
    pub best: Seen,
    /// What another choice would give and cost, in the order of the choices.
    pub choices: Vec<Alternative>,
    /// The layers' latencies on each device.
    pub layers: Vec<DeviceLayers>,
    /// The neighbors on the front: the next faster and the next more accurate one.
    pub nearest: Vec<Seen>,
    /// What the search finds with one limit relaxed; empty for another goal than the accuracy.
    pub relaxed: Vec<Relaxed>,
    /// The largest sub-network, and the limits that it breaks.
    pub largest: Broken,
}

/// A sub-network with its expected metrics.
#[derive(Clone, Debug, Serialize)]
pub struct Seen {
    /// The sub-network.
    pub arch: Arch,
    /// The expected values by metric.
    pub metrics: BTreeMap<String, Expected>,
}

/// An expected value.
#[derive(Clone, Copy, Debug, Serialize)]
pub struct Expected {
    /// The value.
    pub mean: f64,
    /// The lower end of its interval, if known.
    pub low: Option<f64>,
    /// The upper end of its interval, if known.
    pub high: Option<f64>,
    /// The value less that of the explained sub-network.
    pub difference: f64,
}

/// What another choice would give and cost.
#[derive(Clone, Debug, Serialize)]
pub struct Alternative {
    /// The choices that differ: what they are, the value in the explained sub-network and here; absent ones have none.
    pub changes: Vec<ChoiceChange>,
    /// The sub-network with them.
    #[serde(flatten)]
    pub seen: Seen,
    /// The limits that it breaks; empty if it keeps all.
    pub breaks: Vec<String>,
}

/// A choice that differs.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct ChoiceChange {
    /// The choice in words.
    pub choice: String,
    /// Its value in the first sub-network; `None` where it is absent.
    pub from: Option<String>,
    /// Its value in the second one.
    pub to: Option<String>,
}

/// Layers' latencies on a device.
#[derive(Clone, Debug, Serialize)]
pub struct DeviceLayers {
    /// The metric of the latency.
    pub metric: String,
    /// Microseconds of each layer, in order.
    pub layers: Vec<LayerTime>,
    /// Microseconds of every network in addition to its layers.
    pub constant_us: f64,
}

/// A layer's latency.
#[derive(Clone, Debug, Serialize)]
pub struct LayerTime {
    /// The layer's key, as in latency tables.
    pub layer: String,
    /// Microseconds.
    pub us: f64,
}

/// What the search finds with a relaxed limit.
#[derive(Clone, Debug, Serialize)]
pub struct Relaxed {
    /// The metric of the limit.
    pub metric: String,
    /// The relaxed limit, in the metric's unit.
    pub limit: f64,
    /// The limit as a multiple of the search's.
    pub factor: f64,
    /// What is found then.
    #[serde(flatten)]
    pub seen: Seen,
}

/// A sub-network and the limits that it breaks.
#[derive(Clone, Debug, Serialize)]
pub struct Broken {
    /// The sub-network.
    #[serde(flatten)]
    pub seen: Seen,
    /// The metrics whose limits it breaks.
    pub breaks: Vec<String>,
}

/// Factors of relaxed limits.
const FACTORS: [f64; 2] = [1.1, 1.25];

impl Explaining<'_> {
    /// Explains the best sub-network of the search; `None` if `stop` was set first.
    ///
    /// # Errors
    /// If it is not of the space, a table lacks a layer, or as the search itself.
    pub fn explain(&self) -> Result<Option<Explanation>> {
        let best = self.candidate(&self.found.best.arch)?;
        let largest = self.candidate(&sampler::largest(self.space))?;
        let Some(relaxed) = self.relaxed(&best)? else { return Ok(None) };
        Ok(Some(Explanation {
            choices: self.choices(&best)?,
            layers: self.layers(&best.arch)?,
            nearest: self.nearest(&best)?,
            relaxed,
            largest: Broken { breaks: self.broken(&largest), seen: seen(&largest, &best) },
            best: seen(&best, &best),
        }))
    }

    /// A sub-network with its expected accuracy and its costs.
    fn candidate(&self, arch: &Arch) -> Result<Candidate> {
        let row = self.space.row(arch)?;
        let accuracy = f64::from(self.estimator.predict(std::slice::from_ref(arch))?[0]);
        let mut values = BTreeMap::from([(TOP1.to_string(), MetricValue::expected(accuracy))]);
        let mut rows = GeneRows::new(row.len());
        rows.push(&row);
        for index in std::iter::once(self.index).chain(self.devices) {
            let costs = index.estimate(&rows, Fidelity::FULL, self.stop)?;
            let names = index.metrics().iter().map(|metric| metric.name.clone());
            values.extend(names.zip(costs));
        }
        let mut candidate = Solution { row, values }.candidate(self.space);
        expect(&mut candidate, self.estimator, 0.0);
        Ok(candidate)
    }

    /// The metrics whose limits a sub-network breaks.
    fn broken(&self, candidate: &Candidate) -> Vec<String> {
        let broken = self.found.limits.iter().filter(|(name, limit)| {
            let form = MetricForm::of(name);
            let metric = Metric::new(*name, &form.unit, form.better);
            candidate.values.get(*name).is_some_and(|value| !metric.keeps(value, *limit))
        });
        let accurate = Metric::new(TOP1, "share", Better::Higher);
        let inaccurate = self.found.min_top1.zip(candidate.values.get(TOP1));
        let inaccurate = inaccurate.filter(|(least, value)| !accurate.keeps(value, *least));
        let mut broken: Vec<String> = broken.map(|(name, _)| name.to_string()).collect();
        if inaccurate.is_some() && !broken.iter().any(|name| name == TOP1) {
            broken.push(TOP1.to_string());
        }
        broken
    }

    fn choices(&self, best: &Candidate) -> Result<Vec<Alternative>> {
        let genome = self.space.genome();
        let row = self.space.row(&best.arch)?;
        let mut steps = Steps::default();
        genome.steps(&row, |_| true, &mut steps);
        let mut alternatives = Vec::with_capacity(steps.steps.len());
        for step in &steps.steps {
            let mut next = row.clone();
            steps.apply(genome, *step, &mut next);
            let candidate = self.candidate(&self.space.arch(&next))?;
            alternatives.push(Alternative {
                changes: changes(self.space, &best.arch, &candidate.arch)?,
                breaks: self.broken(&candidate),
                seen: seen(&candidate, best),
            });
        }
        Ok(alternatives)
    }

    fn layers(&self, arch: &Arch) -> Result<Vec<DeviceLayers>> {
        let layers = self.space.lower(arch)?;
        let mut devices = Vec::with_capacity(self.tables.len());
        for (metric, table) in self.tables {
            let model = LatencyModel::of_kind(table, self.space, self.kind);
            let mut times = Vec::with_capacity(layers.len());
            for layer in &layers {
                times.push(LayerTime { layer: layer.key(), us: model.layer(layer)?.us });
            }
            let constant_us = model.constant().us;
            devices.push(DeviceLayers { metric: metric.clone(), layers: times, constant_us });
        }
        Ok(devices)
    }

    fn nearest(&self, best: &Candidate) -> Result<Vec<Seen>> {
        let front = &self.found.front;
        // latencies of the file, whatever tables there are now
        let own = self.found.best.latency_ms();
        let slower = front.partition_point(|other| other.latency_ms() < own);
        let faster = slower.checked_sub(1).map(|place| &front[place]);
        let slower = front[slower..].iter().find(|other| other.arch != best.arch);
        let near = faster.into_iter().chain(slower);
        near.map(|other| Ok(seen(&self.candidate(&other.arch)?, best))).collect()
    }

    /// What relaxed limits on costs give; `None` if it was stopped.
    fn relaxed(&self, best: &Candidate) -> Result<Option<Vec<Relaxed>>> {
        let mut relaxed = Vec::new();
        if self.found.goal.is_some() {
            return Ok(Some(relaxed));
        }
        let costs = || self.found.limits.iter().filter(|(name, _)| *name != TOP1);
        for (metric, limit) in costs() {
            for factor in FACTORS {
                let limits: Limits = costs().map(|(name, limit)| (name.to_string(), limit)).collect();
                let limits = limits.and(metric, factor * limit);
                let config =
                    SearchConfig { seed: self.found.seed, front_limits: 0, ..SearchConfig::default() };
                let search = AccuracySearch {
                    index: self.index,
                    devices: self.devices,
                    objective: self.estimator,
                    limits: &limits,
                    config: &config,
                    strategy: None,
                    cheapest: None,
                    stop: self.stop,
                };
                let report = search.run(&mut ()).map_err(crate::Error::from)?;
                if report.interrupted {
                    return Ok(None);
                }
                let seen = seen(&self.candidate(&report.best.arch)?, best);
                relaxed.push(Relaxed { metric: metric.to_string(), limit: factor * limit, factor, seen });
            }
        }
        Ok(Some(relaxed))
    }
}

fn seen(candidate: &Candidate, best: &Candidate) -> Seen {
    let metrics = candidate.values.iter().map(|(name, value)| {
        let difference = value.mean - best.mean(name).unwrap_or(value.mean);
        (name.clone(), Expected { mean: value.mean, low: value.low, high: value.high, difference })
    });
    Seen { arch: candidate.arch.clone(), metrics: metrics.collect() }
}

/// The choices in which a sub-network differs from another, in their order.
///
/// # Errors
/// If one is not of the space.
pub fn changes(space: &SearchSpace, from: &Arch, to: &Arch) -> Result<Vec<ChoiceChange>> {
    let rows = [space.row(from)?, space.row(to)?];
    let genome = space.genome();
    let mut changes = Vec::new();
    for (at, gene) in genome.genes().iter().enumerate() {
        let [from, to] = [&rows[0], &rows[1]].map(|row| genome.value(row, at).map(|value| value.to_string()));
        if from != to {
            changes.push(ChoiceChange { choice: gene.words(), from, to });
        }
    }
    Ok(changes)
}
