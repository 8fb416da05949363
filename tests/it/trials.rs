//! `supernet trial`, and searches whose candidates it evaluates, as a user runs them.

#![cfg(unix)]

use std::io::Write;
use std::path::Path;
use std::process::{Command, Stdio};

use serde_json::{Value, json};

use crate::testing::commands::{binary, command, document, fails, json, pipeline, stderr, stdout};
use crate::testing::files::{read_text, scratch};
use crate::testing::signals::{signal_and_wait, start, wait_until};

/// A search with shared weights, of which `more` are further flags.
fn search(folder: &Path, more: &str) -> Command {
    let evaluator = format!(
        "'{}' trial --supernet '{}' --data digits --serve --threads 1 --quiet",
        binary("supernet").display(),
        pipeline().join("run/supernet.safetensors").display()
    );
    let line = "search --space tiny --max-macs 600K --seed 4 --evaluations 12 --out found.json";
    let mut command = command("extract", folder, &format!("{line} {more} --json"));
    command.arg("--evaluator").arg(evaluator);
    command
}

/// What was found, without the times of the run.
fn found(folder: &Path) -> Value {
    let mut found: Value = serde_json::from_str(&read_text(folder.join("found.json"))).expect("JSON");
    found["run"] = Value::Null;
    found
}

/// The sub-networks of a log, and their accuracies.
fn logged(folder: &Path) -> Vec<(String, f64)> {
    let text = read_text(folder.join("search.jsonl"));
    let lines = text.lines().skip(1).map(|line| serde_json::from_str::<Value>(line).expect("JSON"));
    lines
        .map(|line| {
            let top1 = line["values"][0]["mean"].as_f64().expect("a number");
            (line["arch"].as_str().expect("a text").to_string(), top1)
        })
        .collect()
}

#[test]
fn a_search_by_shared_weights_finds_the_best_of_what_it_evaluates() {
    let folder = scratch();
    let [two, one] = ["two", "one"].map(|name| folder.path().join(name));
    [&two, &one].into_iter().for_each(|path| std::fs::create_dir(path).expect("writable"));
    let report =
        document(&search(&two, "--workers 2 --log search.jsonl").output().expect("a binary that starts"));
    let logged = logged(&two);
    assert!(report["strategy"] == "portfolio" && report["ended"] == "budget", "{report}");
    assert!(logged.len() == 12 && report["candidates"] == 12 && report["failures"] == 0, "{report}");
    let best = logged.iter().map(|(_, top1)| *top1).fold(0.0, f64::max);
    assert_eq!(report["best"]["accuracy"].as_f64(), Some((best * 1e9).round() / 1e9));
    assert_eq!(report["best"]["accuracy_from"], "evaluator");
    assert!(report["best"]["macs"].as_u64() <= Some(600_000));
    let all: String = logged.iter().map(|(arch, _)| format!(" --arch {arch}")).collect();
    let eval =
        json("supernet", pipeline(), &format!("eval --supernet run/supernet.safetensors --data digits{all}"));
    for (at, (arch, top1)) in logged.iter().enumerate() {
        assert_eq!(eval["results"][at]["top1"], json!(top1), "{arch}");
    }
    // as many rows are evaluated together as there are workers; their number changes nothing else
    document(&search(&one, "--set batch=2").output().expect("a binary that starts"));
    assert_eq!(found(&one), found(&two));
    assert!(found(&one)["evaluator"].as_str().is_some_and(|command| command.ends_with("--quiet")));
}

#[test]
fn a_search_with_workers_that_is_killed_goes_on_as_if_it_had_not_been() {
    let folder = scratch();
    let [parts, whole] = ["parts", "whole"].map(|name| folder.path().join(name));
    [&parts, &whole].into_iter().for_each(|path| std::fs::create_dir(path).expect("writable"));
    let line = "--workers 2 --log search.jsonl";
    let begun = std::time::Instant::now();
    document(&search(&whole, line).output().expect("a binary that starts"));
    let takes = begun.elapsed();
    let mut killed = 0;
    for share in [0.3, 0.5, 0.7] {
        let mut child = start(search(&parts, line));
        std::thread::park_timeout(takes.mul_f64(share));
        child.kill().expect("a child");
        killed += usize::from(child.wait().expect("a child").code().is_none());
    }
    // an interruption is an end that is asked for
    let child = start(search(&parts, line));
    std::thread::park_timeout(takes.mul_f64(0.4));
    assert!(matches!(signal_and_wait(child, "-INT"), Some(0 | 130)));
    document(&search(&parts, line).output().expect("a binary that starts"));
    assert!(killed > 0, "each had ended before");
    assert_eq!(found(&parts), found(&whole));
    let sorted = |folder: &Path| {
        let mut logged = logged(folder);
        logged.sort_by(|a, b| a.0.cmp(&b.0));
        logged
    };
    assert_eq!(sorted(&parts), sorted(&whole));
}

