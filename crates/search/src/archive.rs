//! The best rows of a search, and the front of its goals.

use std::cmp::Ordering;
use std::collections::BTreeMap;

use space::{GeneRow, Index, SearchSpace};

use super::candidate::Candidate;
use super::metric::MetricValue;
use super::problem::Merits;

/// Number of retained sub-networks: ten rounds of twenty.
pub const TOP: usize = 200;

/// A row with all its metrics.
#[derive(Clone, Debug, PartialEq)]
pub struct Solution {
    /// Its genes.
    pub row: Vec<Index>,
    /// The values, by metric.
    pub values: BTreeMap<String, MetricValue>,
}

impl Solution {
    /// The expected value of a metric.
    pub fn mean(&self, metric: &str) -> Option<f64> {
        self.values.get(metric).map(|value| value.mean)
    }

    /// The row as a sub-network of its space, with values rounded as in files.
    pub fn candidate(self, space: &SearchSpace) -> Candidate {
        Candidate::of(space.arch(&self.row), self.values)
    }
}

/// A row that keeps all limits.
#[derive(Clone, Debug, PartialEq)]
pub struct ArchivedPoint {
    /// Its genes.
    pub row: Vec<Index>,
    /// The values from estimators.
    pub(super) estimated: Vec<MetricValue>,
    /// Merits for the goals, the greater the better.
    pub merits: Merits,
}

/// The best of all entered rows, each entered once.
#[derive(Debug, Default)]
pub(super) struct Best(Vec<ArchivedPoint>);

impl Best {
    /// Best first.
    pub fn points(&self) -> &[ArchivedPoint] {
        &self.0
    }

    /// Retains a row if it is among the best: by the goals in their order, then by the genes' order.
    pub fn enter(&mut self, row: &GeneRow, merits: Merits, estimated: &[MetricValue]) {
        let order = |point: &ArchivedPoint| {
            let pairs = merits.iter().zip(&point.merits).map(|(own, theirs)| own.total_cmp(theirs));
            let by_goals = pairs.fold(Ordering::Equal, Ordering::then);
            by_goals.then_with(|| point.row[..].cmp(row))
        };
        if self.0.len() == TOP && self.0.last().is_some_and(|last| order(last) != Ordering::Greater) {
            return;
        }
        let place = self.0.partition_point(|point| order(point) != Ordering::Greater);
        self.0.insert(place, ArchivedPoint { row: row.to_vec(), estimated: estimated.to_vec(), merits });
        self.0.truncate(TOP);
    }
}

/// Whether merits are at least as good for every goal, and better for one.
pub(super) fn dominates(one: &Merits, other: &Merits) -> bool {
    one != other && one.iter().zip(other).all(|(own, theirs)| own >= theirs)
}

/// The entered rows that no other dominates: by the second goal, best first, then by the first.
#[derive(Debug)]
pub(super) struct Front {
    points: Vec<ArchivedPoint>,
    /// With two goals, the first one rises along the front.
    is_line: bool,
}

impl Front {
    /// An empty front of a number of goals.
    pub fn new(goals: usize) -> Self {
        Self { points: Vec::new(), is_line: goals <= 2 }
    }

    /// The points in order.
    pub fn points(&self) -> &[ArchivedPoint] {
        &self.points
    }

    /// Enters a row unless another dominates it, and drops those that it dominates; of equal rows it retains the one that
    /// comes first.
    pub fn enter(&mut self, row: &GeneRow, merits: Merits, estimated: &[MetricValue]) {
        if self.is_line {
            self.enter_line(row, merits, estimated);
            return;
        }
        let stays = |point: &ArchivedPoint| {
            dominates(&point.merits, &merits) || (point.merits == merits && point.row[..] <= *row)
        };
        if self.points.iter().any(stays) {
            return;
        }
        self.points.retain(|point| point.merits != merits && !dominates(&merits, &point.merits));
        let before = |point: &ArchivedPoint| {
            let second = point.merits[1].total_cmp(&merits[1]).reverse();
            second.then(point.merits[0].total_cmp(&merits[0])) == Ordering::Less
        };
        let place = self.points.partition_point(before);
        self.points.insert(place, ArchivedPoint { row: row.to_vec(), estimated: estimated.to_vec(), merits });
    }

