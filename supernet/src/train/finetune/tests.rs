use std::collections::BTreeMap;
use std::path::Path;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use base::random::rng_for;
use kernels::Backend;
use network::checkpoint::{self, DescribedWeights, Interface, Kind, Training};
use network::elastic::SharedWeights;
use space::{SearchSpace, preset};

use super::*;
use crate::train::testing::{digits, model, tiny};

fn teacher(at: &Path, space: &SearchSpace) -> Supernet {
    let weights = SharedWeights::new(space, &mut rng_for("weights", 9, &[])).expect("weights");
    let training = Training {
        tool: String::new(),
        backend: String::new(),
        seed: 0,
        data: digits().identity(),
        plan: String::new(),
        step: 0,
        teacher: None,
        start: None,
        validation: None,
    };
    let path = at.join("teacher.safetensors");
    let described = DescribedWeights { space, interface: &Interface::default(), weights: &weights };
    checkpoint::write_weights(&path, Kind::Teacher, described, training).expect("written");
    Supernet::read(&path).expect("read")
}

/// Six steps of a large batch.
fn settings() -> FineTuneSettings {
    FineTuneSettings { epochs: 1.5, batch: 256, lr: Some(0.1), ..FineTuneSettings::default() }
}

fn tuner(folder: &Path, resume: bool, model: ModelFolder, settings: &FineTuneSettings) -> Result<FineTuner> {
    let config =
        TrainConfig { seed: 4, checkpoint_every: Duration::from_secs(3600), backend: Backend::detect() };
    let task = FineTuneTask { model, dataset: digits(), teacher: None };
    FineTuner::new(task, settings, open_fine_tune_folder(folder, resume)?, config)
}

/// Runs in a folder, and stops after the step `at`, or in the last evaluation.
fn run(folder: &Path, at: Option<u64>) -> RunOutcome {
    let mut tuner = tuner(folder, true, model(), &settings()).expect("it fits");
    let stop = AtomicBool::new(false);
    let outcome = tuner.run(&stop, &mut |line| {
        let taken = line.steps_taken();
        if at == Some(taken) {
            stop.store(true, Ordering::Relaxed);
        }
    });
    outcome.expect("no errors")
}

fn bytes(folder: &Path) -> Vec<u8> {
    std::fs::read(weights_path(folder)).expect("weights")
}

#[test]
fn stopping_after_any_step_changes_nothing() {
    let folder = tempfile::tempdir().expect("a folder");
    let at = |name: &str| folder.path().join(name);
    assert_eq!(run(&at("whole"), None), RunOutcome::Finished);
    let events = |name: &str| {
        let log = std::fs::read_to_string(at(name).join("log.jsonl")).expect("a log");
        log.lines().filter(|line| line.contains("\"evaluation\"")).map(str::to_string).collect::<Vec<_>>()
    };
    assert_eq!(events("whole").len(), 2, "before and after");
    for step in 0..=6 {
        let name = format!("stopped{step}");
        assert_eq!(run(&at(&name), Some(step)), RunOutcome::Interrupted { step });
        assert_eq!(run(&at(&name), None), RunOutcome::Finished);
        assert!(bytes(&at(&name)) == bytes(&at("whole")), "stopped after {step} steps");
        assert_eq!(events(&name), events("whole"), "stopped after {step} steps");
    }
}

