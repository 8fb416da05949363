//! A checked search space: its fixed sizes and its list of choices.

use std::collections::BTreeMap;
use std::sync::{Arc, OnceLock};

use base::document;
use base::error::{Error, Result};
use num_bigint::BigUint;
use serde::{Deserialize, Serialize};

use crate::arch::Arch;
use crate::builder::{Builder, Mix, Node, layers};
use crate::families::space_file::{SpaceFile, VERSION};
use crate::families::{Family, FamilyName};
use crate::genome::{GeneId, GeneRow, Genome, Index};
use crate::index::SpaceIndex;
use crate::layer::LayerSpec;
use crate::value::{Extent, Value};

/// The gene of the resolution, which every space declares first.
pub const RESOLUTION: GeneId = 0;

/// Greatest side of an input.
const MOST_SIDE: usize = 4096;

/// A checked search space.
///
/// Made from TOML ([`SearchSpace::from_toml`]) or by name ([`preset`](super::preset)); serialized in the
/// same form.
#[derive(Clone, Debug, Serialize, Deserialize)]
#[serde(try_from = "SpaceFile", into = "SpaceFile")]
pub struct SearchSpace {
    file: SpaceFile,
    family: Arc<dyn Family>,
    genome: Genome,
    /// The index for weights, made at first use.
    weights: OnceLock<Arc<SpaceIndex>>,
}

impl PartialEq for SearchSpace {
    fn eq(&self, other: &Self) -> bool {
        self.file == other.file && self.genome == other.genome
    }
}

/// A mixture of sub-networks: a static network in which several values of choices add.
#[derive(Clone, Debug)]
pub struct Mixture {
    /// The layers, those that add among them.
    pub layers: Vec<LayerSpec>,
    /// The places that add.
    pub mixes: Vec<Mix>,
}

impl SearchSpace {
    pub(crate) fn new(file: SpaceFile, family: Arc<dyn Family>, genome: Genome) -> Self {
        Self { file, family, genome, weights: OnceLock::new() }
    }

    /// Reads a space from TOML text; `place` names it in messages.
    ///
    /// # Errors
    /// If the text is not TOML, a field is missing, unknown or out of range.
    pub fn from_toml(place: &str, text: &str) -> Result<Self> {
        let file: SpaceFile = document::read_toml(place, text, VERSION, "a search space in TOML")
            .map_err(|error| error.or_do("compare with `supernet space tiny --toml`"))?;
        file.check(place)
    }

    /// The space as TOML that [`SearchSpace::from_toml`] reads.
    pub fn to_toml(&self) -> String {
        toml::to_string(&self.file).expect("a checked space is plain data")
    }

    /// The space's name.
    pub fn name(&self) -> &str {
        &self.file.name
    }

    /// The name of its networks' structure.
    pub fn family(&self) -> FamilyName {
        self.file.family
    }

    /// Number of classes.
    pub fn classes(&self) -> usize {
        self.file.classes
    }

    /// Channels of the inputs.
    pub fn input_channels(&self) -> usize {
        self.file.input_channels
    }

    /// Resolutions of the input that can be chosen, in rising order.
    pub fn resolutions(&self) -> &[Extent] {
        &self.file.resolutions
    }

    /// The resolution with the most places, which decides memory.
    pub fn greatest_resolution(&self) -> Extent {
        let listed = self.resolutions().iter().copied();
        listed.max_by_key(|resolution| resolution.plane()).expect("a checked space has a resolution")
    }

    /// The constant added to the variance in batch norms.
    pub fn batch_norm_epsilon(&self) -> f32 {
        self.file.batch_norm_epsilon
    }

    /// Share of the features dropped before the classifier in training.
    pub fn dropout(&self) -> f32 {
        self.file.dropout
    }

    /// The list of choices.
    pub fn genome(&self) -> &Genome {
        &self.genome
    }

    /// The genes with features for predictors, in the order of their features.
    pub fn features(&self) -> Vec<GeneId> {
        self.family.words().features()
    }

    /// A description of its networks for people, in lines.
    pub fn describe(&self) -> Vec<String> {
        match &self.file.only {
            Some(choices) => vec![format!("one sub-network alone: {choices}")],
            None => self.family.words().describe(&self.genome),
        }
    }

    /// Number of different sub-networks at one resolution, exactly. In a family whose layers may go unread, several of
    /// them can compute the same.
    pub fn subnetworks(&self) -> BigUint {
        self.genome.count_at(RESOLUTION)
    }

