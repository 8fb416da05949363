//! Broken images among good ones, and errors that are reported before any image is decoded.

use std::path::Path;

use image::{GrayImage, Luma};
use serde_json::Value;

use crate::testing::commands::{assert_fails, json, pipeline, run, stderr, stdout, succeeds};
use crate::testing::files::{copy_files, read_bytes, scratch, write_file};

/// Training and validation images of these classes, all broken: decoding one is an error.
fn broken(at: &Path, classes: &[&str]) {
    for split in ["train", "val"] {
        for class in classes {
            let folder = at.join(split).join(class);
            std::fs::create_dir_all(&folder).expect("made");
            for i in 0..4 {
                write_file(folder.join(format!("{i}.png")), "no image");
            }
        }
    }
}

#[test]
fn good_images_are_classified_and_bad_ones_named() {
    let at = pipeline();
    let folder = scratch();
    let export = "export --supernet run/supernet.safetensors --data digits --arch smallest";
    json("extract", at, &format!("{export} --out predict-model"));
    let model = at.join("predict-model").display().to_string();
    let at = folder.path();
    let image = GrayImage::from_fn(8, 8, |x, y| Luma([(x * y * 4) as u8]));
    std::fs::create_dir_all(at.join("photos/more")).expect("made");
    for name in ["photos/b.png", "photos/a.webp", "photos/more/c.jpg"] {
        image.save(at.join(name)).expect("written");
    }
    write_file(at.join("photos/notes.txt"), "none");
    let predicted = json("extract", at, &format!("predict {model} photos"));
    let names = |document: &Value| -> Vec<String> {
        let rows = document["predictions"].as_array().expect("a list");
        rows.iter().map(|row| row["image"].as_str().expect("a name").to_string()).collect()
    };
    assert_eq!(names(&predicted), ["photos/a.webp", "photos/b.png", "photos/more/c.jpg"]);
    assert_eq!(predicted["failed"], serde_json::json!([]));

    write_file(at.join("photos/aa.png"), "no image");
    let output = run("extract", at, &format!("predict {model} photos nowhere.png --json"));
    assert_eq!(output.status.code(), Some(1));
    let document: Value = serde_json::from_slice(&output.stdout).expect("one document");
    assert_eq!(names(&document).len(), 3);
    let failed = document["failed"].as_array().expect("a list");
    assert_eq!(failed.iter().map(|one| &one["image"]).collect::<Vec<_>>(), ["photos/aa.png", "nowhere.png"]);
    assert!(
        failed[0]["error"].as_str().expect("a message").starts_with("photos/aa.png: content: expected a png")
    );
    assert_eq!(document["error"], "2 of 5 images could not be classified");
    let output = run("extract", at, &format!("predict {model} photos --top 1"));
    let out = stdout(&output);
    let err = stderr(&output);
    assert_eq!((output.status.code(), out.lines().count()), (Some(1), 6), "{out}");
    assert!(err.contains("warning: passed over in photos: 1 file that is no image (1 .txt)"), "{err}");
    assert!(
        err.contains("error: photos/aa.png: ") && err.ends_with("1 of 4 images could not be classified\n")
    );

    std::fs::create_dir(at.join("empty")).expect("made");
    assert_fails(
        "extract",
        at,
        &format!("predict {model} empty"),
        1,
        "empty: images: expected at least one, got none",
    );
}

/// Folders of broken images (`two`, `ten`, `named`), a supernet, a model, and a folder of other files (`used`).
fn write_broken_data(at: &Path) {
    broken(&at.join("two"), &["cat", "dog"]);
    broken(&at.join("ten"), &["0", "1", "2", "3", "4", "5", "6", "7", "8", "9"]);
    let names = ["zero", "one", "two", "three", "four", "five", "six", "seven", "eight", "nine"];
    broken(&at.join("named"), &names);
    let from = pipeline();
    std::fs::copy(from.join("run/supernet.safetensors"), at.join("s.safetensors")).expect("copied");
    std::fs::copy(from.join("accuracy.jsonl"), at.join("rows.jsonl")).expect("copied");
    std::fs::copy(from.join("estimator.safetensors"), at.join("e.safetensors")).expect("copied");
    json("extract", at, "export --supernet s.safetensors --arch smallest --data digits --out model");
    std::fs::create_dir(at.join("used")).expect("made");
    for name in ["used/plan.json", "used/log.jsonl"] {
        write_file(at.join(name), "{}");
    }
}

