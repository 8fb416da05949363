//! `extract study`: strategies side by side at equal price.

use std::path::PathBuf;

use base::Error;
use base::document::sorted_json;
use base::file::write_atomically;
use command::{Common, Ending, stop_flag, wrote};
use extract::plot::svg;
use extract::study_report::{panels, text};
use study::{ProblemFile, Study, StudyConfig};

/// Compare search strategies at equal price, on a table that has the metrics of every combination
#[derive(clap::Args)]
#[command(
    after_help = "Example:\n  extract study examples/studies/nas-bench-201-c10.toml --seeds 100 --out study"
)]
pub struct Arguments {
    /// The problem: its table, metrics, goals, budget and strategies, as TOML
    #[arg(value_name = "PROBLEM.toml")]
    problem: PathBuf,
    /// Runs of each strategy, each with a seed of its own [default: the problem's]
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u32).range(1..))]
    seeds: Option<u32>,
    /// Price at which each run ends [default: the problem's]
    #[arg(long, value_name = "PRICE", value_parser = price, allow_hyphen_values = true)]
    budget: Option<f64>,
    /// Prices, evenly spaced, at which the results are compared
    #[arg(long, value_name = "N", default_value_t = 40, value_parser = clap::value_parser!(u32).range(1..=10_000))]
    points: u32,
    /// Where to write study.json and study.svg
    #[arg(long, value_name = "FOLDER")]
    out: Option<PathBuf>,
    #[command(flatten)]
    pub common: Common,
}

fn price(text: &str) -> Result<f64, String> {
    let price = text.parse().ok().filter(|price: &f64| price.is_finite() && *price > 0.0);
    price.ok_or_else(|| "expected a number above 0".to_string())
}

pub fn run(arguments: &Arguments) -> anyhow::Result<Ending> {
    let stop = stop_flag()?;
    if let Some(folder) = &arguments.out {
        std::fs::create_dir_all(folder).map_err(Error::io("create the folder", folder))?;
    }
    let mut problem = ProblemFile::read(&arguments.problem)?;
    let config = StudyConfig {
        seeds: arguments.seeds.map(|seeds| seeds as usize),
        budget: arguments.budget,
        prices: arguments.points as usize,
    };
    let study = Study::run(&mut problem, &config, &stop)?;
    let document = study.to_json()?;
    if let Some(folder) = &arguments.out {
        let lines = sorted_json(&document)? + "\n";
        for (name, content) in [("study.json", lines), ("study.svg", svg(&study.name, &panels(&study)))] {
            let path = folder.join(name);
            write_atomically(&path, content.as_bytes())?;
            wrote(&path);
        }
    }
    arguments.common.print(&document, || text(&study))?;
    Ok(if study.interrupted { Ending::Interrupted } else { Ending::Done })
}
