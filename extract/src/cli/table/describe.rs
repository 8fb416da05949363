//! Describes a table in words and as JSON.

use std::fmt::Write;

use extract::latency::correction::Form;
use extract::latency::fitted::Between;
use extract::latency::{Coverage, EngineFacts, LatencyTable, LatencyValidation, SpaceFit, ValidationTypical};
use serde_json::{Value, json};

fn per_cent(share: f64) -> f64 {
    100.0 * share
}

/// The batch size, if it is not one.
pub fn describe_batch(engine: &EngineFacts) -> String {
    if engine.batch == 1 { String::new() } else { format!(" of a batch of {} images", engine.batch) }
}

/// The machine's steadiness in each session, from the sentinel and the operating system.
pub fn describe_machine(table: &LatencyTable) -> String {
    let noted = table.run.get("sessions").and_then(Value::as_array).cloned().unwrap_or_default();
    let mut lines = Vec::new();
    for (id, facts) in table.sessions() {
        let mut text = format!("session   {id}");
        match (facts.sentinel_fast_us, facts.fast_share) {
            (Some(fast), Some(share)) => {
                let state = if facts.met { "" } else { ": never met undisturbed" };
                let share = per_cent(share);
                let _ =
                    write!(text, ": sentinel {fast:.1} us when undisturbed, {share:.0} % of the time{state}");
            }
            _ => text += ": no sentinel was read, so latencies are typical",
        }
        if facts.seconds > 0.0 {
            let _ = write!(text, "; {} visits in {:.0} s", facts.visits, facts.seconds);
        }
        if let Some(note) = noted.iter().find(|note| note["id"] == json!(id)) {
            text += &conditions(&note["conditions"]);
        }
        lines.push(text);
    }
    lines.join("\n")
}

/// Load, stolen time, temperature and governor over the conditions that were noted.
fn conditions(noted: &Value) -> String {
    let noted: Vec<extract::latency::Conditions> = noted
        .as_array()
        .into_iter()
        .flatten()
        .filter_map(|one| serde_json::from_value(one.clone()).ok())
        .collect();
    let mut text = String::new();
    let loads: Vec<f64> = noted.iter().filter_map(|one| one.load).collect();
    if let (Some(low), Some(high)) =
        (loads.iter().copied().reduce(f64::min), loads.iter().copied().reduce(f64::max))
    {
        let _ = write!(text, "; load {low:.1} to {high:.1}");
    }
    if let (Some(first), Some(last)) = (noted.first(), noted.last())
        && let Some(steal) = last.steal_since(first)
    {
        let _ = write!(text, ", stolen {:.1} %", per_cent(steal));
    }
    if let Some(hottest) = noted.iter().filter_map(|one| one.temperature_c).reduce(f64::max) {
        let _ = write!(text, ", at most {hottest:.0} C");
    }
    let mut governors: Vec<&str> = noted.iter().filter_map(|one| one.governor.as_deref()).collect();
    governors.dedup();
    if !governors.is_empty() {
        let _ = write!(text, ", governor {}", governors.join(", then "));
    }
    text
}

/// The errors of predictions, in words.
pub fn describe_validation(validation: &LatencyValidation, typical: Option<&ValidationTypical>) -> String {
    let mut text = format!(
        "{} sub-networks: mean error {:.1} % (of plain sums {:.1} %), {:.0} % within 5 %, {:.0} % within 10 %, Spearman {:.3}, Kendall {:.3}",
        validation.n,
        per_cent(validation.mape),
        per_cent(validation.mape_of_sums),
        per_cent(validation.within_5pct),
        per_cent(validation.within_10pct),
        validation.spearman,
        validation.kendall
    );
    if validation.unaccepted > 0 {
        let _ =
            write!(text, "; {} more do not count, for too few visits confirm them", validation.unaccepted);
    }
    let [low, high] = validation.residual_band;
    let level = per_cent(validation.band_level);
    let between = match validation.between {
        Between::Sessions => "predicted from other sessions",
        Between::OneSession => "predicted, all in one session",
    };
    let _ = write!(text, "; measured is {low:.3} to {high:.3} times {between} ({level:.0} %)");
    if let Some(repeatability) = validation.repeatability {
        let _ = write!(text, "; sessions differ by {:.1} %", per_cent(repeatability));
    }
    if let (Some(kept), Some([from, to])) = (validation.limits_kept, validation.limits_kept_interval) {
        let limits = validation.limits;
        let count = (kept * validation.limits as f64).round();
        let from = per_cent(from);
        let to = per_cent(to);
        let _ = write!(
            text,
            "; {count} of {limits} distinct searched sub-networks kept their limit ({from:.0} to {to:.0} %)"
        );
    }
    if let Some(typical) = typical {
        let _ = write!(
            text,
            "; typically {:.2} times as long, with a mean error of {:.1} %",
            typical.factor,
            per_cent(typical.mape)
        );
    }
    text
}

