//! Adds further sessions to a table, and compares two tables.

use std::collections::BTreeSet;

use base::Error;
use base::Result;
use base::statistics as stats;
use serde::Serialize;
use serde_json::Value;
use space::{Arch, Extent, LayerSpec, SearchSpace, preset};

use super::{LatencyTable, Watched};
use crate::facts::{DeviceFacts, EngineFacts};
use crate::fitted::{SpaceFit, insert};
use crate::fold::{SessionFold, fold};
use crate::row::Row;
use crate::rows::{Rows, Subject};
use crate::undisturbed::NEAR;

/// The result of adding rows.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Added {
    /// Ids of the sessions.
    pub sessions: Vec<String>,
    /// Sub-networks whose lines do not name their space, which was assumed.
    pub assumed: usize,
    /// Names of spaces whose layers changed and that could not be fitted again, because the table does not hold them.
    pub stale: Vec<String>,
}

/// A layer that two tables have, in microseconds.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct RowChange {
    /// The layer.
    pub layer: String,
    /// The row in the first table.
    pub before: Row,
    /// The row in the second table.
    pub after: Row,
}

impl RowChange {
    /// The second latency over the first.
    pub fn ratio(&self) -> f64 {
        self.after.us / self.before.us
    }

    fn counts(&self) -> bool {
        self.before.accepted && self.after.accepted
    }
}

/// Least number of layers known in two sessions that shows whether the machine was in a comparable state.
const LEAST_ANCHORS: usize = 3;

impl LatencyTable {
    /// Adds the sessions of rows of the same setting: they replace earlier ones of the same id, and spaces whose layers
    /// change are fitted again. Only sub-networks among `networks` are taken, or all without it; new ones are assigned
    /// to fit and to judge.
    ///
    /// # Errors
    /// As [`LatencyTable::from_rows`]; or if device or engine differ, sub-networks are of another space, or layers
    /// known to both differ by more than 5 %. The table is then unchanged.
    pub fn add_rows(
        &mut self,
        rows: &Rows,
        space: Option<&SearchSpace>,
        networks: Option<&BTreeSet<Arch>>,
    ) -> Result<Added> {
        self.changed(|table| {
            let new = table.take(rows, space, networks)?;
            let added = table.finish(space.map(|space| (space, &new.1)))?;
            Ok(Added { assumed: new.0.assumed, sessions: new.0.sessions, ..added })
        })
    }

    /// Adds rows whose new sub-networks only judge: none of them is fitted to.
    ///
    /// # Errors
    /// As [`LatencyTable::add_rows`].
    pub fn add_judges(&mut self, rows: &Rows, space: &SearchSpace) -> Result<Added> {
        self.changed(|table| {
            let new = table.take(rows, Some(space), None)?;
            let added = table.finish(None)?;
            Ok(Added { assumed: new.0.assumed, sessions: new.0.sessions, ..added })
        })
    }

    /// Adds the sessions of another table of the same setting.
    ///
    /// # Errors
    /// As [`LatencyTable::add_rows`].
    pub fn merge(&mut self, other: &Self) -> Result<Added> {
        self.check_same_setting(&other.device, &other.engine)?;
        self.check_anchors(&self.changes(other))?;
        self.changed(|table| {
            table.sessions.extend(other.sessions.clone());
            for (key, measured) in &other.layers {
                let own = table.layers.entry(key.clone()).or_default();
                measured.iter().for_each(|one| insert(own, one.clone()));
            }
            for (fingerprint, fit) in &other.spaces {
                match table.spaces.get_mut(fingerprint) {
                    Some(own) => join(own, fit).map_err(|error| error.in_place(&table.place))?,
                    None => {
                        table.spaces.insert(fingerprint.clone(), fit.clone());
                    }
                }
            }
            if table.sentinel.is_none() {
                table.sentinel = other.sentinel.clone();
            }
            let other_sessions =
                other.run.get("sessions").and_then(Value::as_array).cloned().unwrap_or_default();
            table.note(other_sessions);
            table.finish(None)
        })
    }

    /// Applies a change to a copy, which replaces the table on success.
    fn changed<T>(&mut self, change: impl FnOnce(&mut Self) -> Result<T>) -> Result<T> {
        let mut copy = self.clone();
        let done = change(&mut copy)?;
        *self = copy;
        Ok(done)
    }