/// Trainings go on from where they were when search and programs were killed.
#[test]
fn a_search_that_trains_goes_on_with_its_trainings() {
    let folder = scratch();
    let [parts, whole] = ["parts", "whole"].map(|name| folder.path().join(name));
    [&parts, &whole].into_iter().for_each(|path| std::fs::create_dir(path).expect("writable"));
    let search = |folder: &Path| {
        let evaluator = format!(
            "'{}' trial --space tiny --data digits --scale 0.05 --checkpoint-seconds 0 --out trials --serve --threads 1 --quiet",
            binary("supernet").display()
        );
        let line = "search --space tiny --evaluations 3 --workers 2 --strategy random --log search.jsonl --out found.json";
        let mut command = command("extract", folder, &format!("{line} --json"));
        command.arg("--evaluator").arg(evaluator);
        command
    };
    let begun = std::time::Instant::now();
    document(&search(&whole).output().expect("a binary that starts"));
    let takes = begun.elapsed();
    let mut killed = 0;
    for share in [0.2, 0.4, 0.3, 0.5] {
        let mut child = start(search(&parts));
        std::thread::park_timeout(takes.mul_f64(share));
        child.kill().expect("a child");
        killed += usize::from(child.wait().expect("a child").code().is_none());
    }
    document(&search(&parts).output().expect("a binary that starts"));
    assert!(killed > 0, "each had ended before");
    assert_eq!(found(&parts), found(&whole));
}

/// SIGTERM saves what is trained and ends, also when more requests wait.
#[test]
fn a_server_that_is_asked_to_end_does() {
    let folder = scratch();
    let line = "trial --space tiny --data digits --scale 50 --out trials --serve --quiet --threads 1";
    let mut server = command("supernet", folder.path(), line);
    let mut child =
        server.stdin(Stdio::piped()).stdout(Stdio::piped()).spawn().expect("a binary that starts");
    let mut input = child.stdin.take().expect("piped");
    input.write_all(b"{\"arch\":\"smallest\"}\n{\"arch\":\"largest\"}\n").expect("it reads");
    let log = || {
        let trials = std::fs::read_dir(folder.path().join("trials")).into_iter().flatten().flatten();
        trials.map(|trial| trial.path().join("run/log.jsonl")).any(|path| path.exists())
    };
    wait_until(&mut child, log);
    assert_eq!(signal_and_wait(child, "-TERM"), Some(130));
    // one whose answers nobody can read ends as well
    let mut server = command("supernet", folder.path(), &line.replace("trials", "others"));
    let mut child =
        server.stdin(Stdio::piped()).stdout(Stdio::piped()).spawn().expect("a binary that starts");
    let mut input = child.stdin.take().expect("piped");
    input.write_all(b"{\"arch\":\"smallest\"}\n").expect("it reads");
    drop(child.stdout.take());
    if !cfg!(target_os = "linux") {
        child.kill().expect("a child");
    }
    let code = child.wait().expect("a child").code();
    assert!(code == Some(130) || !cfg!(target_os = "linux"), "{code:?}");
}

/// The answers to lines of stdin.
fn served(folder: &Path, line: &str, requests: &[Value]) -> Vec<Value> {
    let mut command = command("supernet", folder, line);
    let mut child =
        command.stdin(Stdio::piped()).stdout(Stdio::piped()).spawn().expect("a binary that starts");
    let text: String = requests.iter().map(|request| format!("{request}\n")).collect();
    child.stdin.take().expect("piped").write_all(text.as_bytes()).expect("it reads");
    let output = child.wait_with_output().expect("a child");
    assert!(output.status.success());
    stdout(&output).lines().map(|line| serde_json::from_str(line).expect("JSON")).collect()
}

