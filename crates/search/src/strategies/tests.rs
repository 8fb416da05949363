//! Compares every strategy with all sub-networks of a space, under one limit or several, whole and in parts.

mod failures;
mod quality;

use std::collections::HashMap;
use std::sync::atomic::AtomicBool;

use latency::testing::made_up;
use latency::{LatencyTable, Row as TableRow};
use space::{Arch, Index, SearchSpace, preset};

use crate::solve::{Proof, Scored, Strategy, View};
use crate::testing::{Counting, all, index_of, small};
use crate::*;

/// The costs of a space on two devices: an ordinary one, and one on which big layers are often the fast ones.
struct Devices {
    phone: CostIndex,
    watch: CostIndex,
}

impl Devices {
    fn new(space: &SearchSpace) -> Self {
        let table = made_up(space);
        let phone = index_of(space, &table).of_device("phone");
        let rows = table
            .rows()
            .iter()
            .map(|(key, row): (&String, &TableRow)| {
                let byte = f64::from(blake3::hash(key.as_bytes()).as_bytes()[3]);
                let us = 1e3 / row.us.powf(0.3 + byte / 512.0);
                (key.clone(), TableRow { us, interval_us: Some([us, 1.02 * us]), ..*row })
            })
            .collect();
        let device = table.device.clone();
        let engine = table.engine.clone();
        let table = LatencyTable::new("watch.json", device, engine, "none", rows).expect("checked numbers");
        Self { phone, watch: index_of(space, &table).of_device("watch").latency_alone() }
    }
}

/// All sub-networks with their metrics, by no search.
struct Known {
    arch: Arch,
    top1: f32,
    phone: Costs,
    watch: Costs,
}

fn everything(devices: &Devices, objective: &dyn Objective) -> Vec<Known> {
    let archs = all(&devices.phone);
    let values = objective.predict(&archs).expect("legal");
    archs
        .into_iter()
        .zip(values)
        .map(|(arch, top1): (Arch, f32)| Known {
            phone: devices.phone.costs(&arch).expect("legal"),
            watch: devices.watch.costs(&arch).expect("legal"),
            arch,
            top1,
        })
        .collect()
}

/// An amount at a share between the least and the greatest.
fn between(values: impl Iterator<Item = f64> + Clone, share: f64) -> f64 {
    let least = values.clone().fold(f64::INFINITY, f64::min);
    least + share * (values.fold(0.0, f64::max) - least)
}

fn climbers_on(problem: &Problem<'_>) -> Result<Outcome> {
    let mut climbers = Climbers::new(problem, &SearchConfig { candidates: 6000, ..SearchConfig::default() })?;
    solve(problem, &mut climbers, &mut (), &AtomicBool::new(false))
}

#[test]
fn two_latencies_are_limited_at_once() {
    let space = small();
    let devices = Devices::new(&space);
    let objective = SyntheticObjective::new(&space, 3);
    let predictor = Predictor::top1(&space, &objective).expect("the same space");
    let everything = everything(&devices, &objective);
    let mut feasible = 0;
    for (phone, watch) in [(0.2, 0.8), (0.5, 0.5), (0.8, 0.2), (0.4, 0.3), (1.0, 1.0)] {
        let most_phone = between(everything.iter().map(|one| one.phone.latency_upper_us), phone);
        let most_watch = between(everything.iter().map(|one| one.watch.latency_upper_us), watch);
        let limits = Limits::from([("latency@phone", most_phone), ("latency@watch", most_watch)]);
        let limits = limits.and("macs", 5e6);
        let kept: Vec<&Known> = everything
            .iter()
            .filter(|one: &&Known| {
                one.phone.latency_upper_us <= most_phone
                    && one.watch.latency_upper_us <= most_watch
                    && one.phone.macs <= 5_000_000
            })
            .collect();
        let estimators: [&dyn Estimator; 3] = [&predictor, &devices.phone, &devices.watch];
        let problem =
            Problem::new(&space, &estimators, &["top1", "latency@phone"], &limits).expect("checked");
        for seed in 0..4 {
            let outcome = climbers_on(&problem.clone().with_seed(seed));
            let Ok(outcome) = outcome else {
                assert!(kept.is_empty(), "{phone} {watch}: {outcome:?}");
                continue;
            };
            feasible += 1;
            let best = kept
                .iter()
                .max_by(|a: &&&Known, b: &&&Known| {
                    a.top1.total_cmp(&b.top1).then(b.phone.latency_us.total_cmp(&a.phone.latency_us))
                })
                .expect("a search found one");
            let arch = |solution: &Solution| space.arch(&solution.row);
            assert_eq!(arch(outcome.best().expect("found")), best.arch, "{phone} {watch} {seed}");
            for solution in outcome.top.iter().chain(&outcome.front) {
                assert!(kept.iter().any(|one| one.arch == arch(solution)), "past a limit: {solution:?}");
            }
        }
    }
    assert!(feasible >= 8, "{feasible} of 20");
}

