use image::{DynamicImage, GrayImage, ImageFormat, Luma, Rgb, RgbImage};
use space::preset;

use super::*;
use crate::data::images::Images;
use crate::data::{Dataset, Filter, Normalization, Orient, Preprocess, Resize, eval_batches};

/// A folder with `count` grey images of 8 x 6 in each class of each split, each another.
fn folder(splits: &[&str], classes: &[&str], count: u32) -> tempfile::TempDir {
    let folder = tempfile::tempdir().unwrap();
    let mut made = 0;
    for (split, class) in splits.iter().flat_map(|split| classes.iter().map(move |class| (split, class))) {
        let at = folder.path().join(split).join(class);
        std::fs::create_dir_all(&at).unwrap();
        for i in 0..count {
            made += 1;
            save(&at.join(format!("{i:04}.png")), made);
        }
    }
    folder
}

fn opened(folder: &Path) -> Result<Dataset> {
    Dataset::open(&format!("folder:{}", folder.display()))
}

fn refusal(folder: &Path) -> String {
    opened(folder).expect_err("refused").to_string()
}

#[test]
fn a_folder_with_splits_is_read_as_it_lies() {
    let data = folder(&["train", "val", "test"], &["cat", "dog"], 3);
    let color = RgbImage::from_fn(20, 40, |_, _| Rgb([255, 0, 0]));
    color.save(data.path().join("train/dog/9.jpg")).unwrap();
    let nested = data.path().join("train/cat/more");
    std::fs::create_dir(&nested).unwrap();
    std::fs::copy(data.path().join("train/cat/0000.png"), nested.join("a.PNG")).unwrap();
    std::fs::write(data.path().join("train/cat/notes.txt"), "no image").unwrap();
    let set = opened(data.path()).unwrap();
    assert_eq!(set.classes(), ["cat", "dog"]);
    assert_eq!(set.train().labels(), [0, 0, 0, 0, 1, 1, 1, 1]);
    assert_eq!((set.val().len(), set.split(Split::Test).unwrap().len()), (6, 6));
    assert_eq!(
        (set.channels(), set.size(), set.flip()),
        (3, 6, true),
        "one color image makes three channels"
    );
    assert!(set.skipped().is_empty());
    let mean: Vec<f32> = set.normalization().mean().to_vec();
    assert!(mean[0] > mean[1] && (mean[1] - mean[2]).abs() < 1e-2, "a red image among grey ones: {mean:?}");
    let batches: Vec<_> =
        eval_batches(set.train(), set.preprocess(), 8, 3).map(|batch| batch.unwrap()).collect();
    assert_eq!(batches.iter().map(|batch| batch.len()).collect::<Vec<_>>(), [3, 3, 2]);
    assert_eq!(batches[0].inputs.dims(), [3, 3, 8, 8]);
}

#[test]
fn without_val_a_tenth_of_each_class_is_held_out() {
    let data = folder(&["train"], &["a", "b"], 20);
    let set = opened(data.path()).unwrap();
    let of = |images: &Images, class| images.labels().iter().filter(|label| **label == class).count();
    assert_eq!([of(set.train(), 0), of(set.train(), 1), of(set.val(), 0), of(set.val(), 1)], [18, 18, 2, 2]);
    assert_eq!(set.hash(), opened(data.path()).unwrap().hash());
    assert!(set.split(Split::Test).is_err());
    std::fs::write(data.path().join("dataset.toml"), "flip = false\nsource = \"mine, CC0\"\n").unwrap();
    let told = opened(data.path()).unwrap();
    assert_eq!((told.flip(), told.source()), (false, "mine, CC0"));
    std::fs::write(data.path().join("dataset.toml"), "flop = false").unwrap();
    assert!(
        refusal(data.path())
            .contains("dataset.toml: text: expected `name`, `source`, `flip` and `classes` in TOML")
    );
}

