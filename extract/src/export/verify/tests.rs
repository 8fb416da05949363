use network::model_folder::{FineTuned, FineTunedFrom, MeasuredAccuracy, ModelDescription, ModelOrigin};
use space::SearchSpace;

use super::super::testing::{largest, request, supernet};
use super::super::{Format, Request, export};
use super::*;

/// Exports the largest network of `tiny`, changes the folder's content, writes it again, and verifies it.
fn verified(formats: &[Format], change: impl FnOnce(&mut ModelFolder)) -> Result<Verification> {
    let at = tempfile::tempdir().expect("a folder");
    let folder = at.path().join("model");
    let supernet = supernet("tiny");
    let arch = largest(&supernet);
    let exported = export(&Request { formats, ..request(&supernet, &arch) }, &folder).expect("verified");
    let mut model = exported.model;
    change(&mut model);
    model.write(&folder).expect("written");
    verify(&folder, &supernet, None, &Backend::detect(), None)
}

/// The name of a tensor of the classifier.
fn classifier(model: &ModelFolder) -> String {
    let layers = model.config.space.lower(&model.config.arch).expect("legal");
    layers.last().expect("a layer").weights()[0].name.clone()
}

/// A folder of the same weights, of another space or origin.
fn rebuilt(model: &ModelFolder, space: &SearchSpace, origin: ModelOrigin) -> ModelFolder {
    let ModelConfig { arch, input, classes, .. } = model.config.clone();
    let description = ModelDescription { space, arch: &arch, input, classes, origin };
    ModelFolder::new(description, model.tensors.clone()).expect("f32")
}

fn change_weight(model: &mut ModelFolder) {
    let name = classifier(model);
    let tensor = &model.tensors[&name];
    let mut numbers = values(tensor).expect("f32");
    numbers[3] = f32::from_bits(numbers[3].to_bits() ^ 1);
    let changed = Tensor::from_vec(numbers, tensor.dims(), &Device::Cpu).expect("sizes agree");
    model.tensors.insert(name, changed);
}

fn swap_classes(model: &mut ModelFolder) {
    let name = classifier(model);
    let order = Tensor::new(&[1u32, 0, 2, 3, 4, 5, 6, 7, 8, 9], &Device::Cpu).expect("indices");
    let swapped = model.tensors[&name].index_select(&order, 0).expect("ten rows");
    model.tensors.insert(name, swapped);
}

fn change_statistic(model: &mut ModelFolder) {
    let name = model.tensors.keys().find(|name| name.ends_with("running_var")).expect("a norm").clone();
    let changed = model.tensors[&name].affine(2.0, 0.0).expect("f32");
    model.tensors.insert(name, changed);
}

fn remove_statistic(model: &mut ModelFolder) {
    let name = model.tensors.keys().find(|name| name.ends_with("running_mean")).expect("a norm").clone();
    model.tensors.remove(&name);
}

fn add_tensor(model: &mut ModelFolder) {
    model.tensors.insert("extra".to_string(), Tensor::new(&[1f32], &Device::Cpu).expect("a tensor"));
}

fn narrow_weight(model: &mut ModelFolder) {
    let name = classifier(model);
    let narrowed = model.tensors[&name].narrow(0, 0, 9).expect("ten rows");
    model.tensors.insert(name, narrowed);
}

fn remove_weight(model: &mut ModelFolder) {
    let name = classifier(model);
    model.tensors.remove(&name);
}

fn fine_tune(model: &mut ModelFolder) {
    let mut origin = model.config.origin.clone();
    let counted = MeasuredAccuracy { top1: 0.5, n: 2, split: "val".to_string(), selected_on: None };
    let from = FineTunedFrom {
        model: "before".to_string(),
        tool: "0".to_string(),
        backend: "none".to_string(),
        statistics: origin.statistics.clone(),
        measured: None,
        counted: counted.clone(),
    };
    origin.measured = Some(counted);
    origin.fine_tuned.push(FineTuned {
        from,
        tool: "0".to_string(),
        backend: "none".to_string(),
        data: "digits".to_string(),
        plan: String::new(),
        seed: 0,
        epochs: 1.0,
        batch: 1,
        lr: 0.1,
        steps: 9,
        teacher: None,
        new_head: false,
    });
    *model = rebuilt(model, &model.config.space, origin);
}