#[test]
fn what_cannot_be_kept_on_one_of_two_devices_is_proved() {
    let space = small();
    let devices = Devices::new(&space);
    let objective = SyntheticObjective::new(&space, 3);
    let predictor = Predictor::top1(&space, &objective).expect("the same space");
    let everything = everything(&devices, &objective);
    let least = |of: fn(&Known) -> f64| everything.iter().map(of).fold(f64::INFINITY, f64::min);
    let least_phone = least(|one| one.phone.latency_upper_us);
    let least_watch = least(|one| one.watch.latency_upper_us);
    let estimators: [&dyn Estimator; 3] = [&predictor, &devices.phone, &devices.watch];
    let problem = |limits: &Limits| Problem::new(&space, &estimators, &["top1"], limits).expect("checked");

    let alone = problem(&Limits::on("latency@watch", 0.99 * least_watch));
    let stop = AtomicBool::new(false);
    let by_all = [climbers_on(&alone), solve(&alone, &mut Random::new(&alone, 64), &mut (), &stop)];
    for refused in by_all {
        let Err(Error::Infeasible { nearest, .. }) = refused else { panic!("{refused:?}") };
        assert_eq!((nearest.quantity.as_str(), nearest.value), ("latency@watch", least_watch));
    }
    let phone = 1.01 * least_phone;
    let watch = 1.01 * least_watch;
    let together = Limits::from([("latency@phone", phone), ("latency@watch", watch)]);
    let factor = |one: &Known| (one.phone.latency_upper_us / phone).max(one.watch.latency_upper_us / watch);
    let best = everything.iter().map(factor).fold(f64::INFINITY, f64::min);
    assert!(best > 1.0, "the devices want the same");
    match climbers_on(&problem(&together)) {
        Err(Error::InfeasibleTogether { factor, nearest, weights, .. }) => {
            assert!(factor > 1.0 && factor <= best + 1e-9 && best <= nearest.value + 1e-9);
            assert!(weights.contains("latency@phone") && weights.contains("latency@watch"), "{weights}");
        }
        other => panic!("{other:?}"),
    }
}