#[test]
fn the_folder_says_what_it_is_and_may_be_fine_tuned_again() {
    let folder = tempfile::tempdir().expect("a folder");
    let at = |name: &str| folder.path().join(name);
    run(&at("once"), None);
    assert!(!at("once/checkpoint.safetensors").exists(), "it has served");
    let once = ModelFolder::read(&at("once")).expect("whole");
    let origin = &once.config.origin.clone();
    assert_eq!((origin.supernet.as_str(), origin.predicted_top1), ("its hash", Some(0.5)));
    let [fine_tuned] = &origin.fine_tuned[..] else { panic!("one: {:?}", origin.fine_tuned) };
    assert_eq!((fine_tuned.steps, fine_tuned.seed, fine_tuned.epochs), (6, 4, 1.5));
    assert_eq!(
        (fine_tuned.from.tool.as_str(), &fine_tuned.from.model),
        ("0.0.1", &model().config.model_hash)
    );
    assert_eq!(origin.measured.as_ref().map(|measured| measured.n), Some(digits().val().len()));
    let network = once.network(&Backend::detect()).expect("calibrated");
    let batches =
        network::data::eval_batches(digits().val(), digits().preprocess(), 8, 200).collect::<Vec<_>>();
    let counted = network::eval::accuracy(&network, batches.into_iter()).expect("it fits");
    assert_eq!(origin.measured.as_ref().map(|measured| measured.top1), Some(counted.top1()));

    let mut again = tuner(&at("twice"), false, once, &settings()).expect("it fits");
    again.run(&AtomicBool::new(false), &mut |_| ()).expect("no errors");
    assert_eq!(again.before(), Some(counted), "the second begins where the first ended");
    let twice = ModelFolder::read(&at("twice")).expect("whole").config.origin;
    assert_eq!(twice.fine_tuned.len(), 2);
    assert_eq!(twice.fine_tuned[0], *fine_tuned);
    assert_eq!(twice.fine_tuned[1].from.measured, origin.measured);
}

#[test]
fn a_used_folder_goes_on_only_with_the_same_plan() {
    let folder = tempfile::tempdir().expect("a folder");
    let at = folder.path();
    let refused = |resume: bool, settings: &FineTuneSettings| {
        tuner(at, resume, model(), settings).err().expect("refused").to_string()
    };
    let begun = tuner(at, false, model(), &settings()).expect("empty");
    assert!(refused(true, &settings()).contains("another process"));
    begun.folder().write_plan(begun.plan(), &serde_json::json!({})).expect("written");
    drop(begun);
    assert!(refused(false, &settings()).contains("--resume"));
    let other = FineTuneSettings { lr: Some(0.2), ..settings() };
    for at_end in [false, true] {
        assert_eq!(run(at, (!at_end).then_some(3)) == RunOutcome::Finished, at_end);
        assert!(
            refused(true, &other).contains("plan.lr: expected 0.1, got 0.2"),
            "{}",
            refused(true, &other)
        );
    }
    let before = bytes(at);
    let mut finished = tuner(at, true, model(), &settings()).expect("the same plan");
    assert_eq!(
        finished.run(&AtomicBool::new(true), &mut |_| ()).expect("nothing to do"),
        RunOutcome::Finished
    );
    assert!(finished.before().is_some() && finished.after().is_some() && bytes(at) == before);
    std::fs::remove_file(at.join("plan.json")).expect("removed");
    drop(finished);
    assert!(refused(true, &settings()).contains("holds a model that no fine-tuning wrote there"));
}

#[test]
fn settings_data_and_teachers_are_checked() {
    let folder = tempfile::tempdir().expect("a folder");
    let good = FineTuneSettings::default();
    let other_classes =
        SearchSpace::from_toml("x", &tiny().to_toml().replacen("classes = 10", "classes = 12", 1));
    let other_teacher = teacher(folder.path(), &other_classes.expect("a space"));
    let mut more = model();
    more.config.classes.push("ten".to_string());
    let cases: [(ModelFolder, FineTuneSettings, Option<Supernet>, &str); 7] = [
        (more, good, None, "data digits for the network: classes: expected 11, got 10; give images"),
        (
            model(),
            FineTuneSettings { epochs: 0.0, ..good },
            None,
            "epochs: expected above 0 to 1000000, got 0",
        ),
        (model(), FineTuneSettings { epochs: f64::NAN, ..good }, None, "epochs"),
        (model(), FineTuneSettings { lr: Some(-1.0), ..good }, None, "lr: expected above 0 to 1000, got -1"),
        (model(), FineTuneSettings { batch: 0, ..good }, None, "batch: expected 1 to"),
        (model(), FineTuneSettings { batch: 2000, ..good }, None, "at least a batch of 2000, got 1071"),
        (model(), good, Some(other_teacher), "classes: expected 10, got 12; give a supernet of the model's"),
    ];
    for (model, settings, teacher, part) in cases {
        let task = FineTuneTask { model, dataset: digits(), teacher };
        let error = FineTunePlan::new(&task, &settings, 0, None).expect_err(part).to_string();
        assert!(error.contains(part), "{error}");
    }
}

