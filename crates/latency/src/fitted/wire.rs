//! Sub-networks of one space in a table's file.

use base::Error;
use base::Result;
use serde::{Deserialize, Serialize};
use space::{Extent, SearchSpace};

use super::{LatencyValidation, NetworkRow, SearchedRow, SpaceFit, ValidationTypical};
use crate::correction::Correction;

#[derive(Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct SpaceWire {
    name: String,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    space: Option<SearchSpace>,
    resolutions: Vec<Extent>,
    correction: Correction,
    /// Both follow from the lists; for a reader.
    validation: LatencyValidation,
    validation_typical: ValidationTypical,
    networks: Vec<NetworkRow>,
    searched: Vec<SearchedRow>,
}

impl From<&SpaceFit> for SpaceWire {
    fn from(fit: &SpaceFit) -> Self {
        let validation = fit.validation();
        let validation_typical = fit.validation_typical();
        let SpaceFit { name, space, resolutions, correction, networks, searched } = fit.clone();
        Self { name, space, resolutions, correction, validation, validation_typical, networks, searched }
    }
}

impl SpaceWire {
    /// The fit, if its numbers are possible and the validation follows from the lists; `place` names the file.
    pub fn checked(self, place: &str) -> Result<SpaceFit> {
        let Self { name, space, resolutions, correction, validation, validation_typical, networks, searched } =
            self;
        let fit = SpaceFit { name, space, resolutions, correction, networks, searched };
        fit.check(place)?;
        let expected = (fit.validation(), fit.validation_typical());
        let got = (validation, validation_typical);
        if expected != got {
            let field = format!("validation of space {}", fit.name);
            return Err(Error::invalid(place, field, "the values computed from the networks", "others")
                .and_then_do("undo the edit, or measure again"));
        }
        Ok(fit)
    }
}
