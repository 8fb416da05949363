//! Settings of the snapshots in `tests/it/snapshots`.

use std::path::Path;

use insta::Settings;

/// Files are named after the snapshot alone.
pub(crate) fn settings() -> Settings {
    let mut settings = Settings::clone_current();
    settings.set_snapshot_path(Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/it/snapshots"));
    settings.set_prepend_module_to_snapshot(false);
    settings.set_omit_expression(true);
    settings
}
