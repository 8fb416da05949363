//! The candidates that no other is better than in both accuracy and latency (of several devices, on the first by name).

use super::candidate::Candidate;

/// The front of accuracy against median latency, fastest first: each candidate is more accurate than every
/// faster one.
pub fn front(candidates: impl IntoIterator<Item = Candidate>) -> Vec<Candidate> {
    // without a table all are equally fast, and the front is the most accurate one
    let latency = |candidate: &Candidate| candidate.latency_ms().unwrap_or(0.0);
    let mut sorted: Vec<Candidate> = candidates.into_iter().collect();
    sorted.sort_by(|a, b| {
        latency(a)
            .total_cmp(&latency(b))
            .then(b.accuracy().total_cmp(&a.accuracy()))
            .then_with(|| a.arch.cmp(&b.arch))
    });
    let mut front: Vec<Candidate> = Vec::new();
    for candidate in sorted {
        if front.last().is_none_or(|last| candidate.accuracy() > last.accuracy()) {
            front.push(candidate);
        }
    }
    front
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::Costs;

    #[test]
    fn only_what_nothing_beats_is_left() {
        let all = [(3.0, 0.75), (1.0, 0.5), (2.0, 0.5), (2.0, 0.625), (2.5, 0.5625), (3.0, 0.75), (4.0, 0.7)];
        let points: Vec<_> = front(all.map(|(latency, accuracy): (f64, f32)| {
            let costs = Costs { latency_us: 1e3 * latency, ..Costs::default() };
            Candidate::new("r8:k3e3/k3e3".parse().expect("an arch"), accuracy, &costs)
        }))
        .iter()
        .map(|c| (c.latency_ms().expect("known"), c.accuracy()))
        .collect();
        assert_eq!(points, [(1.0, 0.5), (2.0, 0.625), (3.0, 0.75)]);
        assert!(front([]).is_empty());
    }
}
