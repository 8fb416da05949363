//! Kernels that work plane by plane or row by row: means, scales, biases with activations, sums.
//!
//! A plane is the H*W values of one channel of one image; `[C, N]` of them lie one after the other. A row is
//! the N*H*W values of one channel.

use super::activation::{Apply, with_activation};
use super::simd::{Lanes, map, map_in_place, sums, vectorised, zip_in_place};
use super::{Activation, Isa, for_each_group};

/// Work of a plane in addition to its values: a call and the masks of its last vector, in units of values.
const PLANE_WORK: usize = 32;

/// The mean of each plane.
///
/// # Shapes
/// `x` `[planes, plane]` to `out` `[planes]`.
pub fn mean(isa: Isa, x: &[f32], plane: usize, out: &mut [f32]) {
    assert_eq!(x.len(), out.len() * plane);
    for_each_group(out, 1, plane + PLANE_WORK, |first, out| {
        let x = &x[first * plane..][..out.len() * plane];
        plane_sums(isa, x, plane, 1.0 / plane as f64, out);
    });
}

vectorised!(pub(super) fn plane_sums(x: &[f32], plane: usize, factor: f64, out: &mut [f32]) = plane_sums_on);

/// The sum of each plane times `factor`.
#[inline(always)]
fn plane_sums_on<T: Lanes>(x: &[f32], plane: usize, factor: f64, out: &mut [f32]) {
    for (i, out) in out.iter_mut().enumerate() {
        let [sum] = sums([&x[i * plane..][..plane]], |[x]: [T; 1]| [x]);
        *out = (sum * factor) as f32;
    }
}

/// The gradient of [`mean`]: dx = dy / plane in the whole plane.
///
/// # Shapes
/// `dy` `[planes]` to `dx` `[planes, plane]`.
pub fn mean_backward(_isa: Isa, dy: &[f32], plane: usize, dx: &mut [f32]) {
    assert_eq!(dx.len(), dy.len() * plane);
    let factor = 1.0 / plane as f32;
    for_each_group(dx, plane, plane + PLANE_WORK, |first, dx| {
        for (dx, dy) in dx.chunks_mut(plane).zip(&dy[first..]) {
            dx.fill(dy * factor);
        }
    });
}

/// y = x * s, with one factor per plane.
///
/// # Shapes
/// `x` and `y` `[planes, plane]`, `s` `[planes]`.
pub fn scale(isa: Isa, x: &[f32], s: &[f32], plane: usize, y: &mut [f32]) {
    assert_eq!((x.len(), y.len()), (s.len() * plane, s.len() * plane));
    for_each_group(y, plane, 2 * plane + PLANE_WORK, |first, y| {
        scale_planes(isa, &x[first * plane..][..y.len()], &s[first..], plane, y);
    });
}

vectorised!(fn scale_planes(x: &[f32], s: &[f32], plane: usize, y: &mut [f32]) = scale_planes_on);

#[inline(always)]
fn scale_planes_on<T: Lanes>(x: &[f32], s: &[f32], plane: usize, y: &mut [f32]) {
    for ((x, y), s) in x.chunks(plane).zip(y.chunks_mut(plane)).zip(s) {
        let s = T::splat(*s);
        map([x], y, |[x]: [T; 1]| x.mul(s));
    }
}

/// [`scale`] with the result in the place of `x`.
pub fn scale_in_place(isa: Isa, x: &mut [f32], s: &[f32], plane: usize) {
    assert_eq!(x.len(), s.len() * plane);
    for_each_group(x, plane, 2 * plane + PLANE_WORK, |first, x| {
        scale_planes_in_place(isa, x, &s[first..], plane);
    });
}

vectorised!(fn scale_planes_in_place(x: &mut [f32], s: &[f32], plane: usize) = scale_planes_in_place_on);

#[inline(always)]
fn scale_planes_in_place_on<T: Lanes>(x: &mut [f32], s: &[f32], plane: usize) {
    for (x, s) in x.chunks_mut(plane).zip(s) {
        let s = T::splat(*s);
        map_in_place(x, |x: T| x.mul(s));
    }
}

