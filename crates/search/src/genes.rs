//! Tables over a search's genes: the features of each value, places for worths, and hashes of rows.

use std::collections::HashMap;
use std::hash::{BuildHasherDefault, Hasher};

use super::objective::OpenFeatures;
use space::{ABSENT, Encoded, Encoder, GeneRow, Genome, Group, Index, SearchSpace, Step, Steps};

/// The steps of a search: any group of genes but the resolution takes other values, and no changed group contains a
/// gene in `locked`.
pub(super) fn steps(space: &SearchSpace, row: &GeneRow, locked: &[bool], steps: &mut Steps) {
    let genome = space.genome();
    let is_locked = |group: &Group| group.genes().any(|gene| locked.get(gene).copied().unwrap_or(false));
    genome.steps(row, |group| group.first != space::RESOLUTION && !is_locked(group), steps);
    if !locked.is_empty() {
        let changes_locked =
            |step: &Step| steps.changes(*step).iter().any(|change| is_locked(genome.group(change.group)));
        let kept = steps.steps.iter().copied().filter(|step| !changes_locked(step)).collect();
        steps.steps = kept;
    }
}

/// The offset of each group's combinations in a list over all groups; each group has a place for being absent, too.
#[derive(Clone, Debug)]
pub(super) struct Places {
    starts: Vec<usize>,
}

impl Places {
    pub fn new(genome: &Genome) -> Self {
        let mut starts = vec![0];
        for group in genome.groups() {
            starts.push(starts[starts.len() - 1] + group.combinations() + 1);
        }
        Self { starts }
    }

    /// Number of places.
    pub fn len(&self) -> usize {
        self.starts[self.starts.len() - 1]
    }

    /// The place of a group's combination, or of its absence.
    pub fn of(&self, group: u16, combination: Index) -> usize {
        let group = usize::from(group);
        match combination {
            ABSENT => self.starts[group + 1] - 1,
            combination => self.starts[group] + usize::from(combination),
        }
    }
}

/// The encoder's features of each gene's values.
#[derive(Clone, Debug)]
pub(super) struct GeneFeatures {
    genome: Genome,
    places: Places,
    /// Genes that have features, in the order of their features.
    order: Vec<Seen>,
    of_places: Encoded,
}

/// A gene that has features.
#[derive(Clone, Debug)]
struct Seen {
    gene: usize,
    /// The feature of each value.
    features: Vec<u32>,
    /// The gene that decides whether it exists, and by which values.
    only: Option<(usize, Vec<bool>)>,
    /// Whether that gene always exists, or there is none.
    simple: bool,
}

impl GeneFeatures {
    /// The features of a space's genes in `encoder`'s space; `None` if that one lacks a value.
    pub fn new(space: &SearchSpace, encoder: &Encoder) -> Option<Self> {
        let genome = space.genome().clone();
        let mut order = Vec::new();
        for gene in space.features() {
            let own = &genome.genes()[gene];
            let features = own.values.iter().map(|value| Some(encoder.feature_of(gene, *value)? as u32));
            let features = features.collect::<Option<Vec<u32>>>()?;
            let only = own.exists.clone();
            let simple = only.as_ref().is_none_or(|(parent, _)| genome.genes()[*parent].exists.is_none());
            order.push(Seen { gene, features, only, simple });
        }
        let mut of_places = Encoded::default();
        for group in genome.groups() {
            for combination in 0..group.combinations() {
                let features = group.values(combination as Index).filter_map(|(gene, value)| {
                    let seen = order.iter().find(|seen| seen.gene == gene)?;
                    Some(seen.features[usize::from(value)])
                });
                of_places.push(features);
            }
            // absent
            of_places.push([]);
        }
        Some(Self { places: Places::new(&genome), genome, order, of_places })
    }

    /// The places of combinations.
    pub fn places(&self) -> &Places {
        &self.places
    }

    /// The features of each place, in order.
    pub fn of_places(&self) -> &Encoded {
        &self.of_places
    }

    /// What is known of each gene with features in the rows that begin with the first `set` genes of a row.
    pub fn open(&self, row: &GeneRow, set: usize) -> Vec<OpenFeatures> {
        let mut open = Vec::with_capacity(self.order.len());
        for seen in &self.order {
            let known = self.existence(row, set, seen.gene);
            if known == Some(false) {
                continue;
            }
            let features = match seen.gene < set {
                true => vec![seen.features[usize::from(row[seen.gene])]],
                false => {
                    let allowed = self.genome.allowed(seen.gene).iter();
                    allowed.map(|value| seen.features[usize::from(*value)]).collect()
                }
            };
            open.push(OpenFeatures { features, may_be_absent: known.is_none() });
        }
        open
    }

