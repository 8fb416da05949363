//! The latency tables that are shipped: all can be read, cover what they say, and keep what they promise.

use std::path::Path;

use extract::latency::LatencyTable;
use supernet::space::preset;

#[test]
fn every_shipped_table_is_whole_and_holds_on_whole_networks() {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("latency-tables");
    let listed = std::fs::read_to_string(folder.join("README.md")).expect("a list");
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
            assert_eq!(
                table.coverage(&space).expect("a checked space").missing,
                Vec::<String>::new(),
                "{name}"
            );
            assert_eq!(table.fit_of(&space), Some(fit), "{name}: the space has changed");
            let validation = fit.validation();
            assert!(validation.n >= 60 && validation.limits == 40, "{name}: {validation:?}");
            assert!(
                validation.within_noise >= 0.85 && validation.repeatability.is_some(),
                "{name}: {validation:?}"
            );
            if engine.threads == 1 {
                let shares = (validation.within_5pct, validation.within_10pct, validation.limits_kept);
                assert!(shares.0 >= 0.85 && shares.1 >= 0.97 && shares.2 >= Some(0.95), "{name}: {shares:?}");
                assert!(validation.spearman >= 0.98, "{name}: {validation:?}");
            }
        }
        tables += 1;
    }
    assert!(tables > 0);
}
