//! Special paths: pipes as inputs, links and `-` as outputs; and the file modes of results.
#![cfg(unix)]

use std::os::unix::fs::{MetadataExt, PermissionsExt};
use std::path::Path;
use std::process::{Command, Output};

use crate::testing::commands::{assert_fails, binary, json, pipeline, run, stderr};
use crate::testing::files::{read_text, scratch, write_file};

/// Runs a line in bash, which has `<(…)`; `None` if bash is not installed.
fn bash(at: &Path, name: &str, line: &str) -> Option<Output> {
    Command::new("bash")
        .arg("-c")
        .arg(format!("\"{}\" {line}", binary(name).display()))
        .current_dir(at)
        .output()
        .ok()
}

#[test]
fn pipes_are_read_wherever_a_file_is() {
    let from = pipeline();
    let folder = scratch();
    let at = folder.path();
    let file = |name: &str| format!("<(cat {})", from.join(name).display());
    write_file(at.join("tiny.toml"), run("supernet", at, "space tiny --toml").stdout);
    let table = file("table.json");
    let estimator = file("estimator.safetensors");
    let search = format!(
        "search --space <(cat tiny.toml) --estimator {estimator} --latency-table {table} --out found.json"
    );
    let supernet = file("run/supernet.safetensors");
    for (name, line) in [
        ("extract", search),
        ("extract", format!("fit --accuracy {} --out e.safetensors", file("accuracy.jsonl"))),
        ("supernet", format!("eval --supernet {supernet} --data digits --arch <(cat found.json)")),
        (
            "extract",
            format!("export --supernet {supernet} --data digits --arch <(cat found.json) --out model"),
        ),
        ("extract", format!("inspect {supernet}")),
    ] {
        let Some(output) = bash(at, name, &line) else {
            eprintln!("skipped: no bash");
            return;
        };
        let message = stderr(&output);
        assert!(output.status.success(), "{name} {line}: {message}");
    }
    // what the search expects is read from the pipe again
    let config = read_text(at.join("model/config.json"));
    assert!(
        config.contains("\"predicted_top1\": ") && !config.contains("\"predicted_top1\": null"),
        "{config}"
    );
}

#[test]
fn outputs_follow_links_and_the_umask_and_are_no_dash() {
    let from = pipeline();
    let folder = scratch();
    let at = folder.path();
    std::fs::create_dir(at.join("elsewhere")).expect("made");
    for (link, target) in
        [("e.safetensors", "elsewhere/e"), ("run", "elsewhere/run"), ("model", "elsewhere/model")]
    {
        std::os::unix::fs::symlink(target, at.join(link)).expect("a link");
    }
    let fit = format!("fit --accuracy {} --out", from.join("accuracy.jsonl").display());
    json("extract", at, &format!("{fit} e.safetensors"));
    json("supernet", at, "train --space tiny --data digits --scale 0.001 --out run");
    let export = "export --supernet run/supernet.safetensors --data digits --arch smallest --out model";
    json("extract", at, export);
    let mode = |path: &str| std::fs::metadata(at.join(path)).expect(path).mode() & 0o777;
    write_file(at.join("usual"), "");
    for file in ["elsewhere/e", "elsewhere/run/supernet.safetensors", "elsewhere/model/config.json"] {
        assert_eq!(mode(file), mode("usual"), "{file}");
    }
    std::fs::set_permissions(at.join("elsewhere/model/config.json"), std::fs::Permissions::from_mode(0o640))
        .expect("set");
    json("extract", at, export);
    assert_eq!(mode("elsewhere/model/config.json"), 0o640);
    let before = std::fs::read_dir(at).expect("a folder").count();
    for (name, line) in [
        ("extract", format!("{fit} -")),
        ("extract", "measure --space tiny --plan-only -".to_string()),
        ("supernet", "train --space tiny --data digits --out -".to_string()),
        (
            "supernet",
            "sample --supernet run/supernet.safetensors --data digits --count 2 --out -".to_string(),
        ),
    ] {
        assert_fails(name, at, &line, 2, "standard output has the command's own text");
    }
    assert_eq!(std::fs::read_dir(at).expect("a folder").count(), before);
}