/// Checks that each line fails with these words, and without a word about the content of an image.
fn assert_refused_undecoded(at: &Path, tool: &str, lines: &[(&str, &str)]) {
    for (line, words) in lines {
        let line = line
            .replace("EVAL", "eval --supernet s.safetensors --arch smallest --data")
            .replace("SAMPLE", "sample --supernet s.safetensors --count 2 --data")
            .replace("EXPORT", "export --supernet s.safetensors --arch smallest --data")
            .replace(
                "SEARCH",
                "search --space tiny --estimator e.safetensors --supernet s.safetensors --data",
            );
        let message = assert_fails(tool, at, &line, 1, words);
        assert!(!message.contains("content"), "an image was decoded: {tool} {line}: {message}");
    }
}

#[test]
fn what_is_wrong_is_told_before_any_image_is_decoded() {
    let folder = scratch();
    let at = folder.path();
    write_broken_data(at);
    let ten = "classes: expected 10, got 2";
    let supernet = [
        ("train --space tiny --data folder:two --out x", ten),
        ("train --space tiny --data folder:ten --out used", "the folder holds a run"),
        ("train --space tiny --data folder:ten --out e.safetensors/x", "cannot create the folder"),
        ("EVAL folder:two", ten),
        ("EVAL folder:ten --split test", "a data set without any"),
        ("EVAL folder:ten --inherit-bn", "running statistics"),
        ("SAMPLE folder:two --out x.jsonl", ten),
        ("SAMPLE folder:ten --out no/x.jsonl", "no/x.jsonl: cannot write"),
        ("SAMPLE folder:ten --out model/config.json", "config.json, line 1"),
        ("finetune model --data folder:two --out x", ten),
        ("finetune model --data folder:ten --out used", "the folder holds a run"),
        ("finetune model --data folder:ten --out ./model", "another folder than the network's"),
    ];
    let extract = [
        ("EXPORT folder:two --out x", ten),
        ("EXPORT folder:ten --out used", "no part of an export"),
        ("EXPORT folder:ten --out no/x", "no/x: cannot write"),
        ("EXPORT folder:ten --inherit-bn --out x", "running statistics"),
        ("verify model --supernet s.safetensors --data folder:two", ten),
        ("SEARCH folder:two --out x.json", ten),
        ("SEARCH folder:ten --out no/x.json", "no/x.json: cannot write"),
    ];
    assert_refused_undecoded(at, "supernet", &supernet);
    assert_refused_undecoded(at, "extract", &extract);
    // the network has numbers for classes: names in their place are taken in order, and the images are decoded
    let eval = "eval --supernet s.safetensors --arch smallest --data folder:named";
    assert_fails("supernet", at, eval, 1, "images that cannot be used");
}

#[test]
fn a_resume_says_where_nothing_is_resumed_and_refuses_a_lost_checkpoint() {
    let from = pipeline();
    let folder = scratch();
    let at = folder.path();
    let names = ["plan.json", "log.jsonl", "teacher.safetensors"];
    copy_files(&from.join("run"), &at.join("lost"), &names);
    let log = read_bytes(at.join("lost/log.jsonl"));
    let train = "train --space tiny --data digits --seed 3 --scale 0.02 --resume --out";
    let message = assert_fails(
        "supernet",
        at,
        &format!("{train} lost"),
        1,
        "lost/checkpoint.safetensors: file: expected the run's checkpoint, got none, though log.jsonl",
    );
    assert!(message.contains("put it back, or train in another folder"), "{message}");
    assert_eq!(read_bytes(at.join("lost/log.jsonl")), log, "nothing is lost");

    let message =
        succeeds("supernet", at, "train --space tiny --data digits --scale 0.002 --resume --out new");
    let expected = "nothing to resume in new: no checkpoint was written yet; the run begins at step 0";
    assert_eq!(message.matches(expected).count(), 1, "{message}");
    let again = run("supernet", at, "train --space tiny --data digits --scale 0.002 --resume --out new");
    assert!(again.status.success() && !stderr(&again).contains("nothing to resume"));
}
