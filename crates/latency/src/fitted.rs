//! Measurements of whole sub-networks of one space, next to a table's predictions: one half fits the correction, the
//! other half judges it.

pub(super) mod old;
mod validation;
pub(super) mod wire;

use std::collections::{BTreeMap, BTreeSet};

use base::Error;
use base::Result;
use base::document::rounded;
use serde::{Deserialize, Serialize};
use space::{Arch, Extent, SearchSpace};

pub use validation::{Between, LatencyValidation, ValidationTypical, of as validation_of};

use super::correction::{Correction, Features, Observation, fit};
use super::row::{DECIMALS, GIVEN, Measurement, Row, pool};

/// The use of a sub-network.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Part {
    /// The correction was fitted to it.
    Fit,
    /// It judges the correction.
    Check,
}

/// A sub-network's prediction without one session's measurements, in microseconds.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct LeftOut {
    /// The session that was left out, and in which the sub-network was measured.
    pub session: String,
    /// The prediction.
    pub predicted_us: f64,
}

/// One sub-network, in microseconds.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct NetworkRow {
    /// The sub-network.
    pub arch: Arch,
    /// Its use.
    pub part: Part,
    /// Sum of its layers' latencies.
    pub sum_us: f64,
    /// The corrected sum.
    pub predicted_us: f64,
    /// Its measurement over all sessions.
    pub took: Row,
    /// Its measurement in each session.
    pub sessions: Vec<Measurement>,
    /// Predictions without single sessions; empty if there is only one.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub left_out: Vec<LeftOut>,
}

/// One sub-network from a search with a limit, in microseconds.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct SearchedRow {
    /// The limit of the search.
    pub limit_us: f64,
    /// The sub-network.
    pub arch: Arch,
    /// Whether it sets the upper end of intervals, or judges that.
    pub part: Part,
    /// The prediction.
    pub predicted_us: f64,
    /// Its measurement over all sessions.
    pub took: Row,
    /// Its measurement in each session.
    pub sessions: Vec<Measurement>,
}

/// A table's data on the sub-networks of one space.
#[derive(Clone, Debug, PartialEq)]
pub struct SpaceFit {
    /// The space's name.
    pub name: String,
    /// The space at all resolutions at which sub-networks were measured; absent in tables before version 3.
    pub space: Option<SearchSpace>,
    /// Resolutions of the sub-networks.
    pub resolutions: Vec<Extent>,
    /// The correction from the sum of the layers to a network's latency.
    pub correction: Correction,
    /// Sub-networks by rising sum.
    pub networks: Vec<NetworkRow>,
    /// Sub-networks from searches.
    pub searched: Vec<SearchedRow>,
}

/// Least number of sub-networks that are split into a half to fit and a half to judge.
pub const LEAST_NETWORKS: usize = 8;
/// Level of the prediction interval whose upper end is compared with limits.
const CONFIDENCE: f64 = 0.95;

/// The sessions' measurements, from which rows follow.
pub struct Evidence<'a> {
    /// The measurements of each layer.
    pub layers: &'a BTreeMap<String, Vec<Measurement>>,
    /// Sessions that met the fast state.
    pub comparable: &'a BTreeSet<String>,
    /// The requested half-width of intervals.
    pub asked: f64,
}

impl Evidence<'_> {
    /// The row of several measurements.
    pub fn row(&self, measured: &[Measurement]) -> Option<Row> {
        let row = pool(measured, |id| self.comparable.contains(id), self.asked)?;
        // numbers from another program stay as they are
        let given = measured.first().filter(|one| measured.len() == 1 && one.session == GIVEN);
        Some(given.map_or(row, |one| Row { interval_us: one.interval_us, ..row }))
    }

    /// The rows of all layers, without one session's measurements.
    pub fn rows(&self, without: Option<&str>) -> BTreeMap<String, Row> {
        let mut rows = BTreeMap::new();
        for (key, measured) in self.layers {
            let kept = measured.iter().filter(|one| Some(one.session.as_str()) != without);
            let kept: Vec<Measurement> = kept.cloned().collect();
            if let Some(row) = self.row(&kept) {
                rows.insert(key.clone(), row);
            }
        }
        rows
    }
}

impl NetworkRow {
    /// Prediction over measurement, less 1.
    pub fn relative_error(&self) -> f64 {
        self.predicted_us / self.took.us - 1.0
    }

    /// Its latency without one session, if others measured it.
    fn took_without(&self, session: &str, evidence: &Evidence<'_>) -> Option<Row> {
        let kept: Vec<Measurement> =
            self.sessions.iter().filter(|one| one.session != session).cloned().collect();
        evidence.row(&kept)
    }
}

