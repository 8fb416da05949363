//! Sub-networks as numbers of fixed length, for what learns from them. Knows no weight and no accuracy.

use std::fmt;
use std::ops::Range;

use base::{Error, Result};
use space::{Arch, Block, Ratio, SearchSpace, Stage};

/// Encodes the sub-networks of one space: for every block that can exist a one-hot kernel and a one-hot expand
/// ratio (zeros where the block is absent), then a one-hot resolution (Cai et al. 2020, section 3.4). A stage whose
/// width can be chosen begins with a one-hot width.
#[derive(Clone, Debug, PartialEq)]
pub struct Encoder {
    space: SearchSpace,
    /// Where each stage's features begin; the last entry is where the resolution's do.
    offsets: Vec<usize>,
}

/// Sub-networks as the features that are 1, one list behind the other in one vector: a batch is filled again and again
/// without an allocation for each of them.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Encoded {
    features: Vec<u32>,
    /// Where each list ends.
    ends: Vec<usize>,
}

impl Encoded {
    /// Number of sub-networks.
    pub fn len(&self) -> usize {
        self.ends.len()
    }

    /// Whether there is none.
    pub fn is_empty(&self) -> bool {
        self.ends.is_empty()
    }

    /// Forgets all of them, but not the memory.
    pub fn clear(&mut self) {
        self.features.clear();
        self.ends.clear();
    }

    /// Adds one, as the features that are 1, in rising order.
    pub fn push(&mut self, features: impl IntoIterator<Item = u32>) {
        self.features.extend(features);
        self.ends.push(self.features.len());
    }

    /// The features of all, one list behind the other.
    pub fn features(&self) -> &[u32] {
        &self.features
    }

    /// The features of one.
    pub fn get(&self, index: usize) -> &[u32] {
        let start = index.checked_sub(1).map_or(0, |before| self.ends[before]);
        &self.features[start..self.ends[index]]
    }

    /// The features of each.
    pub fn iter(&self) -> impl ExactSizeIterator<Item = &[u32]> {
        (0..self.len()).map(|index| self.get(index))
    }
}

fn slot_len(stage: &Stage) -> usize {
    stage.choices.kernel.len() + stage.choices.expand.len()
}

impl Encoder {
    /// The encoder of a space.
    pub fn new(space: &SearchSpace) -> Self {
        let mut offsets = vec![0];
        let mut end = 0;
        for stage in space.stages() {
            end += stage.choices.width.len() + stage.choices.max_depth() * slot_len(stage);
            offsets.push(end);
        }
        Self { space: space.clone(), offsets }
    }

    /// The space whose sub-networks it encodes.
    pub fn space(&self) -> &SearchSpace {
        &self.space
    }

    /// Number of features.
    pub fn len(&self) -> usize {
        self.resolution_features().end
    }

