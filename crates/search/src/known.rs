//! What a search knows of the sub-networks that it has looked at: each is predicted once, and the best against latency
//! are kept.

use std::collections::HashMap;
use std::hash::{BuildHasherDefault, Hasher};

use rayon::prelude::*;
use space::{Encoded, Index, Row};

use super::archive::Best;
use super::constraint::Limits;
use super::genes::{GeneFeatures, hash};
use super::index::{CostIndex, Costs};
use super::objective::Objective;
use crate::error::Result;

/// Rows of genes, one behind the other.
#[derive(Clone, Debug, Default)]
pub(super) struct Rows {
    genes: Vec<Index>,
    /// Genes of a row.
    width: usize,
}

impl Rows {
    pub fn new(width: usize) -> Self {
        Self { genes: Vec::new(), width }
    }

    pub fn len(&self) -> usize {
        self.genes.len() / self.width
    }

    pub fn clear(&mut self) {
        self.genes.clear();
    }

    /// Adds a copy of a row, for the caller to change.
    pub fn push(&mut self, genes: &Row) -> &mut Row {
        let start = self.genes.len();
        self.genes.extend_from_slice(genes);
        &mut self.genes[start..]
    }

    /// Adds copies of other rows.
    pub fn extend(&mut self, other: &Self) {
        self.genes.extend_from_slice(&other.genes);
    }

    /// Takes the last row back.
    pub fn pop(&mut self) {
        self.genes.truncate(self.genes.len() - self.width);
    }

    pub fn get(&self, row: usize) -> &Row {
        &self.genes[row * self.width..(row + 1) * self.width]
    }
}

/// What is known of one sub-network.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub(super) struct Scored {
    pub accuracy: f32,
    pub costs: Costs,
}

/// A sub-network on the front.
#[derive(Clone, Debug)]
pub(super) struct Point {
    pub genes: Vec<Index>,
    pub scored: Scored,
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

/// See the module.
pub(super) struct Known<'a> {
    pub index: &'a CostIndex,
    objective: &'a dyn Objective,
    features: GeneFeatures,
    /// The widest limits: what breaks them is no candidate for the front.
    limits: &'a Limits,
    accuracies: HashMap<u64, f32, BuildHasherDefault<AsItIs>>,
    front: Vec<Point>,
    best: Best,
    encoded: Encoded,
    keys: Vec<u64>,
    fresh: Vec<usize>,
}

impl<'a> Known<'a> {
    pub fn new(
        index: &'a CostIndex,
        objective: &'a dyn Objective,
        features: GeneFeatures,
        limits: &'a Limits,
    ) -> Self {
        let (accuracies, front, best) = (HashMap::default(), Vec::new(), Best::default());
        let (encoded, keys, fresh) = (Encoded::default(), Vec::new(), Vec::new());
        Self { index, objective, features, limits, accuracies, front, best, encoded, keys, fresh }
    }

    /// Number of sub-networks that were predicted.
    pub fn count(&self) -> usize {
        self.accuracies.len()
    }

    /// What nothing that was looked at and keeps the widest limits is better than, fastest first.
    pub fn front(&self) -> &[Point] {
        &self.front
    }

    /// The best of all that was looked at and keeps the widest limits, best first.
    pub fn best(&self) -> &[Point] {
        self.best.points()
    }

    /// Enters rows that keep the limits and were predicted elsewhere.
    pub fn enter(&mut self, rows: &Rows, accuracies: &[f32]) {
        for (row, accuracy) in accuracies.iter().enumerate() {
            let genes = rows.get(row);
            if self.accuracies.insert(hash(genes), *accuracy).is_none() {
                let scored = Scored { accuracy: *accuracy, costs: self.index.costs_of(genes) };
                enter(&mut self.front, genes, scored);
                self.best.enter(genes, scored);
            }
        }
    }

    /// Looks at each row: its costs, and its accuracy, which is predicted if it is not known yet.
    pub fn look(&mut self, rows: &Rows, scores: &mut Vec<Scored>) -> Result<()> {
        debug_assert!((0..rows.len()).all(|row| self.index.genome().holds(rows.get(row))));
        scores.clear();
        self.keys.clear();
        scores.resize(rows.len(), Scored::default());
        self.keys.resize(rows.len(), 0);
        let index = self.index;
        let price = |row: usize, (scored, key): (&mut Scored, &mut u64)| {
            (scored.costs, *key) = (index.costs_of(rows.get(row)), hash(rows.get(row)));
        };
        let pairs = scores.par_iter_mut().zip(&mut self.keys).enumerate().with_min_len(PRICED_AT_ONCE);
        pairs.for_each(|(row, pair)| price(row, pair));
        self.encoded.clear();
        self.fresh.clear();
        for (row, key) in self.keys.iter().enumerate() {
            // the value stands in for the accuracy until that is known
            if let std::collections::hash_map::Entry::Vacant(place) = self.accuracies.entry(*key) {
                place.insert(f32::NEG_INFINITY);
                self.encoded.push(self.features.of(rows.get(row)));
                self.fresh.push(row);
            }
        }
        let accuracies = self.objective.predict_encoded(&self.encoded)?;
        for (row, accuracy) in self.fresh.iter().zip(&accuracies) {
            self.accuracies.insert(self.keys[*row], *accuracy);
        }
        for (scored, key) in scores.iter_mut().zip(&self.keys) {
            scored.accuracy = self.accuracies[key];
        }
        for row in self.fresh.drain(..) {
            if self.limits.keeps(&scores[row].costs) {
                enter(&mut self.front, rows.get(row), scores[row]);
                self.best.enter(rows.get(row), scores[row]);
            }
        }
        Ok(())
    }
}

