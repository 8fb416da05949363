use network::checkpoint::Interface;
use network::data::Dataset;
use serde_json::json;
use space::sampler;

use super::testing::{largest, request, supernet};
use super::*;

/// Every file of a folder by name.
fn files(folder: &Path) -> BTreeMap<String, Vec<u8>> {
    let entries = folder.read_dir().expect("a folder").map(|entry| entry.expect("an entry").path());
    entries.map(|path| (name(&path), std::fs::read(&path).expect("a file"))).collect()
}

fn name(path: &Path) -> String {
    path.file_name().expect("a name").to_string_lossy().into_owned()
}

/// The names of what lies in a folder.
fn names(folder: &Path) -> Vec<String> {
    let entries = folder.read_dir().expect("a folder").map(|entry| name(&entry.expect("an entry").path()));
    let mut names: Vec<String> = entries.collect();
    names.sort();
    names
}

#[test]
fn an_export_is_verified_and_leaves_nothing_next_to_it() {
    let at = tempfile::tempdir().expect("a folder");
    let folder = at.path().join("model");
    let supernet = supernet("tiny");
    let arch = largest(&supernet);
    let exported = export(&request(&supernet, &arch), &folder).expect("verified");
    assert_eq!(names(at.path()), ["model"]);
    assert_eq!(names(&folder), ["config.json", "model.safetensors"]);
    assert_eq!(ModelFolder::read(&folder).expect("a model").config, exported.model.config);
    let verification = verify(&folder, &supernet, None, &Backend::detect(), None).expect("equal");
    assert_eq!(verification, exported.verification);
}

#[test]
fn an_export_replaces_an_earlier_one_and_its_formats() {
    let at = tempfile::tempdir().expect("a folder");
    let folder = at.path().join("model");
    let supernet = supernet("tiny");
    let arch = sampler::smallest(&supernet.space);
    for (formats, expected) in [
        (&Format::ALL[..], &["model.onnx", "net.config", "run.config"][..]),
        (&[Format::Onnx], &["model.onnx"]),
        (&[], &[]),
    ] {
        let exported = export(&Request { formats, ..request(&supernet, &arch) }, &folder).expect("verified");
        assert_eq!(exported.model.config.files.keys().collect::<Vec<_>>(), expected);
        let mut expected = [expected, &["config.json", "model.safetensors"]].concat();
        expected.sort_unstable();
        assert_eq!(names(&folder), expected);
    }
}

#[test]
fn a_failed_export_leaves_the_earlier_one() {
    let at = tempfile::tempdir().expect("a folder");
    let folder = at.path().join("model");
    let sound = supernet("tiny");
    let arch = largest(&sound);
    export(&request(&sound, &arch), &folder).expect("verified");
    let before = files(&folder);

    let without = Supernet { statistics: None, ..supernet("tiny") };
    let mut broken = supernet("tiny");
    for pair in broken.statistics.iter_mut().flat_map(BTreeMap::values_mut) {
        *pair = pair.affine(f64::NAN, 0.0).expect("f32");
    }
    let floats = supernet("tiny-spectrogram");
    let foreign = largest(&floats);
    let ofa = Request { formats: &[Format::Ofa], ..request(&floats, &foreign) };
    for (request, part) in [
        (request(&sound, &foreign), "r40x101"),
        (request(&without, &arch), "leave out --inherit-bn"),
        (request(&broken, &arch), "expected finite values, got NaN"),
        (ofa, "ofa"),
    ] {
        let error = export(&request, &folder).err().expect(part).to_string();
        assert!(error.contains(part), "{error}");
        assert!(files(&folder) == before, "{part}");
        assert_eq!(names(at.path()), ["model"], "{part}");
    }
}

#[test]
fn a_destination_is_free_or_an_earlier_export() {
    let at = tempfile::tempdir().expect("a folder");
    let supernet = supernet("tiny");
    let earlier = at.path().join("earlier");
    export(&request(&supernet, &largest(&supernet)), &earlier).expect("verified");
    let config = files(&earlier).remove("config.json").expect("written");
    let config = String::from_utf8(config).expect("JSON");
    for (name, content, refused) in [
        ("empty", &[][..], None),
        ("export", &[("config.json", config.as_str()), ("model.safetensors", ""), ("SHA256SUMS", "")], None),
        ("formats", &[("config.json", config.as_str()), ("model.onnx", ""), ("run.config", "")], None),
        ("notes", &[("config.json", config.as_str()), ("notes.txt", "")], Some("holds `notes.txt`")),
        ("weights", &[("model.safetensors", "")], Some("holds no earlier export")),
        ("other", &[("config.json", "{}")], Some("holds no earlier export")),
    ] {
        let folder = at.path().join(name);
        std::fs::create_dir(&folder).expect("made");
        for (file, text) in content {
            std::fs::write(folder.join(file), text).expect("written");
        }
        let error = check_destination(&folder).err().map(|error| error.to_string());
        match (refused, error) {
            (None, None) => {}
            (Some(part), Some(error)) => assert!(error.contains(part), "{name}: {error}"),
            (refused, error) => panic!("{name}: expected {refused:?}, got {error:?}"),
        }
    }
    check_destination(&at.path().join("new")).expect("free");
    let error = check_destination(&at.path().join("no/folder/new")).expect_err("no parent").to_string();
    assert!(error.contains("no/folder"), "{error}");
}

#[test]
fn the_configuration_has_what_the_request_says() {
    let at = tempfile::tempdir().expect("a folder");
    let supernet = supernet("tiny");
    let arch = largest(&supernet);
    let run = BTreeMap::from([("unix_seconds".to_string(), json!(7))]);
    let expecting = Request {
        predicted_top1: Some(0.75),
        predicted_latency_ms: Some(1.5),
        run: run.clone(),
        ..request(&supernet, &arch)
    };
    let config = export(&expecting, &at.path().join("model")).expect("verified").model.config;
    assert_eq!((&config.arch, &config.run, config.space.name()), (&arch, &run, "tiny"));
    let origin = &config.origin;
    assert_eq!((origin.predicted_top1, origin.predicted_latency_ms), (Some(0.75), Some(1.5)));
    assert_eq!((origin.supernet.as_str(), &origin.measured), ("a supernet", &None));
    assert_eq!(origin.statistics, StatisticsOrigin::Inherited);
}

#[test]
fn class_names_are_the_supernets_the_data_sets_or_numbers() {
    let digits = Dataset::open("digits").expect("embedded");
    let named: Vec<String> = (0..10).map(|class| format!("digit {class}")).collect();
    let numbers: Vec<String> = (0..10).map(|class| class.to_string()).collect();
    let unnamed = supernet("tiny");
    let interface = Interface { classes: Some(named.clone()), ..unnamed.interface.clone() };
    let known = Supernet { interface, ..supernet("tiny") };
    for (supernet, dataset, expected) in
        [(&known, None, &named[..]), (&unnamed, None, &numbers), (&unnamed, Some(&digits), digits.classes())]
    {
        let arch = largest(supernet);
        let request =
            Request { statistics: NormStatistics::Inherited { dataset }, ..request(supernet, &arch) };
        let model = assemble(&request, dataset).expect("it fits");
        assert_eq!(model.config.classes, expected);
        let counted = model.config.origin.measured.map(|measured| (measured.n, measured.split));
        assert_eq!(counted, dataset.map(|dataset| (dataset.val().len(), "val".to_string())));
    }
}
