//! `plan.jsonl`: the measurements that the small program on a device is to make.
//!
//! A header, a line for each layer, a line for each sub-network. A sub-network is a list of layers and their inputs, so
//! that the device needs to know nothing of spaces.

use std::collections::BTreeMap;
use std::path::Path;
use std::time::Duration;

use base::Error;
use base::document;
use base::file::{self, write_atomically};
use latency::{EngineFacts, LatencyTable, Subject};
use serde::{Deserialize, Serialize};
use space::{Arch, Extent, LayerSpec, SearchSpace};

use super::candidates;
use super::measure::{MeasureConfig, Subjects};
use super::sentinel::sentinel_of;
use crate::error::Result;

/// The header's `kind`.
const KIND: &str = "latency-plan";
/// Version of the form that says what layers read. It is written only where some sub-network is no chain, so that programs
/// that are on devices already go on reading the plans of chains.
const VERSION: u32 = 3;
/// Version of the form in which each layer of a sub-network reads the one before it.
const CHAINS: u32 = 2;
/// Most layers and most sub-networks: a file with more is no plan.
const MOST: usize = 1_000_000;
/// Longest budget: 30 years.
const MOST_SECONDS: f64 = 1e9;

/// A layer that a plan lists.
#[derive(Clone, Debug, PartialEq)]
pub struct PlannedLayer {
    /// The layer to run.
    pub spec: LayerSpec,
    /// Resolutions of the space at which it occurs.
    pub resolutions: Vec<Extent>,
    /// Whether a table knows it well enough: it is not measured again.
    pub known: bool,
}

/// A layer of a planned sub-network.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct NetworkLayer {
    /// The layer's key.
    pub key: String,
    /// Of each of its inputs, the index of the layer that makes it; `None` is the network's input.
    pub inputs: Vec<Option<usize>>,
}

impl NetworkLayer {
    /// A layer of a network, as a plan names it.
    pub(super) fn of(layer: &LayerSpec) -> Self {
        Self { key: layer.key(), inputs: layer.inputs.clone() }
    }
}

/// Whether each layer reads the one before it and nothing else.
fn is_chain(layers: &[NetworkLayer]) -> bool {
    layers.iter().enumerate().all(|(at, layer)| layer.inputs == [at.checked_sub(1)])
}

/// The measurements of a space, and the engine to make them with.
#[derive(Clone, Debug, PartialEq)]
pub struct MeasurePlan {
    /// Name of the space.
    pub space: String,
    /// [`SearchSpace::fingerprint_at_any_resolution`] of the space.
    pub fingerprint: String,
    /// Resolutions that are covered.
    pub resolutions: Vec<Extent>,
    /// Name of the engine, such as `native`.
    pub engine: String,
    /// Threads that it computes with.
    pub threads: usize,
    /// Number type of the activations.
    pub dtype: String,
    /// Images at once.
    pub batch: usize,
    /// Target uncertainty of each latency: half of its 95 % interval over itself.
    pub half_width: f64,
    /// Time after which no new visit begins.
    pub budget: Duration,
    /// Decides the order of visits.
    pub seed: u64,
    /// Name of the sentinel, which shows how fast the machine is.
    pub sentinel: String,
    /// The sentinel's fast time in the table that is added to, in microseconds.
    pub kept_us: Option<f64>,
    /// Layers by key.
    pub layers: BTreeMap<String, PlannedLayer>,
    /// Sub-networks to measure, each with its layers.
    pub networks: BTreeMap<Arch, Vec<NetworkLayer>>,
}

#[derive(Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct Header {
    kind: String,
    version: u32,
    space: String,
    fingerprint: String,
    resolutions: Vec<Extent>,
    engine: String,
    threads: usize,
    dtype: String,
    batch: usize,
    half_width: f64,
    budget_seconds: f64,
    seed: u64,
    sentinel: String,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    kept_us: Option<f64>,
    /// Number of lines of each kind, so that a truncated file is detected.
    layers: usize,
    networks: usize,
}

#[derive(Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct LayerLine {
    layer: String,
    resolutions: Vec<Extent>,
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    known: bool,
}