/// The gradient of the factors of [`scale`]: ds = sum of dy * x over the plane.
///
/// # Shapes
/// `x` and `dy` `[planes, plane]` to `ds` `[planes]`.
pub fn scale_backward_scale(isa: Isa, x: &[f32], dy: &[f32], plane: usize, ds: &mut [f32]) {
    assert_eq!((x.len(), dy.len()), (ds.len() * plane, ds.len() * plane));
    for_each_group(ds, 1, 2 * plane + PLANE_WORK, |first, ds| {
        let values = first * plane..(first + ds.len()) * plane;
        plane_products(isa, &x[values.clone()], &dy[values], plane, ds);
    });
}

vectorised!(fn plane_products(x: &[f32], dy: &[f32], plane: usize, ds: &mut [f32]) = plane_products_on);

#[inline(always)]
fn plane_products_on<T: Lanes>(x: &[f32], dy: &[f32], plane: usize, ds: &mut [f32]) {
    for (i, ds) in ds.iter_mut().enumerate() {
        let inputs = [&x[i * plane..][..plane], &dy[i * plane..][..plane]];
        let [sum] = sums(inputs, |[x, dy]: [T; 2]| [x.mul(dy)]);
        *ds = sum as f32;
    }
}

// The gradient of the input of squeeze-and-excitation: dx = dy * s + dmean / plane, the path through the product and
// the path through the mean that the factors come from. `dy` and `dx` `[planes, plane]`, `s` and `dmean` `[planes]`.
vectorised!(
    pub(super) fn excite_backward(dy: &[f32], s: &[f32], dmean: &[f32], plane: usize, dx: &mut [f32]) =
        excite_backward_on
);

#[inline(always)]
fn excite_backward_on<T: Lanes>(dy: &[f32], s: &[f32], dmean: &[f32], plane: usize, dx: &mut [f32]) {
    let factor = 1.0 / plane as f32;
    for (((dy, dx), s), dmean) in dy.chunks(plane).zip(dx.chunks_mut(plane)).zip(s).zip(dmean) {
        let s = T::splat(*s);
        let share = T::splat(dmean * factor);
        map([dy], dx, |[dy]: [T; 1]| dy.mul_add(s, share));
    }
}

/// A bias and an activation over rows.
#[derive(Clone, Copy, Debug)]
pub struct BiasActivation<'a> {
    /// Number of rows.
    pub rows: usize,
    /// One value per row; no bias is 0.
    pub bias: Option<&'a [f32]>,
    /// Applied after it.
    pub activation: Activation,
}

/// y = act(x + bias).
///
/// # Shapes
/// `x` and `y` `[rows, M]`.
pub fn bias_activation(isa: Isa, x: &[f32], with: BiasActivation, y: &mut [f32]) {
    let BiasActivation { rows, bias, activation } = with;
    let row = row_len(x, bias, rows);
    assert_eq!(x.len(), y.len());
    for_each_group(y, row, 2 * row, |first, y| {
        for (i, y) in y.chunks_mut(row).enumerate() {
            let bias = bias.map_or(0.0, |bias| bias[first + i]);
            activate(isa, &x[(first + i) * row..][..row], bias, activation, y);
        }
    });
}

/// Values in a row, after checking the lengths.
fn row_len(x: &[f32], bias: Option<&[f32]>, rows: usize) -> usize {
    let row = x.len().checked_div(rows).unwrap_or(0);
    assert_eq!(x.len(), rows * row);
    assert!(bias.is_none_or(|bias| bias.len() == rows));
    row
}

vectorised!(fn activate(x: &[f32], bias: f32, activation: Activation, y: &mut [f32]) = activate_on);

#[inline(always)]
fn activate_on<T: Lanes>(x: &[f32], bias: f32, activation: Activation, y: &mut [f32]) {
    let bias = T::splat(bias);
    with_activation!(activation, A => map([x], y, |[x]: [T; 1]| A::apply(x.add(bias))));
}

vectorised!(
    pub(super) fn activate_in_place(x: &mut [f32], bias: f32, activation: Activation) = activate_in_place_on
);

