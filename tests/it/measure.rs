//! Latency tables from plan to search, measured on this machine or by another program.

use std::path::Path;
use std::process::{Command, Output};

use extract::latency::{LatencyTable, MeasurePlan, Rows};
use serde_json::Value;

use crate::testing::commands::{assert_fails, binary, fails, json, pipeline, run, stderr, stdout, succeeds};
use crate::testing::files::{read_bytes, read_text, scratch, write_file};
use crate::testing::tables::{phone_header, plan_for, write_phone_rows};

/// Runs the program for small devices.
fn device(at: &Path, words: &[&str]) -> Output {
    Command::new(binary("measure")).current_dir(at).args(words).output().expect("a binary that starts")
}

const MEASURE: &str = "measure --space tiny --resolutions 8 --half-width 50 --budget 16";

#[test]
fn precision_is_the_number_type_and_a_number_still_the_half_width() {
    let folder = tempfile::tempdir().expect("a folder");
    let at = folder.path();
    let measure = "measure --space tiny --resolutions 8 --threads 1 --networks 0 --plan-only plan.jsonl";
    let note = "note: --precision 20 means --half-width 20; --precision is the number type now\n";
    for (flags, half_width, noted) in [
        ("", 0.05, false),
        ("--half-width 20", 0.2, false),
        ("--precision f32 --half-width 20", 0.2, false),
        ("--dtype f32 --half-width 20", 0.2, false),
        ("--precision 20", 0.2, true),
    ] {
        let output = run("extract", at, &format!("{measure} {flags}"));
        let err = String::from_utf8_lossy(&output.stderr);
        assert_eq!(err.contains(note), noted, "{flags}: {err}");
        let plan = MeasurePlan::read(&at.join("plan.jsonl")).expect("a plan");
        assert_eq!(plan.half_width, half_width, "{flags}");
    }
    let refused = fails("extract", at, &format!("{measure} --precision 20 --half-width 20"), 1);
    assert!(refused.contains("a second half-width"), "{refused}");
    let refused = fails("extract", at, "measure --space tiny --out table.json --precision bf16 --quiet", 1);
    assert!(refused.contains("f32 on `cpu`"), "{refused}");
}

#[test]
fn a_plan_goes_to_a_device_and_rows_come_back() {
    let folder = scratch();
    let at = folder.path();
    let planned = json("extract", at, &format!("{MEASURE} --threads 1 --networks 16 --plan-only plan.jsonl"));
    let plan = MeasurePlan::read(&at.join("plan.jsonl")).expect("a plan");
    assert_eq!(planned["layers"], plan.layers.len());
    assert_eq!((plan.networks.len(), plan.threads, plan.half_width), (16, 1, 0.5));

    let done = device(at, &["plan.jsonl", "rows.jsonl", "--device-name", "board"]);
    let message = stderr(&done);
    // on a busy machine the time may be up before all intervals are narrow enough
    let known = done.status.success() || message.contains("time is up");
    assert!(known && message.contains("extract measure --space tiny --rows rows.jsonl"), "{message}");
    let rows = Rows::read(&at.join("rows.jsonl")).expect("rows");
    let visits = |rows: &Rows| rows.visits().count();
    if !message.contains("time is up") {
        let again = device(at, &["plan.jsonl", "rows.jsonl", "--device-name", "board", "--quiet"]);
        assert!(again.status.success() && again.stderr.is_empty());
        let after = Rows::read(&at.join("rows.jsonl")).expect("rows");
        assert_eq!(visits(&after), visits(&rows), "what is there is not measured again");
    }

    // a power cut: the last line is torn, and the one before had just been written
    let text = read_text(at.join("rows.jsonl"));
    let lines: Vec<&str> = text.lines().collect();
    write_file(at.join("rows.jsonl"), lines[..100].join("\n") + "\n{\"netw");
    let cut = visits(&Rows::read(&at.join("rows.jsonl")).expect("a torn line is skipped"));
    // on a busy machine one budget may not be enough
    for _ in 0..5 {
        let done = device(at, &["plan.jsonl", "rows.jsonl", "--device-name", "board"]);
        if !stderr(&done).contains("time is up") {
            break;
        }
    }
    assert!(visits(&Rows::read(&at.join("rows.jsonl")).expect("rows")) > cut);

    let folded =
        json("extract", at, "measure --space tiny --resolutions 8 --rows rows.jsonl --out board.json");
    assert_eq!((folded["missing"].as_u64(), folded["validation"]["n"].as_u64()), (Some(0), Some(8)));
    let table = LatencyTable::read(&at.join("board.json")).expect("a table");
    assert_eq!((table.device.name.as_str(), table.rows().len()), ("board", plan.layers.len()));
    let other = device(at, &["plan.jsonl", "rows.jsonl", "--device-name", "other"]);
    let message = stderr(&other);
    assert!(
        other.status.code() == Some(1) && message.contains("on another machine or with other flags"),
        "{message}"
    );
}

