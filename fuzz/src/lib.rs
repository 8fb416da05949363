//! Every reader of the toolkit on arbitrary bytes. A reader returns a value or an error that names the place; an accepted
//! value must be the same after writing and reading.
//!
//! The fuzz targets call these functions, and so does `tests/it/readers.rs` with the inputs of former bugs.

use std::path::Path;
use std::sync::OnceLock;

use extract::accuracy::AccuracyEstimator;
use extract::latency::{LatencyTable, MeasurePlan, Rows};
use extract::ofa::table::{OfaTable, ofa_key};
use extract::onnx::OnnxModel;
use extract::search::process::Answer;
use extract::search::{Better, Found, Metric, SearchLog};
use network::accuracy_file;
use network::checkpoint::{Checkpoint, Supernet};
use network::data::{Grey, ImageFile, ListedImage, NpyArray, Orient, idx_from_bytes, list_from_text};
use network::model_folder::{ModelConfig, ModelFolder};
use network::pytorch::{StateDict, import};
use space::{Arch, SearchSpace, arch_file, cost, preset, sampler};
use study::table::{Choices, Columns};
use study::{Files, MetricTable, ProblemFile};
use supernet::train::{FineTuneCheckpoint, Recipe};
use supernet::trial::results_from_json;

/// Names the bytes in messages.
const PLACE: &str = "the input";

/// A reader by name.
pub type Reader = (&'static str, fn(&[u8]));

/// All readers.
pub const ALL: [Reader; 27] = [
    ("accuracy", accuracy),
    ("answer", answer),
    ("arch", arch),
    ("arch_file", arch_json),
    ("checkpoint", checkpoint),
    ("config", config),
    ("estimator", estimator),
    ("fine_tuning", fine_tuning),
    ("found", found),
    ("idx", idx),
    ("image", image),
    ("list", list),
    ("npy", npy),
    ("ofa_table", ofa_table),
    ("onnx", onnx),
    ("plan", plan),
    ("predictor", predictor),
    ("problem", problem),
    ("pytorch", pytorch),
    ("recipe", recipe),
    ("rows", rows),
    ("search_log", search_log),
    ("space", space),
    ("study_table", study_table),
    ("supernet", weights),
    ("table", table),
    ("trial", trial),
];

/// The value that was read, if any. An error must name the place.
fn checked<T, E: std::fmt::Display>(read: Result<T, E>) -> Option<T> {
    match read {
        Ok(value) => Some(value),
        Err(error) => {
            let message = error.to_string();
            assert!(message.starts_with(PLACE), "expected the place first: {message}");
            None
        }
    }
}

fn text(bytes: &[u8]) -> Option<&str> {
    std::str::from_utf8(bytes).ok()
}

/// A search space in TOML.
pub fn space(bytes: &[u8]) {
    let Some(space) = text(bytes).and_then(|text| checked(SearchSpace::from_toml(PLACE, text))) else {
        return;
    };
    assert_eq!(checked(SearchSpace::from_toml(PLACE, &space.to_toml())), Some(space.clone()));
    // promises of a checked space
    for arch in [sampler::largest(&space), sampler::smallest(&space)] {
        cost(&space.lower(&arch).expect("its own sub-network"));
    }
    space.subnetworks();
}

/// A study's problem in TOML, on a table of four cells.
pub fn problem(bytes: &[u8]) {
    let columns = |_: &Path| {
        Columns::from_bytes(PLACE, b"index,cell,top1,ms\n0,00,1,4\n1,01,2,3\n2,10,3,2\n3,11,4,1\n")
    };
    let files = Files { columns: &columns, space: &|name| Ok(space::preset(name)?) };
    let read = text(bytes).and_then(|text| checked(ProblemFile::from_toml(PLACE, text, &files)));
    if let Some(problem) = read {
        checked(problem.estimator().map(|_| ()));
    }
}

/// A study's table, each of whose columns may be its code.
pub fn study_table(bytes: &[u8]) {
    let Some(columns) = checked(Columns::from_bytes(PLACE, bytes)) else { return };
    for name in ["cell", "a", "b"] {
        let choices = Choices::Code { column: name.to_string(), names: Vec::new() };
        let Some(table) = checked(MetricTable::new(columns.clone(), &choices)) else { continue };
        for row in table.genome().all() {
            assert_eq!(columns.of(name).expect("its code")[table.line(&row)], table.text(&row));
        }
    }
}

/// A recipe in TOML.
pub fn recipe(bytes: &[u8]) {
    text(bytes).and_then(|text| checked(Recipe::from_toml(PLACE, text)));
}

/// A sub-network's canonical text.
pub fn arch(bytes: &[u8]) {
    let Some(arch) = text(bytes).and_then(|text| text.parse::<Arch>().ok()) else { return };
    assert_eq!(arch.to_string().parse::<Arch>().ok(), Some(arch.clone()));
    for name in ["tiny", "tiny-choice"] {
        let space = preset(name).expect("a preset");
        if space.check(&arch).is_ok() {
            assert_eq!(space.arch(&space.row(&arch).expect("it was checked")), arch);
        }
    }
}

/// Spaces of every family at one resolution, so that a `net.config` needs no other file.
fn families() -> &'static [SearchSpace] {
    static SPACES: OnceLock<Vec<SearchSpace>> = OnceLock::new();
    SPACES.get_or_init(|| {
        ["tiny", "tiny-choice", "ofa-proxyless-w1.0", "ofa-resnet50"]
            .map(|name: &str| {
                let space = preset(name).expect("a preset");
                space.at_resolutions(&space.resolutions()[..1]).expect("one of its own")
            })
            .to_vec()
    })
}