#[test]
fn the_hash_is_of_the_contents() {
    let one = folder(&["train"], &["a", "b"], 20);
    let two = folder(&["train"], &["a", "b"], 20);
    let hash = |folder: &tempfile::TempDir| opened(folder.path()).unwrap().hash().to_string();
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
    let set = opened(data.path()).unwrap();
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
    assert!(message.contains("val/b: images: expected at least one, got none"), "{message}");
    std::fs::write(at("val/b/x.avif"), "").unwrap();
    let message = refusal(data.path());
    assert!(
        message.contains("got 1 image of a kind that is not read (1 .avif); add images, convert them"),
        "{message}"
    );
    std::fs::remove_dir_all(at("val")).unwrap();
    std::fs::remove_file(at("train/a/0001.png")).unwrap();
    assert!(refusal(data.path()).contains("at least 2, to hold one out, got 1"));
    std::fs::remove_dir_all(at("train")).unwrap();
    assert!(
        refusal(data.path()).contains("got no such folder, only elsewhere/; give a folder with train/CLASS/")
    );
    std::fs::create_dir(at("train")).unwrap();
    assert!(refusal(data.path()).contains("classes: expected a folder for each, got none"));
    assert!(refusal(&at("nowhere")).contains("cannot open the folder"));
}

#[test]
fn an_image_that_breaks_later_is_an_error_that_names_it() {
    let data = folder(&["train"], &["a"], 20);
    let set = opened(data.path()).unwrap();
    for i in 0..20 {
        std::fs::write(data.path().join(format!("train/a/{i:04}.png")), "gone bad").unwrap();
    }
    let error = eval_batches(set.train(), set.preprocess(), 8, 4).next().unwrap().unwrap_err().to_string();
    assert!(error.contains("0000.png") && error.contains("put it back and resume"), "{error}");
}

/// A JPEG with this orientation in its EXIF data.
fn turned_jpeg(image: &RgbImage, orientation: u8) -> Vec<u8> {
    let mut bytes = std::io::Cursor::new(Vec::new());
    DynamicImage::from(image.clone()).write_to(&mut bytes, ImageFormat::Jpeg).unwrap();
    let tiff =
        [&b"II\x2a\0\x08\0\0\0"[..], &[1, 0, 0x12, 0x01, 3, 0, 1, 0, 0, 0, orientation, 0, 0, 0, 0, 0, 0, 0]];
    let exif = [&b"Exif\0\0"[..], &tiff.concat()].concat();
    let segment = [&[0xff, 0xe1], &(exif.len() as u16 + 2).to_be_bytes()[..], &exif].concat();
    let bytes = bytes.into_inner();
    [&bytes[..2], &segment, &bytes[2..]].concat()
}

/// Left half red, right half blue, 16 x 8.
fn red_and_blue() -> RgbImage {
    RgbImage::from_fn(16, 8, |x, _| if x < 8 { Rgb([255, 0, 0]) } else { Rgb([0, 0, 255]) })
}

#[test]
fn images_are_seen_the_way_up_that_their_exif_data_say() {
    let data = folder(&["train"], &["a"], 20);
    let at = data.path().join("train/a/0000.jpg");
    let seen = |orientation, orient| {
        std::fs::write(&at, turned_jpeg(&red_and_blue(), orientation)).unwrap();
        let set = opened(data.path()).unwrap();
        let set = set.seen_as(Preprocess { orient, ..set.preprocess().clone() }).unwrap();
        // the largest image by far: the only one in color
        let images = [set.train(), set.val()];
        let all = images.iter().flat_map(|images| (0..images.len()).map(|i| images.load(i).unwrap()));
        let loaded =
            all.max_by_key(|loaded| loaded.image().unwrap().pixels().bytes().unwrap().len()).unwrap();
        let image = loaded.image().unwrap();
        let [height, width, _] = image.shape();
        let first = image.pixels().bytes().unwrap()[..3].to_vec();
        let last = image.pixels().bytes().unwrap()[(height * width - 1) * 3..].to_vec();
        ([height, width], first[0] > first[2], last[0] > last[2])
    };
    // orientation -> height and width, and whether the first pixel and the last are red
    for (orientation, expected) in [
        (1, ([8, 16], true, false)),
        (2, ([8, 16], false, true)),
        (3, ([8, 16], false, true)),
        (4, ([8, 16], true, false)),
        (5, ([16, 8], true, false)),
        (6, ([16, 8], true, false)),
        (7, ([16, 8], false, true)),
        (8, ([16, 8], false, true)),
    ] {
        assert_eq!(seen(orientation, Orient::Exif), expected, "orientation {orientation}");
        assert_eq!(seen(orientation, Orient::Stored), ([8, 16], true, false), "orientation {orientation}");
    }
}