/// A change of an exported folder.
type Change = fn(&mut ModelFolder);

#[test]
fn a_sound_folder_is_reported_with_its_differences() {
    let verification = verified(&[], |_| {}).expect("equal");
    assert_eq!((verification.max_abs_difference, verification.inputs), (0.0, BATCHES.iter().sum()));
    assert!(verification.folded_difference <= FOLDED_TOLERANCE, "{verification:?}");
    assert!(verification.reference_difference <= REFERENCE_TOLERANCE, "{verification:?}");
    let report = serde_json::to_value(&verification).expect("plain data");
    let keys: Vec<&String> = report.as_object().expect("an object").keys().collect();
    assert_eq!(keys, ["folded_difference", "inputs", "max_abs_difference", "reference_difference"]);
    let onnx = verified(&[Format::Onnx], |_| {}).expect("equal").onnx.expect("compared");
    assert_eq!((onnx.inputs, onnx.runtime), (verification.inputs, None));
}

#[test]
fn each_change_of_a_folder_is_found() {
    let changes: [(Change, &str); 10] = [
        (change_weight, "[3]: expected"),
        (swap_classes, "[0]: expected"),
        (change_statistic, ".bn["),
        (remove_statistic, "expected statistics of this name, got none"),
        (add_tensor, "extra: expected no such tensor, got one"),
        (narrow_weight, "expected [10, "),
        (remove_weight, "expected a tensor of this name, got none"),
        (|model| model.config.model_hash = "other".to_string(), "blake3 of model.safetensors"),
        (|model| model.config.origin.supernet = "other".to_string(), "origin.supernet: expected a supernet"),
        (fine_tune, "fine-tuned since (9 steps on digits, from model before)"),
    ];
    for (number, (change, part)) in changes.into_iter().enumerate() {
        let error = verified(&[], change).expect_err("a change");
        assert!(matches!(error, Error::VerificationFailed { .. }), "{number}: {error}");
        assert!(error.to_string().contains(part), "{number}: {error}");
    }
}

#[test]
fn a_swapped_class_name_is_found_where_an_onnx_model_has_them_too() {
    let error = verified(&[Format::Onnx], |model| model.config.classes.swap(0, 1)).expect_err("swapped");
    assert!(error.to_string().contains("model.onnx"), "{error}");
}

#[test]
fn a_folder_of_another_space_is_refused() {
    let error = verified(&[], |model| {
        let config = &model.config;
        let space = config.space.at_resolutions(&[config.arch.resolution]).expect("its own");
        *model = rebuilt(model, &space, config.origin.clone());
    });
    let error = error.expect_err("another").to_string();
    assert!(error.contains("space: expected tiny"), "{error}");
}

#[test]
fn a_runtime_needs_an_onnx_model() {
    struct Nothing;
    impl OnnxRuntime for Nothing {
        fn describe(&self) -> String {
            "nothing".to_string()
        }

        fn run_model(&self, _: &[u8], _: &[Tensor]) -> Result<Vec<Vec<f32>>> {
            Ok(Vec::new())
        }
    }
    let at = tempfile::tempdir().expect("a folder");
    let folder = at.path().join("model");
    let supernet = supernet("tiny");
    export(&request(&supernet, &largest(&supernet)), &folder).expect("verified");
    let error = verify(&folder, &supernet, None, &Backend::detect(), Some(&Nothing)).expect_err("no file");
    assert!(error.to_string().contains("export with --format onnx"), "{error}");
}

#[test]
fn differences_are_relative_to_the_largest_logit_and_keep_a_nan() {
    for (expected, got, difference_is) in [
        (&[1.0, -2.0][..], &[1.0, -2.0][..], 0.0),
        (&[1.0, -2.0], &[1.5, -2.0], 0.25),
        (&[0.5, -4.0], &[0.5, -3.0], 0.25),
        (&[], &[], 0.0),
    ] {
        assert_eq!(difference(expected, got), difference_is, "{expected:?} {got:?}");
    }
    for got in [[f32::NAN, 1.0], [1.0, f32::NAN]] {
        assert!(difference(&[1.0, 1.0], &got).is_nan());
    }
}
