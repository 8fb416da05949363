//! The latency table: measured layers of one device, engine and thread count, as a file.
//!
//! Rows are keyed by layer, not by space, so that one table serves every space that it covers.

use std::collections::BTreeMap;
use std::path::Path;

use serde::{Deserialize, Serialize};
use serde_json::Value;
use supernet::error::Error;
use supernet::space::{LayerSpec, SearchSpace};

use super::device::DeviceFacts;
use super::engine::EngineFacts;
use super::plan::space_layers;
use super::stats::Row;
use crate::error::Result;
use supernet::file::{self, write_atomically};

use crate::file::{rounded, sorted_json};
use supernet::document;

/// What the file's `kind` says.
const KIND: &str = "latency-table";
/// Version of the form that this code writes and reads.
const VERSION: u32 = 1;

/// Measured layers of one device, engine and thread count; checked.
#[derive(Clone, Debug)]
pub struct LatencyTable {
    /// The machine.
    pub device: DeviceFacts,
    /// What ran the layers.
    pub engine: EngineFacts,
    /// How they were measured, for a reader.
    pub protocol: String,
    /// When and by what: the only place for dates, left out of [`LatencyTable::hash`].
    pub run: BTreeMap<String, Value>,
    rows: BTreeMap<String, Row>,
    /// Names the table in messages.
    place: String,
}

#[derive(Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct Wire {
    kind: String,
    version: u32,
    device: DeviceFacts,
    engine: String,
    engine_version: String,
    threads: usize,
    dtype: String,
    batch: usize,
    protocol: String,
    #[serde(deserialize_with = "document::each_key_once")]
    rows: BTreeMap<String, Row>,
    #[serde(default)]
    run: BTreeMap<String, Value>,
}

/// Latency of a whole network, in microseconds.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub struct NetworkLatency {
    /// Sum of the layers' medians.
    pub median_us: f64,
    /// Sum of the upper ends of the medians' intervals.
    pub high_us: f64,
}

/// How much of a space a table holds.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Coverage {
    /// Number of distinct layers in the space.
    pub layers: usize,
    /// Keys of those that the table lacks.
    pub missing: Vec<String>,
}

impl LatencyTable {
    /// A table of rows that were just measured, kept to a picosecond; `place` names it in messages.
    ///
    /// # Errors
    /// Names the row whose numbers cannot be.
    pub fn new(
        place: &str,
        device: DeviceFacts,
        engine: EngineFacts,
        protocol: &str,
        rows: BTreeMap<String, Row>,
    ) -> Result<Self> {
        let rows = checked_rows(place, rows)?;
        check_setting(place, &engine)?;
        let (place, protocol) = (place.to_string(), protocol.to_string());
        Ok(Self { device, engine, protocol, run: BTreeMap::new(), rows, place })
    }

    /// Reads a table.
    ///
    /// # Errors
    /// If the file cannot be read, is not a table of this version, or a row's numbers cannot be.
    pub fn read(path: &Path) -> Result<Self> {
        let text = file::read_text(path)?;
        Self::from_json(&path.display().to_string(), &text)
    }

    /// Reads a table from JSON text; `place` names it in messages.
    ///
    /// # Errors
    /// As [`LatencyTable::read`].
    pub fn from_json(place: &str, text: &str) -> Result<Self> {
        let wire: Wire = document::read(place, text, (KIND, VERSION), "a latency table in JSON")?;
        let Wire { engine, engine_version, threads, dtype, batch, .. } = wire;
        let engine = EngineFacts { engine, engine_version, threads, dtype, batch };
        let mut table = Self::new(place, wire.device, engine, &wire.protocol, wire.rows)?;
        table.run = wire.run;
        Ok(table)
    }

