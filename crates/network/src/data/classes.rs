//! Names of classes: when two are equal, and the label of each for a network.

use std::collections::{BTreeMap, BTreeSet};

use space::SearchSpace;
use unicode_normalization::UnicodeNormalization;

use super::numbered_classes;
use crate::error::{Error, Result};

/// A name with its letters and accents composed (Unicode's NFC), so that the spellings of a Mac and of others are one name.
pub(super) fn composed(name: &str) -> String {
    name.nfc().collect()
}

/// The network's label for each class of a data set: `classes` are the network's, in the order of its scores,
/// and `own` the data set's.
///
/// Classes are matched by name. If one list is just numbers in order, from 0 on, and the other contains none
/// of them, classes are matched by position.
///
/// # Errors
/// If the names are not the same, whatever their order.
pub(super) fn labels_for(data: &str, own: &[String], classes: &[String]) -> Result<Vec<u32>> {
    let place = || format!("data {data} for the network");
    if classes.len() != own.len() {
        return Err(Error::invalid(place(), "classes", classes.len(), own.len())
            .and_then_do(
                "give images of its classes, or make a new classifier: `supernet train --start` or `finetune --new-head`",
            ));
    }
    let numbered = numbered_classes(classes.len());
    if (own == numbered || classes == numbered) && names(own).is_disjoint(&names(classes)) {
        // numbers instead of names say the order
        return Ok((0..own.len() as u32).collect());
    }
    let at: BTreeMap<String, u32> = classes.iter().map(|class| composed(class)).zip(0..).collect();
    let mut labels = Vec::with_capacity(own.len());
    for (index, name) in own.iter().enumerate() {
        let Some(&label) = at.get(&composed(name)) else {
            let missing = classes.iter().find(|class| !names(own).contains(&composed(class)));
            let expected =
                missing.map_or("another".to_string(), |class| format!("`{class}` or another of its"));
            return Err(Error::invalid(
                place(),
                format!("class {}", index + 1),
                expected,
                format!("`{name}`"),
            )
            .and_then_do("name the classes as the network does"));
        };
        labels.push(label);
    }
    Ok(labels)
}

/// Checks that a data set of `classes` classes fits a space.
///
/// # Errors
/// Says how many there are, and should be.
pub(super) fn check_count(data: &str, classes: usize, space: &SearchSpace) -> Result<()> {
    let expected = space.classes();
    if expected == classes {
        return Ok(());
    }
    let place = format!("data {data} for space {}", space.name());
    let advice = "train with --start FILE, which makes a classifier for other classes from trained weights, choose another \
                  space, or write one in TOML (`supernet space tiny --toml` shows the form)";
    Err(Error::invalid(place, "classes", expected, classes).and_then_do(advice))
}

fn names(names: &[String]) -> BTreeSet<String> {
    names.iter().map(|name| composed(name)).collect()
}
