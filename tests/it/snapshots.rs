//! The texts of the two command lines: every help text, and the errors that users meet.
//!
//! `INSTA_UPDATE=always cargo test --test it snapshots` writes the texts of today; read the difference before
//! it is committed.

use std::collections::BTreeMap;
use std::fmt::Write;
use std::path::Path;

use insta::assert_snapshot;

use crate::testing::commands::{binary, pipeline, run};
use crate::testing::files::{copy_files, read_bytes, read_text, scratch, write_file};
use crate::testing::snapshot::settings;

/// Every command and subcommand of a tool, as its help lists them, after the tool by itself.
fn commands(name: &str, folder: &Path) -> Vec<String> {
    let mut known = vec![String::new()];
    let mut at = 0;
    while let Some(command) = known.get(at).cloned() {
        let output = run(name, folder, &format!("{command} --help"));
        let help = String::from_utf8(output.stdout).expect("text");
        let listed = help.lines().skip_while(|line| *line != "Commands:").skip(1);
        for line in listed.take_while(|line| !line.is_empty()) {
            // continued lines are indented further
            let inner = line.strip_prefix("  ").and_then(|line| line.split(' ').next());
            if let Some(inner) = inner.filter(|inner| !["", "help"].contains(inner)) {
                known.push(format!("{command} {inner}").trim().to_string());
            }
        }
        at += 1;
    }
    known
}

#[test]
fn every_help_text() {
    let folder = scratch();
    for (name, count) in [("supernet", 11), ("extract", 17)] {
        let mut text = String::new();
        let commands = commands(name, folder.path());
        assert!(commands.len() >= count, "{commands:?}");
        for command in commands {
            let output = run(name, folder.path(), &format!("{command} --help"));
            assert!(output.status.success() && output.stderr.is_empty(), "{name} {command}");
            let help = String::from_utf8(output.stdout).expect("text");
            assert!(help.contains("Example"), "{name} {command}: an example");
            let _ = writeln!(text, "$ {name} {command} --help\n{help}");
        }
        settings().bind(|| assert_snapshot!(format!("help_{name}"), text));
    }
}

/// Files that are broken in one way each.
fn broken_files(at: &Path) {
    let good = |name: &str| read_bytes(at.join(name));
    let write = |name: &str, bytes: &[u8]| write_file(at.join(name), bytes);
    let weights = good("run/supernet.safetensors");
    write("torn.safetensors", &weights[..weights.len() / 2]);
    write("empty.safetensors", b"");
    let mut huge = weights.clone();
    huge[..8].copy_from_slice(&(1u64 << 40).to_le_bytes());
    write("huge.safetensors", &huge);
    let text = |name: &str| String::from_utf8(good(name)).expect("text");
    let altered = |from: &str, to: &str, name: &str, new: &str| {
        let old = text(name);
        assert!(old.contains(from), "{name} holds {from}");
        write(new, old.replacen(from, to, 1).as_bytes());
    };
    altered("\"version\": 3", "\"version\": 4", "table.json", "newer.json");
    altered("\"version\": 3", "\"version\": 1", "table.json", "older.json");
    altered("\"us\": ", "\"us\": -", "table.json", "negative.json");
    altered("\"top1\":", "\"top1\":1", "accuracy.jsonl", "doubtful.jsonl");
    let rows = text("accuracy.jsonl");
    let last = rows.lines().last().expect("rows");
    write("twice.jsonl", format!("{rows}{last}\n").as_bytes());
    write("few.jsonl", rows.lines().take(9).collect::<Vec<_>>().join("\n").as_bytes());
    write("torn.jsonl", &rows.as_bytes()[..rows.len() - 9]);
    let space = String::from_utf8(run("supernet", at, "space tiny --toml").stdout).expect("text");
    for (name, from, to) in [
        ("unknown.toml", "classes = 10", "clases = 10"),
        ("even.toml", "kernel = [3, 5, 7]", "kernel = [3, 4]"),
        ("vast.toml", "\nchannels = ", "\nchannels = 65535 #"),
        ("classes.toml", "classes = 10", "classes = 12"),
    ] {
        write(name, space.replacen(from, to, if name == "vast.toml" { 9 } else { 1 }).as_bytes());
    }
    write("recipe.toml", b"version = 1\nname = \"x\"\n");
    write("digit.gif", b"GIF89a...");
    // a class name that digits do not have
    let config = text("sound/config.json").replacen("\"2\",", "\"two\",", 1);
    std::fs::create_dir_all(at.join("two")).expect("made");
    write("two/config.json", config.as_bytes());
    write("two/model.safetensors", &good("sound/model.safetensors"));
    write("digit.npy", b"\x93NUMPY nothing");
    let folder = at.join("images/train/cat");
    std::fs::create_dir_all(&folder).expect("made");
    std::fs::create_dir_all(at.join("images/val/dog")).expect("made");
    image::GrayImage::new(8, 8).save(folder.join("a.png")).expect("written");
}

