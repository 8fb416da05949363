//! Judges a search's result by the predictor's error, or by also evaluating the best candidates on validation images.
//!
//! Knows nothing of weights or images: the caller's evaluation reports, for each image, whether it was
//! classified correctly.

use std::collections::BTreeSet;
use std::sync::atomic::AtomicBool;

use base::document::rounded;
use network::accuracy_file::{AccuracyFile, AccuracyRow};
use network::data::Split;
use network::model_folder::SelectedOn;
use search::{
    AccuracyFrom, AccuracySearch, Candidate, CostIndex, Ended, Limits, Proof, SearchConfig, SearchReport,
    StrategyChoice, pareto,
};
use serde::{Deserialize, Serialize};
use space::Arch;

use crate::accuracy::shrink::{Counted, NORMAL_95, binomial, shrink, variance_between};
use crate::accuracy::{AccuracyEstimator, FitConfig};
use crate::error::{Error, Result};

/// The problem of a search.
#[derive(Clone, Copy)]
pub struct ValidationProblem<'a> {
    /// Costs of the space's sub-networks.
    pub index: &'a CostIndex,
    /// Their latencies on further devices, named.
    pub devices: &'a [CostIndex],
    /// The limits of costs.
    pub limits: &'a Limits,
    /// The settings of the search.
    pub config: &'a SearchConfig,
    /// Another strategy than climbers, if any.
    pub strategy: Option<&'a StrategyChoice>,
    /// A cost to minimize in place of the accuracy; without evaluations only.
    pub cheapest: Option<&'a str>,
    /// Least accuracy that the lower end of the chosen one's interval must reach, if any.
    pub least_top1: Option<f64>,
    /// Ends it when set.
    pub stop: &'a AtomicBool,
}

/// The plan of evaluations.
#[derive(Clone, Debug)]
pub struct ValidationPlan<'a> {
    /// Sub-networks in each round: the best that were not evaluated before.
    pub candidates: usize,
    /// Rounds; after each but the last the estimator is fitted again, with what was evaluated.
    pub rounds: usize,
    /// The rows that the estimator was fitted to; needed for more than one round.
    pub rows: Option<&'a AccuracyFile>,
    /// The settings of fits between rounds.
    pub fit: FitConfig,
}

/// The 20 best in one round, as the command line has it.
impl Default for ValidationPlan<'_> {
    fn default() -> Self {
        Self { candidates: 20, rounds: 1, rows: None, fit: FitConfig::default() }
    }
}

/// A sub-network that was found and evaluated.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Evaluated {
    /// The sub-network.
    pub arch: Arch,
    /// Round in which it was, from 1.
    pub round: usize,
    /// Accuracy that the predictor expected before.
    pub expected: f64,
    /// Share of validation images that were classified right.
    pub top1: f64,
    /// Number of these images.
    pub n: u64,
    /// The expected accuracy, by prediction and count.
    pub accuracy: f64,
}

/// The result of a search whose best candidates were evaluated.
#[derive(Clone, Debug)]
pub struct ValidatedSearch {
    /// The last search, its best candidate that of the highest expected accuracy of all that were evaluated.
    pub report: SearchReport,
    /// All that were evaluated, best first.
    pub evaluated: Vec<Evaluated>,
    /// Rounds that evaluated some.
    pub rounds: usize,
}

impl ValidatedSearch {
    /// The images that the best sub-network was selected on: those that were counted; `None` where nothing was evaluated.
    pub fn selected_on(&self) -> Option<SelectedOn> {
        let Self { evaluated, rounds, .. } = self;
        let n = evaluated.first()?.n;
        let rounds = if *rounds > 1 { format!(" in {rounds} rounds") } else { String::new() };
        let how = format!("best of {} that a predictor expected most of, evaluated{rounds}", evaluated.len());
        Some(SelectedOn { split: Split::Val.to_string(), n, how })
    }
}

