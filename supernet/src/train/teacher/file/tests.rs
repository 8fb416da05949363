use std::path::PathBuf;

use base::random::rng_for;
use network::checkpoint::{self, DescribedWeights, Interface, Kind, Training};
use network::elastic::SubnetWeights;
use space::preset;

use super::*;
use crate::train::testing::{digits, model, tiny};

/// A supernet of fresh weights with this interface.
fn supernet(at: &Path, space: &SearchSpace, interface: &Interface) -> PathBuf {
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
    let path = at.join("supernet.safetensors");
    let described = DescribedWeights { space, interface, weights: &weights };
    checkpoint::write_weights(&path, Kind::Supernet, described, training).expect("written");
    path
}

fn images() -> Tensor {
    let values: Vec<f32> = (0..4 * 64).map(|i| ((i * 37 % 101) as f32 - 50.0) / 50.0).collect();
    Tensor::from_vec(values, (4, 1, 8, 8), &candle_core::Device::Cpu).expect("sizes agree")
}

fn rows(logits: &Tensor) -> Vec<Vec<f32>> {
    logits.to_vec2().expect("logits")
}

#[test]
fn the_largest_network_of_a_supernet_teaches() {
    let folder = tempfile::tempdir().expect("a folder");
    let space = tiny();
    let backend = Backend::detect();
    let path = supernet(folder.path(), &space, &Interface::of(&digits()));
    let own = Supernet::read(&path).expect("whole");
    let teacher = TeacherFile::read(&path).expect("a supernet").on(&backend).expect("room");
    assert_eq!((teacher.hash(), teacher.place()), (own.hash.as_str(), path.display().to_string().as_str()));
    let of_folder = TeacherFile::read(folder.path()).expect("a run's folder");
    let student = Student { space: &space, weights: &own.weights, backend: backend.clone() };
    let expected = student.teach(&sampler::largest(&space).at(8), &images()).expect("it fits");
    for teacher in [teacher, of_folder] {
        assert_eq!(rows(&teacher.teach(&images(), &backend).expect("it fits")), rows(&expected));
    }
}

#[test]
fn an_exported_network_teaches_with_the_statistics_of_the_batch() {
    let folder = tempfile::tempdir().expect("a folder");
    let space = tiny();
    let backend = Backend::detect();
    let model = model();
    model.write(folder.path()).expect("written");
    let teacher = TeacherFile::read(folder.path()).expect("a model").on(&backend).expect("room");
    assert_eq!(teacher.hash(), model.config.model_hash);
    // the export is of weights drawn from seed 1
    let weights = SharedWeights::new(&space, &mut rng_for("weights", 1, &[])).expect("weights");
    let layers = space.lower(&sampler::smallest(&space).at(8)).expect("legal");
    let subnet = SubnetWeights::new(&space, &weights, &layers, &backend).expect("its space");
    let network = Network::new(&layers, &subnet.values().expect("views")).expect("a network");
    let expected = network.forward(&images(), Pass::BatchStatistics).expect("it fits");
    let got = teacher.teach(&images(), &backend).expect("it fits");
    for (got, expected) in rows(&got).concat().iter().zip(rows(&expected).concat()) {
        assert!((got - expected).abs() <= 1e-5 * expected.abs().max(1.0), "{got}, expected {expected}");
    }
    assert!(
        teacher.values()
            < SharedWeights::new(&space, &mut rng_for("w", 1, &[])).expect("w").arena().values().elem_count()
    );
}

#[test]
fn a_teacher_of_other_images_or_classes_is_refused() {
    let folder = tempfile::tempdir().expect("a folder");
    let space = tiny();
    let data = digits();
    let with = |interface: &Interface| {
        TeacherFile::read(&supernet(folder.path(), &space, interface)).expect("a supernet")
    };
    let seen = Interface::of(&data);
    let teacher = with(&seen);
    teacher.check_fits(&space).expect("its own");
    teacher.check_sees(&data).expect("its own");
    with(&Interface::default()).check_sees(&data).expect("it says nothing");
    for (other, field) in [
        (space.with_classes(7).expect("a space"), "classes: expected 7, got 10"),
        (preset("ofa-mbv3-w1.0").expect("a preset"), "channels: expected 3, got 1"),
    ] {
        let error = teacher.check_fits(&other).expect_err("another's").to_string();
        assert!(error.starts_with("teacher ") && error.contains(field), "{error}");
    }
    let mut turned = seen.clone();
    turned.classes.iter_mut().for_each(|classes| classes.reverse());
    let error = with(&turned).check_sees(&data).expect_err("another order").to_string();
    assert!(error.contains("classes: expected those of data digits, in their order"), "{error}");
    let mut shifted = seen;
    let normalization = network::data::Normalization::new(vec![0.5], vec![0.5]).expect("numbers");
    shifted.preprocess.iter_mut().for_each(|preprocess| preprocess.normalization = normalization.clone());
    let error = with(&shifted).check_sees(&data).expect_err("another scale").to_string();
    assert!(error.contains("normalization: expected mean [") && error.contains("got mean [0.5]"), "{error}");
}

#[test]
fn what_is_no_teacher_is_refused() {
    let folder = tempfile::tempdir().expect("a folder");
    let error = TeacherFile::read(folder.path()).err().expect("empty").to_string();
    assert!(
        error.contains("expected config.json, supernet.safetensors or teacher.safetensors, got none"),
        "{error}"
    );
    assert!(TeacherFile::read(&folder.path().join("none.safetensors")).is_err());
}

#[test]
fn a_file_is_given_where_a_phase_asks_for_it_and_only_there() {
    let mut recipe = Recipe::progressive();
    let path = Path::new("teacher.safetensors");
    let error = TeacherFile::for_recipe(Some(path), &recipe).err().expect("nobody asks").to_string();
    assert!(error.contains("expected one for teacher.safetensors, got none; leave --teacher out"), "{error}");
    assert!(TeacherFile::for_recipe(None, &recipe).expect("neither").is_none());
    recipe.phases[1].teacher = Teacher::File;
    let error = TeacherFile::for_recipe(None, &recipe).err().expect("one is needed").to_string();
    assert!(
        error.contains("recipe progressive: phases[2] (kernel).teacher: expected a teacher file"),
        "{error}"
    );
    assert!(error.contains("with --teacher"), "{error}");
}
