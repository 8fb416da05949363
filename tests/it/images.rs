//! What commands say of images: those that fail among many, and what is refused before any is decoded.

use std::path::Path;

use image::{GrayImage, Luma};
use serde_json::Value;

use crate::cli::{fails, json, pipeline, run};

/// Training and validation images of these classes, all of them broken: a command that decodes one says so.
fn broken(at: &Path, classes: &[&str]) {
    for (split, class) in
        ["train", "val"].iter().flat_map(|split| classes.iter().map(move |class| (split, class)))
    {
        let folder = at.join(split).join(class);
        std::fs::create_dir_all(&folder).expect("made");
        for i in 0..4 {
            std::fs::write(folder.join(format!("{i}.png")), "no image").expect("written");
        }
    }
}

#[test]
fn good_images_are_classified_and_bad_ones_named() {
    let at = pipeline();
    let folder = tempfile::tempdir().expect("a folder");
    let export = "export --supernet run/supernet.safetensors --data digits --arch smallest";
    json("extract", at, &format!("{export} --out predict-model"));
    let model = at.join("predict-model").display().to_string();
    let at = folder.path();
    let image = GrayImage::from_fn(8, 8, |x, y| Luma([(x * y * 4) as u8]));
    std::fs::create_dir_all(at.join("photos/more")).expect("made");
    for name in ["photos/b.png", "photos/a.webp", "photos/more/c.jpg"] {
        image.save(at.join(name)).expect("written");
    }
    std::fs::write(at.join("photos/notes.txt"), "none").expect("written");
    let predicted = json("extract", at, &format!("predict {model} photos"));
    let names = |document: &Value| -> Vec<String> {
        let rows = document["predictions"].as_array().expect("a list");
        rows.iter().map(|row| row["image"].as_str().expect("a name").to_string()).collect()
    };
    assert_eq!(names(&predicted), ["photos/a.webp", "photos/b.png", "photos/more/c.jpg"]);
    assert_eq!(predicted["failed"], serde_json::json!([]));

    std::fs::write(at.join("photos/aa.png"), "no image").expect("written");
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
    let out = String::from_utf8_lossy(&output.stdout);
    let err = String::from_utf8_lossy(&output.stderr);
    assert_eq!((output.status.code(), out.lines().count()), (Some(1), 6), "{out}");
    assert!(err.contains("warning: passed over in photos: 1 file that is no image (1 .txt)"), "{err}");
    assert!(
        err.contains("error: photos/aa.png: ") && err.ends_with("1 of 4 images could not be classified\n")
    );

    std::fs::create_dir(at.join("empty")).expect("made");
    let message = fails("extract", at, &format!("predict {model} empty"), 1);
    assert!(message.contains("empty: images: expected at least one, got none"), "{message}");
}