#[derive(Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct NetworkLine {
    /// The inputs of each layer, by the place in `layers`; absent where each reads the one before it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    inputs: Option<Vec<Vec<Option<usize>>>>,
    /// Layers by their place in the file, counted from 0.
    layers: Vec<usize>,
    network: Arch,
}

impl MeasurePlan {
    /// The plan for a space: all its layers, those that `known` has only if they are among its anchors, and so many
    /// sub-networks.
    ///
    /// # Errors
    /// If `known` is of another engine; none else for a checked space.
    pub fn new(
        space: &SearchSpace,
        engine: &EngineFacts,
        config: &MeasureConfig,
        networks: usize,
        known: Option<&LatencyTable>,
    ) -> Result<Self> {
        if let Some(table) = known {
            check_engine(table, engine)?;
        }
        let networks = candidates::networks(space, networks, config.seed)?;
        let layers = planned_layers(space, known)?;
        let EngineFacts { engine, threads, dtype, batch, .. } = engine.clone();
        let sentinel = sentinel_of(&engine).to_string();
        Ok(Self {
            space: space.name().to_string(),
            fingerprint: space.fingerprint_at_any_resolution(),
            resolutions: space.resolutions().to_vec(),
            kept_us: config.kept_us.or_else(|| known?.kept_us(&sentinel)),
            sentinel,
            engine,
            threads,
            dtype,
            batch,
            half_width: config.half_width,
            budget: config.budget,
            seed: config.seed,
            layers,
            networks,
        })
    }

    /// Sixteen hexadecimal digits that rows of different plans do not share; neither the budget has a part in it nor what
    /// a table knew when the plan was made, so that a measuring that was interrupted goes on.
    pub fn id(&self) -> String {
        let mut timeless = Self { budget: Duration::ZERO, kept_us: None, ..self.clone() };
        // anchors of other spaces
        timeless.layers.retain(|_, layer| !layer.resolutions.is_empty());
        timeless.layers.values_mut().for_each(|layer| layer.known = false);
        blake3::hash(timeless.to_jsonl().as_bytes()).to_hex()[..16].to_string()
    }

    /// The protocol that the plan asks for.
    pub fn config(&self) -> MeasureConfig {
        MeasureConfig {
            half_width: self.half_width,
            budget: self.budget,
            seed: self.seed,
            kept_us: self.kept_us,
            ..MeasureConfig::default()
        }
    }

    /// The layers to measure, and the sub-networks.
    ///
    /// # Errors
    /// If layers of a sub-network do not fit each other.
    pub fn subjects(&self) -> Result<Subjects> {
        let layers = self.layers.iter().filter(|(_, layer)| !layer.known);
        let mut subjects: Subjects =
            layers.map(|(key, layer)| (Subject::Layer(key.clone()), vec![layer.spec.clone()])).collect();
        for (arch, layers) in &self.networks {
            subjects.insert(Subject::Network(arch.clone()), self.network(layers)?);
        }
        Ok(subjects)
    }

    /// The layers of a sub-network, joined.
    ///
    /// # Errors
    /// If one does not fit what it reads.
    pub fn network(&self, layers: &[NetworkLayer]) -> base::Result<Vec<LayerSpec>> {
        LayerSpec::graph(
            layers
                .iter()
                .map(|NetworkLayer { key, inputs }: &NetworkLayer| LayerSpec {
                    inputs: inputs.clone(),
                    ..self.layers[key].spec.clone()
                })
                .collect(),
        )
    }

