//! The shipped latency tables: all are readable, cover their spaces, and keep the promised accuracy.

use std::collections::BTreeMap;
use std::path::Path;

use extract::latency::{LatencyTable, SpaceFit};
use space::preset;

use crate::testing::commands::{fails, json};
use crate::testing::files::{read_text, scratch};

#[test]
fn every_shipped_table_is_whole_and_holds_on_whole_networks() {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("latency-tables");
    let listed = read_text(folder.join("README.md"));
    let mut tables = 0;
    for entry in std::fs::read_dir(&folder).expect("the folder") {
        let path = entry.expect("an entry").path();
        if path.extension().is_none_or(|extension| extension != "json") {
            continue;
        }
        let name = path.file_name().and_then(|name| name.to_str()).expect("a plain name");
        assert!(listed.contains(&format!("`{name}`")), "{name} is not in the list");
        let table = LatencyTable::read(&path).unwrap_or_else(|error| panic!("{error}"));
        let engine = &table.engine;
        assert!(name.ends_with(&format!("{}-{}t.json", engine.engine, engine.threads)), "{name}: {engine:?}");
        assert!(table.fits().count() > 0, "{name} knows no space");
        for fit in table.fits() {
            let space = preset(&fit.name).and_then(|space| space.at_resolutions(&fit.resolutions));
            let space = space.unwrap_or_else(|error| panic!("{name}: {error}"));
            let missing = table.coverage(&space).expect("a checked space").missing;
            assert_eq!(missing, Vec::<String>::new(), "{name}");
            assert_eq!(table.fit_of(&space), Some(fit), "{name}: the space has changed");
            if table.is_undisturbed() { holds(name, &table, fit) } else { held_in_one_session(name, fit) }
        }
        tables += 1;
    }
    assert!(tables > 0);
}

/// Checks a table of several sessions, each judged by networks that the others predicted.
fn holds(name: &str, table: &LatencyTable, fit: &SpaceFit) {
    let validation = fit.validation();
    assert!(table.sessions().len() >= 3, "{name}: sessions");
    assert!(validation.n >= 60 && validation.sessions >= 2, "{name}: {validation:?}");
    assert!(validation.within_10pct >= 0.95 && validation.spearman >= 0.98, "{name}: {validation:?}");
    assert!(validation.limits_kept.is_none_or(|share| share >= 0.9), "{name}: {validation:?}");
}

/// Checks a table of version 2, with medians of one session, judged by the rules of that version.
fn held_in_one_session(name: &str, fit: &SpaceFit) {
    let validation = fit.validation();
    assert!(validation.n >= 60 && validation.sessions == 1, "{name}: {validation:?}");
    assert!(validation.within_10pct >= 0.97 && validation.spearman >= 0.98, "{name}: {validation:?}");
    // of the forty that judged the margin some stand there twice, or had set it
    assert!((15..40).contains(&validation.limits), "{name}: {validation:?}");
}

/// A device whose time is a part for each multiply-accumulate and one for the whole, of which whole networks alone are known.
#[test]
fn a_table_of_whole_networks_is_searched_like_any_other() {
    let folder = scratch();
    let folder = folder.path();
    let names: Vec<String> = (1..=120).map(|number| format!("random:{number}")).collect();
    let costs = json("supernet", folder, &format!("space fashion --arch {}", names.join(" ")));
    let ms = |macs: f64| 0.2 + macs / 4e6;
    let mut rows = BTreeMap::new();
    for row in costs["archs"].as_array().expect("a list") {
        let arch = row["arch"].as_str().expect("a text").to_string();
        rows.insert(arch, ms(row["macs"].as_f64().expect("a number")));
    }
    let write = |rows: &BTreeMap<String, f64>| {
        let lines = rows.iter().map(|(arch, ms)| format!("\"{arch}\",{ms}\n"));
        let text = format!("arch,latency_ms\n{}", lines.collect::<String>());
        std::fs::write(folder.join("phone.csv"), text).expect("writable");
    };
    write(&rows);
    let import =
        "import networks phone.csv --space fashion --device-name phone --engine-name app --out phone.json";
    let imported = json("extract", folder, import);
    assert!(imported["validation"]["mape"].as_f64().is_some_and(|error| error < 0.02), "{imported}");
    assert_eq!(imported["validation"]["n"].as_u64(), Some(rows.len() as u64 / 5));
    let table = LatencyTable::read(&folder.join("phone.json")).expect("its own");
    let space = preset("fashion").expect("a preset");
    assert!(table.coverage(&space).expect("lowered").missing.is_empty());
    assert_eq!(table.engine.engine, "app");
    let (arch, _) = rows.iter().next().expect("a row");
    let arch = arch.clone();
    rows.insert(arch, -1.0);
    write(&rows);
    assert!(fails("extract", folder, import, 1).contains("latency: expected a time above 0"));
}
