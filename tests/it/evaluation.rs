//! Figures and predictions of `supernet eval` against a count by brute force.

use std::path::Path;

use candle_core::Tensor;
use image::{GrayImage, Luma};
use kernels::Backend;
use network::checkpoint::Supernet;
use network::data::{Dataset, Split, eval_batches};
use network::elastic::SubnetWeights;
use network::eval::{Calibration, Evaluator};
use network::nn::{Network, Pass};
use serde_json::Value;
use space::sampler;

use crate::testing::commands::{assert_fails, json, pipeline, run, stdout};
use crate::testing::files::{read_bytes, read_text, scratch, write_file};
use crate::testing::spaces::tiny_of_two_classes;

/// The logits and labels of all images of a split.
fn logits(supernet: &Supernet, dataset: &Dataset, split: Split) -> (Vec<Vec<f32>>, Vec<usize>) {
    let space = &supernet.space;
    let backend = Backend::detect();
    let dataset = &supernet.see(dataset, false).expect("the same images");
    let evaluator = Evaluator {
        space,
        weights: &supernet.weights,
        dataset,
        calibration: Calibration::default(),
        backend: backend.clone(),
    };
    let arch = sampler::smallest(space);
    let layers = space.lower(&arch).expect("legal");
    let subnet = SubnetWeights::new(space, &supernet.weights, &layers, &backend).expect("weights");
    let statistics = evaluator.calibrate(&arch).expect("images");
    let network =
        Network::new(&layers, &subnet.calibrated(&statistics).expect("statistics")).expect("a network");
    let mut rows = Vec::new();
    let mut labels = Vec::new();
    for batch in
        eval_batches(dataset.split(split).expect("a split"), dataset.preprocess(), arch.resolution, 200)
    {
        let batch = batch.expect("images");
        let logits: Tensor = network.forward(&batch.inputs, Pass::Inference).expect("logits");
        rows.extend(logits.to_vec2::<f32>().expect("numbers"));
        labels.extend(batch.targets.classes().iter().map(|label| *label as usize));
    }
    (rows, labels)
}

fn number(value: &Value) -> f64 {
    value.as_f64().expect("a number")
}

#[test]
fn figures_are_those_of_a_count_by_brute_force() {
    let from = pipeline();
    let folder = scratch();
    let path = from.join("run/supernet.safetensors");
    let eval = format!("eval --supernet {} --data digits --split test", path.display());
    let document = json("supernet", folder.path(), &format!("{eval} --arch smallest --predictions p.csv"));
    let result = &document["results"][0];
    let supernet = Supernet::read(&path).expect("a supernet");
    let (rows, labels) = logits(&supernet, &Dataset::open("digits").expect("embedded"), Split::Test);
    let n = rows.len();
    assert_eq!(result["n"], n);
    let csv = read_text(folder.path().join("p.csv"));
    let lines: Vec<&str> = csv.lines().collect();
    assert_eq!((lines.len(), lines[0]), (n + 1, "image,label,predicted,probability"));

    let mut confusion = vec![vec![0u64; 10]; 10];
    let mut loss = 0.0;
    let mut found = 0;
    let mut among_five = 0;
    for (index, (row, label)) in rows.iter().zip(&labels).enumerate() {
        // sorted from the highest score; a stable sort keeps the first of equal ones first
        let mut order: Vec<usize> = (0..10).collect();
        order.sort_by(|one, other| row[*other].total_cmp(&row[*one]));
        let exponents: Vec<f64> = row.iter().map(|value| f64::from(*value).exp()).collect();
        let share = |class: usize| exponents[class] / exponents.iter().sum::<f64>();
        loss -= share(*label).ln();
        confusion[*label][order[0]] += 1;
        found += u64::from(order[0] == *label);
        among_five += u64::from(order[..5].contains(label));
        let fields: Vec<&str> = lines[index + 1].split(',').collect();
        assert_eq!(fields[..3], [index.to_string(), label.to_string(), order[0].to_string()]);
        let probability: f64 = fields[3].parse().expect("a number");
        assert!((probability - share(order[0])).abs() < 1e-6, "{index}");
    }
    assert!((number(&result["loss"]) - loss / n as f64).abs() < 1e-9);
    assert_eq!(number(&result["top1"]), found as f64 / n as f64);
    assert_eq!(number(&result["top5"]), among_five as f64 / n as f64);
    assert_eq!(result["confusion"], serde_json::json!(confusion));
    for (class, row) in confusion.iter().enumerate() {
        let said = &result["per_class"][class];
        assert_eq!((&said["class"], &said["correct"]), (&class.to_string().into(), &row[class].into()));
        assert_eq!(said["n"], row.iter().sum::<u64>());
        assert_eq!(number(&said["top1"]), row[class] as f64 / row.iter().sum::<u64>() as f64);
    }
    let said = run("supernet", folder.path(), &format!("{eval} --arch smallest"));
    let text = stdout(&said);
    assert!(
        text.starts_with("test top-1 ") && text.contains("\n    loss ") && text.contains(", top-5 "),
        "{text}"
    );
}