#[test]
fn the_device_s_program_says_what_is_wrong() {
    let folder = scratch();
    let at = folder.path();
    let help = device(at, &["--help"]);
    assert!(help.status.success() && stdout(&help).contains("measure PLAN.jsonl ROWS.jsonl"));
    assert!(String::from_utf8_lossy(&device(at, &["--version"]).stdout).starts_with("measure 0."));
    json("extract", at, &format!("{MEASURE} --threads 1 --networks 0 --plan-only plan.jsonl"));
    let text = read_text(at.join("plan.jsonl"));
    write_file(at.join("short.jsonl"), &text[..text.len() / 2]);
    write_file(at.join("gpu.jsonl"), text.replace("\"native\"", "\"onnxruntime\""));
    write_file(at.join("something"), "else");
    for (words, code, part) in [
        (&["plan.jsonl"][..], 2, "expected PLAN.jsonl and ROWS.jsonl"),
        (&["plan.jsonl", "rows.jsonl", "--fast"], 2, "Usage: measure"),
        (&["nowhere.jsonl", "rows.jsonl"], 1, "nowhere.jsonl"),
        (&["short.jsonl", "rows.jsonl"], 1, "copy the file again"),
        (&["gpu.jsonl", "rows.jsonl"], 1, "plan for --engine native"),
        (&["plan.jsonl", "something"], 1, "it holds something else than rows"),
    ] {
        let output = device(at, words);
        let message = stderr(&output);
        assert!(output.status.code() == Some(code) && message.contains(part), "{words:?}: {message}");
    }
    assert_eq!(read_text(at.join("something")), "else");
    assert_fails("extract", at, &format!("{MEASURE} --plan-only plan.jsonl"), 1, "expected --threads");
}

#[test]
fn rows_of_any_tool_become_a_table_that_serves_a_search() {
    let from = pipeline();
    let folder = scratch();
    let at = folder.path();
    let plan = plan_for(at, "tiny");
    let mut text = phone_header(1);
    for key in plan.layers.keys() {
        text += &format!("{{\"layer\":\"{key}\",\"samples_us\":[{0},{0}.5,{0}.25]}}\n", 10 + key.len());
    }
    write_file(at.join("phone.jsonl"), &text);
    let folded = json("extract", at, "measure --space tiny --rows phone.jsonl --out phone.json");
    assert_eq!((folded["missing"].as_u64(), &folded["validation"]), (Some(0), &Value::Null));
    let estimator = from.join("estimator.safetensors");
    let search = format!(
        "search --space tiny --estimator {} --latency-table phone.json --max-latency 1s --out found.json",
        estimator.display()
    );
    let message = succeeds("extract", at, &search);
    assert!(message.contains("plain sums of layers"), "{message}");
    let typo = text.replacen("\"layer\":\"conv1x1", "\"layer\":\"conv1", 1);
    write_file(at.join("phone.jsonl"), typo);
    assert_fails(
        "extract",
        at,
        "measure --space tiny --rows phone.jsonl --out new.json",
        1,
        "layer \"conv1 ",
    );
}

