//! What a table's file of version 2 said of the sub-networks of one space: medians, of one session.

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
    /// Judged by other rules.
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

/// A median of which no more is known.
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

impl OldSpace {
    /// The same as it is known now; `place` names the file.
    pub fn checked(self, place: &str, session: &str) -> Result<SpaceFit> {
        let network = |old: OldNetwork| {
            let us = old.second_us.map_or(old.first_us, |second| 0.5 * (old.first_us + second));
            let one = measurement(session, us, if old.second_us.is_some() { 6 } else { 3 });
            NetworkRow {
                arch: old.arch,
                part: old.part,
                sum_us: old.sum_us,
                predicted_us: old.predicted_us,
                took: super::Row { accepted: true, ..unpooled(&one) },
                sessions: vec![one],
                left_out: Vec::new(),
            }
        };
        let searched = |old: OldSearched| {
            let one = measurement(session, old.measured_us, 3);
            SearchedRow {
                limit_us: old.limit_us,
                arch: old.arch,
                part: old.part,
                predicted_us: old.predicted_us,
                took: super::Row { accepted: true, ..unpooled(&one) },
                sessions: vec![one],
            }
        };
        let fit = SpaceFit {
            name: self.name,
            space: None,
            resolutions: self.resolutions,
            correction: self.correction,
            networks: self.networks.into_iter().map(network).collect(),
            searched: self.searched.into_iter().map(searched).collect(),
        };
        fit.check(place)?;
        Ok(fit)
    }
}
