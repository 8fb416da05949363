use std::path::PathBuf;

use rand::{Rng, SeedableRng};
use rand_chacha::ChaCha8Rng;

use super::*;

#[test]
fn the_mode_is_what_lies_lowest_and_not_the_lucky_call() {
    let mut samples = vec![9.0];
    samples.extend((0..300).map(|i| 10.0 + 0.001 * f64::from(i))); // the fast state
    samples.extend((0..2000).map(|i| 14.0 + 0.002 * f64::from(i))); // the slow one
    assert!((fast_mode(&samples) - 10.15).abs() < 0.01, "{}", fast_mode(&samples));
    assert!(fast_mode(&[]).is_nan());
    assert_eq!(fast_mode(&[3.0]), 3.0);
    // all in one state: its median, however many there are
    assert_eq!(fast_mode(&[5.0; 7]), 5.0);
}

#[test]
fn a_fast_state_is_told_from_the_edge_of_a_slow_one() {
    // a hump that has no sharp lower edge
    let hump: Vec<f64> = (0..1000).map(|i: usize| 120.0 + 0.05 * i as f64).collect();
    let fast: Vec<f64> = (0..60).map(|i| 100.0 + 0.05 * f64::from(i)).collect();
    let both = [&fast[..], &hump[..]].concat();
    let pace = Pace::of(&both, None).expect("readings");
    assert!(pace.met && (pace.fast_us - 101.5).abs() < 0.5, "{pace:?}");
    assert_eq!(
        [[106.0, 150.0], [150.0, 108.0], [150.0, 95.0]].map(|pair| pace.state(pair)),
        [State::Fast, State::Slow, State::Boosted]
    );
    let never = Pace::of(&hump, None).expect("readings");
    assert!(!never.met && never.state([120.0; 2]) == State::Slow, "{never:?}");
    // an earlier session gives the fast time
    let known = Pace::of(&hump, Some(100.0)).expect("readings");
    assert!(!known.met && known.fast_us == 100.0, "{known:?}");
    assert!(Pace::of(&vec![120.0; 500], Some(119.0)).expect("readings").met);
    assert!(!Pace::of(&vec![140.0; 500], Some(119.0)).expect("readings").met);
    // no one should wait for a processor that is boosted for moments
    let boosted = [&[94.0; 20][..], &vec![100.0; 800], &vec![140.0; 180]].concat();
    assert_eq!(Pace::of(&boosted, None).map(|pace| (pace.fast_us, pace.met)), Some((100.0, true)));
    let boosted = [&[80.0; 30][..], &vec![100.0; 970]].concat();
    assert_eq!(
        Pace::of(&boosted, None).map(|pace| pace.fast_us),
        Some(100.0),
        "3 % of the time a fifth faster"
    );
    // a steady machine is always fast; without readings nothing is known
    assert!(Pace::of(&vec![120.0; 500], None).expect("readings").met);
    assert_eq!(Pace::of(&[], Some(3.0)), None);
}

#[test]
fn confirmation_needs_the_sentinel_and_a_sample() {
    let fast = [10.0, 10.1, 14.0];
    let slow = [14.0, 14.1, 15.0];
    let looks = [
        Look { samples: &fast, fast: true },
        Look { samples: &fast, fast: false },
        Look { samples: &slow, fast: true },
    ];
    let found = estimate(&looks).expect("samples");
    assert_eq!((found.us, found.confirmed), (10.05, 1));
    assert_eq!(estimate(&[]), None);
    assert!(!is_accepted(19, 19) && !is_accepted(150, 4) && is_accepted(20, 5));
    let [low, high] = interval(10.0, 8, 0.001);
    assert!((low - 10.0 / 1.016).abs() < 1e-9 && (high - 10.16).abs() < 1e-9);
    assert!(half_width(8, 0.02) == 0.04 && half_width(0, 0.3) == 0.45);
}

/// A machine whose visits have buffers at another place each time.
struct Simulated {
    fast_share: f64,
    of_visits: f64,
    of_samples: f64,
}

/// A number of the standard normal distribution (Box & Muller 1958).
fn normal(rng: &mut ChaCha8Rng) -> f64 {
    let radius = rng.random_range(f64::MIN_POSITIVE..1.0);
    let angle = rng.random_range(0.0..std::f64::consts::TAU);
    (-2.0 * radius.ln()).sqrt() * angle.cos()
}

impl Simulated {
    fn visit(&self, rng: &mut ChaCha8Rng) -> (Vec<f64>, bool) {
        let fast = rng.random_bool(self.fast_share);
        let level: f64 = if fast { 1.0 } else { rng.random_range(1.2..1.6) };
        let level = level * (self.of_visits * normal(rng)).exp();
        ((0..40).map(|_| level * (self.of_samples * normal(rng)).exp()).collect(), fast)
    }

    fn estimate(visits: &[(Vec<f64>, bool)]) -> Estimate {
        let looks: Vec<Look<'_>> =
            visits.iter().map(|(samples, fast)| Look { samples, fast: *fast }).collect();
        estimate(&looks).expect("samples")
    }

    /// Share of runs, each ended as soon as enough visits confirm it, whose interval contains the result of infinitely
    /// many visits.
    fn coverage(&self, runs: usize) -> f64 {
        let mut rng = ChaCha8Rng::seed_from_u64(5);
        let many: Vec<_> = (0..4000).map(|_| self.visit(&mut rng)).collect();
        let truth = Self::estimate(&many).us;
        let mut covered = 0;
        for _ in 0..runs {
            let mut visits: Vec<_> = (0..LEAST_VISITS).map(|_| self.visit(&mut rng)).collect();
            let mut found = Self::estimate(&visits);
            while found.confirmed < ENOUGH_CONFIRMED {
                visits.push(self.visit(&mut rng));
                found = Self::estimate(&visits);
            }
            let [low, high] = interval(found.us, found.confirmed, found.spread);
            covered += usize::from((low..=high).contains(&truth));
        }
        covered as f64 / runs as f64
    }
}

