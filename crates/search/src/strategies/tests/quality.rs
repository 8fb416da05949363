//! How good what strategies find is, beside random search and the best of all.

use std::sync::atomic::AtomicBool;

use space::preset;

use super::{Devices, between, everything, started};
use crate::testing::{Counting, small};
use crate::*;

/// In 60 evaluations of 371 that keep the limit, the mean place over 20 seeds is at least twice as good as random search's.
#[test]
fn strategies_find_more_than_random_search() {
    let space = small();
    let devices = Devices::new(&space);
    let objective = SyntheticObjective::new(&space, 4);
    let counting = Counting::new(Predictor::top1(&space, &objective).expect("the same space"), usize::MAX);
    let estimators: [&dyn Estimator; 2] = [&counting, &devices.phone];
    let limits = Limits::on("macs", 4e5);
    let everything = everything(&devices, &objective);
    let kept = everything.iter().filter(|one| one.phone.macs <= 400_000);
    let merits: Vec<f32> = kept.map(|one| one.top1).collect();
    let place = |name: &str, set: &[(&str, &str)]| -> f64 {
        let of_seed = |seed: u64| {
            let problem = Problem::new(&space, &estimators, &["top1"], &limits).expect("checked");
            let problem = problem.with_seed(seed).with_budget(60.0);
            let mut strategy = started(name, set, &problem).expect("parameters");
            let outcome =
                solve(&problem, &mut *strategy, &mut (), &AtomicBool::new(false)).expect("feasible");
            let reached = outcome.best().and_then(|best| best.mean(TOP1)).expect("found");
            1 + merits.iter().filter(|merit| f64::from(**merit) > reached).count()
        };
        (0..20).map(|seed| of_seed(seed) as f64).sum::<f64>() / 20.0
    };
    let random = place("random", &[]);
    for (name, set) in [
        ("evolution", vec![]),
        ("evolution", vec![("survivors", "best"), ("population", "20")]),
        ("local", vec![]),
        ("nsga2", vec![("population", "10")]),
        ("portfolio", vec![]),
        ("reinforce", vec![("lr", "0.1")]),
        ("reinforce", vec![("policy", "lstm"), ("lr", "0.1")]),
        ("halving", vec![("rungs", "0.1,1")]),
    ] {
        let own = place(name, &set);
        println!("{name} {set:?}: mean place {own} of {}, random {random}", merits.len());
        assert!(own <= 0.5 * (random + 1.0), "{name}: {own} {random}");
    }
}

/// By derivatives alone the search comes close to the best of thousands, under each of several limits.
#[test]
fn gradient_comes_close_to_the_best() {
    let space = preset("tiny").expect("a preset");
    let devices = Devices::new(&space);
    let objective = SyntheticObjective::new(&space, 4);
    let predictor = Predictor::top1(&space, &objective).expect("the same space");
    let everything = everything(&devices, &objective);
    let estimators: [&dyn Estimator; 2] = [&predictor, &devices.phone];
    for share in [0.02, 0.2, 0.6, 1.0] {
        let most = between(everything.iter().map(|one| one.phone.macs as f64), share);
        let kept = everything.iter().filter(|one| one.phone.macs as f64 <= most);
        let merits: Vec<f32> = kept.map(|one| one.top1).collect();
        let limits = Limits::on("macs", most);
        let place = |seed: u64| {
            let problem = Problem::new(&space, &estimators, &["top1"], &limits).expect("checked");
            let problem = problem.with_seed(seed);
            let mut strategy = started("gradient", &[], &problem).expect("the defaults");
            let outcome =
                solve(&problem, &mut *strategy, &mut (), &AtomicBool::new(false)).expect("feasible");
            let best = outcome.best().and_then(|best| best.mean(TOP1)).expect("found");
            1 + merits.iter().filter(|merit| f64::from(**merit) > best).count()
        };
        let places: Vec<usize> = (0..10).map(place).collect();
        assert!(places.iter().all(|place| *place <= 10), "{share}: {places:?} of {}", merits.len());
        assert!(share == 0.2 || places == [1; 10], "{share}: {places:?} of {}", merits.len());
    }
}
