//! A plan carried out: first the layers, then whole sub-networks, spread over latencies, in two passes apart in time.

use std::collections::BTreeMap;
use std::sync::atomic::AtomicBool;
use std::time::Duration;

use supernet::space::Arch;

use super::device::DeviceFacts;
use super::engine::{Engine, Stopwatch};
use super::fold::{fold, layer_rows};
use super::measure::{Instruments, Measured, Progress, measure};
use super::plan_file::{Plan, stratified};
use super::rows::{Record, Rows, RowsLog, Setting, Subject};
use super::sentinel::Sentinel;
use crate::error::Result;

/// How far a plan was carried out.
#[derive(Clone, Debug, PartialEq)]
pub struct Campaign {
    /// Layers that were not visited yet.
    pub unmeasured_layers: usize,
    /// Sub-networks of which the budget did not suffice for two passes.
    pub unmeasured_networks: usize,
    /// Time that was measured.
    pub spent: Duration,
    /// Whether `stop` ended it.
    pub interrupted: bool,
}

impl Plan {
    /// What the rows of this plan say at their beginning.
    pub fn setting(&self, device: &DeviceFacts, engine: &dyn Engine) -> Setting {
        let (device, engine, sentinel) = (device.clone(), engine.describe(), self.sentinel.clone());
        Setting { device, engine, protocol: self.config().describe(), sentinel }
    }
}

/// Measures what a plan lists and the log does not hold yet.
///
/// # Errors
/// Passes on what the engine and the log say.
pub fn carry_out(
    plan: &Plan,
    (engine, stopwatch): (&dyn Engine, &mut dyn Stopwatch),
    log: &mut RowsLog,
    progress: &mut dyn FnMut(Progress<'_>),
    stop: &AtomicBool,
) -> Result<Campaign> {
    let mut sentinel = Sentinel::new();
    let mut config = plan.config();
    let layers = plan.layers.iter().filter(|(_, layer)| layer.known_us.is_none());
    let layers = layers.map(|(key, layer)| (Subject::Layer(key.clone()), vec![layer.spec.clone()])).collect();
    let mut campaign =
        Campaign { unmeasured_layers: 0, unmeasured_networks: 0, spent: Duration::ZERO, interrupted: false };
    let mut measured = |subjects: &_, config: &_, log: &mut _| -> Result<Measured> {
        let instruments =
            Instruments { engine, stopwatch: &mut *stopwatch, sentinel: &mut || sentinel.run() };
        measure(subjects, instruments, config, log, progress, stop)
    };
    let of_layers = measured(&layers, &config, log)?;
    (campaign.spent, campaign.interrupted) = (of_layers.spent, of_layers.interrupted);
    campaign.unmeasured_layers = of_layers.unmeasured.len();
    if campaign.interrupted || campaign.unmeasured_layers > 0 {
        return Ok(campaign);
    }
    let chosen = chosen(plan, log.rows());
    for pass in [1, 2] {
        config.budget = plan.budget.saturating_sub(campaign.spent);
        let mut subjects = BTreeMap::new();
        for arch in &chosen {
            subjects.insert(Subject::Network(arch.clone(), pass), plan.network(&plan.candidates[arch])?);
        }
        let of_networks = measured(&subjects, &config.for_networks(), log)?;
        campaign.spent += of_networks.spent;
        campaign.interrupted |= of_networks.interrupted;
        campaign.unmeasured_networks = of_networks.unmeasured.len();
        if campaign.interrupted {
            break;
        }
    }
    Ok(campaign)
}

/// The sub-networks to measure: decided by what was known of the layers when the first of them was measured, so that
/// it is the same after a kill.
fn chosen(plan: &Plan, rows: &Rows) -> Vec<Arch> {
    let is_network = |record: &Record| matches!(record, Record::Visit(visit) if matches!(visit.subject, Subject::Network(..)));
    let until = rows.records.iter().position(is_network).unwrap_or(rows.records.len());
    let before = Rows { setting: rows.setting.clone(), records: rows.records[..until].to_vec() };
    let measured = layer_rows(&fold(&before, plan.reference_us), plan.half_width);
    let time = |key: &String| plan.layers[key].known_us.or_else(|| Some(measured.get(key)?.median_us));
    let sum = |(arch, keys): (&Arch, &Vec<String>)| {
        Some((arch.clone(), keys.iter().map(time).sum::<Option<f64>>()?))
    };
    stratified(&plan.candidates.iter().filter_map(sum).collect::<Vec<_>>(), plan.networks)
}
