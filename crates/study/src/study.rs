//! A study: each strategy runs with many seeds, and at each price the middle half of their results is compared with the
//! best of the whole table.

use std::sync::atomic::{AtomicBool, Ordering};

use base::document::rounded;
use rayon::prelude::*;
use search::{Estimator, Metric, Problem};
use serde::Serialize;
use space::{GeneRow, Index};

use crate::Result;
use crate::hypervolume::hypervolume;
use crate::problem_file::{Competitor, ProblemFile};
use crate::runs::{Run, RunPoint};
use crate::table::TableEstimator;

/// Version of `study.json`.
const VERSION: u32 = 1;

/// The numbers of a study that its file leaves open.
#[derive(Clone, Debug)]
pub struct StudyConfig {
    /// Runs of each strategy, at least 1, if not the file's.
    pub seeds: Option<usize>,
    /// The budget, above 0, if not the file's.
    pub budget: Option<f64>,
    /// Number of evenly spaced prices at which results are compared.
    pub prices: usize,
}

impl Default for StudyConfig {
    fn default() -> Self {
        Self { seeds: None, budget: None, prices: 40 }
    }
}

/// The quartiles of a value over the runs, and their mean and standard deviation.
#[derive(Clone, Copy, Debug, PartialEq, Serialize)]
pub struct Summary {
    /// A quarter of the runs have at most this.
    pub low: f64,
    /// The median.
    pub median: f64,
    /// A quarter of the runs have at least this.
    pub high: f64,
    /// The mean.
    pub mean: f64,
    /// The standard deviation of one run.
    pub deviation: f64,
}

/// A value over the price.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct Curve {
    /// The value's name: a metric, or `hypervolume`.
    pub name: String,
    /// At each of the study's prices; `None` where a run had no row that keeps the limits.
    pub values: Vec<Option<Summary>>,
}

/// The results of one strategy.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct Results {
    /// The strategy's name in the study.
    pub label: String,
    /// The strategy.
    pub strategy: String,
    /// Evaluations of a run, at all fidelities.
    pub evaluations: Summary,
    /// Share of runs that proved that their best is the best.
    pub proved: f64,
    /// The regret of the goal: how much better the best of the table is than the best so far.
    pub regret: Curve,
    /// The regret at the end.
    pub end: Option<Summary>,
    /// The goal's and each reported metric's value of the best row so far.
    pub values: Vec<Curve>,
    /// The share of the whole table's hypervolume, if there are two or three goals.
    pub hypervolume: Option<Curve>,
}

/// The best of the whole table.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct Oracle {
    /// The metric.
    pub metric: String,
    /// Its unit.
    pub unit: String,
    /// Its best value among rows that keep the limits.
    pub best: f64,
    /// Its value for the row that is the best by the goal.
    pub by_goal: f64,
}

/// The result of a study.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct Study {
    /// The problem's name.
    pub name: String,
    /// The goals' names.
    pub goals: Vec<String>,
    /// Rows of the table, and how many of them keep the limits.
    pub rows: [usize; 2],
    /// Runs of each strategy.
    pub seeds: usize,
    /// The budget of a run.
    pub budget: f64,
    /// The unit of prices.
    pub price_unit: String,
    /// The best for the goal and for each reported metric.
    pub oracles: Vec<Oracle>,
    /// The row that is the best by the goal, as the table has it.
    pub best: String,
    /// The prices at which results are compared.
    pub prices: Vec<f64>,
    /// The results of each strategy.
    pub results: Vec<Results>,
    /// Whether it was stopped before all runs had ended.
    pub interrupted: bool,
}

/// What is known of the whole table.
struct Whole<'a> {
    estimator: &'a TableEstimator<'a>,
    metrics: Vec<Metric>,
    goals: Vec<usize>,
    reports: Vec<usize>,
    limits: Vec<(usize, f64)>,
    /// The worst and the best value of each goal among rows that keep the limits.
    ranges: Vec<[f64; 2]>,
    volume: f64,
}

