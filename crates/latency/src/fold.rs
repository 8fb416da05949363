//! Folds rows into each session's measurement of each subject.

use std::collections::{BTreeMap, BTreeSet};

use base::document::rounded;
use base::statistics as stats;
use serde::{Deserialize, Serialize};
use serde_json::json;

use super::facts::Conditions;
use super::row::{Measurement, Row, is_as_fast, pool};
use super::rows::{Record, Rows, Samples, Session, Subject, Visit};
use super::undisturbed::{self, Estimate, Look, Pace, State};

/// Facts of a session.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct SessionFacts {
    /// The sentinel's fast time, in microseconds; absent if none was read.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub sentinel_fast_us: Option<f64>,
    /// Share of the sentinel's readings within 5 % of the fast time.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub fast_share: Option<f64>,
    /// Whether the fast state was met.
    pub met: bool,
    /// Total number of visits.
    pub visits: usize,
    /// Duration in seconds, as far as known.
    pub seconds: f64,
}

/// One session: the records of consecutive processes, each of which began less than ten minutes after the
/// previous one ended.
pub struct SessionFold<'a> {
    /// The id: eight hexadecimal digits that follow from its beginning, or from its content.
    pub id: String,
    /// When the processes began, and under which conditions.
    pub begun: Vec<&'a Session>,
    /// The operating system's reports, in order.
    pub conditions: Vec<&'a Conditions>,
    /// The sentinel's pace.
    pub pace: Option<Pace>,
    /// Its visits by subject, each with the sentinel's state.
    pub observed: BTreeMap<&'a Subject, Vec<(&'a Visit, State)>>,
    seconds: f64,
}

/// Seconds between the end of a process and the beginning of the next from which they are separate sessions.
const GAP_SECONDS: f64 = 600.0;

/// The sessions in rows; `kept_us` is the sentinel's fast time in earlier ones, if it is known.
pub fn fold(rows: &Rows, kept_us: Option<f64>) -> Vec<SessionFold<'_>> {
    let mut parts: Vec<Part<'_>> = Vec::new();
    for record in &rows.records {
        match record {
            Record::Session(session) => match parts.last_mut() {
                Some(last) if last.goes_on_with(session) => last.begin(session),
                _ => {
                    parts.push(Part::default());
                    parts.last_mut().expect("just pushed").begin(session);
                }
            },
            other => {
                if parts.is_empty() {
                    parts.push(Part::default());
                }
                parts.last_mut().expect("not empty").add(other);
            }
        }
    }
    parts.retain(|part| !part.visits.is_empty());
    parts.into_iter().map(|part| part.folded(kept_us)).collect()
}

/// Records of one session.
#[derive(Default)]
struct Part<'a> {
    begun: Vec<&'a Session>,
    conditions: Vec<&'a Conditions>,
    visits: Vec<&'a Visit>,
    /// Seconds of the processes that have ended, and of the latest.
    ended: f64,
    latest: f64,
}

impl<'a> Part<'a> {
    fn goes_on_with(&self, next: &Session) -> bool {
        self.begun.last().is_none_or(|last| {
            let end = last.unix_seconds as f64 + self.latest;
            (next.unix_seconds as f64 - end).abs() < GAP_SECONDS
        })
    }

    fn begin(&mut self, session: &'a Session) {
        self.ended += std::mem::take(&mut self.latest);
        self.conditions.push(&session.conditions);
        self.begun.push(session);
    }

    fn add(&mut self, record: &'a Record) {
        match record {
            Record::Visit(visit) => {
                self.latest = self.latest.max(visit.at_seconds.unwrap_or(0.0));
                self.visits.push(visit);
            }
            Record::Conditions(conditions) => self.conditions.push(conditions),
            Record::Session(session) => self.begin(session),
        }
    }

    fn id(&self) -> String {
        let said = match self.begun.first().filter(|first| first.unix_seconds > 0) {
            Some(first) => first.unix_seconds.to_string(),
            None => format!("{:?}", self.visits),
        };
        blake3::hash(said.as_bytes()).to_hex()[..8].to_string()
    }

