//! Compares whole sub-networks with a table's predictions, some time after it was measured.

use std::sync::atomic::AtomicBool;

use latency::correction::Correction;
use latency::fitted::predicted;
use latency::{
    Conditions, Folded, LatencyTable, NetworkRow, Record, RowsLog, Session, Setting, SpaceFit, Subject,
};
use space::{Arch, SearchSpace};

use super::campaign::MeasureContext;
use super::engine::Engine;
use super::measure::{MeasureConfig, MeasureTask, Progress, Subjects};
use crate::error::Result;

/// The sub-networks to compare with a table.
#[derive(Clone, Copy)]
pub struct Comparison<'a> {
    /// The table that predicts.
    pub table: &'a LatencyTable,
    /// The space of the sub-networks.
    pub space: &'a SearchSpace,
    /// The sub-networks, which are measured whole.
    pub archs: &'a [Arch],
    /// The protocol's settings; the sentinel's fast time is the table's.
    pub config: &'a MeasureConfig,
}

/// The result of a comparison.
pub struct Compared {
    /// The sub-networks and what they took now, by rising sum of their layers.
    pub networks: Vec<NetworkRow>,
    /// Whether the machine was met undisturbed.
    pub met: bool,
    /// The samples: a session that can be added to the table.
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
    comparison: &Comparison<'_>,
    session: Session,
    bench: &mut MeasureContext<'_>,
    progress: &mut dyn FnMut(Progress<'_>),
    stop: &AtomicBool,
) -> Result<Compared> {
    let Comparison { table, space, archs, config } = *comparison;
    let device = table.device.clone();
    let engine = bench.engine.describe();
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
    let task = MeasureTask { subjects: &subjects, space: Some(&fingerprint), config: &config };
    let measured = bench.measure(task, &mut log, progress, stop)?;
    let (networks, met) = compared(comparison, &log)?;
    Ok(Compared { networks, met, log, interrupted: measured.interrupted })
}

/// Measures one whole sub-network with the engine's own clock, next to the table's prediction.
///
/// # Errors
/// As [`compare`], or if the budget was spent before it was visited.
pub fn measure_network(
    table: &LatencyTable,
    space: &SearchSpace,
    arch: &Arch,
    engine: &dyn Engine,
    config: &MeasureConfig,
) -> Result<NetworkRow> {
    let comparison = Comparison { table, space, archs: std::slice::from_ref(arch), config };
    let mut stopwatch = engine.stopwatch();
    let mut bench = MeasureContext { engine, stopwatch: &mut *stopwatch, conditions: Conditions::now };
    let never = AtomicBool::new(false);
    let compared = compare(&comparison, Session::default(), &mut bench, &mut |_| (), &never)?;
    compared.networks.into_iter().next().ok_or_else(|| {
        let error = base::Error::invalid("measuring", arch, "a visit within the budget", "none");
        error.and_then_do("give it a longer budget").into()
    })
}

/// The sub-networks of the log, and whether its session met the fast state.
fn compared(comparison: &Comparison<'_>, log: &RowsLog) -> Result<(Vec<NetworkRow>, bool)> {
    let Comparison { table, space, config: &MeasureConfig { half_width, .. }, .. } = *comparison;
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
