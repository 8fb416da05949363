//! Which choices of a space an estimator has seen in its rows.

use std::collections::BTreeSet;

use base::Error;
use serde::{Deserialize, Serialize};
use space::{Arch, SearchSpace};

use crate::error::Result;
use search::encode::{Encoded, Encoder, Feature};

/// Choices of a space that no row had: what an estimator says of sub-networks that have one of them is a guess.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Unseen {
    /// Places among the encoder's features, rising.
    features: Vec<usize>,
    /// Stages, counted from 0, with depths that none of their rows had, rising.
    depths: Vec<(usize, usize)>,
}

impl Unseen {
    /// What none of the rows has, which lie in the encoder's space.
    pub(super) fn of<'a>(encoder: &Encoder, archs: impl Iterator<Item = &'a Arch>, active: &Encoded) -> Self {
        let seen: BTreeSet<usize> = active.features().iter().map(|feature| *feature as usize).collect();
        let features = (0..encoder.len()).filter(|feature| !seen.contains(feature)).collect();
        let mut depths: BTreeSet<(usize, usize)> = all_depths(encoder.space()).collect();
        for arch in archs {
            for (stage, blocks) in arch.stages.iter().enumerate() {
                depths.remove(&(stage, blocks.len()));
            }
        }
        Self { features, depths: depths.into_iter().collect() }
    }

    /// Refuses places and depths that the space does not have.
    pub(super) fn check(&self, place: &str, encoder: &Encoder) -> base::Result<()> {
        let rising = self.features.is_sorted_by(|a, b| a < b) && self.depths.is_sorted_by(|a, b| a < b);
        let known: BTreeSet<_> = all_depths(encoder.space()).collect();
        let known = self.features.iter().all(|feature| *feature < encoder.len())
            && self.depths.iter().all(|depth| known.contains(depth));
        if rising && known {
            return Ok(());
        }
        Err(Error::invalid(place, "unseen", "rising choices of the space", format!("{self:?}")))
    }

    /// Names the choices that no row had and that `space` has: the encoder's at some of its resolutions. Blocks that
    /// exist in depths only that no row had are not named beside these.
    pub fn names(&self, encoder: &Encoder, space: &SearchSpace) -> Vec<String> {
        let depth = |(stage, depth): &(usize, usize)| format!("stage {}, depth {depth}", stage + 1);
        let mut names: Vec<String> = self.depths.iter().map(depth).collect();
        for feature in &self.features {
            let Some(choice) = encoder.feature(*feature) else { continue };
            let counts = match choice {
                Feature::Resolution(side) => space.resolutions().contains(&side),
                Feature::Width { .. } => true,
                Feature::Kernel { stage, position, .. } | Feature::Expand { stage, position, .. } => {
                    self.exists(encoder.space(), stage, position)
                }
            };
            if counts {
                names.push(choice.to_string());
            }
        }
        names
    }

    /// Whether rows had a block at this place.
    fn exists(&self, space: &SearchSpace, stage: usize, position: usize) -> bool {
        let mut deeper = all_depths(space).filter(|(at, depth)| *at == stage && *depth > position);
        deeper.any(|depth| !self.depths.contains(&depth))
    }
}

/// Stages, counted from 0, with their depths, rising.
fn all_depths(space: &SearchSpace) -> impl Iterator<Item = (usize, usize)> + '_ {
    let of = |(stage, choices): (usize, &space::Stage)| {
        choices.choices.depth.clone().into_iter().map(move |depth| (stage, depth))
    };
    space.stages().iter().enumerate().flat_map(of)
}

/// Names in a message, the others counted.
const NAMED: usize = 6;

/// Refuses to go on with choices that no row had.
pub(super) fn refuse(names: &[String]) -> Result<()> {
    if names.is_empty() {
        return Ok(());
    }
    let listed = names.iter().take(NAMED).cloned().collect::<Vec<_>>().join("; ");
    let more = match names.len().saturating_sub(NAMED) {
        0 => String::new(),
        more => format!("; and {more} more"),
    };
    let error = Error::invalid(
        "estimator",
        "choices of the searched space",
        "ones that its rows had",
        format!("{listed}{more}, which none had"),
    );
    let next = "sample sub-networks that have them and fit again, search without them (--resolutions, or another space), or go on with --extrapolate";
    Err(error.and_then_do(next).into())
}
