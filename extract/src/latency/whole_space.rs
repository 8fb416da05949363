//! Measures a whole space: makes the plan, runs it and folds it into a table, without progress or a stop flag.

use std::sync::atomic::AtomicBool;

use base::timing::unix_seconds;
use latency::{Conditions, LatencyTable, Record, RowsLog, Session};
use space::SearchSpace;

use super::campaign::{MeasureContext, run_plan};
use super::engine::Engine;
use super::measure::MeasureConfig;
use super::plan_file::MeasurePlan;
use crate::error::Result;

/// Whole sub-networks of a space that are measured with its layers: half of them to fit what sums of layers miss, half to
/// judge.
pub const NETWORKS: usize = 40;

/// Measures each layer of a space, and [`NETWORKS`] whole sub-networks, with the engine's own clock; what is sampled is kept in
/// memory.
///
/// # Errors
/// If the budget ends before each layer and each sub-network was visited, or the engine fails.
pub fn measure_space(
    space: &SearchSpace,
    engine: &dyn Engine,
    config: &MeasureConfig,
) -> Result<LatencyTable> {
    let plan = MeasurePlan::new(space, &engine.describe(), config, NETWORKS, None)?;
    let mut log = RowsLog::in_memory(plan.setting(&engine.device(), engine));
    log.push(Record::Session(Session { unix_seconds: unix_seconds(), conditions: Conditions::now() }))?;
    let mut stopwatch = engine.stopwatch();
    let mut bench = MeasureContext { engine, stopwatch: &mut *stopwatch, conditions: Conditions::now };
    let campaign = run_plan(&plan, &mut bench, &mut log, &mut |_| (), &AtomicBool::new(false))?;
    let unmeasured = campaign.unmeasured_layers + campaign.unmeasured_networks;
    if unmeasured > 0 {
        let got = format!("{unmeasured} of {} not visited", plan.layers.len() + plan.networks.len());
        let expected = "all visited within the budget";
        let error = base::Error::invalid("measuring", "layers and sub-networks", expected, got);
        return Err(error.and_then_do("give it a longer budget").into());
    }
    Ok(LatencyTable::from_rows("measuring", log.rows(), plan.half_width, Some(space))?)
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;
    use crate::latency::{NativeEngine, measure_network};
    use kernels::Backend;
    use space::{preset, sampler};

    fn config(budget: u64) -> MeasureConfig {
        let budget = Duration::from_millis(budget);
        MeasureConfig { budget, spread: 0.0, most_visits: 2, ..MeasureConfig::default() }
    }

    #[test]
    fn a_space_and_a_network_are_measured_or_the_budget_is_named() {
        let space = preset("tiny").expect("a preset");
        let engine = NativeEngine::new(&Backend::detect(), 1, 1);
        let error = measure_space(&space, &engine, &config(0)).expect_err("no time").to_string();
        assert!(error.contains("not visited; give it a longer budget"), "{error}");
        let table = measure_space(&space, &engine, &config(60_000)).expect("measured");
        assert_eq!(table.rows().len(), space.layers().len());
        let largest = sampler::largest(&space);
        assert!(table.latency(&space, &largest).expect("all its layers").us > 0.0);
        let measured = |budget| measure_network(&table, &space, &largest, &engine, &config(budget));
        let network = measured(60_000).expect("the same engine");
        assert!(network.arch == largest && network.took.us > 0.0 && network.predicted_us > 0.0);
        let error = measured(0).expect_err("no time").to_string();
        assert!(error.contains("a visit within the budget"), "{error}");
    }
}