#[test]
fn trials_are_served_line_by_line_and_known_ones_at_once() {
    let folder = scratch();
    let folder = folder.path();
    let line = "trial --space tiny --data digits --scale 0.02 --out trials --serve --quiet";
    let requests = [
        json!({"arch": "smallest", "fidelity": 0.5, "metrics": ["top1"]}),
        json!({"arch": "smallest"}),
        json!({"arch": "r99:k3"}),
        json!({"fidelity": 1}),
        json!({"arch": "smallest", "fidelity": 2}),
        json!({"arch": "smallest", "seed": 1, "fidelity": 0.1}),
    ];
    let answers = served(folder, line, &requests);
    let top1 = |at: usize| answers[at]["metrics"]["top1"].as_f64().expect("a share");
    assert!(top1(0) > 0.1 && top1(1) > top1(0), "{answers:?}");
    assert_eq!((&answers[0]["fidelity"], &answers[1]["fidelity"]), (&json!(0.5), &json!(1.0)));
    for (at, part) in [(2, "arch"), (3, "arch is needed"), (4, "a share above 0, at most 1")] {
        assert!(answers[at]["error"].as_str().is_some_and(|error| error.contains(part)), "{}", answers[at]);
    }
    assert_ne!(answers[5]["folder"], answers[0]["folder"], "another seed is another training");
    let trained = folder.join(answers[1]["folder"].as_str().expect("a path")).join("run");
    let weights = trained.join("supernet.safetensors");
    let eval = format!("eval --supernet {} --data digits --arch largest", weights.display());
    assert_eq!(json("supernet", folder, &eval)["results"][0]["top1"], answers[1]["metrics"]["top1"]);
    // nothing is trained again: there is nothing to go on from
    std::fs::remove_dir_all(trained).expect("it is there");
    assert_eq!(served(folder, line, &requests[..2]), answers[..2]);
    let one = json(
        "supernet",
        folder,
        "trial --space tiny --data digits --scale 0.02 --out trials --arch smallest",
    );
    assert_eq!(one["metrics"], answers[1]["metrics"]);
    let other = "trial --space tiny --data digits --scale 0.03 --out trials --arch smallest";
    assert!(
        fails("supernet", folder, other, 1).contains("give the flags of its other trials, or another --out")
    );
}

#[test]
fn halving_trains_few_of_many_to_the_end() {
    let folder = scratch();
    let folder = folder.path();
    let evaluator = format!(
        "'{}' trial --space tiny --data digits --scale 0.02 --out trials --serve --threads 1 --quiet",
        binary("supernet").display()
    );
    let line = "search --space tiny --strategy halving --set rungs=0.2,1 --set eta=2 --evaluations 3 --workers 2 \
                --timeout 5m --minimize loss --log search.jsonl --out found.json --json";
    let mut command = command("extract", folder, line);
    let report = document(&command.arg("--evaluator").arg(evaluator).output().expect("a binary that starts"));
    let log = read_text(folder.join("search.jsonl"));
    let whole = log.lines().skip(1).filter(|line| !line.contains("fidelity")).count();
    let low = log.lines().skip(1).count() - whole;
    assert!(whole >= 1 && low >= 2 * whole, "{log}");
    let losses = log.lines().skip(1).filter(|line| !line.contains("fidelity"));
    let loss = |line: &str| serde_json::from_str::<Value>(line).expect("JSON")["values"][0]["mean"].clone();
    let least = losses.map(|line| loss(line).as_f64().expect("a number")).fold(f64::INFINITY, f64::min);
    assert_eq!(report["best"]["metrics"]["loss"]["mean"].as_f64(), Some((least * 1e9).round() / 1e9));
}

#[test]
fn a_search_by_scores_needs_neither_training_nor_accuracy() {
    let folder = scratch();
    let folder = folder.path();
    let one =
        json("supernet", folder, "trial --space tiny --data digits --zero-cost --batch 16 --arch largest");
    let cost = json("supernet", folder, "space tiny --arch largest");
    assert_eq!(
        (&one["n"], &one["metrics"]["params"]),
        (&json!(16), &json!(cost["archs"][0]["params"].as_f64()))
    );
    let evaluator = format!(
        "'{}' trial --space tiny --data digits --zero-cost --serve --quiet",
        binary("supernet").display()
    );
    let line = "search --space tiny --maximize nwot --strategy local --evaluations 12 --max-params 60K \
                --log search.jsonl --out found.json --json";
    let mut command = command("extract", folder, line);
    let report =
        document(&command.arg("--evaluator").arg(&evaluator).output().expect("a binary that starts"));
    let most = logged(folder).into_iter().map(|(_, nwot)| nwot).fold(f64::NEG_INFINITY, f64::max);
    assert_eq!(report["best"]["metrics"]["nwot"]["mean"].as_f64(), Some((most * 1e9).round() / 1e9));
    assert!(report["best"]["accuracy"].is_null() && report["best"]["metrics"]["top1"].is_null(), "{report}");
    let trace = report["trace"].as_array().expect("a list");
    assert_eq!(trace.last().expect("a rise")["arch"], report["best"]["arch"]);
    assert!(trace.is_sorted_by(|a, b| a["value"].as_f64() < b["value"].as_f64()), "{trace:?}");
    let written: Value = serde_json::from_str(&read_text(folder.join("found.json"))).expect("JSON");
    assert!(
        written["run"]["command"].as_array().is_some_and(|words| words.contains(&json!("nwot"))),
        "{written}"
    );
    let eval = json("supernet", folder, "space tiny --arch found.json");
    assert_eq!(eval["archs"][0]["arch"], report["best"]["arch"]);
    // where the accuracy is limited it is asked for, and the answers have none
    let limited = "search --space tiny --maximize nwot --min top1=0.5 --strategy random --evaluations 2 --out none.json";
    let mut command = self::command("extract", folder, limited);
    let output = command.arg("--evaluator").arg(evaluator).output().expect("a binary that starts");
    assert!(stderr(&output).contains("top1: expected a number, got none"), "{}", stderr(&output));
    assert!(output.status.code() == Some(1) && !folder.join("none.json").exists());
}