#[test]
fn a_table_is_added_to_and_knows_its_networks() {
    let folder = scratch();
    let at = folder.path();
    let measured =
        json("extract", at, &format!("{MEASURE} --threads 1 --networks 16 --limits 2 --out table.json"));
    let validation = &measured["validation"];
    assert!(validation["n"].as_u64().is_some_and(|n| n > 0), "{measured}");
    for key in ["within_5pct", "within_10pct", "mape", "spearman", "kendall", "limits_kept"] {
        assert!(validation[key].is_number(), "{key} in {validation}");
    }
    assert_eq!(measured["latency"], "undisturbed");
    let before = LatencyTable::read(&at.join("table.json")).expect("a table");
    let fits = before.fits().next().expect("fitted");
    let judges: Vec<_> = fits.searched_judges().iter().map(|row| row.arch.clone()).collect();
    assert!(judges.iter().all(|arch| !fits.spent().contains(arch)), "no judge had a part in anything");
    let Some(table) = table_with_more(at, &before) else { return };
    assert_search_uses(at);
    assert_validation_is_added(at, &table);
    let shown = run("extract", at, "table table.json --space tiny");
    let text = stdout(&shown);
    assert!(text.contains("sub-networks that had no part in it") && text.contains("sentinel"), "{text}");
}

/// Adds all layers and more networks to the table; `None` where the machine is too disturbed for that.
fn table_with_more(at: &Path, before: &LatencyTable) -> Option<LatencyTable> {
    let more = "measure --space tiny --half-width 50 --budget 24 --threads 1 --networks 8 --out table.json --missing";
    let added = run("extract", at, more);
    let message = stderr(&added);
    if !added.status.success() {
        assert!(
            message.contains("in a comparable state now") || message.contains("layers known to both"),
            "{message}"
        );
        eprintln!("skipped: the machine is too disturbed: {message}");
        return None;
    }
    let table = LatencyTable::read(&at.join("table.json")).expect("a table");
    assert!(table.rows().len() > before.rows().len());
    for (key, row) in before.rows() {
        let now = table.rows()[key];
        assert!(now.visits >= row.visits && now.confirmed + 5 >= row.confirmed, "{key}: nothing is lost");
    }
    let fits = before.fits().next().expect("fitted");
    let fit = table.fits().next().expect("fitted");
    assert!(fit.networks.len() > fits.networks.len() && fit.searched.len() == fits.searched.len());
    Some(table)
}

/// A search reads the table, and its result has an interval and a probability.
fn assert_search_uses(at: &Path) {
    let estimator = pipeline().join("estimator.safetensors");
    let line = format!(
        "search --space tiny --estimator {} --latency-table table.json --max-latency 1s --out found.json",
        estimator.display()
    );
    let found = json("extract", at, &line);
    let number = |key: &str| found["best"][key].as_f64().expect("a number");
    assert!(number("latency_upper_ms") >= number("latency_ms"));
    assert!(found["limit_kept"].as_f64().is_some_and(|share| share > 0.4), "{found}");
    let one = json("extract", at, &format!("{line} --resolutions 8"));
    assert!(one["best"]["arch"].as_str().expect("text").starts_with("r8:"));
    assert_fails("extract", at, &format!("{line} --resolutions 9"), 1, "resolution");
}

/// `table --validate` adds its sessions to the table unless `--no-add` forbids it.
fn assert_validation_is_added(at: &Path, table: &LatencyTable) {
    let bytes = || read_bytes(at.join("table.json"));
    let before = bytes();
    let check = "table table.json --space tiny --validate 6 --budget 8";
    let judged = json("extract", at, &format!("{check} --no-add"));
    assert!(bytes() == before && judged["networks"].as_array().is_some_and(|networks| networks.len() == 6));
    let judged = json("extract", at, check);
    let sessions = LatencyTable::read(&at.join("table.json")).expect("a table").sessions().len();
    assert_eq!(sessions > table.sessions().len(), judged["met"] == true, "{judged}");
}

#[test]
fn samples_of_other_flags_are_set_aside_and_named() {
    let folder = scratch();
    let at = folder.path();
    let measure = "measure --space tiny --resolutions 8 --threads 1 --networks 0 --out table.json";
    // a half-width that no machine reaches in this time, so that samples are left
    run("extract", at, &format!("{measure} --half-width 0.01 --budget 2"));
    let left = read_bytes(at.join("table.json.rows"));
    assert!(Rows::read(&at.join("table.json.rows")).expect("rows").visits().count() > 0);
    for flags in ["--half-width 50 --budget 4 --missing", "--half-width 49 --budget 4 --missing"] {
        let output = run("extract", at, &format!("{measure} {flags}"));
        let message = stderr(&output);
        assert!(!message.contains("move the file away"), "{flags}: {message}");
        if flags.contains("50") {
            assert!(message.contains("they are retained in table.json.rows.1"), "{message}");
        }
        assert!(read_bytes(at.join("table.json.rows.1")) == left, "{flags}: every byte");
    }
    let folded =
        json("extract", at, "measure --space tiny --resolutions 8 --rows table.json.rows.1 --out b.json");
    assert!(folded["entries"].as_u64() > Some(0), "{folded}");
}

