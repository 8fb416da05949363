//! Every reader over inputs that were once trouble, and over what a torn or altered file may be.

use std::path::{Path, PathBuf};

#[path = "../../fuzz/src/lib.rs"]
#[allow(dead_code)]
mod fuzz;

fn inputs(kind: &str, reader: &str) -> Vec<PathBuf> {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("fuzz").join(kind).join(reader);
    let Ok(entries) = std::fs::read_dir(folder) else { return Vec::new() };
    entries.map(|entry| entry.expect("an entry").path()).collect()
}

#[test]
fn inputs_that_were_trouble_are_none_any_more() {
    for (name, read) in fuzz::ALL {
        for path in inputs("regressions", name) {
            println!("{}", path.display());
            read(&std::fs::read(path).expect("a file"));
        }
    }
}

#[test]
fn torn_and_altered_files_are_errors_that_name_their_place() {
    for (name, read) in fuzz::ALL {
        let seeds = inputs("seeds", name);
        assert!(!seeds.is_empty(), "fuzz/seeds/{name}");
        for path in seeds {
            let good = std::fs::read(path).expect("a file");
            read(&good);
            let step = (good.len() / 60).max(1);
            for at in (0..good.len()).step_by(step) {
                read(&good[..at]);
                for change in [0x00, 0xff, good[at] ^ 1, good[at] ^ 0x80, b'9', b'"'] {
                    let mut altered = good.clone();
                    altered[at] = change;
                    read(&altered);
                }
            }
        }
    }
}
