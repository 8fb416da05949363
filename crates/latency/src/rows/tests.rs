use super::*;

/// A visit of a subject, with the lowest readings of the sentinel around it.
pub(crate) fn visit_of(subject: Subject, samples_us: &[f64], sentinel_us: Option<[f64; 2]>) -> Record {
    let samples = Samples::Whole(samples_us.to_vec());
    let space = None;
    let again = false;
    let inner = 1;
    let arrival_us = None;
    let at_seconds = None;
    Record::Visit(Visit { subject, space, again, inner, samples, arrival_us, sentinel_us, at_seconds })
}

fn of(protocol: &str) -> Setting {
    let text = str::to_string;
    let name = text("board");
    let cpu = text("a76");
    let os = text("linux");
    let arch = text("aarch64");
    let device = DeviceFacts { name, cpu, os, arch, cores: 4 };
    let engine = text("fake");
    let engine_version = text("1");
    let dtype = text("f32");
    let engine = EngineFacts { engine, engine_version, threads: 1, dtype, batch: 1 };
    Setting { device, engine, protocol: text(protocol), sentinel: text("pool 8 @2x2"), plan: text("none") }
}

fn open(path: &Path, protocol: &str) -> Result<RowsLog> {
    RowsLog::open(path, of(protocol), Session::default())
}

fn visit(subject: Subject, samples_us: &[f64]) -> Record {
    let Record::Visit(visit) = visit_of(subject, samples_us, Some([1.0, 1.5])) else { unreachable!() };
    let again = samples_us.len() > 1;
    let at_seconds = Some(0.25);
    Record::Visit(Visit { again, inner: 7, space: Some("print".to_string()), at_seconds, ..visit })
}

#[test]
fn rows_outlive_a_kill_and_a_torn_line() {
    let folder = tempfile::tempdir().expect("a folder");
    let path = folder.path().join("rows.jsonl");
    let mut log = open(&path, "p").expect("a new file");
    let layer = |key: &str| Subject::Layer(key.to_string());
    let arch: Arch = "r8:k3e3".parse().expect("an arch");
    let Record::Visit(network) = visit(Subject::Network(arch), &[3.0]) else { unreachable!() };
    let in_place = Samples::InPlace(vec![vec![1.0, 2.0], vec![1.5, 2.5]]);
    for record in [
        visit(layer("a"), &[1.5, 2.5]),
        Record::Visit(Visit { samples: in_place, ..network }),
        Record::Conditions(Conditions { load: Some(1.5), ..Conditions::default() }),
        visit(layer("a"), &[4.0]),
    ] {
        log.push(record).expect("written");
    }
    let error = open(&path, "p").err().expect("held").to_string();
    assert!(error.contains("another process is measuring"), "{error}");
    let rows = log.rows().clone();
    drop(log);
    assert_eq!(Rows::read(&path).expect("own file"), rows);
    let whole = std::fs::read(&path).expect("a file");
    for torn in [&b""[..], b"{\"layer\":\"a\",\"inn", b"\xff\xfe"] {
        std::fs::write(&path, [&whole[..], torn].concat()).expect("written");
        assert_eq!(Rows::read(&path).expect("passed over"), rows);
        let log = open(&path, "p").expect("gone on with");
        assert_eq!(log.rows().records[..5], rows.records);
        assert_eq!(log.rows().records.len(), 6, "one session more");
    }
    open(&path, "p").expect("gone on with").remove().expect("removed");
    assert!(!path.exists());
}

#[test]
fn another_tool_needs_to_say_little() {
    let text = concat!(
        "{\"kind\":\"latency-rows\",\"version\":1,\"device\":{\"name\":\"phone\"},",
        "\"engine\":{\"engine\":\"tflite\",\"engine_version\":\"2.17\",\"threads\":1,\"dtype\":\"f32\",\"batch\":1}}\n",
        "{\"layer\":\"pool 8 @2x2\",\"samples_us\":[2.5,2.6]}\n",
        "{\"network\":\"r8:k3e3\",\"samples_us\":[40]}\n",
    );
    let rows = Rows::from_bytes("x", text.as_bytes()).expect("rows");
    let visits: Vec<_> = rows.visits().collect();
    assert_eq!((rows.setting.device.name.as_str(), visits.len()), ("phone", 2));
    assert_eq!((visits[0].inner, visits[0].sentinel_us), (1, None));
    assert_eq!(visits[1].subject, Subject::Network("r8:k3e3".parse().expect("an arch")));
    // as some systems' editors and scripts leave it
    let bare = text.trim_end();
    for (how, other) in [
        ("byte order mark", format!("\u{feff}{text}")),
        ("no last line's end", bare.to_string()),
        ("carriage returns", text.replace('\n', "\r\n")),
        ("empty lines", format!("{}\n\n", text.replacen("{\"layer", "\n{\"layer", 1))),
        (
            "two passes, as version 1 had",
            text.replace("\"network\":\"r8:k3e3\"", "\"network\":\"r8:k3e3\",\"pass\":2"),
        ),
    ] {
        assert_eq!(Rows::from_bytes("x", other.as_bytes()).expect(how), rows, "{how}");
    }
    let torn = &bare[..bare.len() - 1];
    assert_eq!(
        Rows::from_bytes("x", torn.as_bytes()).expect("torn").visits().count(),
        1,
        "a torn line is none"
    );
}