const TRAINED: &str = "--supernet run/supernet.safetensors --data digits";
const SEARCH: &str =
    "search --space tiny --estimator estimator.safetensors --latency-table table.json --out x.json";

/// Arguments with which `supernet` must fail; `TRAINED` and `SEARCH` stand for [`TRAINED`] and [`SEARCH`].
const FAILING_SUPERNET: &[&str] = &[
    "space nothing",
    "space unknown.toml",
    "space even.toml",
    "space vast.toml",
    "train --space tiny --data digits --out run",
    "train --space tiny --data digits --out run --resume",
    "train --space tiny --data digits --out accuracy.jsonl/x",
    "train --space tiny --data digits --out x --recipe nothing",
    "train --space tiny --data digits --out x --recipe recipe.toml",
    "train --space tiny --data digits --out x --scale 0",
    "train --space tiny --data digits --out x --device cuda:0",
    "train --space tiny --data mnist --out x",
    "train --space tiny --data idx:nowhere --out x",
    "train --space tiny --data idx:images --out x",
    "train --space tiny --data folder:nowhere --out x",
    "train --space tiny --data folder:images --out x",
    "train --space ofa-mbv3-w1.0 --data digits --out x",
    "train --space classes.toml --data digits --out x",
    "train --space tiny",
    "train --space tiny --data digits --out x --threads 0",
    "eval --supernet nowhere.safetensors --data digits --arch largest",
    "eval --supernet torn.safetensors --data digits --arch largest",
    "eval --supernet empty.safetensors --data digits --arch largest",
    "eval --supernet huge.safetensors --data digits --arch largest",
    "eval --supernet table.json --data digits --arch largest",
    "eval --supernet estimator.safetensors --data digits --arch largest",
    "eval --supernet run/checkpoint.safetensors --data digits --arch largest",
    "eval TRAINED --arch r9:k3e3/k3e3",
    "eval TRAINED --arch r8:k9e3/k3e3",
    "eval TRAINED --arch r8:k3e3",
    "eval TRAINED --arch biggest",
    "eval TRAINED --arch random:many",
    "eval TRAINED --arch table.json",
    "eval TRAINED --arch largest --split all",
    "sample TRAINED --count 5 --out table.json",
    "sample TRAINED --count 5 --out nowhere/rows.jsonl",
    "finetune nowhere --data digits --out x",
    "finetune run --data digits --out x",
    "finetune sound --data mnist --out x",
    "finetune sound --data digits --out ./sound",
    "finetune sound --data digits --out run",
    "finetune sound --data digits --out run --resume",
    "finetune sound --data digits --out accuracy.jsonl/x",
    "finetune sound --data digits --out x --teacher torn.safetensors",
    "finetune sound --data digits --out x --teacher run/checkpoint.safetensors",
    "finetune sound --data digits --out y --epochs 0",
    "finetune sound --data digits --out y --lr nan",
    "finetune sound --data digits --out x --batch 0",
    "finetune two --data digits --out y",
    "import nowhere.pth --space tiny --out x",
    "import table.json --space tiny --out x",
    "import run/supernet.safetensors --space fashion --out x",
    "import run/supernet.safetensors --space tiny --out run/supernet.safetensors",
    "eval TRAINED --arch largest --inherit-bn",
    "bench --space tiny --resolution 8 --batch 0",
    "bench --space tiny --resolution 8 --batch 2 --arch smaller",
    "nonsense",
    "",
];

