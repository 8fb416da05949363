//! `supernet space`: the choices, sub-networks and costs of a space.

use std::fmt::Write;

use command::{Common, Ending, grouped, print_lines, read_archs};
use serde_json::{Map, Value, json};
use space::{Arch, Cost, Extent, SearchSpace, cost, preset_names, sampler};

/// Describe a search space: choices, number of sub-networks, costs of the smallest and the largest
#[derive(clap::Args)]
#[command(after_help = "Example:
  supernet space ofa-mbv3-w1.0
  supernet space tiny --arch random:1 r8:k3e3/k3e3
  supernet space tiny --toml > mine.toml     # to start your own space")]
pub struct Arguments {
    /// A preset's name or a TOML file
    #[arg(value_name = "SPACE", required_unless_present = "list")]
    space: Option<String>,
    /// Print the names of the presets
    #[arg(long)]
    list: bool,
    /// Print the space as TOML, the format of your own spaces
    #[arg(long, conflicts_with = "json")]
    toml: bool,
    /// Print the costs of these sub-networks: `random:SEED`, canonical text, a file, …
    #[arg(long, num_args = 1.., conflicts_with = "toml")]
    arch: Vec<String>,
    #[command(flatten)]
    pub common: Common,
}

impl Arguments {
    pub fn run(&self) -> anyhow::Result<Ending> {
        let Some(space) = self.space.as_ref().filter(|_| !self.list) else {
            let names: Vec<_> = preset_names().collect();
            self.common.print(&json!({ "presets": names }), || names.join("\n"))?;
            return Ok(Ending::Done);
        };
        let space = space::open(space)?;
        if self.toml {
            print_lines(&space.to_toml())?;
            return Ok(Ending::Done);
        }
        if !self.arch.is_empty() {
            return self.costs_of(&space);
        }
        let costs = costs(&space)?;
        self.common.print(&document(&space, &costs), || text(&space, &costs))?;
        Ok(Ending::Done)
    }

    /// One line for each sub-network: MMACs, parameters, bytes of activations, and the sub-network.
    fn costs_of(&self, space: &SearchSpace) -> anyhow::Result<Ending> {
        let mut text = String::new();
        let mut documents = Vec::new();
        for arch in read_archs(space, &self.arch)? {
            let cost = cost(&space.lower(&arch)?);
            let Cost { macs, params, peak_activation_bytes } = cost;
            let _ =
                writeln!(text, "{:>10.3} {params:>10} {peak_activation_bytes:>10} {arch}", macs as f64 / 1e6);
            let mut document = json!(cost);
            document["arch"] = json!(arch);
            documents.push(document);
        }
        self.common.print(&json!({ "archs": documents }), || text)?;
        Ok(Ending::Done)
    }
}

/// Smallest and largest sub-network at a resolution.
struct Ends {
    resolution: Extent,
    smallest: (Arch, Cost),
    largest: (Arch, Cost),
}

fn costs(space: &SearchSpace) -> anyhow::Result<Vec<Ends>> {
    let mut costs = Vec::new();
    for &resolution in space.resolutions() {
        let smallest = with_cost(space, sampler::smallest(space).at(resolution))?;
        let largest = with_cost(space, sampler::largest(space).at(resolution))?;
        costs.push(Ends { resolution, smallest, largest });
    }
    Ok(costs)
}

fn with_cost(space: &SearchSpace, arch: Arch) -> anyhow::Result<(Arch, Cost)> {
    let cost = cost(&space.lower(&arch)?);
    Ok((arch, cost))
}

fn document(space: &SearchSpace, costs: &[Ends]) -> Value {
    let mut smallest = Map::new();
    let mut largest = Map::new();
    for ends in costs {
        smallest.insert(ends.resolution.to_string(), cost_document(&ends.smallest));
        largest.insert(ends.resolution.to_string(), cost_document(&ends.largest));
    }
    json!({
        "name": space.name(),
        "subnetworks": space.subnetworks().to_string(),
        "resolutions": space.resolutions(),
        "smallest": smallest,
        "largest": largest,
    })
}

fn cost_document(end: &(Arch, Cost)) -> Value {
    let (arch, cost) = end;
    let mut document = json!(cost);
    document["arch"] = json!(arch);
    document
}

fn text(space: &SearchSpace, costs: &[Ends]) -> String {
    let mut text = format!(
        "{}: {} sub-networks at each of {} resolutions\n{} input channels, {} classes\n\n",
        space.name(),
        grouped(space.subnetworks()),
        space.resolutions().len(),
        space.input_channels(),
        space.classes()
    );
    for line in space.describe() {
        let _ = writeln!(text, "{line}");
    }
    let _ = writeln!(
        text,
        "\n{:>10}  {:<8} {:>9} {:>12} {:>16}",
        "resolution", "", "MMACs", "parameters", "activations kB"
    );
    for ends in costs {
        for (name, (_, cost)) in [("smallest", &ends.smallest), ("largest", &ends.largest)] {
            let _ = writeln!(
                text,
                "{:>10}  {name:<8} {:>9.2} {:>12} {:>16.0}",
                ends.resolution,
                cost.macs as f64 / 1e6,
                grouped(cost.params),
                cost.peak_activation_bytes as f64 / 1e3
            );
        }
    }
    text
}
