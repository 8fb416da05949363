//! Checks the fields of a space, whatever its family.

use std::collections::BTreeMap;

use base::error::{Error, Result};

use super::FamilyName;
use super::stages::{Choices, Stage};
use crate::layer::LayerSpec;
use crate::sampler::largest;
use crate::search_space::SearchSpace;
use crate::value::{Extent, Readable};

/// Largest value that a size in a space may have: keeps products of sizes far from overflow.
pub(super) const LARGEST: usize = 65_536;

/// Most values that a list of choices may have: more than there are whole resolutions.
const MOST_CHOICES: usize = 4096;

/// Most cells of the tables of one layer of each block, over all choices that decide the layer: 16 MB per layer.
const MOST_CELLS: u128 = 1 << 22;

/// Most parameters that the largest sub-network may have: 4 GB of f32.
const MOST_PARAMETERS: u128 = 1 << 30;

/// Checks the fields of one space.
pub(super) struct Door<'a> {
    /// The space's name in messages.
    pub place: &'a str,
}

impl Door<'_> {
    pub fn within(&self, field: &str, value: usize, least: usize, most: usize) -> Result<()> {
        if (least..=most).contains(&value) {
            return Ok(());
        }
        Err(Error::invalid(self.place, field, format!("{least} to {most}"), value))
    }

    /// A network too large for any memory is a mistake, and better found here than by an allocation.
    pub fn parameters(&self, space: &SearchSpace) -> Result<()> {
        let layers = space.lower(&largest(space))?;
        let weights = layers.iter().flat_map(LayerSpec::weights);
        self.few_enough(
            "parameters of the largest sub-network",
            weights.map(|weight| size(&weight.shape)).sum(),
        )?;
        if space.genome().is_elastic("operator") {
            // weights of operators that are not the largest network's are shared too
            self.few_enough("shared parameters of all operators", shared_parameters(space))?;
        }
        Ok(())
    }

    fn few_enough(&self, field: &str, parameters: u128) -> Result<()> {
        if parameters <= MOST_PARAMETERS {
            return Ok(());
        }
        Err(Error::invalid(self.place, field, format!("at most {MOST_PARAMETERS}"), parameters)
            .and_then_do("make it narrower or shallower"))
    }

    pub fn share(&self, field: &str, value: f64, above: f64, below: f64) -> Result<()> {
        if value >= above && value < below {
            return Ok(());
        }
        Err(Error::invalid(self.place, field, format!("a number from {above} to below {below}"), value))
    }

    /// A list of choices: not empty, rising, without doubles.
    pub fn rising<T: PartialOrd + std::fmt::Debug>(&self, field: &str, list: &[T]) -> Result<()> {
        if list.is_empty() || list.windows(2).any(|pair| pair[0] >= pair[1]) {
            return Err(Error::invalid(self.place, field, "a rising list of choices", format!("{list:?}")));
        }
        self.within(&format!("{field} (number of choices)"), list.len(), 1, MOST_CHOICES)
    }

    /// A list of names in the order of `all`: not empty, without doubles.
    pub fn names_in_order<T: PartialOrd + Readable>(&self, field: &str, list: &[T], all: &[T]) -> Result<()> {
        if !list.is_empty() && list.windows(2).all(|pair| pair[0] < pair[1]) {
            return Ok(());
        }
        let names = |list: &[T]| list.iter().map(|of| of.value().to_string()).collect::<Vec<_>>().join(", ");
        let expected = format!("some of these in this order: {}", names(all));
        Err(Error::invalid(self.place, field, expected, format!("[{}]", names(list))))
    }

    /// Tables too large for memory are a mistake, too. A layer is decided by the resolution, its block's choices, its
    /// stage's depth, and the widths of its stage and the one before.
    pub fn cells(&self, resolutions: &[Extent], stages: &[Stage]) -> Result<()> {
        let mut widths_before = 1;
        let mut cells = 0;
        for Stage { choices, .. } in stages {
            let widths = choices.width.len().max(1);
            let lists = [resolutions.len(), choices.kernel.len(), choices.expand.len(), choices.depth.len()];
            let deciding = lists.into_iter().chain([widths_before, widths]).map(|choices| choices as u128);
            cells += deciding.product::<u128>() * choices.max_depth() as u128;
            widths_before = widths;
        }
        if cells > MOST_CELLS {
            let field = "combinations of choices that decide a layer, over all blocks";
            return Err(Error::invalid(self.place, field, format!("at most {MOST_CELLS}"), cells)
                .and_then_do("list fewer resolutions, expand ratios or widths"));
        }
        Ok(())
    }

    pub fn choices(&self, stage: &str, choices: &Choices) -> Result<()> {
        self.rising(&format!("{stage}kernel"), &choices.kernel)?;
        self.rising(&format!("{stage}expand"), &choices.expand)?;
        self.rising(&format!("{stage}depth"), &choices.depth)?;
        for &kernel in &choices.kernel {
            if ![3, 5, 7].contains(&kernel) {
                return Err(Error::invalid(self.place, format!("{stage}kernel"), "3, 5 or 7", kernel));
            }
        }
        for &depth in &choices.depth {
            self.within(&format!("{stage}depth"), depth, 1, 64)?;
        }
        if !choices.width.is_empty() {
            self.rising(&format!("{stage}width"), &choices.width)?;
        }
        Ok(())
    }

    /// Checks that a field is given if the family has it, and not otherwise.
    pub fn belongs(&self, family: FamilyName, field: &str, given: bool, belongs: bool) -> Result<()> {
        let name = format!("\"{family}\"");
        match (given, belongs) {
            (true, false) => Err(Error::invalid(self.place, field, format!("none in family {name}"), "one")),
            (false, true) => Err(Error::invalid(self.place, field, format!("one in family {name}"), "none")),
            _ => Ok(()),
        }
    }
}

/// Number of values in a tensor.
fn size(shape: &[usize]) -> u128 {
    shape.iter().map(|&size| size as u128).product()
}

/// Parameters of the union over all networks: each weight of each slot at its largest size anywhere.
fn shared_parameters(space: &SearchSpace) -> u128 {
    let index = space.weights();
    let mut shapes = BTreeMap::<String, Vec<usize>>::new();
    for slot in index.slots() {
        let name = slot.name.to_string();
        for weight in index.layers_of(&name).flat_map(|layer| layer.weights()) {
            let shape =
                shapes.entry(format!("{name}.{}", weight.name)).or_insert_with(|| weight.shape.clone());
            shape.iter_mut().zip(&weight.shape).for_each(|(most, other)| *most = (*most).max(*other));
        }
    }
    shapes.values().map(|shape| size(shape)).sum()
}
