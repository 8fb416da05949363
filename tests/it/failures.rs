//! Failures: signals, full disks, diverging losses, broken images, limits that exclude each other.

use std::path::Path;
use std::process::{Command, Stdio};

use extract::latency::LatencyTable;
use image::{GrayImage, Luma, Rgb, RgbImage};
use network::checkpoint::Checkpoint;
use serde_json::Value;
use supernet::train::RunFolder;

use crate::testing::commands::{
    assert_fails, binary, command, fails, json, pipeline, run, run_with_kernels, stderr, succeeds,
};
use crate::testing::files::{
    copy_files, log_of, names_in, read_bytes, read_json, read_text, scratch, weights_of, write_file,
};
use crate::testing::signals::{When, interrupt, signal_and_wait, start, wait_until};
use crate::testing::spaces::tiny_of_two_classes;
use crate::testing::tables::phone_header;
use crate::testing::training::short_recipe;

/// A recipe of two short phases with these learning rates.
fn recipe(lr: [f64; 2]) -> String {
    short_recipe(0.5, &[("calm", lr[0], 1, 1), ("wild", lr[1], 9, 1)])
}

#[test]
fn a_diverging_run_stops_and_keeps_its_last_good_checkpoint() {
    let folder = scratch();
    let at = folder.path();
    write_file(at.join("late.toml"), recipe([0.05, 1000.0]));
    write_file(at.join("early.toml"), recipe([1000.0, 0.1]));
    let train = "train --space tiny --data digits --quiet --checkpoint-seconds 0";
    let message = fails("supernet", at, &format!("{train} --recipe late.toml --out late"), 1);
    assert!(message.contains("(phase wild)") && message.contains(" with r"), "{message}");
    assert!(message.contains(" steps is kept; lower the phase's lr"), "{message}");
    let kept = Checkpoint::read(&at.join("late/checkpoint.safetensors")).expect("sound");
    assert!(message.contains(&format!("the checkpoint of {} steps", kept.training.step)), "{message}");
    assert!(!at.join("late/supernet.safetensors").exists());
    let document = run("supernet", at, &format!("{train} --recipe early.toml --out early --json"));
    let error: Value = serde_json::from_slice(&document.stdout).expect("one document");
    assert!(error["error"].as_str().expect("a message").contains("(phase calm)"), "{error}");
}

/// Runs a command whose files are limited to so many blocks of 512 bytes, as on a full disk.
#[cfg(unix)]
fn cramped(folder: &Path, blocks: u32, name: &str, line: &str) -> (Option<i32>, String) {
    let script = format!("trap '' XFSZ; ulimit -f {blocks}; exec {} {line}", binary(name).display());
    let command = &mut Command::new("sh");
    let output = command.current_dir(folder).args(["-c", &script]).output().expect("a shell");
    (output.status.code(), stderr(&output))
}

#[test]
#[cfg(unix)]
fn a_full_disk_is_said_and_the_old_files_stay() {
    let at = pipeline();
    let folder = scratch();
    let to = folder.path();
    let names = ["accuracy.jsonl", "table.json", "estimator.safetensors", "run/supernet.safetensors"];
    copy_files(at, to, &names);
    let train = "train --space tiny --data digits --seed 3 --out new --resume --checkpoint-seconds 0";
    let full = |checkpoint: bool| {
        let (code, message) = cramped(to, 20, "supernet", train);
        assert_eq!(code, Some(1), "{message}");
        assert!(message.contains("checkpoint.safetensors: cannot write: File too large"), "{message}");
        assert_eq!(to.join("new/checkpoint.safetensors").exists(), checkpoint);
    };
    full(false);
    assert_eq!(interrupt(to, "supernet", train, "-INT", When::Changed("new/log.jsonl")), Some(130));
    let old = read_bytes(to.join("new/checkpoint.safetensors"));
    full(true);
    assert!(read_bytes(to.join("new/checkpoint.safetensors")) == old);

    let search =
        "search --space tiny --estimator estimator.safetensors --latency-table table.json --out found.json";
    json("extract", to, search);
    let old = read_bytes(to.join("found.json"));
    for line in [search, "fit --accuracy accuracy.jsonl --out estimator.safetensors"] {
        let (code, message) = cramped(to, 1, "extract", line);
        assert_eq!(code, Some(1), "{message}");
        assert!(message.contains("cannot write: File too large"), "{message}");
    }
    assert_eq!(read_bytes(to.join("found.json")), old);
    let export = "export --supernet run/supernet.safetensors --data digits --arch smallest --out model";
    let (code, message) = cramped(to, 20, "extract", export);
    assert_eq!(code, Some(1), "{message}");
    let left: Vec<_> = names_in(to).into_iter().filter(|name| name.contains("model")).collect();
    assert!(left.is_empty(), "{left:?}");
}

