//! Sub-networks of one space in a table's file of version 2: medians, of one session.

use base::Result;
use serde::Deserialize;
use serde_json::Value;
use space::{Arch, Extent};

use super::{NetworkRow, Part, SearchedRow, SpaceFit, unpooled};
use crate::correction::Correction;
use crate::row::Measurement;

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct OldSpace {
    name: String,
    resolutions: Vec<Extent>,
    correction: Correction,
    /// Assigned by the rules of that version.
    #[serde(rename = "validation")]
    _validation: Value,
    networks: Vec<OldNetwork>,
    searched: Vec<OldSearched>,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct OldNetwork {
    arch: Arch,
    part: Part,
    sum_us: f64,
    predicted_us: f64,
    first_us: f64,
    #[serde(default)]
    second_us: Option<f64>,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct OldSearched {
    limit_us: f64,
    arch: Arch,
    part: Part,
    predicted_us: f64,
    measured_us: f64,
}

/// A measurement of which only the median is known.
fn measurement(session: &str, us: f64, visits: usize) -> Measurement {
    Measurement {
        session: session.to_string(),
        us,
        interval_us: None,
        typical_us: us,
        mad_us: 0.0,
        spread: 0.0,
        samples: visits,
        visits,
        confirmed: 0,
        watched: false,
        in_place: false,
        narrow: true,
    }
}

impl OldNetwork {
    fn checked(self, session: &str) -> NetworkRow {
        let us = self.second_us.map_or(self.first_us, |second| 0.5 * (self.first_us + second));
        let one = measurement(session, us, if self.second_us.is_some() { 6 } else { 3 });
        NetworkRow {
            arch: self.arch,
            part: self.part,
            sum_us: self.sum_us,
            predicted_us: self.predicted_us,
            took: super::Row { accepted: true, ..unpooled(&one) },
            sessions: vec![one],
            left_out: Vec::new(),
        }
    }
}

impl OldSearched {
    fn checked(self, session: &str) -> SearchedRow {
        let one = measurement(session, self.measured_us, 3);
        SearchedRow {
            limit_us: self.limit_us,
            arch: self.arch,
            part: self.part,
            predicted_us: self.predicted_us,
            took: super::Row { accepted: true, ..unpooled(&one) },
            sessions: vec![one],
        }
    }
}

impl OldSpace {
    /// The fit in the present form; `place` names the file.
    pub fn checked(self, place: &str, session: &str) -> Result<SpaceFit> {
        let fit = SpaceFit {
            name: self.name,
            space: None,
            resolutions: self.resolutions,
            correction: self.correction,
            networks: self.networks.into_iter().map(|network| network.checked(session)).collect(),
            searched: self.searched.into_iter().map(|searched| searched.checked(session)).collect(),
        };
        fit.check(place)?;
        Ok(fit)
    }
}