    /// Adds the sessions; returns the new sub-networks.
    fn take(
        &mut self,
        rows: &Rows,
        space: Option<&SearchSpace>,
        networks: Option<&BTreeSet<Arch>>,
    ) -> Result<(Added, BTreeSet<Arch>)> {
        let device = &rows.setting.device;
        let engine = &rows.setting.engine;
        self.check_same_setting(device, engine)?;
        let assumed = self.check_space(rows, space)?;
        let folded = fold(rows, self.kept_us(&rows.setting.sentinel));
        let mut of_layers = Self::empty(&self.place, device.clone(), engine.clone(), &self.protocol)?;
        of_layers.half_width = self.half_width;
        for session in &folded {
            of_layers.take_layers(session)?;
        }
        if self.sentinel.is_none() && folded.iter().any(|session| session.pace.is_some()) {
            self.sentinel = Some(Watched { name: rows.setting.sentinel.clone(), fast_us: None });
        }
        let own: BTreeSet<&str> = folded.iter().map(|session| session.id.as_str()).collect();
        if !self.sessions.keys().any(|id| own.contains(id.as_str())) {
            of_layers.pool_rows()?;
            self.check_anchors(&self.changes(&of_layers))?;
        }
        let mut ids = Vec::new();
        let mut new = BTreeSet::new();
        for session in &folded {
            self.take_layers(session)?;
            if let Some(space) = space {
                self.take_networks(session, space, networks, &mut new)?;
            }
            ids.push(session.id.clone());
        }
        self.note(folded.iter().map(SessionFold::circumstances).collect());
        Ok((Added { sessions: ids, assumed, stale: Vec::new() }, new))
    }

    /// Checks that sub-networks among rows are of the space; returns the number of those that do not name one.
    fn check_space(&self, rows: &Rows, space: Option<&SearchSpace>) -> Result<usize> {
        let Some(space) = space else { return Ok(0) };
        let expected = space.fingerprint_at_any_resolution();
        let mut assumed = BTreeSet::new();
        for visit in rows.visits() {
            let Subject::Network(arch) = &visit.subject else { continue };
            match &visit.space {
                Some(other) if *other != expected => {
                    let field = format!("space of sub-network {arch}");
                    let expected = format!("{} ({expected})", space.name());
                    return Err(Error::invalid(&self.place, field, expected, other)
                        .and_then_do("give --space the space for which the rows were measured"));
                }
                Some(_) => {}
                None => {
                    assumed.insert(arch);
                }
            }
        }
        Ok(assumed.len())
    }

    fn take_layers(&mut self, session: &SessionFold<'_>) -> Result<()> {
        self.sessions.insert(session.id.clone(), session.facts());
        for (subject, one) in session.measurements(self.half_width) {
            let Subject::Layer(key) = subject else { continue };
            key.parse::<LayerSpec>().map_err(|error| error.in_place(&self.place))?;
            insert(self.layers.entry(key).or_default(), one);
        }
        Ok(())
    }

    fn take_networks(
        &mut self,
        session: &SessionFold<'_>,
        space: &SearchSpace,
        networks: Option<&BTreeSet<Arch>>,
        new: &mut BTreeSet<Arch>,
    ) -> Result<()> {
        let fingerprint = space.fingerprint_at_any_resolution();
        for (subject, one) in session.measurements(self.half_width) {
            let Subject::Network(arch) = subject else { continue };
            if networks.is_some_and(|networks| !networks.contains(&arch)) {
                continue;
            }
            space.check(&arch).map_err(|error| error.in_place(&self.place))?;
            let fit = self.spaces.entry(fingerprint.clone()).or_insert_with(|| SpaceFit::empty(space));
            fit.widen(space).map_err(|error| error.in_place(&self.place))?;
            if fit.networks.iter().all(|network| network.arch != arch) {
                new.insert(arch.clone());
            }
            fit.add(&arch, one);
        }
        Ok(())
    }

    /// Derives everything from the sessions: the sentinel's fast time, rows, and all fits; `dealt` are new sub-networks
    /// of a space, to fit and to judge.
    fn finish(&mut self, dealt: Option<(&SearchSpace, &BTreeSet<Arch>)>) -> Result<Added> {
        let met = self.sessions.values().filter(|facts| facts.met);
        let fast_us = met.filter_map(|facts| facts.sentinel_fast_us).min_by(f64::total_cmp);
        if let Some(sentinel) = &mut self.sentinel {
            sentinel.fast_us = fast_us.or(sentinel.fast_us);
        }
        self.pool_rows()?;
        let comparable = self.comparable();
        let mut fits = self.spaces.clone();
        let mut stale = Vec::new();
        for (fingerprint, fit) in &mut fits {
            let Some(space) = space_of(fit, fingerprint) else {
                stale.push(fit.name.clone());
                continue;
            };
            let none = BTreeSet::new();
            let new = dealt.filter(|(space, _)| space.fingerprint_at_any_resolution() == *fingerprint);
            fit.refit(&space, &self.evidence(&comparable), new.map_or(&none, |(_, new)| new))?;
            fit.check(&self.place)?;
        }
        self.spaces = fits;
        Ok(Added { sessions: Vec::new(), assumed: 0, stale })
    }