/// Arguments with which `extract` must fail.
const FAILING_EXTRACT: &[&str] = &[
    "measure --space tiny --out nowhere/table.json",
    "measure --space tiny --out older.json --missing",
    "measure --space tiny --out x.json --half-width 0",
    "measure --space tiny --out x.json --engine gpu",
    "measure --space tiny --out x.json --engine onnxruntime:nowhere.so",
    "measure --space tiny --out x.json --networks 3",
    "measure --space tiny --out x.json --resolutions 9",
    "measure --space tiny --out x.json --limits 2 --networks 0",
    "measure --space tiny --plan-only x.jsonl",
    "measure --space tiny --missing --plan-only x.jsonl --threads 1",
    "measure --space tiny --rows accuracy.jsonl --out x.json",
    "table table.json --space tiny --export-ofa table.json",
    "import table table.json --out x.json",
    "table newer.json",
    "table older.json",
    "table negative.json",
    "table accuracy.jsonl",
    "fit --accuracy nowhere.jsonl --out x",
    "fit --accuracy doubtful.jsonl --out x",
    "fit --accuracy twice.jsonl --out x",
    "fit --accuracy few.jsonl --out x",
    "fit --accuracy torn.jsonl --out x",
    "fit --accuracy table.json --out x",
    "SEARCH --max-latency 12",
    "SEARCH --max-macs 1K",
    "SEARCH --max-params 1K",
    "search --space fashion --estimator estimator.safetensors --latency-table table.json --out x",
    "search --space tiny --estimator run/supernet.safetensors --latency-table table.json --out x",
    "search --space tiny --estimator estimator.safetensors --latency-table estimator.safetensors --out x",
    "export TRAINED --arch smallest --out run",
    "export TRAINED --arch smallest --out nowhere/model",
    "export TRAINED --arch smallest --out x --calibration-images 0",
    "export TRAINED --arch smallest --out x --format keras",
    "export TRAINED --arch smallest --out inherited --inherit-bn",
    "export --supernet run/supernet.safetensors --arch smallest --out x",
    "verify nowhere --supernet run/supernet.safetensors",
    "verify run --supernet run/supernet.safetensors",
    "predict nowhere digit.png",
    "predict sound digit.gif",
    "predict sound digit.npy",
    "predict sound nowhere.png",
    "inspect nowhere",
    "inspect table.json",
    "man accuracy.jsonl/x",
    "nonsense",
    "",
];

/// `TOOL ARGUMENTS` of all that must fail.
fn failing() -> Vec<String> {
    let mut lines = Vec::new();
    for (tool, all) in [("supernet", FAILING_SUPERNET), ("extract", FAILING_EXTRACT)] {
        for arguments in all {
            lines.push(format!("{tool} {arguments}").replace("TRAINED", TRAINED).replace("SEARCH", SEARCH));
        }
    }
    lines
}

#[test]
fn every_error() {
    // a copy, so that the files of other tests do not show
    let folder = scratch();
    let at = folder.path();
    let names = [
        "run/supernet.safetensors",
        "run/checkpoint.safetensors",
        "run/teacher.safetensors",
        "run/log.jsonl",
        "run/plan.json",
        "accuracy.jsonl",
        "table.json",
        "estimator.safetensors",
    ];
    copy_files(pipeline(), at, &names);
    let export =
        "export --supernet run/supernet.safetensors --data digits --arch smallest --out sound --quiet";
    assert!(run("extract", at, export).status.success());
    broken_files(at);
    let mut text = String::new();
    for line in failing() {
        let (tool, arguments) = line.split_once(' ').expect("a tool and arguments");
        let output = run(tool, at, arguments);
        let code = output.status.code().expect("an exit code");
        let message = String::from_utf8(output.stderr).expect("text");
        assert!(code != 0 && output.stdout.is_empty(), "{line}: {code}");
        assert!(!message.contains('\u{1b}') && !message.contains("panicked"), "{line}: {message}");
        let _ = writeln!(text, "$ {}\n{code}: {}\n", line.trim_end(), message.trim_end());
    }
    let mut settings = settings();
    for (pattern, words) in BTreeMap::from([
        (r"[0-9a-f]{64}", "HASH"),
        (r"\b[0-9a-f]{16}\b", "FINGERPRINT"),
        (r"at most \d+\.\d+ ms", "at most N ms"),
        (r"\d+\.\d+(us|ms)", "N$1"),
        (r"got -?\d+\.\d+", "got N"),
        (r"column \d+", "column N"),
        (r"bytes after \d+", "bytes after N"),
        (r"one that this CPU has: [a-z0-9, ]+", "one that this CPU has: KERNELS"),
    ]) {
        settings.add_filter(pattern, words);
    }
    settings.bind(|| assert_snapshot!("errors", text));
}

#[test]
fn shells_and_manuals_are_served() {
    let folder = scratch();
    for name in ["supernet", "extract"] {
        for shell in ["bash", "zsh", "fish", "powershell", "elvish"] {
            let output = run(name, folder.path(), &format!("completion {shell}"));
            let script = String::from_utf8(output.stdout).expect("text");
            assert!(output.status.success() && script.contains(name) && script.contains("quiet"), "{shell}");
        }
        let man = folder.path().join(name);
        assert!(run(name, folder.path(), &format!("man {}", man.display())).status.success());
        let pages = std::fs::read_dir(&man).expect("a folder").count();
        assert!(pages >= commands(name, folder.path()).len(), "{pages} pages");
        let page = read_text(man.join(format!("{name}.1")));
        assert!(page.contains(".SH NAME") && page.contains("completion"), "{page}");
    }
    assert!(binary("supernet").is_file());
}
