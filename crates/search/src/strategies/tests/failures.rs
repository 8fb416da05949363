//! Searches whose estimator fails for some sub-networks, or for all.

use std::collections::BTreeMap;
use std::sync::atomic::AtomicBool;

use space::GeneRow;

use super::{Devices, started};
use crate::testing::small;
use crate::*;

/// Fails for a third of the sub-networks.
struct Failing<'a>(Predictor<'a>);

impl Failing<'_> {
    fn fails(row: &GeneRow) -> bool {
        row.iter().map(|gene| u32::from(*gene)).sum::<u32>().is_multiple_of(3)
    }
}

impl Estimator for Failing<'_> {
    fn metrics(&self) -> &[Metric] {
        self.0.metrics()
    }

    fn price(&self, _row: &GeneRow, fidelity: Fidelity) -> f64 {
        fidelity.share()
    }

    fn has_fidelities(&self) -> bool {
        true
    }

    fn estimate(&self, rows: &GeneRows, fidelity: Fidelity, stop: &AtomicBool) -> Result<Vec<MetricValue>> {
        let mut values = self.0.estimate(rows, fidelity, stop)?;
        for (_, value) in rows.iter().zip(&mut values).filter(|(row, _)| Self::fails(row)) {
            *value = MetricValue::failed();
        }
        Ok(values)
    }
}

#[test]
fn what_fails_is_paid_for_and_never_found() {
    let space = small();
    let devices = Devices::new(&space);
    let objective = SyntheticObjective::new(&space, 6);
    let failing = Failing(Predictor::top1(&space, &objective).expect("the same space"));
    let estimators: [&dyn Estimator; 2] = [&failing, &devices.phone];
    let goals = ["top1", "latency@phone"];
    let limits = Limits::on("macs", 5e5).and("top1", 0.01);
    let problem = Problem::new(&space, &estimators, &goals, &limits).expect("checked").with_budget(100.0);
    for name in
        STRATEGIES.iter().map(|kind| kind.name).filter(|name| !["climbers", "gradient"].contains(name))
    {
        let mut log = Archive::default();
        let mut strategy = started(name, &[], &problem).expect("the defaults");
        let outcome = solve(&problem, &mut *strategy, &mut log, &AtomicBool::new(false)).expect("feasible");
        let found = outcome.top.iter().chain(&outcome.front);
        assert!(found.clone().count() > 1, "{name} finds nothing");
        for solution in found {
            assert!(!Failing::fails(&solution.row), "{name}: {solution:?}");
        }
        let failed = log.entries().iter().filter(|(_, _, values)| values[0].is_failed()).count();
        assert!(failed > 0, "{name}: nothing failed");
        assert!(name == "halving" || outcome.spent == outcome.count as f64, "{name}");
    }
    let everything: [&dyn Estimator; 2] = [&NeverThere(failing.metrics().to_vec()), &devices.phone];
    let kind = StrategyKind::named("portfolio").expect("known");
    let strategy = &StrategyChoice { kind, set: BTreeMap::new(), evaluations: Some(20) };
    let search = EvaluatedSearch {
        index: &devices.phone,
        devices: &[],
        estimator: everything[0],
        goals: &["top1"],
        limits: &limits,
        seed: 0,
        strategy,
        stop: &AtomicBool::new(false),
    };
    let error = search.run(&mut ()).expect_err("nothing has values").to_string();
    assert!(
        error.starts_with("none of 20 evaluated sub-networks has values that keep the limits (MACs 500K"),
        "{error}"
    );
}

/// Has no values at all.
struct NeverThere(Vec<Metric>);

impl Estimator for NeverThere {
    fn metrics(&self) -> &[Metric] {
        &self.0
    }

    fn estimate(&self, rows: &GeneRows, _: Fidelity, _: &AtomicBool) -> Result<Vec<MetricValue>> {
        Ok(vec![MetricValue::failed(); rows.len()])
    }
}