#[test]
fn a_folder_in_use_is_refused() {
    let folder = scratch();
    let _held = RunFolder::open(&folder.path().join("run"), false).expect("a new folder");
    let line = "train --space tiny --data digits --out run --resume";
    assert_fails(
        "supernet",
        folder.path(),
        line,
        1,
        "run: another process is training in this folder; wait until it ends",
    );
}

#[test]
fn other_kernels_go_on_with_a_run_and_are_named() {
    let folder = scratch();
    let line = "train --space tiny --data digits --scale 0.004 --out run --resume";
    let first = format!("{line} --checkpoint-seconds 0");
    let mut reference = command("supernet", folder.path(), &first);
    reference.env("ONCE_FOR_ALL_KERNELS", "reference");
    let mut child = start(reference);
    let checkpoint = folder.path().join("run/checkpoint.safetensors");
    wait_until(&mut child, || checkpoint.exists());
    child.kill().expect("a child");
    child.wait().expect("a child");
    let output = run_with_kernels("supernet", folder.path(), line, "portable");
    let message = stderr(&output);
    assert!(output.status.success(), "{message}");
    assert!(message.contains("warning: kernels reference before, portable now: the last bits"), "{message}");
    let inspected = json("extract", folder.path(), "inspect run/supernet.safetensors");
    assert_eq!(inspected["facts"]["provenance"]["kernels"], "reference, then portable");
}

#[test]
#[cfg(unix)]
fn a_run_under_nohup_outlives_its_terminal() {
    let folder = scratch();
    let at = folder.path();
    let line = "train --space tiny --data digits --scale 0.01 --out run --quiet";
    // a shell hands an ignored signal on, as nohup does
    let script = format!("trap '' HUP; exec {} {line}", binary("supernet").display());
    let mut shell = Command::new("sh");
    shell.current_dir(at).args(["-c", &script]);
    let mut child = start(shell);
    wait_until(&mut child, || at.join("run/log.jsonl").exists());
    assert_eq!(signal_and_wait(child, "-HUP"), Some(0));
    assert!(at.join("run/supernet.safetensors").exists());
}

#[test]
#[cfg(unix)]
fn another_version_of_the_tool_is_told_on_resume() {
    let folder = scratch();
    let at = folder.path();
    let line = "train --space tiny --data digits --scale 0.05 --out run --resume";
    assert_eq!(interrupt(at, "supernet", line, "-HUP", When::Changed("run/log.jsonl")), Some(130));
    let path = at.join("run/checkpoint.safetensors");
    let bytes = read_bytes(&path);
    let [now, other] =
        [env!("CARGO_PKG_VERSION"), "9.9.9"].map(|version| format!("tool\\\":\\\"{version}\\\""));
    let place = bytes.windows(now.len()).position(|window| window == now.as_bytes()).expect("a version");
    write_file(&path, [&bytes[..place], other.as_bytes(), &bytes[place + now.len()..]].concat());
    let message = succeeds("supernet", at, line);
    let expected = concat!("warning: version 9.9.9 of the tool before, ", env!("CARGO_PKG_VERSION"), " now");
    assert!(message.contains(expected), "{message}");
}

