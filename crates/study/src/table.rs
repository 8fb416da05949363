//! A search problem as a table: one row for each combination of choices, with its metrics.
//!
//! Such a problem declares its choices itself: each is a column, or a position of a code such as `421211`. The values of
//! a choice are those that the column has. Or the rows are the sub-networks of a space, each by its text.

use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::path::Path;
use std::sync::atomic::AtomicBool;

use base::Error;
use num_bigint::BigUint;
use search::{Estimator, Fidelity, GeneRows, Metric, MetricValue};
use space::genome::Declaring;
use space::{Arch, Dimension, GeneRow, Genome, Index, SearchSpace};

use crate::Result;

/// Most combinations of a table.
const MOST_ROWS: usize = 1_000_000;
/// What to do with a table that lacks rows.
const INCOMPLETE: &str =
    "a problem needs the values of every combination of its choices; fit an estimator to fewer rows";
/// Joins several values of one cell, such as those of several seeds; the value is their mean.
const JOINS: char = ';';

/// A table's columns as text, by name.
#[derive(Clone, Debug)]
pub struct Columns {
    place: String,
    names: Vec<String>,
    cells: Vec<Vec<String>>,
}

impl Columns {
    /// Reads comma-separated values with a header; `place` names them in messages.
    ///
    /// # Errors
    /// If they are no such text, a line has another number of cells than the header, or a name stands twice.
    pub fn from_bytes(place: &str, bytes: &[u8]) -> Result<Self> {
        let unreadable =
            |error: csv::Error| Error::invalid(place, "text", "comma-separated values with a header", error);
        let mut reader = csv::Reader::from_reader(bytes);
        let header = reader.headers().map_err(unreadable)?;
        let names: Vec<String> = header.iter().map(|name| name.trim().to_string()).collect();
        if let Some(twice) = names.iter().enumerate().find(|(at, name)| names[..*at].contains(name)) {
            return Err(
                Error::invalid(place, "header", "each name once", format!("{} twice", twice.1)).into()
            );
        }
        let mut cells = vec![Vec::new(); names.len()];
        for record in reader.records() {
            let record = record.map_err(unreadable)?;
            for (column, cell) in cells.iter_mut().zip(record.iter()) {
                column.push(cell.trim().to_string());
            }
        }
        Ok(Self { place: place.to_string(), names, cells })
    }

    /// Reads a file.
    ///
    /// # Errors
    /// If it cannot be read, and as [`Columns::from_bytes`].
    pub fn read(path: &Path) -> Result<Self> {
        Self::from_bytes(&path.display().to_string(), &base::file::read(path)?)
    }

    /// Number of lines without the header.
    pub fn len(&self) -> usize {
        self.cells.first().map_or(0, Vec::len)
    }

    /// Whether there are no lines.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// A column by name.
    ///
    /// # Errors
    /// If there is none of that name.
    pub fn of(&self, name: &str) -> Result<&[String]> {
        let place = self.names.iter().position(|own| own == name);
        let refused =
            || Error::invalid(&self.place, "column", format!("one of {}", self.names.join(", ")), name);
        Ok(&self.cells[place.ok_or_else(refused)?])
    }

    /// A column of numbers; several in one cell are averaged.
    ///
    /// # Errors
    /// If there is none of that name, or a cell is no finite number: names its line.
    pub fn numbers(&self, name: &str) -> Result<Vec<f64>> {
        let number = |(line, cell): (usize, &String)| {
            let parts: Option<Vec<f64>> = cell.split(JOINS).map(|part| part.trim().parse().ok()).collect();
            let mean = parts.map(|parts| parts.iter().sum::<f64>() / parts.len() as f64);
            mean.filter(|mean| mean.is_finite()).ok_or_else(|| {
                let place = format!("{}, line {}", self.place, line + 2);
                Error::invalid(place, name, "a number", cell).into()
            })
        };
        self.of(name)?.iter().enumerate().map(number).collect()
    }

