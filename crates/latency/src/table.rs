//! The latency table: measured layers of one device, engine and thread count, as a file.
//!
//! Rows are keyed by layer, not by space, so that one table serves every space that it covers. What whole sub-networks
//! took is kept for each space next to them. All are kept by session; a row is what its sessions say together.
//!
//! A session's id follows from when it began, so rows that are added twice count once. Rows, fits and validation follow from the
//! sessions; the table holds its spaces, so that a fit is made again when a layer changes.

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
    /// What ran the layers.
    pub engine: EngineFacts,
    /// How they were measured, for a reader.
    pub protocol: String,
    /// How well latencies were to be known: half of a 95 % interval over the latency.
    pub half_width: f64,
    /// When and by what: the only place for dates, left out of [`LatencyTable::hash`].
    pub run: BTreeMap<String, Value>,
    /// What told how fast the machine was.
    pub sentinel: Option<Watched>,
    sessions: BTreeMap<String, SessionFacts>,
    layers: BTreeMap<String, Vec<Measurement>>,
    /// Follows from the layers.
    rows: BTreeMap<String, Row>,
    /// By the space's fingerprint at any resolution.
    spaces: BTreeMap<String, SpaceFit>,
    /// Names the table in messages.
    place: String,
}

/// A sentinel, by whose time the machine's state is told.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Watched {
    /// Its name.
    pub name: String,
    /// Its fast time, in microseconds: the shortest of the sessions that met the fast state; absent where none did.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub fast_us: Option<f64>,
}

/// How much of a space a table holds.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Coverage {
    /// Number of distinct layers in the space.
    pub layers: usize,
    /// Keys of those that the table lacks.
    pub missing: Vec<String>,
}

/// How narrow intervals are asked to be where nothing else is said.
const HALF_WIDTH: f64 = 0.05;

impl LatencyTable {
    /// A table without rows; `place` names it in messages.
    ///
    /// # Errors
    /// If a number of the engine's is 0.
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

    /// A table of rows of one session, as another program gives them, kept to a picosecond; `place` names it in messages.
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

    /// A table of what rows hold; `place` names it in messages, `half_width` says how well a latency must be known.
    /// Whole sub-networks of `space`, if there are some among the rows, become its correction and validation.
    ///
    /// # Errors
    /// If a row's key is that of no layer, there are no layers, or a sub-network is not in the space.
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

    /// The sentinel's fast time, if it is the one of this name.
    pub fn kept_us(&self, sentinel: &str) -> Option<f64> {
        self.sentinel.as_ref().filter(|own| own.name == sentinel)?.fast_us
    }

    /// What is known of whole sub-networks of a space, at whatever resolutions; `None` where they are too few to correct
    /// and judge sums of layers.
    pub fn fit_of(&self, space: &SearchSpace) -> Option<&SpaceFit> {
        self.spaces.get(&space.fingerprint_at_any_resolution()).filter(|fit| fit.is_enough())
    }

    /// Keeps what is known of whole sub-networks of a space.
    pub fn set_fit(&mut self, space: &SearchSpace, fit: SpaceFit) {
        self.spaces.insert(space.fingerprint_at_any_resolution(), fit);
    }

    /// What is known of whole sub-networks, by space.
    pub fn fits(&self) -> impl Iterator<Item = &SpaceFit> {
        self.spaces.values().filter(|fit| fit.is_enough())
    }

    /// The sessions in which it was measured, by id.
    pub fn sessions(&self) -> &BTreeMap<String, SessionFacts> {
        &self.sessions
    }

    /// Share of the time in which the machine was undisturbed, a mean over the sessions that tell; `None` where none does.
    pub fn fast_share(&self) -> Option<f64> {
        let shares: Vec<f64> = self.sessions.values().filter_map(|session| session.fast_share).collect();
        (!shares.is_empty()).then(|| shares.iter().sum::<f64>() / shares.len() as f64)
    }

    /// Whether its latencies are those of an undisturbed machine; typical ones otherwise, as other programs and earlier
    /// versions measured them.
    pub fn is_undisturbed(&self) -> bool {
        self.rows.values().any(|row| row.undisturbed)
    }

    /// What its measurements are told together by.
    pub(super) fn evidence<'a>(&'a self, comparable: &'a BTreeSet<String>) -> Evidence<'a> {
        Evidence { layers: &self.layers, comparable, asked: self.half_width }
    }

    /// Sessions that met the fast state, as the table knows it.
    pub(super) fn comparable(&self) -> BTreeSet<String> {
        let fast = self.sentinel.as_ref().and_then(|sentinel| sentinel.fast_us);
        let as_fast = |facts: &SessionFacts| {
            facts.met && facts.sentinel_fast_us.zip(fast).is_none_or(|(own, known)| is_as_fast(own, known))
        };
        self.sessions.iter().filter(|(_, facts)| as_fast(facts)).map(|(id, _)| id.clone()).collect()
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

    /// Number of rows that do not count: no measurement of the undisturbed latency, or too few samples.
    pub fn unaccepted(&self) -> usize {
        self.rows.values().filter(|row| !row.accepted).count()
    }

    /// Number of rows that are known less well than was asked for, those that do not count among them.
    pub fn unconverged(&self) -> usize {
        self.rows.values().filter(|row| !row.converged).count()
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
        })
    }

    /// Which layers of a space the table lacks.
    ///
    /// # Errors
    /// None for a checked space; passes on what lowering says.
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