/// Says of each validation image whether a sub-network finds its class; `None` if it was stopped.
pub type Evaluate<'a> = dyn FnMut(&Arch) -> Result<Option<Vec<bool>>> + 'a;

/// One that was evaluated, with its images.
struct Count {
    candidate: Candidate,
    hits: Vec<bool>,
}

impl Count {
    fn top1(&self) -> f64 {
        self.hits.iter().filter(|hit| **hit).count() as f64 / self.hits.len().max(1) as f64
    }

    fn row(&self) -> AccuracyRow {
        let arch = self.candidate.arch.clone();
        let top1 = self.top1();
        AccuracyRow { arch, top1, split: Split::Val, n: self.hits.len() as u64 }
    }
}

/// The evaluated of one round, whose predictions are of one estimator.
struct Round {
    counts: Vec<Count>,
    estimator: AccuracyEstimator,
}

/// Gives a search's candidates what the predictor expects of them, with its interval: the error on rows that it was not
/// fitted to, and the images'. Where the predictor was imported neither is known.
///
/// # Errors
/// If the lower end of the best one's interval is below `least_top1`, or not known though requested; or if what the
/// predictor says cannot be a share.
pub fn judge_by_predictor(
    report: &mut SearchReport,
    estimator: &AccuracyEstimator,
    least_top1: Option<f64>,
) -> Result<()> {
    check_shares(report)?;
    let SearchReport { best, front, top, .. } = report;
    for candidate in std::iter::once(best).chain(front).chain(top) {
        expect(candidate, estimator, 0.0);
    }
    let Some(least) = least_top1 else { return Ok(()) };
    if report.best.accuracy_low().is_none() {
        let expected = "an estimator whose error is known";
        let got = "an imported one";
        let error = base::Error::invalid("limit on top1", "estimator", expected, got);
        return Err(error
            .and_then_do("give --supernet and --data, so that what is found is evaluated")
            .into());
    }
    chosen(std::slice::from_ref(&report.best), least).map(|_| ())
}

/// Estimators of older versions may predict per cent.
fn check_shares(report: &SearchReport) -> Result<()> {
    let accuracy = report.best.accuracy();
    if (-0.5..=1.5).contains(&accuracy) {
        return Ok(());
    }
    let error = base::Error::invalid("estimator", "accuracy of the best", "a share from 0 to 1", accuracy);
    Err(error.and_then_do("if it is per cent, import or fit the estimator anew").into())
}

pub(super) fn expect(candidate: &mut Candidate, estimator: &AccuracyEstimator, offset: f64) {
    let accuracy = estimator.expected(candidate.accuracy()) + offset;
    let deviation = estimator.report().map(|report| report.variance().sqrt());
    give(candidate, accuracy, deviation, AccuracyFrom::Predictor);
}

fn give(candidate: &mut Candidate, accuracy: f64, deviation: Option<f64>, from: AccuracyFrom) {
    let interval = deviation.map(|deviation| {
        [-1.0, 1.0].map(|side: f64| rounded(accuracy + side * NORMAL_95 * deviation, DECIMALS))
    });
    candidate.set_accuracy(rounded(accuracy, DECIMALS), interval);
    candidate.accuracy_from = Some(from);
}

/// Decimals of accuracies.
const DECIMALS: i32 = 9;

/// The first of the candidates, best first, whose interval's lower end reaches so much.
fn chosen(candidates: &[Candidate], least: f64) -> Result<&Candidate> {
    let low = |candidate: &Candidate| candidate.accuracy_low().unwrap_or(f64::NEG_INFINITY);
    if let Some(candidate) = candidates.iter().find(|candidate| low(candidate) >= least) {
        return Ok(candidate);
    }
    let closest = candidates.iter().max_by(|a, b| low(a).total_cmp(&low(b))).expect("at least one candidate");
    let low = low(closest);
    let high = closest.accuracy_high().unwrap_or(f64::INFINITY);
    Err(Error::NotAccurate {
        least,
        closest: Box::new(closest.arch.clone()),
        accuracy: closest.accuracy(),
        low,
        high,
    })
}