impl SpaceFit {
    /// An empty fit for a space.
    pub fn empty(space: &SearchSpace) -> Self {
        Self {
            name: space.name().to_string(),
            space: Some(space.clone()),
            resolutions: space.resolutions().to_vec(),
            correction: Correction::NONE,
            networks: Vec::new(),
            searched: Vec::new(),
        }
    }

    /// Adds the resolutions of the same space.
    ///
    /// # Errors
    /// As [`SearchSpace::at_resolutions_of`].
    pub fn widen(&mut self, space: &SearchSpace) -> Result<()> {
        let wider =
            self.space.as_ref().map_or_else(|| Ok(space.clone()), |own| own.at_resolutions_of(space))?;
        let all: BTreeSet<Extent> = self.resolutions.iter().chain(space.resolutions()).copied().collect();
        self.resolutions = all.into_iter().collect();
        self.space = Some(wider);
        Ok(())
    }

    /// Adds a session's measurement of a sub-network; it replaces an earlier one of the same session. A new sub-network
    /// judges, unless it is assigned when the fit is made again.
    pub fn add(&mut self, arch: &Arch, one: Measurement) {
        if let Some(network) = self.networks.iter_mut().find(|network| network.arch == *arch) {
            return insert(&mut network.sessions, one);
        }
        self.networks.push(NetworkRow {
            arch: arch.clone(),
            part: Part::Check,
            sum_us: 0.0,
            predicted_us: 0.0,
            took: unpooled(&one),
            sessions: vec![one],
            left_out: Vec::new(),
        });
    }

    /// Fits the correction to the evidence, and predicts all sub-networks; `new` ones are assigned to the two halves
    /// alternately, by rising sum. If too few count for a fit, all are used.
    ///
    /// # Errors
    /// If one is not in the space, or a layer has no row.
    pub fn refit(
        &mut self,
        space: &SearchSpace,
        evidence: &Evidence<'_>,
        new: &BTreeSet<Arch>,
    ) -> Result<()> {
        let rows = evidence.rows(None);
        for network in &mut self.networks {
            network.took = evidence.row(&network.sessions).unwrap_or(network.took);
        }
        for searched in &mut self.searched {
            searched.took = evidence.row(&searched.sessions).unwrap_or(searched.took);
        }
        self.correction = Correction::NONE;
        self.predict(space, &rows)?;
        self.networks.sort_by(|a, b| a.sum_us.total_cmp(&b.sum_us).then_with(|| a.arch.cmp(&b.arch)));
        let fresh = self.networks.iter_mut().filter(|network| new.contains(&network.arch));
        fresh.enumerate().for_each(|(index, network)| {
            network.part = if index % 2 == 0 { Part::Fit } else { Part::Check };
        });
        self.correction = self.fitted(space, &rows, |network| Some(network.took))?;
        self.predict(space, &rows)?;
        self.leave_sessions_out(space, evidence)
    }

    /// The correction fitted to the latencies in `took` of the sub-networks to fit to.
    fn fitted(
        &self,
        space: &SearchSpace,
        rows: &BTreeMap<String, Row>,
        took: impl Fn(&NetworkRow) -> Option<Row>,
    ) -> Result<Correction> {
        let all: Vec<(&NetworkRow, Row)> = self
            .networks
            .iter()
            .filter(|network: &&NetworkRow| network.part == Part::Fit)
            .filter_map(|network| Some((network, took(network)?)))
            .collect();
        let accepted: Vec<_> = all.iter().filter(|(_, row)| row.accepted).copied().collect();
        let used = if accepted.len() >= LEAST_NETWORKS / 2 { accepted } else { all };
        let mut observations = Vec::with_capacity(used.len());
        for (network, row) in used {
            let specs = space.lower(&network.arch)?;
            let mut timed = Vec::with_capacity(specs.len());
            for spec in &specs {
                timed.push((spec, layer_us(rows, &network.arch, &spec.key())?));
            }
            observations.push(Observation { features: Features::sum(timed), measured_us: row.us });
        }
        // no layer of the space may have a negative time, even one that no measured network has
        let known = space.layers().into_iter();
        let layers = known.filter_map(|(key, spec)| Some(Features::of(&spec, rows.get(&key)?.us)));
        fit(&observations, &layers.collect::<Vec<_>>())
    }

    fn predict(&mut self, space: &SearchSpace, rows: &BTreeMap<String, Row>) -> Result<()> {
        let correction = self.correction;
        for network in &mut self.networks {
            let (sum_us, predicted_us) = predicted(space, rows, &network.arch, &correction)?;
            (network.sum_us, network.predicted_us) = (sum_us, predicted_us);
        }
        for searched in &mut self.searched {
            searched.predicted_us = predicted(space, rows, &searched.arch, &correction)?.1;
        }
        Ok(())
    }

