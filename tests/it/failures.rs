//! Runs that go wrong: signals, full disks, diverging losses, odd images, limits that exclude each other.

use std::path::Path;
use std::process::{Command, Stdio};

use extract::latency::LatencyTable;
use image::{GrayImage, Luma, Rgb, RgbImage};
use network::checkpoint::Checkpoint;
use serde_json::Value;
use supernet::train::RunFolder;

use crate::cli::{binary, fails, json, pipeline, run};
use crate::common::short_recipe;

fn log(folder: &Path, run: &str) -> Vec<Value> {
    let text = std::fs::read_to_string(folder.join(run).join("log.jsonl")).expect("a log");
    text.lines().map(|line| serde_json::from_str(line).expect("whole lines")).collect()
}

/// A recipe of two short phases with these learning rates.
fn recipe(lr: [f64; 2]) -> String {
    short_recipe(0.5, &[("calm", lr[0], 1, 1), ("wild", lr[1], 9, 1)])
}

#[test]
fn a_diverging_run_stops_and_keeps_its_last_good_checkpoint() {
    let folder = tempfile::tempdir().expect("a folder");
    let at = folder.path();
    std::fs::write(at.join("late.toml"), recipe([0.05, 1000.0])).expect("written");
    std::fs::write(at.join("early.toml"), recipe([1000.0, 0.1])).expect("written");
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

/// Runs a command whose files may not grow beyond so many blocks of 512 bytes, as on a full disk.
#[cfg(unix)]
fn cramped(folder: &Path, blocks: u32, name: &str, line: &str) -> (Option<i32>, String) {
    let script = format!("trap '' XFSZ; ulimit -f {blocks}; exec {} {line}", binary(name).display());
    let command = &mut Command::new("sh");
    let output = command.current_dir(folder).args(["-c", &script]).output().expect("a shell");
    (output.status.code(), String::from_utf8_lossy(&output.stderr).into_owned())
}

#[test]
#[cfg(unix)]
fn a_full_disk_is_said_and_the_old_files_stay() {
    let at = pipeline();
    let folder = tempfile::tempdir().expect("a folder");
    let to = folder.path();
    for name in ["accuracy.jsonl", "table.json", "estimator.safetensors", "run/supernet.safetensors"] {
        let copy = to.join(name);
        std::fs::create_dir_all(copy.parent().expect("a folder")).expect("made");
        std::fs::copy(at.join(name), copy).expect("copied");
    }
    let train = "train --space tiny --data digits --seed 3 --out new --resume --checkpoint-seconds 0";
    let full = |checkpoint: bool| {
        let (code, message) = cramped(to, 20, "supernet", train);
        assert_eq!(code, Some(1), "{message}");
        assert!(message.contains("checkpoint.safetensors: cannot write: File too large"), "{message}");
        assert_eq!(to.join("new/checkpoint.safetensors").exists(), checkpoint);
    };
    full(false);
    assert_eq!(interrupt(to, "supernet", train, "-INT", When::Changed("new/log.jsonl")), Some(130));
    let old = std::fs::read(to.join("new/checkpoint.safetensors")).expect("a checkpoint");
    full(true);
    assert!(std::fs::read(to.join("new/checkpoint.safetensors")).expect("a checkpoint") == old);

    let search =
        "search --space tiny --estimator estimator.safetensors --latency-table table.json --out found.json";
    json("extract", to, search);
    let old = std::fs::read(to.join("found.json")).expect("a file");
    for line in [search, "fit --accuracy accuracy.jsonl --out estimator.safetensors"] {
        let (code, message) = cramped(to, 1, "extract", line);
        assert_eq!(code, Some(1), "{message}");
        assert!(message.contains("cannot write: File too large"), "{message}");
    }
    assert_eq!(std::fs::read(to.join("found.json")).expect("a file"), old);
    let export = "export --supernet run/supernet.safetensors --data digits --arch smallest --out model";
    let (code, message) = cramped(to, 20, "extract", export);
    assert_eq!(code, Some(1), "{message}");
    let left = std::fs::read_dir(to).expect("a folder").map(|entry| entry.expect("an entry").file_name());
    let left: Vec<_> = left.filter(|name| name.to_string_lossy().contains("model")).collect();
    assert!(left.is_empty(), "{left:?}");
}

#[test]
fn a_folder_in_use_is_refused() {
    let folder = tempfile::tempdir().expect("a folder");
    let _held = RunFolder::open(&folder.path().join("run"), false).expect("a new folder");
    let line = "train --space tiny --data digits --out run --resume";
    let message = fails("supernet", folder.path(), line, 1);
    assert!(
        message.contains("run: another process is training in this folder; wait until it ends"),
        "{message}"
    );
}

#[test]
fn other_kernels_go_on_with_a_run_and_are_named() {
    let folder = tempfile::tempdir().expect("a folder");
    let with = |backend: &str, line: &str| {
        let command = &mut Command::new(binary("supernet"));
        command.current_dir(folder.path()).env("ONCE_FOR_ALL_KERNELS", backend).args(line.split_whitespace());
        command.stdin(Stdio::null()).output().expect("a binary that starts")
    };
    let line = "train --space tiny --data digits --scale 0.004 --out run --resume";
    let first = format!("{line} --checkpoint-seconds 0");
    let mut child = Command::new(binary("supernet"))
        .current_dir(folder.path())
        .env("ONCE_FOR_ALL_KERNELS", "reference")
        .args(first.split_whitespace())
        .stderr(Stdio::null())
        .stdout(Stdio::null())
        .spawn()
        .expect("a binary that starts");
    while child.try_wait().expect("a child").is_none()
        && !folder.path().join("run/checkpoint.safetensors").exists()
    {
        std::thread::yield_now();
    }
    child.kill().expect("a child");
    child.wait().expect("a child");
    let output = with("portable", line);
    let message = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success(), "{message}");
    assert!(message.contains("warning: kernels reference before, portable now: the last bits"), "{message}");
    let inspected = json("extract", folder.path(), "inspect run/supernet.safetensors");
    assert_eq!(inspected["facts"]["provenance"]["kernels"], "reference, then portable");
}