/// Sixty images of each of two classes, color or grey, of several sizes, as png and jpeg.
fn images(at: &Path, color: bool) {
    for (class, shade) in [("dark", 40), ("light", 200)] {
        let folder = at.join("train").join(class);
        std::fs::create_dir_all(&folder).expect("made");
        for i in 0..60u32 {
            let width = 12 + i % 7;
            let height = 10 + i % 5;
            let path = folder.join(format!("{i:02}.{}", if i % 2 == 0 { "png" } else { "jpg" }));
            let value = |x: u32, y: u32| (shade + (x * 3 + y * 5 + i) % 30) as u8;
            if color {
                RgbImage::from_fn(width, height, |x, y| Rgb([value(x, y), 10, 250]))
                    .save(path)
                    .expect("written");
            } else {
                GrayImage::from_fn(width, height, |x, y| Luma([value(x, y)])).save(path).expect("written");
            }
        }
    }
}

#[test]
fn a_folder_of_images_is_trained_on_and_a_broken_one_is_named_in_the_log() {
    let folder = scratch();
    let at = folder.path();
    images(&at.join("grey"), false);
    images(&at.join("color"), true);
    write_file(at.join("grey/train/dark/07.jpg"), "no image");
    write_file(at.join("two.toml"), tiny_of_two_classes());
    write_file(at.join("short.toml"), recipe([0.05, 0.05]).replace("batch = 64\nlr", "batch = 16\nlr"));

    let train = "train --space two.toml --recipe short.toml";
    let message = succeeds("supernet", at, &format!("{train} --data folder:grey --out run"));
    assert!(message.contains("warning: an image is left out: grey/train/dark/07.jpg: content"), "{message}");
    let skipped: Vec<_> =
        log_of(&at.join("run")).into_iter().filter(|line| line["event"] == "skipped_image").collect();
    assert_eq!(skipped.len(), 1);
    assert_eq!(skipped[0]["path"], "grey/train/dark/07.jpg");
    json("supernet", at, &format!("{train} --data folder:grey --out run1 --threads 1"));
    let same = weights_of(&at.join("run")) == weights_of(&at.join("run1"));
    assert!(same, "the same at any number of workers");
    let judged =
        json("supernet", at, "eval --supernet run/supernet.safetensors --data folder:grey --arch largest");
    assert_eq!(judged["results"][0]["n"], 11, "a tenth of each class, of 59 and of 60");

    // the space decides the channels: colors become grey
    json("supernet", at, &format!("{train} --data folder:color --out colors"));
    assert_fails("supernet", at, "train --space two.toml --data folder:grey --out x --batch 0", 2, "--batch");
    write_file(at.join("large.toml"), recipe([0.05, 0.05]).replace("batch = 64\nlr", "batch = 640\nlr"));
    let line = "train --space two.toml --recipe large.toml --data folder:grey --out y";
    let message = succeeds("supernet", at, line);
    assert!(
        message.contains(
            "note: grey has 108 training images, fewer than a batch of 640: steps are of 108 images"
        ),
        "{message}"
    );
    let plan = read_text(at.join("y/plan.json"));
    assert!(plan.contains("\"batch\": 108") && plan.contains("\"steps_per_epoch\": 1"), "{plan}");
    write_file(at.join("grey/train/dark/09.jpg"), "no image");
    assert_fails(
        "supernet",
        at,
        &format!("{train} --data folder:grey --out z"),
        1,
        "images that cannot be used: expected at most 1 %, got 2 of 120",
    );
}

#[test]
#[cfg(unix)]
fn signals_save_and_end_with_130() {
    let from = pipeline();
    let folder = scratch();
    let at = folder.path();
    let path = |name: &str| from.join(name).display().to_string();
    let sample = format!(
        "sample --supernet {} --data digits --count 400 --out rows.jsonl --quiet",
        path("run/supernet.safetensors")
    );
    let measure = "measure --space tiny --out table.json --threads 1 --half-width 0.01 --quiet".to_string();
    let train = "train --space tiny --data digits --out run --resume --quiet".to_string();
    for (name, line, file) in [
        ("supernet", &train, "run/log.jsonl"),
        ("supernet", &sample, "rows.jsonl"),
        ("extract", &measure, "table.json.rows"),
    ] {
        for signal in ["-INT", "-TERM", "-HUP"] {
            assert_eq!(interrupt(at, name, line, signal, When::Changed(file)), Some(130), "{name} {line}");
        }
    }
    if at.join("table.json").exists() {
        let table = LatencyTable::read(&at.join("table.json")).expect("what was measured before the signal");
        assert!(!table.rows().is_empty());
    }
    Checkpoint::read(&at.join("run/checkpoint.safetensors")).expect("saved");
    let search = format!(
        "search --space tiny --estimator {} --latency-table {} --front --out found.json --quiet",
        path("estimator.safetensors"),
        path("table.json")
    );
    for after in (0..120).step_by(10) {
        // before the command heeds signals, the system ends it
        if interrupt(at, "extract", &search, "-INT", When::After(after)) == Some(130) {
            let arch = format!(
                "eval --supernet {} --data digits --arch found.json",
                path("run/supernet.safetensors")
            );
            json("supernet", at, &arch);
        }
    }
}

