//! Imported accuracy predictors of PyTorch's `ofa` against the package itself (`tests/golden/make_predictors.py`).

use std::collections::BTreeMap;

use candle_core::{DType, Device, Tensor};
use extract::accuracy::{AccuracyEstimator, EstimatorOrigin, OfaPredictor};
use extract::ofa::PredictorFile;
use serde_json::Value;
use space::{Arch, SearchSpace, arch_file, preset};

use crate::testing::commands::{assert_fails, json};
use crate::testing::files::scratch;
use crate::testing::formula::formula;

const HIDDEN: usize = 24;
/// The input sizes of the script's predictors of the library.
const SIZES: [usize; 4] = [192, 128, 224, 160];

pub(crate) type Tensors = BTreeMap<String, Tensor>;

/// The script's predictor with this number of features.
fn predictor(kind: OfaPredictor, features: usize) -> Tensors {
    wide_predictor(kind, features, HIDDEN)
}

/// A predictor in the form of the package with these numbers of features and hidden units, and weights by formula.
pub(crate) fn wide_predictor(kind: OfaPredictor, features: usize, hidden: usize) -> Tensors {
    let parts = match kind {
        OfaPredictor::Tutorial => ["0", "2", "4"],
        OfaPredictor::Library => ["layers.0.0", "layers.1.0", "layers.2"],
    };
    let sizes = [features, hidden, hidden, 1];
    let mut tensors = Tensors::new();
    for (part, pair) in parts.iter().zip(sizes.windows(2)) {
        let mut add = |name: String, shape: &[usize]| tensors.insert(name.clone(), formula(&name, shape));
        add(format!("{part}.weight"), &[pair[1], pair[0]]);
        if kind == OfaPredictor::Tutorial || pair[1] > 1 {
            add(format!("{part}.bias"), &pair[1..]);
        }
    }
    if kind == OfaPredictor::Library {
        let base = Tensor::new(&[0.75f32], &Device::Cpu).expect("a number");
        tensors.insert("base_acc".to_string(), base);
    }
    tensors
}

fn import(
    space: &SearchSpace,
    tensors: &Tensors,
    resolutions: &[usize],
) -> extract::Result<AccuracyEstimator> {
    let file = PredictorFile { place: "a/x.pth", name: "x.pth", blake3: "abc", tensors };
    AccuracyEstimator::import(space, file, resolutions)
}

/// The spaces of the golden lines, with the kind and the number of features of their predictors.
const CASES: [(&str, OfaPredictor, usize); 4] = [
    ("ofa-mbv3-w1.2", OfaPredictor::Tutorial, 128),
    ("ofa-mbv3-w1.0", OfaPredictor::Library, 4 + 6 * 20),
    ("ofa-proxyless-w1.3", OfaPredictor::Library, 4 + 6 * 21),
    ("ofa-resnet50", OfaPredictor::Library, 4 + 2 + 3 * 6 + 3 * 18),
];

#[test]
fn imported_predictors_predict_what_the_package_does() {
    let lines: Vec<Value> = include_str!("../golden/predictors.jsonl")
        .lines()
        .map(|line| serde_json::from_str(line).expect("JSON"))
        .collect();
    for (name, kind, features) in CASES {
        let space = preset(name).expect("a preset");
        let resolutions: &[usize] = if kind == OfaPredictor::Library { &SIZES } else { &[] };
        let estimator = import(&space, &predictor(kind, features), resolutions).expect("a predictor");
        let lines: Vec<_> = lines.iter().filter(|line| line["space"] == name).collect();
        assert_eq!(lines.len(), 12, "{name}");
        let arch = |line: &&Value| {
            arch_file::from_json(&space, "sample", &line["sample"].to_string()).expect("a sample")
        };
        let archs: Vec<Arch> = lines.iter().map(arch).collect();
        let got = estimator.predict(&archs).expect("of the space");
        for ((line, arch), got) in lines.iter().zip(&archs).zip(got) {
            let expected = line["accuracy"].as_f64().expect("a number");
            assert!((f64::from(got) - expected).abs() < 1e-6, "{name} {arch}: {got}, not {expected}");
        }
    }
}

