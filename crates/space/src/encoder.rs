//! Encodes sub-networks as vectors of fixed length for predictors. Knows no weight and no accuracy.

use base::error::{Error, Result};

use crate::arch::Arch;
use crate::genome::{GeneId, GeneRow, Index};
use crate::search_space::SearchSpace;
use crate::value::Value;

/// Encodes the sub-networks of one space: a one-hot vector for each gene that predictors see, in the order of
/// [`SearchSpace::features`]; zeros where a gene does not exist (Cai et al. 2020, section 3.4).
#[derive(Clone, Debug, PartialEq)]
pub struct Encoder {
    space: SearchSpace,
    /// The genes that have features, in order.
    order: Vec<GeneId>,
    /// The first feature of each gene.
    starts: Vec<Option<usize>>,
    len: usize,
}

/// Sub-networks as lists of the features that are 1, all lists in one vector: a batch is refilled without an allocation
/// per sub-network.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Encoded {
    features: Vec<u32>,
    /// The end of each list.
    ends: Vec<usize>,
}

impl Encoded {
    /// Number of sub-networks.
    pub fn len(&self) -> usize {
        self.ends.len()
    }

    /// Whether the batch is empty.
    pub fn is_empty(&self) -> bool {
        self.ends.is_empty()
    }

    /// Removes all sub-networks, but keeps the memory.
    pub fn clear(&mut self) {
        self.features.clear();
        self.ends.clear();
    }

    /// Adds a sub-network, given the features that are 1, in rising order.
    pub fn push(&mut self, features: impl IntoIterator<Item = u32>) {
        self.features.extend(features);
        self.ends.push(self.features.len());
    }

    /// The features of all sub-networks, one list after the other.
    pub fn features(&self) -> &[u32] {
        &self.features
    }

    /// The features of one sub-network.
    pub fn get(&self, index: usize) -> &[u32] {
        let start = index.checked_sub(1).map_or(0, |before| self.ends[before]);
        &self.features[start..self.ends[index]]
    }

    /// The features of each sub-network.
    pub fn iter(&self) -> impl ExactSizeIterator<Item = &[u32]> {
        (0..self.len()).map(|index| self.get(index))
    }
}

impl Encoder {
    /// The encoder of a space.
    pub fn new(space: &SearchSpace) -> Self {
        let order = space.features();
        let mut starts = vec![None; space.genome().len()];
        let mut len = 0;
        for &gene in &order {
            starts[gene] = Some(len);
            len += space.genome().genes()[gene].values.len();
        }
        Self { space: space.clone(), order, starts, len }
    }

    /// The space whose sub-networks it encodes.
    pub fn space(&self) -> &SearchSpace {
        &self.space
    }

    /// Number of features.
    pub fn len(&self) -> usize {
        self.len
    }

    /// Whether there are no features; never in a space whose resolution has one.
    pub fn is_empty(&self) -> bool {
        self.len == 0
    }

    /// Writes the features of a sub-network, all of them 0 or 1.
    ///
    /// # Errors
    /// If the sub-network is not in the space, or the length of `features` is not [`Encoder::len`].
    pub fn encode_into(&self, arch: &Arch, features: &mut [f32]) -> Result<()> {
        if features.len() != self.len() {
            return Err(Error::invalid("encoder", "number of features", self.len(), features.len()));
        }
        features.fill(0.0);
        self.of_row(&self.space.row(arch)?).for_each(|feature| features[feature] = 1.0);
        Ok(())
    }

    /// Adds a sub-network to a list of encoded ones.
    ///
    /// # Errors
    /// If the sub-network is not in the space; the list then stays as it was.
    pub fn append(&self, arch: &Arch, encoded: &mut Encoded) -> Result<()> {
        let row = self.space.row(arch)?;
        encoded.push(self.of_row(&row).map(|feature| feature as u32));
        Ok(())
    }

