use super::*;
use crate::data::augment::{Augmentation, AugmentationSettings, RandAugment, plain_view};
use crate::data::testing::npy;
use crate::data::{Grey, Image, Images, PixelKind, Pixels, Preprocess};
use base::random::rng_for;

/// An array of 2 x 3 values from `first` on, rising by a half.
fn array(first: f32) -> Vec<u8> {
    let values = (0..6).flat_map(|at| (first + at as f32 / 2.0).to_le_bytes());
    npy("<f4", "False", "(2, 3)", &values.collect::<Vec<u8>>())
}

/// A folder with these files.
fn folder(files: &[(&str, Vec<u8>)]) -> tempfile::TempDir {
    let folder = tempfile::tempdir().expect("a folder");
    for (path, bytes) in files {
        let path = folder.path().join(path);
        std::fs::create_dir_all(path.parent().expect("a folder")).expect("made");
        std::fs::write(path, bytes).expect("written");
    }
    folder
}

fn opened(folder: &tempfile::TempDir) -> Result<Dataset> {
    open(folder.path(), |at| About::read(at, None))
}

/// Four arrays of each of two classes, besides what a test adds.
fn plain(more: &[(&str, Vec<u8>)]) -> tempfile::TempDir {
    let mut files = Vec::new();
    let names: Vec<String> =
        (0..8).map(|at| format!("train/{}/{at}.npy", if at < 4 { "down" } else { "up" })).collect();
    for (at, name) in names.iter().enumerate() {
        files.push((name.as_str(), array(at as f32)));
    }
    files.extend(more.iter().cloned());
    folder(&files)
}

fn values(images: &Images) -> Vec<f32> {
    let Images::Pixels(set) = images else { panic!("in memory") };
    set.all_pixels().floats().expect("floats").to_vec()
}

#[test]
fn a_folder_of_arrays_is_a_data_set() {
    let set = opened(&plain(&[])).expect("a data set");
    assert_eq!(set.classes(), ["down", "up"]);
    assert_eq!((set.train().len(), set.val().len(), set.channels(), set.flip()), (6, 2, 1, false));
    assert_eq!((set.train().kind(), set.size()), (PixelKind::Floats, 2));
    assert!(set.split(Split::Test).is_err() && set.warnings().is_empty());
    assert!(set.in_words().contains("6 train, 2 val (a fixed tenth of each class of train/)"));
    let all: Vec<f32> = [values(set.train()), values(set.val())].concat();
    let mut firsts: Vec<f32> = all.chunks(6).map(|array| array[0]).collect();
    firsts.sort_by(f32::total_cmp);
    assert_eq!(firsts, [0.0, 1.0, 2.0, 3.0, 4.0, 5.0, 6.0, 7.0]);
    // values as they are, mean and deviation theirs
    let of_train = values(set.train());
    let mean = of_train.iter().sum::<f32>() / of_train.len() as f32;
    assert!((set.normalization().mean()[0] - mean).abs() < 1e-5);
    assert_eq!(set.preprocess().values, PixelKind::Floats);
}

#[test]
fn splits_of_their_own_are_read_and_doubles_told_of() {
    let set = opened(&plain(&[
        ("val/up/a.npy", array(100.0)),
        ("val/down/b.npy", array(3.0)),
        ("test/up/c.npy", array(100.0)),
        ("test/down/d.npy", array(-4.0)),
        ("train/up/notes.txt", b"?".to_vec()),
        ("train/up/picture.png", b"?".to_vec()),
        ("train/up/.hidden.npy", b"?".to_vec()),
    ]))
    .expect("a data set");
    assert_eq!(
        [Split::Train, Split::Val, Split::Test].map(|split| set.split(split).expect("there").len()),
        [8, 2, 2]
    );
    let warnings = set.warnings().join("\n");
    for part in [
        "passed over in train: 2 files that are no arrays (1 .png, 1 .txt)",
        "1 array of val in train too",
        "1 array of test in val too",
    ] {
        assert!(warnings.contains(part), "{part}: {warnings}");
    }
}

#[test]
fn the_hash_covers_values_and_labels() {
    let hash = |more: &[(&str, Vec<u8>)]| opened(&plain(more)).expect("a data set").hash().to_string();
    let first = hash(&[]);
    assert_eq!(first, hash(&[]));
    assert_ne!(first, hash(&[("train/up/9.npy", array(9.0))]));
    assert_ne!(first, hash(&[("train/up/7.npy", array(7.001))]));
}

#[test]
fn channels_come_first_in_files_and_last_in_pixels() {
    let bytes: Vec<u8> = (0..12i16).flat_map(i16::to_be_bytes).collect();
    let two = npy(">i2", "False", "(2, 2, 3)", &bytes);
    let files = ["train/a/0.npy", "train/a/1.npy", "val/a/2.npy"].map(|path| (path, two.clone()));
    let set = opened(&folder(&files)).expect("a data set");
    assert_eq!(set.channels(), 2);
    let Images::Pixels(images) = set.train() else { panic!("in memory") };
    assert_eq!(images.pixels(0).part(0, 4), Pixels::Floats(&[0.0, 6.0, 1.0, 7.0]));
    assert_eq!(set.normalization().mean(), [2.5, 8.5]);
}