#[test]
#[cfg(unix)]
fn a_run_under_nohup_outlives_its_terminal() {
    let folder = tempfile::tempdir().expect("a folder");
    let at = folder.path();
    let line = "train --space tiny --data digits --scale 0.01 --out run --quiet";
    // a shell hands an ignored signal on, as nohup does
    let script = format!("trap '' HUP; exec {} {line}", binary("supernet").display());
    let mut child = Command::new("sh")
        .current_dir(at)
        .args(["-c", &script])
        .stdout(Stdio::null())
        .spawn()
        .expect("a shell");
    while !at.join("run/log.jsonl").exists() && child.try_wait().expect("a child").is_none() {
        std::thread::yield_now();
    }
    Command::new("kill").args(["-HUP", &child.id().to_string()]).status().expect("kill");
    assert_eq!(child.wait().expect("a child").code(), Some(0));
    assert!(at.join("run/supernet.safetensors").exists());
}

#[test]
#[cfg(unix)]
fn another_version_of_the_tool_is_told_on_resume() {
    let folder = tempfile::tempdir().expect("a folder");
    let at = folder.path();
    let line = "train --space tiny --data digits --scale 0.05 --out run --resume";
    assert_eq!(interrupt(at, "supernet", line, "-HUP", When::Changed("run/log.jsonl")), Some(130));
    let path = at.join("run/checkpoint.safetensors");
    let bytes = std::fs::read(&path).expect("a checkpoint");
    let [now, other] =
        [env!("CARGO_PKG_VERSION"), "9.9.9"].map(|version| format!("tool\\\":\\\"{version}\\\""));
    let place = bytes.windows(now.len()).position(|window| window == now.as_bytes()).expect("a version");
    std::fs::write(&path, [&bytes[..place], other.as_bytes(), &bytes[place + now.len()..]].concat())
        .expect("written");
    let output = run("supernet", at, line);
    let message = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success(), "{message}");
    assert!(message.contains("warning: version 9.9.9 of the tool before, 0.1.0 now"), "{message}");
}