#[test]
fn the_space_decides_the_channels() {
    let data = folder(&["train"], &["a", "b"], 20);
    let grey_set = opened(data.path()).unwrap();
    let [color_space, grey_space] = ["ofa-mbv3-w1.0", "tiny"].map(|name| preset(name).expect("a preset"));
    let seen = |set: &Dataset, space| set.seen_as(set.preprocess_for(space).unwrap()).unwrap();
    let set = seen(&grey_set, &color_space);
    assert_eq!((set.channels(), set.normalization().mean().len()), (3, 3));
    let loaded = set.train().load(0).unwrap();
    let pixels = loaded.image().unwrap().pixels().bytes().unwrap();
    assert!(pixels.as_chunks::<3>().0.iter().all(|[r, g, b]| r == g && g == b));
    // colors become Rec. 601's grey, in the pixels and in mean and deviation
    for class in ["a", "b"] {
        for i in 0..20 {
            red_and_blue().save(data.path().join(format!("train/{class}/{i:04}.png"))).unwrap();
        }
    }
    let colors = opened(data.path()).unwrap();
    assert_eq!(colors.channels(), 3);
    let set = seen(&colors, &grey_space);
    let loaded = set.train().load(0).unwrap();
    let row = &loaded.image().unwrap().pixels().bytes().unwrap()[..16];
    assert_eq!((row[0], row[15], set.channels()), (76, 29, 1));
    assert!((set.normalization().mean()[0] - (76.0 + 29.0) / 510.0).abs() < 1e-6);
    let unsaid = colors.seen_as(colors.preprocess_unsaid(&grey_space).unwrap()).unwrap();
    let loaded = unsaid.train().load(0).unwrap();
    assert_eq!(loaded.image().unwrap().pixels().bytes().unwrap()[..16], [[54; 8], [18; 8]].concat());
    assert!((unsaid.normalization().mean()[0] - 36.0 / 255.0).abs() < 1e-6);
    let two = Normalization::new(vec![0.0; 2], vec![1.0; 2]).unwrap();
    let refused = colors.seen_as(Preprocess::whole(two)).unwrap_err().to_string();
    assert!(refused.contains("channels: expected 2 for the network, or 1 or 3, got 3"), "{refused}");
}

#[test]
fn photographs_are_seen_as_torchvision_evaluates_them() {
    let data = folder(&["train"], &["a"], 20);
    let set = opened(data.path()).unwrap();
    let preprocess = set.preprocess_for(&preset("tiny").expect("a preset")).unwrap();
    assert_eq!(
        (preprocess.resize, preprocess.filter, preprocess.orient),
        (Resize::Middle(0.875), Filter::BilinearRounded, Orient::Exif)
    );
    let digits = Dataset::open("digits").unwrap();
    let resize = |name| digits.preprocess_for(&preset(name).expect("a preset")).unwrap().resize;
    assert_eq!((resize("tiny"), resize("ofa-mbv3-w1.0")), (Resize::Stretch, Resize::Middle(0.875)));
}

#[test]
fn labels_follow_the_order_of_a_networks_classes() {
    let classes: Vec<String> = (0..12).map(|class| class.to_string()).collect();
    let names: Vec<&str> = classes.iter().map(String::as_str).collect();
    let data = folder(&["train", "val", "test"], &names, 1);
    let set = opened(data.path()).unwrap();
    assert_eq!(set.classes()[..3], ["0", "1", "10"], "a folder's order is that of the text");
    let labeled = set.labeled_as(&classes).unwrap();
    assert_eq!(labeled.classes(), classes);
    let by_label = |images: &Images| {
        let mut found = vec![String::new(); 12];
        let Images::Files(_) = images else { panic!("in files") };
        for (index, label) in images.labels().iter().enumerate() {
            found[*label as usize] = set.classes()[set.train().labels()[index] as usize].clone();
        }
        found
    };
    assert_eq!(by_label(labeled.train()), classes);
    assert_eq!(by_label(labeled.val()), classes);
    assert_eq!(by_label(labeled.split(Split::Test).unwrap()), classes);
    assert_eq!((labeled.hash(), labeled.train().len()), (set.hash(), 12));
    let mut others = classes.clone();
    others[3] = "cat".to_string();
    let refused = set.labeled_as(&others).unwrap_err().to_string();
    assert!(refused.contains("class 6: expected `cat` or another of its, got `3`"), "{refused}");
    let numbers = folder(&["train", "val"], &["cat", "dog"], 1);
    let numbered = opened(numbers.path()).unwrap().labeled_as(&classes[..2]).unwrap();
    assert_eq!((numbered.train().labels(), numbered.classes()), (&[0, 1][..], &classes[..2]));
    let refused = set.labeled_as(&others[1..]).unwrap_err().to_string();
    assert!(refused.contains("classes: expected 11, got 12"), "{refused}");
}

