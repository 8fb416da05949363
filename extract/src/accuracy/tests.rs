use std::collections::BTreeSet;

use network::accuracy_file::{AccuracyFile, AccuracyRow};
use network::data::Split;
use rand::Rng;
use rand::SeedableRng;
use rand::seq::SliceRandom;
use rand_chacha::ChaCha8Rng;
use rayon::prelude::*;
use space::{preset, sampler};

use super::cross_validation::Recipe;
use super::fit::Rows;
use super::perceptron::Dense;
use super::*;

/// Rows of a made-up accuracy: a gain for each feature, `curve` for what does not add up, and noise.
pub(crate) fn made_up(space: &SearchSpace, count: usize, curve: f64, noise: f64) -> AccuracyFile {
    let encoder = Encoder::new(space);
    let mut rng = ChaCha8Rng::seed_from_u64(17);
    let gains: Vec<f64> = (0..encoder.len()).map(|_| rng.random_range(0.0..0.01)).collect();
    let mut archs = BTreeSet::new();
    while archs.len() < count {
        archs.insert(sampler::random(space, &mut rng));
    }
    let mut rows = Vec::with_capacity(count);
    for arch in archs {
        let row = space.row(&arch).expect("legal");
        let sum: f64 = encoder.of_row(&row).map(|feature| gains[feature]).sum();
        let jitter = noise * rng.random_range(-1.7..1.7);
        let top1 = (0.8 + sum + curve * (sum * 40.0).sin() + jitter).clamp(0.0, 1.0);
        rows.push(AccuracyRow { arch, top1, split: Split::Val, n: 6000 });
    }
    AccuracyFile {
        space: space.clone(),
        supernet: "abc".to_string(),
        data: "d".to_string(),
        calibration: network::eval::Calibration::default(),
        rows,
    }
}

fn space() -> SearchSpace {
    preset("fashion").expect("a preset")
}

/// A perceptron that was never fitted: hills and valleys, at values of no meaning.
pub(crate) fn never_fitted(space: &SearchSpace, seed: u64) -> AccuracyEstimator {
    let encoder = Encoder::new(space);
    let mut rng = ChaCha8Rng::seed_from_u64(seed);
    let mut layer = |inputs: usize, outputs: usize, scale: f32| {
        let mut draw =
            |len: usize| (0..len).map(|_| scale * rng.random_range(-1.0f32..1.0)).collect::<Vec<_>>();
        Dense { weight: draw(inputs * outputs), bias: draw(outputs) }
    };
    // as He et al. 2015 begin, three times as steep at first: choices then bend each other
    let layers =
        vec![layer(encoder.len(), 96, 1.0), layer(96, 96, 0.25), layer(96, 96, 0.25), layer(96, 1, 0.02)];
    let network = Network::new(layers, 0.7).expect("sizes fit");
    let imported = ImportedPredictor {
        kind: OfaPredictor::Tutorial,
        file: "none".to_string(),
        blake3: "none".to_string(),
        resolutions: space.resolutions().iter().map(|resolution| resolution.height).collect(),
        per_cent: false,
    };
    AccuracyEstimator::imported(encoder, network, imported)
}

/// Quick, for tests of everything but the quality.
pub(crate) fn quick() -> FitConfig {
    let mlp = MlpConfig { width: 32, hidden: 2, epochs: 5, min_steps: 20, ..MlpConfig::default() };
    FitConfig { mlp, ..FitConfig::default() }
}

#[test]
fn rows_that_had_no_part_are_ranked_well() {
    let file = made_up(&space(), 1000, 0.0, 0.002);
    let estimator = AccuracyEstimator::fit(&file, &FitConfig::default()).expect("enough rows");
    let report = estimator.report().expect("fitted");
    assert_eq!((report.n, report.folds, report.images), (1000, 5, Some(6000)));
    assert!(report.kendall.value > 0.8, "{report:?}");
    assert!(report.rmse.value < 0.004, "{report:?}");
}

#[test]
fn what_does_not_add_up_needs_the_perceptron() {
    let file = made_up(&space(), 1000, 0.02, 0.0005);
    let config = FitConfig { mlp: MlpConfig { width: 100, ..MlpConfig::default() }, ..FitConfig::default() };
    let estimator = AccuracyEstimator::fit(&file, &config).expect("enough rows");
    assert_eq!(estimator.model(), ModelKind::Mlp, "{:?}", estimator.report());
}