/// Twelve images each of two classes, color or grey, of several sizes, as png and jpeg.
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
    let folder = tempfile::tempdir().expect("a folder");
    let at = folder.path();
    images(&at.join("grey"), false);
    images(&at.join("color"), true);
    std::fs::write(at.join("grey/train/dark/07.jpg"), "no image").expect("written");
    let space = run("supernet", at, "space tiny --toml");
    let space = String::from_utf8(space.stdout).expect("text").replace("classes = 10", "classes = 2");
    std::fs::write(at.join("two.toml"), space).expect("written");
    std::fs::write(at.join("short.toml"), recipe([0.05, 0.05]).replace("batch = 64\nlr", "batch = 16\nlr"))
        .expect("written");

    let train = "train --space two.toml --recipe short.toml";
    let output = run("supernet", at, &format!("{train} --data folder:grey --out run"));
    let message = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success(), "{message}");
    assert!(message.contains("warning: an image is left out: grey/train/dark/07.jpg: content"), "{message}");
    let skipped: Vec<_> =
        log(at, "run").into_iter().filter(|line| line["event"] == "skipped_image").collect();
    assert_eq!(skipped.len(), 1);
    assert_eq!(skipped[0]["path"], "grey/train/dark/07.jpg");
    json("supernet", at, &format!("{train} --data folder:grey --out run1 --threads 1"));
    let bytes = |run: &str| std::fs::read(at.join(run).join("supernet.safetensors")).expect("weights");
    assert!(bytes("run") == bytes("run1"), "the same at any number of workers");
    let judged =
        json("supernet", at, "eval --supernet run/supernet.safetensors --data folder:grey --arch largest");
    assert_eq!(judged["results"][0]["n"], 11, "a tenth of each class, of 59 and of 60");

    // the space decides the channels: colors become grey
    json("supernet", at, &format!("{train} --data folder:color --out colors"));
    let message = fails("supernet", at, "train --space two.toml --data folder:grey --out x --batch 0", 2);
    assert!(message.contains("--batch"), "{message}");
    std::fs::write(at.join("large.toml"), recipe([0.05, 0.05]).replace("batch = 64\nlr", "batch = 640\nlr"))
        .expect("written");
    let line = "train --space two.toml --recipe large.toml --data folder:grey --out y";
    let output = run("supernet", at, line);
    let message = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success(), "{message}");
    assert!(
        message.contains(
            "note: grey has 108 training images, fewer than a batch of 640: steps are of 108 images"
        ),
        "{message}"
    );
    let plan = std::fs::read_to_string(at.join("y/plan.json")).expect("a plan");
    assert!(plan.contains("\"batch\": 108") && plan.contains("\"steps_per_epoch\": 1"), "{plan}");
    std::fs::write(at.join("grey/train/dark/09.jpg"), "no image").expect("written");
    let message = fails("supernet", at, &format!("{train} --data folder:grey --out z"), 1);
    assert!(message.contains("images that cannot be used: expected at most 1 %, got 2 of 120"), "{message}");
}

/// When a signal is sent.
#[cfg(unix)]
pub(crate) enum When<'a> {
    /// Once a file that the command writes into has changed: it is at work then, and heeds signals.
    Changed(&'a str),
    /// After so many milliseconds, whatever it does.
    After(u64),
}

