use std::sync::{Arc, Mutex};

use network::eval::Accuracy;
use tracing::field::Field;
use tracing::span::{Attributes, Id, Record};
use tracing::{Metadata, Subscriber};

use super::wire::crc32c;
use super::*;
use crate::train::{StepRecord, ValidationRecord};

/// A point as a reader that knows nothing of the writer sees it: the step, the tag, the value; marks by a tag of their own.
type Point = (u64, String, f32);

/// The bytes of a variable-length number, and the number.
fn varint(bytes: &mut &[u8]) -> u64 {
    let mut value = 0;
    let mut shift = 0;
    loop {
        let (byte, rest) = bytes.split_first().expect("a byte");
        *bytes = rest;
        value |= u64::from(byte & 0x7f) << shift;
        shift += 7;
        if byte & 0x80 == 0 {
            return value;
        }
    }
}

fn take<'a>(bytes: &mut &'a [u8], count: usize) -> &'a [u8] {
    let (taken, rest) = bytes.split_at(count);
    *bytes = rest;
    taken
}

/// The fields of a message: number, and what stands there; numbers of fixed width as their bytes.
fn fields(mut bytes: &[u8]) -> Vec<(u64, Vec<u8>)> {
    let mut found = Vec::new();
    while !bytes.is_empty() {
        let key = varint(&mut bytes);
        let value = match key & 7 {
            0 => varint(&mut bytes).to_le_bytes().to_vec(),
            1 => take(&mut bytes, 8).to_vec(),
            5 => take(&mut bytes, 4).to_vec(),
            2 => {
                let length = varint(&mut bytes) as usize;
                take(&mut bytes, length).to_vec()
            }
            other => panic!("wire type {other}"),
        };
        found.push((key >> 3, value));
    }
    found
}

fn eight(bytes: &[u8]) -> u64 {
    u64::from_le_bytes(bytes.try_into().expect("eight bytes"))
}

fn four(bytes: &[u8]) -> u32 {
    u32::from_le_bytes(bytes.try_into().expect("four bytes"))
}

fn unmasked(masked: u32) -> u32 {
    masked.wrapping_sub(0xa282_ead8).rotate_left(15)
}

fn text(bytes: &[u8]) -> String {
    String::from_utf8(bytes.to_vec()).expect("text")
}

fn scalar(value: &[u8]) -> (String, f32) {
    match &fields(value)[..] {
        [(1, tag), (2, value)] => (text(tag), f32::from_bits(four(value))),
        other => panic!("{other:?}"),
    }
}

fn points(event: &[u8]) -> Vec<Point> {
    let mut step = 0;
    let mut found = Vec::new();
    for (number, value) in fields(event) {
        match number {
            1 => assert!(f64::from_bits(eight(&value)) > 1.7e9, "a time"),
            2 => step = eight(&value),
            3 => found.push((text(&value), 0.0)),
            5 => found.extend(fields(&value).iter().map(|(_, value)| scalar(value))),
            7 => found.push(("session".to_string(), eight(&fields(&value)[0].1) as f32)),
            other => panic!("field {other}"),
        }
    }
    found.into_iter().map(|(tag, value)| (step, tag, value)).collect()
}

/// All points of a file, after a check of frames and checksums.
fn read(path: &Path) -> Vec<Point> {
    let bytes = std::fs::read(path).expect("a file");
    let mut rest = bytes.as_slice();
    let mut found = Vec::new();
    while !rest.is_empty() {
        let length = take(&mut rest, 8);
        assert_eq!(crc32c(length), unmasked(four(take(&mut rest, 4))));
        let event = take(&mut rest, eight(length) as usize);
        assert_eq!(crc32c(event), unmasked(four(take(&mut rest, 4))));
        found.extend(points(event));
    }
    found
}

fn only_file(folder: &Path) -> PathBuf {
    let files: Vec<_> = std::fs::read_dir(folder).expect("a folder").flatten().collect();
    assert_eq!(files.len(), 1);
    files[0].path()
}

fn step(step: u64) -> LogLine {
    let phase = "full".to_string();
    LogLine::Step(StepRecord { step, phase, loss: 1.5, lr: 0.0, resolution: 12.into(), ms: 20.0 })
}

fn evaluation(step: u64, arch: &str) -> LogLine {
    let accuracy = Accuracy { correct: 3, n: 4 };
    let phase = "full".to_string();
    let arch = arch.parse().expect("an arch");
    let split = "val".to_string();
    LogLine::Evaluation { step, phase, arch, split, top1: accuracy.top1(), accuracy }
}

