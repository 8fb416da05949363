//! Programs that answer, die, hang and lie; all are scripts of a shell.
#![cfg(unix)]

use std::path::Path;

use base::timing::Stopwatch;
use search::Better;
use space::{preset, sampler};

use super::*;

/// Reads requests into `arch` and runs `answer` for each; a value follows from the length of the text.
fn script(answer: &str) -> Program {
    let script = format!(
        r#"value() {{ echo "{{\"arch\":\"$arch\",\"metrics\":{{\"top1\":0.${{#arch}}}}}}"; }}
while read -r line; do
arch=$(printf '%s' "$line" | sed 's/.*"arch":"\([^"]*\)".*/\1/')
{answer}
done"#
    );
    Program::from_words(["sh", "-c", &script])
}

fn archs(space: &SearchSpace, count: usize) -> Vec<Arch> {
    let mut rng = base::random::rng_for("process tests", 5, &[]);
    (0..count).map(|_| sampler::random(space, &mut rng)).collect()
}

struct Asked {
    values: Vec<MetricValue>,
    failures: Vec<String>,
    error: Option<String>,
}

fn ask(program: Program, config: ProcessConfig, count: usize, stop: &AtomicBool) -> Asked {
    let space = preset("tiny").expect("a preset");
    let metrics = vec![Metric::new("top1", "share", Better::Higher)];
    let mut rows = GeneRows::new(space.genome().len());
    for arch in archs(&space, count) {
        rows.push(&space.row(&arch).expect("of the space"));
    }
    let estimator = ProcessEstimator::start(&space, metrics, program, config, |_| ()).expect("sh is there");
    let values = estimator.estimate(&rows, Fidelity::FULL, stop);
    let failures = estimator.failures().into_iter().map(|failure| failure.reason).collect();
    let error = values.as_ref().err().map(ToString::to_string);
    let error = error.or_else(|| estimator.gave_up().map(|error| error.to_string()));
    Asked { values: values.unwrap_or_default(), failures, error }
}

fn expected(count: usize) -> Vec<MetricValue> {
    let space = preset("tiny").expect("a preset");
    let value = |arch: &Arch| format!("0.{}", arch.to_string().len()).parse().expect("a number");
    archs(&space, count).iter().map(|arch| MetricValue::expected(value(arch))).collect()
}

#[test]
fn values_come_in_order_from_any_number_of_workers() {
    for workers in [1, 3, 8] {
        let config = ProcessConfig { workers, ..ProcessConfig::default() };
        let asked = ask(script("value"), config, 12, &AtomicBool::new(false));
        assert_eq!((asked.values, asked.error), (expected(12), None), "{workers}");
        assert!(asked.failures.is_empty());
    }
}

/// Runs `first` instead of answering when the file does not exist yet.
fn first_time(mark: &Path, first: &str) -> Program {
    let mark = mark.display();
    script(&format!("if [ ! -e '{mark}' ]; then echo $$ > '{mark}'; {first}; fi; value"))
}

#[test]
fn what_dies_hangs_or_lies_once_is_replaced_and_asked_again() {
    let folder = tempfile::tempdir().expect("a folder");
    for (number, first) in [
        "kill -9 $$",
        "sleep 60",
        "exit 3",
        r#"echo "{\"arch\":\"$arch\",\"metrics\":{\"top1\":NaN}}""#,
        r#"echo "{\"arch\":\"another\",\"metrics\":{\"top1\":0.5}}""#,
        "echo Traceback",
    ]
    .into_iter()
    .enumerate()
    {
        let begun = Stopwatch::start();
        let config =
            ProcessConfig { workers: 2, timeout: Some(Duration::from_secs(2)), ..ProcessConfig::default() };
        let program = first_time(&folder.path().join(number.to_string()), first);
        let asked = ask(program, config, 6, &AtomicBool::new(false));
        assert_eq!((asked.values, asked.error), (expected(6), None), "{first}");
        assert!(asked.failures.is_empty() && begun.elapsed_ms() < 30_000.0, "{first}");
    }
}

