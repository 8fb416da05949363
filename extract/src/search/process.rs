//! An estimator that is another program: for each candidate it reads a line of JSON and writes one. Several copies run at
//! once; one that dies, stays silent or answers nonsense is replaced, and the candidate is tried again.
//!
//! Its own answer `error`, and the last try's end, are failures: values that no search prefers, and that a log keeps.

mod answer;
mod worker;

use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::sync::{Mutex, PoisonError, mpsc};
use std::time::Duration;

use base::Result;
use search::{Estimator, Fidelity, GeneRows, Metric, MetricValue};
use space::{Arch, GeneRow, SearchSpace};

pub use answer::Answer;
use answer::Request;
pub use worker::Program;
use worker::{Worker, WorkerEnd};

/// How a program is run.
#[derive(Clone, Debug)]
pub struct ProcessConfig {
    /// Copies at once: 1.
    pub workers: usize,
    /// Time for one candidate, if it is limited.
    pub timeout: Option<Duration>,
    /// Tries of a candidate whose program dies, stays silent or answers nonsense: 2.
    pub tries: usize,
    /// Failures in a row that end the search: 8, and twice the number of workers at least.
    pub most_failures: usize,
    /// Passed on to the program.
    pub seed: u64,
}

impl Default for ProcessConfig {
    fn default() -> Self {
        Self { workers: 1, timeout: None, tries: 2, most_failures: 8, seed: 0 }
    }
}

/// A candidate without values, and why.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Failure {
    /// The candidate.
    pub arch: Arch,
    /// The program's own words, or how its last try ended.
    pub reason: String,
}

/// Estimates metrics of a space's sub-networks by a program.
pub struct ProcessEstimator<'a> {
    space: &'a SearchSpace,
    metrics: Vec<Metric>,
    program: Program,
    config: ProcessConfig,
    /// Copies that wait for a candidate.
    idle: Mutex<Vec<Worker>>,
    failures: Mutex<Vec<Failure>>,
    failed_in_a_row: AtomicUsize,
    /// The last failure of too many in a row.
    gave_up: Mutex<Option<base::Error>>,
    report: Box<dyn Fn(&CandidateResult<'_>) + Sync + 'a>,
}

/// The result of a candidate.
#[derive(Debug)]
pub enum CandidateResult<'r> {
    /// Its values.
    Values(&'r Arch, &'r [MetricValue]),
    /// There are none.
    Failure(&'r Failure),
}

/// How a candidate ended.
enum Tried {
    Values(Vec<MetricValue>),
    Failed(String),
    Stopped,
}

