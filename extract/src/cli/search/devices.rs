//! The flags of `extract search` about latency tables and limits.

use std::collections::BTreeMap;
use std::path::PathBuf;

use base::Error;
use extract::latency::{LatencyKind, LatencyModel, LatencyTable};
use extract::search::{
    Candidate, CostIndex, DeviceFound, Found, LATENCY, LatencyFrom, Limits, Quantity, cost_index,
    cost_index_without_latency, device_of,
};
use space::SearchSpace;

use super::about_table;

/// The group of the flags that give a table.
pub const ANY_TABLE: &str = "any_table";

/// The flags that give tables.
#[derive(clap::Args)]
#[command(group = clap::ArgGroup::new(ANY_TABLE).args(["latency_table", "tables"]).multiple(true))]
pub struct TableFlags {
    /// The table that `extract measure` wrote; needed for a latency limit or a front
    #[arg(long, value_name = "TABLE.json")]
    latency_table: Option<PathBuf>,
    /// The table of one of several devices; its latency is latency@NAME
    #[arg(id = "tables", long = "table", value_name = "NAME=TABLE.json", value_parser = named)]
    tables: Vec<(String, PathBuf)>,
    /// Which latency is limited: undisturbed, with nothing else on the core; or typical, as observed,
    /// neighbors included
    #[arg(long, value_name = "undisturbed|typical", default_value_t, requires = ANY_TABLE, value_parser = kind)]
    latency: LatencyKind,
}

#[derive(clap::Args)]
pub struct DeviceFlags {
    #[command(flatten)]
    tables: TableFlags,
    /// Limit on a metric, such as latency@NAME=12ms, macs=200M, params=5M or memory=4MB
    #[arg(long, value_name = "METRIC=AMOUNT", value_parser = limit)]
    limit: Vec<(String, f64)>,
    /// Latency limit, such as 12ms or 850us; compared with the upper end of the predicted interval
    #[arg(long, value_name = "TIME", requires = "latency_table", value_parser = amount(Quantity::Latency), allow_hyphen_values = true)]
    max_latency: Option<f64>,
    /// Limit on multiply-accumulates, such as 200M
    #[arg(long, value_name = "MACS", value_parser = amount(Quantity::Macs), allow_hyphen_values = true)]
    max_macs: Option<f64>,
    /// Limit on parameters, such as 5M
    #[arg(long, value_name = "PARAMS", value_parser = amount(Quantity::Params), allow_hyphen_values = true)]
    max_params: Option<f64>,
    /// Limit on peak activation memory, such as 4MB
    #[arg(long, value_name = "BYTES", value_parser = amount(Quantity::Memory), allow_hyphen_values = true)]
    max_memory: Option<f64>,
}

fn kind(text: &str) -> Result<LatencyKind, String> {
    match text {
        "undisturbed" => Ok(LatencyKind::Undisturbed),
        "typical" => Ok(LatencyKind::Typical),
        _ => Err("undisturbed or typical".to_string()),
    }
}

fn amount(quantity: Quantity) -> impl Fn(&str) -> Result<f64, String> + Clone + Send + Sync + 'static {
    move |text| quantity.parse(text).map_err(|error| error.to_string())
}

fn named(text: &str) -> Result<(String, PathBuf), String> {
    let is_name = |name: &&str| {
        !name.is_empty()
            && name.chars().all(|letter| letter.is_ascii_alphanumeric() || "-_.".contains(letter))
    };
    let pair = text.split_once('=').filter(|(name, path)| is_name(name) && !path.is_empty());
    let (name, path) = pair.ok_or("expected NAME=TABLE.json, the name of letters, digits, - _ and .")?;
    Ok((name.to_string(), path.into()))
}

fn limit(text: &str) -> Result<(String, f64), String> {
    let expected = "expected METRIC=AMOUNT of latency, latency@NAME, macs, params or memory";
    let (metric, text) = text.split_once('=').ok_or(expected)?;
    let by_name = Quantity::ALL.into_iter().find(|quantity| quantity.metric() == metric);
    let quantity = by_name.or_else(|| device_of(metric).map(|_| Quantity::Latency));
    let amount = quantity.ok_or_else(|| format!("{expected}; got {metric}"))?.parse(text);
    Ok((metric.to_string(), amount.map_err(|error| error.to_string())?))
}

/// A table that was read.
pub struct Device {
    /// `None` for that of `--latency-table`.
    pub name: Option<String>,
    pub table: LatencyTable,
}

impl Device {
    /// The metric of its latency.
    pub fn metric(&self) -> String {
        self.name.as_ref().map_or_else(|| LATENCY.to_string(), |name| format!("{LATENCY}@{name}"))
    }
}

/// The tables of a search, and the costs by them.
pub struct Devices {
    pub tables: Vec<Device>,
    pub kind: LatencyKind,
    /// The space's costs, with the latency of `--latency-table`.
    pub index: CostIndex,
    /// The latencies of named devices.
    pub named: Vec<CostIndex>,
}

impl DeviceFlags {
    /// The files that are read.
    pub fn inputs(&self) -> impl Iterator<Item = &PathBuf> {
        self.tables.inputs()
    }

    /// [`TableFlags::read`].
    pub fn read(&self, space: &SearchSpace) -> anyhow::Result<Devices> {
        self.tables.read(space)
    }

