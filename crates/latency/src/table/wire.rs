//! The table's file: version 3, and version 2, which had medians of one session.

use std::collections::BTreeMap;

use base::Error;
use base::Result;
use base::document;
use base::document::sorted;
use serde::{Deserialize, Serialize};
use serde_json::Value;

use super::{LatencyTable, Watched};
use crate::facts::{DeviceFacts, EngineFacts};
use crate::fitted::old::OldSpace;
use crate::fitted::wire::SpaceWire;
use crate::fold::SessionFacts;
use crate::row::{Measurement, Row};

/// The file's `kind`.
const KIND: &str = "latency-table";
/// Version of the format that this code writes.
const VERSION: u32 = 3;
/// The version before it.
const OLD: u32 = 2;
/// The format's name in messages.
const FORM: &str = "a latency table in JSON";

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
    half_width: f64,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    sentinel: Option<Watched>,
    #[serde(deserialize_with = "document::each_key_once")]
    sessions: BTreeMap<String, SessionFacts>,
    #[serde(deserialize_with = "document::each_key_once")]
    rows: BTreeMap<String, RowWire>,
    #[serde(default, deserialize_with = "document::each_key_once")]
    spaces: BTreeMap<String, SpaceWire>,
    #[serde(default)]
    run: BTreeMap<String, Value>,
}