#[test]
fn the_fastest_is_found_that_is_accurate_enough() {
    let space = small();
    let devices = Devices::new(&space);
    let objective = SyntheticObjective::new(&space, 5);
    let predictor = Predictor::top1(&space, &objective).expect("the same space");
    let everything = everything(&devices, &objective);
    let estimators: [&dyn Estimator; 3] = [&predictor, &devices.phone, &devices.watch];
    for share in [0.05, 0.3, 0.5, 0.7, 0.95] {
        for (goal, most) in
            [("latency@phone", f64::INFINITY), ("latency@watch", f64::INFINITY), ("macs", 0.6)]
        {
            let watch = everything.iter().map(|one| one.watch.latency_upper_us);
            let most = if most.is_finite() { between(watch, most) } else { most };
            let least = between(everything.iter().map(|one| f64::from(one.top1)), share);
            let keeps = |one: &&Known| f64::from(one.top1) >= least && one.watch.latency_upper_us <= most;
            let best = everything
                .iter()
                .filter(keeps)
                .map(|one: &Known| match goal {
                    "latency@phone" => one.phone.latency_us,
                    "latency@watch" => one.watch.latency_us,
                    _ => one.phone.macs as f64,
                })
                .fold(f64::INFINITY, f64::min);
            let mut limits = Limits::on("top1", least);
            if most.is_finite() {
                limits = limits.and("latency@watch", most);
            }
            let problem = Problem::new(&space, &estimators, &[goal, "top1"], &limits).expect("checked");
            let outcome = climbers_on(&problem).expect("feasible in costs");
            let found = outcome.best().map(|best| best.mean(goal).expect("known"));
            assert!(found.unwrap_or(f64::INFINITY) <= best + 1e-6 * best, "{goal} {share}: {found:?} {best}");
            assert_eq!(found.is_none(), best.is_infinite());
            for solution in outcome.top.iter().chain(&outcome.front) {
                let arch = space.arch(&solution.row);
                let one = everything.iter().find(|one| one.arch == arch).expect("of the space");
                assert!(keeps(&one), "past a limit: {solution:?}");
            }
        }
    }
    let problem = Problem::new(&space, &estimators, &["macs"], &Limits::on("top1", 0.999)).expect("checked");
    let outcome = climbers_on(&problem).expect("costs are not limited");
    assert!(outcome.best().is_none() && outcome.count > 0, "nothing is so accurate");
}

#[test]
fn costs_alone_are_a_problem_too() {
    let space = small();
    let devices = Devices::new(&space);
    let objective = SyntheticObjective::new(&space, 5);
    let everything = everything(&devices, &objective);
    let most = between(everything.iter().map(|one| one.watch.latency_upper_us), 0.3);
    let kept = everything.iter().filter(|one| one.watch.latency_upper_us <= most);
    let least = kept.map(|one| one.phone.latency_us).fold(f64::INFINITY, f64::min);
    let estimators: [&dyn Estimator; 2] = [&devices.phone, &devices.watch];
    let limits = Limits::on("latency@watch", most);
    let problem = Problem::new(&space, &estimators, &["latency@phone"], &limits).expect("checked");
    let outcome = climbers_on(&problem).expect("feasible");
    let found = outcome.best().expect("found").mean("latency@phone").expect("known");
    assert!((found - least).abs() <= 1e-6, "{found} {least}");
    assert_eq!(outcome.spent, 0.0, "sums cost nothing");
}

/// Requests all sub-networks, which proves the best.
struct Everything {
    left: Vec<Vec<Index>>,
}

impl Strategy for Everything {
    fn ask(&mut self, _view: &View<'_>, rows: &mut GeneRows) -> Result<Fidelity> {
        let from = self.left.len().saturating_sub(100);
        self.left.drain(from..).for_each(|row| {
            rows.push(&row);
        });
        Ok(Fidelity::FULL)
    }

    fn tell(&mut self, _view: &View<'_>, _scored: &Scored<'_>) -> Result<()> {
        Ok(())
    }

    fn finished(&self) -> Option<Proof> {
        self.left.is_empty().then_some(Proof::Best)
    }
}