    /// Never: a space has at least one resolution.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    fn resolution_features(&self) -> Range<usize> {
        let start = self.offsets.last().copied().unwrap_or(0);
        start..start + self.space.resolutions().len()
    }

    /// Writes the features of a sub-network, all of them 0 or 1.
    ///
    /// # Errors
    /// If the sub-network is not in the space, or `features` has not [`Encoder::len`] places.
    pub fn encode_into(&self, arch: &Arch, features: &mut [f32]) -> Result<()> {
        if features.len() != self.len() {
            return Err(Error::invalid("encoder", "number of features", self.len(), features.len()));
        }
        features.fill(0.0);
        self.for_each_feature(arch, |feature| features[feature] = 1.0)
    }

    /// Adds a sub-network to a list of encoded ones.
    ///
    /// # Errors
    /// If the sub-network is not in the space; the list is then as it was.
    pub fn append(&self, arch: &Arch, encoded: &mut Encoded) -> Result<()> {
        let first = encoded.features.len();
        match self.for_each_feature(arch, |feature| encoded.features.push(feature as u32)) {
            Ok(()) => encoded.ends.push(encoded.features.len()),
            Err(error) => {
                encoded.features.truncate(first);
                return Err(error);
            }
        }
        Ok(())
    }

    /// Calls `visit` with the index of each feature that is 1, in rising order.
    ///
    /// # Errors
    /// If the sub-network is not in the space; some features may have been visited.
    pub fn for_each_feature(&self, arch: &Arch, mut visit: impl FnMut(usize)) -> Result<()> {
        if self.visit(arch, &mut visit).is_some() {
            return Ok(());
        }
        self.space.check(arch)?;
        let (expected, got) = ("those of the encoder's space", "others");
        Err(Error::invalid(format!("arch {arch}"), "choices", expected, got))
    }

    /// `None` where a choice is not among the space's.
    fn visit(&self, arch: &Arch, visit: &mut impl FnMut(usize)) -> Option<()> {
        let stages = self.space.stages();
        let widths = if self.space.elastic_width() { stages.len() } else { 0 };
        if arch.stages.len() != stages.len() || arch.widths.len() != widths {
            return None;
        }
        for (index, (stage, blocks)) in stages.iter().zip(&arch.stages).enumerate() {
            if !stage.choices.depth.contains(&blocks.len()) {
                return None;
            }
            if let Some(width) = arch.widths.get(index) {
                visit(self.width_feature(index, place_of(&stage.choices.width, width)?));
            }
            for (position, block) in blocks.iter().enumerate() {
                self.block_features(index, position, choice_indices(stage, block)?)
                    .into_iter()
                    .for_each(&mut *visit);
            }
        }
        visit(self.resolution_feature(arch.resolution)?);
        Some(())
    }

    /// The feature of a stage's width, by its place in the list of choices.
    pub fn width_feature(&self, stage: usize, width: usize) -> usize {
        self.offsets[stage] + width
    }

    /// The features of a block, by the places of kernel and expand ratio in their lists.
    pub fn block_features(
        &self,
        stage: usize,
        position: usize,
        (kernel, expand): (usize, usize),
    ) -> [usize; 2] {
        let (start, stage) = (self.offsets[stage], &self.space.stages()[stage]);
        let slot = start + stage.choices.width.len() + position * slot_len(stage);
        [slot + kernel, slot + stage.choices.kernel.len() + expand]
    }

    /// The feature of a resolution; `None` if the space does not have it.
    pub fn resolution_feature(&self, side: usize) -> Option<usize> {
        Some(self.resolution_features().start + place_of(self.space.resolutions(), &side)?)
    }

    /// What a feature stands for; `None` if there are not so many.
    pub fn feature(&self, index: usize) -> Option<Feature> {
        let resolutions = self.resolution_features();
        if let Some(place) = index.checked_sub(resolutions.start) {
            return self.space.resolutions().get(place).copied().map(Feature::Resolution);
        }
        let stage = self.offsets.iter().rposition(|&start| start <= index)?;
        let (choices, slot) =
            (&self.space.stages().get(stage)?.choices, slot_len(&self.space.stages()[stage]));
        let within = index - self.offsets[stage];
        let Some(within) = within.checked_sub(choices.width.len()) else {
            return Some(Feature::Width { stage, width: choices.width[within] });
        };
        let (position, choice) = (within / slot, within % slot);
        Some(match choices.kernel.get(choice) {
            Some(&kernel) => Feature::Kernel { stage, position, kernel },
            None => {
                Feature::Expand { stage, position, expand: choices.expand[choice - choices.kernel.len()] }
            }
        })
    }

    /// What a feature stands for in words, such as `stage 1, block 2, kernel 5`.
    pub fn describe(&self, feature: usize) -> Option<String> {
        self.feature(feature).map(|feature| feature.to_string())
    }
}

/// What one feature stands for; stages and blocks are counted from 0.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Feature {
    /// A block exists and has this kernel.
    Kernel {
        /// Its stage.
        stage: usize,
        /// Its place in the stage.
        position: usize,
        /// Side of the kernel.
        kernel: usize,
    },
    /// A block exists and has this expand ratio.
    Expand {
        /// Its stage.
        stage: usize,
        /// Its place in the stage.
        position: usize,
        /// The ratio.
        expand: Ratio,
    },
    /// A stage has this width.
    Width {
        /// The stage.
        stage: usize,
        /// The multiplier.
        width: Ratio,
    },
    /// Side of the input image, in pixels.
    Resolution(usize),
}

impl fmt::Display for Feature {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Kernel { stage, position, kernel } => {
                write!(f, "stage {}, block {}, kernel {kernel}", stage + 1, position + 1)
            }
            Self::Expand { stage, position, expand } => {
                write!(f, "stage {}, block {}, expand {expand}", stage + 1, position + 1)
            }
            Self::Width { stage, width } => write!(f, "stage {}, width {width}", stage + 1),
            Self::Resolution(side) => write!(f, "resolution {side}"),
        }
    }
}

/// Where a block's kernel and expand ratio stand in its stage's lists.
pub fn choice_indices(stage: &Stage, block: &Block) -> Option<(usize, usize)> {
    let kernel = place_of(&stage.choices.kernel, &block.kernel)?;
    let expand = place_of(&stage.choices.expand, &block.expand)?;
    Some((kernel, expand))
}

/// Where a choice stands in its list.
pub fn place_of<T: PartialEq>(choices: &[T], choice: &T) -> Option<usize> {
    choices.iter().position(|listed| listed == choice)
}

#[cfg(test)]
mod tests {
    use super::*;
    use rand::SeedableRng;
    use rand_chacha::ChaCha8Rng;
    use space::{preset, preset_names, sampler};
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