#[inline(always)]
fn activate_in_place_on<T: Lanes>(x: &mut [f32], bias: f32, activation: Activation) {
    let bias = T::splat(bias);
    with_activation!(activation, A => map_in_place(x, |x: T| A::apply(x.add(bias))));
}

/// The gradient of the input of [`bias_activation`]: dx = dy * act'(x + bias).
///
/// # Shapes
/// `x`, `dy`, `dx` `[rows, M]`.
pub fn bias_activation_backward(isa: Isa, x: &[f32], with: BiasActivation, dy: &[f32], dx: &mut [f32]) {
    let BiasActivation { rows, bias, activation } = with;
    let row = row_len(x, bias, rows);
    assert_eq!((x.len(), x.len()), (dy.len(), dx.len()));
    for_each_group(dx, row, 3 * row, |first, dx| {
        for (i, dx) in dx.chunks_mut(row).enumerate() {
            let at = (first + i) * row;
            let bias = bias.map_or(0.0, |bias| bias[first + i]);
            activate_backward(isa, &x[at..][..row], bias, activation, &dy[at..][..row], dx);
        }
    });
}

vectorised!(
    fn activate_backward(x: &[f32], bias: f32, activation: Activation, dy: &[f32], dx: &mut [f32]) =
        activate_backward_on
);

#[inline(always)]
fn activate_backward_on<T: Lanes>(x: &[f32], bias: f32, activation: Activation, dy: &[f32], dx: &mut [f32]) {
    let bias = T::splat(bias);
    with_activation!(activation, A => {
        map([x, dy], dx, |[x, dy]: [T; 2]| dy.mul(A::derivative(x.add(bias))))
    });
}

/// Adds the sum of each row to `out`, as the gradient of a bias.
///
/// # Shapes
/// `dy` `[rows, M]`, `out` `[rows]`.
pub fn row_sums(isa: Isa, dy: &[f32], rows: usize, out: &mut [f32]) {
    let row = row_len(dy, Some(out), rows);
    for_each_group(out, 1, row + PLANE_WORK, |first, out| {
        add_row_sums(isa, &dy[first * row..][..out.len() * row], row, out);
    });
}

vectorised!(fn add_row_sums(dy: &[f32], row: usize, out: &mut [f32]) = add_row_sums_on);

#[inline(always)]
fn add_row_sums_on<T: Lanes>(dy: &[f32], row: usize, out: &mut [f32]) {
    for (i, out) in out.iter_mut().enumerate() {
        let [sum] = sums([&dy[i * row..][..row]], |[dy]: [T; 1]| [dy]);
        *out += sum as f32;
    }
}

/// y += x.
pub fn add_assign(isa: Isa, y: &mut [f32], x: &[f32]) {
    assert_eq!(y.len(), x.len());
    for_each_group(y, 1, 3, |first, y| add_values(isa, y, &x[first..][..y.len()]));
}

vectorised!(fn add_values(y: &mut [f32], x: &[f32]) = add_values_on);

#[inline(always)]
fn add_values_on<T: Lanes>(y: &mut [f32], x: &[f32]) {
    zip_in_place(y, x, |y: T, x| y.add(x));
}

#[cfg(test)]
mod tests {
    use super::super::testing::{assert_close, garbage, on_every_isa, values};
    use super::*;
    use crate::reference::planes as reference;

    /// (planes, values of a plane)
    const SIZES: [(usize, usize); 8] =
        [(1, 1), (3, 4), (17, 9), (34, 49), (8, 64), (5, 1089), (3000, 49), (2, 70_000)];

    /// Runs a kernel and its reference into garbage of the same length for every size.
    fn check(
        len: impl Fn(usize, usize) -> usize,
        kernel: impl Fn(Isa, usize, usize, &mut [f32]) + Sync,
        expected: impl Fn(usize, usize, &mut [f32]),
    ) {
        for (planes, plane) in SIZES {
            let mut expect = garbage(len(planes, plane));
            expected(planes, plane, &mut expect);
            on_every_isa(
                |isa| {
                    let mut out = garbage(expect.len());
                    kernel(isa, planes, plane, &mut out);
                    out
                },
                |isa, out| assert_close(out, &expect, &(isa, planes, plane)),
            );
        }
    }

