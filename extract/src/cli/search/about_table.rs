//! A search's messages about the latency table that it relies on.

use base::timing::unix_seconds;
use extract::latency::{LatencyKind, LatencyModel, LatencyTable};
use serde_json::Value;
use space::SearchSpace;

use tracing::{info, warn};

const SECONDS_PER_DAY: f64 = 86_400.0;

/// Reports the device, the table's age, and what is uncertain.
pub fn say(
    table: &LatencyTable,
    model: &LatencyModel<'_>,
    space: &SearchSpace,
    requested: LatencyKind,
    extrapolated: &[String],
) -> anyhow::Result<()> {
    let engine = &table.engine;
    let measured = format!("latencies of {}, {} {}", table.device.name, engine.engine, engine.engine_version);
    info!("{measured}, {} sessions{}", table.sessions().len(), age(table));
    if requested != model.kind() {
        info!("note: the table knows {} latencies only", model.kind());
    }
    let rows: Vec<_> = space.layers().keys().filter_map(|key| table.rows().get(key)).collect();
    let unconverged = rows.iter().filter(|row| !row.converged).count();
    let unaccepted = rows.iter().filter(|row| !row.accepted).count();
    if unconverged > 0 {
        warn!(
            "{unconverged} of {} layers of the space are known less well than requested, {unaccepted} of them too badly to count; extract measure --missing tries them again",
            rows.len()
        );
    }
    for outside in extrapolated {
        warn!("extrapolated: {outside}; the margin was not measured there");
    }
    let level = model.fit().map_or(0.95, |fit| fit.validation().upper_level);
    if level < 0.95 {
        info!(
            "note: the upper end of the latency holds with {:.0} %, for which there were sub-networks enough; measure with --limits or more --networks",
            100.0 * level
        );
    }
    Ok(())
}

/// The table's age, if it has a date.
fn age(table: &LatencyTable) -> String {
    let Some(then) = table.run.get("unix_seconds").and_then(Value::as_u64) else { return String::new() };
    let days = unix_seconds().saturating_sub(then) as f64 / SECONDS_PER_DAY;
    if days < 1.0 { ", measured today".to_string() } else { format!(", measured {days:.0} days ago") }
}