    fn folded(self, kept_us: Option<f64>) -> SessionFold<'a> {
        // readings that were waited for do not show how often the machine is fast
        let readings: Vec<f64> = self
            .visits
            .iter()
            .flat_map(|visit: &&Visit| match (visit.arrival_us, visit.sentinel_us) {
                (Some(arrival), _) => vec![arrival],
                (None, pair) => pair.into_iter().flatten().collect(),
            })
            .collect();
        let pace = Pace::of(&readings, kept_us);
        let mut observed: BTreeMap<_, Vec<_>> = BTreeMap::new();
        for &visit in &self.visits {
            let known = visit.sentinel_us.zip(pace);
            let state = known.map_or(State::Slow, |(readings, pace)| pace.state(readings));
            observed.entry(&visit.subject).or_default().push((visit, state));
        }
        let id = self.id();
        let seconds = self.ended + self.latest;
        SessionFold { id, begun: self.begun, conditions: self.conditions, pace, observed, seconds }
    }
}

impl SessionFold<'_> {
    /// The session's facts in a table.
    pub fn facts(&self) -> SessionFacts {
        let visits = self.observed.values().map(Vec::len).sum();
        SessionFacts {
            sentinel_fast_us: self.pace.map(|pace| rounded(pace.fast_us, 6)),
            fast_share: self.pace.map(|pace| rounded(pace.share, 6)),
            met: self.pace.is_some_and(|pace| pace.met),
            visits,
            seconds: rounded(self.seconds, 3),
        }
    }

    /// Its date and the operating system's reports, for a reader.
    pub fn circumstances(&self) -> serde_json::Value {
        let unix_seconds: Vec<u64> = self.begun.iter().map(|session| session.unix_seconds).collect();
        json!({ "id": self.id, "unix_seconds": unix_seconds, "conditions": self.conditions })
    }

    /// Its measurement of each subject; `asked` is the target half-width of intervals if no sentinel was read.
    pub fn measurements(&self, asked: f64) -> BTreeMap<Subject, Measurement> {
        let measured = self.observed.iter().filter_map(|(subject, visits)| {
            Some(((*subject).clone(), measurement(&self.id, visits, asked)?))
        });
        measured.collect()
    }
}

/// All sessions of some rows together.
pub struct Folded<'a> {
    /// The sessions.
    pub sessions: Vec<SessionFold<'a>>,
    /// The measurements of each, by subject.
    pub measured: BTreeMap<Subject, Vec<Measurement>>,
    /// The sessions that met the fast state.
    pub comparable: BTreeSet<String>,
    asked: f64,
}

impl<'a> Folded<'a> {
    /// The sessions in rows; `kept_us` is the sentinel's fast time in earlier ones, if it is known, `asked` the target
    /// half-width of intervals.
    pub fn new(rows: &'a Rows, kept_us: Option<f64>, asked: f64) -> Self {
        let sessions = fold(rows, kept_us);
        let mut measured: BTreeMap<Subject, Vec<Measurement>> = BTreeMap::new();
        let mut comparable = BTreeSet::new();
        let mut folded = Self { sessions, measured: BTreeMap::new(), comparable: BTreeSet::new(), asked };
        let fast_us = folded.fast_us();
        for session in &folded.sessions {
            let met = session.pace.filter(|pace| pace.met);
            if met.zip(fast_us).is_some_and(|(pace, fast)| is_as_fast(pace.fast_us, fast)) {
                comparable.insert(session.id.clone());
            }
            for (subject, one) in session.measurements(asked) {
                measured.entry(subject).or_default().push(one);
            }
        }
        (folded.measured, folded.comparable) = (measured, comparable);
        folded
    }

    /// The sentinel's fast time in the sessions that met the fast state, in microseconds.
    pub fn fast_us(&self) -> Option<f64> {
        let met = self.sessions.iter().filter_map(|session| session.pace).filter(|pace| pace.met);
        met.map(|pace| pace.fast_us).min_by(f64::total_cmp)
    }

    /// The row of a subject.
    pub fn row(&self, subject: &Subject) -> Option<Row> {
        pool(self.measured.get(subject)?, |id| self.comparable.contains(id), self.asked)
    }

    /// Total seconds of all sessions.
    pub fn seconds(&self) -> f64 {
        self.sessions.iter().map(|session| session.seconds).sum()
    }
}

