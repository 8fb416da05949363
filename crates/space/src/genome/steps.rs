//! Steps from one network to its neighbors.

use super::{GeneRow, Genome, Index};

/// Stands for the combination of a group of genes that does not exist.
pub const ABSENT: Index = Index::MAX;

/// The change of one group of genes in a step.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Change {
    /// The group.
    pub group: u16,
    /// Its combination of values before; [`ABSENT`] if it comes to exist.
    pub from: Index,
    /// Its combination after; [`ABSENT`] if it ceases to exist.
    pub to: Index,
}

/// One step: a group of genes takes other values, which makes other groups come to exist or cease to exist.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Step {
    /// The range of its changes in [`Steps`].
    changes: (u32, u32),
    /// The first gene of the group that takes other values.
    pub first: u16,
    /// The last gene of the group, or of those whose existence depends on it.
    pub last: u16,
}

impl Step {
    /// Whether two steps can be made one after the other, in either order.
    pub fn is_apart(self, other: Self) -> bool {
        self.last < other.first || other.last < self.first
    }
}

/// Steps from one row, with their changes.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Steps {
    /// The steps.
    pub steps: Vec<Step>,
    changes: Vec<Change>,
}

impl Steps {
    /// The changes of a step: first its own group, then the groups that come or go with it.
    pub fn changes(&self, step: Step) -> &[Change] {
        &self.changes[step.changes.0 as usize..step.changes.1 as usize]
    }

    /// Applies a step to the row that it starts from, or to that row after steps apart from it.
    pub fn apply(&self, genome: &Genome, step: Step, row: &mut GeneRow) {
        for change in self.changes(step) {
            genome.group(change.group).write(change.to, row);
        }
    }
}

/// Genes that stand together and exist together, such as all choices of a block: one step can change several of them.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Group {
    /// Its first gene.
    pub first: usize,
    /// How many values each of its genes has.
    sizes: Vec<usize>,
    /// The last gene whose existence depends on it, or its own last.
    last_below: usize,
    /// The distance in a combination's number between neighboring values of each gene.
    spans: Vec<usize>,
}

/// Most combinations of a group of several genes; a gene that would exceed it begins a new group.
const MOST_COMBINATIONS: usize = 64;

impl Group {
    /// Its genes.
    pub fn genes(&self) -> std::ops::Range<usize> {
        self.first..self.first + self.sizes.len()
    }

    /// Number of combinations of its genes' values.
    pub fn combinations(&self) -> usize {
        self.sizes.iter().product()
    }

    /// Whether the existence of others depends on it.
    fn has_below(&self) -> bool {
        self.last_below >= self.genes().end
    }

    /// The combination that a row has, if the group exists there: its values as digits, the first the highest.
    pub fn read(&self, row: &GeneRow) -> Index {
        let digits = self.sizes.iter().zip(&row[self.genes()]);
        digits.fold(0, |code, (size, value)| code * *size as Index + value)
    }

    /// The values of a combination, each with its gene; all 0 where it is [`ABSENT`].
    pub fn values(&self, combination: Index) -> impl Iterator<Item = (usize, Index)> + '_ {
        let mut rest = if combination == ABSENT { 0 } else { usize::from(combination) };
        self.genes().zip(&self.spans).map(move |(gene, span)| {
            let value = rest / span;
            rest %= span;
            (gene, value as Index)
        })
    }

    fn write(&self, combination: Index, row: &mut GeneRow) {
        self.values(combination).for_each(|(gene, value)| row[gene] = value);
    }
}

/// Splits genes into groups: neighbors at one place whose existence depends on the same genes, as long as combinations
/// are few.
pub(super) fn groups(genes: &[super::Gene]) -> Vec<Group> {
    let mut groups: Vec<Group> = Vec::new();
    for (at, gene) in genes.iter().enumerate() {
        let size = gene.values.len();
        if let Some(group) = groups.last_mut()
            && group.combinations() * size <= MOST_COMBINATIONS
            && stand_together(&genes[group.first], gene)
        {
            group.sizes.push(size);
            group.spans.iter_mut().for_each(|span| *span *= size);
            group.spans.push(1);
            group.last_below = group.last_below.max(gene.last_below);
        } else {
            let sizes = vec![size];
            let spans = vec![1];
            let last_below = gene.last_below;
            groups.push(Group { first: at, sizes, spans, last_below });
        }
    }
    groups
}