    const ONE_EACH: fn(usize, usize) -> usize = |planes, _| planes;
    const ALL: fn(usize, usize) -> usize = |planes, plane| planes * plane;

    #[test]
    fn means() {
        let x = |planes, plane| values(planes * plane, 1);
        check(
            ONE_EACH,
            |isa, planes, plane, out| mean(isa, &x(planes, plane), plane, out),
            |planes, plane, out| reference::mean(&x(planes, plane), plane, out),
        );
        check(
            ALL,
            |isa, planes, plane, out| mean_backward(isa, &values(planes, 2), plane, out),
            |planes, plane, out| reference::mean_backward(&values(planes, 2), plane, out),
        );
    }

    #[test]
    fn scales() {
        let x = |planes, plane| values(planes * plane, 1);
        let s = |planes| values(planes, 2);
        check(
            ALL,
            |isa, planes, plane, out| {
                scale(isa, &x(planes, plane), &s(planes), plane, out);
                let mut in_place = x(planes, plane);
                scale_in_place(isa, &mut in_place, &s(planes), plane);
                assert_eq!(in_place, out);
            },
            |planes, plane, out| reference::scale(&x(planes, plane), &s(planes), plane, out),
        );
    }

    #[test]
    fn gradients_of_scales() {
        let [x, dy] = [1, 2].map(|seed| move |planes, plane| values(planes * plane, seed));
        let [s, dmean] = [3, 4].map(|seed| move |planes| values(planes, seed));
        check(
            ONE_EACH,
            |isa, n, plane, out| scale_backward_scale(isa, &x(n, plane), &dy(n, plane), plane, out),
            |n, plane, out| reference::scale_backward_scale(&x(n, plane), &dy(n, plane), plane, out),
        );
        check(
            ALL,
            |isa, n, plane, out| excite_backward(isa, &dy(n, plane), &s(n), &dmean(n), plane, out),
            |n, plane, out| reference::scale_backward_input(&dy(n, plane), &s(n), &dmean(n), plane, out),
        );
    }

    #[test]
    fn biases_and_activations() {
        for activation in Activation::ALL {
            let x = |rows, row| values(rows * row, 1).iter().map(|x| 5.0 * x + 1.0).collect::<Vec<f32>>();
            let dy = |rows, row| values(rows * row, 2);
            let bias = |rows| values(rows, 3);
            check(
                ALL,
                |isa, rows, row, out: &mut [f32]| {
                    let with = BiasActivation { rows, bias: Some(&bias(rows)), activation };
                    bias_activation(isa, &x(rows, row), with, out);
                },
                |rows, row, out| {
                    let with = BiasActivation { rows, bias: Some(&bias(rows)), activation };
                    reference::bias_activation(&x(rows, row), with, out);
                },
            );
            check(
                ALL,
                |isa, rows, row, out: &mut [f32]| {
                    let with = BiasActivation { rows, bias: None, activation };
                    bias_activation_backward(isa, &x(rows, row), with, &dy(rows, row), out);
                },
                |rows, row, out| {
                    let with = BiasActivation { rows, bias: None, activation };
                    reference::bias_activation_backward(&x(rows, row), with, &dy(rows, row), out);
                },
            );
        }
    }

    #[test]
    fn sums_and_additions_accumulate() {
        let x = |rows, row| values(rows * row, 1);
        check(
            ONE_EACH,
            |isa, rows, row, out| {
                out.fill(0.25);
                row_sums(isa, &x(rows, row), rows, out);
            },
            |rows, row, out| {
                out.fill(0.25);
                reference::row_sums(&x(rows, row), rows, out);
            },
        );
        check(
            ALL,
            |isa, rows, row, out| {
                out.fill(0.25);
                add_assign(isa, out, &x(rows, row));
            },
            |rows, row, out| {
                out.fill(0.25);
                reference::add_assign(out, &x(rows, row));
            },
        );
    }
}
