//! The file of a study: a table, its metrics, goals and limits, a budget, and the strategies that compete.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use base::{Error, document, file};
use search::{Better, Fidelity, Limits, MOST_GOALS, Metric, StrategyKind};
use serde::Deserialize;
use space::{SearchSpace, preset, preset_names};

use crate::Result;
use crate::table::{Choices, Columns, MetricColumns, MetricTable, TableEstimator};

const VERSION: u32 = 1;
/// Most runs of a strategy.
const MOST_SEEDS: usize = 100_000;

/// How a study's tables and spaces are read.
pub struct Files<'a> {
    /// A table, by its name in the file.
    pub columns: &'a dyn Fn(&Path) -> Result<Columns>,
    /// A space, by its name or that of its file.
    pub space: &'a dyn Fn(&str) -> Result<SearchSpace>,
}

/// A strategy that takes part in a study.
#[derive(Clone, Debug)]
pub struct Competitor {
    /// Its name in the study.
    pub label: String,
    /// Its kind.
    pub strategy: StrategyKind,
    /// Its parameters, by name.
    pub set: BTreeMap<String, String>,
}

/// A checked problem file, with its table.
#[derive(Debug)]
pub struct ProblemFile {
    /// Its name.
    pub name: String,
    /// All combinations.
    pub table: MetricTable,
    metrics: Vec<MetricColumns>,
    price: Option<PriceForm>,
    /// The goals, the first is optimized.
    pub goals: Vec<String>,
    /// Metrics of the best row that are reported besides.
    pub report: Vec<String>,
    /// Limits on metrics.
    pub limits: Limits,
    /// The price at which a run ends.
    pub budget: f64,
    /// Number of runs of each strategy.
    pub seeds: usize,
    /// The strategies.
    pub strategies: Vec<Competitor>,
}

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct Form {
    #[serde(rename = "version")]
    _version: u32,
    name: String,
    goals: Vec<String>,
    #[serde(default)]
    report: Vec<String>,
    #[serde(default)]
    limits: BTreeMap<String, f64>,
    budget: f64,
    #[serde(default = "usual_seeds")]
    seeds: usize,
    table: TableForm,
    metrics: BTreeMap<String, MetricForm>,
    price: Option<PriceForm>,
    strategies: Vec<StrategyForm>,
}

fn usual_seeds() -> usize {
    20
}

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct TableForm {
    file: PathBuf,
    code: Option<String>,
    #[serde(default)]
    names: Vec<String>,
    columns: Option<Vec<String>>,
    space: Option<String>,
    #[serde(default)]
    resolutions: Vec<usize>,
    arch: Option<String>,
    #[serde(default)]
    join: Vec<JoinForm>,
}

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct JoinForm {
    file: PathBuf,
    on: String,
}

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct MetricForm {
    column: String,
    better: Better,
    #[serde(default = "usual_unit")]
    unit: String,
    #[serde(default)]
    lower: Vec<LowerForm>,
}

fn usual_unit() -> String {
    "1".to_string()
}

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct LowerForm {
    fidelity: f64,
    column: String,
}

#[derive(Clone, Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct PriceForm {
    column: String,
    #[serde(default = "usual_factor")]
    times: f64,
    #[serde(default = "usual_unit")]
    unit: String,
}

fn usual_factor() -> f64 {
    1.0
}

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct StrategyForm {
    name: String,
    label: Option<String>,
    #[serde(default)]
    set: BTreeMap<String, Scalar>,
}

/// A parameter's value, as a text or a number.
#[derive(Debug, Deserialize)]
#[serde(untagged)]
enum Scalar {
    Count(i64),
    Number(f64),
    Text(String),
}

impl Scalar {
    fn text(&self) -> String {
        match self {
            Self::Count(count) => count.to_string(),
            Self::Number(number) => number.to_string(),
            Self::Text(text) => text.clone(),
        }
    }
}

impl ProblemFile {
    /// Reads a file, and the tables that it names, which lie relative to it.
    ///
    /// # Errors
    /// If a file cannot be read, a field is missing, unknown or wrong, or the table lacks a combination.
    pub fn read(path: &Path) -> Result<Self> {
        let text = file::read_text(path)?;
        let folder = path.parent().unwrap_or(Path::new("."));
        let files = Files {
            columns: &|name| Columns::read(&folder.join(name)),
            space: &|name| match preset_names().any(|preset| preset == name) {
                true => Ok(preset(name)?),
                false => Ok(space::open(&folder.join(name).display().to_string())?),
            },
        };
        Self::from_toml(&path.display().to_string(), &text, &files)
    }

    /// Reads a file's text; `place` names it in messages, and `files` reads what it names.
    ///
    /// # Errors
    /// As [`ProblemFile::read`].
    pub fn from_toml(place: &str, text: &str, files: &Files<'_>) -> Result<Self> {
        let form: Form = document::read_toml(place, text, VERSION, "a search problem in TOML")?;
        form.check(place)?;
        let metrics = form.metrics.into_iter().map(|(name, metric)| metric.checked(place, &name));
        let metrics = metrics.collect::<Result<Vec<_>>>()?;
        for name in form.goals.iter().chain(&form.report).chain(form.limits.keys()) {
            if metrics.iter().all(|columns| columns.metric.name != *name) {
                let known: Vec<&str> = metrics.iter().map(|columns| columns.metric.name.as_str()).collect();
                let expected = format!("some of {}", known.join(", "));
                return Err(Error::invalid(place, "goals, report and limits", expected, name).into());
            }
        }
        let mut strategies: Vec<Competitor> = Vec::new();
        for strategy in form.strategies {
            let competitor = strategy.checked().map_err(|error| match error {
                search::Error::Base(error) => error.in_place(place).into(),
                other => other,
            })?;
            if strategies.iter().any(|other| other.label == competitor.label) {
                let got = format!("{} twice", competitor.label);
                return Err(Error::invalid(place, "strategies", "each label once", got).into());
            }
            strategies.push(competitor);
        }
        Ok(Self {
            name: form.name,
            table: form.table.read(place, files)?,
            metrics,
            price: form.price,
            goals: form.goals,
            report: form.report,
            limits: form.limits.into_iter().collect(),
            budget: form.budget,
            seeds: form.seeds,
            strategies,
        })
    }