#[test]
fn limits_that_exclude_each_other_exit_3_with_what_is_enough() {
    let from = pipeline();
    let folder = scratch();
    let table = read_json(from.join("table.json"));
    let mut text = phone_header(2);
    // a device on which small kernels are slow: least parameters and least latency are far apart
    for (key, row) in table["rows"].as_object().expect("rows") {
        let factor = if key.contains("mbconv") && key.contains(" k3") { 100.0 } else { 1.0 };
        let us = row["row"]["us"].as_f64().expect("a number") * factor;
        text += &format!("{{\"layer\":\"{key}\",\"samples_us\":[{us}]}}\n");
    }
    write_file(folder.path().join("rows.jsonl"), text);
    json("extract", folder.path(), "measure --space tiny --rows rows.jsonl --out table.json");
    let estimator = from.join("estimator.safetensors");
    let search = format!(
        "search --space tiny --estimator {} --latency-table table.json --out x.json --json",
        estimator.display()
    );
    let nearest = |limit: &str| {
        let output = run("extract", folder.path(), &format!("{search} {limit}"));
        assert_eq!(output.status.code(), Some(3), "{}", stderr(&output));
        let document: Value = serde_json::from_slice(&output.stdout).expect("JSON");
        document["nearest_feasible"]["text"].as_str().expect("text").to_string()
    };
    let latency = nearest("--max-latency 0.001us");
    let params = nearest("--max-params 1");
    let both = format!("{search} --max-latency {latency} --max-params {params}");
    let output = run("extract", folder.path(), &both);
    let message = stderr(&output);
    assert_eq!(output.status.code(), Some(3), "{message}");
    assert!(
        message.contains("together, though each can be kept alone: as shares of the limits, 0."),
        "{message}"
    );
    let document: Value = serde_json::from_slice(&output.stdout).expect("JSON");
    let nearest = &document["nearest_feasible"];
    assert_eq!(nearest["quantity"], "all limits");
    // the limits that the message calls enough
    let factor = nearest["value"].as_f64().expect("a factor");
    let params: f64 = params.trim_end_matches('K').parse().expect("thousands");
    let latency: f64 = latency.trim_end_matches("us").parse().expect("microseconds");
    let latency = 1.001 * factor * latency;
    let params = 1.001 * factor * params;
    let enough = format!("{search} --max-latency {latency}us --max-params {params}k");
    let output = run("extract", folder.path(), &enough);
    assert_eq!(output.status.code(), Some(0), "{}", stderr(&output));
}

#[test]
fn what_is_not_ours_stays() {
    let from = pipeline();
    let folder = scratch();
    let at = folder.path();
    let inputs = ["accuracy.jsonl", "table.json", "estimator.safetensors"];
    copy_files(from, at, &inputs);
    let trained = format!("--supernet {} --data digits", from.join("run/supernet.safetensors").display());
    let export = format!("export {trained} --arch smallest --calibration-images 100 --out model");
    json("extract", at, &export);
    write_file(at.join("model/notes.txt"), "mine");
    assert_fails("extract", at, &export, 1, "holds `notes.txt`, which is no part of an export");
    std::fs::create_dir(at.join("bert")).expect("made");
    write_file(at.join("bert/config.json"), "{\"model_type\":\"bert\"}");
    assert_fails(
        "extract",
        at,
        &export.replace("--out model", "--out bert"),
        1,
        "bert: it is there and holds no earlier export",
    );
    assert!(at.join("model/notes.txt").exists() && at.join("bert/config.json").exists());

    let search =
        "search --space tiny --estimator estimator.safetensors --latency-table table.json --out table.json";
    for line in [
        "fit --accuracy accuracy.jsonl --out accuracy.jsonl",
        search,
        "plot --accuracy accuracy.jsonl --out ./accuracy.jsonl",
    ] {
        assert!(fails("extract", at, line, 1).contains("expected another file than the input"), "{line}");
    }
    assert_fails(
        "extract",
        at,
        "measure --space tiny --out new.json --budget 0",
        1,
        "layers are not measured yet",
    );
    let message = fails("extract", at, "measure --space tiny --out table.json --threads 3 --budget 0", 1);
    assert!(message.contains("3 threads") && message.contains("--replace"), "{message}");
    for name in inputs {
        assert!(read_bytes(at.join(name)) == read_bytes(from.join(name)), "{name}");
    }
    write_file(at.join("notes.txt"), "my only notes");
    let sample = format!("sample {trained} --count 3 --out notes.txt");
    assert!(fails("supernet", at, &sample, 1).contains("holds something else than rows"));
    assert_eq!(read_text(at.join("notes.txt")), "my only notes");
}