    /// The table as JSON, keys sorted, that [`LatencyTable::from_json`] reads.
    pub fn to_json(&self) -> String {
        let engine = self.engine.clone();
        let wire = Wire {
            kind: KIND.to_string(),
            version: VERSION,
            device: self.device.clone(),
            engine: engine.engine,
            engine_version: engine.engine_version,
            threads: engine.threads,
            dtype: engine.dtype,
            batch: engine.batch,
            protocol: self.protocol.clone(),
            rows: self.rows.clone(),
            run: self.run.clone(),
        };
        let value = serde_json::to_value(wire).expect("checked numbers are finite and keys are text");
        let mut text = serde_json::to_string_pretty(&sorted_json(value)).expect("a JSON value has a text");
        text.push('\n');
        text
    }

    /// Writes the table, all of it or nothing.
    ///
    /// # Errors
    /// If the folder cannot be written to.
    pub fn write(&self, path: &Path) -> Result<()> {
        Ok(write_atomically(path, self.to_json().as_bytes())?)
    }

    /// BLAKE3 of the table without its `run`, in hexadecimal.
    pub fn hash(&self) -> String {
        let bare = Self { run: BTreeMap::new(), ..self.clone() };
        blake3::hash(bare.to_json().as_bytes()).to_hex().to_string()
    }

    /// The rows by layer key.
    pub fn rows(&self) -> &BTreeMap<String, Row> {
        &self.rows
    }

    /// Number of rows whose interval is wider than was asked for.
    pub fn unconverged(&self) -> usize {
        self.rows.values().filter(|row| !row.converged).count()
    }

    /// Adds rows that were measured in the same setting; they replace rows of the same key.
    ///
    /// # Errors
    /// If device or engine differ, for their times do not add up; or if a row's numbers cannot be.
    pub fn extend(
        &mut self,
        device: &DeviceFacts,
        engine: &EngineFacts,
        rows: BTreeMap<String, Row>,
    ) -> Result<()> {
        self.check_same_setting(device, engine)?;
        self.rows.extend(checked_rows(&self.place, rows)?);
        Ok(())
    }

    /// Whether times measured on `device` with `engine` may stand in this table.
    ///
    /// # Errors
    /// Says what differs; the device's name may.
    pub fn check_same_setting(&self, device: &DeviceFacts, engine: &EngineFacts) -> Result<()> {
        let renamed = DeviceFacts { name: self.device.name.clone(), ..device.clone() };
        if renamed == self.device && *engine == self.engine {
            return Ok(());
        }
        let setting = |device: &DeviceFacts, engine: &EngineFacts| {
            let DeviceFacts { cpu, os, arch, cores, .. } = device;
            let EngineFacts { engine, engine_version, threads, dtype, batch } = engine;
            format!(
                "{cpu} ({os} {arch}, {cores} cores), {engine} {engine_version}, {threads} threads, {dtype}, batch {batch}"
            )
        };
        let (expected, got) = (setting(&self.device, &self.engine), setting(device, engine));
        Err(Error::invalid(&self.place, "setting", expected, got)
            .and_then_do("measure into a table of its own")
            .into())
    }

    /// What one layer takes.
    ///
    /// # Errors
    /// If the table lacks it.
    pub fn layer(&self, layer: &LayerSpec) -> Result<&Row> {
        let key = layer.key();
        self.rows.get(&key).ok_or_else(|| {
            Error::invalid(&self.place, "rows", format!("a latency of \"{key}\""), "none")
                .and_then_do("run extract measure --missing")
                .into()
        })
    }

    /// What a network takes: the sum of its layers.
    ///
    /// # Errors
    /// Names the first layer that the table lacks.
    pub fn network_latency(&self, layers: &[LayerSpec]) -> Result<NetworkLatency> {
        let mut sum = NetworkLatency::default();
        for layer in layers {
            let row = self.layer(layer)?;
            sum.median_us += row.median_us;
            sum.high_us += row.high_us;
        }
        Ok(sum)
    }

    /// Which layers of a space the table lacks.
    ///
    /// # Errors
    /// None for a checked space; passes on what lowering says.
    pub fn coverage(&self, space: &SearchSpace) -> Result<Coverage> {
        let keys: Vec<String> = space_layers(space)?.into_keys().collect();
        let layers = keys.len();
        Ok(Coverage {
            layers,
            missing: keys.into_iter().filter(|key| !self.rows.contains_key(key)).collect(),
        })
    }
}

