//! The best sub-networks of a search, and the front of its two goals.

use std::cmp::Ordering;

use space::{GeneRow, Index};

use super::metric::MetricValue;

/// Number of retained sub-networks: ten rounds of twenty.
pub const TOP: usize = 200;

/// A sub-network that keeps all limits.
#[derive(Clone, Debug, PartialEq)]
pub struct ArchivedPoint {
    /// Its genes.
    pub row: Vec<Index>,
    /// The values from estimators.
    pub(super) estimated: Vec<MetricValue>,
    /// Merits for the goals, the greater the better.
    pub merits: [f64; 2],
}

/// The best of all entered rows, each entered once.
#[derive(Debug, Default)]
pub(super) struct Best(Vec<ArchivedPoint>);

impl Best {
    /// Best first.
    pub fn points(&self) -> &[ArchivedPoint] {
        &self.0
    }

    /// Retains a row if it is among the best: by the first goal, then the second, then the genes' order.
    pub fn enter(&mut self, row: &GeneRow, merits: [f64; 2], estimated: &[MetricValue]) {
        let order = |point: &ArchivedPoint| {
            let first = merits[0].total_cmp(&point.merits[0]);
            let second = merits[1].total_cmp(&point.merits[1]);
            first.then(second).then_with(|| point.row[..].cmp(row))
        };
        if self.0.len() == TOP && self.0.last().is_some_and(|last| order(last) != Ordering::Greater) {
            return;
        }
        let place = self.0.partition_point(|point| order(point) != Ordering::Greater);
        self.0.insert(place, ArchivedPoint { row: row.to_vec(), estimated: estimated.to_vec(), merits });
        self.0.truncate(TOP);
    }
}

/// The entered rows that no other is better than: by the second goal, best first, and so by the first, worst first.
#[derive(Debug, Default)]
pub(super) struct Front(Vec<ArchivedPoint>);

impl Front {
    /// The points in order.
    pub fn points(&self) -> &[ArchivedPoint] {
        &self.0
    }

    /// Enters a row unless another is better, and drops those that it is better than; of equal rows it retains the one
    /// that comes first.
    pub fn enter(&mut self, row: &GeneRow, merits: [f64; 2], estimated: &[MetricValue]) {
        let [first, second] = merits;
        let end = self.0.partition_point(|point| point.merits[1] >= second);
        if let Some(before) = end.checked_sub(1).map(|before| &self.0[before]) {
            let equal = before.merits == merits;
            if before.merits[0] > first || (before.merits[0] == first && !(equal && row < &before.row[..])) {
                return;
            }
        }
        let start = self.0[..end].partition_point(|point| point.merits[1] > second);
        let beaten = self.0[end..].iter().take_while(|point| point.merits[0] <= first).count();
        let point = ArchivedPoint { row: row.to_vec(), estimated: estimated.to_vec(), merits };
        self.0.splice(start..end + beaten, [point]);
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
        let mut all: Vec<(Vec<Index>, [f64; 2])> = (0..700)
            .map(|gene| {
                let second = -f64::from(rng.random_range(1..4));
                (vec![gene], [f64::from(rng.random_range(0..50)) / 50.0, second])
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
        for _ in 0..200 {
            let mut front = Front::default();
            let mut all = Vec::new();
            for number in 0..rng.random_range(1..30) {
                let merits = [f64::from(rng.random_range(0..8)) / 8.0, -f64::from(rng.random_range(1..8))];
                front.enter(&[number % 4], merits, &[]);
                all.push((merits, number % 4));
            }
            let mut expected = Vec::new();
            for (merits, row) in &all {
                let beaten = all.iter().any(|(other, at)| {
                    let as_good = other[0] >= merits[0] && other[1] >= merits[1];
                    as_good && (other != merits || at < row)
                });
                if !beaten {
                    expected.push((*merits, *row));
                }
            }
            expected.sort_by(|a, b| a.0[0].total_cmp(&b.0[0]));
            expected.dedup();
            let found: Vec<_> = front.points().iter().map(|point| (point.merits, point.row[0])).collect();
            assert_eq!(found, expected);
        }
    }
}