impl Whole<'_> {
    /// Whether hypervolumes are computed.
    fn is_measured(&self) -> bool {
        (2..=MOST_MEASURED).contains(&self.goals.len())
    }

    fn keeps(&self, row: &GeneRow) -> bool {
        self.limits.iter().all(|(metric, bound)| {
            let value = search::MetricValue::expected(self.estimator.value(row, *metric));
            self.metrics[*metric].keeps(&value, *bound)
        })
    }

    fn merit(&self, row: &GeneRow, metric: usize) -> f64 {
        self.metrics[metric].merit(self.estimator.value(row, metric))
    }

    /// A row's goals as shares of the way to the best from a tenth of the range below the worst; 1 for a goal without range.
    fn shares(&self, row: &GeneRow) -> Vec<f64> {
        let goals = self.goals.iter().zip(&self.ranges);
        let share = |(goal, [worst, best]): (&usize, &[f64; 2])| match best - worst {
            range if range > 0.0 => ((self.merit(row, *goal) - worst) / range + BELOW) / (1.0 + BELOW),
            _ => 1.0,
        };
        goals.map(share).collect()
    }
}

impl Study {
    /// The content of `study.json`.
    ///
    /// # Errors
    /// Never for a study of numbers.
    pub fn to_json(&self) -> serde_json::Result<serde_json::Value> {
        let mut document = serde_json::to_value(self)?;
        document["version"] = VERSION.into();
        Ok(document)
    }

    /// Runs all strategies with all seeds, in parallel; a run depends on its seed alone.
    ///
    /// # Errors
    /// If no row keeps the limits, or a strategy refuses the problem or its parameters.
    pub fn run(file: &mut ProblemFile, config: &StudyConfig, stop: &AtomicBool) -> Result<Self> {
        file.budget = config.budget.filter(|budget| *budget > 0.0).unwrap_or(file.budget);
        file.seeds = config.seeds.filter(|seeds| *seeds > 0).unwrap_or(file.seeds);
        let file = &*file;
        let estimator = file.estimator()?;
        check_strategies(file, &estimator)?;
        let rows = file.table.genome().all();
        let (whole, kept) = whole(file, &estimator, &rows)?;
        let best = kept.iter().max_by(|a, b| {
            let by_goals =
                whole.goals.iter().map(|goal| whole.merit(a, *goal).total_cmp(&whole.merit(b, *goal)));
            by_goals.fold(std::cmp::Ordering::Equal, std::cmp::Ordering::then).then_with(|| b.cmp(a))
        });
        let best = best.expect("some row keeps the limits");
        let oracles = whole.goals[..1].iter().chain(&whole.reports).map(|metric: &usize| Oracle {
            metric: whole.metrics[*metric].name.clone(),
            unit: whole.metrics[*metric].unit.clone(),
            // the value is the merit of the merit
            best: whole.metrics[*metric].merit(best_merit(&whole, &kept, *metric)),
            by_goal: estimator.value(best, *metric),
        });
        let count = config.prices.max(1);
        let prices: Vec<f64> = (1..=count).map(|step| file.budget * step as f64 / count as f64).collect();
        let mut study = Self {
            name: file.name.clone(),
            goals: file.goals.clone(),
            rows: [rows.len(), kept.len()],
            seeds: file.seeds,
            budget: file.budget,
            price_unit: file.price_unit().to_string(),
            oracles: oracles.collect(),
            best: file.table.text(best),
            prices,
            results: Vec::new(),
            interrupted: false,
        };
        for competitor in &file.strategies {
            let runs = (0..file.seeds as u64)
                .into_par_iter()
                .map(|seed: u64| Run::of(file, &estimator, competitor, seed, stop))
                .collect::<Result<Vec<_>>>()?;
            if stop.load(Ordering::Relaxed) {
                study.interrupted = true;
                break;
            }
            let results = study.summarized(&whole, competitor, &runs);
            study.results.push(results);
        }
        Ok(study)
    }

