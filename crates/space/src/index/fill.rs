//! Fills the tables of an index: builds networks until no trace names a choice that its table lacks, and no cell is
//! empty.
//!
//! A layer's operator and its extents are traced separately, in two tables: one is usually over a block's choices, the
//! other over the resolution, and few networks show all of each. The table of layers is their product.

use std::collections::HashMap;
use std::hash::Hash;

use super::table::{Table, UNKNOWN};
use super::{LayerId, Slot};
use crate::builder::{Layer, Node, is_chain};
use crate::feature_map::FeatureMap;
use crate::genome::{GeneRow, Genome, Index};
use crate::operators::Operator;
use crate::search_space::SearchSpace;
use crate::trace::{Var, VarSet};
use crate::value::Extent;

/// Number of unfilled cells of a table that are tried for one that fits a network's other choices.
const TRIED: usize = 16;

/// The result of building the networks.
pub(super) struct Filled {
    /// The slots with their tables.
    pub slots: Vec<Slot>,
    /// All layers.
    pub layers: Vec<Layer>,
    /// Number of networks built.
    pub builds: usize,
    /// Whether all these networks are chains.
    pub chains: bool,
}

/// Builds networks of a space until the tables of all slots are full.
pub(super) fn slots(space: &SearchSpace) -> Filled {
    let mut filler = Filler::new(space);
    let mut first: Vec<Index> =
        (0..space.genome().len()).map(|gene| space.genome().allowed(gene)[0]).collect();
    space.genome().make_canonical(&mut first);
    let nodes = space.build(&first, None);
    let mut tables = filler.start(&nodes);
    let mut chains = is_chain(&nodes);
    while let Some(target) = tables.iter().position(|table| !table.is_full()) {
        let row = filler.aim(&tables, target);
        let nodes = space.build(&row, None);
        filler.builds += 1;
        chains &= is_chain(&nodes);
        filler.note(&mut tables, &nodes, &row);
    }
    for table in &mut tables {
        filler.copy_to_other_rows(&mut table.table);
    }
    let mut slots = Vec::with_capacity(nodes.len());
    let mut layers = Layers::default();
    for (node, pair) in nodes.iter().zip(tables.chunks_exact(2)) {
        let what = pair[0].table.clone().minimal();
        let extents = pair[1].table.clone().minimal();
        let table = filler.product(&what, &extents, &mut layers);
        slots.push(Slot { name: node.slot, table: table.minimal() });
    }
    Filled { slots, layers: layers.layers, builds: filler.builds, chains }
}

/// A layer without its extents; `None` where it does not exist.
type What = Option<(Operator, [usize; 2])>;
/// Extents before and after a layer.
type Extents = [Extent; 2];

/// Distinct things, numbered.
struct Numbers<T> {
    numbers: HashMap<T, u32>,
    things: Vec<T>,
}

impl<T: Hash + Eq + Clone> Numbers<T> {
    fn new() -> Self {
        Self { numbers: HashMap::new(), things: Vec::new() }
    }

    fn of(&mut self, thing: &T) -> u32 {
        if let Some(number) = self.numbers.get(thing) {
            return *number;
        }
        let next = self.things.len() as u32;
        self.numbers.insert(thing.clone(), next);
        self.things.push(thing.clone());
        next
    }
}

/// A table that is being filled.
struct Filling {
    table: Table<u32>,
    scope: VarSet,
    /// The first cell that may be empty.
    next: usize,
}

impl Filling {
    fn is_full(&self) -> bool {
        self.next >= self.table.cells.len()
    }
}

/// Distinct layers.
#[derive(Default)]
struct Layers {
    numbers: HashMap<(u32, u32), LayerId>,
    layers: Vec<Layer>,
}

struct Filler<'a> {
    genome: &'a Genome,
    sizes: Vec<usize>,
    whats: Numbers<What>,
    extents: Numbers<Extents>,
    builds: usize,
}

impl<'a> Filler<'a> {
    fn new(space: &'a SearchSpace) -> Self {
        let genome = space.genome();
        let sizes = genome.genes().iter().map(|gene| gene.values.len()).collect();
        Self { genome, sizes, whats: Numbers::new(), extents: Numbers::new(), builds: 0 }
    }

    /// Two empty tables for each slot: its operator and its extents.
    fn start(&self, nodes: &[Node]) -> Vec<Filling> {
        let scopes = nodes.iter().flat_map(|node| [&node.what.depends, &node.extents.depends]);
        scopes.map(|scope| self.empty(scope.clone())).collect()
    }

    fn empty(&self, scope: VarSet) -> Filling {
        let table = Table::new(scope.iter().collect(), &self.sizes, UNKNOWN);
        Filling { table, scope, next: 0 }
    }

    /// Whether one row that may be drawn can have these values.
    fn may_be(&self, vars: &[Var], values: &[Index]) -> bool {
        for (var, value) in vars.iter().zip(values) {
            let gene = *var as usize;
            let may_be = if self.exists(gene, vars, values) {
                self.genome.allowed(gene).contains(value)
            } else {
                *value == 0
            };
            if !may_be {
                return false;
            }
        }
        true
    }

