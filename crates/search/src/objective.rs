//! The value that a search maximizes: the accuracy that an estimator expects, or a synthetic one in its place.

use base::random::rng_for;
use rand::Rng;
use space::{Arch, Encoded, Encoder, RESOLUTION, SearchSpace};

use crate::error::Result;

/// What is known of one gene in a set of sub-networks.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct OpenFeatures {
    /// The features of its values, one of which each sub-network has that has the gene.
    pub features: Vec<u32>,
    /// Whether some of the sub-networks may not have the gene.
    pub may_be_absent: bool,
}

/// The value to maximize.
pub trait Objective: Sync {
    /// The encoder of the sub-networks that it knows.
    fn encoder(&self) -> &Encoder;

    /// A value for each sub-network, the greater the better; it does not depend on the other sub-networks of the call.
    ///
    /// # Errors
    /// If a feature is not one of the encoder's.
    fn predict_encoded(&self, encoded: &Encoded) -> Result<Vec<f32>>;

    /// Approximately the change of each sub-network's value per feature: its derivatives, one row over all the
    /// encoder's features per sub-network; `None` if there are none, and a search evaluates neighbors instead.
    ///
    /// # Errors
    /// If a feature is not one of the encoder's.
    fn slopes(&self, _encoded: &Encoded) -> Result<Option<Vec<f32>>> {
        Ok(None)
    }

    /// Bounds on the values of all sub-networks that have one of the open features of each gene; `None` if it knows none,
    /// and a search visits all of them instead.
    ///
    /// # Errors
    /// If a feature is not one of the encoder's.
    fn range(&self, _open: &[OpenFeatures]) -> Result<Option<[f64; 2]>> {
        Ok(None)
    }

    /// The space whose sub-networks it knows.
    fn space(&self) -> &SearchSpace {
        self.encoder().space()
    }

    /// [`Objective::predict_encoded`] for sub-networks by name.
    ///
    /// # Errors
    /// If a sub-network is not in the space.
    fn predict(&self, archs: &[Arch]) -> Result<Vec<f32>> {
        let mut encoded = Encoded::default();
        archs.iter().try_for_each(|arch| self.encoder().append(arch, &mut encoded))?;
        self.predict_encoded(&encoded)
    }
}

/// A synthetic objective for use without an estimator: the larger every choice, the better, by amounts that depend on a
/// seed.
pub struct SyntheticObjective {
    encoder: Encoder,
    /// The gain of each feature of the encoder.
    gains: Vec<f32>,
}

impl SyntheticObjective {
    /// The objective of a seed.
    pub fn new(space: &SearchSpace, seed: u64) -> Self {
        let mut rng = rng_for("stand-in objective", seed, &[]);
        let mut gains = Vec::new();
        for id in space.features() {
            let gene = &space.genome().genes()[id];
            // a block has a gain of its own
            let first = if id == RESOLUTION { 0.0 } else { 1.0 };
            let mut of_gene = rising_gains(first, gene.values.len(), &mut rng);
            if gene.largest_is_first() {
                of_gene.reverse();
            }
            gains.extend(of_gene);
        }
        let encoder = Encoder::new(space);
        debug_assert_eq!(gains.len(), encoder.len());
        Self { encoder, gains: gains.into_iter().map(|gain| SCALE * gain).collect() }
    }
}

/// More than single precision's rounding of a sum of gains.
const ROUNDING: f64 = 1e-5;

/// Keeps values of the largest spaces below 1, as accuracies are.
const SCALE: f32 = 0.004;

/// Gains of the values of one gene: each is larger than the one before, by less and less.
fn rising_gains(first: f32, count: usize, rng: &mut impl Rng) -> Vec<f32> {
    let mut gain = first;
    let mut rising = Vec::with_capacity(count);
    for index in 0..count {
        rising.push(gain);
        gain += rng.random_range(0.5..1.5) / (index + 1) as f32;
    }
    rising
}

impl Objective for SyntheticObjective {
    fn encoder(&self) -> &Encoder {
        &self.encoder
    }

    fn slopes(&self, encoded: &Encoded) -> Result<Option<Vec<f32>>> {
        Ok(Some(self.gains.repeat(encoded.len())))
    }

    fn range(&self, open: &[OpenFeatures]) -> Result<Option<[f64; 2]>> {
        let mut range = [-ROUNDING, ROUNDING];
        for OpenFeatures { features, may_be_absent } in open {
            let gains = features.iter().filter_map(|feature| self.gains.get(*feature as usize));
            let gains = gains.map(|gain| f64::from(*gain)).chain(may_be_absent.then_some(0.0));
            let ends = gains.fold([f64::INFINITY, f64::NEG_INFINITY], |[low, high], gain| {
                [low.min(gain), high.max(gain)]
            });
            if ends[0] <= ends[1] {
                range = [range[0] + ends[0], range[1] + ends[1]];
            }
        }
        Ok(Some(range))
    }

    fn predict_encoded(&self, encoded: &Encoded) -> Result<Vec<f32>> {
        encoded
            .iter()
            .map(|features: &[u32]| {
                features
                    .iter()
                    .map(|feature: &u32| self.gains.get(*feature as usize).copied())
                    .sum::<Option<f32>>()
            })
            .collect::<Option<_>>()
            .ok_or_else(|| {
                let expected = format!("below {}", self.gains.len());
                base::Error::invalid("stand-in objective", "features", expected, "others").into()
            })
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use space::{preset, preset_names, sampler};

    #[test]
    fn larger_is_better_and_seeds_differ() {
        for name in preset_names() {
            let space = preset(name).expect("a preset");
            let ends = [sampler::smallest(&space), sampler::largest(&space)];
            let value =
                |seed: u64| SyntheticObjective::new(&space, seed).predict(&ends).expect("of the space");
            let first = value(0);
            let second = value(1);
            assert!(first[0] < first[1] && first[0] > 0.0 && first[1] < 1.0, "{name}: {first:?}");
            assert_ne!(first, second);
        }
    }
}
