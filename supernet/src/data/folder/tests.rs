use super::*;
use crate::data::eval_batches;
use image::{GrayImage, Luma, Rgb, RgbImage};

/// A folder with `count` grey images of 8 x 6 in each class of each split.
fn folder(splits: &[&str], classes: &[&str], count: u32) -> tempfile::TempDir {
    let folder = tempfile::tempdir().unwrap();
    for (split, class) in splits.iter().flat_map(|split| classes.iter().map(move |class| (split, class))) {
        let at = folder.path().join(split).join(class);
        std::fs::create_dir_all(&at).unwrap();
        for i in 0..count {
            let image = GrayImage::from_fn(8, 6, |x, y| Luma([(x * 10 + y + i) as u8]));
            image.save(at.join(format!("{i:04}.png"))).unwrap();
        }
    }
    folder
}

fn refusal(folder: &Path) -> String {
    open(folder).expect_err("refused").to_string()
}

#[test]
fn a_folder_with_splits_is_read_as_it_lies() {
    let data = folder(&["train", "val", "test"], &["cat", "dog"], 3);
    let colour = RgbImage::from_fn(20, 40, |_, _| Rgb([255, 0, 0]));
    colour.save(data.path().join("train/dog/9.jpg")).unwrap();
    let nested = data.path().join("train/cat/more");
    std::fs::create_dir(&nested).unwrap();
    std::fs::copy(data.path().join("train/cat/0000.png"), nested.join("a.PNG")).unwrap();
    std::fs::write(data.path().join("train/cat/notes.txt"), "no image").unwrap();
    let set = open(data.path()).unwrap();
    assert_eq!(set.classes(), ["cat", "dog"]);
    assert_eq!(set.train().labels(), [0, 0, 0, 0, 1, 1, 1, 1]);
    assert_eq!((set.val().len(), set.split(Split::Test).unwrap().len()), (6, 6));
    assert_eq!(
        (set.channels(), set.size(), set.flip()),
        (3, 6, true),
        "one colour image makes three channels"
    );
    assert!(set.skipped().is_empty());
    let mean: Vec<f32> = set.normalisation().mean().to_vec();
    assert!(mean[0] > mean[1] && (mean[1] - mean[2]).abs() < 1e-2, "a red image among grey ones: {mean:?}");
    let batches: Vec<_> =
        eval_batches(set.train(), set.normalisation(), 8, 3).map(|batch| batch.unwrap()).collect();
    assert_eq!(batches.iter().map(|batch| batch.len()).collect::<Vec<_>>(), [3, 3, 2]);
    assert_eq!(batches[0].images.dims(), [3, 3, 8, 8]);
}

#[test]
fn without_val_a_tenth_of_each_class_is_held_out() {
    let data = folder(&["train"], &["a", "b"], 20);
    let set = open(data.path()).unwrap();
    let of = |images: &Images, class| images.labels().iter().filter(|label| **label == class).count();
    assert_eq!([of(set.train(), 0), of(set.train(), 1), of(set.val(), 0), of(set.val(), 1)], [18, 18, 2, 2]);
    assert_eq!(set.hash(), open(data.path()).unwrap().hash());
    assert!(set.split(Split::Test).is_err());
    std::fs::write(data.path().join("dataset.toml"), "flip = false\nsource = \"mine, CC0\"\n").unwrap();
    let told = open(data.path()).unwrap();
    assert_eq!((told.flip(), told.source()), (false, "mine, CC0"));
    std::fs::write(data.path().join("dataset.toml"), "flop = false").unwrap();
    assert!(refusal(data.path()).contains("dataset.toml: text: expected `flip` and `source`"));
}

#[test]
fn the_hash_is_of_the_contents() {
    let (one, two) = (folder(&["train"], &["a", "b"], 20), folder(&["train"], &["a", "b"], 20));
    let hash = |folder: &tempfile::TempDir| open(folder.path()).unwrap().hash().to_string();
    assert_eq!(hash(&one), hash(&two), "wherever it lies");
    GrayImage::new(8, 6).save(two.path().join("train/b/0000.png")).unwrap();
    assert_ne!(hash(&one), hash(&two));
}

#[test]
fn a_few_broken_images_are_skipped_and_more_stop() {
    let data = folder(&["train"], &["a", "b"], 100);
    let at = |name: &str| data.path().join("train/a").join(name);
    std::fs::write(at("0007.png"), b"\x89PNG\r\n\x1a\nbroken").unwrap();
    GrayImage::new(1, 30).save(at("0008.png")).unwrap();
    let set = open(data.path()).unwrap();
    assert_eq!(set.train().len() + set.val().len(), 198);
    let skipped: Vec<_> =
        set.skipped().iter().map(|skipped| skipped.path.rsplit('/').next().unwrap()).collect();
    assert_eq!(skipped, ["0007.png", "0008.png"]);
    assert!(set.skipped()[1].reason.contains("got 1 x 30"), "{:?}", set.skipped()[1]);
    std::fs::write(at("0009.png"), "").unwrap();
    let message = refusal(data.path());
    assert!(
        message.contains("expected at most 1 %, got 3 of 200") && message.contains("0007.png"),
        "{message}"
    );
}

#[test]
fn what_is_missing_is_said_with_what_to_change() {
    let data = folder(&["train", "val"], &["a", "b"], 2);
    let at = |name: &str| data.path().join(name);
    std::fs::rename(at("val/b"), at("val/c")).unwrap();
    let message = refusal(data.path());
    assert!(
        message.contains("val: classes: expected a folder `b` as in train, got none; every"),
        "{message}"
    );
    std::fs::create_dir(at("val/b")).unwrap();
    assert!(refusal(data.path()).contains("got a folder `c` besides"));
    std::fs::rename(at("val/c"), at("elsewhere")).unwrap();
    let message = refusal(data.path());
    assert!(
        message.contains("val/b: images: expected at least one .png, .jpg or .jpeg, got none"),
        "{message}"
    );
    std::fs::write(at("val/b/x.webp"), "").unwrap();
    assert!(refusal(data.path()).contains("got 1 of type .webp; add images, convert them"));
    std::fs::remove_dir_all(at("val")).unwrap();
    std::fs::remove_file(at("train/a/0001.png")).unwrap();
    assert!(refusal(data.path()).contains("at least 2, to hold one out, got 1"));
    std::fs::remove_dir_all(at("train")).unwrap();
    assert!(refusal(data.path()).contains("got no such folder; give a folder with train/<class>"));
    std::fs::create_dir(at("train")).unwrap();
    assert!(refusal(data.path()).contains("classes: expected a folder for each, got none"));
    assert!(refusal(&at("nowhere")).contains("cannot open the folder"));
}

#[test]
fn an_image_that_breaks_later_is_an_error_that_names_it() {
    let data = folder(&["train"], &["a"], 20);
    let set = open(data.path()).unwrap();
    for i in 0..20 {
        std::fs::write(data.path().join(format!("train/a/{i:04}.png")), "gone bad").unwrap();
    }
    let error = eval_batches(set.train(), set.normalisation(), 8, 4).next().unwrap().unwrap_err().to_string();
    assert!(error.contains("0000.png") && error.contains("put it back and resume"), "{error}");
}