#[test]
fn images_are_decoded_once_for_all_sub_networks_of_a_resolution() {
    let data = folder(&["train", "val"], &["a", "b"], 6);
    let set = opened(data.path()).unwrap();
    let values = |set: &Dataset, resolution| -> Result<Vec<f32>> {
        let batches = eval_batches(set.val(), set.preprocess(), resolution, 5);
        let batches = batches.map(|batch| Ok(batch?.inputs.flatten_all()?.to_vec1::<f32>()?));
        Ok(batches.collect::<Result<Vec<_>>>()?.concat())
    };
    let first = values(&set, 8).unwrap();
    std::fs::remove_dir_all(data.path().join("val")).unwrap();
    assert_eq!(values(&set, 8).unwrap(), first, "the files are gone");
    assert!(values(&set, 9).is_err(), "another resolution shows other pixels");
    let whole = Preprocess { resize: Resize::Stretch, ..set.preprocess().clone() };
    assert_eq!(values(&set.seen_as(set.preprocess().clone()).unwrap(), 8).unwrap(), first);
    // what is shown differs, though images are decoded alike: not what was kept
    assert!(values(&set.seen_as(whole).unwrap(), 8).is_err());
}

#[test]
fn some_validation_images_stand_for_all() {
    let data = folder(&["train", "val"], &["a", "b"], 6);
    let set = opened(data.path()).unwrap();
    let few = set.with_val_images(5);
    assert_eq!((few.val().len(), few.train().len(), few.hash()), (5, 12, set.hash()));
    assert_eq!(few.val().labels(), set.with_val_images(5).val().labels(), "the same ones each time");
    assert_eq!(set.with_val_images(50).val().len(), 12);
    let digits = Dataset::open("digits").unwrap().with_val_images(7);
    assert_eq!(digits.val().len(), 7);
}

/// A grey image that no other number makes.
fn save(path: &Path, i: u32) {
    std::fs::create_dir_all(path.parent().unwrap()).unwrap();
    GrayImage::from_fn(8, 6, |x, y| Luma([(x * 10 + y + i) as u8])).save(path).unwrap();
}

#[test]
fn splits_are_known_by_the_names_in_use() {
    for (val, test) in [("valid", "testing"), ("validation", "Test"), ("Val", "TEST"), ("VALID", "test")] {
        let data = folder(&["training", val, test], &["a", "b"], 2);
        let set = opened(data.path()).unwrap();
        assert_eq!((set.train().len(), set.val().len()), (4, 4), "{val}");
        let expected = format!("4 train, 4 val (from {val}/), test not opened images of 2 classes");
        assert!(set.in_words().ends_with(&expected), "{}", set.in_words());
        assert_eq!(set.split(Split::Test).unwrap().len(), 4, "{test}");
    }
    let data = folder(&["train", "dev"], &["a", "b"], 20);
    let set = opened(data.path()).unwrap();
    assert!(set.in_words().contains("4 val (a fixed tenth of each class of train/)"), "{}", set.in_words());
    assert_eq!(set.warnings(), ["not looked into: dev/; name a folder val or test if it holds such images"]);
    std::fs::create_dir_all(data.path().join("Validation")).unwrap();
    std::fs::create_dir_all(data.path().join("valid")).unwrap();
    assert!(
        refusal(data.path()).contains("folders of validation images: expected one, got Validation and valid")
    );
    std::fs::remove_dir(data.path().join("valid")).unwrap();
    std::fs::remove_dir(data.path().join("Validation")).unwrap();
    std::fs::write(data.path().join("val"), "").unwrap();
    assert!(refusal(data.path()).contains("val: kind: expected a folder of images, got a file"));
}