/// Searches, evaluates the best, and chooses by both; several times with an estimator that learns from it.
///
/// # Errors
/// As [`AccuracySearch::run`]; if rounds are to follow one another without the estimator's rows; if no evaluated one's interval reaches
/// `least_top1`; or as `evaluate`.
pub fn search_validated(
    problem: &ValidationProblem<'_>,
    estimator: &AccuracyEstimator,
    plan: &ValidationPlan<'_>,
    evaluate: &mut Evaluate<'_>,
) -> Result<ValidatedSearch> {
    if plan.rounds > 1 && plan.rows.is_none() {
        let error =
            base::Error::invalid("search", "rows", "those of the estimator, for several rounds", "none");
        return Err(error.and_then_do("give --accuracy accuracy.jsonl, or one round").into());
    }
    let mut rounds: Vec<Round> = Vec::new();
    loop {
        let estimator = match rounds.last() {
            None => estimator.clone(),
            Some(_) => refitted(plan, &rounds)?,
        };
        let ValidationProblem { index, devices, limits, config, strategy, cheapest, stop, .. } = *problem;
        let objective = &estimator;
        let search = AccuracySearch { index, devices, objective, limits, config, strategy, cheapest, stop };
        let mut report = search.run(&mut ())?;
        check_shares(&report)?;
        let known: BTreeSet<&Arch> = all(&rounds).map(|count| &count.candidate.arch).collect();
        let fresh = report.top.iter().filter(|candidate| !known.contains(&candidate.arch));
        let fresh: Vec<Candidate> = fresh.take(plan.candidates).cloned().collect();
        let (counts, interrupted) = count(fresh, evaluate)?;
        report.interrupted |= interrupted;
        let nothing_new = counts.is_empty();
        rounds.push(Round { counts, estimator });
        if report.interrupted || nothing_new || rounds.len() >= plan.rounds {
            return conclude(problem, report, rounds);
        }
    }
}

fn all(rounds: &[Round]) -> impl Iterator<Item = &Count> {
    rounds.iter().flat_map(|round| &round.counts)
}

fn refitted(plan: &ValidationPlan<'_>, rounds: &[Round]) -> Result<AccuracyEstimator> {
    let mut file = plan.rows.expect("checked at the beginning").clone();
    let known: BTreeSet<Arch> =
        file.rows.iter().filter(|row| row.split == Split::Val).map(|row| row.arch.clone()).collect();
    let rows = all(rounds).map(Count::row).filter(|row| !known.contains(&row.arch));
    file.rows.extend(rows.collect::<Vec<_>>());
    AccuracyEstimator::fit(&file, &plan.fit)
}

/// Evaluates candidates until stopped; returns whether it was.
fn count(candidates: Vec<Candidate>, evaluate: &mut Evaluate<'_>) -> Result<(Vec<Count>, bool)> {
    let mut counts = Vec::with_capacity(candidates.len());
    for candidate in candidates {
        match evaluate(&candidate.arch)? {
            Some(hits) => counts.push(Count { candidate, hits }),
            None => return Ok((counts, true)),
        }
    }
    Ok((counts, false))
}

