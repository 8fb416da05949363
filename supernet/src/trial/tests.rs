//! Trials in parts, again, and under other settings.

use super::*;
use kernels::Backend;
use space::preset;

fn trials(folder: &Path) -> AloneTrials {
    AloneTrials {
        space: preset("tiny").expect("a preset"),
        dataset: Dataset::open("digits").expect("embedded"),
        recipe: Recipe::progressive().scaled(0.02),
        start: None,
        resize: None,
        fidelity_of: FidelityOf::Steps,
        config: TrainConfig::default(),
        folder: folder.to_path_buf(),
    }
}

fn request(fidelity: f64) -> TrialRequest {
    let arch = sampler::smallest(&preset("tiny").expect("a preset"));
    TrialRequest { arch, fidelity, seed: 3 }
}

#[test]
fn a_higher_fidelity_goes_on_where_a_lower_one_ended() {
    let folder = tempfile::tempdir().expect("a folder");
    let never = AtomicBool::new(false);
    let [apart, whole] = ["apart", "whole"].map(|name| trials(&folder.path().join(name)));
    let low = apart.evaluate(&request(0.3), &never).expect("it trains").expect("not stopped");
    let high = apart.evaluate(&request(1.0), &never).expect("it trains").expect("not stopped");
    let once = whole.evaluate(&request(1.0), &never).expect("it trains").expect("not stopped");
    assert_eq!(high, once);
    let (some, all) = (low.steps.expect("trained"), high.steps.expect("trained"));
    assert!(0 < some && some < all && some == (0.3 * all as f64).ceil() as u64, "{some} {all}");
    assert!(high.loss < low.loss, "{high:?} {low:?}");
    // known results need no training, and a lower fidelity one of its own
    std::fs::remove_dir_all(apart.folder_of(&request(1.0)).join("run")).expect("it is there");
    assert_eq!(apart.evaluate(&request(0.3), &never).expect("known"), Some(low.clone()));
    assert_eq!(whole.evaluate(&request(0.3), &never).expect("it trains"), Some(low));
    assert_eq!(whole.evaluate(&request(1.0), &never).expect("known"), Some(once));
}

#[test]
fn a_lower_fidelity_may_have_fewer_images_or_smaller_ones() {
    let folder = tempfile::tempdir().expect("a folder");
    let never = AtomicBool::new(false);
    for fidelity_of in [FidelityOf::Images, FidelityOf::Resolution] {
        let trials = AloneTrials { fidelity_of, ..trials(&folder.path().join(fidelity_of.name())) };
        let low = trials.evaluate(&request(0.5), &never).expect("it trains").expect("not stopped");
        let known = trials.evaluate(&request(0.5), &never).expect("known");
        assert_eq!(known, Some(low.clone()));
        let high = trials.evaluate(&request(1.0), &never).expect("it trains").expect("not stopped");
        let (some, all) = (low.steps.expect("trained"), high.steps.expect("trained"));
        let is_right = if fidelity_of == FidelityOf::Images { some < all } else { some == all };
        assert!(is_right && low.loss != high.loss, "{fidelity_of:?}: {some} of {all} steps");
        // another kind of fidelity is another setting
        let other = AloneTrials { fidelity_of: FidelityOf::Steps, ..trials };
        let error = other.evaluate(&request(0.5), &never).expect_err("another setting").to_string();
        assert!(error.contains("fidelity: expected none, got"), "{error}");
    }
}

/// Sets the flag from another thread, so that trainings stop at any step.
#[test]
fn a_stopped_trial_ends_as_if_it_had_never_stopped() {
    let folder = tempfile::tempdir().expect("a folder");
    let never = AtomicBool::new(false);
    let [parts, whole] = ["parts", "whole"].map(|name| trials(&folder.path().join(name)));
    let once = whole.evaluate(&request(1.0), &never).expect("it trains");
    let mut stopped = 0;
    let result = loop {
        let stop = AtomicBool::new(false);
        let ended = std::thread::scope(|scope| {
            scope.spawn(|| {
                std::thread::sleep(Duration::from_millis(150 + 100 * stopped));
                stop.store(true, Ordering::Relaxed);
            });
            parts.evaluate(&request(1.0), &stop).expect("it trains")
        });
        match ended {
            Some(result) => break result,
            None => stopped += 1,
        }
    };
    assert!(stopped > 0, "never stopped");
    assert_eq!(Some(result), once);
}

#[test]
fn trials_of_other_settings_are_refused() {
    let folder = tempfile::tempdir().expect("a folder");
    let never = AtomicBool::new(false);
    let first = trials(folder.path());
    first.evaluate(&request(0.1), &never).expect("it trains");
    let other = AloneTrials { recipe: Recipe::progressive().scaled(0.03), ..trials(folder.path()) };
    let error = other.evaluate(&request(0.1), &never).expect_err("another recipe").to_string();
    assert!(
        error.contains("trial.json: recipe: expected progressive ") && error.contains("another --out"),
        "{error}"
    );
    let path = first.folder_of(&request(0.1)).join("trial.json");
    std::fs::write(&path, "{").expect("writable");
    assert!(first.evaluate(&request(0.1), &never).is_err());
}

#[test]
fn shared_weights_are_evaluated_on_a_share_of_the_images() {
    let folder = tempfile::tempdir().expect("a folder");
    let space = preset("tiny").expect("a preset");
    let dataset = Arc::new(Dataset::open("digits").expect("embedded"));
    let recipe = Recipe::progressive().scaled(0.001);
    let supernet = crate::train::train(&space, &dataset, &recipe, folder.path(), &mut ()).expect("trained");
    let dataset = supernet.see(&dataset, false).expect("it fits");
    let (calibration, backend) = (Calibration::default(), Backend::detect());
    let trials = SharedTrials { supernet, dataset, calibration, backend };
    let never = AtomicBool::new(false);
    let stopped = trials.evaluate(&request(1.0), &AtomicBool::new(true));
    assert_eq!(stopped.expect("no error"), None);
    let [some, all] = [0.25, 1.0].map(|fidelity| {
        trials.evaluate(&request(fidelity), &never).expect("evaluated").expect("not stopped")
    });
    assert_eq!((some.n, all.n), (all.n.div_ceil(4), trials.dataset.val().len()));
    let evaluator = Evaluator::new(&trials.supernet, &trials.dataset, &trials.backend);
    let known = evaluator.accuracy(&request(1.0).arch, Split::Val).expect("evaluated");
    assert_eq!((all.top1, all.steps), (known.top1(), None));
}
