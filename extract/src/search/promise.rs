//! Whether limits are kept: sub-networks that searches find for them are measured.
//!
//! A search looks for what a table expects too little of, so its sub-networks are harder to be right about than random
//! ones.

use std::collections::BTreeMap;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use supernet::space::{Arch, sampler};

use super::constraint::Limits;
use super::evolution::{SearchConfig, evolve};
use super::index::CostIndex;
use super::objective::Objective;
use crate::error::Result;
use crate::latency::fitted::Part;
use crate::latency::rows::{SEARCHED, SEARCHED_AGAIN};
use crate::latency::{Instruments, MeasureConfig, Progress, RowsLog, SearchedRow, Subject, measure};

/// A sub-network that was found for a limit.
#[derive(Clone, Debug, PartialEq)]
pub struct Promised {
    /// The limit, in microseconds.
    pub limit_us: f64,
    /// The sub-network.
    pub arch: Arch,
    /// What is expected of it, in microseconds.
    pub predicted_us: f64,
}

/// Candidates of each search: what is found later differs little.
const CANDIDATES: usize = 6000;

/// Searches for so many latency limits, evenly spread between the least latency and the largest sub-network's, with
/// each of the objectives.
///
/// # Errors
/// As [`evolve`].
pub fn promised(
    index: &CostIndex,
    objectives: &[&dyn Objective],
    limits: usize,
    seed: u64,
    stop: &AtomicBool,
) -> Result<Vec<Promised>> {
    let least = index.least(super::Quantity::Latency).1.latency_upper_us;
    let largest = index.costs(&sampler::largest(index.space())).expect("of the space").latency_upper_us;
    let mut found = Vec::new();
    for step in 0..limits {
        let limit_us = least + (largest - least) * (step as f64 + 0.5) / limits as f64;
        for (number, objective) in objectives.iter().enumerate() {
            if stop.load(Ordering::Relaxed) {
                return Ok(found);
            }
            let config = SearchConfig {
                seed: seed.wrapping_add((step * objectives.len() + number) as u64),
                candidates: CANDIDATES,
                ..SearchConfig::default()
            };
            let limits = Limits { latency_us: Some(limit_us), ..Limits::default() };
            let best = evolve(index, *objective, &limits, &config, stop)?.best;
            let predicted_us = 1e3 * best.latency_ms.expect("a latency was limited, so there is a table");
            found.push(Promised { limit_us, arch: best.arch, predicted_us });
        }
    }
    Ok(found)
}

/// What came of measuring them.
#[derive(Clone, Debug, PartialEq)]
pub struct Kept {
    /// Those that there was time for, and of which some samples count.
    pub searched: Vec<SearchedRow>,
    /// Time that was measured.
    pub spent: Duration,
    /// Whether `stop` ended it.
    pub interrupted: bool,
}

/// Measures them, each sub-network once: to learn from them how far a search's sub-networks exceed what is expected of
/// them, or to judge that.
///
/// # Errors
/// Passes on what the engine and the log say.
pub fn measure_promised(
    index: &CostIndex,
    (promised, part): (&[Promised], Part),
    instruments: Instruments<'_>,
    config: &MeasureConfig,
    log: &mut RowsLog,
    progress: &mut dyn FnMut(Progress<'_>),
    stop: &AtomicBool,
) -> Result<Kept> {
    let pass = if part == Part::Fit { SEARCHED } else { SEARCHED_AGAIN };
    let mut subjects = BTreeMap::new();
    for Promised { arch, .. } in promised {
        subjects.insert(Subject::Network(arch.clone(), pass), index.space().lower(arch)?);
    }
    let measured = measure(&subjects, instruments, &config.for_networks(), log, progress, stop)?;
    let row = |Promised { limit_us, arch, predicted_us }: &Promised| {
        let observed = measured.observed.get(&Subject::Network(arch.clone(), pass))?;
        if observed.visits.is_empty() {
            return None;
        }
        let rounded = |us: f64| crate::file::rounded(us, 6);
        Some(SearchedRow {
            limit_us: rounded(*limit_us),
            arch: arch.clone(),
            part,
            predicted_us: rounded(*predicted_us),
            measured_us: rounded(observed.row(config.half_width).median_us),
        })
    };
    let searched = promised.iter().filter_map(row).collect();
    Ok(Kept { searched, spent: measured.spent, interrupted: measured.interrupted })
}