/// A table's corrections for the sub-networks of a space, in words.
pub fn describe_fit(fit: &SpaceFit) -> String {
    let terms = match fit.correction.form {
        Form::Sum => "the sum of layers".to_string(),
        form => format!("the sum of layers, corrected ({})", json!(form).as_str().unwrap_or_default()),
    };
    format!(
        "{}: {terms}; of sub-networks that had no part in it:\n  {}",
        fit.name,
        describe_validation(&fit.validation(), Some(&fit.validation_typical()))
    )
}

/// The table as JSON for scripts.
pub fn document(table: &LatencyTable) -> Value {
    let kind = if table.is_undisturbed() { "undisturbed" } else { "typical" };
    json!({
        "entries": table.rows().len(), "unconverged": table.unconverged(), "unaccepted": table.unaccepted(),
        "device": table.device, "engine": table.engine, "hash": table.hash(), "latency": kind,
        "sentinel": table.sentinel, "sessions": table.sessions(), "rows": table.rows(),
        "spaces": table.fits().map(|fit: &SpaceFit| {
        json!({
            "space": fit.name, "resolutions": fit.resolutions, "correction": fit.correction,
            "validation": fit.validation(), "validation_typical": fit.validation_typical(),
        })
    }).collect::<Vec<_>>(), "validation": null,
    })
}

/// The whole table in words.
pub fn describe(table: &LatencyTable, coverage: Option<&Coverage>) -> String {
    let device = &table.device;
    let engine = &table.engine;
    let mut text = format!(
        "device    {} ({}, {} {}, {} cores)\nengine    {} {}, {} threads, {}, batch {}\nprotocol  {}\nentries   {}, of which {} unconverged, {} of these too badly known to count\n",
        device.name,
        device.cpu,
        device.os,
        device.arch,
        device.cores,
        engine.engine,
        engine.engine_version,
        engine.threads,
        engine.dtype,
        engine.batch,
        table.protocol,
        table.rows().len(),
        table.unconverged(),
        table.unaccepted(),
    );
    // writing to a string cannot fail
    if let Some((name, fast)) = table.sentinel.as_ref().and_then(|own| Some((&own.name, own.fast_us?))) {
        let _ = writeln!(text, "sentinel  {fast:.3} us for {name} when nothing disturbs the machine");
    }
    let _ = writeln!(text, "{}", describe_machine(table));
    for fit in table.fits() {
        let _ = writeln!(text, "{}", describe_fit(fit));
    }
    let kind = if table.is_undisturbed() { "undisturbed us" } else { "typical us" };
    let _ = writeln!(
        text,
        "\n{kind:>14}  {:>23}  {:>10}  {:>7}  {:>9}  layer",
        "95 % interval", "typical us", "visits", "confirmed"
    );
    for (key, row) in table.rows() {
        let interval = row
            .interval_us
            .map_or_else(|| "none".to_string(), |[low, high]| format!("[{low:.3}, {high:.3}]"));
        let mark = match (row.converged, row.accepted) {
            (true, _) => "",
            (false, true) => "  (less well known than requested)",
            (false, false) => "  (too badly known to count)",
        };
        let _ = writeln!(
            text,
            "{:>14.3}  {interval:>23}  {:>10.3}  {:>7}  {:>9}  {key}{mark}",
            row.us, row.typical_us, row.visits, row.confirmed
        );
    }
    if let Some(Coverage { layers, missing }) = coverage {
        let _ = writeln!(text, "\ncovers {} of {layers} layers of the space", layers - missing.len());
        for key in missing {
            let _ = writeln!(text, "missing  {key}");
        }
    }
    text.trim_end().to_string()
}