#[test]
fn nothing_is_passed_over_in_silence() {
    let data = folder(&["train", "val"], &["a", "b"], 3);
    let at = |name: &str| data.path().join("train").join(name);
    let color = RgbImage::from_fn(20, 40, |x, y| Rgb([255, x as u8, y as u8]));
    for (name, format) in [
        ("a/x.webp", ImageFormat::WebP),
        ("a/x.bmp", ImageFormat::Bmp),
        ("a/x.TIF", ImageFormat::Tiff),
        ("a/x.jfif", ImageFormat::Jpeg),
        ("a/x.ppm", ImageFormat::Pnm),
        ("a/y.jpg", ImageFormat::Gif),
        ("b/none", ImageFormat::Png),
    ] {
        color.save_with_format(at(name), format).unwrap();
    }
    assert_eq!(opened(data.path()).unwrap().train().len(), 13);
    assert_eq!(opened(data.path()).unwrap().warnings(), [""; 0]);
    for name in ["a/1.txt", "b/2.txt", "b/README", "a/x.avif", "a/.hidden", "loose.png"] {
        std::fs::write(at(name), "no image").unwrap();
    }
    let mut deep = at("b");
    for _ in 0..8 {
        deep.push("d");
    }
    save(&deep.join("in.png"), 77);
    save(&deep.join("d/out.png"), 78);
    save(&deep.join("d/d/out.png"), 79);
    let expected = "3 files that are no images (2 .txt, 1 without ending), 1 image of a kind that is not read \
                    (1 .avif), 2 files deeper than 8 folders, 1 image next to the folders of the classes";
    let set = opened(data.path()).unwrap();
    assert_eq!(set.train().len(), 14);
    assert_eq!(set.warnings(), [format!("passed over in train: {expected}")]);
    assert!(set.skipped().is_empty());
}

#[test]
#[cfg(unix)]
fn links_to_nowhere_and_back_are_counted() {
    let data = folder(&["train", "val"], &["a"], 3);
    let at = data.path().join("val/a");
    std::os::unix::fs::symlink("nowhere.png", at.join("x.png")).unwrap();
    std::os::unix::fs::symlink("..", at.join("up")).unwrap();
    std::os::unix::fs::symlink("y.png", at.join("y.png")).unwrap();
    let set = opened(data.path()).unwrap();
    assert_eq!(
        set.warnings(),
        ["passed over in val: 2 dangling links, 1 pipe, device or link that leads back"]
    );
    assert_eq!((set.val().len(), set.skipped().len()), (3, 0));
}

#[test]
fn images_that_are_in_two_splits_are_named() {
    let data = tempfile::tempdir().unwrap();
    let mut next = 0;
    for (split, class) in
        ["train", "val", "test"].iter().flat_map(|split| ["a", "b"].map(|class| (split, class)))
    {
        for i in 0..5 {
            next += 1;
            save(&data.path().join(format!("{split}/{class}/{i}.png")), next);
        }
    }
    let set = opened(data.path()).unwrap();
    set.split(Split::Test).unwrap();
    assert!(set.warnings().is_empty(), "{:?}", set.warnings());
    let copy = |from: &str, to: &str| std::fs::copy(data.path().join(from), data.path().join(to)).unwrap();
    copy("train/a/0.png", "val/a/twin.png");
    copy("val/b/2.png", "test/b/2.png");
    for i in 0..5 {
        copy(&format!("train/b/{i}.png"), &format!("test/b/t{i}.png"));
    }
    let set = opened(data.path()).unwrap();
    let at = |path: &str| data.path().join(path).display().to_string();
    let many = "which makes accuracy look better than it is";
    let one =
        format!("1 image of val in train too, {many}: {} is {}", at("val/a/twin.png"), at("train/a/0.png"));
    assert_eq!(set.warnings(), std::slice::from_ref(&one));
    set.split(Split::Test).unwrap();
    let warnings = set.warnings();
    assert_eq!((warnings.len(), &warnings[0]), (3, &one));
    assert!(
        warnings[1]
            .starts_with(&format!("5 images of test in train too, {many}: {} is", at("test/b/t0.png")))
    );
    assert!(warnings[1].ends_with(", and 2 more"), "{}", warnings[1]);
    assert_eq!(
        warnings[2],
        format!("1 image of test in val too, {many}: {} is {}", at("test/b/2.png"), at("val/b/2.png"))
    );
}