#[test]
fn the_same_rows_and_seed_give_the_same_bytes_at_any_thread_count() {
    let file = made_up(&space(), 100, 0.02, 0.001);
    let fit = |threads: usize, seed: u64| {
        let pool = rayon::ThreadPoolBuilder::new().num_threads(threads).build().expect("a pool");
        let config = FitConfig {
            seed,
            mlp: MlpConfig { min_steps: 20, epochs: 2, ..MlpConfig::default() },
            ..quick()
        };
        pool.install(|| {
            AccuracyEstimator::fit(&file, &config).expect("enough rows").to_bytes().expect("bytes")
        })
    };
    assert_eq!(fit(1, 3), fit(2, 3));
    assert_ne!(fit(1, 3), fit(1, 4));
}

#[test]
fn estimators_round_trip_through_a_file() {
    let folder = tempfile::tempdir().expect("a folder");
    let path = folder.path().join("estimator.safetensors");
    for (curve, model) in [(0.0, ModelKind::Linear), (0.02, ModelKind::Mlp)] {
        let mut estimator =
            AccuracyEstimator::fit(&made_up(&space(), 200, curve, 0.0), &quick()).expect("rows");
        let mut active = Encoded::default();
        [[0], [1]].into_iter().for_each(|row| active.push(row));
        let rows = Rows { active, targets: vec![0.5, 0.7], len: estimator.encoder.len() };
        let recipe = if model == ModelKind::Mlp { Recipe::Mlp } else { Recipe::Linear(1.0) };
        estimator.network = recipe.fit(&rows, &quick()).expect("a model of this kind");
        estimator.model = model;
        let EstimatorOrigin::Fitted(fitted) = &mut estimator.origin else { panic!("it was fitted") };
        fitted.report.model = model;
        estimator.write(&path).expect("writable");
        let read = AccuracyEstimator::read(&path).expect("own file");
        assert_eq!(read.to_bytes().expect("bytes"), estimator.to_bytes().expect("bytes"));
        assert_eq!((read.report(), read.supernet()), (estimator.report(), Some("abc")));
        let archs: Vec<Arch> =
            (0..50).map(|seed| sampler::random(&space(), &mut ChaCha8Rng::seed_from_u64(seed))).collect();
        assert_eq!(read.predict(&archs).expect("legal"), estimator.predict(&archs).expect("legal"));
    }
}

#[test]
fn rows_of_the_test_images_are_not_looked_at() {
    let mut file = made_up(&space(), 60, 0.0, 0.001);
    let clean = AccuracyEstimator::fit(&file, &quick()).expect("rows").to_bytes().expect("bytes");
    let spoiled = AccuracyRow { split: Split::Test, top1: 0.0, ..file.rows[0].clone() };
    file.rows.push(spoiled);
    assert_eq!(AccuracyEstimator::fit(&file, &quick()).expect("rows").to_bytes().expect("bytes"), clean);
    file.rows.iter_mut().for_each(|row| row.split = Split::Test);
    let error = AccuracyEstimator::fit(&file, &quick()).expect_err("no usable rows").to_string();
    assert!(error.contains("got 0; run supernet sample"), "{error}");
}

#[test]
fn malformed_files_are_refused() {
    let estimator = AccuracyEstimator::fit(&made_up(&space(), 100, 0.0, 0.001), &quick()).expect("rows");
    let good = estimator.to_bytes().expect("bytes");
    let header = u64::from_le_bytes(good[..8].try_into().expect("8 bytes")) as usize;
    let text = String::from_utf8(good[8..8 + header].to_vec()).expect("JSON");
    let with_text = |changed: String| {
        assert_ne!(changed, text);
        [&(changed.len() as u64).to_le_bytes()[..], changed.as_bytes(), &good[8 + header..]].concat()
    };
    let with_header = |from: &str, to: &str| with_text(text.replacen(from, to, 1));
    let mut not_finite = good.clone();
    not_finite[8 + header..12 + header].copy_from_slice(&f32::NAN.to_le_bytes());
    let features = estimator.encoder.len();
    let shape = format!("[1,{features}]");
    for (bytes, part) in [
        (Vec::new(), "format"),
        (good[..good.len() - 1].to_vec(), "format"),
        (with_header("once-for-all", "other"), "metadata"),
        (
            with_header("\\\"kind\\\":\\\"estimator\\\"", "\\\"kind\\\":\\\"x\\\""),
            "kind: expected estimator, got x",
        ),
        (with_header("\\\"version\\\":1,\\\"width", "\\\"version\\\":7,\\\"width"), "metadata"),
        (with_header("linear", "mlp"), "report.model: expected Mlp, got Linear"),
        (with_text(text.replace("model\\\":\\\"linear", "model\\\":\\\"mlp")), "number of layers"),
        (with_header(&shape, &format!("[{features},1]")), "layers.0.weight: expected F32 [1, "),
        (with_header("layers.0.weight", "layers.1.weight"), "layers.0.weight: expected a tensor"),
        (with_header("F32", "I32"), "I32"),
        (not_finite, "finite numbers"),
    ] {
        let error = AccuracyEstimator::from_bytes("x", &bytes).expect_err(part).to_string();
        assert!(error.starts_with("x: ") && error.contains(part), "{part}: {error}");
    }
}

