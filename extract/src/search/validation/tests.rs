use latency::LatencyKind;
use latency::testing::made_up as made_up_table;
use rand::{Rng, SeedableRng};
use rand_chacha::ChaCha8Rng;
use space::{Encoder, SearchSpace, preset, sampler};

use super::*;
use crate::accuracy::tests::quick;
use crate::search::cost_index;

/// Validation images of a made-up data set.
const IMAGES: usize = 2000;

/// Sub-networks whose accuracy is known: what each choice gains grows ever less in sum, which a linear model cannot know.
struct World {
    encoder: Encoder,
    gains: Vec<f64>,
    /// The difficulty of each image; all sub-networks meet the same.
    hardness: Vec<f64>,
}

impl World {
    fn new(space: &SearchSpace, seed: u64) -> Self {
        let encoder = Encoder::new(space);
        let mut rng = ChaCha8Rng::seed_from_u64(seed);
        let gains = (0..encoder.len()).map(|_| rng.random_range(0.0..0.25)).collect();
        let hardness = (0..IMAGES).map(|_| rng.random_range(0.0..1.0)).collect();
        Self { encoder, gains, hardness }
    }

    fn truth(&self, arch: &Arch) -> f64 {
        let mut sum = 0.0;
        let row = self.encoder.space().row(arch).expect("of the space");
        self.encoder.of_row(&row).for_each(|feature| sum += self.gains[feature]);
        0.95 - 0.35 * (-sum).exp()
    }

    /// An image is classified right by its hardness, and by chance that each sub-network has for itself.
    fn hits(&self, arch: &Arch) -> Vec<bool> {
        let truth = self.truth(arch);
        let seed = blake3::hash(arch.to_string().as_bytes()).as_bytes()[..8].try_into().expect("8 bytes");
        let mut rng = ChaCha8Rng::seed_from_u64(u64::from_le_bytes(seed));
        self.hardness
            .iter()
            .map(|hardness: &f64| {
                let own = rng.random_range(0.0..1.0);
                if rng.random_bool(0.3) { own < truth } else { *hardness < truth }
            })
            .collect()
    }

    fn top1(&self, arch: &Arch) -> f64 {
        self.hits(arch).iter().filter(|hit| **hit).count() as f64 / IMAGES as f64
    }

    fn rows(&self, count: usize) -> AccuracyFile {
        let space = self.encoder.space();
        let mut rng = ChaCha8Rng::seed_from_u64(3);
        let archs: BTreeSet<Arch> = (0..count).map(|_| sampler::random(space, &mut rng)).collect();
        let row =
            |arch: Arch| AccuracyRow { top1: self.top1(&arch), arch, split: Split::Val, n: IMAGES as u64 };
        AccuracyFile {
            space: space.clone(),
            supernet: "abc".to_string(),
            data: "d".to_string(),
            calibration: network::eval::Calibration::default(),
            rows: archs.into_iter().map(row).collect(),
        }
    }
}

/// Calls `check` with made-up worlds, their rows and estimators, and a problem in each.
fn on_worlds(
    worlds: u64,
    share: f64,
    mut check: impl FnMut(&World, &AccuracyFile, &AccuracyEstimator, ValidationProblem<'_>),
) {
    let space = preset("tiny").expect("a preset");
    let index = cost_index(&space, &made_up_table(&space), LatencyKind::Undisturbed).expect("covered");
    let largest = index.costs(&sampler::largest(&space)).expect("legal").latency_upper_us;
    let limits = Limits::on(search::LATENCY, share * largest);
    let stop = AtomicBool::new(false);
    for seed in 0..worlds {
        let world = World::new(&space, seed);
        let rows = world.rows(100);
        let estimator = AccuracyEstimator::fit(&rows, &quick()).expect("rows");
        let config = SearchConfig { seed, candidates: 3000, front_limits: 2, ..SearchConfig::default() };
        let problem = ValidationProblem {
            index: &index,
            devices: &[],
            limits: &limits,
            config: &config,
            strategy: None,
            cheapest: None,
            least_top1: None,
            stop: &stop,
        };
        check(&world, &rows, &estimator, problem);
    }
}

fn plan(rounds: usize, rows: Option<&AccuracyFile>) -> ValidationPlan<'_> {
    ValidationPlan { candidates: 20, rounds, rows, fit: quick() }
}