#[test]
fn what_looks_at_everything_is_never_beaten() {
    let space = small();
    let devices = Devices::new(&space);
    let objective = SyntheticObjective::new(&space, 1);
    let predictor = Predictor::top1(&space, &objective).expect("the same space");
    let everything = everything(&devices, &objective);
    let most = between(everything.iter().map(|one| one.phone.latency_upper_us), 0.4);
    let estimators: [&dyn Estimator; 2] = [&predictor, &devices.phone];
    let goals = ["top1", "latency@phone"];
    let problem = Problem::new(&space, &estimators, &goals, &Limits::on("latency@phone", most));
    let problem = problem.expect("checked");
    let stop = AtomicBool::new(false);
    let solved = |strategy: &mut dyn Strategy| solve(&problem, strategy, &mut (), &stop).expect("feasible");
    let exact = solved(&mut Everything { left: space.genome().all() });
    assert_eq!((exact.ended, exact.count), (Ended::Finished(Proof::Best), 800));
    let kept = everything.iter().filter(|one| one.phone.latency_upper_us <= most);
    let best = kept.clone().map(|one| one.top1).fold(0.0, f32::max);
    let top1 = |outcome: &Outcome| outcome.best().expect("found").mean(TOP1).expect("estimated");
    assert_eq!(top1(&exact), f64::from(best));
    let mut front: Vec<&Arch> = kept
        .clone()
        .filter(|one: &&Known| {
            !kept.clone().any(|other: &Known| {
                let faster = other.phone.latency_us <= one.phone.latency_us;
                faster && other.top1 >= one.top1 && (other.phone, other.top1) != (one.phone, one.top1)
            })
        })
        .map(|one| &one.arch)
        .collect();
    let found: Vec<Arch> = exact.front.iter().map(|solution| space.arch(&solution.row)).collect();
    let mut found: Vec<&Arch> = found.iter().collect();
    front.sort();
    found.sort();
    assert_eq!(found, front);
    let climbed = climbers_on(&problem).expect("feasible");
    let drawn = solved(&mut Random::new(&problem, 200));
    for other in [&climbed, &drawn] {
        assert!(top1(other) <= top1(&exact));
    }
    assert_eq!(climbed.best(), exact.best());
    assert!(
        drawn.trace.windows(2).all(|pair| pair[0].count < pair[1].count && pair[0].merit < pair[1].merit)
    );
}

/// Each strategy by name, on a problem.
fn strategy<'a>(name: &str, problem: &'a Problem<'a>) -> Box<dyn Strategy + 'a> {
    let config =
        SearchConfig { candidates: 2500, front_limits: 2, front_candidates: 300, ..SearchConfig::default() };
    match name {
        "climbers" => Box::new(Climbers::new(problem, &config).expect("feasible")),
        "random" => Box::new(Random::new(problem, 900)),
        _ => started(name, &[], problem).expect("defaults"),
    }
}

/// A strategy with parameters.
fn started<'a>(name: &str, set: &[(&str, &str)], problem: &'a Problem<'a>) -> Result<Box<dyn Strategy + 'a>> {
    let set = set.iter().map(|(name, value)| (name.to_string(), value.to_string())).collect();
    StrategyKind::named(name)?.start(problem, &set)
}

#[test]
fn in_parts_and_at_any_number_of_threads_it_is_the_same_search() {
    let space = preset("tiny").expect("a preset");
    let devices = Devices::new(&space);
    let objective = SyntheticObjective::new(&space, 2);
    let counting = |most| Counting::new(Predictor::top1(&space, &objective).expect("the same space"), most);
    let limits = Limits::on("macs", 1.5e6);
    let run = |name: &str, most: usize, budget: f64, log: &mut Archive| {
        let counting = counting(most);
        let estimators: [&dyn Estimator; 2] = [&counting, &devices.phone];
        let goals = ["top1", "latency@phone"];
        let problem = Problem::new(&space, &estimators, &goals, &limits).expect("checked");
        let problem = problem.with_seed(4).with_budget(budget);
        let stop = AtomicBool::new(false);
        let outcome = solve(&problem, &mut *strategy(name, &problem), log, &stop).expect("feasible");
        (outcome, counting.estimated())
    };
    for name in STRATEGIES.iter().map(|kind| kind.name) {
        // those that have no end of their own
        let all = if ["climbers", "random", "exact"].contains(&name) { f64::INFINITY } else { 600.0 };
        let mut log = Archive::default();
        let (whole, estimated) = run(name, usize::MAX, all, &mut log);
        assert_eq!((whole.count, log.entries().len()), (estimated, estimated));
        for threads in [1, 2, 5] {
            let pool = rayon::ThreadPoolBuilder::new().num_threads(threads).build().expect("a pool");
            let again = pool.install(|| run(name, usize::MAX, all, &mut Archive::default()));
            assert_eq!(again.0, whole, "{name}, {threads} threads");
        }
        // the budget ends it, then an interruption in the middle of a batch, then nothing
        let mut parts = Archive::default();
        let (first, of_first) = run(name, usize::MAX, 100.0, &mut parts);
        assert_eq!(first.ended, Ended::Budget);
        assert!(first.spent >= 100.0 && first.count == of_first && of_first < estimated);
        let (second, of_second) = run(name, 51, all, &mut parts);
        assert_eq!((second.ended, of_second), (Ended::Stopped, 51));
        assert_eq!(second.count, of_first + 51);
        let (last, of_last) = run(name, usize::MAX, all, &mut parts);
        assert_eq!(last, whole, "{name}");
        assert_eq!(of_first + of_second + of_last, estimated, "nothing is estimated twice");
        assert_eq!(parts, log);
    }
}

