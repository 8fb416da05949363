//! The best sub-networks that a search has looked at, for whoever evaluates more than the first.

use std::cmp::Ordering;

use space::Row;

use super::known::{Point, Scored};

/// Sub-networks that are kept: ten rounds of twenty.
pub const TOP: usize = 200;

/// The best of all that were entered, each entered once.
#[derive(Debug, Default)]
pub(super) struct Best(Vec<Point>);

impl Best {
    /// Best first.
    pub fn points(&self) -> &[Point] {
        &self.0
    }

    /// Keeps one if it is among the best: by accuracy, then by latency, then by the genes' own order.
    pub fn enter(&mut self, genes: &Row, scored: Scored) {
        let order = |point: &Point| {
            let accuracy = scored.accuracy.total_cmp(&point.scored.accuracy);
            let latency = point.scored.costs.latency_us.total_cmp(&scored.costs.latency_us);
            accuracy.then(latency).then_with(|| point.genes[..].cmp(genes))
        };
        if self.0.len() == TOP && self.0.last().is_some_and(|last| order(last) != Ordering::Greater) {
            return;
        }
        let place = self.0.partition_point(|point| order(point) != Ordering::Greater);
        self.0.insert(place, Point { genes: genes.to_vec(), scored });
        self.0.truncate(TOP);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::index::Costs;
    use rand::seq::SliceRandom;
    use rand::{Rng, SeedableRng};
    use rand_chacha::ChaCha8Rng;
    use space::Index;

    #[test]
    fn the_best_are_kept_in_order_whatever_comes_first() {
        let mut rng = ChaCha8Rng::seed_from_u64(0);
        let mut all: Vec<(Vec<Index>, Scored)> = (0..700)
            .map(|gene| {
                let costs = Costs { latency_us: f64::from(rng.random_range(1..4)), ..Costs::default() };
                (vec![gene], Scored { accuracy: rng.random_range(0..50) as f32 / 50.0, costs })
            })
            .collect();
        let mut kept: Vec<Vec<Vec<Index>>> = Vec::new();
        for _ in 0..2 {
            let mut best = Best::default();
            all.iter().for_each(|(genes, scored)| best.enter(genes, *scored));
            kept.push(best.points().iter().map(|point| point.genes.clone()).collect());
            all.shuffle(&mut rng);
        }
        let key =
            |(genes, scored): &(Vec<Index>, Scored)| (-scored.accuracy, scored.costs.latency_us, genes[0]);
        all.sort_by(|a, b| key(a).partial_cmp(&key(b)).expect("numbers"));
        let expected: Vec<_> = all.into_iter().take(TOP).map(|(genes, _)| genes).collect();
        assert_eq!(kept, [expected.clone(), expected]);
    }
}
