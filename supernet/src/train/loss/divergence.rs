//! The adaptive alpha-divergence between a teacher and a student (Wang et al. 2021, AlphaNet), in log space.
//!
//! With the probabilities p of the teacher and q of the student, `D_a = (sum q (p / q)^a - 1) / (a (a - 1))`. Its gradient at
//! the student's logits is `(q sum w - w) / a` with `w = q (p / q)^a`. For a = 1 it is the Kullback-Leibler divergence of p
//! from q, which forgives a student that is sure where the teacher is not; a = -1 is the one that punishes this. Of each image
//! the larger of the two counts. The factors `(p / q)^-1` are clipped, or one image could decide a step; those of a = 1 need
//! no clipping, for their gradient is `q - p`.

/// Greatest factor `(p / q)^-1` that counts (Wang et al. 2021, section 3.3).
const MOST_RATIO: f64 = 5.0;

/// The divergence of one image and its gradient at the student's logits, of the log probabilities of both.
pub(super) fn adaptive(student: &[f64], teacher: &[f64]) -> (f64, Vec<f64>) {
    let forgiving = kullback_leibler(student, teacher);
    let punishing = reversed(student, teacher);
    if !(forgiving.0.is_finite() && punishing.0.is_finite()) {
        // a comparison would hide it
        return (f64::NAN, vec![f64::NAN; student.len()]);
    }
    let (divergence, weights, alpha) = match forgiving.0 >= punishing.0 {
        true => (forgiving.0, forgiving.1, 1.0),
        false => (punishing.0, punishing.1, -1.0),
    };
    let all: f64 = weights.iter().sum();
    let slopes = student.iter().zip(&weights).map(|(log_q, weight)| (log_q.exp() * all - weight) / alpha);
    (divergence, slopes.collect())
}

/// `D_1`, and `w` of each class.
fn kullback_leibler(student: &[f64], teacher: &[f64]) -> (f64, Vec<f64>) {
    let terms = student.iter().zip(teacher).map(|(log_q, log_p)| log_p.exp() * (log_p - log_q));
    (terms.sum(), teacher.iter().map(|log_p| log_p.exp()).collect())
}

/// `D_-1` with clipped factors, and `w` of each class.
fn reversed(student: &[f64], teacher: &[f64]) -> (f64, Vec<f64>) {
    let weights = student.iter().zip(teacher);
    let weights = weights.map(|(log_q, log_p)| (log_q + (log_q - log_p).min(MOST_RATIO.ln())).exp());
    let weights: Vec<f64> = weights.collect();
    ((weights.iter().sum::<f64>() - 1.0) / 2.0, weights)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn log_softmax(logits: &[f64]) -> Vec<f64> {
        let sum = logits.iter().map(|logit| logit.exp()).sum::<f64>().ln();
        logits.iter().map(|logit| logit - sum).collect()
    }

    /// `D_a` by its definition.
    fn by_definition(student: &[f64], teacher: &[f64], alpha: f64) -> f64 {
        let ratio = |(q, p): (&f64, &f64)| q.exp() * ((p - q).exp().powf(alpha) - 1.0);
        student.iter().zip(teacher).map(ratio).sum::<f64>() / (alpha * (alpha - 1.0))
    }

    #[test]
    fn the_larger_divergence_counts() {
        let cases = [
            ([0.2, -0.3, 0.5], [0.1, 0.4, -0.2]),
            ([1.0, 0.0, -0.5], [0.2, 0.1, 0.0]),
            ([0.0; 3], [0.9, 0.0, 0.3]),
        ];
        let mut sides = [0, 0];
        for (student, teacher) in cases {
            let student = log_softmax(&student);
            let teacher = log_softmax(&teacher);
            // a limit: D_1 is what D_a comes close to
            let forgiving = by_definition(&student, &teacher, 1.0 + 1e-6);
            let punishing = by_definition(&student, &teacher, -1.0);
            let (divergence, _) = adaptive(&student, &teacher);
            assert!(
                (divergence - forgiving.max(punishing)).abs() < 1e-5,
                "{divergence} {forgiving} {punishing}"
            );
            sides[usize::from(forgiving < punishing)] += 1;
        }
        assert!(sides.iter().all(|count| *count > 0), "both sides are tried: {sides:?}");
        assert!(adaptive(&log_softmax(&[1.0, 2.0]), &log_softmax(&[1.0, 2.0])).0 < 1e-12);
    }

    #[test]
    fn the_gradient_is_the_slope_where_nothing_is_clipped() {
        for (student, teacher) in [([0.2, -0.3, 0.5], [0.1, 0.4, -0.2]), ([1.0, 0.0, -0.5], [0.2, 0.1, 0.0])]
        {
            let at = |student: &[f64]| adaptive(&log_softmax(student), &log_softmax(&teacher));
            let (_, gradient) = at(&student);
            for index in 0..3 {
                let mut ends = [0.0; 2];
                for (end, step) in ends.iter_mut().zip([1e-5, -1e-5]) {
                    let mut moved = student;
                    moved[index] += step;
                    *end = at(&moved).0;
                }
                let slope = (ends[0] - ends[1]) / 2e-5;
                assert!((slope - gradient[index]).abs() < 1e-8, "{index}: {slope} {}", gradient[index]);
            }
        }
    }

    /// A sure teacher pulls an unsure student with all its might: the gradient is `q - p`.
    #[test]
    fn the_forgiving_side_is_not_clipped() {
        let student = log_softmax(&[0.0; 10]);
        let mut logits = [0.0; 10];
        logits[3] = 4.4;
        let teacher = log_softmax(&logits);
        let (divergence, gradient) = adaptive(&student, &teacher);
        assert!(divergence > reversed(&student, &teacher).0, "the forgiving side is the larger");
        for (slope, (log_q, log_p)) in gradient.iter().zip(student.iter().zip(&teacher)) {
            assert!((slope - (log_q.exp() - log_p.exp())).abs() < 1e-12, "{gradient:?}");
        }
    }

    #[test]
    fn what_is_not_a_number_stays_so() {
        for (student, teacher) in [([f64::NAN, 0.0], [0.0, 0.0]), ([0.0, 0.0], [f64::NAN, 0.0])] {
            let (divergence, gradient) = adaptive(&student, &teacher);
            assert!(divergence.is_nan() && gradient.iter().all(|slope| slope.is_nan()));
        }
    }

    /// The published form overflows f32 where logits lie 110 apart.
    #[test]
    fn far_apart_logits_stay_finite_and_bounded() {
        for gap in [110.0, 500.0, 5000.0] {
            for (student, teacher) in
                [([gap, 0.0], [0.0, gap]), ([0.0, gap], [gap, 0.0]), ([gap, 0.0], [0.0, 0.0])]
            {
                let log = |logits: [f64; 2]| {
                    let largest = logits[0].max(logits[1]);
                    log_softmax(&logits.map(|logit| logit - largest))
                };
                let (divergence, gradient) = adaptive(&log(student), &log(teacher));
                assert!(divergence.is_finite() && divergence >= 0.0, "{divergence}");
                assert!(gradient.iter().all(|slope| slope.abs() <= MOST_RATIO), "{gradient:?}");
            }
        }
    }
}