    /// All limits.
    ///
    /// # Errors
    /// If a metric is limited twice, or a device that has no table.
    pub fn limits(&self) -> anyhow::Result<Limits> {
        let Self { tables, max_latency, max_macs, max_params, max_memory, limit } = self;
        let short =
            [(LATENCY, max_latency), ("macs", max_macs), ("params", max_params), ("memory", max_memory)];
        let short = short.into_iter().filter_map(|(name, bound)| Some((name.to_string(), (*bound)?)));
        let mut all = BTreeMap::new();
        for (name, bound) in short.chain(limit.iter().cloned()) {
            let known = match device_of(&name) {
                Some(device) => tables.tables.iter().any(|(own, _)| own == device),
                None => name != LATENCY || tables.latency_table.is_some(),
            };
            if !known {
                let expected = "a metric with a table";
                let error = Error::invalid("limits", "metric", expected, &name);
                return Err(error.and_then_do("give --table NAME=TABLE.json, or --latency-table").into());
            }
            if all.insert(name.clone(), bound).is_some() {
                return Err(Error::invalid("limits", name, "one limit", "two").into());
            }
        }
        Ok(all.into_iter().collect())
    }
}

impl TableFlags {
    /// The files that are read.
    pub fn inputs(&self) -> impl Iterator<Item = &PathBuf> {
        self.latency_table.iter().chain(self.tables.iter().map(|(_, path)| path))
    }

    /// Reads the tables, and prices the space's layers.
    ///
    /// # Errors
    /// If a table cannot be read, lacks a layer of the space, or a name stands twice.
    pub fn read(&self, space: &SearchSpace) -> anyhow::Result<Devices> {
        let mut tables = Vec::new();
        let mut named = Vec::new();
        for (name, path) in &self.tables {
            if tables.iter().any(|device: &Device| device.name.as_ref() == Some(name)) {
                let expected = "each name once";
                return Err(Error::invalid("--table", "name", expected, format!("{name} twice")).into());
            }
            let table = LatencyTable::read(path)?;
            named.push(cost_index(space, &table, self.latency)?.of_device(name).latency_alone());
            tables.push(Device { name: Some(name.clone()), table });
        }
        let index = match &self.latency_table {
            Some(path) => {
                let table = LatencyTable::read(path)?;
                let index = cost_index(space, &table, self.latency)?;
                tables.insert(0, Device { name: None, table });
                index
            }
            None => cost_index_without_latency(space)?,
        };
        Ok(Devices { tables, kind: self.latency, index, named })
    }
}

impl Devices {
    /// The hashes of the tables, each with its name as an input of the search.
    pub fn hashes(&self) -> Vec<(String, String)> {
        let input = |device: &Device| match &device.name {
            Some(name) => format!("latency_table@{name}"),
            None => "latency_table".to_string(),
        };
        self.tables.iter().map(|device| (input(device), device.table.hash())).collect()
    }

    /// Completes a result with what is known of its latencies, and reports the tables.
    pub fn describe(&self, space: &SearchSpace, found: &mut Found) -> anyhow::Result<()> {
        for one @ Device { name, table } in &self.tables {
            let model = LatencyModel::of_kind(table, space, self.kind);
            let metric = one.metric();
            let us = found.best.mean(&metric).unwrap_or_default();
            let device = DeviceFound {
                latency: LatencyFrom::new(table, model.kind()),
                latency_table: table.hash(),
                limit_kept: found.limits.of(&metric).and_then(|limit| model.kept(us, limit)),
                extrapolated: model.extrapolated(found.best.arch.resolution, us),
            };
            about_table::say(table, &model, space, self.kind, &device.extrapolated)?;
            if model.fit().is_none() {
                tracing::info!(
                    "note: the table of {} knows no whole sub-networks of the space, so latencies are plain sums of layers; measure it with --networks",
                    table.device.name
                );
            }
            match name {
                Some(name) => drop(found.devices.insert(name.clone(), device)),
                None => found.set_device(device),
            }
        }
        Ok(())
    }
}

/// The lines of the latencies on named devices.
pub fn lines(best: &Candidate, found: &Found) -> Vec<String> {
    let mut lines = Vec::new();
    for (name, device) in &found.devices {
        let Some(value) = best.values.get(&format!("{LATENCY}@{name}")) else { continue };
        let (expected, upper) = (value.mean / 1e3, value.high.unwrap_or(value.mean) / 1e3);
        let kept = device.limit_kept.map_or_else(String::new, |share| {
            format!("; limit kept with a probability of {:.0} %", 100.0 * share)
        });
        lines
            .push(format!("on {name:<11}{expected:.4} ms, at most {upper:.4} ms ({}){kept}", device.latency));
    }
    lines
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn limits_and_tables_are_by_name() {
        assert_eq!(limit("latency@phone=12ms").expect("a limit"), ("latency@phone".to_string(), 12_000.0));
        assert_eq!(limit("macs=2M").expect("a limit"), ("macs".to_string(), 2e6));
        for text in ["macs", "top1=0.9", "latency@=3ms", "latency@phone=3", "memory=-1", "latencies=3ms"] {
            assert!(limit(text).is_err(), "{text}");
        }
        assert_eq!(
            named("phone=a=b.json").expect("a table"),
            ("phone".to_string(), PathBuf::from("a=b.json"))
        );
        for text in ["a.json", "=a.json", "phone=", "my phone=a.json"] {
            assert!(named(text).is_err(), "{text}");
        }
    }
}
