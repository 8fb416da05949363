//! A plan carried out: first the layers, then whole sub-networks, spread over latencies, in two passes apart in time.

use std::collections::BTreeMap;
use std::sync::atomic::AtomicBool;
use std::time::Duration;

use supernet::space::{Arch, LayerSpec};

use super::candidates::stratified;
use super::device::DeviceFacts;
use super::engine::{Engine, Stopwatch};
use super::fold::{fold, layer_rows};
use super::measure::{Instruments, Measured, Progress, measure};
use super::plan_file::Plan;
use super::rows::{Rows, RowsLog, SEARCHED, SEARCHED_AGAIN, Setting, Subject};
use crate::error::Result;

/// How far a plan was carried out.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Campaign {
    /// Layers that were not visited yet.
    pub unmeasured_layers: usize,
    /// Sub-networks of which the budget did not suffice for two passes.
    pub unmeasured_networks: usize,
    /// Layers and sub-networks that are not known as well as was asked for, because the budget was spent.
    pub unfinished: usize,
    /// Time that was measured.
    pub spent: Duration,
    /// Whether `stop` ended it.
    pub interrupted: bool,
}

impl Plan {
    /// What the rows of this plan say at their beginning.
    pub fn setting(&self, device: &DeviceFacts, engine: &dyn Engine) -> Setting {
        let (device, engine, sentinel) = (device.clone(), engine.describe(), self.sentinel.clone());
        Setting { device, engine, protocol: self.config().describe(), sentinel, plan: self.id() }
    }
}

/// Measures what a plan lists and the log does not hold yet. Once sub-networks that were searched for are in the log, a
/// plan has been carried out.
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
    let mut campaign = Campaign::default();
    let before = log.rows().before(is_searched);
    if before.records.len() < log.rows().records.len() {
        return Ok(campaign);
    }
    let mut sentinel = engine.sentinel()?;
    let mut config = plan.config();
    let mut measured = |subjects: &_, config: &_, log: &mut _| -> Result<Measured> {
        let instruments =
            Instruments { engine, stopwatch: &mut *stopwatch, sentinel: &mut || sentinel.run() };
        measure(subjects, instruments, config, log, progress, stop)
    };
    let of_layers = measured(&layers(plan), &config, log)?;
    campaign.add(&of_layers);
    campaign.unmeasured_layers = of_layers.unmeasured.len();
    if campaign.interrupted || campaign.unmeasured_layers > 0 {
        return Ok(campaign);
    }
    let chosen = chosen(plan, log.rows());
    for pass in [1, 2] {
        config.budget = plan.budget.saturating_sub(campaign.spent);
        let of_networks = measured(&networks(plan, &chosen, pass)?, &config.for_networks(), log)?;
        campaign.add(&of_networks);
        campaign.unmeasured_networks = campaign.unmeasured_networks.max(of_networks.unmeasured.len());
        if campaign.interrupted {
            break;
        }
    }
    Ok(campaign)
}

impl Campaign {
    fn add(&mut self, measured: &Measured) {
        self.unfinished += measured.unfinished;
        self.spent += measured.spent;
        self.interrupted |= measured.interrupted;
    }
}

/// Whether it is a sub-network that was searched for a limit.
pub fn is_searched(subject: &Subject) -> bool {
    matches!(subject, Subject::Network(_, SEARCHED | SEARCHED_AGAIN))
}

type Subjects = BTreeMap<Subject, Vec<LayerSpec>>;

fn layers(plan: &Plan) -> Subjects {
    let layers = plan.layers.iter().filter(|(_, layer)| layer.known_us.is_none());
    layers.map(|(key, layer)| (Subject::Layer(key.clone()), vec![layer.spec.clone()])).collect()
}

fn networks(plan: &Plan, chosen: &[Arch], pass: u8) -> Result<Subjects> {
    let network =
        |arch: &Arch| Ok((Subject::Network(arch.clone(), pass), plan.network(&plan.candidates[arch])?));
    chosen.iter().map(network).collect()
}

/// The sub-networks to measure: decided by what was known of the layers when the first of them was measured, so that
/// it is the same after a kill.
fn chosen(plan: &Plan, rows: &Rows) -> Vec<Arch> {
    let before = rows.before(|subject| matches!(subject, Subject::Network(..)));
    let measured = layer_rows(&fold(&before, plan.reference_us), plan.half_width);
    let time = |key: &String| plan.layers[key].known_us.or_else(|| Some(measured.get(key)?.median_us));
    let sum = |(arch, keys): (&Arch, &Vec<String>)| {
        Some((arch.clone(), keys.iter().map(time).sum::<Option<f64>>()?))
    };
    stratified(&plan.candidates.iter().filter_map(sum).collect::<Vec<_>>(), plan.networks)
}