    /// The features of a row that are 1, in rising order.
    pub fn of_row<'a>(&'a self, row: &'a GeneRow) -> impl Iterator<Item = usize> + 'a {
        let there = self.order.iter().filter(|gene| self.space.genome().exists(row, **gene));
        there.filter_map(|gene| Some(self.starts[*gene]? + usize::from(row[*gene])))
    }

    /// The feature of a gene's value; `None` if predictors do not see the gene, or the space does not list the value.
    pub fn feature_of(&self, gene: GeneId, value: Value) -> Option<usize> {
        let listed = &self.space.genome().genes()[gene].values;
        Some(self.starts[gene]? + listed.iter().position(|own| *own == value)?)
    }

    /// The gene of a feature, and which of its values; `None` if there are not so many features.
    pub fn choice(&self, feature: usize) -> Option<(GeneId, Index)> {
        let genes = self.space.genome().genes();
        self.order.iter().find_map(|gene: &GeneId| {
            let value = feature.checked_sub(self.starts[*gene]?)?;
            (value < genes[*gene].values.len()).then_some((*gene, value as Index))
        })
    }

    /// A feature in words, such as `stage 1, block 2, kernel 5`.
    pub fn describe(&self, feature: usize) -> Option<String> {
        let (gene, value) = self.choice(feature)?;
        Some(self.space.genome().genes()[gene].describe(value))
    }

    /// The genes without features, in order: depths, which follow from the blocks that exist.
    pub fn unseen(&self) -> impl Iterator<Item = GeneId> + '_ {
        (0..self.starts.len()).filter(|gene| self.starts[*gene].is_none())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{preset, preset_names, sampler};
    use rand::SeedableRng;
    use rand_chacha::ChaCha8Rng;
    use std::collections::BTreeMap;

    fn encode(space: &SearchSpace, arch: &Arch) -> Result<Vec<f32>> {
        let encoder = Encoder::new(space);
        let mut features = vec![9.0; encoder.len()];
        encoder.encode_into(arch, &mut features)?;
        Ok(features)
    }

    #[test]
    fn absent_blocks_are_zeros() {
        let space = preset("tiny").expect("a preset");
        let features = encode(&space, &"r12:k5e4/k3e6,k7e3".parse().expect("an arch")).expect("legal");
        let expected: [&[u8]; 5] =
            [&[0, 1, 0, 0, 1, 0], &[0; 6], &[1, 0, 0, 0, 0, 1], &[0, 0, 1, 1, 0, 0], &[0, 1]];
        let expected: Vec<f32> = expected.concat().into_iter().map(f32::from).collect();
        assert_eq!(features, expected);
    }

    #[test]
    fn different_archs_have_different_features_that_describe_them() {
        for name in preset_names() {
            let space = preset(name).expect("a preset");
            let encoder = Encoder::new(&space);
            let mut rng = ChaCha8Rng::seed_from_u64(0);
            let mut seen = BTreeMap::new();
            for _ in 0..300 {
                let arch = sampler::random(&space, &mut rng);
                let text: String =
                    encode(&space, &arch).expect("legal").iter().map(|f| f.to_string()).collect();
                assert_eq!(seen.entry(text).or_insert_with(|| arch.clone()), &arch);
            }
            let names: std::collections::BTreeSet<_> =
                (0..encoder.len()).map(|f| encoder.describe(f)).collect();
            assert_eq!((names.len(), names.contains(&None)), (encoder.len(), false));
            assert_eq!(encoder.describe(encoder.len()), None);
        }
    }

    #[test]
    fn what_is_not_in_the_space_is_refused() {
        let space = preset("tiny").expect("a preset");
        for text in ["r9:k3e3/k3e3", "r8:k3e3", "r8:k3e5/k3e3", "r8:k3e3,k3e3,k3e3/k3e3"] {
            assert!(encode(&space, &text.parse().expect("an arch")).is_err(), "{text}");
        }
        let arch = "r8:k3e3/k3e3".parse().expect("an arch");
        assert!(Encoder::new(&space).encode_into(&arch, &mut [0.0; 3]).is_err());
    }
}
