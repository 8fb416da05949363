//! What a run is told before it begins: whether memory has room for it, and whether TensorBoard's files can be written.

use std::io::{BufRead, BufReader};
use std::path::Path;
use std::process::{Command, Stdio};

use crate::cli::{binary, fails, json, run};

/// A space whose largest network takes 200 GB to evaluate 200 images.
fn write_huge_space(folder: &Path) {
    let output = run("supernet", folder, "space fashion --toml");
    let text = String::from_utf8(output.stdout).expect("text");
    let huge = text.replace("resolutions = [20, 24, 28]", "resolutions = [1024]");
    assert_ne!(huge, text);
    std::fs::write(folder.join("huge.toml"), huge).expect("written");
}

const HUGE: &str = "train --space huge.toml --data digits --out run --batch 1";

#[test]
#[cfg(target_os = "linux")]
fn a_run_that_memory_has_no_room_for_is_refused_with_figures() {
    let folder = tempfile::tempdir().expect("a folder");
    write_huge_space(folder.path());
    let message = fails("supernet", folder.path(), HUGE, 1);
    assert!(message.starts_with("error: training: memory: expected at most "), "{message}");
    assert!(message.contains(" GB to evaluate 200 images at 1024 pixels, "), "{message}");
    assert!(message.trim_end().ends_with("; take lower resolutions, or --force"), "{message}");
    assert!(!folder.path().join("run").exists(), "nothing is made");
    let message = fails("supernet", folder.path(), &HUGE.replace("--batch 1", "--batch 1000"), 1);
    assert!(message.contains(" GB for activations of a batch of 1000 at 1024 pixels, "), "{message}");
    assert!(message.trim_end().ends_with("; lower --batch, or --force"), "{message}");
}

#[test]
#[cfg(target_os = "linux")]
fn a_run_that_is_forced_begins_with_a_warning() {
    let folder = tempfile::tempdir().expect("a folder");
    write_huge_space(folder.path());
    let mut command = Command::new(binary("supernet"));
    command.current_dir(folder.path()).args(HUGE.split_whitespace()).arg("--force");
    let mut child = command.stderr(Stdio::piped()).spawn().expect("a binary that starts");
    let errors = BufReader::new(child.stderr.take().expect("a pipe"));
    let mut lines = errors.lines().map(|line| line.expect("text"));
    let warned = lines.find(|line| line.starts_with("warning: training: memory: expected at most "));
    // the line of the data set follows when the folder is made
    let goes_on = lines.find(|line| line.starts_with("data digits"));
    child.kill().expect("a child");
    child.wait().expect("a child");
    assert!(warned.is_some() && goes_on.is_some(), "{warned:?} {goes_on:?}");
    assert!(folder.path().join("run").exists());
}

const SMALL: &str = "train --space tiny --data digits --scale 0.004 --tensorboard";

#[test]
fn files_for_tensorboard_lie_in_the_run() {
    let folder = tempfile::tempdir().expect("a folder");
    let at = folder.path();
    json("supernet", at, &format!("{SMALL} --out run"));
    let names = || {
        let entries = std::fs::read_dir(at.join("run/tensorboard")).expect("a folder").flatten();
        entries.map(|entry| entry.file_name().to_string_lossy().into_owned()).collect::<Vec<_>>()
    };
    assert!(names().len() == 1 && names()[0].starts_with("events.out.tfevents."), "{:?}", names());
    let bytes = std::fs::read(at.join("run/tensorboard").join(&names()[0])).expect("a file");
    for tag in ["brain.Event:2", "loss", "val/top1/largest", "val/top1/smallest"] {
        assert!(bytes.windows(tag.len()).any(|part| part == tag.as_bytes()), "{tag}");
    }
    json("supernet", at, &format!("{} --out plain", SMALL.replace(" --tensorboard", "")));
    assert!(!at.join("plain/tensorboard").exists());
    let weights = |run: &str| std::fs::read(at.join(run).join("supernet.safetensors")).expect("weights");
    assert!(weights("run") == weights("plain"), "the same weights");
}

#[test]
fn a_run_goes_on_where_tensorboard_has_no_place() {
    let folder = tempfile::tempdir().expect("a folder");
    let at = folder.path();
    std::fs::create_dir(at.join("run")).expect("made");
    std::fs::write(at.join("run/tensorboard"), "no folder").expect("written");
    let output = run("supernet", at, &format!("{SMALL} --out run"));
    let errors = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success(), "{errors}");
    assert_eq!(errors.matches("warning: TensorBoard events are no longer written").count(), 1, "{errors}");
}
