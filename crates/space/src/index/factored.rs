//! Costs of a space's networks as terms over few choices each, and their exact minima.

use super::{SpaceIndex, Table, table::UNKNOWN};
use crate::genome::{ABSENT, Change, GeneRow, Genome, Index};
use crate::layer::LayerSpec;
use crate::trace::Var;

/// A cost of several quantities; layers' costs are combined in any order: sums and maxima.
pub trait Join: Copy + Default + PartialEq {
    /// The combined cost. The default is no cost.
    #[must_use]
    fn join(self, other: Self) -> Self;
}

/// The costs of a space's networks: each is the combination of one cell per term.
#[derive(Clone, Debug)]
pub struct Factored<T> {
    terms: Vec<Table<T>>,
    /// The cells of all terms, one term after the other.
    cells: Vec<T>,
    /// For each term, where its cells begin, and where its genes end among those of all terms.
    places: Vec<(u32, u32)>,
    /// The genes of each term, with the distance in cells between their values.
    steps: Vec<(Var, u32)>,
    /// For each group of genes, the terms that it is in, with the offset of each of its combinations from the first.
    holders: Vec<Vec<(u32, Vec<u32>)>>,
}

impl SpaceIndex {
    /// Costs of layers as terms; `constant` is the cost that every network has besides its layers. A term whose genes
    /// another term has too is merged into that one. Each layer is priced alone: its peak memory in a network that is
    /// no chain may be higher ([`SpaceIndex::is_chain`]).
    ///
    /// # Errors
    /// The first error of `cost`.
    pub fn factored<T: Join, E>(
        &self,
        constant: T,
        cost: impl FnMut(&LayerSpec) -> Result<T, E>,
    ) -> Result<Factored<T>, E> {
        let costs = self.specs().iter().map(cost).collect::<Result<Vec<T>, E>>()?;
        let mut terms: Vec<Table<T>> = self
            .slots
            .iter()
            .map(|slot| {
                slot.table.map(|id: &u32| match *id {
                    0 | UNKNOWN => T::default(),
                    id => costs[id as usize - 1],
                })
            })
            .collect();
        terms.push(Table { vars: Vec::new(), sizes: Vec::new(), cells: vec![constant] });
        terms.sort_by_key(|term| std::cmp::Reverse(term.vars.len()));
        let mut kept: Vec<Table<T>> = Vec::new();
        for term in terms {
            match kept.iter_mut().find(|big| term.vars.iter().all(|var| big.vars.contains(var))) {
                Some(big) => absorb(big, &term),
                None => kept.push(term),
            }
        }
        Ok(Factored::new(kept, &self.genome))
    }
}

/// Joins a smaller table's cells to those of one that has all its genes.
fn absorb<T: Join>(big: &mut Table<T>, small: &Table<T>) {
    let strides = strides_in(&small.vars, &small.sizes, &big.vars);
    let mut walk = Walk::new(&big.sizes, &strides);
    for cell in &mut big.cells {
        *cell = cell.join(small.cells[walk.at]);
        walk.advance();
    }
}

/// The distance in cells, in a table over `vars`, between neighboring values of each of `others`; 0 for genes that it
/// does not have.
fn strides_in(vars: &[Var], sizes: &[usize], others: &[Var]) -> Vec<usize> {
    others
        .iter()
        .map(|other: &Var| {
            let at = vars.iter().position(|own| own == other);
            at.map_or(0, |at| sizes[at + 1..].iter().product())
        })
        .collect()
}

/// Iterates over all combinations of digits, the last the fastest, and tracks the cell of a table over some of them.
struct Walk<'a> {
    sizes: &'a [usize],
    strides: &'a [usize],
    digits: Vec<usize>,
    at: usize,
}

impl<'a> Walk<'a> {
    fn new(sizes: &'a [usize], strides: &'a [usize]) -> Self {
        Self { sizes, strides, digits: vec![0; sizes.len()], at: 0 }
    }

    fn advance(&mut self) {
        for place in (0..self.sizes.len()).rev() {
            self.digits[place] += 1;
            self.at += self.strides[place];
            if self.digits[place] < self.sizes[place] {
                return;
            }
            self.at -= self.strides[place] * self.digits[place];
            self.digits[place] = 0;
        }
    }
}

