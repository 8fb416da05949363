//! Whole sub-networks against what a table predicts for them, some time after it was made.

use std::sync::atomic::AtomicBool;

use latency::correction::Correction;
use latency::fitted::predicted;
use latency::{Folded, LatencyTable, NetworkRow, Record, RowsLog, Session, Setting, SpaceFit, Subject};
use space::{Arch, SearchSpace};

use super::campaign::Bench;
use super::measure::{MeasureConfig, Progress, Subjects};
use crate::error::Result;

/// What came of a comparison.
pub struct Compared {
    /// The sub-networks and what they took now, by rising sum of their layers.
    pub networks: Vec<NetworkRow>,
    /// Whether the machine was met undisturbed.
    pub met: bool,
    /// What was sampled: a session that can be added to the table.
    pub log: RowsLog,
    /// Whether `stop` ended it.
    pub interrupted: bool,
}

/// Measures whole sub-networks, and compares them with the table as it is. One for which the budget did not suffice is left
/// out.
///
/// # Errors
/// If the table is of another device or engine or lacks a layer, or the engine fails.
pub fn compare(
    (table, space): (&LatencyTable, &SearchSpace),
    archs: &[Arch],
    bench: &mut Bench<'_>,
    (config, session): (&MeasureConfig, Session),
    progress: &mut dyn FnMut(Progress<'_>),
    stop: &AtomicBool,
) -> Result<Compared> {
    let (device, engine) = (table.device.clone(), bench.engine.describe());
    table.check_same_setting(&device, &engine)?;
    let sentinel = bench.engine.sentinel()?.name().to_string();
    let config = MeasureConfig { kept_us: table.kept_us(&sentinel), ..config.clone() };
    let protocol = config.describe();
    let mut log = RowsLog::in_memory(Setting { device, engine, protocol, sentinel, plan: String::new() });
    log.push(Record::Session(session))?;
    let mut subjects = Subjects::new();
    for arch in archs {
        subjects.insert(Subject::Network(arch.clone()), space.lower(arch)?);
    }
    let fingerprint = space.fingerprint_at_any_resolution();
    let measured = bench.measure((&subjects, Some(&fingerprint)), &config, &mut log, progress, stop)?;
    let (networks, met) = compared((table, space), &log, config.half_width)?;
    Ok(Compared { networks, met, log, interrupted: measured.interrupted })
}

/// The sub-networks of the log, and whether its session met the fast state.
fn compared(
    (table, space): (&LatencyTable, &SearchSpace),
    log: &RowsLog,
    half_width: f64,
) -> Result<(Vec<NetworkRow>, bool)> {
    let correction = table.fit_of(space).map_or(Correction::NONE, |fit| fit.correction);
    let folded = Folded::new(log.rows(), table.kept_us(&log.rows().setting.sentinel), half_width);
    let mut fit = SpaceFit::empty(space);
    for (subject, sessions) in &folded.measured {
        if let (Subject::Network(arch), Some(took)) = (subject, folded.row(subject)) {
            sessions.iter().for_each(|one| fit.add(arch, one.clone()));
            let network = fit.networks.last_mut().expect("just added");
            let (sum_us, predicted_us) = predicted(space, table.rows(), arch, &correction)?;
            (network.sum_us, network.predicted_us, network.took) = (sum_us, predicted_us, took);
        }
    }
    fit.networks.sort_by(|a, b| a.sum_us.total_cmp(&b.sum_us).then_with(|| a.arch.cmp(&b.arch)));
    Ok((fit.networks, !folded.comparable.is_empty()))
}