/// A row with its measurements.
#[derive(Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct RowWire {
    #[serde(rename = "row")]
    pooled: Row,
    sessions: Vec<Measurement>,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct OldWire {
    #[serde(rename = "kind")]
    _kind: String,
    #[serde(rename = "version")]
    _version: u32,
    device: DeviceFacts,
    engine: String,
    engine_version: String,
    threads: usize,
    dtype: String,
    batch: usize,
    protocol: String,
    #[serde(default)]
    sentinel: Option<OldWatched>,
    #[serde(deserialize_with = "document::each_key_once")]
    rows: BTreeMap<String, OldRow>,
    #[serde(default, deserialize_with = "document::each_key_once")]
    spaces: BTreeMap<String, OldSpace>,
    #[serde(default)]
    run: BTreeMap<String, Value>,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct OldWatched {
    name: String,
    /// Its lower quartile, which is no estimate of its fast time.
    #[serde(rename = "usual_us")]
    _usual_us: f64,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct OldRow {
    median_us: f64,
    low_us: f64,
    high_us: f64,
    mad_us: f64,
    #[serde(rename = "std_us")]
    _std_us: f64,
    samples: usize,
    #[serde(rename = "outliers")]
    _outliers: usize,
    visits: usize,
    #[serde(rename = "discarded")]
    _discarded: usize,
    converged: bool,
}

/// Id of the session of tables of version 2.
const OLD_SESSION: &str = "earlier";

pub(super) fn read(place: &str, text: &str) -> Result<LatencyTable> {
    #[derive(Deserialize)]
    struct Front {
        version: u32,
    }
    if serde_json::from_str::<Front>(text).is_ok_and(|front| front.version == OLD) {
        return read_old(place, document::read(place, text, KIND, OLD, FORM)?);
    }
    let wire: Wire = document::read_one_of(place, text, KIND, &[OLD, VERSION], FORM)?;
    let engine = EngineFacts {
        engine: wire.engine,
        engine_version: wire.engine_version,
        threads: wire.threads,
        dtype: wire.dtype,
        batch: wire.batch,
    };
    let mut table = LatencyTable::empty(place, wire.device, engine, &wire.protocol)?;
    (table.run, table.sentinel, table.sessions) = (wire.run, wire.sentinel, wire.sessions);
    table.half_width = wire.half_width;
    let mut pooled = BTreeMap::new();
    for (key, row) in wire.rows {
        pooled.insert(key.clone(), row.pooled);
        table.layers.insert(key, row.sessions);
    }
    check_sessions(&table)?;
    table.pool_rows()?;
    for (key, got) in pooled {
        if table.rows[&key] != got {
            let field = format!("row of \"{key}\"");
            return Err(Error::invalid(place, field, "the values computed from its sessions", "others")
                .and_then_do("undo the edit, or measure again"));
        }
    }
    for (fingerprint, fit) in wire.spaces {
        table.spaces.insert(fingerprint, fit.checked(place)?);
    }
    Ok(table)
}

fn check_sessions(table: &LatencyTable) -> Result<()> {
    let place = &table.place;
    if !(table.half_width > 0.0 && table.half_width <= 1.0) {
        let expected = "a share above 0, at most 1";
        return Err(Error::invalid(place, "half_width", expected, table.half_width));
    }
    let sentinel = table.sentinel.as_ref().and_then(|sentinel| sentinel.fast_us);
    let times = table.sessions.values().filter_map(|facts| facts.sentinel_fast_us).chain(sentinel);
    for time in times {
        if !(time.is_finite() && time > 0.0) {
            return Err(Error::invalid(place, "fast time of the sentinel", "a time above 0 us", time));
        }
    }
    for (key, measured) in &table.layers {
        if let Some(one) = measured.iter().find(|one| !table.sessions.contains_key(&one.session)) {
            let field = format!("session of \"{key}\"");
            return Err(Error::invalid(place, field, "a session of the table", &one.session));
        }
    }
    Ok(())
}

impl From<OldRow> for Row {
    fn from(old: OldRow) -> Self {
        Self {
            us: old.median_us,
            interval_us: Some([old.low_us, old.high_us]),
            typical_us: old.median_us,
            mad_us: old.mad_us,
            samples: old.samples,
            visits: old.visits.max(1),
            confirmed: 0,
            undisturbed: false,
            accepted: old.converged,
            converged: old.converged,
        }
    }
}

/// An old table has typical latencies of one session.
fn read_old(place: &str, wire: OldWire) -> Result<LatencyTable> {
    let engine = EngineFacts {
        engine: wire.engine,
        engine_version: wire.engine_version,
        threads: wire.threads,
        dtype: wire.dtype,
        batch: wire.batch,
    };
    let rows = wire.rows.into_iter().map(|(key, old)| (key, Row::from(old))).collect();
    let mut table = LatencyTable::new(place, wire.device, engine, &wire.protocol, rows)?;
    let facts = table.sessions.pop_first().map(|(_, facts)| facts);
    table.sessions.extend(facts.map(|facts| (OLD_SESSION.to_string(), facts)));
    for one in table.layers.values_mut().flatten() {
        one.session = OLD_SESSION.to_string();
    }
    table.run = wire.run;
    table.sentinel = wire.sentinel.map(|old| Watched { name: old.name, fast_us: None });
    for (fingerprint, fit) in wire.spaces {
        table.spaces.insert(fingerprint, fit.checked(place, OLD_SESSION)?);
    }
    Ok(table)
}

pub(super) fn text(table: &LatencyTable) -> String {
    let engine = table.engine.clone();
    let wire = Wire {
        kind: KIND.to_string(),
        version: VERSION,
        device: table.device.clone(),
        engine: engine.engine,
        engine_version: engine.engine_version,
        threads: engine.threads,
        dtype: engine.dtype,
        batch: engine.batch,
        protocol: table.protocol.clone(),
        half_width: table.half_width,
        sentinel: table.sentinel.clone(),
        sessions: table.sessions.clone(),
        rows: table
            .rows
            .iter()
            .map(|(key, pooled): (&String, &Row)| {
                let sessions = table.layers[key].clone();
                (key.clone(), RowWire { pooled: *pooled, sessions })
            })
            .collect(),
        spaces: table.spaces.iter().map(|(print, fit)| (print.clone(), fit.into())).collect(),
        run: table.run.clone(),
    };
    let value = serde_json::to_value(wire).expect("checked numbers are finite and keys are text");
    let mut text = serde_json::to_string_pretty(&sorted(value)).expect("a JSON value has a text");
    text.push('\n');
    text
}