fn search(problem: &ValidationProblem<'_>, estimator: &AccuracyEstimator) -> SearchReport {
    search::climb(problem.index, estimator, problem.limits, problem.config, problem.stop).expect("feasible")
}

/// Nothing on the front is at least as accurate and faster, or more accurate and as fast.
fn assert_not_dominated(report: &SearchReport) {
    let SearchReport { best, front, .. } = report;
    for other in front {
        let better = (other.accuracy() >= best.accuracy() && other.latency_ms() < best.latency_ms())
            || (other.accuracy() > best.accuracy() && other.latency_ms() <= best.latency_ms());
        assert!(!better, "{other:?} beats {best:?}");
    }
    assert_eq!(front.last().map(|last| &last.arch), Some(&best.arch));
}

#[test]
fn the_expected_accuracy_of_a_winner_is_what_it_has() {
    let mut by_predictor = 0.0;
    let mut by_count = 0.0;
    let mut by_both = 0.0;
    let mut inside = 0;
    let mut worlds = 0.0;
    on_worlds(24, 0.6, |world, _, estimator, problem| {
        let report = search(&problem, estimator);
        by_predictor += report.best.accuracy() - world.truth(&report.best.arch);
        let validated =
            search_validated(&problem, estimator, &plan(1, None), &mut |arch| Ok(Some(world.hits(arch))));
        let ValidatedSearch { report, evaluated, rounds } = validated.expect("feasible");
        assert_eq!((evaluated.len(), rounds), (20, 1));
        let archs: BTreeSet<_> = evaluated.iter().map(|evaluated| &evaluated.arch).collect();
        assert_eq!(archs.len(), 20, "distinct");
        let most = evaluated.iter().max_by(|a, b| a.top1.total_cmp(&b.top1)).expect("some");
        by_count += most.top1 - world.truth(&most.arch);
        let truth = world.truth(&report.best.arch);
        by_both += report.best.accuracy() - truth;
        let low = report.best.accuracy_low().expect("known");
        let high = report.best.accuracy_high().expect("known");
        inside += usize::from((low..=high).contains(&truth));
        assert_eq!(report.best.accuracy_from, Some(AccuracyFrom::PredictorAndValidation));
        assert_not_dominated(&report);
        worlds += 1.0;
    });
    let [by_predictor, by_count, by_both] = [by_predictor, by_count, by_both].map(|sum| 100.0 * sum / worlds);
    println!(
        "excess in points: predictor {by_predictor:.2}, count {by_count:.2}, both {by_both:.2}; {inside} inside"
    );
    assert!(by_predictor > 0.5 && by_both.abs() < 0.4 * by_predictor, "{by_predictor} {by_both}");
    assert!(by_both < by_count, "{by_both} {by_count}");
    assert!(inside >= 20, "{inside} of 24 within the interval");
}