fn points_of(largest: Option<&str>) -> Points {
    Points { batch: 64, largest: largest.map(|arch| arch.parse().expect("an arch")) }
}

fn point(step: u64, tag: &str, value: f32) -> Point {
    (step, tag.to_string(), value)
}

#[test]
fn checksums_are_those_of_the_standard() {
    // RFC 3720, B.4, and the usual check value
    assert_eq!(crc32c(b"123456789"), 0xe306_9283);
    assert_eq!(crc32c(&[0; 32]), 0x8a91_36aa);
    assert_eq!(crc32c(&[0xff; 32]), 0x62a8_ab43);
    assert_eq!(unmasked(four(&framed(b"")[12..])), 0);
}

#[test]
fn what_is_logged_is_read_back() {
    let folder = tempfile::tempdir().expect("a folder");
    let at = folder.path().join("tensorboard");
    let mut events = Events::new(at.clone(), points_of(Some("r12:k5e2")));
    let validation = LogLine::Validation(ValidationRecord {
        step: 1,
        phase: "full".to_string(),
        top1: 0.5,
        is_best: true,
        subnetworks: Vec::new(),
    });
    let largest = evaluation(1, "r12:k5e2");
    let smallest = evaluation(1, "r12:k3e1");
    for line in [step(0), validation, largest, smallest, LogLine::Checkpoint { step: 1 }] {
        events.add(&line);
    }
    let file = only_file(&at);
    assert!(file.to_string_lossy().contains("/events.out.tfevents."), "{}", file.display());
    let expected = [
        point(0, "brain.Event:2", 0.0),
        point(0, "session", 1.0),
        point(1, "loss", 1.5),
        point(1, "lr", 0.0),
        point(1, "images_per_second", 3200.0),
        point(1, "resolution", 12.0),
        point(1, "val/top1/within a phase", 0.5),
        point(1, "val/top1/largest", 0.75),
        point(1, "val/top1/smallest", 0.75),
    ];
    assert_eq!(read(&file), expected, "an evaluation is not waited for");
    events.add(&step(1));
    assert_eq!(read(&file).len(), 9, "a step is");
    events.flush();
    assert_eq!(read(&file).len(), 13);
}

#[test]
fn a_resume_voids_what_lies_beyond_its_checkpoint() {
    let folder = tempfile::tempdir().expect("a folder");
    let mut events = Events::new(folder.path().to_path_buf(), points_of(None));
    events.add(&LogLine::Resumed { resumed_from_step: 7, time: 0 });
    events.add(&evaluation(7, "r12:k5e2"));
    let expected = [point(0, "brain.Event:2", 0.0), point(8, "session", 1.0), point(7, "val/top1", 0.75)];
    assert_eq!(read(&only_file(folder.path())), expected);
}

/// Keeps the messages of what is logged.
struct Kept(Arc<Mutex<Vec<String>>>);

impl Subscriber for Kept {
    fn enabled(&self, _: &Metadata<'_>) -> bool {
        true
    }

    fn event(&self, event: &tracing::Event<'_>) {
        event.record(&mut |_: &Field, value: &dyn std::fmt::Debug| {
            self.0.lock().expect("one thread").push(format!("{value:?}"));
        });
    }

    fn new_span(&self, _: &Attributes<'_>) -> Id {
        Id::from_u64(1)
    }

    fn record(&self, _: &Id, _: &Record<'_>) {}

    fn record_follows_from(&self, _: &Id, _: &Id) {}

    fn enter(&self, _: &Id) {}

    fn exit(&self, _: &Id) {}
}

#[test]
fn a_failure_is_logged_once() {
    let folder = tempfile::tempdir().expect("a folder");
    let at = folder.path().join("tensorboard");
    std::fs::write(&at, "no folder").expect("written");
    let logged = Arc::new(Mutex::new(Vec::new()));
    tracing::subscriber::with_default(Kept(logged.clone()), || {
        let mut events = Events::new(at, points_of(None));
        events.add(&step(0));
        events.add(&step(1));
        events.flush();
    });
    let logged = logged.lock().expect("one thread");
    assert!(
        logged.len() == 1 && logged[0].starts_with("TensorBoard events are no longer written: "),
        "{logged:?}"
    );
    assert!(logged[0].contains("tensorboard: cannot create the folder"), "{logged:?}");
}
