//! Whole sub-networks against what a table expects of them.

use std::collections::BTreeMap;
use std::sync::atomic::AtomicBool;

use supernet::space::{Arch, SearchSpace};

use super::correction::Correction;
use super::engine::{Engine, Stopwatch};
use super::fitted::{NetworkRow, network_rows};
use super::fold::{fold, network_times};
use super::measure::{Instruments, MeasureConfig, Progress, measure};
use super::rows::{RowsLog, Setting, Subject};
use super::table::LatencyTable;
use crate::error::Result;

/// What came of a comparison.
#[derive(Clone, Debug, PartialEq)]
pub struct Compared {
    /// The sub-networks, by rising sum of their layers.
    pub networks: Vec<NetworkRow>,
    /// Whether `stop` ended it.
    pub interrupted: bool,
}

/// Measures whole sub-networks, twice each, some time apart, at the machine's speed at the time of the table. One for
/// which the budget did not suffice is left out.
///
/// # Errors
/// If the table is of another device or engine or lacks a layer, or the engine fails.
pub fn compare(
    (table, space): (&LatencyTable, &SearchSpace),
    archs: &[Arch],
    (engine, stopwatch): (&dyn Engine, &mut dyn Stopwatch),
    config: &MeasureConfig,
    progress: &mut dyn FnMut(Progress<'_>),
    stop: &AtomicBool,
) -> Result<Compared> {
    let device = table.device.clone();
    table.check_same_setting(&device, &engine.describe())?;
    let mut sentinel = engine.sentinel()?;
    let config = MeasureConfig { reference_us: table.reference_us(sentinel.name()), ..config.for_networks() };
    let (engine_facts, protocol) = (engine.describe(), config.describe());
    let setting = Setting {
        device,
        engine: engine_facts,
        protocol,
        sentinel: sentinel.name().to_string(),
        plan: String::new(),
    };
    let mut log = RowsLog::in_memory(setting);
    let mut interrupted = false;
    for pass in [1, 2] {
        let mut subjects = BTreeMap::new();
        for arch in archs {
            subjects.insert(Subject::Network(arch.clone(), pass), space.lower(arch)?);
        }
        let instruments =
            Instruments { engine, stopwatch: &mut *stopwatch, sentinel: &mut || sentinel.run() };
        let measured = measure(&subjects, instruments, &config, &mut log, progress, stop)?;
        interrupted |= measured.interrupted;
    }
    let correction = table.fit_of(space).map_or(Correction::NONE, |fit| fit.correction);
    let times = network_times(&fold(log.rows(), config.reference_us));
    let networks = network_rows(space, table.rows(), &times, &correction)?;
    Ok(Compared { networks, interrupted })
}