/// A JSON file that holds a sub-network.
pub fn arch_json(bytes: &[u8]) {
    for space in families() {
        let arch = text(bytes).and_then(|text| checked(arch_file::from_json(space, PLACE, text)));
        if let Some(arch) = arch.filter(|arch| space.check(arch).is_ok()) {
            space.lower(&arch).expect("it was checked");
            if let Ok(config) = arch_file::net_config(space, &arch) {
                let again = arch_file::from_json(space, PLACE, &config.to_string());
                assert_eq!(
                    again.ok().map(|again| again.choices().to_string()),
                    Some(arch.choices().to_string())
                );
            }
        }
    }
}

/// A supernet.
pub fn weights(bytes: &[u8]) {
    checked(Supernet::from_bytes(PLACE, bytes));
}

/// A file of PyTorch, or safetensors of another tool.
pub fn pytorch(bytes: &[u8]) {
    let Some(state) = checked(StateDict::from_bytes(PLACE, bytes)) else { return };
    for name in state.names() {
        let tensor = state.tensor(name).expect("its place in the file was checked");
        assert_eq!(tensor.dims(), state.get(name).expect("it was listed").shape());
    }
    checked(import(&preset("tiny").expect("a preset"), &state));
}

/// A training's checkpoint.
pub fn checkpoint(bytes: &[u8]) {
    checked(Checkpoint::from_bytes(PLACE, bytes));
}

/// A fine-tuning's checkpoint.
pub fn fine_tuning(bytes: &[u8]) {
    checked(FineTuneCheckpoint::from_bytes(PLACE, bytes));
}

/// A `config.json`; what follows the first NUL is its `model.safetensors`.
pub fn config(bytes: &[u8]) {
    let end = bytes.iter().position(|&byte| byte == 0).unwrap_or(bytes.len());
    let front = &bytes[..end];
    let rest = bytes.get(end + 1..).unwrap_or_default();
    let Some(config) = text(front).and_then(|text| checked(ModelConfig::from_json(PLACE, text))) else {
        return;
    };
    if let Some(model) = checked(ModelFolder::from_parts(config, PLACE, rest)) {
        model.preprocess().expect("it was checked");
        if checked(model.check_weights(PLACE)).is_some() {
            model.network(&kernels::Backend::reference()).expect("its weights were checked");
        }
    }
}

/// A latency table.
pub fn table(bytes: &[u8]) {
    let Some(table) = text(bytes).and_then(|text| checked(LatencyTable::from_json(PLACE, text))) else {
        return;
    };
    let written = table.to_json();
    assert_eq!(checked(LatencyTable::from_json(PLACE, &written)).map(|again| again.to_json()), Some(written));
}

/// A latency table of PyTorch's `ofa`.
pub fn ofa_table(bytes: &[u8]) {
    let Some(table) = text(bytes).and_then(|text| checked(OfaTable::from_yaml(PLACE, text))) else { return };
    for (key, (layer, _)) in table.rows().keys().zip(table.layers()) {
        assert_eq!(ofa_key(&layer).ok().as_ref(), Some(key));
    }
    assert_eq!(checked(OfaTable::from_yaml(PLACE, &table.to_yaml())), Some(table));
}

/// An ONNX file, which is run too.
pub fn onnx(bytes: &[u8]) {
    let Some(model) = checked(OnnxModel::from_bytes(PLACE, bytes)) else { return };
    checked(model.compare(&model)).expect("it equals itself");
    let shape = model.input_shape(2);
    let size = shape.iter().try_fold(1usize, |product, &size| product.checked_mul(size));
    if let Some(size) = size.filter(|&size| size <= 1024) {
        checked(model.run(&shape, &vec![0.5; size]));
    }
}

/// A plan to measure.
pub fn plan(bytes: &[u8]) {
    let Some(plan) = text(bytes).and_then(|text| checked(MeasurePlan::from_jsonl(PLACE, text))) else {
        return;
    };
    let written = plan.to_jsonl();
    assert_eq!(
        checked(MeasurePlan::from_jsonl(PLACE, &written)).map(|again| again.to_jsonl()),
        Some(written)
    );
}