/// Sends a signal to a command; its exit code, `None` if the system ended it.
#[cfg(unix)]
pub(crate) fn interrupt(at: &Path, name: &str, line: &str, signal: &str, when: When) -> Option<i32> {
    let length = |file: &str| std::fs::metadata(at.join(file)).map(|found| found.len()).ok();
    let before = if let When::Changed(file) = &when { length(file) } else { None };
    let mut child = Command::new(binary(name))
        .current_dir(at)
        .args(line.split_whitespace())
        .stdout(Stdio::null())
        .stderr(Stdio::null())
        .spawn()
        .expect("a binary that starts");
    match when {
        When::Changed(file) => {
            while length(file) == before && child.try_wait().expect("a child").is_none() {
                std::thread::yield_now();
            }
        }
        When::After(milliseconds) => {
            std::thread::park_timeout(std::time::Duration::from_millis(milliseconds));
        }
    }
    Command::new("kill")
        .args([signal, &child.id().to_string()])
        .stderr(Stdio::null())
        .status()
        .expect("kill");
    child.wait().expect("a child").code()
}

#[test]
#[cfg(unix)]
fn signals_save_and_end_with_130() {
    let from = pipeline();
    let folder = tempfile::tempdir().expect("a folder");
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
    let folder = tempfile::tempdir().expect("a folder");
    let text = std::fs::read_to_string(from.join("table.json")).expect("a table");
    let table: Value = serde_json::from_str(&text).expect("JSON");
    let mut text = concat!(
        "{\"kind\":\"latency-rows\",\"version\":2,\"device\":{\"name\":\"phone\"},\"engine\":{\"engine\":\"tflite\",",
        "\"engine_version\":\"2.17\",\"threads\":4,\"dtype\":\"f32\",\"batch\":1}}\n"
    )
    .to_string();
    // a device on which small kernels are slow: least parameters and least latency are far apart
    for (key, row) in table["rows"].as_object().expect("rows") {
        let factor = if key.contains("mbconv") && key.contains(" k3") { 100.0 } else { 1.0 };
        let us = row["row"]["us"].as_f64().expect("a number") * factor;
        text += &format!("{{\"layer\":\"{key}\",\"samples_us\":[{us}]}}\n");
    }
    std::fs::write(folder.path().join("rows.jsonl"), text).expect("written");
    json("extract", folder.path(), "measure --space tiny --rows rows.jsonl --out table.json");
    let estimator = from.join("estimator.safetensors");
    let search = format!(
        "search --space tiny --estimator {} --latency-table table.json --out x.json --json",
        estimator.display()
    );
    let nearest = |limit: &str| {
        let output = run("extract", folder.path(), &format!("{search} {limit}"));
        assert_eq!(output.status.code(), Some(3), "{}", String::from_utf8_lossy(&output.stderr));
        let document: Value = serde_json::from_slice(&output.stdout).expect("JSON");
        document["nearest_feasible"]["text"].as_str().expect("text").to_string()
    };
    let latency = nearest("--max-latency 0.001us");
    let params = nearest("--max-params 1");
    let both = format!("{search} --max-latency {latency} --max-params {params}");
    let output = run("extract", folder.path(), &both);
    let message = String::from_utf8_lossy(&output.stderr);
    assert_eq!(output.status.code(), Some(3), "{message}");
    assert!(
        message.contains("together, though each can be kept alone: as shares of the limits, 0."),
        "{message}"
    );
    let document: Value = serde_json::from_slice(&output.stdout).expect("JSON");
    let nearest = &document["nearest_feasible"];
    assert_eq!(nearest["quantity"], "all limits");
    // what the message says is enough
    let factor = nearest["value"].as_f64().expect("a factor");
    let params: f64 = params.trim_end_matches('K').parse().expect("thousands");
    let latency: f64 = latency.trim_end_matches("us").parse().expect("microseconds");
    let latency = 1.001 * factor * latency;
    let params = 1.001 * factor * params;
    let enough = format!("{search} --max-latency {latency}us --max-params {params}k");
    let output = run("extract", folder.path(), &enough);
    assert_eq!(output.status.code(), Some(0), "{}", String::from_utf8_lossy(&output.stderr));
}