    /// Sixteen hexadecimal digits that two spaces share only if they are equal in everything but the name.
    pub fn fingerprint(&self) -> String {
        let mut file = self.file.clone();
        file.name = String::new();
        fingerprint_of(&file)
    }

    /// The fingerprint without the resolutions, which may differ too.
    pub fn fingerprint_at_any_resolution(&self) -> String {
        let mut file = self.file.clone();
        file.name = String::new();
        file.resolutions = Vec::new();
        fingerprint_of(&file)
    }

    /// The space with another number of classes.
    ///
    /// # Errors
    /// If that number is not allowed.
    pub fn with_classes(&self, classes: usize) -> Result<Self> {
        let mut file = self.file.clone();
        file.classes = classes;
        file.check(&format!("space {}", self.name()))
    }

    /// The space that holds one sub-network alone, at its own resolution. Its weights are that network's: no larger
    /// ones, and no matrices between kernel sizes.
    ///
    /// # Errors
    /// If the sub-network does not lie in this space.
    pub fn only(&self, arch: &Arch) -> Result<Self> {
        self.check(arch)?;
        let mut file = self.file.clone();
        file.only = Some(arch.choices().to_string());
        file.resolutions = vec![arch.resolution];
        file.check(&format!("space {}", self.name()))
    }

    /// The space whose every choice is made; `place` says in messages where the choices were read.
    pub(crate) fn narrowed_to(&self, choices: &str, place: &str) -> Result<Self> {
        let mut row = vec![0; self.genome.len()];
        self.family.words().parse(&self.genome, choices, place, &mut row)?;
        let made = self.genome.with_only(&row);
        let mut narrowed = self.narrowed(made.allowing_as(&self.genome, |gene| gene == RESOLUTION));
        // numbers may be written in several ways; equal spaces are equal files
        narrowed.file.only = Some(self.family.words().text(&self.genome, &row));
        Ok(narrowed)
    }

    /// The space restricted to a number of largest choices of some kinds; its sub-networks lie in this space as well.
    #[must_use]
    pub fn restricted(&self, largest: &BTreeMap<String, usize>) -> Self {
        self.narrowed(self.genome.restricted(largest))
    }

    fn narrowed(&self, genome: Genome) -> Self {
        Self { file: self.file.clone(), family: self.family.clone(), genome, weights: OnceLock::new() }
    }

    /// The space with other resolutions, restricted as this one is.
    fn with_resolutions(&self, resolutions: Vec<Extent>) -> Result<Self> {
        let mut file = self.file.clone();
        file.resolutions = resolutions;
        let whole = file.check(&format!("space {}", self.name()))?;
        Ok(whole.narrowed(whole.genome.allowing_as(&self.genome, |gene| gene != RESOLUTION)))
    }

    /// The space restricted to some of its input resolutions; its sub-networks lie in this space as well.
    ///
    /// # Errors
    /// If the list is empty, or has a resolution that the space does not list.
    pub fn at_resolutions<R: Into<Extent> + Copy>(&self, resolutions: &[R]) -> Result<Self> {
        let resolutions: Vec<Extent> = resolutions.iter().map(|resolution| (*resolution).into()).collect();
        if resolutions.is_empty() {
            let place = format!("space {}", self.name());
            return Err(Error::invalid(place, "resolutions", "at least one", "none"));
        }
        for &resolution in &resolutions {
            self.check_resolution(resolution)?;
        }
        let listed = self.resolutions().iter().copied();
        self.with_resolutions(listed.filter(|listed| resolutions.contains(listed)).collect())
    }

    /// The space with the input resolutions of `other` added: the smallest that contains the sub-networks of both, if
    /// they differ in resolutions only.
    ///
    /// # Errors
    /// If together they have more than a space may list.
    pub fn at_resolutions_of(&self, other: &Self) -> Result<Self> {
        let mut all = [self.resolutions(), other.resolutions()].concat();
        all.sort_unstable();
        all.dedup();
        self.with_resolutions(all)
    }

    /// The space with one more input resolution, if it is not among its own.
    ///
    /// # Errors
    /// If the network cannot have inputs of this size, or there are more resolutions than a space may list.
    pub fn also_at(&self, resolution: Extent) -> Result<Self> {
        let mut all = [self.resolutions(), &[resolution]].concat();
        all.sort_unstable();
        all.dedup();
        self.with_resolutions(all)
    }