/// Measured rows.
pub fn rows(bytes: &[u8]) {
    let Some(rows) = checked(Rows::from_bytes(PLACE, bytes)) else { return };
    if let Ok(table) = LatencyTable::from_rows(PLACE, &rows, 0.03, None) {
        table.to_json();
    }
}

/// The result of a search.
pub fn found(bytes: &[u8]) {
    let Some(found) = text(bytes).and_then(|text| checked(Found::from_json(PLACE, text))) else { return };
    assert_eq!(checked(Found::from_json(PLACE, &found.to_json())), Some(found));
}

/// The log of a search.
pub fn search_log(bytes: &[u8]) {
    let Some(log) = checked(SearchLog::from_bytes(PLACE, bytes)) else { return };
    assert_eq!(checked(SearchLog::from_bytes(PLACE, log.to_jsonl().as_bytes())), Some(log));
}

/// An evaluator's answer.
pub fn answer(bytes: &[u8]) {
    let metrics = [Metric::new("top1", "share", Better::Higher), Metric::new("loss", "1", Better::Lower)];
    let arch = sampler::largest(&preset("tiny").expect("a preset"));
    let Some(line) = text(bytes) else { return };
    if let Ok(Answer::Values(values)) = Answer::read(line, &arch, &metrics) {
        assert!(values.iter().all(|value| value.mean.is_finite()));
    }
}

/// Results of trials.
pub fn trial(bytes: &[u8]) {
    text(bytes).and_then(|text| checked(results_from_json(PLACE, text)));
}

/// Rows of accuracies.
pub fn accuracy(bytes: &[u8]) {
    text(bytes).and_then(|text| checked(accuracy_file::from_text(PLACE, text)));
}

/// An accuracy estimator.
pub fn estimator(bytes: &[u8]) {
    let Some(estimator) = checked(AccuracyEstimator::from_bytes(PLACE, bytes)) else { return };
    let largest = sampler::largest(estimator.space());
    estimator.predict(&[largest]).expect("a sub-network of its space");
}

/// An accuracy predictor of PyTorch's `ofa`.
pub fn predictor(bytes: &[u8]) {
    let space = preset("tiny").expect("a preset");
    let read = AccuracyEstimator::import_bytes(&space, PLACE, "x.pth", bytes, &[]);
    let Some(imported) = checked(read) else { return };
    let written = imported.to_bytes().expect("checked layers");
    let again = checked(AccuracyEstimator::from_bytes(PLACE, &written)).expect("own bytes");
    assert_eq!(again.to_bytes().expect("the same layers"), written);
    imported.predict(&[sampler::largest(imported.space())]).expect("a sub-network of its space");
}

/// An IDX file of labels or images.
pub fn idx(bytes: &[u8]) {
    if let Some(([count], values)) = checked(idx_from_bytes::<1>(PLACE, bytes)) {
        assert_eq!(count, values.len());
    }
    if let Some((sizes, values)) = checked(idx_from_bytes::<3>(PLACE, bytes)) {
        assert_eq!(sizes.iter().product::<usize>(), values.len());
    }
}

/// A list of images, their classes and splits.
pub fn list(bytes: &[u8]) {
    let Some(images) = checked(list_from_text(PLACE, &String::from_utf8_lossy(bytes))) else { return };
    let quoted = |text: &str| format!("\"{}\"", text.replace('"', "\"\""));
    let mut text = "path,label,split\n".to_string();
    for image in &images {
        let path = quoted(&image.path.to_string_lossy());
        text.push_str(&format!("{path},{},{}\n", quoted(&image.class), image.split));
    }
    let again = list_from_text(PLACE, &text).expect("what was read can be read again");
    let parts =
        |images: Vec<ListedImage>| images.into_iter().map(|i| (i.path, i.class, i.split)).collect::<Vec<_>>();
    assert_eq!(parts(again), parts(images));
}

/// An image of any supported format.
pub fn image(bytes: &[u8]) {
    let Some(image) = checked(ImageFile::from_bytes(PLACE, bytes)) else { return };
    let [height, width] = image.size();
    assert_eq!(
        image.clone().oriented(Orient::Exif).into_pixels(1, Grey::Rec601).map(|pixels| pixels.len()),
        Some(height * width)
    );
    assert_eq!(image.into_pixels(3, Grey::Rec709).map(|pixels| pixels.len()), Some(3 * height * width));
}

/// A numpy array, and as an image.
pub fn npy(bytes: &[u8]) {
    let Some(array) = checked(NpyArray::from_bytes(PLACE, bytes)) else { return };
    assert_eq!(array.values().len(), array.shape().iter().product::<usize>());
    assert!(array.values().iter().all(|value| value.is_finite()));
    if let Some(values) = checked(array.clone().into_floats(PLACE, [1, 2, 3])) {
        assert_eq!(values.len(), 6);
    }
    if let Some((values, [height, width, channels])) = checked(array.into_image(PLACE)) {
        assert!(values.len() == height * width * channels && !values.is_empty());
    }
}
