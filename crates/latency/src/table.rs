//! The latency table: measured layers of one device, engine and thread count, as a file.
//!
//! Rows are keyed by layer, not by space, so that one table serves every space that it covers. Next to them are
//! measurements of whole sub-networks, by space. All are stored by session; a row is the combination of its sessions.
//!
//! A session's id follows from its beginning, so rows that are added twice count once. Rows, fits and validation follow
//! from the sessions; the table holds its spaces, so that a fit is made again when a layer changes.

mod sessions;
mod wire;

use std::collections::{BTreeMap, BTreeSet};
use std::path::Path;

use base::Error;
use base::Result;
use base::file::{self, write_atomically};
use serde::{Deserialize, Serialize};
use serde_json::Value;
use space::{LayerSpec, SearchSpace};

pub use sessions::{Added, RowChange};

use super::facts::{DeviceFacts, EngineFacts};
use super::fitted::{Evidence, SpaceFit};
use super::fold::SessionFacts;
use super::row::{GIVEN, Measurement, Row, is_as_fast};
use super::rows::Rows;

/// Measured layers of one device, engine and thread count; checked.
#[derive(Clone, Debug)]
pub struct LatencyTable {
    /// The machine.
    pub device: DeviceFacts,
    /// The engine that ran the layers.
    pub engine: EngineFacts,
    /// The protocol of measurement, for a reader.
    pub protocol: String,
    /// The requested precision of latencies: half of a 95 % interval over the latency.
    pub half_width: f64,
    /// Date and program: the only place for dates, left out of [`LatencyTable::hash`].
    pub run: BTreeMap<String, Value>,
    /// The sentinel that showed how fast the machine was.
    pub sentinel: Option<Watched>,
    sessions: BTreeMap<String, SessionFacts>,
    layers: BTreeMap<String, Vec<Measurement>>,
    /// Follows from the layers.
    rows: BTreeMap<String, Row>,
    /// By the space's fingerprint at any resolution.
    spaces: BTreeMap<String, SpaceFit>,
    /// The table's name in messages.
    place: String,
}

/// A sentinel, whose time shows the machine's state.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Watched {
    /// Its name.
    pub name: String,
    /// The fast time, in microseconds: the shortest of the sessions that met the fast state; absent if none did.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub fast_us: Option<f64>,
}

/// A table's coverage of a space.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Coverage {
    /// Number of distinct layers in the space.
    pub layers: usize,
    /// Keys of the layers that the table lacks.
    pub missing: Vec<String>,
}

/// The default target for half-widths of intervals.
const HALF_WIDTH: f64 = 0.05;

impl LatencyTable {
    /// A table without rows; `place` names it in messages.
    ///
    /// # Errors
    /// If a number of the engine is 0.
    pub fn empty(place: &str, device: DeviceFacts, engine: EngineFacts, protocol: &str) -> Result<Self> {
        check_setting(place, &engine)?;
        Ok(Self {
            device,
            engine,
            protocol: protocol.to_string(),
            half_width: HALF_WIDTH,
            run: BTreeMap::new(),
            sentinel: None,
            sessions: BTreeMap::new(),
            layers: BTreeMap::new(),
            rows: BTreeMap::new(),
            spaces: BTreeMap::new(),
            place: place.to_string(),
        })
    }

    /// A table of rows of one session, from another program, rounded to a picosecond; `place` names it in messages.
    ///
    /// # Errors
    /// Names the row with an impossible number.
    pub fn new(
        place: &str,
        device: DeviceFacts,
        engine: EngineFacts,
        protocol: &str,
        rows: BTreeMap<String, Row>,
    ) -> Result<Self> {
        let mut table = Self::empty(place, device, engine, protocol)?;
        let visits = rows.values().map(|row| row.visits).sum();
        let met = rows.values().any(|row| row.undisturbed);
        table.sessions.insert(
            GIVEN.to_string(),
            SessionFacts { sentinel_fast_us: None, fast_share: None, met, visits, seconds: 0.0 },
        );
        for (key, row) in rows {
            let one = Measurement {
                session: GIVEN.to_string(),
                us: row.us,
                interval_us: row.interval_us,
                typical_us: row.typical_us,
                mad_us: row.mad_us,
                spread: 0.0,
                samples: row.samples,
                visits: row.visits,
                confirmed: row.confirmed,
                watched: row.undisturbed,
                in_place: false,
                narrow: row.accepted,
            };
            table.layers.insert(key, vec![one.rounded()]);
        }
        table.pool_rows()?;
        Ok(table)
    }

    /// A table from rows; `place` names it in messages, `half_width` is the target precision. Whole sub-networks of
    /// `space`, if there are some among the rows, become its correction and validation.
    ///
    /// # Errors
    /// If a row's key is not a layer's, there are no layers, or a sub-network is not in the space.
    pub fn from_rows(place: &str, rows: &Rows, half_width: f64, space: Option<&SearchSpace>) -> Result<Self> {
        let setting = &rows.setting;
        let device = setting.device.clone();
        let engine = setting.engine.clone();
        let mut table = Self::empty(place, device, engine, &setting.protocol)?;
        table.half_width = half_width;
        table.add_rows(rows, space, None)?;
        if table.rows.is_empty() {
            return Err(Error::invalid(place, "rows", "samples of at least one layer", "none"));
        }
        Ok(table)
    }

    /// The sentinel's fast time, if the sentinel has this name.
    pub fn kept_us(&self, sentinel: &str) -> Option<f64> {
        self.sentinel.as_ref().filter(|own| own.name == sentinel)?.fast_us
    }