#[test]
fn tables_are_put_together_and_side_by_side() {
    let folder = scratch();
    let at = folder.path();
    for (rows, table, factor) in
        [("a.jsonl", "a.json", 1.0), ("b.jsonl", "b.json", 1.02), ("c.jsonl", "c.json", 3.0)]
    {
        write_phone_rows(at, "tiny", rows, factor);
        json("extract", at, &format!("measure --space tiny --rows {rows} --out {table}"));
    }
    let both = json("extract", at, "table merge a.json b.json --out both.json");
    assert_eq!(both["sessions"].as_object().expect("sessions").len(), 2);
    assert_eq!(both["latency"], "typical");
    let table = LatencyTable::read(&at.join("both.json")).expect("a table");
    let first = LatencyTable::read(&at.join("a.json")).expect("a table");
    for (key, row) in first.rows() {
        assert!((table.rows()[key].us / row.us - 1.01).abs() < 1e-5, "{key}");
    }
    let diff = json("extract", at, "table diff a.json b.json");
    assert_eq!(diff["layers"].as_array().expect("layers").len(), first.rows().len());
    assert!((diff["ratio"]["median"].as_f64().expect("a number") - 1.02).abs() < 1e-5, "{diff}");
    let shown = run("extract", at, "table diff a.json c.json");
    assert!(stdout(&shown).contains("x 3.000"));
    assert_fails("extract", at, "table merge a.json b.json --out a.json", 1, "expected another file");
    // into an existing table: the session is pooled, and counts once however often it is added
    for _ in 0..2 {
        let pooled = json("extract", at, "measure --space tiny --rows b.jsonl --out a.json");
        assert_eq!(pooled["sessions"].as_object().expect("sessions").len(), 2);
    }
    assert_eq!(LatencyTable::read(&at.join("a.json")).expect("a table").rows(), table.rows());
    // rows of another engine are refused, and nothing is lost
    let text = read_text(at.join("b.jsonl"));
    write_file(at.join("b.jsonl"), text.replace("\"threads\":4", "\"threads\":2"));
    let before = read_bytes(at.join("a.json"));
    let message = fails("extract", at, "measure --space tiny --rows b.jsonl --out a.json", 1);
    assert!(message.contains("2 threads") && message.contains("--replace"), "{message}");
    assert_eq!(read_bytes(at.join("a.json")), before);
    let replaced = json("extract", at, "measure --space tiny --rows b.jsonl --out a.json --replace");
    assert_eq!(replaced["sessions"].as_object().expect("sessions").len(), 1);
}

#[test]
fn tables_of_ofa_come_in_and_go_out() {
    let folder = scratch();
    let at = folder.path();
    let yaml = "Logits-input:1x1x64-output:10:\n  count: 40\n  mean: 0.5\n  std: 0.01\n";
    write_file(at.join("a.yaml"), yaml);
    write_file(at.join("b.yaml"), yaml.replace("0.5", "0.7"));
    let imported = json("extract", at, "import table a.yaml b.yaml --out phone.json --device-name phone");
    assert_eq!(imported["entries"], 1);
    let table = LatencyTable::read(&at.join("phone.json")).expect("a table");
    let (key, row) = table.rows().first_key_value().expect("a row");
    assert_eq!((key.as_str(), row.us, row.samples), ("linear 64-10 @1x1", 600.0, 80));
    assert_fails("extract", at, "import table a.yaml nothing.yaml --out x.json", 1, "nothing.yaml");
    assert_fails("extract", at, "import table a.yaml --out a.yaml", 1, "expected another file");
    assert_fails("extract", at, "table phone.json --space ofa-mbv3-w1.0 --export-ofa out", 1, "a latency of");
}
