use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};

use base::timing::peak_rss_mb;
use image::{GrayImage, Luma};

use super::*;
use crate::data::{Catalogue, Dataset};

/// A folder with `count` images of 4 x 4 pixels in each of so many classes, all alike but for `first`.
fn tree(classes: usize, count: usize) -> tempfile::TempDir {
    let folder = tempfile::tempdir().expect("a folder");
    let mut png = std::io::Cursor::new(Vec::new());
    GrayImage::from_pixel(4, 4, Luma([9])).write_to(&mut png, image::ImageFormat::Png).expect("a png");
    for class in 0..classes {
        let at = folder.path().join(format!("train/{class:05}"));
        std::fs::create_dir_all(&at).expect("made");
        for i in 0..count {
            std::fs::write(at.join(format!("{i:07}.png")), png.get_ref()).expect("written");
        }
    }
    folder
}

fn open(folder: &Path, looking: &Looking) -> Dataset {
    let catalogue = Catalogue::open(&format!("folder:{}", folder.display()), None).expect("a data set");
    catalogue.look_with(looking).expect("sound images")
}

#[test]
fn what_was_looked_at_once_is_known_the_second_time() {
    let data = tree(2, 20);
    let cache = tempfile::tempdir().expect("a folder");
    let looking = Looking::default().with_index_in(Some(cache.path().join("made/when/needed")));
    let kept = || std::fs::read_dir(cache.path().join("made/when/needed")).map_or(0, Iterator::count);
    open(data.path(), &looking.clone().keeping_from(Duration::from_secs(3600)));
    assert_eq!(kept(), 0, "not worth a file");
    // the files' times must be told apart from what happens from now on
    std::thread::sleep(Duration::from_millis(2100));
    let first = open(data.path(), &looking);
    assert_eq!(kept(), 1);
    // facts that no look at these files could find: whoever finds them has not looked
    let place = data.path().join("train");
    let index = Index::open(looking.index(), &place, "train");
    let other = ImageFacts {
        color: true,
        size: [40, 50],
        hash: [1; 32],
        sums: ImageSums::of_colors(&[255, 0, 0, 255, 0, 0]),
    };
    let paths: Vec<PathBuf> = (0..20).map(|i| place.join(format!("00000/{i:07}.png"))).collect();
    let files = paths.iter().map(|path| (path.as_path(), Stamp::of(path).expect("there"), &other));
    index.keep(files, false).expect("kept");
    let second = open(data.path(), &looking);
    assert_eq!((first.channels(), second.channels()), (1, 3));
    assert_ne!(first.hash(), second.hash());
    assert_eq!(first.hash(), open(data.path(), &Looking::default()).hash());
    // each of these files as it is now
    for path in &paths {
        std::fs::write(path, std::fs::read(path).expect("there")).expect("written");
    }
    assert_eq!(open(data.path(), &looking).hash(), first.hash());
}

#[test]
fn an_index_that_cannot_be_kept_is_told_once() {
    let data = tree(1, 20);
    let cache = tempfile::tempdir().expect("a folder");
    let file = cache.path().join("a file");
    std::fs::write(&file, "").expect("written");
    let set = open(data.path(), &Looking::default().with_index_in(Some(file)));
    let warnings = set.warnings();
    assert_eq!(
        warnings
            .iter()
            .filter(
                |warning: &&String| warning.starts_with("what was found out about the images is not kept: ")
            )
            .count(),
        1,
        "{warnings:?}"
    );
}

#[test]
fn each_image_is_told_of() {
    let data = tree(2, 30);
    let calls = Arc::new(AtomicUsize::new(0));
    let most = Arc::new(Mutex::new([0; 2]));
    let looking = Looking::default().telling({
        let calls = Arc::clone(&calls);
        let most = Arc::clone(&most);
        move |done, of| {
            calls.fetch_add(1, Ordering::Relaxed);
            let mut most = most.lock().expect("no panic");
            *most = [most[0].max(done), of];
        }
    });
    open(data.path(), &looking);
    assert_eq!((calls.load(Ordering::Relaxed), *most.lock().expect("no panic")), (60, [60, 60]));
}

/// `cargo test --release -p supernet --lib -- --ignored --nocapture two_hundred_thousand`
#[test]
#[ignore = "prints the table of docs/BENCHMARKS.md; makes 200,000 files"]
fn two_hundred_thousand_images_open_in_seconds() {
    let data = tree(1000, 200);
    let cache = tempfile::tempdir().expect("a folder");
    std::thread::sleep(Duration::from_millis(2100));
    let looking = Looking::default().with_index_in(Some(cache.path().to_path_buf()));
    for what in ["first", "second"] {
        let before = peak_rss_mb().unwrap_or_default();
        let watch = Stopwatch::start();
        let set = open(data.path(), &looking);
        println!(
            "{what}: {:.2} s, peak memory {:.0} MB (before {before:.0} MB), {} images",
            watch.elapsed().as_secs_f64(),
            peak_rss_mb().unwrap_or_default(),
            set.train().len() + set.val().len()
        );
    }
    let index: u64 = std::fs::read_dir(cache.path())
        .expect("a folder")
        .map(|entry| entry.and_then(|entry| entry.metadata()).expect("a file").len())
        .sum();
    println!("index: {:.1} MB", index as f64 / 1e6);
}
