//! The hypervolume of points: the volume that they dominate above a reference (Zitzler and Thiele 1998).

/// The volume of the union of the boxes between the origin and each point; coordinates below 0 count as 0. The last
/// coordinate is cut into slices, each of which is a union of one dimension less.
pub fn hypervolume(points: &[Vec<f64>]) -> f64 {
    let inside: Vec<&[f64]> =
        points.iter().map(Vec::as_slice).filter(|point| point.iter().all(|at| *at > 0.0)).collect();
    sliced(inside)
}

fn sliced(mut points: Vec<&[f64]>) -> f64 {
    let Some(first) = points.first() else { return 0.0 };
    let Some(last) = first.len().checked_sub(1) else { return 1.0 };
    if last == 0 {
        return points.iter().map(|point| point[0]).fold(0.0, f64::max);
    }
    points.sort_by(|a, b| b[last].total_cmp(&a[last]));
    let mut volume = 0.0;
    for top in 0..points.len() {
        let below = points.get(top + 1).map_or(0.0, |next| next[last]);
        let thickness = points[top][last] - below;
        if thickness > 0.0 {
            volume += thickness * sliced(points[..=top].iter().map(|point| &point[..last]).collect());
        }
    }
    volume
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn unions_of_boxes_are_measured() {
        assert_eq!(hypervolume(&[]), 0.0);
        assert_eq!(hypervolume(&[vec![2.0, 3.0]]), 6.0);
        assert_eq!(hypervolume(&[vec![2.0, 3.0], vec![1.0, 1.0]]), 6.0, "a dominated point adds nothing");
        assert_eq!(hypervolume(&[vec![2.0, 3.0], vec![3.0, 1.0]]), 7.0);
        assert_eq!(hypervolume(&[vec![2.0, 3.0], vec![-1.0, 9.0]]), 6.0);
        assert_eq!(hypervolume(&[vec![1.0, 2.0, 3.0], vec![3.0, 2.0, 1.0], vec![2.0, 2.0, 2.0]]), 12.0);
    }

    /// By counting the cells of a grid.
    #[test]
    fn it_is_the_count_of_dominated_cells() {
        let mut state = 7u64;
        let mut next = || {
            state = state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1);
            (state >> 33) % 6
        };
        for dimensions in 1..=4 {
            for _ in 0..20 {
                let points: Vec<Vec<u64>> =
                    (0..5).map(|_| (0..dimensions).map(|_| next()).collect()).collect();
                let cells = 6usize.pow(dimensions as u32);
                let dominated = (0..cells).filter(|cell| {
                    let digit = |at: usize| (cell / 6usize.pow(at as u32) % 6) as u64;
                    points.iter().any(|point| (0..dimensions).all(|at| digit(at) < point[at]))
                });
                let as_floats: Vec<Vec<f64>> =
                    points.iter().map(|point| point.iter().map(|at| *at as f64).collect()).collect();
                assert_eq!(hypervolume(&as_floats), dominated.count() as f64, "{points:?}");
            }
        }
    }
}
