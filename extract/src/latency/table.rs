//! The latency table: measured layers of one device, engine and thread count, as a file.
//!
//! Rows are keyed by layer, not by space, so that one table serves every space that it covers. What whole sub-networks
//! took is kept for each space beside them.

use std::collections::BTreeMap;
use std::path::Path;

use serde::{Deserialize, Serialize};
use serde_json::Value;
use supernet::error::Error;
use supernet::space::{LayerSpec, SearchSpace};

use super::device::DeviceFacts;
use super::drift::usual_us;
use super::engine::EngineFacts;
use super::fitted::SpaceFit;
use super::fitted::wire::SpaceWire;
use super::fold::{fold, layer_rows, network_times};
use super::plan::space_layers;
use super::rows::{Record, Rows};
use super::stats::Row;
use crate::error::Result;
use supernet::file::{self, write_atomically};

use crate::file::{rounded, sorted_json};
use supernet::document;

/// What the file's `kind` says.
const KIND: &str = "latency-table";
/// Version of the form that this code writes and reads.
const VERSION: u32 = 2;

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
    /// What told how fast the machine was.
    pub sentinel: Option<Watched>,
    rows: BTreeMap<String, Row>,
    /// By the space's fingerprint at any resolution.
    spaces: BTreeMap<String, SpaceFit>,
    /// Names the table in messages.
    place: String,
}