fn check_setting(place: &str, engine: &EngineFacts) -> Result<()> {
    for (field, value) in [("threads", engine.threads), ("batch", engine.batch)] {
        if value == 0 {
            return Err(Error::invalid(place, field, "at least 1", value).into());
        }
    }
    Ok(())
}

fn checked_rows(place: &str, mut rows: BTreeMap<String, Row>) -> Result<BTreeMap<String, Row>> {
    for (key, row) in &mut rows {
        for value in [&mut row.median_us, &mut row.low_us, &mut row.high_us, &mut row.mad_us] {
            *value = rounded(*value, 6);
        }
        check_row(place, key, row)?;
    }
    Ok(rows)
}

fn check_row(place: &str, key: &str, row: &Row) -> Result<()> {
    let wrong = |field: &str, expected: &str, got: &dyn std::fmt::Display| {
        Err(Error::invalid(place, format!("{field} of \"{key}\""), expected, got).into())
    };
    if key.trim().is_empty() {
        return wrong("key", "some text", &"none");
    }
    for (field, value) in [("median_us", row.median_us), ("low_us", row.low_us), ("high_us", row.high_us)] {
        if !(value.is_finite() && value > 0.0) {
            return wrong(field, "a finite number above 0", &value);
        }
    }
    if !(row.low_us <= row.median_us && row.median_us <= row.high_us) {
        let got = format!("{} to {} around {}", row.low_us, row.high_us, row.median_us);
        return wrong("interval", "low_us <= median_us <= high_us", &got);
    }
    if !(row.mad_us.is_finite() && row.mad_us >= 0.0) {
        return wrong("mad_us", "a finite number from 0", &row.mad_us);
    }
    if row.samples == 0 || row.outliers > row.samples {
        let got = format!("{} samples with {} outliers", row.samples, row.outliers);
        return wrong("samples", "at least 1, and no more outliers than that", &got);
    }
    Ok(())
}

#[cfg(test)]
pub(crate) mod tests {
    use super::*;
    use supernet::space::{preset, sampler};

    /// A table whose every row has made-up but plausible numbers: a fixed cost and one that grows with MACs.
    pub(crate) fn made_up(space: &SearchSpace) -> LatencyTable {
        let layers = space_layers(space).expect("a checked space");
        let row = |layer: &LayerSpec| {
            let macs = supernet::space::cost(std::slice::from_ref(layer)).macs as f64;
            let hash = f64::from(blake3::hash(layer.key().as_bytes()).as_bytes()[0]);
            let median_us = 1.0 + macs / 5000.0 * (1.0 + hash / 1000.0);
            let (low_us, high_us) = (0.99 * median_us, 1.02 * median_us);
            Row { median_us, low_us, high_us, mad_us: 0.1, samples: 50, outliers: 1, converged: true }
        };
        let rows = layers.iter().map(|(key, layer)| (key.clone(), row(layer))).collect();
        let device = DeviceFacts::this_machine(Some("made-up"));
        LatencyTable::new("made-up.json", device, engine(), "none", rows).expect("checked numbers")
    }

    fn engine() -> EngineFacts {
        let (engine, engine_version) = ("fake".to_string(), "1".to_string());
        EngineFacts { engine, engine_version, threads: 1, dtype: "f32".to_string(), batch: 1 }
    }

    #[test]
    fn tables_round_trip_through_a_file() {
        let mut table = made_up(&preset("tiny").expect("a preset"));
        let hash = table.hash();
        table.run.insert("date".to_string(), "2024-05-01".into());
        let folder = tempfile::tempdir().expect("a folder");
        let path = folder.path().join("table.json");
        table.write(&path).expect("writable");
        let read = LatencyTable::read(&path).expect("own file");
        assert_eq!(read.to_json(), table.to_json());
        assert_eq!(read.rows(), table.rows());
        assert_eq!(read.hash(), hash, "the run is no part of the hash");
        assert_eq!(std::fs::read_dir(folder.path()).expect("readable").count(), 1, "no sibling is left");
    }