#[test]
fn where_a_predictor_comes_from_is_kept() {
    let space = preset("ofa-mbv3-w1.0").expect("a preset");
    let estimator = import(&space, &predictor(OfaPredictor::Library, 124), &SIZES).expect("a predictor");
    assert_eq!(estimator.space().resolutions(), [128, 160, 192, 224]);
    let read = AccuracyEstimator::from_bytes("x", &estimator.to_bytes().expect("bytes")).expect("own bytes");
    assert_eq!(read.to_bytes().expect("bytes"), estimator.to_bytes().expect("bytes"));
    let EstimatorOrigin::Imported(imported) = read.origin() else { panic!("{:?}", read.origin()) };
    assert_eq!(
        (imported.kind, &imported.file[..], &imported.blake3[..]),
        (OfaPredictor::Library, "x.pth", "abc")
    );
    assert_eq!(imported.resolutions, SIZES);
    assert!(read.report().is_none() && read.supernet().is_none());
}

/// Checks that an import fails with these words.
fn assert_refused(space: &str, tensors: &Tensors, resolutions: &[usize], words: &str) {
    let space = preset(space).expect("a preset");
    let error = import(&space, tensors, resolutions).expect_err(words).to_string();
    assert!(error.contains(words), "{error}");
}

#[test]
fn other_files_and_spaces_are_refused() {
    let tutorial = predictor(OfaPredictor::Tutorial, 128);
    for (space, words) in [
        ("ofa-resnet50", "family: expected mobilenet-v3"),
        ("tiny", "space tiny: depths: expected 5 stages of at most 4"),
    ] {
        assert_refused(space, &tutorial, &[], words);
    }
    let library = predictor(OfaPredictor::Library, 124);
    for (resolutions, words) in [
        (&[][..], "it knows 4 input sizes and does not say which"),
        (&[160, 192], "[24, 122], 2 of them input sizes"),
        (&[32, 64, 96, 112], "resolutions: expected some of [128"),
    ] {
        assert_refused("ofa-mbv3-w1.0", &library, resolutions, words);
    }
}

#[test]
fn tensors_of_other_shapes_and_types_are_refused() {
    let space = "ofa-mbv3-w1.2";
    let tutorial = predictor(OfaPredictor::Tutorial, 128);
    let none = "a/x.pth: tensors: expected 0.weight or layers.0.0.weight";
    assert_refused(space, &Tensors::new(), &[], none);
    for (name, shape, words) in [
        ("0.weight", &[24, 120][..], "0.weight: expected F32 [24, 128], 8 of them"),
        ("2.weight", &[24, 25], "2.weight: expected F32 [N, 24], got F32 [24, 25]"),
        ("4.weight", &[2, 24], "4.weight: expected F32 [1, 24], got F32 [2, 24]"),
        ("2.bias", &[24, 1], "2.bias: expected F32 [24], got F32 [24, 1]"),
        ("x.bias", &[1], "tensors: expected those of 2 to 16 layers and no more"),
    ] {
        let mut tensors = tutorial.clone();
        tensors.insert(name.to_string(), formula(name, shape));
        assert_refused(space, &tensors, &[], words);
    }
    let mut fewer = tutorial.clone();
    fewer.remove("2.bias");
    assert_refused(space, &fewer, &[], "and no more, got 0.bias, 0.weight");
    let mut not_finite = tutorial.clone();
    let nan = Tensor::new(&[f32::NAN], &Device::Cpu).expect("a number");
    not_finite.insert("4.bias".to_string(), nan);
    assert_refused(space, &not_finite, &[], "4.bias: expected finite numbers, got NaN");
    let mut integers = tutorial;
    let zeros = Tensor::zeros(HIDDEN, DType::U32, &Device::Cpu).expect("a vector");
    integers.insert("2.bias".to_string(), zeros);
    assert_refused(space, &integers, &[], "2.bias: expected F32 [24], got U32 [24]");
}