#[test]
fn a_teacher_changes_the_plan_and_the_steps() {
    let folder = tempfile::tempdir().expect("a folder");
    let weights = |name: &str, taught: bool| {
        let task = FineTuneTask {
            model: model(),
            dataset: digits(),
            teacher: taught.then(|| teacher(folder.path(), &preset("tiny").expect("a preset"))),
        };
        let at = folder.path().join(name);
        let config =
            TrainConfig { seed: 4, checkpoint_every: Duration::from_secs(3600), backend: Backend::detect() };
        let run = open_fine_tune_folder(&at, false).expect("new");
        let mut tuner = FineTuner::new(task, &settings(), run, config).expect("it fits");
        tuner.run(&AtomicBool::new(false), &mut |_| ()).expect("no errors");
        let last = ModelFolder::read(&at).expect("whole").config.origin.fine_tuned.pop().expect("one");
        assert_eq!(last.teacher.is_some(), taught);
        bytes(&at)
    };
    assert!(weights("alone", false) != weights("taught", true));
}

#[test]
fn a_loss_that_explodes_ends_it_with_advice() {
    let folder = tempfile::tempdir().expect("a folder");
    let wild = FineTuneSettings { lr: Some(1000.0), ..settings() };
    let mut tuner = tuner(folder.path(), false, model(), &wild).expect("it fits");
    let error = tuner.run(&AtomicBool::new(false), &mut |_| ()).expect_err("it explodes").to_string();
    assert!(error.contains("(phase fine-tune)") && error.contains("give a lower learning rate"), "{error}");
    assert!(!config_path(folder.path()).exists());
}

#[test]
fn a_checkpoint_of_another_kind_or_network_is_refused() {
    let folder = tempfile::tempdir().expect("a folder");
    run(folder.path(), Some(3));
    let path = folder.path().join("checkpoint.safetensors");
    let checkpoint = FineTuneCheckpoint::read(&path).expect("whole");
    assert_eq!((checkpoint.step, checkpoint.weights.len()), (3, checkpoint.velocities.len()));
    let file = network::tensor_file::read(&path).expect("whole");
    let document: serde_json::Value = serde_json::from_str(&file.document).expect("JSON");
    let altered = |change: &dyn Fn(&mut serde_json::Value, &mut BTreeMap<String, Tensor>)| {
        let mut document = document.clone();
        let mut tensors = file.tensors.clone();
        change(&mut document, &mut tensors);
        let bytes = network::tensor_file::to_bytes(Path::new("x"), &tensors, &document).expect("bytes");
        FineTuneCheckpoint::from_bytes("x", &bytes).err().expect("refused").to_string()
    };
    let cases = [
        altered(&|document, _| document["kind"] = "supernet".into()),
        altered(&|document, _| document["version"] = 2.into()),
        altered(&|document, _| document["arch"] = "r8:k9e3/k3e3".into()),
        altered(&|_, tensors| drop(tensors.remove("velocity.classifier.linear.bias"))),
        altered(&|_, tensors| {
            drop(tensors.insert("more".to_string(), tensors["classifier.linear.bias"].clone()))
        }),
    ];
    let parts = [
        "x: kind: expected fine_tuning",
        "x: version",
        "x: arch",
        "velocities: classifier.linear.bias",
        "number",
    ];
    for (error, part) in cases.iter().zip(parts) {
        assert!(error.starts_with("x: ") && error.contains(part), "{error}");
    }
    let text = Supernet::read(&path).err().expect("no supernet").to_string();
    assert!(text.contains("metadata"), "{text}");
}

#[test]
fn a_model_without_numbers_is_not_counted() {
    let mut model = model();
    let name = "final_expand_layer.bn.weight";
    let scale = &model.tensors[name];
    let large = candle_core::Tensor::full(3e38f32, scale.dims(), scale.device()).expect("a tensor");
    model.tensors.insert(name.to_string(), large);
    let folder = tempfile::tempdir().expect("a folder");
    let at = folder.path().join("tuned");
    let mut tuner = tuner(&at, false, model, &settings()).expect("it fits");
    let error = tuner.run(&AtomicBool::new(false), &mut |_| {}).expect_err("no accuracy").to_string();
    assert!(error.contains("logits of image 1: expected finite numbers, got "), "{error}");
    assert!(!at.join("config.json").exists(), "nothing was finished");
}