#[test]
fn intervals_hold_although_visiting_ends_when_they_look_good() {
    for (what, fast_share, of_visits, of_samples) in [
        ("two states", 0.25, 0.015, 0.01),
        ("4 % between visits", 1.0, 0.04, 0.01),
        ("6 % between visits", 1.0, 0.06, 0.01),
        ("4 % between samples", 1.0, 0.0, 0.04),
        ("6 % between samples", 1.0, 0.0, 0.06),
    ] {
        let coverage = Simulated { fast_share, of_visits, of_samples }.coverage(4000);
        eprintln!("{what}: {coverage:.3} of 4,000 intervals hold the true value");
        assert!(coverage >= 0.93, "{what}: {coverage}");
    }
}

/// A session in the traces of a disturbed machine: subject, sentinel before and after, samples, visit by visit.
type Visits = Vec<(usize, [f64; 2], Vec<f64>)>;

/// The folder of the traces, which are no part of the project.
fn traces() -> Option<PathBuf> {
    let root = PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("../../shared/data/latency_traces");
    let found = root.join("traces.bin").exists();
    if !found {
        eprintln!("skipped: no traces at {}", root.display());
    }
    found.then_some(root)
}

fn session(blob: &[u8], references: &[f64]) -> Visits {
    let mut visits = Vec::new();
    let mut at = 0;
    let short = |at: usize| f64::from(u16::from_le_bytes([blob[at], blob[at + 1]])) / 100.0;
    while at < blob.len() {
        let subject = usize::from(blob[at]);
        let count = usize::from(blob[at + 1]);
        let samples = blob[at + 10..at + 10 + count]
            .iter()
            .map(|code: &u8| {
                let code = f64::from(*code);
                let log = if code < 150.0 { -0.08 + 0.002 * code } else { 0.22 + 0.01 * (code - 150.0) };
                references[subject] * log.exp()
            })
            .collect();
        visits.push((subject, [short(at + 6), short(at + 8)], samples));
        at += 10 + count;
    }
    visits
}

/// Each subject's estimate where it is accepted: visits are taken until they suffice.
fn play(visits: &Visits, subjects: usize, only_slow: bool) -> Vec<Option<f64>> {
    let readings: Vec<f64> = visits.iter().flat_map(|(_, pair, _)| pair).copied().collect();
    let pace = Pace::of(&readings, None).expect("readings");
    let mut by: Vec<Vec<Look<'_>>> = vec![Vec::new(); subjects];
    for (subject, [before, after], samples) in visits {
        let fast = pace.state([*before, *after]) == State::Fast;
        if !(only_slow && fast) {
            by[*subject].push(Look { samples, fast });
        }
    }
    by.into_iter()
        .map(|looks: Vec<Look<'_>>| {
            (LEAST_VISITS..=looks.len()).find_map(|count| {
                let found = estimate(&looks[..count])?;
                is_accepted(count, found.confirmed).then_some(found.us)
            })
        })
        .collect()
}

fn quantile(sorted: &[f64], share: f64) -> f64 {
    sorted[(share * (sorted.len() - 1) as f64).round() as usize]
}

#[test]
fn sessions_of_a_disturbed_machine_agree() {
    let Some(root) = traces() else { return };
    let json = |name: &str| -> serde_json::Value {
        serde_json::from_slice(&std::fs::read(root.join(name)).expect("a file")).expect("JSON")
    };
    let subjects = json("subjects.json");
    let subjects = subjects.as_array().expect("a list");
    let references: Vec<f64> = subjects.iter().map(|one| one["ref_us"].as_f64().expect("a time")).collect();
    let blob = std::fs::read(root.join("traces.bin")).expect("a file");
    let mut found = Vec::new();
    for one in json("sessions.json")["sessions"].as_array().expect("a list") {
        let number = |key: &str| one[key].as_u64().expect("a number") as usize;
        let visits = session(&blob[number("offset")..number("offset") + number("bytes")], &references);
        let slow = play(&visits, references.len(), true);
        assert!(slow.iter().all(Option::is_none), "visits without a fast reading are never accepted");
        let estimates = play(&visits, references.len(), false);
        let accepted = estimates.iter().flatten().count() as f64 / references.len() as f64;
        eprintln!("session {}: {:.0} % of subjects accepted", one["name"], 100.0 * accepted);
        assert!(one["name"] != "D" || accepted <= 0.2, "of session D {accepted}");
        found.push(estimates);
    }
    for (what, network) in [("layers", false), ("networks", true)] {
        let mut apart = Vec::new();
        for (index, first) in found.iter().enumerate() {
            for second in &found[..index] {
                let both = (0..references.len())
                    .filter(|place: &usize| subjects[*place]["network"].as_bool() == Some(network))
                    .filter_map(|place| first[place].zip(second[place]));
                apart.extend(both.map(|(a, b)| (a / b).ln().abs()));
            }
        }
        apart.sort_by(f64::total_cmp);
        let median = quantile(&apart, 0.5);
        let high = quantile(&apart, 0.95);
        let far = apart.iter().filter(|one| **one > 0.05).count();
        eprintln!("{what}: {} pairs, median {median:.4}, 95 % {high:.4}, {far} above 5 %", apart.len());
        assert!(median <= 0.01 && high <= 0.03 && 500 * far <= apart.len(), "{what}");
    }
}
