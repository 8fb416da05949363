//! `extract study`, `extract strategies` and `extract search --strategy`, as a user runs them.

use std::fmt::Write;
use std::path::Path;

use extract::latency::LatencyTable;
use space::{Arch, preset, sampler};

use crate::testing::commands::{fails, json, pipeline, run, stdout, succeeds};
use crate::testing::files::{read_text, scratch};

/// 27 cells of three digits: the digits' sum is the accuracy, their product (plus 1) the latency.
fn cells() -> String {
    let mut text = "cell,top1,ms,seconds\n".to_string();
    for number in 0..27 {
        let digits = [number / 9, number / 3 % 3, number % 3];
        let sum: usize = digits.iter().sum();
        let product: usize = digits.iter().product();
        let _ = writeln!(text, "{}{}{},{sum},{},10", digits[0], digits[1], digits[2], product + 1);
    }
    text
}

const PROBLEM: &str = r#"
version = 1
name = "27 cells"
goals = ["top1", "ms"]
budget = 270
seeds = 3

[table]
file = "cells.csv"
code = "cell"

[metrics.top1]
column = "top1"
better = "higher"

[metrics.ms]
column = "ms"
better = "lower"
unit = "ms"

[price]
column = "seconds"
unit = "s"

[[strategies]]
name = "exact"

[[strategies]]
name = "nsga2"
set = { population = 6 }
"#;

fn write(folder: &Path, name: &str, text: &str) {
    std::fs::write(folder.join(name), text).expect("writable");
}

#[test]
fn a_study_compares_strategies_on_a_table() {
    let folder = scratch();
    let folder = folder.path();
    write(folder, "cells.csv", &cells());
    write(folder, "problem.toml", PROBLEM);
    let document = json("extract", folder, "study problem.toml --out out --points 5");
    let of = |at: usize| &document["results"][at];
    assert_eq!((of(0)["label"].as_str(), of(0)["proved"].as_f64()), (Some("exact"), Some(1.0)));
    assert_eq!(of(0)["evaluations"]["mean"], 27.0);
    assert_eq!(of(0)["end"]["high"], 0.0);
    assert_eq!(of(0)["hypervolume"]["values"][4]["low"], 1.0, "it has seen the whole front");
    // six of accuracy at 9 ms
    assert_eq!(
        (document["best"].as_str(), document["oracles"][0]["best"].as_f64()),
        (Some("222"), Some(6.0))
    );
    let written = read_text(folder.join("out/study.json"));
    assert_eq!(serde_json::from_str::<serde_json::Value>(&written).expect("JSON"), document);
    let picture = read_text(folder.join("out/study.svg"));
    assert!(picture.starts_with("<svg") && picture.contains("nsga2") && picture.contains("price [s]"));
    let text = stdout(&run("extract", folder, "study problem.toml --seeds 2 --budget 100"));
    assert!(text.contains("runs          2 of each strategy, 100 s each"), "{text}");
    assert!(text.contains("nsga2") && text.contains("hypervolume"), "{text}");
    // the same at one thread and at two
    let threads = |count: usize| {
        stdout(&run("extract", folder, &format!("study problem.toml --threads {count} --json")))
    };
    assert_eq!(threads(1), threads(2));
}