    /// Fits a space again after its fit was extended.
    ///
    /// # Errors
    /// If a layer of a sub-network has no row.
    pub fn refit(&mut self) -> Result<()> {
        self.finish(None).map(|_| ())
    }

    /// Dates and conditions of sessions, for a reader; of equal ids the later counts.
    fn note(&mut self, told: Vec<Value>) {
        let sessions = self.run.entry("sessions".to_string()).or_insert_with(|| Value::Array(Vec::new()));
        let Value::Array(sessions) = sessions else { return };
        for session in told {
            sessions.retain(|other| other.get("id") != session.get("id") || session.get("id").is_none());
            sessions.push(session);
        }
    }

    /// The layers that both tables have.
    pub fn changes(&self, other: &Self) -> Vec<RowChange> {
        let mut changes = Vec::new();
        for (key, before) in &self.rows {
            if let Some(after) = other.rows.get(key) {
                changes.push(RowChange { layer: key.clone(), before: *before, after: *after });
            }
        }
        changes
    }

    /// Checks that the latencies of layers that two sessions both know well agree.
    fn check_anchors(&self, changes: &[RowChange]) -> Result<()> {
        let anchors: Vec<&RowChange> =
            changes.iter().filter(|change| change.counts() && change.before.undisturbed).collect();
        if anchors.len() < LEAST_ANCHORS {
            return Ok(());
        }
        let ratio = stats::median(&anchors.iter().map(|anchor| anchor.ratio()).collect::<Vec<_>>());
        if (ratio - 1.0).abs() <= NEAR {
            return Ok(());
        }
        let sum = |value: fn(&RowChange) -> f64| anchors.iter().map(|anchor| value(anchor)).sum::<f64>();
        let field = format!("{} layers known to both", anchors.len());
        let expected = format!("within 5 % of {:.1} us in total", sum(|anchor| anchor.before.us));
        let got =
            format!("{:.1} us, and {ratio:.3} times as long in the median", sum(|anchor| anchor.after.us));
        Err(Error::invalid(&self.place, field, expected, got)
            .and_then_do("measure again when the machine is in its earlier state, or into a new table"))
    }

    /// Layers that show whether the machine is in a comparable state: well known ones, spread over the latencies.
    pub fn anchors(&self, count: usize) -> Vec<String> {
        let mut known: Vec<(&String, &Row)> =
            self.rows.iter().filter(|(_, row)| row.accepted && row.undisturbed).collect();
        known.sort_by(|a, b| a.1.us.total_cmp(&b.1.us).then_with(|| a.0.cmp(b.0)));
        let step = known.len() as f64 / count.min(known.len()).max(1) as f64;
        let places = (0..count.min(known.len())).map(|index| ((index as f64 + 0.5) * step) as usize);
        places.filter_map(|place| Some(known.get(place)?.0.clone())).collect()
    }

    /// Checks that times measured on `device` with `engine` may be added to this table.
    ///
    /// # Errors
    /// Names the differences; the device's name may differ.
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
        let expected = setting(&self.device, &self.engine);
        let got = setting(device, engine);
        Err(Error::invalid(&self.place, "setting", expected, got).and_then_do(
            "measure on that device with the same flags, or into a new table, or give --replace to discard this one",
        ))
    }
}

/// The space of a fit, at all resolutions that it needs; a preset if an old table does not hold it.
fn space_of(fit: &SpaceFit, fingerprint: &str) -> Option<SearchSpace> {
    let preset =
        || preset(&fit.name).ok().filter(|space| space.fingerprint_at_any_resolution() == fingerprint);
    fit.space.clone().or_else(preset)
}

/// Merges another table's fit for a space; uses stay as they are here.
fn join(own: &mut SpaceFit, other: &SpaceFit) -> Result<()> {
    let resolutions: BTreeSet<Extent> = own.resolutions.iter().chain(&other.resolutions).copied().collect();
    own.resolutions = resolutions.into_iter().collect();
    if let (Some(space), Some(wider)) = (&own.space, &other.space) {
        own.space = Some(space.at_resolutions_of(wider)?);
    }
    for network in &other.networks {
        match own.networks.iter_mut().find(|one| one.arch == network.arch) {
            Some(one) => {
                network.sessions.iter().for_each(|session| insert(&mut one.sessions, session.clone()))
            }
            None => own.networks.push(network.clone()),
        }
    }
    for searched in &other.searched {
        if !own.searched.iter().any(|one| one.arch == searched.arch && one.limit_us == searched.limit_us) {
            own.searched.push(searched.clone());
        }
    }
    Ok(())
}
