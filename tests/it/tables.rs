//! The latency tables that are shipped: all can be read, and cover what they say.

use extract::latency::LatencyTable;
use supernet::space::{SearchSpace, preset};

#[test]
fn every_shipped_table_is_whole() {
    let folder = std::path::Path::new(env!("CARGO_MANIFEST_DIR")).join("latency-tables");
    let mut tables = 0;
    for entry in std::fs::read_dir(folder).expect("the folder") {
        let path = entry.expect("an entry").path();
        if path.extension().is_none_or(|extension| extension != "json") {
            continue;
        }
        let table = LatencyTable::read(&path).unwrap_or_else(|error| panic!("{error}"));
        let covers = |space: &SearchSpace| table.coverage(space).expect("a checked space").missing.is_empty();
        let spaces = ["tiny", "fashion"].map(|name| preset(name).expect("a preset"));
        assert!(spaces.iter().any(covers), "{}: covers no small preset", path.display());
        tables += 1;
    }
    assert!(tables > 0);
}