#[test]
fn what_is_wrong_is_told_before_any_image_is_decoded() {
    let from = pipeline();
    let folder = tempfile::tempdir().expect("a folder");
    let at = folder.path();
    broken(&at.join("two"), &["cat", "dog"]);
    let digits: Vec<String> = (0..10).map(|digit| digit.to_string()).collect();
    broken(&at.join("ten"), &digits.iter().map(String::as_str).collect::<Vec<_>>());
    let names = ["zero", "one", "two", "three", "four", "five", "six", "seven", "eight", "nine"];
    broken(&at.join("named"), &names);
    std::fs::copy(from.join("run/supernet.safetensors"), at.join("s.safetensors")).expect("copied");
    std::fs::copy(from.join("accuracy.jsonl"), at.join("rows.jsonl")).expect("copied");
    std::fs::copy(from.join("estimator.safetensors"), at.join("e.safetensors")).expect("copied");
    let export = "export --supernet s.safetensors --arch smallest";
    json("extract", at, &format!("{export} --data digits --out model"));
    std::fs::create_dir(at.join("used")).expect("made");
    for name in ["used/plan.json", "used/log.jsonl"] {
        std::fs::write(at.join(name), "{}").expect("written");
    }
    let ten = "classes: expected 10, got 2";
    let judged = "--supernet s.safetensors --data";
    let search = "search --space tiny --estimator e.safetensors --supernet s.safetensors --data";
    for (tool, line, expected) in [
        ("supernet", "train --space tiny --data folder:two --out x".to_string(), ten),
        ("supernet", "train --space tiny --data folder:ten --out used".to_string(), "the folder holds a run"),
        (
            "supernet",
            "train --space tiny --data folder:ten --out e.safetensors/x".to_string(),
            "cannot create the folder",
        ),
        ("supernet", format!("eval {judged} folder:two --arch smallest"), ten),
        (
            "supernet",
            format!("eval {judged} folder:ten --arch smallest --split test"),
            "a data set without any",
        ),
        ("supernet", format!("eval {judged} folder:ten --arch smallest --inherit-bn"), "running statistics"),
        ("supernet", format!("sample {judged} folder:two --count 2 --out x.jsonl"), ten),
        (
            "supernet",
            format!("sample {judged} folder:ten --count 2 --out no/x.jsonl"),
            "no/x.jsonl: cannot write",
        ),
        (
            "supernet",
            format!("sample {judged} folder:ten --count 2 --out model/config.json"),
            "config.json, line 1",
        ),
        ("supernet", "finetune model --data folder:two --out x".to_string(), ten),
        ("supernet", "finetune model --data folder:ten --out used".to_string(), "the folder holds a run"),
        (
            "supernet",
            "finetune model --data folder:ten --out ./model".to_string(),
            "another folder than the network's",
        ),
        ("extract", format!("{export} --data folder:two --out x"), ten),
        ("extract", format!("{export} --data folder:ten --out used"), "no part of an export"),
        ("extract", format!("{export} --data folder:ten --out no/x"), "no/x: cannot write"),
        ("extract", format!("{export} --data folder:ten --inherit-bn --out x"), "running statistics"),
        ("extract", "verify model --supernet s.safetensors --data folder:two".to_string(), ten),
        ("extract", format!("{search} folder:two --out x.json"), ten),
        ("extract", format!("{search} folder:ten --out no/x.json"), "no/x.json: cannot write"),
    ] {
        let message = fails(tool, at, &line, 1);
        assert!(message.contains(expected), "{tool} {line}: {message}");
        assert!(!message.contains("content"), "no image was looked at: {tool} {line}: {message}");
    }
    // names that the network does not know; numbers for all of them are taken in their order, and so decoded
    let message = fails("supernet", at, &format!("eval {judged} folder:named --arch smallest"), 1);
    assert!(message.contains("images that cannot be used"), "{message}");
}

#[test]
fn a_resume_says_where_nothing_is_resumed_and_refuses_a_lost_checkpoint() {
    let from = pipeline();
    let folder = tempfile::tempdir().expect("a folder");
    let at = folder.path();
    std::fs::create_dir(at.join("lost")).expect("made");
    for name in ["plan.json", "log.jsonl", "teacher.safetensors"] {
        std::fs::copy(from.join("run").join(name), at.join("lost").join(name)).expect("copied");
    }
    let log = std::fs::read(at.join("lost/log.jsonl")).expect("a log");
    let train = "train --space tiny --data digits --seed 3 --scale 0.02 --resume --out";
    let message = fails("supernet", at, &format!("{train} lost"), 1);
    assert!(
        message.contains(
            "lost/checkpoint.safetensors: file: expected the run's checkpoint, got none, though log.jsonl"
        ),
        "{message}"
    );
    assert!(message.contains("put it back, or train in another folder"), "{message}");
    assert_eq!(std::fs::read(at.join("lost/log.jsonl")).expect("a log"), log, "nothing is lost");

    let begun = run("supernet", at, "train --space tiny --data digits --scale 0.002 --resume --out new");
    let message = String::from_utf8_lossy(&begun.stderr);
    assert!(begun.status.success(), "{message}");
    let expected = "nothing to resume in new: no checkpoint was written yet; the run begins at step 0";
    assert_eq!(message.matches(expected).count(), 1, "{message}");
    let again = run("supernet", at, "train --space tiny --data digits --scale 0.002 --resume --out new");
    assert!(again.status.success() && !String::from_utf8_lossy(&again.stderr).contains("nothing to resume"));
}
