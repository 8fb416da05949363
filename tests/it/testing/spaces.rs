//! Variants of the presets.

use space::{SearchSpace, preset};

/// `tiny` as a TOML file, with two classes.
pub(crate) fn tiny_of_two_classes() -> String {
    preset("tiny").expect("a preset").to_toml().replace("classes = 10", "classes = 2")
}

/// The space at one resolution, which need not be among its own.
pub(crate) fn at_one_resolution(space: &SearchSpace, resolution: usize) -> SearchSpace {
    let text = space.to_toml();
    let (before, rest) = text.split_once("resolutions = [").expect("a list");
    let (_, after) = rest.split_once(']').expect("its end");
    SearchSpace::from_toml(space.name(), &format!("{before}resolutions = [{resolution}]{after}"))
        .expect("a space")
}