    /// Whether the sub-network lies in this space.
    ///
    /// # Errors
    /// Names the stage, the block and the choice that do not.
    pub fn check(&self, arch: &Arch) -> Result<()> {
        self.row(arch).map(drop)
    }

    /// Whether inputs of this resolution are among the space's.
    ///
    /// # Errors
    /// Lists the space's resolutions.
    pub fn check_resolution(&self, resolution: Extent) -> Result<()> {
        if self.resolutions().contains(&resolution) {
            return Ok(());
        }
        Err(self.genome.refuse(RESOLUTION, &format!("space {}", self.name()), resolution))
    }

    /// The sub-network as a row of the space's genome.
    ///
    /// # Errors
    /// If it does not lie in this space; names the choice that does not.
    pub fn row(&self, arch: &Arch) -> Result<Vec<Index>> {
        let mut row = self.row_at_any_resolution(arch)?;
        let index = self.genome.index_of(RESOLUTION, Value::Extent(arch.resolution));
        row[RESOLUTION] = match index {
            Some(index) => index,
            None => return Err(self.check_resolution(arch.resolution).expect_err("it is not listed")),
        };
        Ok(row)
    }

    /// The sub-network's row, but at the first resolution.
    pub(crate) fn row_at_any_resolution(&self, arch: &Arch) -> Result<Vec<Index>> {
        let mut row = vec![0; self.genome.len()];
        let words = self.family.words();
        words.parse(&self.genome, arch.choices(), &format!("arch {arch}"), &mut row)?;
        // numbers may be written in several ways, such as 3, +3 and 3e0: equal sub-networks have equal texts
        let canonical = words.text(&self.genome, &row);
        if canonical != arch.choices() {
            let got = format!("`{}`", arch.choices());
            return Err(Error::invalid(format!("arch {arch}"), "choices", format!("`{canonical}`"), got));
        }
        Ok(row)
    }

    /// The sub-network of a row.
    ///
    /// # Panics
    /// If the row is not of the space's genome.
    pub fn arch(&self, row: &GeneRow) -> Arch {
        let Some(Value::Extent(resolution)) = self.genome.value(row, RESOLUTION) else {
            unreachable!("every space declares its resolution first");
        };
        Arch::new(resolution, self.family.words().text(&self.genome, row))
    }

    /// The layers of a sub-network, in the order in which they run.
    ///
    /// Any resolution will do, for a network of convolutions takes inputs of any size; [`SearchSpace::check`] checks
    /// that the space lists it.
    ///
    /// # Errors
    /// If a choice is not among the space's.
    pub fn lower(&self, arch: &Arch) -> Result<Vec<LayerSpec>> {
        let row = self.row_at_any_resolution(arch)?;
        let Extent { height, width } = arch.resolution;
        if ![height, width].iter().all(|side| (1..=MOST_SIDE).contains(side)) {
            let expected = format!("1 to {MOST_SIDE}");
            return Err(Error::invalid(format!("arch {arch}"), "resolution", expected, arch.resolution));
        }
        Ok(layers(self.build(&row, Some(arch.resolution))))
    }

    /// The layers of a row's sub-network.
    pub fn lower_row(&self, row: &GeneRow) -> Vec<LayerSpec> {
        layers(self.build(row, None))
    }

    /// The choices of which a mixture can hold several values at once.
    pub fn mixed_genes(&self) -> Vec<GeneId> {
        self.family.mixed()
    }

    /// The layers of a mixture at a resolution: several values at once of the choices that can be mixed
    /// ([`SearchSpace::mixed_genes`]), and one of each other choice. Each layer's weights are the shared ones of its slot.
    ///
    /// # Errors
    /// If there is no list of values for each choice, a list has none or one that may not be drawn, or several of a choice that
    /// cannot be mixed.
    pub fn mixture(&self, values: &[Vec<Index>], resolution: Extent) -> Result<Mixture> {
        let place = || format!("mixture of space {}", self.name());
        let genome = self.genome();
        if values.len() != genome.len() {
            return Err(Error::invalid(place(), "lists of values", genome.len(), values.len()));
        }
        let mixed = self.mixed_genes();
        for (gene, values) in values.iter().enumerate() {
            let allowed = values.iter().all(|value| genome.allowed(gene).contains(value));
            let most = if mixed.contains(&gene) { genome.allowed(gene).len() } else { 1 };
            if !allowed || values.is_empty() || values.len() > most {
                let expected = format!("1 to {most} values that may be drawn");
                return Err(Error::invalid(
                    place(),
                    genome.genes()[gene].words(),
                    expected,
                    format!("{values:?}"),
                ));
            }
        }
        let row: Vec<Index> = values.iter().map(|values| values[0]).collect();
        let mut builder = Builder::new(genome, &row, Some(resolution)).of_mixture(values);
        self.family.build(&mut builder);
        let (nodes, mixes) = builder.finish_mixture();
        Ok(Mixture { layers: layers(nodes), mixes })
    }