    fn summarized(&self, whole: &Whole<'_>, competitor: &Competitor, runs: &[Run]) -> Results {
        let goal = whole.goals[0];
        let best = whole.metrics[goal].merit(self.oracles[0].best);
        let incumbents: Vec<Vec<Option<&[Index]>>> =
            runs.par_iter().map(|run: &Run| incumbents(whole, run, &self.prices)).collect();
        let over_prices = |name: &str, of: &(dyn Fn(&GeneRow) -> f64 + Sync)| Curve {
            name: name.to_string(),
            values: (0..self.prices.len())
                .map(|at| incumbents.iter().map(|rows| rows[at].map(of)).collect::<Option<Vec<f64>>>())
                .map(|values| values.map(Summary::of))
                .collect(),
        };
        let regret = over_prices("regret", &|row| best - whole.merit(row, goal));
        let metrics = whole.goals[..1].iter().chain(&whole.reports);
        let values = metrics.map(|metric: &usize| {
            over_prices(&whole.metrics[*metric].name, &|row| whole.estimator.value(row, *metric))
        });
        Results {
            label: competitor.label.clone(),
            strategy: competitor.strategy.name.to_string(),
            evaluations: Summary::of(runs.iter().map(|run| run.evaluations as f64).collect()),
            proved: runs.iter().filter(|run| run.proved).count() as f64 / runs.len() as f64,
            end: regret.values.last().copied().flatten(),
            regret,
            values: values.collect(),
            hypervolume: whole.is_measured().then(|| self.volumes(whole, runs)),
        }
    }

    /// The share of the whole table's hypervolume that runs have reached at each price.
    fn volumes(&self, whole: &Whole<'_>, runs: &[Run]) -> Curve {
        let of_run = |run: &Run| -> Vec<f64> {
            let mut front: Vec<Vec<f64>> = Vec::new();
            let mut points = run.points.iter().peekable();
            let mut volumes = Vec::with_capacity(self.prices.len());
            let (mut volume, mut changed) = (0.0, false);
            for (at, price) in self.prices.iter().enumerate() {
                // the last row may cost more than was left
                let is_last = at + 1 == self.prices.len();
                while let Some(point) = points.next_if(|point| is_last || point.spent <= *price) {
                    changed |= whole.keeps(&point.row) && enter(&mut front, whole.shares(&point.row));
                }
                if std::mem::take(&mut changed) {
                    volume = hypervolume(&front) / whole.volume;
                }
                volumes.push(volume);
            }
            volumes
        };
        let volumes: Vec<Vec<f64>> = runs.par_iter().map(of_run).collect();
        let at = |at: usize| Some(Summary::of(volumes.iter().map(|run| run[at]).collect()));
        Curve { name: "hypervolume".to_string(), values: (0..self.prices.len()).map(at).collect() }
    }
}

/// Enters a point into a front, unless another is at least as good in all; whether it did.
fn enter(front: &mut Vec<Vec<f64>>, point: Vec<f64>) -> bool {
    let covers = |one: &[f64], other: &[f64]| one.iter().zip(other).all(|(one, other)| one >= other);
    if front.iter().any(|other| covers(other, &point)) {
        return false;
    }
    front.retain(|other| !covers(&point, other));
    front.push(point);
    true
}

/// Starts each strategy once, so that what is refused is refused before anything runs.
fn check_strategies(file: &ProblemFile, estimator: &TableEstimator<'_>) -> Result<()> {
    let goals: Vec<&str> = file.goals.iter().map(String::as_str).collect();
    let estimators: [&dyn Estimator; 1] = [estimator];
    let problem = Problem::of_choices(file.table.genome(), &estimators, &goals, &file.limits)?;
    for Competitor { strategy, set, .. } in &file.strategies {
        strategy.start(&problem, set)?;
    }
    Ok(())
}