impl<T: Join> Factored<T> {
    fn new(terms: Vec<Table<T>>, genome: &Genome) -> Self {
        let mut cells = Vec::new();
        let mut places = Vec::new();
        let mut steps = Vec::new();
        let mut holders = vec![Vec::new(); genome.groups().len()];
        for (at, term) in terms.iter().enumerate() {
            let start = cells.len() as u32;
            cells.extend_from_slice(&term.cells);
            let strides: Vec<(Var, u32)> =
                term.vars.iter().zip(term.strides()).map(|(var, stride)| (*var, stride as u32)).collect();
            for (group, holders) in genome.groups().iter().zip(&mut holders) {
                let mut offsets = vec![0; group.combinations()];
                for (combination, offset) in offsets.iter_mut().enumerate() {
                    for (gene, value) in group.values(combination as Index) {
                        let stride = strides.iter().find(|(var, _)| *var as usize == gene);
                        *offset += stride.map_or(0, |(_, stride)| stride * u32::from(value));
                    }
                }
                if offsets.iter().any(|offset| *offset > 0) {
                    holders.push((at as u32, offsets));
                }
            }
            steps.extend(strides);
            places.push((start, steps.len() as u32));
        }
        Self { terms, cells, places, steps, holders }
    }

    /// The terms.
    pub fn terms(&self) -> &[Table<T>] {
        &self.terms
    }

    /// The cells of a row, by term.
    fn cells_of<'a>(&'a self, row: &'a GeneRow) -> impl Iterator<Item = usize> + 'a {
        let mut begin = 0;
        self.places.iter().map(move |(start, end)| {
            let steps = &self.steps[begin..*end as usize];
            begin = *end as usize;
            let within: u32 = steps.iter().map(|(var, stride)| u32::from(row[*var as usize]) * stride).sum();
            (start + within) as usize
        })
    }

    /// The cost of a row's network.
    pub fn of(&self, row: &GeneRow) -> T {
        self.cells_of(row).fold(T::default(), |sum, cell| sum.join(self.cells[cell]))
    }

    /// The row as a starting point, from which changes are priced.
    pub fn from<'a>(&'a self, row: &GeneRow) -> ChangesFrom<'a, T> {
        ChangesFrom { costs: self, cells: self.cells_of(row).collect(), moved: Vec::new() }
    }
}

/// The cells of a row that is changed.
#[derive(Clone, Debug)]
pub struct ChangesFrom<'a, T> {
    costs: &'a Factored<T>,
    cells: Vec<usize>,
    /// Terms that changes move, and how far.
    moved: Vec<(u32, i64)>,
}

impl<T: Join> ChangesFrom<'_, T> {
    /// The change of a quantity that is a sum, for changes of the row.
    pub fn added(&mut self, changes: &[Change], of: impl Fn(&T) -> f64) -> f64 {
        self.moved.clear();
        for change in changes {
            // an absent group stands at its first combination
            let at = |offsets: &[u32], combination: Index| {
                i64::from(if combination == ABSENT { 0 } else { offsets[usize::from(combination)] })
            };
            for (term, offsets) in &self.costs.holders[usize::from(change.group)] {
                let by = at(offsets, change.to) - at(offsets, change.from);
                match self.moved.iter_mut().find(|(other, _)| other == term) {
                    Some((_, all)) => *all += by,
                    None => self.moved.push((*term, by)),
                }
            }
        }
        self.moved
            .iter()
            .map(|(term, by): &(u32, i64)| {
                let from = self.cells[*term as usize];
                let to = (from as i64 + by) as usize;
                of(&self.costs.cells[to]) - of(&self.costs.cells[from])
            })
            .sum()
    }
}

/// Finds the least of a sum or maximum of terms, exactly, by eliminating one gene after the other: all terms of a gene
/// become one term over the other genes, the least over its values (Bertele and Brioschi 1972).
#[derive(Clone, Debug)]
pub struct Elimination {
    rounds: Vec<Round>,
    /// The terms that remain at the end, with one cell each.
    left: Vec<usize>,
    genes: usize,
}

/// One gene is eliminated.
#[derive(Clone, Debug)]
struct Round {
    gene: usize,
    /// Its values that may be drawn.
    allowed: Vec<Index>,
    /// The terms that it is in: their places among the given and the earlier new ones; the distance in cells between
    /// its values; the same for each other gene.
    terms: Vec<(usize, usize, Vec<usize>)>,
    /// The other genes of these terms, and the number of values of each.
    others: Vec<Var>,
    sizes: Vec<usize>,
}

