use std::collections::BTreeSet;

use rand::Rng;
use rand::SeedableRng;
use rand_chacha::ChaCha8Rng;
use supernet::accuracy_file::AccuracyRow;
use supernet::space::{preset, sampler};

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
    let mut row = |arch: Arch| {
        let mut sum = 0.0;
        encoder.for_each_feature(&arch, |feature| sum += gains[feature]).expect("legal");
        let jitter = noise * rng.random_range(-1.7..1.7);
        let top1 = (0.8 + sum + curve * (sum * 40.0).sin() + jitter).clamp(0.0, 1.0);
        AccuracyRow { arch, top1, split: Split::Val, n: 6000 }
    };
    let rows = archs.into_iter().map(&mut row).collect();
    AccuracyFile {
        space: space.clone(),
        supernet: "abc".to_string(),
        data: "d".to_string(),
        calibration: supernet::eval::Calibration::default(),
        rows,
    }
}

fn space() -> SearchSpace {
    preset("fashion").expect("a preset")
}

/// Quick, for tests of everything but the quality.
pub(crate) fn quick() -> FitConfig {
    let mlp = MlpConfig { width: 32, hidden: 2, epochs: 5, min_steps: 20, ..MlpConfig::default() };
    FitConfig { mlp, ..FitConfig::default() }
}

#[test]
fn held_out_rows_are_ranked_well() {
    let file = made_up(&space(), 1000, 0.0, 0.002);
    let estimator = AccuracyEstimator::fit(&file, &FitConfig::default()).expect("enough rows");
    let report = estimator.report().expect("fitted");
    assert_eq!((report.n, report.held_out), (1000, 200));
    assert!(report.kendall.value > 0.8, "{report:?}");
    assert!(report.rmse.value < 0.004, "{report:?}");
}

#[test]
fn what_does_not_add_up_needs_the_perceptron() {
    let file = made_up(&space(), 1000, 0.02, 0.0005);
    let config = FitConfig { mlp: MlpConfig { width: 100, ..MlpConfig::default() }, ..FitConfig::default() };
    let estimator = AccuracyEstimator::fit(&file, &config).expect("enough rows");
    assert_eq!(estimator.model(), Model::Mlp, "{:?}", estimator.report());
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
    for (curve, model) in [(0.0, Model::Linear), (0.02, Model::Mlp)] {
        let mut estimator =
            AccuracyEstimator::fit(&made_up(&space(), 200, curve, 0.0), &quick()).expect("rows");
        let mut active = Encoded::default();
        [[0], [1]].into_iter().for_each(|row| active.push(row));
        let rows = Rows { active, targets: vec![0.5, 0.7], len: estimator.encoder.len() };
        let choice = Choice { model, penalty: 1.0, rmse_linear: 0.0, rmse_mlp: 0.0 };
        estimator.network = fit_model(&rows, &choice, &quick()).expect("a model of the wanted kind");
        estimator.model = model;
        let Origin::Fitted(fitted) = &mut estimator.origin else { panic!("it was fitted") };
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
    let spoilt = AccuracyRow { split: Split::Test, top1: 0.0, ..file.rows[0].clone() };
    file.rows.push(spoilt);
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