    /// Adds the columns of another table, matched by a column that both have; columns that are there already stay.
    ///
    /// # Errors
    /// If one lacks the column, the other has a key twice, or lacks the key of a line.
    pub fn join(&mut self, other: &Self, on: &str) -> Result<()> {
        let mut lines = HashMap::new();
        for (line, key) in other.of(on)?.iter().enumerate() {
            if lines.insert(key.as_str(), line).is_some() {
                return Err(Error::invalid(&other.place, on, "each key once", format!("{key} twice")).into());
            }
        }
        let mut order = Vec::with_capacity(self.len());
        for key in self.of(on)? {
            let found = lines.get(key.as_str()).copied();
            let refused = || Error::invalid(&other.place, on, format!("a line of {key}"), "none");
            order.push(found.ok_or_else(refused)?);
        }
        for (name, cells) in other.names.iter().zip(&other.cells) {
            if !self.names.contains(name) {
                self.names.push(name.clone());
                self.cells.push(order.iter().map(|line| cells[*line].clone()).collect());
            }
        }
        Ok(())
    }
}

/// Where the choices of a line stand.
#[derive(Clone, Debug)]
pub enum Choices {
    /// Each character of a column is one, with these names or numbers.
    Code {
        /// The column.
        column: String,
        /// A name for each character's place; numbers if empty.
        names: Vec<String>,
    },
    /// Each of these columns is one.
    Columns(Vec<String>),
    /// A column has sub-networks of a space, as text.
    Archs {
        /// The column.
        column: String,
        /// The space.
        space: Box<SearchSpace>,
    },
}

/// What a row's values are called.
#[derive(Clone, Debug)]
enum Labels {
    /// The characters of a code: the text of each value of each gene.
    Code(Vec<Vec<String>>),
    /// Columns, as for a code.
    Columns(Vec<Vec<String>>),
    /// The sub-networks of a space.
    Archs(Box<SearchSpace>),
}

/// The line of each combination.
#[derive(Clone, Debug)]
enum Lines {
    /// By its number: values as digits, the first the highest, with these sizes.
    ByNumber(Vec<usize>, Vec<u32>),
    /// By its row.
    ByRow(HashMap<Vec<Index>, u32>),
}

/// A table whose lines are all combinations of its choices, or all sub-networks of a space.
#[derive(Clone, Debug)]
pub struct MetricTable {
    columns: Columns,
    genome: Genome,
    labels: Labels,
    lines: Lines,
}

impl MetricTable {
    /// Checks that the lines are all combinations of the choices' values, or all sub-networks, each once.
    ///
    /// # Errors
    /// If a combination is missing or there twice, or there are none.
    pub fn new(columns: Columns, choices: &Choices) -> Result<Self> {
        match choices {
            Choices::Code { column, names } => {
                let (names, cells) = cells_of_code(&columns, column, names)?;
                Self::of_cells(columns, &names, &cells, Labels::Code)
            }
            Choices::Columns(names) => {
                let cells: Vec<Vec<String>> =
                    names.iter().map(|name| Ok(columns.of(name)?.to_vec())).collect::<Result<_>>()?;
                Self::of_cells(columns, names, &cells, Labels::Columns)
            }
            Choices::Archs { column, space } => Self::of_archs(columns, column, space),
        }
    }

    /// The table of a space's sub-networks, each on one line.
    fn of_archs(columns: Columns, column: &str, space: &SearchSpace) -> Result<Self> {
        let place = columns.place.clone();
        let count = space.subnetworks();
        if count > BigUint::from(MOST_ROWS) {
            let expected = format!("one of at most {MOST_ROWS} sub-networks");
            return Err(
                Error::invalid(&place, "space", expected, format!("{} of {count}", space.name())).into()
            );
        }
        let mut lines = HashMap::with_capacity(columns.len());
        for (line, text) in columns.of(column)?.iter().enumerate() {
            let place = format!("{place}, line {}", line + 2);
            let arch: Arch = text.parse().map_err(|error: Error| error.in_place(&place))?;
            let row = space.row(&arch).map_err(|error| error.in_place(&place))?;
            if let Some(before) = lines.insert(row, line as u32) {
                let got = format!("that of line {} again", before + 2);
                return Err(Error::invalid(place, column, "each sub-network once", got).into());
            }
        }
        if let Some(row) = space.genome().all().iter().find(|row| !lines.contains_key(*row)) {
            let expected = format!("all {count} of {}", space.name());
            let got = format!("{}, without {}", lines.len(), space.arch(row));
            return Err(Error::invalid(&place, "sub-networks", expected, got).and_then_do(INCOMPLETE).into());
        }
        let genome = space.genome().clone();
        Ok(Self {
            columns,
            genome,
            labels: Labels::Archs(Box::new(space.clone())),
            lines: Lines::ByRow(lines),
        })
    }

