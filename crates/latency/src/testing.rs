//! A made-up table and setting, for tests of this crate and of its users.

use space::{LayerSpec, SearchSpace};

use crate::facts::{DeviceFacts, EngineFacts};
use crate::row::Row;
use crate::rows::Setting;
use crate::table::{LatencyTable, Watched};

/// The made-up table's sentinel.
pub const SENTINEL: &str = "product 64x64x64 f32";

/// Rows of a made-up engine on this machine.
pub fn setting() -> Setting {
    let text = str::to_string;
    let device = DeviceFacts::this_machine(Some("made-up"));
    let engine = text("fake");
    let engine_version = text("1");
    let dtype = text("f32");
    let engine = EngineFacts { engine, engine_version, threads: 1, dtype, batch: 1 };
    Setting { device, engine, protocol: text("none"), sentinel: text("sentinel"), plan: String::new() }
}

fn made_up_row(layer: &LayerSpec) -> Row {
    let macs = space::cost(std::slice::from_ref(layer)).macs as f64;
    let hash = f64::from(blake3::hash(layer.key().as_bytes()).as_bytes()[0]);
    let us = 1.0 + macs / 5000.0 * (1.0 + hash / 1000.0);
    Row {
        us,
        interval_us: Some([0.99 * us, 1.02 * us]),
        typical_us: 1.5 * us,
        mad_us: 0.1,
        samples: 500,
        visits: 25,
        confirmed: 8,
        undisturbed: true,
        accepted: true,
        converged: true,
    }
}

/// A table whose every row has made-up but plausible numbers: a fixed cost and one that grows with MACs.
///
/// # Panics
/// Never, for a checked space.
pub fn made_up(space: &SearchSpace) -> LatencyTable {
    let layers = space.layers();
    let rows = layers.iter().map(|(key, layer)| (key.clone(), made_up_row(layer))).collect();
    let device = DeviceFacts::this_machine(Some("made-up"));
    let mut table =
        LatencyTable::new("made-up.json", device, engine(), "none", rows).expect("checked numbers");
    table.sentinel = Some(Watched { name: SENTINEL.to_string(), fast_us: Some(5.5) });
    table
}

/// A made-up engine.
pub fn engine() -> EngineFacts {
    let engine = "fake".to_string();
    let engine_version = "1".to_string();
    EngineFacts { engine, engine_version, threads: 1, dtype: "f32".to_string(), batch: 1 }
}
