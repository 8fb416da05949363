//! The flags that choose a strategy.

use std::collections::BTreeMap;
use std::time::Duration;

use ::search::Error as Refusal;
use base::Error;
use extract::search::{StrategyChoice, StrategyKind};

use super::time_budget::time;

/// The default strategy, for predictors cost nothing.
const DEFAULT: &str = "climbers";
/// The default strategy for evaluations that cost much.
const FOR_EVALUATIONS: &str = "portfolio";
/// Evaluations of a search by another strategy unless given.
const EVALUATIONS: usize = 60_000;
/// Latency limits that climbers search a front at, next to the requested one.
pub const FRONT_LIMITS: usize = 8;

#[derive(clap::Args)]
#[command(group = clap::ArgGroup::new("budget").multiple(true))]
pub struct StrategyFlags {
    /// How to search; `extract strategies` lists the names [default: climbers, or portfolio with --evaluator]
    #[arg(long, value_name = "NAME")]
    strategy: Option<String>,
    /// A parameter of the strategy; `extract strategies NAME` lists them with their defaults
    #[arg(long, value_name = "KEY=VALUE", value_parser = parameter)]
    set: Vec<(String, String)>,
    /// Predictions or evaluations after which the search ends, each counted by its share of full fidelity [default: 60000 predictions, and for climbers 5000 more for each
    /// limit of a front]
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u64).range(1..), group = "budget")]
    evaluations: Option<u64>,
    /// Time after which the search ends with the best so far, such as 90s, 10m or 2h; with --log the same command goes on for as
    /// long again
    #[arg(long, value_name = "TIME", value_parser = time, group = "budget")]
    pub time: Option<Duration>,
}

fn parameter(text: &str) -> Result<(String, String), String> {
    match text.split_once('=') {
        Some((name, value)) if !name.trim().is_empty() => {
            Ok((name.trim().to_string(), value.trim().to_string()))
        }
        _ => Err("KEY=VALUE, such as population=50".to_string()),
    }
}

impl StrategyFlags {
    /// The choice; `None` for the default as it is.
    ///
    /// # Errors
    /// If there is no such strategy, or a parameter is given twice.
    pub fn choice(&self, front: bool) -> anyhow::Result<Option<StrategyChoice>> {
        let Self { set: given, evaluations, .. } = self;
        let kind = StrategyKind::named(self.name())?;
        if kind.name == DEFAULT && given.is_empty() && evaluations.is_none() {
            return Ok(None);
        }
        let mut set = self.parameters()?;
        if front && kind.name == DEFAULT {
            set.entry("front_limits".to_string()).or_insert_with(|| FRONT_LIMITS.to_string());
        }
        let mut evaluations = evaluations.map(|count| count as usize);
        if kind.name == DEFAULT {
            // climbers end by themselves, and plan their phases by a number of candidates
            if let Some(count) = evaluations.take() {
                set.entry("candidates".to_string()).or_insert_with(|| count.to_string());
            }
        } else {
            evaluations = evaluations.or(Some(EVALUATIONS));
        }
        Ok(Some(StrategyChoice { kind, set, evaluations }))
    }

    /// The strategy's name, of a search by predictions.
    pub fn name(&self) -> &str {
        self.strategy.as_deref().unwrap_or(DEFAULT)
    }

    /// The choice for evaluations that cost much; as many rows are evaluated together as there are workers.
    ///
    /// # Errors
    /// If there is no such strategy, it is for predictions only, or a parameter is given twice.
    pub fn for_evaluations(&self, workers: usize) -> anyhow::Result<StrategyChoice> {
        let kind = StrategyKind::named(self.strategy.as_deref().unwrap_or(FOR_EVALUATIONS))?;
        if kind.name == "gradient" {
            let error =
                Refusal::NotRelaxed { strategy: kind.name, got: "a program that evaluates".to_string() };
            return Err(extract::Error::from(error).into());
        }
        if kind.name == DEFAULT {
            let expected = "a strategy for evaluations that cost much";
            let error = Error::invalid("--strategy", "with --evaluator", expected, kind.name);
            return Err(error.and_then_do(format!("give {FOR_EVALUATIONS}, or another one")).into());
        }
        let mut set = self.parameters()?;
        let has_batch = |kind: &StrategyKind| kind.parameters.iter().any(|one| one.name == "batch");
        if has_batch(&kind) {
            set.entry("batch".to_string()).or_insert_with(|| workers.to_string());
        }
        // what halving is around evaluates together as well
        let of = kind.parameters.iter().find(|one| one.name == "of").map(|one| one.default);
        let inner = of.map(|default| set.get("of").map_or(default, String::as_str));
        if let Some(inner) = inner.map(StrategyKind::named).transpose()?.filter(has_batch) {
            set.entry(format!("{}.batch", inner.name)).or_insert_with(|| workers.to_string());
        }
        Ok(StrategyChoice { kind, set, evaluations: self.evaluations.map(|count| count as usize) })
    }

    fn parameters(&self) -> anyhow::Result<BTreeMap<String, String>> {
        let mut set = BTreeMap::new();
        for (name, value) in &self.set {
            if set.insert(name.clone(), value.clone()).is_some() {
                return Err(Error::invalid("--set", "parameter", "each once", format!("{name} twice")).into());
            }
        }
        Ok(set)
    }
}