    /// Predicts the sub-networks of each session from all other sessions.
    fn leave_sessions_out(&mut self, space: &SearchSpace, evidence: &Evidence<'_>) -> Result<()> {
        self.networks.iter_mut().for_each(|network| network.left_out.clear());
        let sessions: BTreeSet<String> = self
            .networks
            .iter()
            .flat_map(|network| &network.sessions)
            .map(|one| one.session.clone())
            .collect();
        for session in &sessions {
            let rows = evidence.rows(Some(session));
            let Ok(correction) = self.fitted(space, &rows, |network| network.took_without(session, evidence))
            else {
                // its layers were measured in this session only
                continue;
            };
            if !self
                .networks
                .iter()
                .any(|network| network.part == Part::Fit && network.took_without(session, evidence).is_some())
            {
                continue;
            }
            for network in &mut self.networks {
                let judges = network.part == Part::Check;
                let measured = network.sessions.iter().any(|one| one.session == *session);
                if judges
                    && measured
                    && let Ok((_, predicted_us)) = predicted(space, &rows, &network.arch, &correction)
                {
                    network.left_out.push(LeftOut { session: session.clone(), predicted_us });
                }
            }
        }
        Ok(())
    }

    /// Whether there are enough sub-networks to correct and judge sums of layers.
    pub fn is_enough(&self) -> bool {
        self.networks.len() >= LEAST_NETWORKS
    }

    /// Sub-networks that the correction was fitted to, or that set the margin: none of them may judge it.
    pub fn spent(&self) -> BTreeSet<&Arch> {
        let learned = self.searched.iter().filter(|row| row.part == Part::Fit).map(|row| &row.arch);
        self.networks.iter().map(|network| &network.arch).chain(learned).collect()
    }

    /// Checks that all numbers are possible; `place` names the file in messages.
    pub(super) fn check(&self, place: &str) -> Result<()> {
        let wrong =
            |field: String, got: String| Err(Error::invalid(place, field, "finite numbers above 0", got));
        if !self.correction.is_sound() {
            return wrong(format!("correction of space {}", self.name), format!("{:?}", self.correction));
        }
        let sound = |value: &f64| value.is_finite() && *value > 0.0;
        for network in &self.networks {
            let numbers = [network.sum_us, network.predicted_us, network.took.us, network.took.typical_us];
            let left_out = network.left_out.iter().map(|left_out| left_out.predicted_us);
            if !numbers.into_iter().chain(left_out).all(|value| sound(&value)) {
                return wrong(format!("network {}", network.arch), format!("{numbers:?}"));
            }
        }
        for SearchedRow { limit_us, arch, predicted_us, took, .. } in &self.searched {
            let numbers = [*limit_us, *predicted_us, took.us, took.typical_us];
            if !numbers.iter().all(sound) {
                return wrong(format!("searched {arch}"), format!("{numbers:?}"));
            }
        }
        Ok(())
    }
}

/// A row of one measurement until sessions are pooled.
fn unpooled(one: &Measurement) -> Row {
    Row {
        us: one.us,
        interval_us: one.interval_us,
        typical_us: one.typical_us,
        mad_us: one.mad_us,
        samples: one.samples,
        visits: one.visits,
        confirmed: 0,
        undisturbed: one.watched,
        accepted: false,
        converged: false,
    }
}

/// Enters a session's measurement in place of an earlier one of the same session.
pub(super) fn insert(sessions: &mut Vec<Measurement>, one: Measurement) {
    sessions.retain(|other| other.session != one.session);
    sessions.push(one);
    sessions.sort_by(|a, b| a.session.cmp(&b.session));
}

/// The sum of a network's layers and the corrected sum, in microseconds.
///
/// # Errors
/// If it is not in the space, or a layer has no row.
pub fn predicted(
    space: &SearchSpace,
    rows: &BTreeMap<String, Row>,
    arch: &Arch,
    correction: &Correction,
) -> Result<(f64, f64)> {
    space.check(arch)?;
    let mut sum = 0.0;
    let mut predicted = correction.constant_us;
    for layer in space.lower(arch)? {
        let us = layer_us(rows, arch, &layer.key())?;
        sum += us;
        predicted += correction.layer(&layer, us);
    }
    Ok((rounded(sum, DECIMALS), rounded(predicted, DECIMALS)))
}

fn layer_us(rows: &BTreeMap<String, Row>, arch: &Arch, key: &str) -> Result<f64> {
    let row = rows.get(key).ok_or_else(|| {
        let expected = format!("a latency of \"{key}\"");
        Error::invalid("rows", format!("layers of {arch}"), expected, "none")
            .and_then_do("measure the layers of the space too")
    })?;
    Ok(row.us)
}

#[cfg(test)]
#[path = "fitted/tests.rs"]
pub(crate) mod tests;
