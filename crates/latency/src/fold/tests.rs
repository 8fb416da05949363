use super::*;
use crate::rows::tests::visit_of;
use crate::testing::setting;

fn layer(name: &str) -> Subject {
    Subject::Layer(name.to_string())
}

fn began(unix_seconds: u64) -> Record {
    Record::Session(Session { unix_seconds, ..Session::default() })
}

fn at(record: Record, seconds: f64) -> Record {
    let Record::Visit(visit) = record else { unreachable!() };
    Record::Visit(Visit { at_seconds: Some(seconds), ..visit })
}

#[test]
fn processes_soon_after_each_other_are_one_session() {
    let visit = || visit_of(layer("a"), &[1.0; 5], Some([10.0, 10.0]));
    let records = vec![
        began(1000),
        at(visit(), 50.0),
        began(1100),
        Record::Conditions(Conditions::default()),
        at(visit(), 700.0),
        // less than ten minutes after the last visit, though not after the last beginning
        began(2300),
        at(visit(), 5.0),
        began(3000),
        at(visit(), 5.0),
    ];
    let rows = Rows { setting: setting(), records };
    let sessions = fold(&rows, None);
    let counts: Vec<usize> = sessions.iter().map(|session| session.facts().visits).collect();
    assert_eq!(counts, [3, 1]);
    assert_eq!(sessions[0].facts().seconds, 755.0);
    assert_ne!(sessions[0].id, sessions[1].id);
    assert_eq!(sessions[0].conditions.len(), 4);
    assert_eq!(fold(&rows, None)[0].id, sessions[0].id, "it is known again");
    let folded = Folded::new(&rows, None, 0.05);
    assert_eq!((folded.seconds(), folded.fast_us()), (760.0, Some(10.0)));
    assert_eq!(folded.row(&layer("a")).expect("measured").visits, 4);
}

#[test]
fn rows_of_other_tools_are_typical() {
    let records = vec![
        visit_of(layer("a"), &[2.0, 2.1, 2.2, 2.3, 2.4, 2.5, 2.6], None),
        visit_of(layer("b"), &[3.0], None),
    ];
    let rows = Rows { setting: setting(), records };
    let folded = Folded::new(&rows, None, 0.2);
    let row = folded.row(&layer("a")).expect("measured");
    assert_eq!((row.us, row.typical_us, row.undisturbed), (2.3, 2.3, false));
    assert_eq!((row.interval_us, row.accepted, row.converged), (Some([2.0, 2.6]), true, true));
    let row = folded.row(&layer("b")).expect("measured");
    assert_eq!((row.us, row.interval_us, row.accepted), (3.0, None, false), "one sample is no interval");
    assert_eq!(fold(&rows, None)[0].id.len(), 8);
}

/// Twenty-four visits of which a third meets the fast state, with 10 us per run instead of 14.
fn disturbed(sentinel_sees_it: bool) -> Rows {
    let mut records = Vec::new();
    for index in 0..24_usize {
        let fast = index.is_multiple_of(3);
        let samples: Vec<f64> =
            (0..20).map(|i| if fast && i < 10 { 10.0 + 0.01 * i as f64 } else { 14.0 }).collect();
        let sentinel = if fast && sentinel_sees_it { 100.0 } else { 140.0 + index as f64 };
        records.push(visit_of(layer("a"), &samples, Some([150.0, sentinel])));
    }
    Rows { setting: setting(), records }
}

#[test]
fn what_is_confirmed_counts() {
    let rows = disturbed(true);
    let sessions = fold(&rows, None);
    let pace = sessions[0].pace.expect("read");
    assert_eq!((pace.fast_us, pace.met), (100.0, true));
    let one = &sessions[0].measurements(0.05)[&layer("a")];
    assert!((one.us - 10.045).abs() < 1e-9 && one.typical_us == 14.0, "{one:?}");
    assert_eq!((one.visits, one.confirmed, one.samples, one.watched), (24, 8, 480, true));
    let row = Folded::new(&rows, None, 0.05).row(&layer("a")).expect("measured");
    assert!(row.accepted && row.converged, "{row:?}");
    // the same samples, but the sentinel is never as fast as its known fast time
    let rows = disturbed(false);
    let folded = Folded::new(&rows, Some(100.0), 0.05);
    assert!(!folded.sessions[0].facts().met && folded.comparable.is_empty());
    let row = folded.row(&layer("a")).expect("measured");
    assert!(!row.accepted && row.confirmed == 0 && row.undisturbed, "{row:?}");
    let [low, _] = row.interval_us.expect("wide");
    assert!(low < 7.0, "the true value may be far below: {low}");
}

#[test]
fn layers_in_place_are_estimated_one_by_one() {
    let arch = Subject::Network("r8:k3e3".parse().expect("an arch"));
    // no run meets the fast state as a whole: the first layer does in even runs, the second in odd ones
    let mut records = Vec::new();
    for index in 0..40_usize {
        let slow = |is: bool| if is { 1.5 } else { 1.0 };
        let odd = index % 2 == 1;
        let samples = Samples::InPlace(vec![vec![1000.0 * slow(odd), 3000.0 * slow(!odd)]]);
        records.push(Record::Visit(Visit {
            subject: arch.clone(),
            space: None,
            again: !index.is_multiple_of(4),
            inner: 1,
            samples,
            arrival_us: None,
            sentinel_us: Some([100.0, 150.0]),
            at_seconds: None,
        }));
    }
    let rows = Rows { setting: setting(), records };
    let one = fold(&rows, Some(100.0))[0].measurements(0.05)[&arch].clone();
    assert!(one.in_place && (one.us - 4000.0).abs() < 1e-6, "{one:?}");
    assert!((one.typical_us - 5000.0).abs() < 501.0, "whole runs take more: {one:?}");
    assert_eq!((one.visits, one.confirmed), (40, 20));
}

/// Two sessions on a shared machine, 23 minutes apart, while others compiled on it: nine layers and five sub-networks
/// of `micro` in 24 visits each, nine samples per visit, written by `measure`.
#[test]
fn two_sessions_of_a_shared_machine_agree() {
    let rows = Rows::from_bytes("traces", include_bytes!("traces.jsonl")).expect("own rows");
    let sessions = fold(&rows, None);
    assert_eq!(sessions.len(), 2);
    assert!(sessions.iter().all(|session| session.facts().met));
    let [first, second] = [0, 1].map(|index| sessions[index].measurements(0.05));
    assert_eq!(first.len(), 14);
    let mut apart: Vec<f64> =
        first.iter().map(|(subject, one)| (second[subject].us / one.us).ln().abs()).collect();
    apart.sort_by(f64::total_cmp);
    eprintln!("{apart:.4?}");
    assert!(stats::median(&apart) <= 0.015 && apart[12] <= 0.04, "{apart:?}");
    let folded = Folded::new(&rows, None, 0.05);
    assert!(
        first.keys().all(|subject| folded.row(subject).is_some_and(|row| row.accepted && row.visits == 48))
    );
    // without the visits of the fast state nothing counts, however well the rest agrees
    let slow = rows.records.iter().filter(|record| match record {
        Record::Visit(visit) => visit.sentinel_us.is_none_or(|pair| pair[0].min(pair[1]) >= 108.0),
        _ => true,
    });
    let left: Vec<Record> = slow.cloned().collect();
    let folded_slow = Rows { setting: rows.setting.clone(), records: left };
    let folded = Folded::new(&folded_slow, Some(103.0), 0.05);
    assert!(first.keys().all(|subject| folded.row(subject).is_none_or(|row| !row.accepted)));
}