    fn enter_line(&mut self, row: &GeneRow, merits: Merits, estimated: &[MetricValue]) {
        let [first, second, ..] = merits;
        let points = &mut self.points;
        let end = points.partition_point(|point| point.merits[1] >= second);
        if let Some(before) = end.checked_sub(1).map(|before| &points[before]) {
            let equal = before.merits == merits;
            if before.merits[0] > first || (before.merits[0] == first && !(equal && row < &before.row[..])) {
                return;
            }
        }
        let start = points[..end].partition_point(|point| point.merits[1] > second);
        let beaten = points[end..].iter().take_while(|point| point.merits[0] <= first).count();
        let point = ArchivedPoint { row: row.to_vec(), estimated: estimated.to_vec(), merits };
        points.splice(start..end + beaten, [point]);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use rand::seq::SliceRandom;
    use rand::{Rng, SeedableRng};
    use rand_chacha::ChaCha8Rng;

    #[test]
    fn the_best_are_kept_in_order_whatever_comes_first() {
        let mut rng = ChaCha8Rng::seed_from_u64(0);
        let mut all: Vec<(Vec<Index>, Merits)> = (0..700)
            .map(|gene| {
                let second = -f64::from(rng.random_range(1..4));
                (vec![gene], [f64::from(rng.random_range(0..50)) / 50.0, second, 0.0, 0.0])
            })
            .collect();
        let mut kept: Vec<Vec<Vec<Index>>> = Vec::new();
        for _ in 0..2 {
            let mut best = Best::default();
            all.iter().for_each(|(row, merits)| best.enter(row, *merits, &[]));
            kept.push(best.points().iter().map(|point| point.row.clone()).collect());
            all.shuffle(&mut rng);
        }
        all.sort_by(|(a, of_a), (b, of_b)| of_b.partial_cmp(of_a).expect("numbers").then_with(|| a.cmp(b)));
        let expected: Vec<_> = all.into_iter().take(TOP).map(|(row, _)| row).collect();
        assert_eq!(kept, [expected.clone(), expected]);
    }

    #[test]
    fn the_front_is_what_no_other_beats() {
        let mut rng = ChaCha8Rng::seed_from_u64(3);
        for round in 0..300 {
            let goals = 2 + round % 3;
            let mut front = Front::new(goals);
            let mut all: Vec<(Merits, u16)> = Vec::new();
            for number in 0..rng.random_range(1..30) {
                let mut merits = Merits::default();
                merits[..goals].fill_with(|| f64::from(rng.random_range(0..8)) / 8.0);
                front.enter(&[number % 4], merits, &[]);
                all.push((merits, number % 4));
            }
            let mut expected = Vec::new();
            for (merits, row) in &all {
                let beaten = all.iter().any(|(other, at)| {
                    let as_good = other.iter().zip(merits).all(|(other, own)| other >= own);
                    as_good && (other != merits || at < row)
                });
                if !beaten {
                    expected.push((*merits, *row));
                }
            }
            let order = |a: &Merits, b: &Merits| b[1].total_cmp(&a[1]).then(a[0].total_cmp(&b[0]));
            expected.sort_by(|a, b| order(&a.0, &b.0).then_with(|| a.partial_cmp(b).expect("numbers")));
            expected.dedup();
            let mut found: Vec<_> = front.points().iter().map(|point| (point.merits, point.row[0])).collect();
            assert!(found.is_sorted_by(|a, b| order(&a.0, &b.0).is_le()), "{goals} goals: {found:?}");
            found.sort_by(|a, b| order(&a.0, &b.0).then_with(|| a.partial_cmp(b).expect("numbers")));
            assert_eq!(found, expected, "{goals} goals");
        }
    }
}
