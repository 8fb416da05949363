//! How fast the machine was when samples were taken, by a sentinel that is measured again before and after: what ran
//! while the machine was disturbed does not count, slow drift is divided out. Knows no clock.

use super::rows::{Record, Rows};

/// Lines on each side whose readings say how fast the machine was around a line when nothing disturbed it.
const NEIGHBOURS: usize = 50;
/// That speed is at this quantile of the readings, so that up to three quarters of them may be disturbed.
const USUAL: f64 = 0.25;
/// How far either reading of a line may lie from that: 3 %, where readings of a machine at rest vary by less than 1 %.
const SUDDEN: f64 = 0.03;
/// How much slower than usual the machine may be around a line: 25 %. Beyond, it does not drift, it shares its core.
const SLOW: f64 = 1.25;

/// What becomes of a line's samples.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum Verdict {
    /// They count, times this.
    Scaled(f64),
    /// They do not: the machine was busy with something else.
    Disturbed,
}

/// The sentinel's usual time in some rows, in microseconds; `None` if it was never measured.
pub fn usual_us(rows: &Rows) -> Option<f64> {
    undisturbed_us(rows.visits().filter_map(|visit| visit.sentinel_us).flatten().collect())
}

/// The sentinel's time in these readings when nothing disturbs it; `None` of none.
pub(super) fn undisturbed_us(mut readings: Vec<f64>) -> Option<f64> {
    let index = (USUAL * readings.len() as f64) as usize;
    (!readings.is_empty()).then(|| *readings.select_nth_unstable_by(index, f64::total_cmp).1)
}

/// Whether a reading is of a machine that nothing disturbs, if the sentinel takes `undisturbed_us` then.
pub(super) fn is_quiet(reading_us: f64, undisturbed_us: f64) -> bool {
    (reading_us / undisturbed_us - 1.0).abs() <= SUDDEN
}

/// A verdict for each line of samples, in order. Samples are scaled to what they would be if the sentinel took `reference_us`,
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
    let speed = undisturbed_us(around).unwrap_or(usual);
    let quiet = own.iter().all(|reading| is_quiet(*reading, speed));
    if quiet && speed <= SLOW * usual { Verdict::Scaled(reference / speed) } else { Verdict::Disturbed }
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
        Setting { device, engine, protocol: text("none"), sentinel: text("sentinel"), plan: String::new() }
    }

    fn rows(pairs: &[Option<[f64; 2]>]) -> Rows {
        let visit = |&sentinel_us: &Option<[f64; 2]>| {
            let subject = Subject::Layer("a".to_string());
            Record::Visit(Visit { subject, again: false, inner: 1, samples_us: vec![1.0], sentinel_us })
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
        let drifting: Vec<_> =
            (0..600).map(|i| 100.0 + 0.02 * f64::from(i)).map(|us| Some([us, us])).collect();
        let usual = usual_us(&rows(&drifting)).expect("measured");
        assert!((usual - 103.0).abs() < 0.1, "{usual}: the lower quartile");
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
        let mut pairs = vec![Some([100.0, 100.0]); 800];
        pairs[5] = Some([100.0, 130.0]);
        pairs[6] = Some([130.0, 100.0]);
        // long, and short ones so often that most of the time something else runs
        pairs[300..500].fill(Some([140.0, 141.0]));
        (600..700).filter(|index| index % 3 != 0).for_each(|index| pairs[index] = Some([112.0, 100.0]));
        for (index, verdict) in verdicts(&rows(&pairs), None).iter().enumerate() {
            let disturbed =
                matches!(index, 5 | 6 | 300..500) || ((600..700).contains(&index) && index % 3 != 0);
            assert_eq!(*verdict == Verdict::Disturbed, disturbed, "{index}: {verdict:?}");
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