#[test]
fn a_study_says_what_is_wrong() {
    let folder = scratch();
    let folder = folder.path();
    write(folder, "cells.csv", &cells());
    for (from, to, part) in [
        ("cells.csv", "sells.csv", "sells.csv: cannot read"),
        ("code = \"cell\"", "code = \"sell\"", "column: expected one of cell, top1, ms, seconds, got sell"),
        (
            "column = \"top1\"",
            "column = \"top5\"",
            "column: expected one of cell, top1, ms, seconds, got top5",
        ),
        (
            "goals = [\"top1\", \"ms\"]",
            "goals = [\"top5\"]",
            "goals, report and limits: expected some of ms, top1",
        ),
        ("goals = [\"top1\", \"ms\"]", "goals = []", "goals: expected 1 to 4, got 0"),
        ("goals = [\"top1\", \"ms\"]", "goals = [\"ms\", \"ms\"]", "goals: expected each once, got ms twice"),
        ("code = \"cell\"", "", "table: expected one of code, columns and space, got none"),
        (
            "name = \"nsga2\"\nset = { population = 6 }",
            "name = \"halving\"",
            "expected one that evaluates at lower",
        ),
        ("budget = 270", "budget = 0", "budget: expected a number above 0, got 0"),
        ("name = \"exact\"", "name = \"exactly\"", "strategy: expected one of climbers, evolution, exact"),
        (
            "population = 6",
            "size = 6",
            "strategy nsga2: parameters: expected population, crossover, mutations",
        ),
        ("seeds = 3", "seeds = 3\nlimits = { top1 = 7 }", "limits: expected some row that keeps them"),
        ("version = 1", "version = 2", "version"),
    ] {
        write(folder, "problem.toml", &PROBLEM.replace(from, to));
        let message = fails("extract", folder, "study problem.toml", 1);
        assert!(message.contains(part), "{part}: {message}");
    }
    write(folder, "problem.toml", PROBLEM);
    write(folder, "cells.csv", &cells().replace("222,6,9,10\n", ""));
    let message = fails("extract", folder, "study problem.toml", 1);
    assert!(message.contains("combinations: expected all 27, got 26"), "{message}");
    let message = fails("extract", folder, "study problem.toml --budget -3", 2);
    assert!(message.contains("--budget") && message.contains("above 0"), "{message}");
}

#[test]
fn strategies_are_listed_with_their_parameters() {
    let folder = scratch();
    let folder = folder.path();
    let document = json("extract", folder, "strategies");
    let names: Vec<&str> = document["strategies"]
        .as_array()
        .expect("a list")
        .iter()
        .filter_map(|one| one["name"].as_str())
        .collect();
    for name in
        ["climbers", "evolution", "exact", "halving", "local", "nsga2", "portfolio", "random", "reinforce"]
    {
        assert!(names.contains(&name), "{name}");
        let text = stdout(&run("extract", folder, &format!("strategies {name}")));
        assert!(text.starts_with(&format!("{name}: ")), "{text}");
    }
    assert!(stdout(&run("extract", folder, "strategies nsga2")).contains("population=20"));
    let message = fails("extract", folder, "strategies nsga", 1);
    assert!(message.contains("strategy: expected one of climbers"), "{message}");
}

#[test]
fn a_search_can_be_run_with_any_strategy_and_exact_proves_it() {
    let estimator = pipeline().join("estimator.safetensors");
    let out = scratch();
    let out = out.path();
    let line = |more: &str| {
        format!(
            "search --space tiny --estimator {} --max-macs 600K --out {} {more}",
            estimator.display(),
            out.join("found.json").display()
        )
    };
    let exact = json("extract", out, &line("--strategy exact"));
    assert_eq!((exact["proof"].as_str(), exact["ended"].as_str()), (Some("optimal"), Some("finished")));
    let found: serde_json::Value = serde_json::from_str(&read_text(out.join("found.json"))).expect("JSON");
    assert_eq!((found["proof"].as_str(), found["strategy"].as_str()), (Some("optimal"), Some("exact")));
    let best = exact["best"]["accuracy"].as_f64().expect("a number");
    for strategy in ["climbers", "evolution", "local", "nsga2", "portfolio", "random", "reinforce"] {
        let other = json("extract", out, &line(&format!("--strategy {strategy} --evaluations 500")));
        assert_eq!(other["strategy"], strategy);
        let accuracy = other["best"]["accuracy"].as_f64().expect("a number");
        assert!(accuracy <= best + 1e-9 && other["best"]["macs"].as_u64() <= Some(600_000), "{strategy}");
    }
    let stopped = json("extract", out, &line("--strategy exact --evaluations 20"));
    assert!(stopped["ended"] == "budget" && stopped["bound"].as_f64() >= Some(best - 1e-6), "{stopped}");
    for (more, part) in [
        ("--strategy annealing", "strategy: expected one of climbers"),
        (
            "--strategy local --set start=3",
            "strategy local: parameters: expected starts, move, batch, got start=3",
        ),
        (
            "--strategy local --set starts=3 --set starts=4",
            "--set: parameter: expected each once, got starts twice",
        ),
        (
            "--strategy halving",
            "strategy halving: estimator: expected one that evaluates at lower fidelities",
        ),
        ("--strategy exact --max-params 1", "no sub-network keeps parameters"),
    ] {
        let code = if part.starts_with("no sub") { 3 } else { 1 };
        let message = fails("extract", out, &line(more), code);
        assert!(message.contains(part), "{part}: {message}");
    }
    assert!(fails("extract", out, &line("--set starts"), 2).contains("KEY=VALUE"));
    succeeds(
        "extract",
        out,
        &line("--strategy evolution --set survivors=best --set population=40 --evaluations 800"),
    );
}

