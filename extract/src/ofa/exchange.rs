//! Converts latency tables of PyTorch's `ofa` to ours, and back.

use std::collections::BTreeMap;

use base::Error;
use base::statistics::NORMAL_QUARTILE;
use latency::{DeviceFacts, EngineFacts, LatencyTable, Row};
use space::{Extent, SearchSpace};

use super::table::{OfaRow, OfaTable, ofa_key};
use crate::error::Result;

/// The normal distribution's 97.5 % quantile.
const NORMAL_975: f64 = 1.959_963_984_540_054;
/// Greatest half of the mean's 95 % interval, as a share of the mean, at which a row counts as known well;
/// our own measurements aim at 0.05.
const HALF_WIDTH: f64 = 0.03;
const US_PER_MS: f64 = 1e3;
const PROTOCOL: &str = "imported from tables of PyTorch's ofa: medians are means, intervals are the mean's, 1.96 standard errors, deviations are of a normal distribution; rows that several files have are pooled";

/// Converts the tables of one device, one per resolution, to one latency table; `place` names it in messages.
/// A layer in several tables gets the mean of all runs and the deviation around it.
///
/// # Errors
/// If there are no tables, or if a number is impossible.
pub fn import(
    place: &str,
    tables: &[OfaTable],
    device: DeviceFacts,
    engine: EngineFacts,
) -> Result<LatencyTable> {
    let mut pooled: BTreeMap<String, OfaRow> = BTreeMap::new();
    for (layer, row) in tables.iter().flat_map(OfaTable::layers) {
        pooled.entry(layer.key()).and_modify(|sum| *sum = pool(sum, &row)).or_insert(row);
    }
    if pooled.is_empty() {
        return Err(Error::invalid(place, "tables", "at least one", "none").into());
    }
    let rows = pooled.into_iter().map(|(key, row)| (key, own_row(&row))).collect();
    Ok(LatencyTable::new(place, device, engine, PROTOCOL, rows)?)
}

fn pool(a: &OfaRow, b: &OfaRow) -> OfaRow {
    let na = a.count as f64;
    let nb = b.count as f64;
    let mean_ms = (na * a.mean_ms + nb * b.mean_ms) / (na + nb);
    let square = |row: &OfaRow| row.std_ms.powi(2) + (row.mean_ms - mean_ms).powi(2);
    let std_ms = ((na * square(a) + nb * square(b)) / (na + nb)).sqrt();
    OfaRow { count: a.count.saturating_add(b.count), mean_ms, std_ms }
}

fn own_row(row: &OfaRow) -> Row {
    let mean = US_PER_MS * row.mean_ms;
    let std = US_PER_MS * row.std_ms;
    let half = NORMAL_975 * std / (row.count as f64).sqrt();
    // one run is no interval
    let interval_us = (row.count > 1).then(|| {
        // a time is above 0, however little is known of it
        [(mean - half).max(1e-3 * mean), mean + half]
    });
    let narrow = row.count > 1 && half <= HALF_WIDTH * mean;
    Row {
        us: mean,
        interval_us,
        typical_us: mean,
        mad_us: NORMAL_QUARTILE * std,
        samples: usize::try_from(row.count).unwrap_or(usize::MAX),
        visits: 1,
        confirmed: 0,
        undisturbed: false,
        accepted: narrow,
        converged: narrow,
    }
}

/// A space's layers as tables of PyTorch's `ofa`, by resolution: our medians as its means.
///
/// # Errors
/// Names the first layer that the table lacks, or that such a table cannot name.
pub fn export(table: &LatencyTable, space: &SearchSpace) -> Result<BTreeMap<Extent, OfaTable>> {
    let mut tables = BTreeMap::new();
    for &resolution in space.resolutions() {
        let mut rows = BTreeMap::new();
        for layer in space.at_resolutions(&[resolution])?.layers().values() {
            let row = table.layer(layer)?;
            let mean_ms = row.us / US_PER_MS;
            let std_ms = row.mad_us / NORMAL_QUARTILE / US_PER_MS;
            rows.insert(ofa_key(layer)?, OfaRow { count: row.samples as u64, mean_ms, std_ms });
        }
        tables.insert(resolution, OfaTable::new(&format!("resolution {resolution}"), rows)?);
    }
    Ok(tables)
}

#[cfg(test)]
mod tests {
    use super::*;
    use latency::testing::{made_up, setting};
    use space::preset;

    #[test]
    fn a_table_goes_out_and_comes_back() {
        let space = preset("ofa-mbv3-w1.0").expect("a preset").at_resolutions(&[160, 224]).expect("listed");
        let table = made_up(&space);
        let tables = export(&table, &space).expect("covered");
        assert_eq!(tables.keys().copied().collect::<Vec<_>>(), [160, 224]);
        let setting = setting();
        let all: Vec<OfaTable> = tables.values().cloned().collect();
        let back = import("x", &all, setting.device, setting.engine).expect("own tables");
        assert!(back.coverage(&space).expect("a space").missing.is_empty());
        let mut shared = 0;
        for (key, row) in back.rows() {
            let own = table.rows()[key];
            assert!((row.us - own.us).abs() < 1e-5, "{key}");
            assert!((row.mad_us - own.mad_us).abs() < 1e-5, "{key}");
            // both resolutions have the last two layers
            shared += usize::from(row.samples == 2 * own.samples);
            assert!(row.samples == own.samples || row.samples == 2 * own.samples);
        }
        assert_eq!(shared, 2);
        let error = export(&table, &preset("tiny").expect("a preset")).expect_err("not covered").to_string();
        assert!(error.contains("a latency of"), "{error}");
    }

    #[test]
    fn pooled_rows_are_those_of_all_runs() {
        let runs: [&[f64]; 2] = [&[1.0, 2.0, 3.0], &[5.0, 7.0]];
        let of = |runs: &[f64]| {
            let n = runs.len() as f64;
            let mean = runs.iter().sum::<f64>() / runs.len() as f64;
            let variance = runs.iter().map(|run| (run - mean).powi(2)).sum::<f64>() / n;
            OfaRow { count: runs.len() as u64, mean_ms: mean, std_ms: variance.sqrt() }
        };
        let pooled = pool(&of(runs[0]), &of(runs[1]));
        let all = of(&runs.concat());
        assert_eq!(pooled.count, all.count);
        assert!((pooled.mean_ms - all.mean_ms).abs() < 1e-12 && (pooled.std_ms - all.std_ms).abs() < 1e-12);
        let row = own_row(&OfaRow { count: 4, mean_ms: 0.001, std_ms: 1.0 });
        assert!(row.interval_us.expect("four runs")[0] > 0.0 && !row.converged);
        assert_eq!(
            own_row(&OfaRow { count: 1, mean_ms: 1.0, std_ms: 0.0 }).interval_us,
            None,
            "one run is none"
        );
    }
}