    #[test]
    fn networks_are_sums_and_a_missing_layer_is_named() {
        let (tiny, fashion) = (preset("tiny").expect("a preset"), preset("fashion").expect("a preset"));
        let table = made_up(&tiny);
        let layers = tiny.lower(&sampler::largest(&tiny)).expect("legal");
        let sum = table.network_latency(&layers).expect("covered");
        let by_hand: f64 = layers.iter().map(|layer| table.rows()[&layer.key()].median_us).sum();
        assert_eq!(sum.median_us, by_hand);
        assert!(sum.high_us > sum.median_us);
        assert_eq!(table.coverage(&tiny).expect("a space").missing, Vec::<String>::new());
        let missing = table.coverage(&fashion).expect("a space");
        assert!(missing.missing.len() > 50 && missing.missing.len() <= missing.layers);
        let layers = fashion.lower(&sampler::largest(&fashion)).expect("legal");
        let error = table.network_latency(&layers).expect_err("not covered").to_string();
        for part in ["made-up.json", &layers[0].key(), "run extract measure --missing"] {
            assert!(error.contains(part), "{error}");
        }
    }

    #[test]
    fn rows_of_another_setting_are_refused() {
        let mut table = made_up(&preset("tiny").expect("a preset"));
        let row = *table.rows().values().next().expect("a row");
        let rows = BTreeMap::from([("new".to_string(), row)]);
        let device = DeviceFacts { name: "renamed".to_string(), ..table.device.clone() };
        table.extend(&device, &engine(), rows.clone()).expect("the same setting");
        assert!(table.rows().contains_key("new"));
        let other = EngineFacts { threads: 2, ..engine() };
        assert!(table.extend(&device, &other, rows).is_err());
    }

    #[test]
    fn malformed_tables_are_refused_with_the_field() {
        let mut table = made_up(&preset("tiny").expect("a preset"));
        table.rows = table.rows.into_iter().take(1).collect();
        let row = Row {
            median_us: 2.5,
            low_us: 2.25,
            high_us: 2.75,
            mad_us: 0.5,
            samples: 50,
            outliers: 1,
            converged: true,
        };
        table.rows = table.rows.into_keys().map(|key| (key, row)).collect();
        let good = table.to_json();
        for (from, to, part) in [
            ("{", "[", "text"),
            ("latency-table", "other", "kind: expected latency-table, got other"),
            ("\"version\": 1", "\"version\": 2", "version: expected 1, got 2"),
            ("\"threads\": 1", "\"threads\": 0", "threads"),
            ("\"batch\": 1", "\"batch\": -1", "text"),
            ("\"protocol\"", "\"protokol\"", "text"),
            ("\"median_us\": 2.5", "\"median_us\": 0", "median_us of \""),
            ("\"median_us\": 2.5", "\"median_us\": 1e999", "text"),
            ("\"median_us\": 2.5", "\"median_us\": null", "text"),
            ("\"low_us\": 2.25", "\"low_us\": 2.6", "interval of \""),
            ("\"high_us\": 2.75", "\"high_us\": 2.4", "interval of \""),
            ("\"mad_us\": 0.5", "\"mad_us\": -0.5", "mad_us of \""),
            ("\"samples\": 50", "\"samples\": 0", "samples of \""),
            ("\"outliers\": 1", "\"outliers\": 51", "samples of \""),
        ] {
            assert!(good.contains(from), "{from} in {good}");
            let error =
                LatencyTable::from_json("x.json", &good.replacen(from, to, 1)).expect_err(to).to_string();
            assert!(error.starts_with("x.json: ") && error.contains(part), "{to}: {error}");
        }
        LatencyTable::from_json("x.json", &good).expect("unharmed");
    }
}