/// Rows that one thread prices at a time.
const PRICED_AT_ONCE: usize = 256;

/// Enters what nothing on the front is better than, and drops what it is better than. The front is sorted by latency,
/// and so by accuracy; of equals it keeps the row that comes first.
fn enter(front: &mut Vec<Point>, genes: &Row, scored: Scored) {
    let latency = |point: &Point| point.scored.costs.latency_us;
    let end = front.partition_point(|point| latency(point) <= scored.costs.latency_us);
    if let Some(before) = end.checked_sub(1).map(|before| &front[before]) {
        let equal = before.scored.accuracy == scored.accuracy && latency(before) == scored.costs.latency_us;
        if before.scored.accuracy > scored.accuracy
            || (before.scored.accuracy == scored.accuracy && !(equal && genes < &before.genes[..]))
        {
            return;
        }
    }
    let start = front[..end].partition_point(|point| latency(point) < scored.costs.latency_us);
    let beaten = front[end..].iter().take_while(|point| point.scored.accuracy <= scored.accuracy).count();
    front.splice(start..end + beaten, [Point { genes: genes.to_vec(), scored }]);
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::pareto;
    use crate::testing::index_of;
    use crate::{Candidate, StandIn};
    use rand::{Rng, SeedableRng};
    use rand_chacha::ChaCha8Rng;
    use space::{preset, sampler};

    #[test]
    fn the_front_is_that_of_all_that_was_entered() {
        let mut rng = ChaCha8Rng::seed_from_u64(3);
        for _ in 0..200 {
            let (mut front, mut all) = (Vec::new(), Vec::new());
            for _ in 0..rng.random_range(1..30) {
                let (block, latency) = (rng.random_range(1..4), rng.random_range(1..8));
                let costs = Costs { latency_us: 1e3 * f64::from(latency), ..Costs::default() };
                let scored = Scored { accuracy: rng.random_range(0..8) as f32 / 8.0, costs };
                enter(&mut front, &[block, 0], scored);
                all.push(scored);
            }
            let arch: space::Arch = "r8:k3e3/k3e3".parse().expect("an arch");
            let candidate = |scored: &Scored| Candidate::new(arch.clone(), scored.accuracy, &scored.costs);
            let entered: Vec<_> = front.iter().map(|point| candidate(&point.scored)).collect();
            assert_eq!(entered, pareto::front(all.iter().map(candidate)));
        }
    }

    #[test]
    fn each_is_predicted_once_and_only_what_keeps_the_limits_is_on_the_front() {
        let space = preset("fashion").expect("a preset");
        let index = index_of(&space, &latency::testing::made_up(&space));
        let objective = StandIn::new(&space, 0);
        let features = GeneFeatures::new(&space, objective.encoder()).expect("the same");
        let largest = index.costs(&sampler::largest(&space)).expect("legal");
        let limits = Limits { latency_us: Some(0.5 * largest.latency_upper_us), ..Limits::default() };
        let mut known = Known::new(&index, &objective, features, &limits);
        let (mut rows, mut scores) = (Rows::new(index.genome().len()), Vec::new());
        let mut rng = ChaCha8Rng::seed_from_u64(0);
        let archs: Vec<_> = (0..50).map(|_| sampler::random(&space, &mut rng)).collect();
        for arch in archs.iter().chain(&archs) {
            rows.push(&space.row(arch).expect("legal"));
        }
        for _ in 0..2 {
            known.look(&rows, &mut scores).expect("of the space");
            assert_eq!(known.count(), 50);
            let expected = objective.predict(&archs).expect("of the space");
            for (at, scored) in scores.iter().enumerate() {
                assert_eq!(scored.accuracy, expected[at % 50]);
                assert_eq!(Some(scored.costs), index.costs(&archs[at % 50]));
            }
        }
        assert!(!known.front().is_empty());
        assert!(known.front().iter().all(|point| limits.keeps(&point.scored.costs)));
    }
}