/// A sentinel, by whose time the machine's speed is told.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Watched {
    /// Its name.
    pub name: String,
    /// Its usual time, in microseconds: all times of the table are at the machine's speed then.
    pub usual_us: f64,
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
    #[serde(default, skip_serializing_if = "Option::is_none")]
    sentinel: Option<Watched>,
    #[serde(deserialize_with = "document::each_key_once")]
    rows: BTreeMap<String, Row>,
    #[serde(default, deserialize_with = "document::each_key_once")]
    spaces: BTreeMap<String, SpaceWire>,
    #[serde(default)]
    run: BTreeMap<String, Value>,
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
        let (run, spaces) = (BTreeMap::new(), BTreeMap::new());
        Ok(Self { device, engine, protocol, run, sentinel: None, rows, spaces, place })
    }

    /// A table of what rows hold; `place` names it in messages, `half_width` says how well a median must be known.
    /// Whole sub-networks of `space`, if there are some among the rows, become its correction and validation.
    ///
    /// # Errors
    /// If a row's key is that of no layer, there are no layers, or a sub-network is not in the space.
    pub fn from_rows(place: &str, rows: &Rows, half_width: f64, space: Option<&SearchSpace>) -> Result<Self> {
        let setting = &rows.setting;
        let (device, engine) = (setting.device.clone(), setting.engine.clone());
        let mut table = Self::new(place, device, engine, &setting.protocol, BTreeMap::new())?;
        table.sentinel = usual_us(rows)
            .map(|usual| Watched { name: setting.sentinel.clone(), usual_us: rounded(usual, DECIMALS) });
        table.add_rows(rows, half_width, space)?;
        if table.rows.is_empty() {
            return Err(Error::invalid(place, "rows", "samples of at least one layer", "none").into());
        }
        Ok(table)
    }

    /// Adds what rows of the same setting hold, scaled to the machine's speed at the time of the table. A layer that the
    /// table knows well enough stays as it is; what is known of the sub-networks of `space` is replaced.
    ///
    /// # Errors
    /// As [`LatencyTable::from_rows`]; or if device or engine differ, for their times do not add up.
    pub fn add_rows(&mut self, rows: &Rows, half_width: f64, space: Option<&SearchSpace>) -> Result<()> {
        self.check_same_setting(&rows.setting.device, &rows.setting.engine)?;
        let folded = fold(rows, self.reference_us(&rows.setting.sentinel));
        let mut layers = layer_rows(&folded, half_width);
        for key in layers.keys() {
            key.parse::<LayerSpec>().map_err(|error| error.in_place(&self.place))?;
        }
        layers.retain(|key, _| !self.rows.get(key).is_some_and(|row| row.converged));
        self.rows.extend(checked_rows(&self.place, layers)?);
        self.note_sessions(rows);
        let times = network_times(&folded);
        if let (Some(space), false) = (space, times.is_empty())
            && let Some(fit) = SpaceFit::new(space, &self.rows, &times)?
        {
            fit.check(&self.place)?;
            self.set_fit(space, fit);
        }
        Ok(())
    }

    /// When and in which conditions the rows were measured.
    fn note_sessions(&mut self, rows: &Rows) {
        let sessions = self.run.entry("sessions".to_string()).or_insert_with(|| Value::Array(Vec::new()));
        let told = rows.records.iter().filter_map(|record| match record {
            Record::Session(session) => serde_json::to_value(session).ok(),
            Record::Visit(_) => None,
        });
        if let Value::Array(sessions) = sessions {
            sessions.extend(told);
        }
    }

    /// What the sentinel took when the table was measured, if it is this layer.
    pub fn reference_us(&self, sentinel: &str) -> Option<f64> {
        self.sentinel.as_ref().filter(|own| own.name == sentinel).map(|own| own.usual_us)
    }

    /// What is known of whole sub-networks of a space, at whatever resolutions.
    pub fn fit_of(&self, space: &SearchSpace) -> Option<&SpaceFit> {
        self.spaces.get(&space.fingerprint_at_any_resolution())
    }

    /// Keeps what is known of whole sub-networks of a space.
    pub fn set_fit(&mut self, space: &SearchSpace, fit: SpaceFit) {
        self.spaces.insert(space.fingerprint_at_any_resolution(), fit);
    }

    /// What is known of whole sub-networks, by space.
    pub fn fits(&self) -> impl Iterator<Item = &SpaceFit> {
        self.spaces.values()
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
        let mut wire: Wire = document::read(place, text, (KIND, VERSION), "a latency table in JSON")?;
        let engine = EngineFacts {
            engine: std::mem::take(&mut wire.engine),
            engine_version: std::mem::take(&mut wire.engine_version),
            threads: wire.threads,
            dtype: std::mem::take(&mut wire.dtype),
            batch: wire.batch,
        };
        let mut table = Self::new(place, wire.device, engine, &wire.protocol, wire.rows)?;
        (table.run, table.sentinel) = (wire.run, wire.sentinel);
        for (fingerprint, fit) in wire.spaces {
            table.spaces.insert(fingerprint, fit.checked(place)?);
        }
        if let Some(sentinel) =
            table.sentinel.as_ref().filter(|own| !(own.usual_us.is_finite() && own.usual_us > 0.0))
        {
            let got = sentinel.usual_us;
            return Err(Error::invalid(place, "usual_us of the sentinel", "a time above 0 us", got).into());
        }
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
            sentinel: self.sentinel.clone(),
            rows: self.rows.clone(),
            spaces: self.spaces.iter().map(|(print, fit)| (print.clone(), fit.into())).collect(),
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
            .and_then_do("measure there, with its flags, or into a table of its own")
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

/// Decimals of times in microseconds: a picosecond.
const DECIMALS: i32 = 6;

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
        for value in [&mut row.median_us, &mut row.low_us, &mut row.high_us, &mut row.mad_us, &mut row.std_us]
        {
            *value = rounded(*value, DECIMALS);
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
    for (field, value) in [("mad_us", row.mad_us), ("std_us", row.std_us)] {
        if !(value.is_finite() && value >= 0.0) {
            return wrong(field, "a finite number from 0", &value);
        }
    }
    if row.samples == 0 || row.outliers > row.samples {
        let got = format!("{} samples with {} outliers", row.samples, row.outliers);
        return wrong("samples", "at least 1, and no more outliers than that", &got);
    }
    Ok(())
}

#[cfg(test)]
#[path = "table/tests.rs"]
pub(crate) mod tests;