impl<'a> ProcessEstimator<'a> {
    /// Estimates these metrics; `report` is called for each candidate at once.
    ///
    /// # Errors
    /// If the program cannot be started.
    pub fn start(
        space: &'a SearchSpace,
        metrics: Vec<Metric>,
        program: Program,
        config: ProcessConfig,
        report: impl Fn(&CandidateResult<'_>) + Sync + 'a,
    ) -> Result<Self> {
        let first = Worker::start(&program)?;
        Ok(Self {
            space,
            metrics,
            program,
            config,
            idle: Mutex::new(vec![first]),
            failures: Mutex::new(Vec::new()),
            failed_in_a_row: AtomicUsize::new(0),
            gave_up: Mutex::new(None),
            report: Box::new(report),
        })
    }

    /// The failures so far.
    pub fn failures(&self) -> Vec<Failure> {
        self.failures.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }

    /// The error of too many failures in a row, if they ended the search: it looks stopped then.
    pub fn gave_up(&self) -> Option<base::Error> {
        self.gave_up.lock().unwrap_or_else(PoisonError::into_inner).take()
    }

    /// The values of one candidate, those of a failure, or `None` if `stop` was set first.
    fn values(
        &self,
        row: &GeneRow,
        fidelity: Fidelity,
        stop: &dyn Fn() -> bool,
    ) -> Result<Option<Vec<MetricValue>>> {
        let arch = self.space.arch(row);
        match self.tried(&arch, fidelity, stop)? {
            Tried::Stopped => Ok(None),
            Tried::Values(values) => {
                self.failed_in_a_row.store(0, Ordering::Relaxed);
                (self.report)(&CandidateResult::Values(&arch, &values));
                Ok(Some(values))
            }
            Tried::Failed(reason) => {
                let failure = Failure { arch, reason };
                (self.report)(&CandidateResult::Failure(&failure));
                let in_a_row = self.failed_in_a_row.fetch_add(1, Ordering::Relaxed) + 1;
                let too_many = in_a_row >= self.config.most_failures.max(2 * self.config.workers);
                let last = failure.reason.clone();
                self.failures.lock().unwrap_or_else(PoisonError::into_inner).push(failure);
                if too_many {
                    let error = base::Error::invalid("evaluator", "answers", "values", last);
                    let next = format!("mend the program: it failed for {in_a_row} candidates in a row");
                    let error = error.and_then_do(next);
                    self.gave_up.lock().unwrap_or_else(PoisonError::into_inner).get_or_insert(error);
                    return Ok(None);
                }
                Ok(Some(vec![MetricValue::failed(); self.metrics.len()]))
            }
        }
    }

    /// Tries a candidate until there is an answer.
    fn tried(&self, arch: &Arch, fidelity: Fidelity, stop: &dyn Fn() -> bool) -> Result<Tried> {
        let request = Request::new(arch, fidelity, self.config.seed, &self.metrics).line();
        let mut last = String::new();
        let mut tries = 0;
        // after a copy that died while it waited a new one is asked: others may wait dead too, as fast as they are put back
        let mut died_waiting = false;
        while tries < self.config.tries.max(1) {
            let idle = if died_waiting {
                None
            } else {
                self.idle.lock().unwrap_or_else(PoisonError::into_inner).pop()
            };
            let is_new = idle.is_none();
            let mut worker = idle.map_or_else(|| Worker::start(&self.program), Ok)?;
            let answered = worker.ask(&request, self.config.timeout, stop);
            tries += 1;
            match answered.map(|line| Answer::read(&line, arch, &self.metrics)) {
                Ok(Ok(answer)) => {
                    self.idle.lock().unwrap_or_else(PoisonError::into_inner).push(worker);
                    return Ok(match answer {
                        Answer::Values(values) => Tried::Values(values),
                        Answer::Error(reason) => Tried::Failed(reason),
                    });
                }
                Ok(Err(nonsense)) => last = nonsense,
                Err(WorkerEnd::Stopped) => return Ok(Tried::Stopped),
                // it may have died while it waited, through no fault of this candidate
                Err(WorkerEnd::Died(_)) if !is_new => {
                    died_waiting = true;
                    tries -= 1;
                }
                Err(WorkerEnd::Died(how)) => last = how,
                Err(WorkerEnd::Silent(after)) => last = format!("no answer within {after:?}"),
            }
        }
        Ok(Tried::Failed(last))
    }
}

impl Estimator for ProcessEstimator<'_> {
    fn metrics(&self) -> &[Metric] {
        &self.metrics
    }

    fn price(&self, _row: &GeneRow, fidelity: Fidelity) -> f64 {
        fidelity.share()
    }

    fn has_fidelities(&self) -> bool {
        true
    }

    fn estimate(
        &self,
        rows: &GeneRows,
        fidelity: Fidelity,
        stop: &AtomicBool,
    ) -> search::Result<Vec<MetricValue>> {
        let mut found: Vec<Option<Vec<MetricValue>>> = vec![None; rows.len()];
        self.estimate_each(rows, fidelity, stop, &mut |at, values| {
            found[at] = Some(values.to_vec());
            Ok(())
        })?;
        Ok(found.into_iter().map_while(|values| values).flatten().collect())
    }

    fn estimate_each(
        &self,
        rows: &GeneRows,
        fidelity: Fidelity,
        stop: &AtomicBool,
        done: &mut dyn FnMut(usize, &[MetricValue]) -> search::Result<()>,
    ) -> search::Result<()> {
        let next = &AtomicUsize::new(0);
        let failed = AtomicBool::new(false);
        let has_given_up = || self.gave_up.lock().unwrap_or_else(PoisonError::into_inner).is_some();
        let stopped = &|| stop.load(Ordering::Relaxed) || failed.load(Ordering::Relaxed) || has_given_up();
        let (sender, answers) = mpsc::channel();
        std::thread::scope(|scope| {
            for _ in 0..self.config.workers.clamp(1, rows.len().max(1)) {
                let sender = sender.clone();
                scope.spawn(move || {
                    while !stopped() {
                        let at = next.fetch_add(1, Ordering::Relaxed);
                        if at >= rows.len() {
                            break;
                        }
                        let values = self.values(rows.get(at), fidelity, stopped);
                        if sender.send((at, values)).is_err() {
                            break;
                        }
                    }
                });
            }
            drop(sender);
            let mut ended = Ok(());
            for (at, values) in answers {
                let taken = match values {
                    Ok(Some(values)) => done(at, &values),
                    Ok(None) => Ok(()),
                    Err(error) => Err(search::Error::from(error)),
                };
                if taken.is_err() && ended.is_ok() {
                    failed.store(true, Ordering::Relaxed);
                    ended = taken;
                }
            }
            ended
        })
    }
}

#[cfg(test)]
mod tests;