/// Forty images of each of two classes, with a comma and quotes in the names of their folders.
fn images(at: &Path) {
    for (class, shade) in [("a, b", 40u8), ("c \"d\"", 200)] {
        let folder = at.join("train").join(class);
        std::fs::create_dir_all(&folder).expect("made");
        for i in 0..40 {
            let image = GrayImage::from_fn(12, 12, |x, y| Luma([shade + ((x * 3 + y * 5 + i) % 30) as u8]));
            image.save(folder.join(format!("{i:02}.png"))).expect("written");
        }
    }
}

#[test]
fn files_and_classes_of_any_name_are_told() {
    let folder = scratch();
    let at = folder.path();
    images(&at.join("set"));
    write_file(at.join("two.toml"), tiny_of_two_classes());
    json("supernet", at, "train --space two.toml --data folder:set --out run --scale 0.01");
    let eval = "eval --supernet run/supernet.safetensors --data folder:set";
    let document = json("supernet", at, &format!("{eval} --arch largest --predictions p.csv"));
    let result = &document["results"][0];
    assert_eq!(result["top5"], Value::Null, "two classes");
    assert_eq!(result["per_class"][1]["class"], "c \"d\"");
    let csv = read_text(at.join("p.csv"));
    let first = csv.lines().nth(1).expect("an image");
    assert!(first.starts_with("\"set/train/a, b/") && first.contains(".png\",\"a, b\",\""), "{first}");
    assert!(csv.contains(",\"c \"\"d\"\"\","), "{csv}");

    assert_fails(
        "supernet",
        at,
        &format!("{eval} --arch largest smallest --predictions q.csv"),
        1,
        "--predictions: expected one --arch, got 2",
    );
    let before = read_bytes(at.join("run/supernet.safetensors"));
    let over = format!("{eval} --arch largest --predictions run/supernet.safetensors");
    assert_fails("supernet", at, &over, 1, "expected another file than the input");
    assert!(read_bytes(at.join("run/supernet.safetensors")) == before);
}

#[test]
fn an_export_and_a_search_count_on_as_few_images_as_are_asked_for() {
    let from = pipeline();
    let folder = scratch();
    let supernet = from.join("run/supernet.safetensors");
    let export = format!("export --supernet {} --arch smallest --data digits", supernet.display());
    let exported = json("extract", folder.path(), &format!("{export} --val-images 50 --out model"));
    assert_eq!(exported["measured"]["n"], 50);
    let all = json("extract", folder.path(), &format!("{export} --val-images 1000 --out all"));
    assert_eq!(all["measured"]["n"], 362, "at most all images");
    let estimator = from.join("estimator.safetensors");
    let search = format!("search --space tiny --estimator {} --max-macs 600K", estimator.display());
    let found = json(
        "extract",
        folder.path(),
        &format!("{search} --supernet {} --data digits --val-images 40 --out found.json", supernet.display()),
    );
    assert_eq!((&found["evaluated"][0]["n"], &found["selected_on"]["n"]), (&40.into(), &40.into()));
    let output = run("extract", folder.path(), &format!("{search} --val-images 40 --out none.json"));
    assert_eq!(output.status.code(), Some(2), "counted on no images");
}