#[test]
fn a_file_without_a_last_line_s_end_is_gone_on_with() {
    let folder = tempfile::tempdir().expect("a folder");
    let path = folder.path().join("rows.jsonl");
    let mut log = open(&path, "p").expect("a new file");
    log.push(visit(Subject::Layer("a".to_string()), &[1.0])).expect("written");
    drop(log);
    let text = std::fs::read_to_string(&path).expect("text");
    std::fs::write(&path, text.trim_end()).expect("written");
    let mut log = open(&path, "p").expect("gone on with");
    log.push(visit(Subject::Layer("b".to_string()), &[2.0])).expect("written");
    let rows = log.rows().clone();
    drop(log);
    assert_eq!(Rows::read(&path).expect("own file"), rows);
    assert_eq!(rows.visits().count(), 2);
}

#[test]
fn other_settings_and_damage_are_refused() {
    let folder = tempfile::tempdir().expect("a folder");
    let path = folder.path().join("rows.jsonl");
    drop(open(&path, "p").expect("a new file"));
    let header = std::fs::read_to_string(&path).expect("a file");
    let refused = |text: &str, protocol: &str| {
        std::fs::write(&path, text).expect("written");
        let error = open(&path, protocol).err().expect("refused").to_string();
        assert_eq!(std::fs::read_to_string(&path).expect("still there"), text, "nothing is lost");
        error
    };
    assert!(refused(&header, "other").contains("with other flags; finish that run"));
    for (text, part) in [
        ("nonsense".to_string(), "something else than rows"),
        (header.replace("\"version\":2", "\"version\":3"), "version: expected 2, got 3"),
        (header.replace("\"threads\":1", "\"threads\":0"), "threads: expected at least 1"),
        (header.replace(KIND, "x"), "kind: expected latency-rows"),
        (format!("{header}nonsense\n"), "line 3: visit"),
        (format!("{header}{{\"layer\":\"a\"}}\n"), "line 3: visit"),
        (
            format!("{header}{{\"layer\":\"a\",\"samples_us\":[]}}\n"),
            "line 3: samples_us: expected at least one",
        ),
        (format!("{header}{{\"layer\":\"a\",\"layers_us\":[[1]]}}\n"), "line 3: visit"),
        (
            format!("{header}{{\"network\":\"r8:k3e3\",\"layers_us\":[[1],[1,2]]}}\n"),
            "equally many layers in each run",
        ),
        (format!("{header}{{\"layer\":\" \",\"samples_us\":[1]}}\n"), "line 3: visit"),
        (format!("{header}{{\"layer\":\"a\",\"inner\":0,\"samples_us\":[1]}}\n"), "2^24 runs"),
        (format!("{header}{{\"layer\":\"a\",\"samples_us\":[-1]}}\n"), "each of 1e-6"),
        (format!("{header}{{\"layer\":\"a\",\"samples_us\":[1],\"sentinel_us\":[0,1]}}\n"), "sentinel_us"),
        (format!("{header}{{\"layer\":\"a\",\"network\":\"r8:k3e3\",\"samples_us\":[1]}}\n"), "visit"),
        (format!("{header}{{\"network\":\"r8:k3e3\",\"pass\":5,\"samples_us\":[1]}}\n"), "visit"),
    ] {
        let error = refused(&text, "p");
        assert!(error.contains(part), "{part}: {error}");
    }
}

#[test]
fn samples_of_another_setting_are_set_aside_and_kept() {
    let folder = tempfile::tempdir().expect("a folder");
    let path = folder.path().join("t.json.rows");
    let copy = |number: u32| folder.path().join(format!("t.json.rows.{number}"));
    let begin = |protocol: &str| RowsLog::open_or_set_aside(&path, of(protocol), Session::default());
    let mut texts = Vec::new();
    for (number, protocol) in ["p", "q", "p"].into_iter().enumerate() {
        let (mut log, aside) = begin(protocol).expect("a new file");
        assert_eq!(aside, (number > 0).then(|| copy(number as u32)));
        assert_eq!(log.rows().visits().count(), 0, "none of other flags");
        assert_eq!(log.rows().setting, of(protocol));
        log.push(visit(Subject::Layer("a".to_string()), &[1.0 + number as f64])).expect("written");
        if number == 0 {
            assert!(begin("q").is_err(), "another process is at work, whatever its flags");
        }
        drop(log);
        texts.push(std::fs::read(&path).expect("a file"));
    }
    for number in [1, 2] {
        assert!(std::fs::read(copy(number)).expect("kept") == texts[number as usize - 1], "{number}");
        Rows::read(&copy(number)).expect("rows that a table takes");
    }
    let (log, aside) = begin("p").expect("the same flags");
    assert_eq!((log.rows().visits().count(), aside), (1, None), "gone on with");
    drop(log);
    std::fs::write(&path, "nonsense").expect("written");
    assert!(begin("p").is_err() && std::fs::read(&path).expect("still there") == b"nonsense");
    assert!(!copy(3).exists());
}