/// Evaluates all at low fidelity, and the best of these at full fidelity.
struct Halving {
    rows: Vec<Vec<Index>>,
    fidelity: Fidelity,
    done: bool,
}

impl Strategy for Halving {
    fn ask(&mut self, _view: &View<'_>, rows: &mut GeneRows) -> Result<Fidelity> {
        self.rows.iter().for_each(|row| {
            rows.push(row);
        });
        Ok(self.fidelity)
    }

    fn tell(&mut self, view: &View<'_>, scored: &Scored<'_>) -> Result<()> {
        self.done = self.fidelity == Fidelity::FULL;
        assert_eq!(view.best().is_empty(), !self.done, "what was looked at a little is no result");
        let mut order: Vec<usize> = (0..scored.rows.len()).filter(|row| scored.keeps(*row)).collect();
        order.sort_by(|a, b| scored.merits(*b)[0].total_cmp(&scored.merits(*a)[0]));
        self.rows = order.iter().take(10).map(|row| scored.rows.get(*row).to_vec()).collect();
        self.fidelity = Fidelity::FULL;
        Ok(())
    }

    fn finished(&self) -> Option<Proof> {
        self.done.then_some(Proof::None)
    }
}

#[test]
fn a_strategy_may_look_less_closely_first() {
    let space = small();
    let devices = Devices::new(&space);
    let objective = SyntheticObjective::new(&space, 1);
    let inner = Predictor::top1(&space, &objective).expect("the same space");
    let counting = Counting::new(inner, usize::MAX);
    let estimators: [&dyn Estimator; 2] = [&counting, &devices.phone];
    let problem = Problem::new(&space, &estimators, &["top1"], &Limits::on("macs", 4e5)).expect("checked");
    let fidelity = Fidelity::of_share(0.1);
    let mut halving = Halving { rows: space.genome().all(), fidelity, done: false };
    let outcome = solve(&problem, &mut halving, &mut (), &AtomicBool::new(false)).expect("feasible");
    assert!((outcome.spent - (80.0 + 10.0)).abs() < 1e-9, "{}", outcome.spent);
    let everything = everything(&devices, &objective);
    let kept = everything.iter().filter(|one| one.phone.macs <= 400_000);
    let best = kept.map(|one| one.top1).fold(0.0, f32::max);
    assert_eq!(outcome.best().expect("found").mean(TOP1), Some(f64::from(best)));
}