#[test]
fn rounds_learn_and_evaluate_nothing_twice() {
    let mut first = 0.0;
    let mut last = 0.0;
    on_worlds(6, 0.6, |world, rows, estimator, problem| {
        let mut evaluated = BTreeSet::new();
        let once =
            search_validated(&problem, estimator, &plan(1, None), &mut |arch| Ok(Some(world.hits(arch))));
        first += world.truth(&once.expect("feasible").report.best.arch);
        let validated = search_validated(&problem, estimator, &plan(3, Some(rows)), &mut |arch: &Arch| {
            assert!(evaluated.insert(arch.clone()), "{arch} again");
            Ok(Some(world.hits(arch)))
        })
        .expect("feasible");
        last += world.truth(&validated.report.best.arch);
        assert_eq!((validated.evaluated.len(), validated.rounds), (60, 3));
        assert!(validated.evaluated.iter().map(|one| one.round).collect::<BTreeSet<_>>().len() == 3);
        assert!(validated.evaluated.is_sorted_by(|a, b| a.accuracy >= b.accuracy));
        assert_not_dominated(&validated.report);
        let error =
            search_validated(&problem, estimator, &plan(2, None), &mut |_| Ok(None)).expect_err("no rows");
        assert!(error.to_string().contains("--accuracy"), "{error}");
    });
    assert!(last > first - 0.006, "{last} {first}");
}

#[test]
fn predictions_above_1_keep_their_order() {
    on_worlds(3, 0.9, |world, rows, _, problem| {
        // all accuracies near 1, so that a linear model's exceed it
        let mut rows = rows.clone();
        rows.rows.iter_mut().for_each(|row| row.top1 = (0.6 + 0.46 * world.truth(&row.arch)).min(1.0));
        let estimator = AccuracyEstimator::fit(&rows, &quick()).expect("rows");
        let mut report = search(&problem, &estimator);
        assert_not_dominated(&report);
        assert!(report.top[1].accuracy() <= report.best.accuracy());
        let raw = report.best.accuracy();
        judge_by_predictor(&mut report, &estimator, None).expect("shares");
        assert_not_dominated(&report);
        assert!(raw > 1.0 && report.front.len() > 2, "{raw}: {:?}", report.front);
        let low = report.best.accuracy_low().expect("known");
        let high = report.best.accuracy_high().expect("known");
        assert!(low < report.best.accuracy() && report.best.accuracy() < high);
    });
}

#[test]
fn a_limit_on_accuracy_is_kept_by_the_lower_end() {
    on_worlds(2, 0.6, |world, _, estimator, problem| {
        let mut evaluate = |arch: &Arch| Ok(Some(world.hits(arch)));
        let free = search_validated(&problem, estimator, &plan(1, None), &mut evaluate).expect("feasible");
        let low = free.report.best.accuracy_low().expect("known");
        let kept = ValidationProblem { least_top1: Some(low), ..problem };
        let again = search_validated(&kept, estimator, &plan(1, None), &mut evaluate).expect("kept");
        assert_eq!(again.report.best, free.report.best);
        let broken = ValidationProblem {
            least_top1: Some(free.report.best.accuracy_high().expect("known")),
            ..problem
        };
        let error =
            search_validated(&broken, estimator, &plan(1, None), &mut evaluate).expect_err("none keeps it");
        assert!(matches!(&error, Error::NotAccurate { low, .. } if *low < 0.96), "{error}");
        let mut report = search(&problem, estimator);
        judge_by_predictor(&mut report, estimator, Some(0.1)).expect("kept");
        let error =
            judge_by_predictor(&mut search(&problem, estimator), estimator, Some(0.99)).expect_err("none");
        assert!(error.to_string().contains("the closest is r"), "{error}");
    });
}

#[test]
fn what_is_stopped_is_judged_by_what_was_evaluated() {
    on_worlds(1, 0.6, |world, _, estimator, problem| {
        for evaluations in [0, 1, 7] {
            let mut left = evaluations;
            let validated = search_validated(&problem, estimator, &plan(1, None), &mut |arch: &Arch| {
                left -= 1;
                Ok((left >= 0).then(|| world.hits(arch)))
            })
            .expect("feasible");
            assert!(validated.report.interrupted);
            assert_eq!(validated.evaluated.len(), evaluations as usize);
            let from = validated.report.best.accuracy_from.expect("judged");
            assert_eq!(from == AccuracyFrom::Predictor, evaluations == 0);
        }
    });
}