    /// The table's metrics as an estimator.
    ///
    /// # Errors
    /// If a column is missing, or is not of numbers.
    pub fn estimator(&self) -> Result<TableEstimator<'_>> {
        let paid = |name: &str| self.goals.iter().any(|goal| goal == name) || self.limits.of(name).is_some();
        let estimator = TableEstimator::new(&self.table, &self.metrics)?.paid_for(paid);
        match &self.price {
            Some(price) => estimator.with_prices(&price.column, price.times),
            None => Ok(estimator),
        }
    }

    /// The unit of prices and of the budget.
    pub fn price_unit(&self) -> &str {
        self.price.as_ref().map_or("evaluations", |price| &price.unit)
    }

    /// The metrics, in the order of the estimator.
    pub fn metrics(&self) -> impl ExactSizeIterator<Item = &Metric> {
        self.metrics.iter().map(|columns| &columns.metric)
    }
}

impl Form {
    /// Checks the numbers.
    fn check(&self, place: &str) -> Result<()> {
        let wrong = |field: &str, expected: &str, got: &dyn std::fmt::Display| -> Result<()> {
            Err(Error::invalid(place, field, expected, got).into())
        };
        let goals = &self.goals;
        let twice = goals.iter().enumerate().find(|(at, goal)| goals[..*at].contains(goal));
        if let Some((_, goal)) = twice {
            return wrong("goals", "each once", &format!("{goal} twice"));
        }
        if !(1..=MOST_GOALS).contains(&goals.len()) {
            return wrong("goals", &format!("1 to {MOST_GOALS}"), &goals.len());
        }
        if self.strategies.is_empty() {
            return wrong("strategies", "at least one", &0);
        }
        if !(self.budget.is_finite() && self.budget > 0.0) {
            return wrong("budget", "a number above 0", &self.budget);
        }
        if !(1..=MOST_SEEDS).contains(&self.seeds) {
            return wrong("seeds", &format!("1 to {MOST_SEEDS}"), &self.seeds);
        }
        match &self.price {
            Some(price) if !(price.times.is_finite() && price.times > 0.0) => {
                wrong("price.times", "a number above 0", &price.times)
            }
            _ => Ok(()),
        }
    }
}

impl MetricForm {
    fn checked(self, place: &str, name: &str) -> Result<MetricColumns> {
        let mut lower = BTreeMap::new();
        for LowerForm { fidelity, column } in self.lower {
            let rounded = Fidelity::of_share(fidelity);
            if rounded.share() != fidelity
                || rounded == Fidelity::FULL
                || lower.insert(rounded, column).is_some()
            {
                let expected = "a share below 1 in thousandths, each once";
                let field = format!("metrics.{name}.lower.fidelity");
                return Err(Error::invalid(place, field, expected, fidelity).into());
            }
        }
        let metric = Metric::new(name, &self.unit, self.better);
        Ok(MetricColumns { metric, column: self.column, lower })
    }
}

impl StrategyForm {
    fn checked(self) -> Result<Competitor> {
        let strategy = StrategyKind::named(&self.name)?;
        let set = self.set.iter().map(|(name, value)| (name.clone(), value.text())).collect();
        Ok(Competitor { label: self.label.unwrap_or(self.name), strategy, set })
    }
}

impl TableForm {
    fn read(self, place: &str, files: &Files<'_>) -> Result<MetricTable> {
        let Self { file, code, names, columns, space, resolutions, arch, join } = self;
        let wrong = |expected: &str, got: &str| Err(Error::invalid(place, "table", expected, got).into());
        if code.is_none() && !names.is_empty() {
            return wrong("names with code only", "names without");
        }
        if space.is_none() && (arch.is_some() || !resolutions.is_empty()) {
            return wrong("arch and resolutions with space only", "them without");
        }
        let choices = match (code, columns, space) {
            (Some(column), None, None) => Choices::Code { column, names },
            (None, Some(names), None) if names.is_empty() => {
                return wrong("at least one column", "columns = []");
            }
            (None, Some(names), None) => Choices::Columns(names),
            (None, None, Some(name)) => {
                let mut space = (files.space)(&name)?;
                if !resolutions.is_empty() {
                    space = space.at_resolutions(&resolutions)?;
                }
                let column = arch.unwrap_or_else(|| "arch".to_string());
                Choices::Archs { column, space: Box::new(space) }
            }
            (None, None, None) => return wrong("one of code, columns and space", "none"),
            _ => return wrong("one of code, columns and space", "several"),
        };
        let mut all = (files.columns)(&file)?;
        for JoinForm { file, on } in &join {
            all.join(&(files.columns)(file)?, on)?;
        }
        MetricTable::new(all, &choices)
    }
}