    /// The table of all combinations of the values that the cells of each choice have.
    fn of_cells(
        columns: Columns,
        names: &[String],
        cells: &[Vec<String>],
        labeled: fn(Vec<Vec<String>>) -> Labels,
    ) -> Result<Self> {
        let place = columns.place.clone();
        let labels: Vec<Vec<String>> = cells.iter().map(|cells| values_of(cells)).collect();
        if labels.is_empty() || columns.is_empty() {
            let expected = "at least one choice and one line";
            let got = format!("{} choices and {} lines", labels.len(), columns.len());
            return Err(Error::invalid(&place, "choices", expected, got).into());
        }
        let count = labels.iter().try_fold(1usize, |count, values| count.checked_mul(values.len()));
        let count = count.filter(|count| *count <= MOST_ROWS).ok_or_else(|| {
            let sizes: Vec<String> = labels.iter().map(|values| values.len().to_string()).collect();
            let expected = format!("at most {MOST_ROWS} combinations");
            Error::invalid(&place, "choices", expected, sizes.join(" x "))
        })?;
        let mut lines = vec![u32::MAX; count];
        for line in 0..columns.len() {
            let digits = labels.iter().zip(cells).map(|(labels, cells)| {
                (labels.len(), labels.iter().position(|label| *label == cells[line]).expect("listed"))
            });
            let number = digits.fold(0, |number, (size, digit)| number * size + digit);
            if lines[number] != u32::MAX {
                let got = format!("that of line {} again", lines[number] + 2);
                let place = format!("{place}, line {}", line + 2);
                return Err(Error::invalid(place, "combination", "each once", got).into());
            }
            lines[number] = line as u32;
        }
        let known = lines.iter().filter(|line| **line != u32::MAX).count();
        if known < count {
            let error = Error::invalid(&place, "combinations", format!("all {count}"), known);
            return Err(error.and_then_do(INCOMPLETE).into());
        }
        let genome = declared(names, &labels, &place)?;
        let sizes = labels.iter().map(Vec::len).collect();
        Ok(Self { columns, genome, labels: labeled(labels), lines: Lines::ByNumber(sizes, lines) })
    }

    /// The columns.
    pub fn columns(&self) -> &Columns {
        &self.columns
    }

    /// The list of choices.
    pub fn genome(&self) -> &Genome {
        &self.genome
    }

    /// The line of a row's values.
    pub fn line(&self, row: &GeneRow) -> usize {
        let line = match &self.lines {
            Lines::ByNumber(sizes, lines) => {
                let digits = row.iter().zip(sizes);
                lines[digits.fold(0, |number, (value, size)| number * size + usize::from(*value))]
            }
            Lines::ByRow(lines) => lines[row],
        };
        line as usize
    }

    /// A row as its table has it: a code, a sub-network, or each choice by name.
    pub fn text(&self, row: &GeneRow) -> String {
        let label = |(value, labels): (&Index, &Vec<String>)| labels[usize::from(*value)].clone();
        match &self.labels {
            Labels::Archs(space) => space.arch(row).to_string(),
            Labels::Code(labels) => row.iter().zip(labels).map(label).collect(),
            Labels::Columns(labels) => {
                let names = self.genome.genes().iter().map(|gene| gene.name.as_str());
                let labels = row.iter().zip(labels).map(label);
                names.zip(labels).map(|(name, label)| format!("{name}={label}")).collect::<Vec<_>>().join(" ")
            }
        }
    }
}

/// The choices' names, and the text of each on each line, of a column of codes.
fn cells_of_code(
    columns: &Columns,
    column: &str,
    names: &[String],
) -> Result<(Vec<String>, Vec<Vec<String>>)> {
    let codes = columns.of(column)?;
    let length = codes.first().map_or(0, |code| code.chars().count());
    let place = |line: usize| format!("{}, line {}", columns.place, line + 2);
    if let Some(line) = codes.iter().position(|code| code.chars().count() != length) {
        let expected = format!("{length} characters, as on the first line");
        return Err(Error::invalid(place(line), column, expected, &codes[line]).into());
    }
    if !names.is_empty() && names.len() != length {
        let expected = format!("{length}, one for each character of {column}");
        return Err(Error::invalid(&columns.place, "names", expected, names.len()).into());
    }
    let numbers = (1..=length).map(|number| number.to_string()).collect();
    let mut cells = vec![Vec::with_capacity(codes.len()); length];
    for code in codes {
        cells.iter_mut().zip(code.chars()).for_each(|(cells, own)| cells.push(own.to_string()));
    }
    Ok((if names.is_empty() { numbers } else { names.to_vec() }, cells))
}