    /// The file's text.
    pub fn to_jsonl(&self) -> String {
        let header = Header {
            kind: KIND.to_string(),
            version: if self.networks.values().all(|layers| is_chain(layers)) { CHAINS } else { VERSION },
            space: self.space.clone(),
            fingerprint: self.fingerprint.clone(),
            resolutions: self.resolutions.clone(),
            engine: self.engine.clone(),
            threads: self.threads,
            dtype: self.dtype.clone(),
            batch: self.batch,
            half_width: self.half_width,
            budget_seconds: self.budget.as_secs_f64(),
            seed: self.seed,
            sentinel: self.sentinel.clone(),
            kept_us: self.kept_us,
            layers: self.layers.len(),
            networks: self.networks.len(),
        };
        let mut text = serde_json::to_string(&header).expect("plain data") + "\n";
        let mut places = BTreeMap::new();
        for (place, (key, PlannedLayer { resolutions, known, .. })) in self.layers.iter().enumerate() {
            places.insert(key, place);
            let layer = key.clone();
            let resolutions = resolutions.clone();
            let known = *known;
            let wire = LayerLine { layer, resolutions, known };
            text += &(serde_json::to_string(&wire).expect("plain data") + "\n");
        }
        for (arch, layers) in &self.networks {
            let wire = NetworkLine {
                layers: layers.iter().map(|layer| places[&layer.key]).collect(),
                inputs: (!is_chain(layers))
                    .then(|| layers.iter().map(|layer| layer.inputs.clone()).collect()),
                network: arch.clone(),
            };
            text += &(serde_json::to_string(&wire).expect("plain data") + "\n");
        }
        text
    }

    /// Writes the file, all of it or nothing.
    ///
    /// # Errors
    /// If the folder cannot be written to.
    pub fn write(&self, path: &Path) -> Result<()> {
        Ok(write_atomically(path, self.to_jsonl().as_bytes())?)
    }

    /// Reads a file.
    ///
    /// # Errors
    /// If it cannot be read, is no plan of this version, was cut short, or lists what cannot be.
    pub fn read(path: &Path) -> Result<Self> {
        Self::from_jsonl(&path.display().to_string(), &file::read_text(path)?)
    }

    /// Reads a file's text; `place` names it in messages.
    ///
    /// # Errors
    /// As [`MeasurePlan::read`].
    pub fn from_jsonl(place: &str, text: &str) -> Result<Self> {
        let mut lines = text.lines();
        let first = lines.next().unwrap_or("");
        let header: Header = document::read_one_of(
            place,
            first,
            KIND,
            &[CHAINS, VERSION],
            "the header of a latency plan in JSON",
        )?;
        check_header(place, &header)?;
        let got = text.lines().count() - 1;
        if header.layers.max(header.networks) > MOST || header.layers + header.networks != got {
            let expected = format!("{} layers and {} sub-networks", header.layers, header.networks);
            return Err(Error::invalid(place, "number of lines", expected, format!("{got} lines"))
                .and_then_do("copy the file again")
                .into());
        }
        let mut lines = lines.enumerate().map(|(index, line)| (format!("{place}, line {}", index + 2), line));
        let mut layers = BTreeMap::new();
        let mut keys = Vec::new();
        for (place, line) in lines.by_ref().take(header.layers) {
            let (key, layer) = layer_of(&place, line)?;
            keys.push(key.clone());
            if layers.insert(key, layer).is_some() {
                return Err(Error::invalid(&place, "layer", "each layer once", line).into());
            }
        }
        let mut networks = BTreeMap::new();
        for (place, line) in lines {
            let (arch, network) = network_of(&place, line, &keys)?;
            if networks.insert(arch, network).is_some() {
                return Err(Error::invalid(&place, "network", "each sub-network once", line).into());
            }
        }
        let plan = Self::assembled(header, layers, networks);
        for layers in plan.networks.values() {
            plan.network(layers).map_err(|error| error.in_place(place))?;
        }
        Ok(plan)
    }

    fn assembled(
        header: Header,
        layers: BTreeMap<String, PlannedLayer>,
        networks: BTreeMap<Arch, Vec<NetworkLayer>>,
    ) -> Self {
        Self {
            space: header.space,
            fingerprint: header.fingerprint,
            resolutions: header.resolutions,
            engine: header.engine,
            threads: header.threads,
            dtype: header.dtype,
            batch: header.batch,
            half_width: header.half_width,
            budget: Duration::from_secs_f64(header.budget_seconds),
            seed: header.seed,
            sentinel: header.sentinel,
            kept_us: header.kept_us,
            layers,
            networks,
        }
    }
}