#[test]
fn unusable_arrays_are_refused_by_name() {
    let nan = npy("<f4", "False", "(1, 1)", &f32::NAN.to_le_bytes());
    for (path, bytes, part) in [
        ("train/up/x.npy", nan, "x.npy: values: expected finite numbers, got NaN"),
        ("train/up/x.npy", b"PNG".to_vec(), "x.npy: header: expected numpy's .npy format"),
        ("val/up/x.npy", array(0.0)[..90].to_vec(), "val: classes: expected a folder `down` as in train"),
        ("train/up/x.npy", npy("|u1", "False", "(3, 2)", &[0; 6]), "x.npy: shape: expected (2, 3) as in"),
        (
            "train/up/x.npy",
            npy("|u1", "False", "(6,)", &[0; 6]),
            "x.npy: shape: expected (rows, columns), or",
        ),
        ("train/none/x.txt", Vec::new(), "none: arrays: expected at least one, got 1 file that is no array"),
        ("train/one/x.npy", array(1.0), "one: arrays: expected at least 2, to hold one out, got 1"),
    ] {
        let error = opened(&plain(&[(path, bytes)])).expect_err(part).to_string();
        assert!(error.contains(part), "{part}: {error}");
    }
}

#[test]
fn networks_of_other_values_do_not_see_arrays() {
    let set = opened(&plain(&[])).expect("a data set");
    let bytes = Preprocess { values: PixelKind::Bytes, ..set.preprocess().clone() };
    let error = set.seen_as(bytes).expect_err("bytes").to_string();
    assert!(
        error.contains("values: expected images of 8 bits for the network, got arrays of floats"),
        "{error}"
    );
    let digits = Dataset::open("digits").expect("embedded");
    let error = digits.seen_as(set.preprocess().clone()).expect_err("floats").to_string();
    assert!(
        error.contains("values: expected arrays of floats for the network, got images of 8 bits"),
        "{error}"
    );
    assert!(set.seen_as(Preprocess { grey: Grey::Rec709, ..set.preprocess().clone() }).is_ok());
}

#[test]
fn training_keeps_all_rows_and_most_columns() {
    let set = opened(&plain(&[])).expect("a data set");
    let augmentation =
        Augmentation::for_dataset(&set, AugmentationSettings::default()).expect("none is wrong");
    assert_eq!((augmentation.min_width, augmentation.flip), (Some(0.8), false));
    let mut seen = [0; 102];
    for seed in 0..500 {
        let resolution = space::Extent { height: 40, width: 101 };
        let crop = augmentation.crop([40, 101], resolution, &mut rng_for("crop", seed, &[]));
        assert!((crop.top, crop.height) == (0, 40) && crop.left + crop.width <= 101, "{crop:?}");
        seen[crop.width] += 1;
    }
    assert!(seen[..81].iter().all(|count| *count == 0) && seen[81] > 0 && seen[101] > 0);
    // said otherwise, it is as for images
    let said = AugmentationSettings { min_area: Some(0.5), ..AugmentationSettings::default() };
    assert_eq!(Augmentation::for_dataset(&set, said).expect("as images").min_width, None);
    let said = AugmentationSettings { brightness: Some(0.2), ..AugmentationSettings::default() };
    let error = Augmentation::for_dataset(&set, said).expect_err("no colors").to_string();
    assert!(
        error.contains("augmentation.brightness: expected 0 for arrays, which have no colors"),
        "{error}"
    );
    let operations = Some(RandAugment { operations: 2, magnitude: 9 });
    let said = AugmentationSettings { rand_augment: operations, ..AugmentationSettings::default() };
    let error = Augmentation::for_dataset(&set, said).expect_err("no bytes").to_string();
    assert!(
        error.contains("augmentation.rand_augment: expected none for arrays")
            && error.contains("got 2 operations of magnitude 9"),
        "{error}"
    );
    let said =
        AugmentationSettings { erasing: Some(0.25), mixup: Some(0.2), ..AugmentationSettings::default() };
    let augmentation = Augmentation::for_dataset(&set, said).expect("for arrays as well");
    assert_eq!((augmentation.erasing, augmentation.mixup, augmentation.cutmix), (0.25, 0.2, 0.0));
}

/// Values far from those of pixels are neither rounded nor cut off, resized or not.
#[test]
fn views_of_floats_are_those_of_their_values() {
    let set = opened(&plain(&[])).expect("a data set");
    let normalization = crate::data::Normalization::new(vec![-100.0], vec![2.0]).expect("positive");
    let preprocess = Preprocess { normalization, ..set.preprocess().clone() };
    let values = [-1000.25, 3e-3, 700.5, -0.5];
    let image = Image::of_floats(&values, [2, 2, 1]).expect("four values");
    let mut out = [0.0; 4];
    plain_view(image, 2, &preprocess, &mut out);
    assert_eq!(out, values.map(|value| (value + 100.0) / 2.0));
    let mut one = [0.0];
    plain_view(image, 1, &preprocess, &mut one);
    let mean = values.iter().sum::<f32>() / 4.0;
    assert!((one[0] - (mean + 100.0) / 2.0).abs() < 1e-3, "{one:?}");
}