#[test]
fn problems_that_cannot_be_are_refused() {
    let space = small();
    let devices = Devices::new(&space);
    let objective = SyntheticObjective::new(&space, 1);
    let predictor = Predictor::top1(&space, &objective).expect("the same space");
    let tiny = preset("tiny").expect("a preset");
    let other = Devices::new(&tiny);
    let phone = &devices.phone as &dyn Estimator;
    let watch = &devices.watch as &dyn Estimator;
    let top1 = &predictor as &dyn Estimator;
    let none = Limits::default();
    for (estimators, goals, limits, part) in [
        (vec![top1, phone, phone], vec!["top1"], none.clone(), "latency@phone from two"),
        (vec![top1, phone], vec!["top5"], none.clone(), "metric: expected one of top1, latency@phone, macs"),
        (vec![top1, phone], vec!["top1"], Limits::on("latency@watch", 1.0), "got latency@watch"),
        (vec![top1, phone], vec![], none.clone(), "goals"),
        (
            vec![top1, phone, watch],
            vec!["top1", "macs", "params", "memory", "latency@watch"],
            none.clone(),
            "goals: expected one to optimize, and 3 more at most",
        ),
        (vec![top1, phone], vec!["top1"], Limits::on("macs", -1.0), "a number above 0"),
        (vec![top1, &other.phone], vec!["top1"], none.clone(), "costs: expected those of tiny"),
    ] {
        let Err(error) = Problem::new(&space, &estimators, &goals, &limits) else { panic!("{part}") };
        assert!(error.to_string().contains(part), "{part}: {error}");
    }
    for (estimators, goals, part) in [
        (vec![top1], vec!["top1"], "climbers: estimators: expected one that has costs"),
        (vec![top1, phone], vec!["top1", "macs", "params"], "climbers: goals: expected at most two, got 3"),
    ] {
        let problem = Problem::new(&space, &estimators, &goals, &Limits::default()).expect("checked");
        let error = climbers_on(&problem).expect_err("not for climbers").to_string();
        assert!(error.contains(part), "{part}: {error}");
    }
    let wrong = Limits::from([("top1", 0.1)]);
    let problem = Problem::new(&space, &[top1, phone], &["top1"], &wrong).expect("checked");
    let error = climbers_on(&problem).expect_err("not for climbers").to_string();
    assert!(error.contains("top1 at least 0.1"), "{error}");
}