#[test]
fn what_is_not_ours_stays() {
    let from = pipeline();
    let folder = tempfile::tempdir().expect("a folder");
    let at = folder.path();
    for name in ["accuracy.jsonl", "table.json", "estimator.safetensors"] {
        std::fs::copy(from.join(name), at.join(name)).expect("copied");
    }
    let trained = format!("--supernet {} --data digits", from.join("run/supernet.safetensors").display());
    let export = format!("export {trained} --arch smallest --calibration-images 100 --out model");
    json("extract", at, &export);
    std::fs::write(at.join("model/notes.txt"), "mine").expect("written");
    let message = fails("extract", at, &export, 1);
    assert!(message.contains("holds `notes.txt`, which is no part of an export"), "{message}");
    std::fs::create_dir(at.join("bert")).expect("made");
    std::fs::write(at.join("bert/config.json"), "{\"model_type\":\"bert\"}").expect("written");
    let message = fails("extract", at, &export.replace("--out model", "--out bert"), 1);
    assert!(message.contains("bert: it is there and holds no earlier export"), "{message}");
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
    let message = fails("extract", at, "measure --space tiny --out new.json --budget 0", 1);
    assert!(message.contains("layers are not measured yet"), "{message}");
    let message = fails("extract", at, "measure --space tiny --out table.json --threads 3 --budget 0", 1);
    assert!(message.contains("3 threads") && message.contains("--replace"), "{message}");
    for name in ["accuracy.jsonl", "table.json", "estimator.safetensors"] {
        let bytes = |folder: &Path| std::fs::read(folder.join(name)).expect("a file");
        assert!(bytes(at) == bytes(from), "{name}");
    }
    std::fs::write(at.join("notes.txt"), "my only notes").expect("written");
    let sample = format!("sample {trained} --count 3 --out notes.txt");
    assert!(fails("supernet", at, &sample, 1).contains("holds something else than rows"));
    assert_eq!(std::fs::read_to_string(at.join("notes.txt")).expect("notes"), "my only notes");
}

#[test]
fn a_finished_run_stays_as_it_is() {
    let folder = tempfile::tempdir().expect("a folder");
    let at = folder.path();
    let train = "train --space tiny --data digits --scale 0.001 --out run --resume";
    json("supernet", at, train);
    let bytes = || std::fs::read(at.join("run/supernet.safetensors")).expect("weights");
    let before = bytes();
    let again = Command::new(binary("supernet"))
        .current_dir(at)
        .env("ONCE_FOR_ALL_KERNELS", "reference")
        .args(train.split_whitespace())
        .output()
        .expect("a binary that starts");
    assert!(again.status.success() && bytes() == before, "other kernels, no step, the same file");
    assert!(!String::from_utf8_lossy(&again.stderr).contains("warning"));
    std::fs::remove_file(at.join("run/checkpoint.safetensors")).expect("removed");
    let message = fails("supernet", at, train, 1);
    assert!(
        message.contains("the checkpoint that it came from is not; put checkpoint.safetensors back"),
        "{message}"
    );
    assert!(bytes() == before);
}

#[test]
#[cfg(unix)]
fn nobody_reading_the_messages_changes_no_exit_code() {
    let from = pipeline();
    let folder = tempfile::tempdir().expect("a folder");
    let search = format!(
        "search --space tiny --estimator {0}/estimator.safetensors --latency-table {0}/table.json --out x.json",
        from.display()
    );
    let code = |name: &str, line: &str| {
        let script = format!("{} {line} 2>&-; echo code $? >&3", binary(name).display());
        let command = &mut Command::new("sh");
        command.current_dir(folder.path()).args(["-c", &format!("exec 3>codes; {script}")]);
        command.stdout(Stdio::null()).status().expect("a shell");
        std::fs::read_to_string(folder.path().join("codes")).expect("a code").trim().to_string()
    };
    assert_eq!(code("extract", &format!("{search} --max-macs 1K")), "code 3");
    assert_eq!(code("extract", &search), "code 0");
    assert_eq!(code("supernet", "space nothing"), "code 1");
    assert_eq!(code("supernet", "train --space tiny --data digits --scale 0.001 --out run"), "code 0");
}

#[test]
fn absurd_numbers_are_refused_before_anything_is_allocated() {
    let folder = tempfile::tempdir().expect("a folder");
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