impl Elimination {
    /// Plans the elimination for terms over these genes, in this order: the next gene is always the one that makes the
    /// smallest term.
    pub fn new<'a>(genome: &Genome, scopes: impl Iterator<Item = &'a [Var]>) -> Self {
        let size = |var: &Var| genome.genes()[*var as usize].values.len();
        let mut open: Vec<(usize, Vec<Var>)> = scopes.map(<[Var]>::to_vec).enumerate().collect();
        let mut made = open.len();
        let mut left: Vec<Var> = (0..genome.len() as Var).collect();
        let mut rounds = Vec::with_capacity(left.len());
        while !left.is_empty() {
            let smallest = left
                .iter()
                .map(|var: &Var| together(&open, *var).iter().map(|var| size(var) as f64).product::<f64>())
                .enumerate()
                .min_by(|a, b| a.1.total_cmp(&b.1));
            let var = left.remove(smallest.expect("it is not empty").0);
            let mut others = together(&open, var);
            others.retain(|other| *other != var);
            let (with, without): (Vec<_>, Vec<_>) =
                open.into_iter().partition(|(_, scope)| scope.contains(&var));
            let terms = with.into_iter().map(|(place, scope)| {
                let sizes: Vec<usize> = scope.iter().map(size).collect();
                (place, strides_in(&scope, &sizes, &[var])[0], strides_in(&scope, &sizes, &others))
            });
            let gene = var as usize;
            let allowed = genome.allowed(var as usize).to_vec();
            let sizes = others.iter().map(size).collect();
            rounds.push(Round { gene, allowed, terms: terms.collect(), others: others.clone(), sizes });
            open = without;
            open.push((made, others));
            made += 1;
        }
        Self { rounds, left: open.into_iter().map(|(place, _)| place).collect(), genes: genome.len() }
    }

    /// The least value of all terms together, and the values that reach it, one per gene; the first of equals. The
    /// terms have the genes of the plan; `join` is monotonic in both arguments.
    pub fn least(&self, terms: Vec<Table<f64>>, join: impl Fn(f64, f64) -> f64) -> (f64, Vec<Index>) {
        let mut cells: Vec<Vec<f64>> = terms.into_iter().map(|term| term.cells).collect();
        let mut choices: Vec<Vec<Index>> = Vec::with_capacity(self.rounds.len());
        for round in &self.rounds {
            let (least, choice) = round.eliminate(&cells, &join);
            cells.push(least);
            choices.push(choice);
        }
        let least = self.left.iter().fold(0.0, |sum, place| join(sum, cells[*place][0]));
        let mut values = vec![0; self.genes];
        for (round, choice) in self.rounds.iter().zip(&choices).rev() {
            let digits = round.others.iter().zip(&round.sizes);
            let cell = digits.fold(0, |cell, (var, size)| cell * size + usize::from(values[*var as usize]));
            values[round.gene] = choice[cell];
        }
        (least, values)
    }
}

impl Round {
    /// For each combination of the other genes' values the least over this gene's, and which value has it.
    fn eliminate(&self, cells: &[Vec<f64>], join: &impl Fn(f64, f64) -> f64) -> (Vec<f64>, Vec<Index>) {
        let count: usize = self.sizes.iter().product();
        let mut least = Vec::with_capacity(count);
        let mut choice = Vec::with_capacity(count);
        let mut walks: Vec<Walk<'_>> =
            self.terms.iter().map(|(_, _, strides)| Walk::new(&self.sizes, strides)).collect();
        for _ in 0..count {
            let mut best = (f64::INFINITY, self.allowed[0]);
            for &value in &self.allowed {
                let mut together = 0.0;
                for ((place, stride, _), walk) in self.terms.iter().zip(&walks) {
                    together = join(together, cells[*place][walk.at + usize::from(value) * stride]);
                }
                if together < best.0 {
                    best = (together, value);
                }
            }
            least.push(best.0);
            choice.push(best.1);
            walks.iter_mut().for_each(Walk::advance);
        }
        (least, choice)
    }
}

/// All genes of the terms that contain a gene.
fn together(scopes: &[(usize, Vec<Var>)], var: Var) -> Vec<Var> {
    let with = scopes.iter().filter(|(_, scope)| scope.contains(&var));
    let mut genes: Vec<Var> = with.flat_map(|(_, scope)| scope.iter().copied()).collect();
    genes.sort_unstable();
    genes.dedup();
    genes
}

#[cfg(test)]
mod tests {
    use std::convert::Infallible;

    use rand::{Rng, SeedableRng};
    use rand_chacha::ChaCha8Rng;

    use super::*;
    use crate::{RESOLUTION, SearchSpace, Steps, cost, preset, preset_names};

    /// A sum and a maximum.
    #[derive(Clone, Copy, Debug, Default, PartialEq)]
    struct Both(u64, u64);

    impl Join for Both {
        fn join(self, other: Self) -> Self {
            Self(self.0 + other.0, self.1.max(other.1))
        }
    }