    /// Whether a gene exists, as far as these values decide it.
    fn exists(&self, gene: usize, vars: &[Var], values: &[Index]) -> bool {
        let mut condition = &self.genome.genes()[gene].exists;
        while let Some((parent, among)) = condition {
            if let Ok(at) = vars.binary_search(&(*parent as Var))
                && !among[usize::from(values[at])]
            {
                return false;
            }
            condition = &self.genome.genes()[*parent].exists;
        }
        true
    }

    /// A row that fills an empty cell of the target, and of as many other tables as fit.
    fn aim(&self, tables: &[Filling], target: usize) -> Vec<Index> {
        let mut chosen: Vec<Option<Index>> = vec![None; self.sizes.len()];
        for filling in &tables[target..] {
            let cells = &filling.table.cells;
            let empty = (filling.next..cells.len()).filter(|cell| cells[*cell] == UNKNOWN);
            for cell in empty.take(TRIED) {
                let values = filling.table.values(cell);
                let mut pairs = filling.table.vars.iter().zip(&values);
                let fits =
                    pairs.all(|(var, value)| chosen[*var as usize].is_none_or(|chosen| chosen == *value));
                if fits && self.may_be(&filling.table.vars, &values) {
                    for (var, value) in filling.table.vars.iter().zip(values) {
                        chosen[*var as usize] = Some(value);
                    }
                    break;
                }
            }
        }
        let mut row = Vec::with_capacity(chosen.len());
        for (gene, value) in chosen.into_iter().enumerate() {
            row.push(value.unwrap_or(self.genome.allowed(gene)[0]));
        }
        self.genome.make_canonical(&mut row);
        row
    }

    /// Enters the slots of one network.
    fn note(&mut self, tables: &mut [Filling], nodes: &[Node], row: &GeneRow) {
        for (node, pair) in nodes.iter().zip(tables.chunks_exact_mut(2)) {
            let what = self.whats.of(&node.what.value);
            self.enter(&mut pair[0], &node.what.depends, row, what);
            let extents = self.extents.of(&node.extents.value);
            self.enter(&mut pair[1], &node.extents.depends, row, extents);
        }
    }

    fn enter(&self, filling: &mut Filling, depends: &VarSet, row: &GeneRow, seen: u32) {
        if !depends.is_subset(&filling.scope) {
            let mut scope = filling.scope.clone();
            scope.extend(depends);
            *filling = self.empty(scope);
        }
        let cell = filling.table.at(row);
        debug_assert!([UNKNOWN, seen].contains(&filling.table.cells[cell]), "a dependence was not noted");
        filling.table.cells[cell] = seen;
        while !filling.is_full() {
            let empty = filling.table.cells[filling.next] == UNKNOWN;
            if empty && self.may_be(&filling.table.vars, &filling.table.values(filling.next)) {
                break;
            }
            filling.next += 1;
        }
    }

    /// Copies to the cell of a row that is not canonical the cell of its canonical row.
    fn copy_to_other_rows(&self, table: &mut Table<u32>) {
        let mut row = vec![0; self.sizes.len()];
        for cell in 0..table.cells.len() {
            if table.cells[cell] != UNKNOWN {
                continue;
            }
            let values = table.values(cell);
            for (var, value) in table.vars.iter().zip(&values) {
                row[*var as usize] = *value;
            }
            self.genome.make_canonical(&mut row);
            table.cells[cell] = table.cells[table.at(&row)];
        }
    }

    /// The table of layers.
    fn product(&self, what: &Table<u32>, extents: &Table<u32>, layers: &mut Layers) -> Table<LayerId> {
        let mut scope: Vec<Var> = [what.vars.clone(), extents.vars.clone()].concat();
        scope.sort_unstable();
        scope.dedup();
        let mut product = Table::new(scope, &self.sizes, UNKNOWN);
        let mut row = vec![0; self.sizes.len()];
        for cell in 0..product.cells.len() {
            for (var, value) in product.vars.iter().zip(product.values(cell)) {
                row[*var as usize] = value;
            }
            let operator = what.cells[what.at(&row)];
            let sides = extents.cells[extents.at(&row)];
            if operator != UNKNOWN && sides != UNKNOWN {
                product.cells[cell] = self.layer(operator, sides, layers);
            }
        }
        product
    }

    /// The number of a layer, given those of its operator and of its extents; 0 if there is no layer.
    fn layer(&self, what: u32, extents: u32, layers: &mut Layers) -> LayerId {
        let Some((operator, [from, to])) = &self.whats.things[what as usize] else { return 0 };
        let next = layers.layers.len() as LayerId + 1;
        let id = *layers.numbers.entry((what, extents)).or_insert(next);
        if id == next {
            let [input, output] = self.extents.things[extents as usize];
            let input = FeatureMap::of(*from, input);
            let output = FeatureMap::of(*to, output);
            layers.layers.push(Layer { operator: operator.clone(), input, output });
        }
        id
    }
}
