//! What whole sub-networks of one space took, next to what a table predicts for them: one half is fitted to, the other
//! half judges.

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

/// What a sub-network was used for.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Part {
    /// The correction was fitted to it.
    Fit,
    /// It judges the correction.
    Check,
}

/// What a sub-network would have been predicted to take without one session's measurements, in microseconds.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct LeftOut {
    /// The session that had no part in the prediction, and in which the sub-network was measured.
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
    /// What it was used for.
    pub part: Part,
    /// Sum of its layers' latencies.
    pub sum_us: f64,
    /// The sum, corrected.
    pub predicted_us: f64,
    /// What it took, by all sessions together.
    pub took: Row,
    /// What it took in each session.
    pub sessions: Vec<Measurement>,
    /// Predictions without single sessions; empty where there is but one.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub left_out: Vec<LeftOut>,
}

/// One sub-network that a search found for a limit, in microseconds.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct SearchedRow {
    /// The limit that it was searched for.
    pub limit_us: f64,
    /// The sub-network.
    pub arch: Arch,
    /// Whether the upper end of intervals is set by it, or it judges that.
    pub part: Part,
    /// What was predicted.
    pub predicted_us: f64,
    /// What it took, by all sessions together.
    pub took: Row,
    /// What it took in each session.
    pub sessions: Vec<Measurement>,
}

/// What a table knows of the sub-networks of one space.
#[derive(Clone, Debug, PartialEq)]
pub struct SpaceFit {
    /// The space's name.
    pub name: String,
    /// The space at all resolutions at which sub-networks were measured; tables before version 3 do not hold it.
    pub space: Option<SearchSpace>,
    /// Resolutions that the sub-networks were drawn from.
    pub resolutions: Vec<Extent>,
    /// What makes the sum of its layers a network's latency.
    pub correction: Correction,
    /// Sub-networks by rising sum.
    pub networks: Vec<NetworkRow>,
    /// Sub-networks that searches found.
    pub searched: Vec<SearchedRow>,
}

/// Least number of sub-networks that are divided into a half to fit and a half to judge.
pub const LEAST_NETWORKS: usize = 8;
/// Level of the prediction interval whose upper end a limit is compared with.
const CONFIDENCE: f64 = 0.95;

/// What sessions measured, from which rows follow.
pub struct Evidence<'a> {
    /// Of each layer.
    pub layers: &'a BTreeMap<String, Vec<Measurement>>,
    /// Sessions that met the fast state.
    pub comparable: &'a BTreeSet<String>,
    /// How narrow intervals were asked to be.
    pub asked: f64,
}

impl Evidence<'_> {
    /// What measurements say together.
    pub fn row(&self, measured: &[Measurement]) -> Option<Row> {
        let row = pool(measured, |id| self.comparable.contains(id), self.asked)?;
        // what another program gave stays as it gave it
        let given = measured.first().filter(|one| measured.len() == 1 && one.session == GIVEN);
        Some(given.map_or(row, |one| Row { interval_us: one.interval_us, ..row }))
    }

    /// The rows of all layers but for what one session measured.
    pub fn rows(&self, without: Option<&str>) -> BTreeMap<String, Row> {
        self.layers
            .iter()
            .filter_map(|(key, measured): (&String, &Vec<Measurement>)| {
                let kept: Vec<Measurement> =
                    measured.iter().filter(|one| Some(one.session.as_str()) != without).cloned().collect();
                Some((key.clone(), self.row(&kept)?))
            })
            .collect()
    }
}

impl NetworkRow {
    /// Prediction over measurement, less 1.
    pub fn relative_error(&self) -> f64 {
        self.predicted_us / self.took.us - 1.0
    }

    /// What it took without one session, if others measured it.
    fn took_without(&self, session: &str, evidence: &Evidence<'_>) -> Option<Row> {
        let kept: Vec<Measurement> =
            self.sessions.iter().filter(|one| one.session != session).cloned().collect();
        evidence.row(&kept)
    }
}

impl SpaceFit {
    /// An empty one for a space.
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

    /// Adds what a session measured of a sub-network; what the same session had measured before is replaced. A new one
    /// judges, unless it is dealt out when the fit is made again.
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

    /// Fits the correction to the evidence, and predicts all sub-networks; `new` ones are dealt out, every other one by
    /// rising sum. Where too few count to be fitted to, all are used.
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

    /// The correction fitted to what `took` says of the sub-networks to fit to.
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
        // no layer of the space may take less than nothing, those of no measured network either
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

    /// For each session predicts the sub-networks that it measured from all other sessions.
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

    /// Whether there are sub-networks enough to correct and judge sums of layers.
    pub fn is_enough(&self) -> bool {
        self.networks.len() >= LEAST_NETWORKS
    }

    /// Sub-networks that the correction was fitted to, or that set the margin: none of them may judge it.
    pub fn spent(&self) -> BTreeSet<&Arch> {
        let learned = self.searched.iter().filter(|row| row.part == Part::Fit).map(|row| &row.arch);
        self.networks.iter().map(|network| &network.arch).chain(learned).collect()
    }

    /// Whether all numbers can be; `place` names the file in messages.
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

/// The sum of a network's layers and the same corrected, in microseconds.
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