#[test]
fn a_finished_run_stays_as_it_is() {
    let folder = scratch();
    let at = folder.path();
    let train = "train --space tiny --data digits --scale 0.001 --out run --resume";
    json("supernet", at, train);
    let bytes = || read_bytes(at.join("run/supernet.safetensors"));
    let before = bytes();
    let again = run_with_kernels("supernet", at, train, "reference");
    assert!(again.status.success() && bytes() == before, "other kernels, no step, the same file");
    assert!(!stderr(&again).contains("warning"));
    std::fs::remove_file(at.join("run/checkpoint.safetensors")).expect("removed");
    assert_fails(
        "supernet",
        at,
        train,
        1,
        "the checkpoint that it came from is not; put checkpoint.safetensors back",
    );
    assert!(bytes() == before);
}

#[test]
#[cfg(unix)]
fn nobody_reading_the_messages_changes_no_exit_code() {
    let from = pipeline();
    let folder = scratch();
    let search = format!(
        "search --space tiny --estimator {0}/estimator.safetensors --latency-table {0}/table.json --out x.json",
        from.display()
    );
    let code = |name: &str, line: &str| {
        let script = format!("{} {line} 2>&-; echo code $? >&3", binary(name).display());
        let command = &mut Command::new("sh");
        command.current_dir(folder.path()).args(["-c", &format!("exec 3>codes; {script}")]);
        command.stdout(Stdio::null()).status().expect("a shell");
        read_text(folder.path().join("codes")).trim().to_string()
    };
    assert_eq!(code("extract", &format!("{search} --max-macs 1K")), "code 3");
    assert_eq!(code("extract", &search), "code 0");
    assert_eq!(code("supernet", "space nothing"), "code 1");
    assert_eq!(code("supernet", "train --space tiny --data digits --scale 0.001 --out run"), "code 0");
}

#[test]
fn absurd_numbers_are_refused_before_anything_is_allocated() {
    let folder = scratch();
    let huge = u64::MAX;
    for (name, line, code) in [
        ("supernet", "train --space tiny --data digits --out x --scale 1e300".to_string(), 2),
        ("supernet", "train --space tiny --data digits --out x --scale nan".to_string(), 2),
        ("supernet", format!("bench --space tiny --batch 2 --resolution {huge}"), 2),
        ("supernet", format!("bench --space tiny --batch {huge} --resolution 8"), 2),
        ("supernet", "bench --space tiny --batch 60000 --resolution 4000".to_string(), 1),
        ("supernet", format!("bench --space tiny --batch 2 --resolution 8 --steps {huge}"), 2),
        ("supernet", "bench --data digits --batch 2 --resolution 1000000".to_string(), 2),
        ("supernet", format!("sample --supernet x --data digits --out y --count {huge}"), 2),
        ("extract", format!("table x --space tiny --validate {huge}"), 2),
        ("extract", "measure --space tiny --out .".to_string(), 1),
        ("extract", "table /dev/zero".to_string(), 1),
        ("supernet", "eval --supernet /dev/zero --data digits --arch largest".to_string(), 1),
    ] {
        fails(name, folder.path(), &line, code);
    }
}