/// The distinct values of a choice: numbers by size, others by their letters.
fn values_of(cells: &[String]) -> Vec<String> {
    let mut values: Vec<String> = cells.iter().cloned().collect::<BTreeSet<_>>().into_iter().collect();
    let numbers: Option<Vec<f64>> = values.iter().map(|value| value.parse().ok()).collect();
    if numbers.is_some_and(|numbers| numbers.iter().all(|number: &f64| number.is_finite())) {
        let number = |value: &String| value.parse::<f64>().unwrap_or_default();
        values.sort_by(|a, b| number(a).total_cmp(&number(b)));
    }
    values
}

fn declared(names: &[String], labels: &[Vec<String>], place: &str) -> Result<Genome> {
    let mut declaring = Declaring::new();
    for (at, (name, labels)) in names.iter().zip(labels).enumerate() {
        if names[..at].contains(name) || labels.len() >= usize::from(Index::MAX) {
            let expected = format!("names once, and fewer than {} values", Index::MAX);
            return Err(Error::invalid(place, "choices", expected, name).into());
        }
        let values: Vec<usize> = (0..labels.len()).collect();
        declaring.choice(name.clone(), String::new(), Dimension::named("choice"), &values, None);
    }
    Ok(declaring.finish())
}

/// A metric's columns.
#[derive(Clone, Debug)]
pub struct MetricColumns {
    /// The metric.
    pub metric: Metric,
    /// The column of its values.
    pub column: String,
    /// The columns of its values at lower fidelities.
    pub lower: BTreeMap<Fidelity, String>,
}

/// The values of one metric, by line.
struct Values {
    full: Vec<f64>,
    /// Rising by fidelity.
    lower: Vec<(Fidelity, Vec<f64>)>,
}

impl Values {
    /// The greatest fidelity that is not above this one, of none the least, with its values.
    fn at(&self, fidelity: Fidelity) -> (Fidelity, &[f64]) {
        let lower = self.lower.iter().rev().find(|(own, _)| *own <= fidelity).or(self.lower.first());
        match lower.filter(|_| fidelity != Fidelity::FULL) {
            Some((own, values)) => (*own, values),
            None => (Fidelity::FULL, &self.full),
        }
    }
}

/// A table's metrics as an estimator.
pub struct TableEstimator<'a> {
    table: &'a MetricTable,
    metrics: Vec<Metric>,
    values: Vec<Values>,
    /// The price of each line at full fidelity.
    prices: Vec<f64>,
    /// Metrics that only a report reads; they cost nothing.
    free: Vec<bool>,
}

impl<'a> TableEstimator<'a> {
    /// Reads the columns of metrics; each estimate costs 1.
    ///
    /// # Errors
    /// If a column is missing, or is not of numbers.
    pub fn new(table: &'a MetricTable, metrics: &[MetricColumns]) -> Result<Self> {
        let mut values = Vec::with_capacity(metrics.len());
        for MetricColumns { column, lower, .. } in metrics {
            let of =
                |(fidelity, column): (&Fidelity, &String)| Ok((*fidelity, table.columns.numbers(column)?));
            let lower = lower.iter().map(of).collect::<Result<_>>()?;
            values.push(Values { full: table.columns.numbers(column)?, lower });
        }
        let free = vec![false; metrics.len()];
        let metrics = metrics.iter().map(|columns| columns.metric.clone()).collect();
        Ok(Self { table, metrics, values, prices: vec![1.0; table.columns.len()], free })
    }

    /// The estimator whose price is that of some metrics; others cost nothing.
    #[must_use]
    pub fn paid_for(mut self, paid: impl Fn(&str) -> bool) -> Self {
        self.free = self.metrics.iter().map(|metric| !paid(&metric.name)).collect();
        self
    }

