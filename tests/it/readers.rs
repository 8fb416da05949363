//! Every reader on inputs of former bugs, and on torn and altered files.

use std::path::{Path, PathBuf};

use crate::testing::files::read_bytes;

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
            read(&read_bytes(&path));
        }
    }
}

#[test]
fn torn_and_altered_files_are_errors_that_name_their_place() {
    for (name, read) in fuzz::ALL {
        let seeds = inputs("seeds", name);
        assert!(!seeds.is_empty(), "fuzz/seeds/{name}");
        for path in seeds {
            let good = read_bytes(&path);
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
