//! Rows become what is known of each subject: samples that count, scaled to the machine's usual speed.

use std::collections::BTreeMap;

use supernet::space::Arch;

use super::drift::{Verdict, verdicts};
use super::rows::{Rows, Subject};
use super::stats::{self, Row};

/// What was sampled of one subject.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Observed {
    /// Runs a sample.
    pub inner: u64,
    /// Samples that count, visit by visit, in microseconds a run at the machine's usual speed.
    pub visits: Vec<Vec<f64>>,
    /// Samples that do not, as they were measured.
    pub disturbed: Vec<f64>,
    /// Visits in all, those without a sample that counts among them.
    pub visited: usize,
}

impl Observed {
    /// The row of a table. Where no sample counts, the others must do; the row is then unconverged.
    pub fn row(&self, half_width: f64) -> Row {
        let discarded = self.disturbed.len();
        if self.visits.is_empty() {
            let disturbed = std::slice::from_ref(&self.disturbed);
            return Row { converged: false, ..stats::summarize(disturbed, discarded, half_width) };
        }
        stats::summarize(&self.visits, discarded, half_width)
    }
}

/// What was sampled of each subject, scaled to what it would be if the sentinel took `reference_us`, or its usual time in
/// these rows.
pub fn fold(rows: &Rows, reference_us: Option<f64>) -> BTreeMap<Subject, Observed> {
    let mut folded: BTreeMap<Subject, Observed> = BTreeMap::new();
    let mut before: Option<&Subject> = None;
    let mut counts = false; // whether the visit that goes on has a sample that counts
    for (visit, verdict) in rows.visits().zip(verdicts(rows, reference_us)) {
        let observed = folded.entry(visit.subject.clone()).or_default();
        observed.inner = visit.inner;
        if !visit.again || before != Some(&visit.subject) {
            observed.visited += 1;
            counts = false;
        }
        before = Some(&visit.subject);
        match verdict {
            Verdict::Disturbed => observed.disturbed.extend(&visit.samples_us),
            Verdict::Scaled(scale) => {
                if !counts {
                    observed.visits.push(Vec::new());
                    counts = true;
                }
                let samples = observed.visits.last_mut().expect("one was pushed");
                samples.extend(visit.samples_us.iter().map(|sample| sample * scale));
            }
        }
    }
    folded
}

/// The rows of the layers among the subjects.
pub fn layer_rows(folded: &BTreeMap<Subject, Observed>, half_width: f64) -> BTreeMap<String, Row> {
    let rows = folded.iter().filter_map(|(subject, observed)| match subject {
        Subject::Layer(key) => Some((key.clone(), observed.row(half_width))),
        Subject::Network(..) => None,
    });
    rows.collect()
}

/// Medians of the sub-networks among the subjects, in microseconds: in the first pass and in the second, where there
/// was one. Those of which no sample counts are left out.
pub fn network_times(folded: &BTreeMap<Subject, Observed>) -> BTreeMap<Arch, [Option<f64>; 2]> {
    let mut times: BTreeMap<Arch, [Option<f64>; 2]> = BTreeMap::new();
    for (subject, observed) in folded {
        let counts = !observed.visits.is_empty();
        if let (Subject::Network(arch, pass @ (1 | 2)), true) = (subject, counts) {
            let median = observed.row(1.0).median_us;
            times.entry(arch.clone()).or_default()[usize::from(*pass - 1)] = Some(median);
        }
    }
    times
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::latency::drift::tests::setting;
    use crate::latency::rows::{Record, Visit};

    #[test]
    fn samples_are_gathered_by_subject_and_disturbed_ones_set_apart() {
        let layer = Subject::Layer("a".to_string());
        let arch: Arch = "r8:k3e3".parse().expect("an arch");
        let visit = |subject: &Subject, again: bool, sample: f64, after: f64| {
            let (subject, samples_us) = (subject.clone(), vec![sample; 2]);
            Record::Visit(Visit { subject, again, inner: 3, samples_us, sentinel_us: Some([10.0, after]) })
        };
        let (first, second) = (Subject::Network(arch.clone(), 1), Subject::Network(arch.clone(), 2));
        let third = Subject::Network("r8:k5e3".parse().expect("an arch"), 1);
        let records = vec![
            visit(&layer, false, 4.0, 10.0),
            visit(&layer, true, 9.0, 20.0),
            visit(&layer, true, 4.5, 10.0),
            visit(&layer, false, 9.0, 20.0),
            visit(&first, false, 50.0, 10.0),
            visit(&second, false, 52.0, 10.0),
            visit(&layer, false, 5.0, 10.0),
            visit(&layer, false, 5.0, 20.0),
            visit(&third, false, 60.0, 20.0),
            // of no visit that went before: another subject was prepared in between
            visit(&layer, true, 5.0, 10.0),
        ];
        let folded = fold(&Rows { setting: setting(), records }, Some(20.0));
        let observed = &folded[&layer];
        let visits = [vec![8.0, 8.0, 9.0, 9.0], vec![10.0, 10.0], vec![10.0, 10.0]];
        assert_eq!(observed.visits, visits, "scaled to a machine half as fast");
        assert_eq!(
            (&observed.disturbed, observed.visited, observed.inner),
            (&vec![9.0, 9.0, 9.0, 9.0, 5.0, 5.0], 5, 3)
        );
        let times = network_times(&folded);
        assert_eq!((times.len(), times[&arch]), (1, [Some(100.0), Some(104.0)]), "the third was disturbed");
        let rows = layer_rows(&folded, 0.03);
        assert_eq!((rows.len(), rows["a"].median_us, rows["a"].discarded), (1, 10.0, 6));
        let only = Observed { visits: Vec::new(), ..observed.clone() };
        assert_eq!((only.row(0.03).median_us, only.row(0.03).converged), (9.0, false));
    }
}
