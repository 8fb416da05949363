//! A check of families whose layers may go unread, for their tests.

use crate::genome::GeneRow;
use crate::index::SpaceIndex;
use crate::search_space::SearchSpace;

/// A row is that of its text; the tables of the space have its network's layers and no others, by name, operator and sizes; each
/// layer reads maps of its input's size, and every output but the last is read.
pub(super) fn check_row(space: &SearchSpace, index: &SpaceIndex, row: &GeneRow) {
    let arch = space.arch(row);
    assert_eq!(space.row(&arch.to_string().parse().expect("its text")).expect("legal"), row);
    let lowered = space.lower_row(row);
    let there = index.slots().iter().filter_map(|slot| index.at(slot, row).map(|layer| (slot, layer)));
    let there: Vec<_> = there
        .map(|(slot, layer)| (slot.name.to_string(), layer.operator.clone(), layer.input, layer.output))
        .collect();
    let expected: Vec<_> = lowered
        .iter()
        .map(|layer| (layer.shared_name(), layer.operator.clone(), layer.input, layer.output))
        .collect();
    assert_eq!(there, expected, "{arch}");
    for layer in &lowered[1..] {
        let mut made = layer.inputs.iter().flatten().map(|input| lowered[*input].output);
        assert!(made.all(|made| made == layer.input), "{arch}: {layer}");
    }
    let mut read = vec![false; lowered.len()];
    lowered.iter().flat_map(|layer| layer.inputs.iter().flatten()).for_each(|input| read[*input] = true);
    let unread = read.iter().filter(|read| !**read).count();
    assert_eq!(unread, 1, "{arch}: every output but the last is read");
}
