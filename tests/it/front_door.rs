//! The functions of the libraries, with default settings, do the same as the command lines.

use std::path::Path;

use extract::{
    AccuracyEstimator, ErrorKind, LATENCY, LatencyTable, Limits, ModelFolder, NormStatistics, Request,
    accuracy_file, export, find_best,
};
use network::eval::Calibration;
use supernet::{Backend, Dataset, Evaluator, SampleConfig, Split, Supernet, sample};

use crate::testing::commands::{json, pipeline};
use crate::testing::files::scratch;

fn supernet() -> Supernet {
    Supernet::read(&pipeline().join("run/supernet.safetensors")).expect("a supernet")
}

fn digits() -> Dataset {
    Dataset::open("digits").expect("embedded")
}

#[test]
fn sampling_gives_the_rows_of_the_command() {
    let written = accuracy_file::read(&pipeline().join("accuracy.jsonl")).expect("rows");
    let calibration = Calibration { images: 200, ..Calibration::default() };
    let config = SampleConfig { count: 10, calibration, ..SampleConfig::default() };
    let sampled = sample(&supernet(), &digits(), &config).expect("it fits");
    assert_eq!(sampled.rows, written.rows[..10]);
    assert_eq!((sampled.supernet, sampled.data), (written.supernet, written.data));
}

#[test]
fn the_best_is_that_of_the_command_and_its_folder_judges_as_it_says() {
    let at = pipeline();
    let folder = scratch();
    let out = folder.path().join("found.json");
    let search =
        "search --space tiny --estimator estimator.safetensors --latency-table table.json --max-latency 1s";
    let of_command = json(
        "extract",
        at,
        &format!("{search} --supernet run/supernet.safetensors --data digits --out {}", out.display()),
    );
    let supernet = supernet();
    let dataset = digits();
    let backend = Backend::detect();
    let table = LatencyTable::read(&at.join("table.json")).expect("a table");
    let estimator = AccuracyEstimator::read(&at.join("estimator.safetensors")).expect("an estimator");
    let evaluator = Evaluator::new(&supernet, &dataset, &backend);
    let find = |limit_us| find_best(&table, &Limits::on(LATENCY, limit_us), &estimator, &evaluator);
    let found = find(1e6).expect("far from the limit");
    let best = &found.report.best;
    assert_eq!(of_command["best"]["arch"], best.arch.to_string());
    let selected_on = serde_json::to_value(found.selected_on()).expect("plain data");
    assert_eq!(of_command["selected_on"], selected_on);
    assert_eq!(find(1e-3).expect_err("too little").kind(), ErrorKind::Infeasible);

    let request = Request::new(&supernet, &best.arch, NormStatistics::calibrated(&dataset));
    let path = folder.path().join("model");
    export(&request.expecting(best, found.selected_on()), &path).expect("verified");
    let model = ModelFolder::read(&path).expect("a model");
    let origin = &model.config.origin;
    assert_eq!(
        (origin.predicted_top1, origin.predicted_latency_ms),
        (Some(best.accuracy()), best.latency_ms())
    );
    let measured = origin.measured.as_ref().expect("counted");
    let evaluation = model.evaluate(&dataset, Split::Val, &backend).expect("its images");
    assert_eq!((evaluation.accuracy().top1(), evaluation.images.len()), (measured.top1, measured.n));
    assert!(evaluation.labels().eq(evaluation.images.iter().map(|image| image.label)));
    let right = evaluation.predicted().zip(evaluation.labels()).filter(|(one, other)| one == other).count();
    assert_eq!(right, evaluation.accuracy().correct);
    let missing = ModelFolder::read(Path::new("nowhere")).err().expect("none");
    assert_eq!(missing.kind(), ErrorKind::NotFound);
}