    /// Each slot in a row's network; `resolution`, if given, replaces the row's.
    pub(crate) fn build(&self, row: &GeneRow, resolution: Option<Extent>) -> Vec<Node> {
        let mut builder = Builder::new(&self.genome, row, resolution);
        self.family.build(&mut builder);
        builder.finish()
    }

    /// Every layer of the space once, and which networks have which.
    pub fn index(&self) -> SpaceIndex {
        SpaceIndex::new(self)
    }

    /// Every layer of its sub-networks once, by latency key: the layers to measure for the space. Name and slot are
    /// those in some network that has the layer, and each of its inputs is the network's.
    pub fn layers(&self) -> BTreeMap<String, LayerSpec> {
        self.index().by_key()
    }

    /// The index at one resolution only, which is enough for weights; it is made once.
    pub fn weights(&self) -> &SpaceIndex {
        self.weights.get_or_init(|| {
            let last = *self.genome.allowed(RESOLUTION).last().expect("a resolution");
            Arc::new(SpaceIndex::new(&self.narrowed(self.genome.fixed(RESOLUTION, last))))
        })
    }

    /// The family.
    pub(crate) fn structure(&self) -> &dyn Family {
        &*self.family
    }
}

fn fingerprint_of(file: &SpaceFile) -> String {
    let text = toml::to_string(file).expect("a checked space is plain data");
    blake3::hash(text.as_bytes()).to_hex()[..16].to_string()
}

impl TryFrom<SpaceFile> for SearchSpace {
    type Error = Error;

    fn try_from(file: SpaceFile) -> Result<Self> {
        let place = format!("space {}", file.name);
        file.check(&place)
    }
}

impl From<SearchSpace> for SpaceFile {
    fn from(space: SearchSpace) -> Self {
        space.file
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{preset, preset_names, sampler};

    #[test]
    fn a_space_of_one_network_holds_it_and_its_layers() {
        for name in preset_names() {
            let space = preset(name).expect("a preset");
            for seed in 0..3 {
                let arch = sampler::random(&space, &mut base::random::rng_for("only", seed, &[]));
                let only = space.only(&arch).expect("it lies in the space");
                assert_eq!(only.subnetworks(), 1u32.into(), "{name}");
                assert_eq!(only.resolutions(), [arch.resolution]);
                let ends = [sampler::largest(&only), sampler::smallest(&only)];
                assert_eq!(ends, [arch.clone(), arch.clone()], "{name}");
                let layers = only.lower(&arch).expect("its own");
                assert_eq!(layers, space.lower(&arch).expect("its own"));
                assert!(only.layers().len() <= layers.len(), "{name}");
                let written = SearchSpace::from_toml("x.toml", &only.to_toml()).expect("its own text");
                assert_eq!(written, only);
                assert_ne!(only.fingerprint(), space.fingerprint());
                assert_eq!(only.describe(), [format!("one sub-network alone: {}", arch.choices())]);
                assert_eq!(only.with_classes(7).expect("a number of classes").subnetworks(), 1u32.into());
            }
        }
    }

    #[test]
    fn a_network_is_the_same_however_its_numbers_are_written() {
        let space = preset("tiny").expect("a preset");
        let only = space.only(&sampler::largest(&space)).expect("its own");
        let text = only.to_toml();
        let other = text.replacen("e6", "e6.0", 1);
        assert_ne!(other, text);
        let read = SearchSpace::from_toml("x.toml", &other).expect("the same network");
        assert_eq!((read.fingerprint(), read.to_toml()), (only.fingerprint(), text));
    }

    #[test]
    fn a_network_of_another_space_is_refused() {
        let space = preset("tiny").expect("a preset");
        let other = sampler::largest(&preset("fashion").expect("a preset"));
        let error = space.only(&other).expect_err("another space's").to_string();
        assert!(error.starts_with(&format!("arch {other}: ")), "{error}");
    }
}