/// A copy that ends after each answer has died before it is asked again; a candidate has all its tries nevertheless.
#[test]
fn a_copy_that_died_while_it_waited_costs_no_try() {
    let config = ProcessConfig { workers: 2, tries: 1, ..ProcessConfig::default() };
    for _ in 0..5 {
        let asked = ask(script("value; exit 0"), config.clone(), 12, &AtomicBool::new(false));
        assert_eq!((asked.values, asked.failures), (expected(12), Vec::<String>::new()));
    }
}

#[test]
fn a_program_that_goes_on_failing_is_given_up_with_its_reason() {
    for (answer, part) in [
        (r#"echo "{\"arch\":\"$arch\",\"error\":\"out of memory\"}""#, "out of memory"),
        ("exit 3", "the program ended without an answer: exit status: 3"),
        (
            "echo Traceback",
            "expected {\"arch\", \"metrics\"} or {\"arch\", \"error\"} in JSON, got Traceback",
        ),
        ("sleep 60", "no answer within 20ms"),
    ] {
        let timeout = Some(Duration::from_millis(if answer.starts_with("sleep") { 20 } else { 5000 }));
        let config = ProcessConfig { timeout, most_failures: 3, ..ProcessConfig::default() };
        let few = ask(script(answer), config.clone(), 2, &AtomicBool::new(false));
        assert_eq!(few.values, [MetricValue::failed(); 2], "{answer}");
        assert!(few.failures.len() == 2 && few.failures[0].starts_with(part), "{:?}", few.failures);
        let error = ask(script(answer), config, 6, &AtomicBool::new(false)).error.expect("too many");
        assert!(error.contains(part) && error.contains("it failed for 3 candidates in a row"), "{error}");
    }
}

#[test]
fn a_stop_ends_the_program_and_all_that_it_started() {
    let folder = tempfile::tempdir().expect("a folder");
    let mark = folder.path().join("child");
    let program = script(&format!("sleep 1000 & echo $! > '{}'; wait", mark.display()));
    let stop = AtomicBool::new(false);
    let begun = Stopwatch::start();
    let asked = std::thread::scope(|scope| {
        scope.spawn(|| {
            while !std::fs::read_to_string(&mark).is_ok_and(|text| text.ends_with('\n')) {
                std::thread::sleep(Duration::from_millis(10));
            }
            stop.store(true, Ordering::Relaxed);
        });
        ask(program, ProcessConfig::default(), 3, &stop)
    });
    assert!(asked.values.is_empty() && asked.error.is_none());
    assert!(begun.elapsed_ms() < 20_000.0);
    let text = std::fs::read_to_string(&mark).expect("written");
    let child: i32 = text.trim().parse().expect("a number");
    let gone = (0..200).any(|_| {
        std::thread::sleep(Duration::from_millis(10));
        is_gone(child)
    });
    assert!(gone, "the sleep goes on");
}

/// Whether a process has ended, though perhaps nobody has asked how.
fn is_gone(id: i32) -> bool {
    let stat = std::fs::read_to_string(format!("/proc/{id}/stat")).unwrap_or_default();
    let id = rustix::process::Pid::from_raw(id).expect("not 0");
    stat.contains(") Z") || rustix::process::test_kill_process(id).is_err()
}

#[test]
fn a_command_is_split_as_by_a_shell() {
    let program = Program::from_command("sh -c 'echo \"a b\"' x\\ y").expect("words");
    assert_eq!(program, Program::from_words(["sh", "-c", "echo \"a b\"", "x y"]));
    for command in ["", "  ", "sh 'unclosed"] {
        assert!(Program::from_command(command).is_err(), "{command}");
    }
    let space = preset("tiny").expect("a preset");
    let program = Program::from_command("/no/such/program --serve").expect("words");
    let error = ProcessEstimator::start(&space, Vec::new(), program, ProcessConfig::default(), |_| ());
    let error = error.err().expect("it is not there").to_string();
    assert!(error.starts_with("evaluator: command: expected a program that can be started"), "{error}");
}