/// The measurement from visits of one subject; `None` if they hold no samples of one kind. Visits in which the
/// processor was boosted for a moment have no part in the fast mode, unless there are no others.
pub fn measurement(session: &str, visits: &[(&Visit, State)], asked: f64) -> Option<Measurement> {
    let watched = visits.iter().any(|(visit, _)| visit.sentinel_us.is_some());
    let in_place = matches!(visits.first()?.0.samples, Samples::InPlace(_));
    let all: Vec<(&Visit, State)> = visits
        .iter()
        .filter(|(visit, _): &&(&Visit, State)| matches!(visit.samples, Samples::InPlace(_)) == in_place)
        .copied()
        .collect();
    let usual: Vec<(&Visit, State)> =
        all.iter().filter(|(_, state)| *state != State::Boosted).copied().collect();
    let counting = if usual.is_empty() { &all } else { &usual };
    let Estimate { us, confirmed, spread } =
        if in_place { in_place_estimate(counting)? } else { whole_estimate(counting)? };
    let wholes: Vec<Vec<f64>> = all.iter().map(|(visit, _)| visit.samples.of_wholes()).collect();
    let samples = wholes.concat();
    let mut measured = Measurement {
        session: session.to_string(),
        us,
        interval_us: Some(undisturbed::interval(us, confirmed, spread)),
        typical_us: stats::median(&samples),
        mad_us: stats::mad(&samples),
        spread,
        samples: samples.len(),
        visits: all.len(),
        confirmed,
        watched,
        in_place,
        narrow: false,
    };
    if !watched {
        let (median, interval) = stats::median_of_visits(&wholes);
        (measured.us, measured.typical_us, measured.spread) = (median, median, 0.0);
        measured.narrow = interval.is_some_and(|[low, high]| 0.5 * (high - low) <= asked * median);
        measured.interval_us = interval;
    }
    Some(measured.rounded())
}

fn whole_estimate(visits: &[(&Visit, State)]) -> Option<Estimate> {
    let looks = visits.iter().filter_map(|(visit, state)| match &visit.samples {
        Samples::Whole(samples) => Some(Look { samples, fast: *state == State::Fast }),
        Samples::InPlace(_) => None,
    });
    undisturbed::estimate(&looks.collect::<Vec<_>>())
}

/// Least share of a network's time in layers with the network's number of confirming visits.
const CONFIRMED_SHARE: f64 = 0.9;

/// A network whose layers were timed in place: the sum of the fast modes of its layers. Its number of confirming visits
/// is the one that layers with nine tenths of its time reach.
fn in_place_estimate(visits: &[(&Visit, State)]) -> Option<Estimate> {
    let runs = visits.iter().filter_map(|(visit, state)| match &visit.samples {
        Samples::InPlace(runs) => Some((runs.as_slice(), *state == State::Fast)),
        Samples::Whole(_) => None,
    });
    let runs: Vec<(&[Vec<f64>], bool)> = runs.collect();
    let layers = runs.first()?.0.first()?.len();
    let mut positions = Vec::with_capacity(layers);
    for layer in 0..layers {
        let mut columns: Vec<(Vec<f64>, bool)> = Vec::with_capacity(runs.len());
        for (runs, fast) in &runs {
            columns.push((runs.iter().filter_map(|run| run.get(layer)).copied().collect(), *fast));
        }
        let looks: Vec<Look<'_>> =
            columns.iter().map(|(samples, fast)| Look { samples, fast: *fast }).collect();
        positions.push(undisturbed::estimate(&looks)?);
    }
    let us: f64 = positions.iter().map(|position| position.us).sum();
    // layers lie apart in memory, so that their deviations are independent
    let squares: f64 = positions.iter().map(|position| (position.us * position.spread).powi(2)).sum();
    positions.sort_by_key(|position| std::cmp::Reverse(position.confirmed));
    let mut share = 0.0;
    let mut confirmed = 0;
    for position in &positions {
        if share < CONFIRMED_SHARE {
            confirmed = position.confirmed;
        }
        share += position.us / us;
    }
    Some(Estimate { us, confirmed, spread: squares.sqrt() / us })
}

#[cfg(test)]
#[path = "fold/tests.rs"]
mod tests;