/// A program of the shell is there at once and answers at once, however much else the machine does.
#[test]
#[cfg(unix)]
fn a_search_may_end_by_the_clock() {
    let folder = scratch();
    let folder = folder.path();
    let script = r#"while read -r line; do
arch=$(printf '%s' "$line" | sed 's/.*"arch":"\([^"]*\)".*/\1/')
echo "{\"arch\":\"$arch\",\"metrics\":{\"score\":0.${#arch}}}"
done"#;
    std::fs::write(folder.join("evaluate.sh"), script).expect("a folder to write to");
    let line = "search --space tiny --maximize score --strategy random --time 2s --log search.jsonl --out found.json --json";
    let run = |line: &str, evaluator: &str| {
        let mut command = command("extract", folder, line);
        command.args(["--evaluator", evaluator]).output().expect("a binary that starts")
    };
    let first = document(&run(line, "sh evaluate.sh"));
    assert!(first["ended"] == "time" && first["interrupted"] == false, "{first}");
    let second = document(&run(line, "sh evaluate.sh"));
    // the same command goes on
    assert!(second["candidates"].as_u64() > first["candidates"].as_u64(), "{first} {second}");
    let none =
        line.replace("2s", "1ms").replace("found.json", "none.json").replace("search.jsonl", "none.jsonl");
    let output = run(&none, "sleep 600");
    assert_eq!(output.status.code(), Some(1));
    assert!(
        stderr(&output).contains("--time: time: expected enough to evaluate a candidate"),
        "{}",
        stderr(&output)
    );
}

#[test]
fn the_evaluator_of_the_examples_evaluates() {
    if Command::new("python3").arg("--version").output().is_err() {
        println!("skipped: no python3");
        return;
    }
    let folder = scratch();
    let folder = folder.path();
    let program = Path::new(env!("CARGO_MANIFEST_DIR")).join("examples/evaluator/evaluate.py");
    let line = "search --space tiny --maximize score --strategy local --evaluations 200 --max-macs 600K --out found.json --json";
    let mut command = command("extract", folder, line);
    let evaluator = format!("python3 '{}'", program.display());
    let report = document(&command.arg("--evaluator").arg(evaluator).output().expect("a binary that starts"));
    let score = &report["best"]["metrics"]["score"];
    let mean = score["mean"].as_f64().expect("a number");
    assert_eq!((score["low"].as_f64(), score["high"].as_f64()), (Some(mean - 1.0), Some(mean + 1.0)));
    assert!(report["best"]["macs"].as_u64().is_some_and(|macs| macs <= 600_000) && mean > 40.0, "{report}");
}

#[test]
fn what_cannot_be_asked_of_an_evaluator_is_refused() {
    let folder = scratch();
    let folder = folder.path();
    let line = |more: &str| format!("search --space tiny --out found.json --evaluator true {more}");
    for (more, code, part) in [
        ("", 2, "--evaluations"),
        ("--evaluations 3 --estimator x", 2, "cannot be used with"),
        ("--evaluations 3 --data digits --rounds 3", 2, "cannot be used with"),
        ("--evaluations 3 --supernet x", 2, "cannot be used with"),
        ("--evaluations 3 --timeout 10", 2, "a time above 0 such as 90s, 10m or 2h"),
        ("--evaluations 3 --maximize a --minimize b", 2, "cannot be used with"),
        ("--evaluations 3 --strategy climbers", 1, "a strategy for evaluations that cost much"),
        (
            "--evaluations 3 --strategy gradient",
            2,
            "with derivatives for the goal, got a program that evaluates",
        ),
        ("--evaluations 3 --minimize top1", 1, "--minimize: metric"),
        ("--evaluations 30", 1, "it failed for 8 candidates in a row"),
        ("--evaluations 3", 1, "none of 3 evaluated sub-networks has values"),
        ("--evaluations 3 --minimize latency@phone", 1, "latency@phone"),
    ] {
        let message = fails("extract", folder, &line(more), code);
        assert!(message.contains(part), "{more}: {message}");
    }
    let missing = "search --space tiny --out found.json --evaluations 3 --evaluator no-such-program";
    assert!(fails("extract", folder, missing, 1).contains("a program that can be started"));
    assert!(!folder.join("found.json").exists());
}
