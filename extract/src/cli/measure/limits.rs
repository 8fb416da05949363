//! Searches sub-networks for latency limits: some set the margin, others judge it.

use std::collections::BTreeSet;
use std::time::Duration;

use extract::accuracy::AccuracyEstimator;
use extract::latency::fitted::Part;
use extract::latency::{
    Folded, LatencyKind, LatencyTable, MeasureConfig, MeasureContext, MeasureTask, RowsLog,
};
use extract::search::{
    LimitPlan, LimitTrial, Objective, SyntheticObjective, cost_index, promised, searched, subjects,
};
use space::Arch;
use tracing::info;

use super::here::Here;
use crate::cli::engine::show;

/// Sub-networks for each limit in each of two rounds.
const EACH: usize = 5;
/// Objectives that are tried for them: many find the same.
const OBJECTIVES: u64 = 60;
/// Seconds for each sub-network.
const SECONDS_EACH: f64 = 0.6;

/// The time spent, and whether all was measured.
pub struct Searched {
    pub spent: Duration,
    pub interrupted: bool,
}

/// Searches for limits and measures what is found, in two rounds: the first sets the upper end of intervals, the second
/// judges it. No sub-network judges that had a part in anything before.
pub fn search_limits(
    here: &Here<'_>,
    table: &mut LatencyTable,
    before: Duration,
    bench: &mut MeasureContext<'_>,
    log: &mut RowsLog,
) -> anyhow::Result<Searched> {
    let mut all = Searched { spent: Duration::ZERO, interrupted: false };
    if table.fit_of(here.space).is_none() {
        info!("--limits: too few sub-networks were measured to search for limits");
        return Ok(all);
    }
    for (round, part) in [Part::Fit, Part::Check].into_iter().enumerate() {
        let found = found(here, table, round as u64)?;
        let index = cost_index(here.space, table, LatencyKind::Undisturbed)?;
        let subjects = subjects(&index, &found)?;
        let left = here.plan.budget.saturating_sub(before + all.spent);
        let budget = left.max(Duration::from_secs_f64(SECONDS_EACH * found.len() as f64));
        let config = MeasureConfig { budget, spread: 0.0, ..here.plan.config() };
        let bar = here.output.plain_bar(found.len() as u64);
        let fingerprint = here.plan.fingerprint.as_str();
        let task = MeasureTask { subjects: &subjects, space: Some(fingerprint), config: &config };
        let measured = bench.measure(task, log, &mut |progress| show(&bar, &progress), here.stop)?;
        bar.finish_and_clear();
        if measured.unaccepted > 0 {
            let lost = measured.unaccepted;
            info!("{lost} of {} searched sub-networks do not count", found.len());
        }
        all.spent += measured.spent;
        all.interrupted |= measured.interrupted;
        enter(here, table, &found, part, log)?;
        if all.interrupted {
            break;
        }
    }
    Ok(all)
}

/// Adds the searched sub-networks to the table. Their session is the one that was added already, and holds more now.
fn enter(
    here: &Here<'_>,
    table: &mut LatencyTable,
    found: &[LimitTrial],
    part: Part,
    log: &RowsLog,
) -> anyhow::Result<()> {
    let folded = Folded::new(log.rows(), here.plan.kept_us, here.plan.half_width);
    let rows = searched(found, part, &folded);
    let networks: BTreeSet<Arch> = here.plan.networks.keys().cloned().collect();
    table.add_rows(log.rows(), Some(here.space), Some(&networks))?;
    if let Some(mut fit) = table.fit_of(here.space).cloned() {
        fit.searched.retain(|row: &extract::latency::SearchedRow| {
            !rows.iter().any(|new| new.arch == row.arch && new.part == row.part)
        });
        fit.searched.extend(rows);
        table.set_fit(here.space, fit);
        table.refit()?;
    }
    Ok(())
}

/// The sub-networks that searches find for the limits, with other objectives in each round.
fn found(here: &Here<'_>, table: &LatencyTable, round: u64) -> anyhow::Result<Vec<LimitTrial>> {
    let estimator = here.arguments.estimator.as_deref().map(AccuracyEstimator::read).transpose()?;
    let seeds = OBJECTIVES * round..OBJECTIVES * (round + 1);
    let synthetic: Vec<_> = seeds.map(|seed| SyntheticObjective::new(here.space, seed)).collect();
    // one estimator finds the same again and again, so that synthetic ones keep it company
    let own = estimator.iter().map(|estimator| estimator as &dyn Objective);
    let others = synthetic.iter().map(|objective| objective as &dyn Objective);
    let objectives: Vec<&dyn Objective> = own.chain(others).collect();
    let index = cost_index(here.space, table, LatencyKind::Undisturbed)?;
    let of_table = table.fit_of(here.space).map(|fit| fit.spent().into_iter().cloned().collect());
    let mut spent: BTreeSet<Arch> = of_table.unwrap_or_default();
    if let Some(fit) = table.fit_of(here.space) {
        spent.extend(fit.searched.iter().map(|row| row.arch.clone()));
    }
    let limits = here.arguments.limits as usize;
    let seed = here.arguments.seed.wrapping_add(round);
    let plan = LimitPlan { limits, each: EACH, spent: &spent, seed };
    Ok(promised(&index, &objectives, &plan, here.stop)?)
}
