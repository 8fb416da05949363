//! What `depends` gives: every layer of a space once, and which networks have which.

mod factored;
mod fill;
mod table;

use std::collections::BTreeMap;

use crate::builder::{Layer, SlotName};
use crate::genome::{GeneRow, Genome, Index};
use crate::layer::LayerSpec;
use crate::search_space::SearchSpace;
use fill::Filled;

pub use factored::{ChangesFrom, Elimination, Factored, Join};
pub use table::Table;

/// A layer's number, which counts from 1; 0 stands for none.
pub type LayerId = u32;

/// A place for a layer, and which layer stands there in which networks.
#[derive(Clone, Debug)]
pub struct Slot {
    /// Its name.
    pub name: SlotName,
    /// By the choices that decide it: 0 where it is absent, else the layer's number.
    pub table: Table<LayerId>,
}

/// Every layer of a space, and which networks have which: found by building as many networks as it takes to see all that
/// each slot depends on.
#[derive(Clone, Debug)]
pub struct SpaceIndex {
    genome: Genome,
    slots: Vec<Slot>,
    layers: Vec<Layer>,
    builds: usize,
    chains: bool,
}

impl SpaceIndex {
    /// Builds networks of the space, of those that may be drawn, until each slot is known.
    pub(crate) fn new(space: &SearchSpace) -> Self {
        let Filled { slots, layers, builds, chains } = fill::slots(space);
        Self { genome: space.genome().clone(), slots, layers, builds, chains }
    }

    /// The list of choices that its tables are over.
    pub fn genome(&self) -> &Genome {
        &self.genome
    }

    /// The slots, in the order in which their layers run.
    pub fn slots(&self) -> &[Slot] {
        &self.slots
    }

    /// A layer by its number.
    pub fn layer(&self, id: LayerId) -> Option<&Layer> {
        self.layers.get((id as usize).checked_sub(1)?)
    }

    /// All layers, by rising number.
    pub fn layers(&self) -> &[Layer] {
        &self.layers
    }

    /// How many networks were built.
    pub fn builds(&self) -> usize {
        self.builds
    }

    /// Whether every network that was built is a chain, in which each layer reads the one before it. In other networks
    /// outputs wait while layers run that do not read them; no slot's table knows of that, so a maximum over slots is
    /// only a lower bound of their peak memory, and [`cost`](crate::cost) of their layers is exact.
    pub fn is_chain(&self) -> bool {
        self.chains
    }

    /// The layer in a slot of a row's network.
    pub fn at(&self, slot: &Slot, row: &GeneRow) -> Option<&Layer> {
        self.layer(slot.table.cells[slot.table.at(row)])
    }

    /// The slot of this name, which its shared weights have too.
    pub fn slot(&self, name: &str) -> Option<&Slot> {
        self.slots.iter().find(|slot| slot.name.is(name))
    }

    /// The layers that can stand in the slot of this name, by rising number.
    pub fn layers_of(&self, name: &str) -> impl Iterator<Item = &Layer> {
        let mut ids: Vec<LayerId> =
            self.slot(name).map_or_else(Vec::new, |slot| slot.table.known().collect());
        ids.sort_unstable();
        ids.dedup();
        ids.into_iter().filter_map(|id| self.layer(id))
    }

    /// The layers that can stand in a slot of the networks of a genome with the same lists, of which less may be drawn.
    pub fn layers_within<'a>(
        &'a self,
        slot: &'a Slot,
        genome: &'a Genome,
    ) -> impl Iterator<Item = &'a Layer> {
        let may = |values: &[Index]| {
            let pairs = slot.table.vars.iter().zip(values);
            pairs.into_iter().all(|(gene, value)| genome.allowed(*gene as usize).contains(value))
        };
        let cells = slot.table.cells.iter().enumerate();
        cells.filter(move |(cell, _)| may(&slot.table.values(*cell))).filter_map(|(_, id)| self.layer(*id))
    }

    /// All layers by rising number, each by itself: named as its slot, each of its inputs the network's.
    pub fn specs(&self) -> Vec<LayerSpec> {
        let mut specs: Vec<Option<LayerSpec>> = vec![None; self.layers.len()];
        for slot in &self.slots {
            for id in slot.table.known() {
                let Some(Layer { operator, input, output }) = self.layer(id).cloned() else { continue };
                let name = slot.name.to_string();
                let number = slot.name.number;
                let inputs = vec![None; operator.arity()];
                let layer = LayerSpec { name, slot: number, operator, input, output, inputs };
                specs[id as usize - 1].get_or_insert(layer);
            }
        }
        specs.into_iter().flatten().collect()
    }

    /// Every layer once, by latency key; a name and a slot are those of a network that has it, and each input is the
    /// network's.
    pub fn by_key(&self) -> BTreeMap<String, LayerSpec> {
        let mut found = BTreeMap::new();
        for layer in self.specs() {
            found.entry(layer.key()).or_insert(layer);
        }
        found
    }
}

#[cfg(test)]
mod tests;