/// What is known of the whole table, and its rows that keep the limits.
fn whole<'a>(
    file: &ProblemFile,
    estimator: &'a TableEstimator<'a>,
    rows: &[Vec<Index>],
) -> Result<(Whole<'a>, Vec<Vec<Index>>)> {
    let metrics: Vec<Metric> = file.metrics().cloned().collect();
    let place = |name: &String| metrics.iter().position(|metric| metric.name == *name).expect("checked");
    let limits = file.limits.iter().map(|(name, bound)| (place(&name.to_string()), bound)).collect();
    let goals: Vec<usize> = file.goals.iter().map(place).collect();
    let reports = file.report.iter().map(place).collect();
    let ranges = Vec::new();
    let mut whole = Whole { estimator, metrics, goals, reports, limits, ranges, volume: 1.0 };
    let kept: Vec<Vec<Index>> = rows.iter().filter(|row| whole.keeps(row)).cloned().collect();
    if kept.is_empty() {
        let limits: Vec<String> = file.limits.iter().map(|(name, bound)| format!("{name} {bound}")).collect();
        let error = base::Error::invalid(&file.name, "limits", "some row that keeps them", limits.join(", "));
        return Err(error.and_then_do("relax one of them").into());
    }
    whole.ranges = whole
        .goals
        .iter()
        .map(|goal: &usize| {
            let merits = kept.iter().map(|row| whole.merit(row, *goal));
            merits.fold([f64::INFINITY, f64::NEG_INFINITY], |[worst, best], merit| {
                [worst.min(merit), best.max(merit)]
            })
        })
        .collect();
    if whole.is_measured() {
        let mut front = Vec::new();
        for row in &kept {
            enter(&mut front, whole.shares(row));
        }
        whole.volume = hypervolume(&front);
    }
    Ok((whole, kept))
}

fn best_merit(whole: &Whole<'_>, rows: &[Vec<Index>], metric: usize) -> f64 {
    rows.iter().map(|row| whole.merit(row, metric)).fold(f64::NEG_INFINITY, f64::max)
}

/// The best row by the goals at each price; `None` where none keeps the limits.
fn incumbents<'r>(whole: &Whole<'_>, run: &'r Run, prices: &[f64]) -> Vec<Option<&'r [Index]>> {
    let mut best: Option<(&[Index], Vec<f64>)> = None;
    let mut points = run.points.iter().peekable();
    let mut found = Vec::with_capacity(prices.len());
    for (at, price) in prices.iter().enumerate() {
        // the last row may cost more than was left
        let is_last = at + 1 == prices.len();
        while let Some(RunPoint { row, .. }) = points.next_if(|point| is_last || point.spent <= *price) {
            if !whole.keeps(row) {
                continue;
            }
            let merits: Vec<f64> = whole.goals.iter().map(|goal| whole.merit(row, *goal)).collect();
            if best.as_ref().is_none_or(|(_, before)| merits > *before) {
                best = Some((row, merits));
            }
        }
        found.push(best.as_ref().map(|(row, _)| *row));
    }
    found
}

/// How far the reference of hypervolumes lies below the worst, as a share of the range.
const BELOW: f64 = 0.1;
/// Most goals of which hypervolumes are computed; with more they take too long.
const MOST_MEASURED: usize = 3;
/// Significant digits of values.
const DIGITS: i32 = 9;

/// A value with nine significant digits.
fn significant(value: f64) -> f64 {
    let whole = value.abs().log10().floor();
    if whole.is_finite() { rounded(value, DIGITS - 1 - whole as i32) } else { value }
}

impl Summary {
    /// The summary of at least one value.
    pub fn of(mut values: Vec<f64>) -> Self {
        values.sort_by(f64::total_cmp);
        let count = values.len() as f64;
        let mean = values.iter().sum::<f64>() / count;
        let squares: f64 = values.iter().map(|value| (value - mean) * (value - mean)).sum();
        let deviation = if values.len() > 1 { (squares / (count - 1.0)).sqrt() } else { 0.0 };
        let at = |share: f64| {
            let place = share * (count - 1.0);
            let low = values[place.floor() as usize];
            low + (values[place.ceil() as usize] - low) * place.fract()
        };
        let [low, median, high] = [0.25, 0.5, 0.75].map(at);
        let [low, median, high, mean, deviation] = [low, median, high, mean, deviation].map(significant);
        Self { low, median, high, mean, deviation }
    }
}
