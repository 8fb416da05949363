//! The flags that choose a strategy.

use std::collections::BTreeMap;

use base::Error;
use extract::search::{StrategyChoice, StrategyKind};

/// The default strategy, for predictors cost nothing.
const DEFAULT: &str = "climbers";
/// Evaluations of a search by another strategy unless given.
const EVALUATIONS: usize = 60_000;
/// Latency limits that climbers search a front at, next to the requested one.
pub const FRONT_LIMITS: usize = 8;

#[derive(clap::Args)]
pub struct StrategyFlags {
    /// How to search; `extract strategies` lists the names
    #[arg(long, value_name = "NAME", default_value = DEFAULT)]
    strategy: String,
    /// A parameter of the strategy; `extract strategies NAME` lists them with their defaults
    #[arg(long, value_name = "KEY=VALUE", value_parser = parameter)]
    set: Vec<(String, String)>,
    /// Predictions after which the search ends [default: 60000, and for climbers 5000 more for each limit of a front]
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u64).range(1..))]
    evaluations: Option<u64>,
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
        let Self { strategy, set: given, evaluations } = self;
        let kind = StrategyKind::named(strategy)?;
        if kind.name == DEFAULT && given.is_empty() && evaluations.is_none() {
            return Ok(None);
        }
        let mut set = BTreeMap::new();
        for (name, value) in given {
            if set.insert(name.clone(), value.clone()).is_some() {
                return Err(Error::invalid("--set", "parameter", "each once", format!("{name} twice")).into());
            }
        }
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

    /// The strategy's name.
    pub fn name(&self) -> &str {
        &self.strategy
    }
}