/// What is left of a problem of two devices and four limits.
struct Limited {
    problem_limits: Limits,
    goals: [&'static str; 2],
}

/// Limits that a random sub-network keeps, with a little room.
fn limited(known: &Known, room: f64) -> Limited {
    let Known { phone, watch, .. } = known;
    let problem_limits = Limits::from([
        ("latency@phone", room * phone.latency_upper_us),
        ("latency@watch", room * watch.latency_upper_us),
        ("macs", room * phone.macs as f64),
        ("memory", room * phone.peak_activation_bytes as f64),
    ]);
    Limited { problem_limits, goals: ["top1", "latency@phone"] }
}

#[test]
fn exact_is_never_beaten_and_visits_a_part_and_others_keep_four_limits() {
    let space = preset("tiny").expect("a preset");
    let devices = Devices::new(&space);
    let objective = SyntheticObjective::new(&space, 7);
    let predictor = Predictor::top1(&space, &objective).expect("the same space");
    let everything = everything(&devices, &objective);
    let estimators: [&dyn Estimator; 3] = [&predictor, &devices.phone, &devices.watch];
    let stop = AtomicBool::new(false);
    let lower = Counting::new(Predictor::top1(&space, &objective).expect("the same space"), usize::MAX);
    let with_lower: [&dyn Estimator; 3] = [&lower, &devices.phone, &devices.watch];
    let by_arch: HashMap<&Arch, &Known> = everything.iter().map(|one| (&one.arch, one)).collect();
    for (place, room) in [(11, 1.1), (5_000, 1.3), (12_345, 1.02), (16_000, 2.0)] {
        let Limited { problem_limits: limits, goals } = limited(&everything[place], room);
        let problem =
            Problem::new(&space, &estimators, &goals, &limits).expect("checked").with_budget(1500.0);
        let keeps = |one: &&Known| {
            let of = |name: &str| limits.of(name).expect("limited");
            one.phone.latency_upper_us <= of("latency@phone")
                && one.watch.latency_upper_us <= of("latency@watch")
                && one.phone.macs as f64 <= of("macs")
                && one.phone.peak_activation_bytes as f64 <= of("memory")
        };
        let best = everything.iter().filter(keeps).map(|one| one.top1).fold(0.0, f32::max);
        let with_lower =
            Problem::new(&space, &with_lower, &goals, &limits).expect("checked").with_budget(1500.0);
        let unlimited = problem.clone().with_budget(f64::INFINITY);
        let mut exact = started("exact", &[], &unlimited).expect("no parameters");
        let found = solve(&unlimited, &mut *exact, &mut (), &stop).expect("feasible");
        assert_eq!(found.ended, Ended::Finished(Proof::Best));
        assert_eq!(found.best().expect("found").mean(TOP1), Some(f64::from(best)), "{limits:?}");
        assert!(found.count < everything.len() / 2, "{} of {}", found.count, everything.len());
        for name in STRATEGIES.iter().map(|kind| kind.name) {
            let problem = if name == "halving" { &with_lower } else { &problem };
            let outcome = solve(problem, &mut *strategy(name, problem), &mut (), &stop).expect("feasible");
            for solution in outcome.top.iter().chain(&outcome.front) {
                let one = by_arch[&space.arch(&solution.row)];
                assert!(keeps(&one), "{name}: past a limit: {solution:?}");
            }
            let reached = outcome.best().and_then(|best| best.mean(TOP1)).unwrap_or(0.0);
            assert!(reached <= f64::from(best), "{name} beats the best");
        }
    }
}

#[test]
fn a_bound_holds_wherever_exact_is_interrupted() {
    let space = small();
    let devices = Devices::new(&space);
    let objective = SyntheticObjective::new(&space, 7);
    let predictor = Predictor::top1(&space, &objective).expect("the same space");
    let estimators: [&dyn Estimator; 2] = [&predictor, &devices.phone];
    let limits = Limits::on("macs", 3.5e5);
    let problem = Problem::new(&space, &estimators, &["top1"], &limits).expect("checked");
    let all = everything(&devices, &objective);
    let best = all.iter().filter(|one| one.phone.macs <= 350_000).map(|one| one.top1).fold(0.0, f32::max);
    let stop = AtomicBool::new(false);
    for evaluations in 1..60 {
        let problem = problem.clone().with_budget(f64::from(evaluations));
        let mut exact = started("exact", &[], &problem).expect("no parameters");
        let outcome = solve(&problem, &mut *exact, &mut (), &stop).expect("feasible");
        let reached = outcome.best().and_then(|best| best.mean(TOP1)).unwrap_or(f64::NEG_INFINITY);
        let bound = outcome.bound.unwrap_or(f64::NEG_INFINITY);
        assert!(reached.max(bound) >= f64::from(best), "{evaluations}: {reached} {bound} {best}");
    }
}

#[test]
fn costs_alone_are_minimized_exactly() {
    let space = small();
    let devices = Devices::new(&space);
    let objective = SyntheticObjective::new(&space, 5);
    let all = everything(&devices, &objective);
    let most = between(all.iter().map(|one| one.watch.latency_upper_us), 0.3);
    let estimators: [&dyn Estimator; 2] = [&devices.phone, &devices.watch];
    let limits = Limits::on("latency@watch", most);
    let problem = Problem::new(&space, &estimators, &["latency@phone"], &limits).expect("checked");
    let mut exact = started("exact", &[], &problem).expect("no parameters");
    let outcome = solve(&problem, &mut *exact, &mut (), &AtomicBool::new(false)).expect("feasible");
    let kept = all.iter().filter(|one| one.watch.latency_upper_us <= most);
    let least = kept.map(|one| one.phone.latency_us).fold(f64::INFINITY, f64::min);
    let found = outcome.best().expect("found").mean("latency@phone").expect("known");
    assert!(
        (found - least).abs() < 1e-9 && outcome.count < all.len() / 2,
        "{found} {least} {}",
        outcome.count
    );
}

#[test]
fn parameters_are_checked() {
    let space = small();
    let devices = Devices::new(&space);
    let objective = SyntheticObjective::new(&space, 1);
    let predictor = Predictor::top1(&space, &objective).expect("the same space");
    let whole: [&dyn Estimator; 2] = [&predictor, &devices.phone];
    let whole = Problem::new(&space, &whole, &["top1"], &Limits::default()).expect("checked");
    let error = started("halving", &[], &whole).err().expect("no lower fidelity").to_string();
    assert!(error.contains("strategy halving: estimator: expected one that evaluates at lower"), "{error}");
    let counting = Counting::new(Predictor::top1(&space, &objective).expect("the same space"), usize::MAX);
    let estimators: [&dyn Estimator; 2] = [&counting, &devices.phone];
    let problem = Problem::new(&space, &estimators, &["top1"], &Limits::default()).expect("checked");
    for (name, set, part) in [
        ("annealing", vec![], "strategy: expected one of climbers, evolution, exact, gradient"),
        ("evolution", vec![("size", "3")], "strategy evolution: parameters: expected survivors, population"),
        (
            "evolution",
            vec![("population", "0")],
            "population: expected a whole number from 1 to 1000000, got 0",
        ),
        ("local", vec![("starts", "1e12")], "starts: expected a whole number from 1 to 1000000, got 1e12"),
        ("evolution", vec![("survivors", "all")], "survivors: expected youngest or best, got all"),
        ("exact", vec![("x", "1")], "strategy exact: parameters: expected branches, got x=1"),
        ("nsga2", vec![("crossover", "1.5")], "crossover: expected a share from 0 to 1, got 1.5"),
        ("reinforce", vec![("lr", "-1")], "lr: expected a number above 0, got -1"),
        ("reinforce", vec![("momentum", "1")], "momentum: expected a share below 1, got 1"),
        ("halving", vec![("of", "halving")], "of: expected a strategy that needs no full evaluations"),
        (
            "halving",
            vec![("rungs", "1,0.5")],
            "rungs: expected at least two rising shares in thousandths, the last 1",
        ),
        ("halving", vec![("rungs", "0.5,7")], "rungs: expected at least two rising shares"),
        ("halving", vec![("rungs", "0,0.5,1")], "rungs: expected at least two rising shares"),
        (
            "halving",
            vec![("of", "local"), ("random.draws", "3")],
            "random.draws: expected a parameter of local",
        ),
        (
            "halving",
            vec![("of", "random"), ("random.size", "3")],
            "strategy random: parameters: expected draws, batch",
        ),
    ] {
        let error = started(name, &set, &problem).err().expect(part).to_string();
        assert!(error.contains(part), "{part}: {error}");
    }
    for kind in STRATEGIES {
        let defaults: Vec<(&str, &str)> = kind.parameters.iter().map(|one| (one.name, one.default)).collect();
        started(kind.name, &defaults, &problem).expect("the defaults are what they say");
    }
    let inner = [("of", "evolution"), ("evolution.population", "5"), ("rungs", "0.5,1")];
    started("halving", &inner, &problem).expect("parameters of both");
}

/// Killed at 50 random moments and resumed, each strategy ends as if it had never stopped.
#[test]
fn a_kill_at_any_moment_changes_nothing() {
    let space = small();
    let devices = Devices::new(&space);
    let objective = SyntheticObjective::new(&space, 2);
    let limits = Limits::on("macs", 5e5);
    let run = |name: &str, most: usize, log: &mut Archive| {
        let counting = Counting::new(Predictor::top1(&space, &objective).expect("the same space"), most);
        let estimators: [&dyn Estimator; 2] = [&counting, &devices.phone];
        let goals = ["top1", "latency@phone"];
        let problem = Problem::new(&space, &estimators, &goals, &limits).expect("checked").with_seed(9);
        let problem = problem.with_budget(if name == "climbers" { f64::INFINITY } else { 150.0 });
        let set: &[(&str, &str)] = if name == "climbers" { &[("candidates", "300")] } else { &[] };
        let mut strategy = started(name, set, &problem).expect("parameters");
        solve(&problem, &mut *strategy, log, &AtomicBool::new(false)).expect("feasible")
    };
    let mut state = 1u64;
    for name in STRATEGIES.iter().map(|kind| kind.name) {
        let mut log = Archive::default();
        let whole = run(name, usize::MAX, &mut log);
        for _ in 0..50 {
            state = state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
            let most = 1 + (state >> 33) as usize % (log.entries().len() - 1);
            let mut parts = Archive::default();
            assert_eq!(run(name, most, &mut parts).ended, Ended::Stopped, "{name} {most}");
            assert_eq!(run(name, usize::MAX, &mut parts), whole, "{name} {most}");
            assert_eq!(parts, log, "{name} {most}");
        }
    }
}