    fn factored(space: &SearchSpace) -> Factored<Both> {
        space
            .index()
            .factored(Both(1000, 0), |layer: &LayerSpec| {
                let cost = cost(std::slice::from_ref(layer));
                Ok::<_, Infallible>(Both(cost.macs, cost.peak_activation_bytes))
            })
            .expect("it cannot fail")
    }

    #[test]
    fn terms_are_what_lowering_says_and_changes_what_they_change() {
        for name in preset_names() {
            let space = preset(name).expect("a preset");
            let costs = factored(&space);
            let mut steps = Steps::default();
            let chains = space.index().is_chain();
            let mut rng = ChaCha8Rng::seed_from_u64(6);
            for _ in 0..200 {
                let row = space.genome().random(&mut rng);
                let whole = cost(&space.lower_row(&row));
                let found = costs.of(&row);
                assert_eq!(found.0, 1000 + whole.macs, "{name}");
                // outputs that wait for later readers are in no layer's table
                assert!(found.1 <= whole.peak_activation_bytes, "{name}");
                assert!(!chains || found.1 == whole.peak_activation_bytes, "{name}");
                space.genome().steps(&row, |_| true, &mut steps);
                for _ in 0..5 {
                    let step = steps.steps[rng.random_range(0..steps.steps.len())];
                    let mut other = row.clone();
                    steps.apply(space.genome(), step, &mut other);
                    let added = costs.from(&row).added(steps.changes(step), |both| both.0 as f64);
                    assert_eq!(found.0 as f64 + added, costs.of(&other).0 as f64, "{name}");
                }
            }
        }
    }

    /// Every network of three small spaces, with random prices of layers, so that prices do not follow sizes.
    #[test]
    fn the_least_is_that_of_all_networks() {
        let tiny = preset("tiny").expect("a preset").to_toml();
        let resnet = preset("tiny-resnet").expect("a preset").to_toml();
        let choice = preset("tiny-choice").expect("a preset").to_toml();
        for text in [tiny, resnet, choice] {
            let space = SearchSpace::from_toml("small", &text).expect("a space");
            let all = space.genome().all();
            for seed in 0..20 {
                let mut rng = ChaCha8Rng::seed_from_u64(seed);
                let costs = space
                    .index()
                    .factored(Both::default(), &mut |_: &LayerSpec| {
                        let price: u64 = rng.random_range(1..1000);
                        Ok::<_, Infallible>(Both(price, price))
                    })
                    .expect("it cannot fail");
                let scopes = costs.terms().iter().map(|term| term.vars.as_slice());
                let elimination = Elimination::new(space.genome(), scopes);
                let sums = costs.terms().iter().map(|term| term.map(|both| both.0 as f64)).collect();
                let (least, mut row) = elimination.least(sums, |sum, more| sum + more);
                space.genome().make_canonical(&mut row);
                assert_eq!(costs.of(&row).0 as f64, least);
                assert_eq!(all.iter().map(|row| costs.of(row).0).min(), Some(costs.of(&row).0));
                let greatest = costs.terms().iter().map(|term| term.map(|both| both.1 as f64)).collect();
                let (least, _) = elimination.least(greatest, f64::max);
                assert_eq!(all.iter().map(|row| costs.of(row).1).min(), Some(least as u64));
                // at one value of a gene
                let slices: Vec<_> =
                    costs.terms().iter().map(|term| term.sliced(RESOLUTION as Var, 1)).collect();
                let scopes = slices.iter().map(|term| term.vars.as_slice());
                let at_one = Elimination::new(space.genome(), scopes);
                let sums = slices.iter().map(|term| term.map(|both| both.0 as f64)).collect();
                let (least, _) = at_one.least(sums, |sum, more| sum + more);
                let there = all.iter().filter(|row| row[RESOLUTION] == 1).map(|row| costs.of(row).0).min();
                assert_eq!(there, Some(least as u64));
            }
        }
    }

    /// A minimum never has a value that may not be drawn, even if it costs nothing.
    #[test]
    fn the_least_may_be_drawn() {
        let space = preset("tiny").expect("a preset");
        let largest = space.restricted(&[("kernel".to_string(), 1), ("depth".to_string(), 1)].into());
        let costs = factored(&largest);
        let scopes = costs.terms().iter().map(|term| term.vars.as_slice());
        let elimination = Elimination::new(largest.genome(), scopes);
        let sums = costs.terms().iter().map(|term| term.map(|both| both.0 as f64)).collect();
        let (_, row) = elimination.least(sums, |sum, more| sum + more);
        assert!(largest.genome().holds(&row));
        assert_eq!(largest.arch(&row).to_string(), "r8:k7e3,k7e3/k7e3,k7e3");
    }
}
