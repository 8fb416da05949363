//! The choices of a space that an estimator has seen in its rows.

use std::collections::BTreeSet;

use base::Error;
use serde::{Deserialize, Serialize};
use space::{Arch, Encoded, Encoder, GeneId, Index, SearchSpace, Value};

use crate::error::Result;

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
    /// The choices of the encoder's space that no row has.
    pub(super) fn of<'a>(encoder: &Encoder, archs: impl Iterator<Item = &'a Arch>, active: &Encoded) -> Self {
        let seen: BTreeSet<usize> = active.features().iter().map(|feature| *feature as usize).collect();
        let features = (0..encoder.len()).filter(|feature| !seen.contains(feature)).collect();
        let mut depths: BTreeSet<(usize, usize)> = all_depths(encoder).collect();
        for arch in archs {
            let row = encoder.space().row(arch).unwrap_or_default();
            for (at, gene) in encoder.unseen().enumerate() {
                if let Some(value) = row.get(gene) {
                    depths.remove(&(at, depth_of(encoder, gene, *value)));
                }
            }
        }
        Self { features, depths: depths.into_iter().collect() }
    }

    /// Refuses places and depths that the space does not have.
    pub(super) fn check(&self, place: &str, encoder: &Encoder) -> base::Result<()> {
        let rising = self.features.is_sorted_by(|a, b| a < b) && self.depths.is_sorted_by(|a, b| a < b);
        let known: BTreeSet<_> = all_depths(encoder).collect();
        let known = self.features.iter().all(|feature| *feature < encoder.len())
            && self.depths.iter().all(|depth| known.contains(depth));
        if rising && known {
            return Ok(());
        }
        Err(Error::invalid(place, "unseen", "rising choices of the space", format!("{self:?}")))
    }

    /// Names the choices that no row had and that `space` has: the encoder's at some of its resolutions. Blocks that
    /// exist only in depths that no row had are not named in addition.
    pub fn names(&self, encoder: &Encoder, space: &SearchSpace) -> Vec<String> {
        let genes = encoder.space().genome().genes();
        let mut names = Vec::new();
        for (at, gene) in encoder.unseen().enumerate() {
            let values = 0..genes[gene].values.len() as Index;
            names.extend(
                values
                    .filter(|value: &Index| self.depths.contains(&(at, depth_of(encoder, gene, *value))))
                    .map(|value| genes[gene].describe(value)),
            );
        }
        for feature in &self.features {
            let Some((gene, value)) = encoder.choice(*feature) else { continue };
            let listed = space.genome().index_of(gene, genes[gene].values[usize::from(value)]).is_some();
            if listed && self.exists(encoder, gene) {
                names.push(genes[gene].describe(value));
            }
        }
        names
    }

    /// Whether rows had a gene: whatever its existence hangs on had a value that lets it exist.
    fn exists(&self, encoder: &Encoder, gene: GeneId) -> bool {
        let genes = encoder.space().genome().genes();
        let Some((parent, among)) = &genes[gene].exists else { return true };
        let Some(at) = encoder.unseen().position(|unseen| unseen == *parent) else { return true };
        let values = (0..among.len()).filter(|value| among[*value]);
        values
            .into_iter()
            .any(|value| !self.depths.contains(&(at, depth_of(encoder, *parent, value as Index))))
    }
}

/// The number that a value of a gene that no feature shows is written as: a depth.
fn depth_of(encoder: &Encoder, gene: GeneId, value: Index) -> usize {
    match encoder.space().genome().genes()[gene].values[usize::from(value)] {
        Value::Count(count) => count,
        _ => usize::from(value),
    }
}

/// Genes that no feature shows, counted from 0, with all they can be: stages with their depths, rising.
fn all_depths(encoder: &Encoder) -> impl Iterator<Item = (usize, usize)> + '_ {
    let genes = encoder.space().genome().genes();
    encoder.unseen().enumerate().flat_map(move |(at, gene)| {
        (0..genes[gene].values.len() as Index).map(move |value| (at, depth_of(encoder, gene, value)))
    })
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
