//! Intervals in the picture of `extract plot`.

use extract::search::Found;

use crate::testing::commands::{json, pipeline};
use crate::testing::files::read_text;

#[test]
fn intervals_of_expected_accuracies_are_drawn_where_they_are_known() {
    let at = pipeline();
    let search = "search --space tiny --estimator estimator.safetensors --latency-table table.json --front";
    json("extract", at, &format!("{search} --max-latency 1s --out intervals.json"));
    let mut found = Found::read(&at.join("intervals.json")).expect("own file");
    let drawn = found.front.len() + 1;
    assert!(found.front.iter().chain([&found.best]).all(|one| one.accuracy_low().is_some()), "{found:?}");
    let upright = |found: &Found| {
        found.write(&at.join("drawn.json")).expect("written");
        let files = "--accuracy accuracy.jsonl --latency-table table.json --found drawn.json";
        json("extract", at, &format!("plot {files} --out drawn.svg"));
        let picture = read_text(at.join("drawn.svg"));
        picture.lines().filter(|line| is_upright_bar(line)).count()
    };
    let with = upright(&found);
    for candidate in found.front.iter_mut().chain([&mut found.best]) {
        candidate.set_accuracy(candidate.accuracy(), None);
    }
    // one panel over MACs and one over latency
    assert_eq!(with - upright(&found), 2 * drawn, "{drawn} of the search");
}

/// Whether a line of SVG is a bar, which is not fully opaque, from one y to another at one x.
fn is_upright_bar(line: &str) -> bool {
    let value = |name: &str| {
        let (_, rest) = line.split_once(&format!(" {name}=\"")).expect("an attribute");
        rest.split_once('"').expect("its end").0.to_string()
    };
    line.contains("stroke-opacity") && value("x1") == value("x2") && value("y1") != value("y2")
}