/// The report of made-up rows after a change.
fn report_of(change: impl FnOnce(&mut Vec<AccuracyRow>)) -> FitReport {
    let mut file = made_up(&preset("tiny").expect("a preset"), 120, 0.0, 0.002);
    change(&mut file.rows);
    AccuracyEstimator::fit(&file, &quick()).expect("rows").report().expect("fitted").clone()
}

#[test]
fn what_ranks_nothing_is_refused_and_what_ranks_little_is_warned_of() {
    let sound = report_of(|_| ());
    assert_eq!((sound.trust(), sound.warning()), (Trust::Sound, None));
    sound.check_ranks("x").expect("it ranks");
    let mut passed = 0;
    for seed in 0..40 {
        let shuffled = report_of(|rows| {
            let mut top1: Vec<f64> = rows.iter().map(|row| row.top1).collect();
            rand::seq::SliceRandom::shuffle(&mut top1[..], &mut ChaCha8Rng::seed_from_u64(seed));
            rows.iter_mut().zip(top1).for_each(|(row, top1)| row.top1 = top1);
        });
        // one in forty passes by chance, and is warned of then
        if shuffled.trust() != Trust::None {
            passed += 1;
            assert_eq!(shuffled.trust(), Trust::Weak, "{shuffled:?}");
            continue;
        }
        let error = shuffled.check_ranks("x").expect_err("chance").to_string();
        assert!(error.starts_with("x: rank correlation") && error.contains("--force"), "{error}");
    }
    assert!(passed <= 4, "{passed} of 40");
    let constant = report_of(|rows| rows.iter_mut().for_each(|row| row.top1 = 0.97));
    assert_eq!(constant.trust(), Trust::None);
    let weak = FitReport { spearman: IntervalEstimate { value: 0.25, low: 0.1, high: 0.4 }, ..sound };
    assert!(weak.warning().is_some_and(|words| words.contains("weakly: Spearman 0.25 (0.10 to 0.40)")));
    weak.check_ranks("x").expect("above chance");
}

#[test]
fn the_noise_floor_is_what_images_allow() {
    let report = report_of(|_| ());
    let floor = report.noise_floor.expect("of this version");
    // accuracies near .9 on 6,000 images
    assert!((0.002..0.005).contains(&floor), "{floor}");
    let fewer = report_of(|rows| rows.iter_mut().for_each(|row| row.n = 60));
    assert!((fewer.noise_floor.expect("of this version") / floor - 10.0).abs() < 1e-6);
    assert!(fewer.variance() > 0.9 * fewer.noise_floor.expect("of this version").powi(2));
}

#[test]
fn choices_that_no_row_had_are_named() {
    let space = preset("fashion").expect("a preset");
    let whole = made_up(&space, 150, 0.0, 0.001);
    let names = |keep: &dyn Fn(&Arch) -> bool, space: &SearchSpace| {
        let rows = whole.rows.iter().filter(|row| keep(&row.arch)).cloned().collect();
        let file = AccuracyFile { rows, ..whole.clone() };
        let estimator = AccuracyEstimator::fit(&file, &quick()).expect("rows");
        let again = AccuracyEstimator::from_bytes("x", &estimator.to_bytes().expect("bytes")).expect("own");
        assert_eq!(again.unseen(space), estimator.unseen(space));
        assert_eq!(estimator.check_covers(space).is_ok(), estimator.unseen(space).is_empty());
        estimator.unseen(space)
    };
    assert!(names(&|_| true, &space).is_empty());
    let side = space.resolutions()[0];
    let one = names(&|arch| arch.resolution == side, &space);
    assert_eq!(one.len(), space.resolutions().len() - 1);
    assert_eq!(one[0], format!("resolution {}", space.resolutions()[1]));
    let only = space.at_resolutions(&[side]).expect("one of them");
    assert!(names(&|arch| arch.resolution == side, &only).is_empty(), "nothing else is searched");
    // the values of a stage's depth and of a block's kernel
    let of = |arch: &Arch, gene: &str| {
        let gene = space.genome().find(gene).expect("a gene");
        space.genome().value(&space.row(arch).expect("legal"), gene).expect("it exists").to_string()
    };
    let depth = space.genome().find("s1.depth").expect("a gene");
    let deepest = space.genome().genes()[depth].values.last().expect("a depth").to_string();
    assert!(
        names(&|arch| of(arch, "s1.depth") != deepest, &space)
            .iter()
            .eq([&format!("stage 1, depth {deepest}")])
    );
    let shallow = names(&|arch| of(arch, "s2.depth") == deepest, &space);
    assert!(shallow[0].starts_with("stage 2, depth ") && !shallow.iter().any(|name| name.contains("block")));
    let kernel = names(&|arch| of(arch, "s1.b1.kernel") != "5", &space);
    assert_eq!(kernel, ["stage 1, block 1, kernel 5"]);
}

