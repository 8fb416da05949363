//! Every layer of a space once, and the choices that decide which network has which.

mod factored;
mod fill;
mod table;

use std::collections::BTreeMap;

use crate::builder::{Layer, SlotName};
use crate::genome::{GeneRow, Genome};
use crate::layer::LayerSpec;
use crate::search_space::SearchSpace;
use fill::Filled;

pub use factored::{ChangesFrom, Elimination, Factored, Join};
pub use table::Table;

/// A layer's number, which counts from 1; 0 means no layer.
pub type LayerId = u32;

/// A slot, and its layer in each network.
#[derive(Clone, Debug)]
pub struct Slot {
    /// The slot's name.
    pub name: SlotName,
    /// Over the choices that decide it: 0 where it is absent, else the layer's number.
    pub table: Table<LayerId>,
}

/// Every layer of a space, and which networks have it: found by building networks until all dependences of each slot
/// are known.
#[derive(Clone, Debug)]
pub struct SpaceIndex {
    genome: Genome,
    slots: Vec<Slot>,
    layers: Vec<Layer>,
    builds: usize,
    chains: bool,
}

impl SpaceIndex {
    /// Builds networks that may be drawn from the space until each slot is known.
    pub(crate) fn new(space: &SearchSpace) -> Self {
        let Filled { slots, layers, builds, chains } = fill::slots(space);
        Self { genome: space.genome().clone(), slots, layers, builds, chains }
    }

    /// The list of choices of the tables.
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
    /// outputs wait while layers run that do not read them. The tables of slots do not show this, so a maximum over
    /// slots is only a lower bound of the peak memory, and [`cost`](crate::cost) of the layers is exact.
    pub fn is_chain(&self) -> bool {
        self.chains
    }

    /// The layer in a slot of a row's network.
    pub fn at(&self, slot: &Slot, row: &GeneRow) -> Option<&Layer> {
        self.layer(slot.table.cells[slot.table.at(row)])
    }

    /// The slot of this name, which is also that of its shared weights.
    pub fn slot(&self, name: &str) -> Option<&Slot> {
        self.slots.iter().find(|slot| slot.name.is(name))
    }

    /// The layers that the slot of this name can have, by rising number.
    pub fn layers_of(&self, name: &str) -> impl Iterator<Item = &Layer> {
        let mut ids: Vec<LayerId> =
            self.slot(name).map_or_else(Vec::new, |slot| slot.table.known().collect());
        ids.sort_unstable();
        ids.dedup();
        ids.into_iter().filter_map(|id| self.layer(id))
    }

    /// The layers that a slot can have in the networks of a genome with the same lists and fewer values that may be
    /// drawn.
    pub fn layers_within<'a>(
        &'a self,
        slot: &'a Slot,
        genome: &'a Genome,
    ) -> impl Iterator<Item = &'a Layer> {
        let allowed = slot.table.cells.iter().enumerate().filter(|(cell, _)| {
            let values = slot.table.values(*cell);
            let mut pairs = slot.table.vars.iter().zip(&values);
            pairs.all(|(gene, value)| genome.allowed(*gene as usize).contains(value))
        });
        allowed.filter_map(|(_, id)| self.layer(*id))
    }

    /// All layers by rising number, each alone: named as its slot, each of its inputs the network's.
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

    /// Every layer once, by latency key; its name and slot are those in some network that has it, and each input is the
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