/// Chooses by predictions and counts, and gives the front what was learned.
fn conclude(
    problem: &ValidationProblem<'_>,
    mut report: SearchReport,
    rounds: Vec<Round>,
) -> Result<ValidatedSearch> {
    let last = rounds.last().expect("at least one round was made");
    if all(&rounds).next().is_none() {
        let estimator = last.estimator.clone();
        judge_by_predictor(&mut report, &estimator, problem.least_top1)?;
        return Ok(ValidatedSearch { report, evaluated: Vec::new(), rounds: 0 });
    }
    let hits: Vec<&[bool]> = all(&rounds).map(|count| &count.hits[..]).collect();
    let noise = variance_between(&hits);
    let mut judged = Vec::new();
    let mut offset = 0.0;
    for (number, round) in rounds.iter().enumerate().filter(|(_, round)| !round.counts.is_empty()) {
        let (of_round, its_offset) = judge_round(round, number + 1, noise);
        judged.extend(of_round);
        offset = its_offset;
    }
    judged.sort_by(|(a, _), (b, _)| {
        b.accuracy()
            .total_cmp(&a.accuracy())
            .then(a.latency_ms().unwrap_or(0.0).total_cmp(&b.latency_ms().unwrap_or(0.0)))
            .then_with(|| a.arch.cmp(&b.arch))
    });
    let (candidates, evaluated): (Vec<Candidate>, Vec<Evaluated>) = judged.into_iter().unzip();
    report.best = chosen(&candidates, problem.least_top1.unwrap_or(f64::NEG_INFINITY))?.clone();
    report.front = front(&report, &candidates, &last.estimator, offset);
    // what the strategy proved, it proved of predictions alone
    (report.ended, report.bound) = (without_proof(report.ended), None);
    report.top = candidates;
    let rounds = rounds.iter().filter(|round| !round.counts.is_empty()).count();
    Ok(ValidatedSearch { report, evaluated, rounds })
}

fn without_proof(ended: Ended) -> Ended {
    match ended {
        Ended::Finished(_) => Ended::Finished(Proof::None),
        ended => ended,
    }
}

/// The evaluated of a round, each with what is to be expected of it; and what the predictor is wrong by for all of them.
fn judge_round(round: &Round, number: usize, noise: f64) -> (Vec<(Candidate, Evaluated)>, f64) {
    let Round { counts, estimator } = round;
    let expected: Vec<f64> =
        counts.iter().map(|count| estimator.expected(count.candidate.accuracy())).collect();
    let top1: Vec<f64> = counts.iter().map(Count::top1).collect();
    let error = estimator.report().map(|report| report.rmse.value.powi(2));
    let shrunk = shrink(&Counted { expected: &expected, top1: &top1, noise, error });
    let mut judged = Vec::with_capacity(counts.len());
    for (place, count) in counts.iter().enumerate() {
        let mut candidate = count.candidate.clone();
        let accuracy = shrunk.accuracies[place];
        let n = count.hits.len() as u64;
        // of new images, which all of these share, there is a variance more
        let shared = (binomial(accuracy, n) - noise).max(0.0);
        let deviation = (shrunk.variances[place] + shared).sqrt();
        give(&mut candidate, accuracy, Some(deviation), AccuracyFrom::PredictorAndValidation);
        let [expected, top1] = [expected[place], top1[place]].map(|share| rounded(share, DECIMALS));
        let arch = candidate.arch.clone();
        let accuracy = candidate.accuracy();
        judged.push((candidate, Evaluated { arch, round: number, expected, top1, n, accuracy }));
    }
    (judged, shrunk.offset)
}

/// The front as it is now expected: by counts where there are some, else by the predictor less what it was wrong by. Its
/// most accurate is the chosen one; a faster one that is expected to be better, but was not evaluated, is left out.
fn front(
    report: &SearchReport,
    evaluated: &[Candidate],
    estimator: &AccuracyEstimator,
    offset: f64,
) -> Vec<Candidate> {
    let best = &report.best;
    let of_search =
        report.front.iter().filter(|candidate| evaluated.iter().all(|other| other.arch != candidate.arch));
    let expected = of_search.map(|candidate| {
        let mut candidate = candidate.clone();
        expect(&mut candidate, estimator, offset);
        candidate
    });
    let below =
        |other: &Candidate| other.accuracy() < best.accuracy() && other.latency_ms() < best.latency_ms();
    let others = expected.chain(evaluated.iter().cloned()).filter(below);
    pareto::front(others.chain([best.clone()]))
}

#[cfg(test)]
mod tests;