fn check_header(place: &str, header: &Header) -> Result<()> {
    let Header { threads, batch, half_width, budget_seconds, kept_us, .. } = header;
    let wrong =
        |field: &str, expected: &str, got: String| Err(Error::invalid(place, field, expected, got).into());
    if !(1..=4096).contains(threads) || !(1..=65_536).contains(batch) {
        return wrong(
            "threads and batch",
            "at least 1, at most 4096 and 65536",
            format!("{threads} and {batch}"),
        );
    }
    if !(*half_width > 0.0 && *half_width < 1.0) {
        return wrong("half_width", "a number between 0 and 1", half_width.to_string());
    }
    if !(0.0..=MOST_SECONDS).contains(budget_seconds) {
        return wrong("budget_seconds", "0 to 1e9", budget_seconds.to_string());
    }
    if let Some(kept) = kept_us.filter(|kept| !(kept.is_finite() && *kept > 0.0)) {
        return wrong("kept_us", "a time above 0 us", kept.to_string());
    }
    let sentinel = sentinel_of(&header.engine);
    if header.sentinel != sentinel {
        return wrong("sentinel", sentinel, header.sentinel.clone());
    }
    Ok(())
}

fn layer_of(place: &str, line: &str) -> Result<(String, PlannedLayer)> {
    let form = "{\"layer\", \"resolutions\"}";
    let LayerLine { layer, resolutions, known } =
        serde_json::from_str(line).map_err(|error| Error::invalid(place, "layer", form, error))?;
    let spec = layer.parse::<LayerSpec>().map_err(|error| error.in_place(place))?;
    Ok((layer, PlannedLayer { spec, resolutions, known }))
}

fn network_of(place: &str, line: &str, keys: &[String]) -> Result<(Arch, Vec<NetworkLayer>)> {
    let form = "{\"network\", \"layers\"}, and \"inputs\" where they are no chain";
    let NetworkLine { inputs, layers, network } =
        serde_json::from_str(line).map_err(|error| Error::invalid(place, "network", form, error))?;
    let inputs = inputs.unwrap_or_else(|| (0..layers.len()).map(|at| vec![at.checked_sub(1)]).collect());
    if inputs.len() != layers.len() {
        let expected = format!("a list for each of {} layers", layers.len());
        return Err(Error::invalid(place, "inputs", expected, inputs.len()).into());
    }
    let mut network_layers = Vec::with_capacity(layers.len());
    for (&index, inputs) in layers.iter().zip(inputs) {
        let Some(key) = keys.get(index).cloned() else {
            let expected = format!("places below {}", keys.len());
            return Err(Error::invalid(place, "layers", expected, format!("{layers:?}")).into());
        };
        network_layers.push(NetworkLayer { key, inputs });
    }
    Ok((network, network_layers))
}

/// Whether a table's layers may stand for what `engine` would measure; a plan does not know its version yet.
fn check_engine(table: &LatencyTable, engine: &EngineFacts) -> Result<()> {
    let engine_version = if engine.engine_version.is_empty() {
        table.engine.engine_version.clone()
    } else {
        engine.engine_version.clone()
    };
    Ok(table.check_same_setting(&table.device, &EngineFacts { engine_version, ..engine.clone() })?)
}

/// Layers of a table that are measured again before others are added to it.
const ANCHORS: usize = 10;

/// The layers of a space, each with the resolutions at which it occurs. Those that a table knows well need not be measured,
/// but for its anchors.
fn planned_layers(
    space: &SearchSpace,
    known: Option<&LatencyTable>,
) -> Result<BTreeMap<String, PlannedLayer>> {
    let anchors = known.map_or_else(Vec::new, |table| table.anchors(ANCHORS));
    let mut layers: BTreeMap<String, PlannedLayer> = BTreeMap::new();
    for &resolution in space.resolutions() {
        for (key, spec) in space.at_resolutions(&[resolution])?.layers() {
            let row = known.and_then(|table| table.rows().get(&key)).filter(|row| row.converged);
            let known = row.is_some() && !anchors.contains(&key);
            let planned = PlannedLayer { spec, resolutions: Vec::new(), known };
            layers.entry(key).or_insert(planned).resolutions.push(resolution);
        }
    }
    for key in anchors {
        // those of other spaces than this one too
        let spec = key.parse().map_err(|error: base::Error| error.in_place("anchor"))?;
        layers.entry(key).or_insert(PlannedLayer { spec, resolutions: Vec::new(), known: false });
    }
    Ok(layers)
}

#[cfg(test)]
mod tests;