    /// Whether a gene exists in the rows that begin with the first `set` genes of a row; `None` if in some.
    fn existence(&self, row: &GeneRow, set: usize, gene: usize) -> Option<bool> {
        let Some((parent, among)) = &self.genome.genes()[gene].exists else { return Some(true) };
        match self.existence(row, set, *parent)? {
            false => Some(false),
            true if *parent < set => Some(among[usize::from(row[*parent])]),
            true => None,
        }
    }

    /// The features of a row that are 1, in rising order.
    pub fn of<'a>(&'a self, row: &'a GeneRow) -> impl Iterator<Item = u32> + 'a {
        self.order
            .iter()
            .filter(|seen: &&Seen| match &seen.only {
                None => true,
                Some((parent, among)) if seen.simple => among[usize::from(row[*parent])],
                Some(_) => self.genome.exists(row, seen.gene),
            })
            .map(|seen| seen.features[usize::from(row[seen.gene])])
    }
}

/// A hash of a row; two rows share it with a chance of 2^-64.
pub(super) fn hash(row: &GeneRow) -> u64 {
    row.chunks(4).fold(0x243f_6a88_85a3_08d3, |hash: u64, values: &[Index]| {
        let packed = values.iter().fold(0, |packed, value| packed << 16 | u64::from(*value));
        let mixed = (hash ^ packed).wrapping_mul(0x9e37_79b9_7f4a_7c15);
        mixed ^ mixed >> 29
    })
}

/// Keys are hashes already.
#[derive(Default)]
pub(super) struct AsItIs(u64);

impl Hasher for AsItIs {
    fn finish(&self) -> u64 {
        self.0
    }

    fn write(&mut self, _: &[u8]) {
        unreachable!("keys are u64");
    }

    fn write_u64(&mut self, key: u64) {
        self.0 = key;
    }
}

/// A map from hashes of rows.
pub(super) type ByHash<T> = HashMap<u64, T, BuildHasherDefault<AsItIs>>;

#[cfg(test)]
mod tests {
    use super::*;
    use rand::SeedableRng;
    use rand_chacha::ChaCha8Rng;
    use space::{preset, preset_names};

    #[test]
    fn features_are_the_encoders_and_rows_have_numbers_of_their_own() {
        for name in preset_names() {
            let space = preset(name).expect("a preset");
            let encoder = Encoder::new(&space);
            let features = GeneFeatures::new(&space, &encoder).expect("the same space");
            let last = *space.resolutions().last().expect("a resolution");
            let narrow = space.at_resolutions(&[last]).expect("listed");
            let narrowed = GeneFeatures::new(&narrow, &encoder).expect("a part of the space");
            let mut rng = ChaCha8Rng::seed_from_u64(8);
            let mut hashes = std::collections::HashSet::new();
            for _ in 0..200 {
                for (space, features) in [(&space, &features), (&narrow, &narrowed)] {
                    let row = space.genome().random(&mut rng);
                    let mut encoded = Encoded::default();
                    encoder.append(&space.arch(&row), &mut encoded).expect("legal");
                    assert_eq!(features.of(&row).collect::<Vec<_>>(), encoded.features(), "{name}");
                }
                let row = space.genome().random(&mut rng);
                hashes.insert((hash(&row), row));
            }
            let numbers: std::collections::HashSet<_> = hashes.iter().map(|(hash, _)| hash).collect();
            assert_eq!(numbers.len(), hashes.len());
            let is_part = space.resolutions().len() > 1;
            assert_eq!(GeneFeatures::new(&space, &Encoder::new(&narrow)).is_none(), is_part, "{name}");
        }
    }

    #[test]
    fn what_is_locked_stays() {
        let space = preset("tiny").expect("a preset");
        let row = space.row(&"r8:k3e3/k5e4,k7e6".parse().expect("an arch")).expect("legal");
        let mut all = Steps::default();
        let mut free = Steps::default();
        steps(&space, &row, &[], &mut all);
        // 8 for each of 3 blocks, 9 ways to grow, 1 to shrink
        assert_eq!(all.steps.len(), 24 + 9 + 1);
        let mut locked = vec![false; space.genome().len()];
        locked[space.genome().find("s2.b2.expand").expect("a gene")] = true;
        steps(&space, &row, &locked, &mut free);
        assert_eq!(free.steps.len(), all.steps.len() - 8 - 1, "the second stage cannot shrink either");
    }
}