#[test]
fn choices_that_a_predictor_does_not_know_are_refused() {
    let text = preset("ofa-mbv3-w1.2").expect("a preset").to_toml();
    for (from, to, message) in [
        (
            "160,",
            "96, 160,",
            "choices: expected one that the predictor knows (112 to 224), got resolution 96",
        ),
        ("expand = [3, 4, 6]", "expand = [3, 5]", "(3, 4, 6), got stage 1, block 1, expand 5"),
    ] {
        let (at, _) = text.match_indices(from).next().expect("it is there");
        let changed = format!("{}{to}{}", &text[..at], &text[at + from.len()..]);
        let space = SearchSpace::from_toml("x", &changed).expect("a space");
        let error =
            import(&space, &predictor(OfaPredictor::Tutorial, 128), &[]).expect_err(message).to_string();
        assert!(error.contains(message), "{error}");
    }
}

#[test]
fn the_command_imports_a_file_and_says_what_it_is() {
    let folder = scratch();
    let at = folder.path();
    let tensors: std::collections::HashMap<_, _> =
        predictor(OfaPredictor::Library, 124).into_iter().collect();
    candle_core::safetensors::save(&tensors, at.join("p.safetensors")).expect("writable");
    let import = "import predictor p.safetensors --space ofa-mbv3-w1.0 --out e.safetensors";
    assert_fails("extract", at, import, 1, "list its image_size_list in --resolutions");
    let document = json("extract", at, &format!("{import} --resolutions 192,128,224,160"));
    let imported = &document["origin"]["imported"];
    assert_eq!((&imported["kind"], &imported["file"]), (&"library".into(), &"p.safetensors".into()));
    let hash = network::tensor_file::hash(&at.join("p.safetensors")).expect("readable");
    assert_eq!(imported["blake3"], hash);
    let facts = &json("extract", at, "inspect e.safetensors")["facts"];
    assert_eq!(facts["origin"], document["origin"]);
    assert_eq!(facts["version"], 3);
}

#[test]
fn a_predictor_in_per_cent_is_converted() {
    for (name, kind, features) in CASES {
        let space = preset(name).expect("a preset");
        let resolutions: &[usize] = if kind == OfaPredictor::Library { &SIZES } else { &[] };
        let mut shares = predictor(kind, features);
        if kind == OfaPredictor::Tutorial {
            shares.insert("4.bias".to_string(), Tensor::new(&[0.75f32], &Device::Cpu).expect("a number"));
        }
        let times = |factor: f64| {
            let mut tensors = shares.clone();
            for name in ["4.weight", "4.bias", "layers.2.weight", "base_acc"] {
                if let Some(tensor) = tensors.get_mut(name) {
                    *tensor = (&*tensor * factor).expect("small");
                }
            }
            tensors
        };
        let plain = import(&space, &shares, resolutions).expect("a predictor");
        let converted = import(&space, &times(100.0), resolutions).expect("a predictor");
        let of = |estimator: &AccuracyEstimator| match estimator.origin() {
            EstimatorOrigin::Imported(imported) => imported.per_cent,
            other => panic!("{other:?}"),
        };
        assert_eq!((of(&plain), of(&converted)), (false, true), "{name}");
        let known = plain.space();
        let archs: Vec<Arch> = (0..50)
            .map(|seed| arch_file::read(known, &format!("random:{seed}")).expect("of the space"))
            .collect();
        let predicted = |estimator: &AccuracyEstimator| estimator.predict(&archs).expect("of the space");
        for (share, converted) in predicted(&plain).into_iter().zip(predicted(&converted)) {
            assert!((share - converted).abs() < 1e-5, "{name}: {share} {converted}");
        }
        let again =
            AccuracyEstimator::from_bytes("x", &converted.to_bytes().expect("bytes")).expect("own bytes");
        assert_eq!(again.origin(), converted.origin());
        let error = import(&space, &times(1e5), resolutions).expect_err("neither").to_string();
        assert!(
            error.contains("predictions: expected accuracies from 0 to 1, or from 0 to 100 %"),
            "{error}"
        );
    }
}
