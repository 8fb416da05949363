//! How fast the machine was at each visit, by a sentinel layer that is measured again before and after it: what ran
//! while the machine was disturbed is thrown away, slow drift is divided out. Knows no clock.

use super::rows::{Record, Rows};
use super::stats;

/// Readings on each side of a visit whose median says how fast the machine was around it: 10 make that median's
/// own error about a third of one reading's.
const NEIGHBOURS: usize = 10;
/// How far either reading of a visit may lie from those around it: 5 %, some five times what a reading of a machine
/// at rest varies by.
const SUDDEN: f64 = 0.05;
/// How much slower than at its usual speed the machine may be around a visit: 25 %. Beyond, it does not drift, it
/// shares its core.
const SLOW: f64 = 1.25;
/// The usual speed is at this quantile of all readings, so that up to three quarters of them may be disturbed.
const USUAL: f64 = 0.25;

/// What becomes of a visit's samples.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum Verdict {
    /// They count, times this.
    Scaled(f64),
    /// They do not: the machine was busy with something else.
    Disturbed,
}

/// The sentinel's usual time in some rows, in microseconds; `None` if it was never measured.
pub fn usual_us(rows: &Rows) -> Option<f64> {
    let mut readings: Vec<f64> = rows.visits().filter_map(|visit| visit.sentinel_us).flatten().collect();
    readings.sort_by(f64::total_cmp);
    readings.get((USUAL * readings.len() as f64) as usize).copied()
}

/// A verdict for each visit, in order. Samples are scaled to what they would be if the sentinel took `reference_us`,
/// or its usual time in these rows.
pub fn verdicts(rows: &Rows, reference_us: Option<f64>) -> Vec<Verdict> {
    let Some(usual) = usual_us(rows) else { return vec![Verdict::Scaled(1.0); rows.visits().count()] };
    let reference = reference_us.unwrap_or(usual);
    let mut verdicts = Vec::new();
    for session in rows.records.split(|record| matches!(record, Record::Session(_))) {
        let pairs: Vec<Option<[f64; 2]>> = session
            .iter()
            .filter_map(|record| match record {
                Record::Visit(visit) => Some(visit.sentinel_us),
                Record::Session(_) => None,
            })
            .collect();
        verdicts.extend((0..pairs.len()).map(|index| verdict(&pairs, index, usual, reference)));
    }
    verdicts
}

fn verdict(pairs: &[Option<[f64; 2]>], index: usize, usual: f64, reference: f64) -> Verdict {
    let Some(own) = pairs[index] else { return Verdict::Scaled(1.0) };
    let around = index.saturating_sub(NEIGHBOURS)..(index + NEIGHBOURS + 1).min(pairs.len());
    let around: Vec<f64> = pairs[around].iter().flatten().flatten().copied().collect();
    let speed = stats::median(&around);
    let sudden = own.iter().any(|reading| (reading / speed - 1.0).abs() > SUDDEN);
    if sudden || speed > SLOW * usual { Verdict::Disturbed } else { Verdict::Scaled(reference / speed) }
}

#[cfg(test)]
pub(crate) mod tests {
    use super::*;
    use crate::latency::rows::{Session, Setting, Subject, Visit};
    use crate::latency::{DeviceFacts, EngineFacts};

    pub(crate) fn setting() -> Setting {
        let text = str::to_string;
        let device = DeviceFacts::this_machine(Some("made-up"));
        let (engine, engine_version, dtype) = (text("fake"), text("1"), text("f32"));
        let engine = EngineFacts { engine, engine_version, threads: 1, dtype, batch: 1 };
        Setting { device, engine, protocol: text("none"), sentinel: text("pool 8 @2x2") }
    }

    fn rows(pairs: &[Option<[f64; 2]>]) -> Rows {
        let visit = |&sentinel_us: &Option<[f64; 2]>| {
            let subject = Subject::Layer("a".to_string());
            Record::Visit(Visit { subject, inner: 1, samples_us: vec![1.0], sentinel_us })
        };
        Rows { setting: setting(), records: pairs.iter().map(visit).collect() }
    }

    #[test]
    fn a_steady_machine_changes_nothing() {
        let steady = rows(&[Some([2.0, 2.0]); 30]);
        assert_eq!(verdicts(&steady, None), [Verdict::Scaled(1.0); 30]);
        assert_eq!(verdicts(&steady, Some(3.0)), [Verdict::Scaled(1.5); 30], "to another measuring's speed");
        assert_eq!(verdicts(&rows(&[None; 3]), Some(3.0)), [Verdict::Scaled(1.0); 3], "nothing is known");
    }

    #[test]
    fn slow_drift_is_divided_out() {
        let drifting: Vec<_> = (0..60).map(|i| 100.0 + 0.2 * f64::from(i)).map(|us| Some([us, us])).collect();
        let usual = usual_us(&rows(&drifting)).expect("measured");
        assert_eq!(usual, 103.0, "the lower quartile");
        for (verdict, pair) in verdicts(&rows(&drifting), None).iter().zip(&drifting) {
            let exact = usual / pair.expect("measured")[0];
            assert!(
                matches!(verdict, Verdict::Scaled(scale) if (scale / exact - 1.0).abs() < 0.02),
                "{verdict:?}"
            );
        }
    }

    #[test]
    fn what_was_disturbed_does_not_count() {
        let mut pairs = vec![Some([100.0, 100.0]); 90];
        pairs[5] = Some([100.0, 130.0]);
        pairs[6] = Some([130.0, 100.0]);
        pairs[40..70].fill(Some([140.0, 141.0]));
        for (index, verdict) in verdicts(&rows(&pairs), None).iter().enumerate() {
            let disturbed = matches!(index, 5 | 6 | 40..70);
            assert_eq!(*verdict == Verdict::Disturbed, disturbed, "{index}");
        }
    }

    #[test]
    fn sessions_are_apart() {
        let mut both = rows(&[Some([100.0, 100.0]); 20]);
        both.records.push(Record::Session(Session::default()));
        both.records.extend(rows(&[Some([110.0, 110.0]); 20]).records);
        let found = verdicts(&both, None);
        assert_eq!(found[..20], [Verdict::Scaled(1.0); 20]);
        assert_eq!(found[20..], [Verdict::Scaled(100.0 / 110.0); 20]);
    }
}
