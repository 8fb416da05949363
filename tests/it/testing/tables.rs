//! Latency rows as another tool writes them.

use std::path::Path;

use extract::latency::MeasurePlan;

use super::commands::json;
use super::files::write_file;

/// The first line of a phone's rows.
pub(crate) fn phone_header(version: u64) -> String {
    format!(
        "{{\"kind\":\"latency-rows\",\"version\":{version},\"device\":{{\"name\":\"phone\"}},\
         \"engine\":{{\"engine\":\"tflite\",\"engine_version\":\"2.17\",\"threads\":4,\"dtype\":\"f32\",\"batch\":1}}}}\n"
    )
}

/// The plan to measure all layers of a space at every resolution, written as `plan.jsonl`.
pub(crate) fn plan_for(at: &Path, space: &str) -> MeasurePlan {
    let plan = "--half-width 50 --budget 16 --threads 4 --networks 0 --plan-only plan.jsonl";
    json("extract", at, &format!("measure --space {space} {plan}"));
    MeasurePlan::read(&at.join("plan.jsonl")).expect("a plan")
}

/// Writes a phone's rows for all layers of a space, with times multiplied by `factor`.
pub(crate) fn write_phone_rows(at: &Path, space: &str, name: &str, factor: f64) {
    let mut text = phone_header(2);
    for key in plan_for(at, space).layers.keys() {
        let us = factor * (10 + key.len()) as f64;
        text += &format!("{{\"layer\":\"{key}\",\"samples_us\":[{us},{us},{us},{us},{us},{us}]}}\n");
    }
    write_file(at.join(name), text);
}