    /// The fidelity that a request gets: the greatest of all metrics that are paid for.
    fn delivered(&self, fidelity: Fidelity) -> Fidelity {
        let paid = self.values.iter().zip(&self.free).filter(|(_, free)| !**free);
        paid.map(|(values, _)| values.at(fidelity).0).max().unwrap_or(fidelity)
    }

    /// The estimator with the prices of a column, times a factor.
    ///
    /// # Errors
    /// If the column is missing or has a number that is not above 0.
    pub fn with_prices(mut self, column: &str, times: f64) -> Result<Self> {
        self.prices = self.table.columns.numbers(column)?.into_iter().map(|price| price * times).collect();
        match self.prices.iter().position(|price| !(price.is_finite() && *price > 0.0)) {
            Some(line) => {
                let place = format!("{}, line {}", self.table.columns.place, line + 2);
                Err(Error::invalid(place, column, "a price above 0", self.prices[line]).into())
            }
            None => Ok(self),
        }
    }

    /// The value of a metric for a row, at full fidelity.
    pub fn value(&self, row: &GeneRow, metric: usize) -> f64 {
        self.values[metric].full[self.table.line(row)]
    }
}

impl Estimator for TableEstimator<'_> {
    fn metrics(&self) -> &[Metric] {
        &self.metrics
    }

    fn price(&self, row: &GeneRow, fidelity: Fidelity) -> f64 {
        self.prices[self.table.line(row)] * self.delivered(fidelity).share()
    }

    fn has_fidelities(&self) -> bool {
        self.delivered(Fidelity::of_share(0.0)) < Fidelity::FULL
    }

    fn estimate(
        &self,
        rows: &GeneRows,
        fidelity: Fidelity,
        _stop: &AtomicBool,
    ) -> search::Result<Vec<MetricValue>> {
        let mut found = Vec::with_capacity(rows.len() * self.values.len());
        for row in rows.iter() {
            let line = self.table.line(row);
            found.extend(self.values.iter().map(|values| MetricValue::expected(values.at(fidelity).1[line])));
        }
        Ok(found)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use search::Better;

    fn columns(text: &str) -> Columns {
        Columns::from_bytes("t.csv", text.as_bytes()).expect("a table")
    }

    fn by_code() -> Choices {
        Choices::Code { column: "code".to_string(), names: Vec::new() }
    }

    #[test]
    fn a_code_is_a_choice_for_each_character() {
        let table =
            MetricTable::new(columns("code,top1\n0a,1\n1a,2;4\n0b,5\n1b,6\n"), &by_code()).expect("whole");
        assert_eq!(table.genome().count().to_string(), "4");
        let texts: Vec<String> = table.genome().all().iter().map(|row| table.text(row)).collect();
        assert_eq!(texts, ["0a", "0b", "1a", "1b"]);
        let metric = Metric::new("top1", "share", Better::Higher);
        let columns = MetricColumns { metric, column: "top1".to_string(), lower: BTreeMap::new() };
        let estimator = TableEstimator::new(&table, &[columns]).expect("numbers");
        let values: Vec<f64> = table.genome().all().iter().map(|row| estimator.value(row, 0)).collect();
        assert_eq!(values, [1.0, 5.0, 3.0, 6.0], "several values are averaged");
    }

    #[test]
    fn columns_are_choices_and_numbers_are_in_order() {
        let table = columns("size,kind,ms\n10,x,1\n9,x,2\n10,y,3\n9,y,4\n");
        let choices = Choices::Columns(vec!["size".to_string(), "kind".to_string()]);
        let table = MetricTable::new(table, &choices).expect("whole");
        let texts: Vec<String> = table.genome().all().iter().map(|row| table.text(row)).collect();
        assert_eq!(texts, ["size=9 kind=x", "size=9 kind=y", "size=10 kind=x", "size=10 kind=y"]);
    }

    #[test]
    fn rows_may_be_the_sub_networks_of_a_space() {
        let space = Box::new(space::preset("tiny").expect("a preset"));
        let resolution = space.greatest_resolution();
        let mut kernels = std::collections::BTreeMap::new();
        kernels.insert("kernel".to_string(), 3);
        kernels.insert("expand".to_string(), 3);
        let space = Box::new(space.restricted(&kernels).at_resolutions(&[resolution]).expect("its own"));
        let rows = space.genome().all();
        assert!(rows.len() > 2, "{}", rows.len());
        let lines: Vec<String> =
            rows.iter().rev().enumerate().map(|(at, row)| format!("\"{}\",{at}", space.arch(row))).collect();
        let of = |lines: &[String]| {
            let choices = Choices::Archs { column: "arch".to_string(), space: space.clone() };
            MetricTable::new(columns(&format!("arch,x\n{}\n", lines.join("\n"))), &choices)
        };
        let table = of(&lines).expect("whole");
        for (place, row) in rows.iter().enumerate() {
            assert_eq!(table.line(row), rows.len() - 1 - place);
            assert_eq!(table.text(row), space.arch(row).to_string());
        }
        let error = of(&lines[1..]).expect_err("one is missing").to_string();
        assert!(error.contains("sub-networks: expected all") && error.contains(", without r"), "{error}");
        let error = of(&[&lines[..], &lines[..1]].concat()).expect_err("one is there twice").to_string();
        assert!(error.contains("each sub-network once, got that of line 2 again"), "{error}");
    }

    #[test]
    fn a_lower_fidelity_has_its_own_column_and_price() {
        let table =
            MetricTable::new(columns("code,a,b,s\n0,1,5,100\n1,2,6,200\n"), &by_code()).expect("whole");
        let metric = Metric::new("top1", "share", Better::Higher);
        let lower = BTreeMap::from([(Fidelity::of_share(0.1), "a".to_string())]);
        let columns = MetricColumns { metric, column: "b".to_string(), lower };
        let estimator = TableEstimator::new(&table, &[columns]).expect("numbers");
        let estimator = estimator.with_prices("s", 0.5).expect("above 0");
        assert!(estimator.has_fidelities());
        let mut rows = GeneRows::new(1);
        rows.push(&[1]);
        let stop = AtomicBool::new(false);
        // each pays for what it gets
        for (share, value, price) in [(1.0, 6.0, 100.0), (0.5, 2.0, 10.0), (0.05, 2.0, 10.0)] {
            let fidelity = Fidelity::of_share(share);
            let found = estimator.estimate(&rows, fidelity, &stop).expect("known");
            assert_eq!(found, [MetricValue::expected(value)]);
            assert_eq!(estimator.price(&[1], fidelity), price);
        }
    }

    #[test]
    fn tables_join_by_a_key() {
        let mut left = columns("index,code\n1,0\n2,1\n");
        left.join(&columns("ms,index\n7,2\n8,1\n9,3\n"), "index").expect("all keys");
        assert_eq!(left.numbers("ms").expect("joined"), [8.0, 7.0]);
        for (other, part) in [
            ("ms,index\n7,2\n", "expected a line of 1, got none"),
            ("ms,index\n7,2\n8,2\n", "expected each key once, got 2 twice"),
            ("ms,key\n7,2\n", "column: expected one of ms, key, got index"),
        ] {
            let error = left.clone().join(&columns(other), "index").expect_err(part).to_string();
            assert!(error.contains(part), "{error}");
        }
    }

    #[test]
    fn what_is_no_whole_table_is_refused() {
        for (text, part) in [
            ("code,x\n00,1\n01,2\n10,3\n", "combinations: expected all 4, got 3"),
            ("code,x\n0,1\n0,2\n", "line 3: combination: expected each once, got that of line 2 again"),
            ("code,x\n0,1\n00,2\n", "line 3: code: expected 1 characters"),
            ("kode,x\n0,1\n", "column: expected one of kode, x, got code"),
        ] {
            let error = MetricTable::new(columns(text), &by_code()).expect_err(part).to_string();
            assert!(error.contains(part), "{part}: {error}");
        }
        for (text, part) in
            [("a,b\n1\n", "comma-separated values"), ("a,a\n1,2\n", "each name once, got a twice")]
        {
            let error = Columns::from_bytes("t.csv", text.as_bytes()).expect_err(part).to_string();
            assert!(error.contains(part), "{part}: {error}");
        }
        let error = columns("x\n1\none\n").numbers("x").expect_err("a word").to_string();
        assert!(error.contains("t.csv, line 3: x: expected a number, got one"), "{error}");
    }
}
