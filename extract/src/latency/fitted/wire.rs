//! What a table's file says of the sub-networks of one space.

use serde::{Deserialize, Serialize};
use supernet::Error;

use super::{NetworkRow, SearchedRow, SpaceFit, Validation};
use crate::error::Result;
use crate::latency::correction::Correction;

#[derive(Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(in crate::latency) struct SpaceWire {
    name: String,
    resolutions: Vec<usize>,
    correction: Correction,
    /// Follows from the lists; for a reader.
    validation: Validation,
    networks: Vec<NetworkRow>,
    searched: Vec<SearchedRow>,
}

impl From<&SpaceFit> for SpaceWire {
    fn from(fit: &SpaceFit) -> Self {
        let validation = fit.validation();
        let SpaceFit { name, resolutions, correction, networks, searched } = fit.clone();
        Self { name, resolutions, correction, validation, networks, searched }
    }
}

impl SpaceWire {
    /// What is known, if the numbers can be and the validation follows from the lists; `place` names the file.
    pub fn checked(self, place: &str) -> Result<SpaceFit> {
        let Self { name, resolutions, correction, validation, networks, searched } = self;
        let fit = SpaceFit { name, resolutions, correction, networks, searched };
        fit.check(place)?;
        let (expected, got) = (fit.validation(), validation);
        if expected != got {
            let field = format!("validation of space {}", fit.name);
            let (expected, got) =
                (format!("{expected:?}, which follows from the networks"), format!("{got:?}"));
            return Err(Error::invalid(place, field, expected, got).into());
        }
        Ok(fit)
    }
}