#[test]
fn two_ways_to_write_a_letter_are_one_class() {
    let composed = "caf\u{e9}";
    let apart = "cafe\u{301}";
    let data = tempfile::tempdir().unwrap();
    for (i, at) in ["train/1", "train/2", "val/2"].iter().enumerate() {
        let at = at.replace('1', composed).replace('2', apart);
        save(&data.path().join(at).join(format!("{i}.png")), i as u32);
    }
    save(&data.path().join("train/dog/3.png"), 3);
    save(&data.path().join("val/dog/4.png"), 4);
    let set = opened(data.path()).unwrap();
    assert_eq!(set.classes(), [composed, "dog"]);
    assert_eq!((set.train().labels(), set.val().labels()), (&[0, 0, 1][..], &[0, 1][..]));
    // as a network has it that was trained where names are written apart
    let network = ["dog".to_string(), apart.to_string()];
    assert_eq!(set.labeled_as(&network).unwrap().train().labels(), [1, 1, 0]);
}

#[test]
fn validation_images_may_lie_flat_beside_a_list_of_their_classes() {
    let data = folder(&["train"], &["n01", "n02"], 3);
    let at = |name: &str| data.path().join(name);
    (0..4).for_each(|i| save(&at(&format!("val/V_{i}.JPEG.png")), 50 + i));
    (0..4).for_each(|i| {
        std::fs::rename(at(&format!("val/V_{i}.JPEG.png")), at(&format!("val/V_{i}.JPEG"))).unwrap()
    });
    let message = refusal(data.path());
    assert!(
        message
            .contains("val: classes: expected a folder for each, or a list labels.csv, LOC_val_solution.csv"),
        "{message}"
    );
    assert!(message.contains("got 4 images without any; write labels.csv"), "{message}");
    std::fs::write(at("val/ILSVRC2012_validation_ground_truth.txt"), "1\n2\n1\n2\n").unwrap();
    assert!(refusal(data.path()).contains("whose numbers only the devkit's meta.mat explains"));
    std::fs::remove_file(at("val/ILSVRC2012_validation_ground_truth.txt")).unwrap();

    let labels = |set: &Dataset| set.val().labels().to_vec();
    std::fs::write(at("val/labels.csv"), "path,label\nV_1.JPEG,n01\nV_0.JPEG,n02\nV_2.JPEG,n02\n").unwrap();
    let set = opened(data.path()).unwrap();
    assert_eq!(labels(&set), [0, 1, 1]);
    assert_eq!(set.warnings(), ["passed over in val: 1 image that the list of labels does not name"]);
    std::fs::write(at("val/labels.csv"), "path,label\nV_1.JPEG,n03\n").unwrap();
    assert!(refusal(data.path()).contains("labels.csv: line 2: expected a class of train, got `n03`"));
    std::fs::write(at("val/labels.csv"), "path,label\nV_1.JPEG,n01\nV_0.JPEG,n02\nV_1.JPEG,n01\n").unwrap();
    assert!(refusal(data.path()).contains("expected each once, got "));
    std::fs::write(at("val/labels.csv"), "path,label\nV_1.JPEG,n01\n").unwrap();
    assert!(refusal(data.path()).contains("expected some of class `n02`, got none"));

    // as on Kaggle: several objects, and no ending
    let solution = "ImageId,PredictionString\nV_0,n01 1 2 3 4 n01 5 6 7 8 \nV_1,n01 1 2 3 4 \nV_2,n02 1 2 3 4 \nV_3,n02 1 2 3 4 \n";
    std::fs::write(at("LOC_val_solution.csv"), solution).unwrap();
    assert!(refusal(data.path()).contains("lists of labels: expected one, got "));
    std::fs::remove_file(at("val/labels.csv")).unwrap();
    let set = opened(data.path()).unwrap();
    assert_eq!((labels(&set), set.warnings().len()), (vec![0, 0, 1, 1], 0));
    std::fs::remove_file(at("LOC_val_solution.csv")).unwrap();

    // as Tiny ImageNet: in a folder of their own
    std::fs::create_dir(at("val/images")).unwrap();
    (0..4).for_each(|i| {
        std::fs::rename(at(&format!("val/V_{i}.JPEG")), at(&format!("val/images/V_{i}.JPEG"))).unwrap()
    });
    std::fs::write(at("val/val_annotations.txt"), "V_0.JPEG\tn02\t0\t0\t5\t5\nV_1.JPEG\tn01\t0\t0\t5\t5\nV_2.JPEG\tn01\t0\t0\t5\t5\nV_3.JPEG\tn01\t0\t0\t5\t5\n").unwrap();
    let set = opened(data.path()).unwrap();
    assert_eq!((labels(&set), set.warnings().len()), (vec![0, 0, 0, 1], 0), "{:?}", set.warnings());
}