#[test]
fn estimators_of_older_versions_are_read() {
    let estimator = AccuracyEstimator::fit(&made_up(&space(), 60, 0.0, 0.001), &quick()).expect("rows");
    let good = estimator.to_bytes().expect("bytes");
    let header = u64::from_le_bytes(good[..8].try_into().expect("8 bytes")) as usize;
    let mut outer: serde_json::Value = serde_json::from_slice(&good[8..8 + header]).expect("JSON");
    let text = outer["__metadata__"]["once-for-all"].as_str().expect("text").to_string();
    let mut document: serde_json::Value = serde_json::from_str(&text).expect("JSON");
    let interval = |value: f64| serde_json::json!({ "value": value, "low": 0.1, "high": 0.9 });
    let report = serde_json::json!({ "model": "linear", "n": 60, "held_out": 12, "split": "val",
        "rmse": interval(0.2), "spearman": interval(0.5), "kendall": interval(0.4), "inner_rmse_linear": 0.01,
        "inner_rmse_mlp": 0.02 });
    let mut read = |version: u32, change: &dyn Fn(&mut serde_json::Value)| {
        document["version"] = version.into();
        change(&mut document);
        outer["__metadata__"]["once-for-all"] = document.to_string().into();
        let front = outer.to_string();
        let bytes = [&(front.len() as u64).to_le_bytes()[..], front.as_bytes(), &good[8 + header..]].concat();
        AccuracyEstimator::from_bytes("x", &bytes).expect("an older version")
    };
    let second = read(2, &|document| {
        document["origin"] = serde_json::json!({ "fitted": { "report": report, "supernet": "abc" } });
    });
    let first = read(1, &|document| {
        document.as_object_mut().expect("an object").remove("origin");
        document["report"] = report.clone();
        document["supernet"] = "abc".into();
    });
    for old in [first, second] {
        let read = old.report().expect("fitted");
        assert_eq!((read.n, read.folds, read.noise_floor, read.rmse_linear), (60, 0, None, 0.01));
        assert_eq!((old.supernet(), read.trust(), read.expected(0.7)), (Some("abc"), Trust::Sound, 0.7));
        assert!(old.unseen(&space()).is_empty(), "not known, so nothing is refused");
        let archs = [sampler::largest(&space())];
        assert_eq!(old.predict(&archs).expect("legal"), estimator.predict(&archs).expect("legal"));
    }
}

/// Rows whose accuracies are dealt out anew say nothing; how often they are taken for an order is the level of the check.
/// The lower end of a 95 % interval is above 0 for 2.5 % of such rows if intervals are exact; `fit` promises 5 % at most.
#[test]
fn shuffled_accuracies_pass_no_more_often_than_the_level_says() {
    const RUNS: u64 = 400;
    for rows in [40, 100] {
        let file = made_up(&preset("tiny").expect("a preset"), rows, 0.0, 0.002);
        let passes = |run: &u64| {
            let mut shuffled = file.clone();
            let mut rng = ChaCha8Rng::seed_from_u64(1000 + run);
            let mut top1: Vec<f64> = shuffled.rows.iter().map(|row| row.top1).collect();
            top1.shuffle(&mut rng);
            shuffled.rows.iter_mut().zip(top1).for_each(|(row, top1)| row.top1 = top1);
            let config = FitConfig { seed: *run, ..quick() };
            let estimator = AccuracyEstimator::fit(&shuffled, &config).expect("enough rows");
            estimator.report().expect("fitted").check_ranks("x").is_ok()
        };
        let share = (0..RUNS).into_par_iter().filter(passes).count() as f64 / RUNS as f64;
        println!("{rows} rows: {share:.4} of {RUNS} shuffled files pass");
        // three standard deviations of a share of 5 %
        let error = 3.0 * (0.05 * 0.95 / RUNS as f64).sqrt();
        assert!(share <= 0.05 + error, "{rows} rows: {share}");
    }
}