/// Whether two genes are at one place and exist under the same condition.
fn stand_together(first: &super::Gene, gene: &super::Gene) -> bool {
    !gene.place.is_empty() && (&first.place, &first.exists) == (&gene.place, &gene.exists)
}

impl Genome {
    /// The groups, in the order of their genes.
    pub fn groups(&self) -> &[Group] {
        &self.lists.groups
    }

    /// A group by its number.
    pub fn group(&self, group: u16) -> &Group {
        &self.lists.groups[usize::from(group)]
    }

    /// The combinations of a group that may be drawn, rising.
    pub fn combinations(&self, group: u16) -> &[Index] {
        &self.combinations[usize::from(group)]
    }

    /// All steps that change one group of a row for which `chosen` holds. Groups that come to exist all take the same
    /// combination, and there is one step for each.
    pub fn steps(&self, row: &GeneRow, chosen: impl Fn(&Group) -> bool, steps: &mut Steps) {
        steps.steps.clear();
        steps.changes.clear();
        let mut below = Vec::new();
        for (number, group) in self.lists.groups.iter().enumerate() {
            if !chosen(group) || !self.exists(row, group.first) {
                continue;
            }
            let from = group.read(row);
            let first = group.first as u16;
            let last = group.last_below.max(group.genes().end - 1) as u16;
            for &to in self.combinations(number as u16).iter().filter(|to| **to != from) {
                let change = Change { group: number as u16, from, to };
                below.clear();
                self.below(row, change, &mut below);
                let comes = below.iter().find(|coming| coming.comes);
                let kinds = comes.map_or(1, |coming| self.combinations(coming.group).len());
                for kind in 0..kinds {
                    let start = steps.changes.len() as u32;
                    steps.changes.push(change);
                    below.iter().for_each(|coming| self.come(row, *coming, kind, &mut steps.changes));
                    steps.steps.push(Step { changes: (start, steps.changes.len() as u32), first, last });
                }
            }
        }
    }

    /// Records that a group comes or goes, and the groups that come and go with it.
    fn come(&self, row: &GeneRow, coming: Coming, kind: usize, changes: &mut Vec<Change>) {
        let combinations = self.combinations(coming.group);
        let to = if coming.comes { combinations[kind.min(combinations.len() - 1)] } else { ABSENT };
        let change = Change { group: coming.group, from: coming.from, to };
        changes.push(change);
        let mut below = Vec::new();
        self.below(row, change, &mut below);
        below.into_iter().for_each(|coming| self.come(row, coming, 0, changes));
    }

    /// The groups, among those that depend directly on a changed one, that come or go with it.
    fn below(&self, row: &GeneRow, change: Change, below: &mut Vec<Coming>) {
        let group = self.group(change.group);
        if !group.has_below() {
            return;
        }
        for (gene, value) in group.values(change.to) {
            for &child in &self.genes()[gene].children {
                let number = self.lists.groups.partition_point(|other| other.first < child);
                let found = self.lists.groups.get(number).filter(|other| other.first == child);
                let (Some(found), Some((_, among))) = (found, &self.genes()[child].exists) else { continue };
                let before = self.exists(row, child);
                let comes = change.to != ABSENT && among[usize::from(value)];
                if before != comes {
                    let from = if before { found.read(row) } else { ABSENT };
                    below.push(Coming { group: number as u16, from, comes });
                }
            }
        }
    }
}

/// A group that comes to exist or ceases to exist.
#[derive(Clone, Copy)]
struct Coming {
    group: u16,
    /// Its combination before; [`ABSENT`] if it comes.
    from: Index,
    comes: bool,
}

/// The allowed combinations of each group, rising.
pub(super) fn combinations(groups: &[Group], allowed: &[Vec<Index>]) -> Vec<Vec<Index>> {
    let mut combinations = Vec::with_capacity(groups.len());
    for group in groups {
        let mut codes: Vec<Index> = vec![0];
        for (gene, size) in group.genes().zip(&group.sizes) {
            let mut longer = Vec::with_capacity(codes.len() * allowed[gene].len());
            for code in codes {
                longer.extend(allowed[gene].iter().map(|value| code * *size as Index + value));
            }
            codes = longer;
        }
        combinations.push(codes);
    }
    combinations
}