    /// The fit for whole sub-networks of a space, at any resolutions; `None` if they are too few to correct and judge
    /// sums of layers.
    pub fn fit_of(&self, space: &SearchSpace) -> Option<&SpaceFit> {
        self.spaces.get(&space.fingerprint_at_any_resolution()).filter(|fit| fit.is_enough())
    }

    /// Stores the fit for whole sub-networks of a space.
    pub fn set_fit(&mut self, space: &SearchSpace, fit: SpaceFit) {
        self.spaces.insert(space.fingerprint_at_any_resolution(), fit);
    }

    /// The fits for whole sub-networks, by space.
    pub fn fits(&self) -> impl Iterator<Item = &SpaceFit> {
        self.spaces.values().filter(|fit| fit.is_enough())
    }

    /// Its sessions, by id.
    pub fn sessions(&self) -> &BTreeMap<String, SessionFacts> {
        &self.sessions
    }

    /// Share of the time in which the machine was undisturbed, a mean over the sessions that know it; `None` if none
    /// does.
    pub fn fast_share(&self) -> Option<f64> {
        let shares: Vec<f64> = self.sessions.values().filter_map(|session| session.fast_share).collect();
        (!shares.is_empty()).then(|| shares.iter().sum::<f64>() / shares.len() as f64)
    }

    /// Whether its latencies are those of an undisturbed machine; else they are typical ones, as other programs and
    /// earlier versions measured them.
    pub fn is_undisturbed(&self) -> bool {
        self.rows.values().any(|row| row.undisturbed)
    }

    /// The evidence from which measurements are combined.
    pub(super) fn evidence<'a>(&'a self, comparable: &'a BTreeSet<String>) -> Evidence<'a> {
        Evidence { layers: &self.layers, comparable, asked: self.half_width }
    }

    /// Sessions that met the fast state, by the table's fast time.
    pub(super) fn comparable(&self) -> BTreeSet<String> {
        let fast = self.sentinel.as_ref().and_then(|sentinel| sentinel.fast_us);
        let comparable = self.sessions.iter().filter(|(_, facts)| {
            facts.met && facts.sentinel_fast_us.zip(fast).is_none_or(|(own, known)| is_as_fast(own, known))
        });
        comparable.map(|(id, _)| id.clone()).collect()
    }

    /// Works out the rows from the layers' measurements.
    fn pool_rows(&mut self) -> Result<()> {
        for (key, measured) in &self.layers {
            check_measurements(&self.place, key, measured)?;
        }
        let comparable = self.comparable();
        self.rows = self.evidence(&comparable).rows(None);
        Ok(())
    }

    /// Reads a table.
    ///
    /// # Errors
    /// If the file cannot be read, is not a table of a known version, or a row has an impossible number.
    pub fn read(path: &Path) -> Result<Self> {
        let text = file::read_text(path)?;
        Self::from_json(&path.display().to_string(), &text)
    }

    /// Reads a table from JSON text; `place` names it in messages.
    ///
    /// # Errors
    /// As [`LatencyTable::read`].
    pub fn from_json(place: &str, text: &str) -> Result<Self> {
        wire::read(place, text)
    }

    /// The table as JSON, keys sorted, that [`LatencyTable::from_json`] reads.
    pub fn to_json(&self) -> String {
        wire::text(self)
    }

    /// Writes the table, all of it or nothing.
    ///
    /// # Errors
    /// If the folder cannot be written to.
    pub fn write(&self, path: &Path) -> Result<()> {
        write_atomically(path, self.to_json().as_bytes())
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

    /// Number of rows that do not count: not measured in the undisturbed state, or with too few samples.
    pub fn unaccepted(&self) -> usize {
        self.rows.values().filter(|row| !row.accepted).count()
    }

    /// Number of rows below the requested precision, those that do not count included.
    pub fn unconverged(&self) -> usize {
        self.rows.values().filter(|row| !row.converged).count()
    }

    /// The latency of one layer.
    ///
    /// # Errors
    /// If the table lacks it.
    pub fn layer(&self, layer: &LayerSpec) -> Result<&Row> {
        let key = layer.key();
        self.rows.get(&key).ok_or_else(|| {
            Error::invalid(&self.place, "rows", format!("a latency of \"{key}\""), "none")
                .and_then_do("run extract measure --missing")
        })
    }

    /// The table's coverage of a space's layers.
    ///
    /// # Errors
    /// None for a checked space; errors of lowering otherwise.
    pub fn coverage(&self, space: &SearchSpace) -> Result<Coverage> {
        let keys: Vec<String> = space.layers().into_keys().collect();
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
            return Err(Error::invalid(place, field, "at least 1", value));
        }
    }
    Ok(())
}

fn check_measurements(place: &str, key: &str, measured: &[Measurement]) -> Result<()> {
    if key.trim().is_empty() {
        return Err(Error::invalid(place, "key of a row", "some text", "none"));
    }
    if measured.is_empty() {
        return Err(Error::invalid(place, format!("sessions of \"{key}\""), "at least one", "none"));
    }
    match measured.iter().find_map(Measurement::fault) {
        Some((field, expected, got)) => {
            Err(Error::invalid(place, format!("{field} of \"{key}\""), expected, got))
        }
        None => Ok(()),
    }
}

#[cfg(test)]
#[path = "table/tests.rs"]
pub(crate) mod tests;