/// Two devices with one table: the tighter limit decides.
#[test]
fn limits_on_several_devices_are_kept_at_once() {
    let at = pipeline();
    let out = scratch();
    let out = out.path();
    let space = preset("tiny").expect("a preset");
    let table = LatencyTable::read(&at.join("table.json")).expect("a table");
    let least = |arch: &Arch| table.latency(&space, arch).expect("known").high_us;
    let (low, high) = (least(&sampler::smallest(&space)), least(&sampler::largest(&space)));
    let (tight, loose) = (low + 0.4 * (high - low), low + 0.8 * (high - low));
    let line = |more: &str| {
        let at = at.display();
        format!("search --space tiny --estimator {at}/estimator.safetensors --out found.json {more}")
            .replace("TABLE", &format!("{at}/table.json"))
    };
    let both = |phone: f64, hub: f64| {
        let limits = format!("--limit latency@phone={phone}us --limit latency@hub={hub}us --limit macs=2M");
        json("extract", out, &line(&format!("--table phone=TABLE --table hub=TABLE {limits}")))
    };
    let alone = json("extract", out, &line(&format!("--latency-table TABLE --max-latency {tight}us")));
    for (phone, hub) in [(tight, loose), (loose, tight)] {
        let two = both(phone, hub);
        assert_eq!(two["best"]["accuracy"], alone["best"]["accuracy"], "{phone} {hub}");
        let latency = |name: &str| two["best"]["metrics"][name]["high"].as_f64().expect("a number");
        assert!(latency("latency@phone") <= phone && latency("latency@hub") <= hub);
        assert_eq!(two["devices"]["hub"]["latency"]["device"], table.device.name.as_str());
        let found: serde_json::Value =
            serde_json::from_str(&read_text(out.join("found.json"))).expect("JSON");
        assert_eq!(found["devices"]["phone"]["latency_table"], table.hash().as_str());
        assert_eq!(found["limits"]["latency@phone"].as_f64(), Some(phone));
    }
    // what was found is a sub-network wherever one can be given
    let front = json("extract", out, &line("--table phone=TABLE --front"));
    let second = front["front"][1]["arch"].as_str().expect("a front");
    let shown = json("supernet", out, "space tiny --arch found.json#front[1]");
    assert_eq!(shown["archs"][0]["arch"], second);
    let text = stdout(&run("extract", out, &line("--table phone=TABLE --table hub=TABLE")));
    assert!(text.contains("on hub") && text.contains("on phone"), "{text}");
    for (more, code, part) in [
        (
            "--table phone=TABLE --limit latency@hub=1ms",
            1,
            "limits: metric: expected a metric with a table, got latency@hub",
        ),
        ("--table phone=TABLE --limit latency=1ms", 1, "expected a metric with a table, got latency"),
        (
            "--table phone=TABLE --table phone=TABLE",
            1,
            "--table: name: expected each name once, got phone twice",
        ),
        ("--max-macs 1M --limit macs=2M", 1, "limits: macs: expected one limit, got two"),
        ("--table phone=TABLE --limit latency@phone=0.001us", 3, "no sub-network keeps latency@phone within"),
        ("--limit top1=0.9", 2, "expected METRIC=AMOUNT"),
        ("--front", 2, "--table"),
    ] {
        let message = fails("extract", out, &line(more), code);
        assert!(message.contains(part), "{part}: {message}");
    }
}
