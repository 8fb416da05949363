//! Checks that latency limits hold, by measuring sub-networks that searches find for them.
//!
//! A search favors sub-networks whose latency the table underestimates, so the predictions for its results
//! are less accurate than those for random sub-networks.

use std::collections::BTreeSet;
use std::sync::atomic::{AtomicBool, Ordering};

use latency::fitted::Part;
use latency::{Folded, SearchedRow, Subject};
use search::{CostIndex, LATENCY, Limits, Objective, Quantity, SearchConfig, climb};
use space::{Arch, sampler};

use crate::error::Result;
use crate::latency::Subjects;

/// A sub-network that was found for a limit.
#[derive(Clone, Debug, PartialEq)]
pub struct LimitTrial {
    /// The limit, in microseconds.
    pub limit_us: f64,
    /// The sub-network.
    pub arch: Arch,
    /// The predicted latency, in microseconds.
    pub predicted_us: f64,
}

/// Candidates of each search; with more, the results differ little.
const CANDIDATES: usize = 6000;

/// The number of limits and trials, and the sub-networks to leave out.
pub struct LimitPlan<'a> {
    /// Latency limits, evenly spread between the least latency and the largest sub-network's.
    pub limits: usize,
    /// Sub-networks for each limit, all distinct.
    pub each: usize,
    /// Sub-networks that had a part in the prediction.
    pub spent: &'a BTreeSet<Arch>,
    /// Decides the searches' random choices.
    pub seed: u64,
}

/// Searches for latency limits with one objective after the other, until there are enough sub-networks for each limit;
/// fewer if the objectives find no others.
///
/// # Errors
/// As [`climb`].
pub fn promised(
    index: &CostIndex,
    objectives: &[&dyn Objective],
    plan: &LimitPlan<'_>,
    stop: &AtomicBool,
) -> Result<Vec<LimitTrial>> {
    let least = index.least(Quantity::Latency).1.latency_upper_us;
    let largest = index.costs(&sampler::largest(index.space())).expect("of the space").latency_upper_us;
    let mut found = Vec::new();
    let mut seen = plan.spent.clone();
    for step in 0..plan.limits {
        let limit_us = least + (largest - least) * (step as f64 + 0.5) / plan.limits as f64;
        let limits = Limits::on(LATENCY, limit_us);
        let mut left = plan.each;
        for (number, objective) in objectives.iter().enumerate() {
            if left == 0 || stop.load(Ordering::Relaxed) {
                break;
            }
            let seed = plan.seed.wrapping_add((step * objectives.len() + number) as u64);
            let config = SearchConfig { seed, candidates: CANDIDATES, ..SearchConfig::default() };
            let best = climb(index, *objective, &limits, &config, stop)?.best;
            if seen.insert(best.arch.clone()) {
                let latency_ms = best.latency_ms().expect("a latency was limited, so there is a table");
                let predicted_us = 1e3 * latency_ms;
                found.push(LimitTrial { limit_us, arch: best.arch, predicted_us });
                left -= 1;
            }
        }
    }
    Ok(found)
}

/// The sub-networks as subjects to measure.
///
/// # Errors
/// If one is not in the space.
pub fn subjects(index: &CostIndex, promised: &[LimitTrial]) -> Result<Subjects> {
    let mut subjects = Subjects::new();
    for LimitTrial { arch, .. } in promised {
        subjects.insert(Subject::Network(arch.clone()), index.space().lower(arch)?);
    }
    Ok(subjects)
}

/// The measured rows of the trials: they set how far a search's sub-networks exceed their predictions, or judge that.
/// Trials without a sample are left out.
pub fn searched(promised: &[LimitTrial], part: Part, folded: &Folded<'_>) -> Vec<SearchedRow> {
    let rounded = |us: f64| base::document::rounded(us, 6);
    let mut rows = Vec::new();
    for LimitTrial { limit_us, arch, predicted_us } in promised {
        let subject = Subject::Network(arch.clone());
        let (Some(took), Some(sessions)) = (folded.row(&subject), folded.measured.get(&subject)) else {
            continue;
        };
        rows.push(SearchedRow {
            limit_us: rounded(*limit_us),
            arch: arch.clone(),
            part,
            predicted_us: rounded(*predicted_us),
            took,
            sessions: sessions.clone(),
        });
    }
    rows
}
