//! Elementwise operators on one input or on pairs.

use super::super::decoded::Array;
use super::call::Call;
use crate::error::Result;

/// `Relu`: `max(0, x)`.
pub(super) fn relu(call: &mut Call) -> Result<Array> {
    call.takes(1, &[])?;
    map(call, |x| if x < 0.0 { 0.0 } else { x })
}

/// `Clip`: `min(max(x, lowest), highest)`, where each bound may be left out.
pub(super) fn clip(call: &mut Call) -> Result<Array> {
    call.takes(3, &[])?;
    let lowest = bound(call, 1, f32::MIN)?;
    let highest = bound(call, 2, f32::MAX)?;
    map(call, |x| {
        let raised = if x < lowest { lowest } else { x };
        if raised > highest { highest } else { raised }
    })
}

/// A bound, which has no dimensions.
fn bound(call: &Call, index: usize, default: f32) -> Result<f32> {
    match call.optional(index) {
        None => Ok(default),
        Some(Array { shape, values }) if shape.is_empty() => Ok(values.first().copied().unwrap_or(default)),
        Some(other) => Err(call.wrong("bounds", "shape []", format!("{:?}", other.shape))),
    }
}

/// `HardSigmoid`: `max(0, min(1, alpha x + beta))`.
pub(super) fn hard_sigmoid(call: &mut Call) -> Result<Array> {
    call.takes(1, &["alpha", "beta"])?;
    let alpha = call.float("alpha", 0.2)?;
    let beta = call.float("beta", 0.5)?;
    map(call, |x| ramp(alpha * x + beta))
}

/// `HardSwish`: `x max(0, min(1, x / 6 + 1 / 2))`.
pub(super) fn hard_swish(call: &mut Call) -> Result<Array> {
    call.takes(1, &[])?;
    map(call, |x| x * ramp(x / 6.0 + 0.5))
}

/// A value cut to 0..=1; a NaN stays one.
fn ramp(x: f32) -> f32 {
    x.clamp(0.0, 1.0)
}

/// `Identity`.
pub(super) fn identity(call: &mut Call) -> Result<Array> {
    call.takes(1, &[])?;
    map(call, |x| x)
}

fn map(call: &mut Call, function: impl Fn(f32) -> f32) -> Result<Array> {
    let input = call.input(0)?;
    let mut values = call.room(&input.shape, 1)?;
    for (made, &x) in values.iter_mut().zip(&input.values) {
        *made = function(x);
    }
    Ok(Array { shape: input.shape.clone(), values })
}

/// `Add`.
pub(super) fn add(call: &mut Call) -> Result<Array> {
    pairs(call, |a, b| a + b)
}

/// `Mul`.
pub(super) fn mul(call: &mut Call) -> Result<Array> {
    pairs(call, |a, b| a * b)
}

/// A function of pairs, with ONNX's multidirectional broadcasting: shapes are aligned at their ends, and a size of 1
/// serves for any other.
fn pairs(call: &mut Call, function: impl Fn(f32, f32) -> f32) -> Result<Array> {
    call.takes(2, &[])?;
    let a = call.input(0)?;
    let b = call.input(1)?;
    let rank = a.shape.len().max(b.shape.len());
    let [from_a, from_b] = [a, b].map(|array| {
        let mut shape = vec![1; rank - array.shape.len()];
        shape.extend(&array.shape);
        shape
    });
    let mut shape = Vec::with_capacity(rank);
    for (&a, &b) in from_a.iter().zip(&from_b) {
        if a != b && a != 1 && b != 1 {
            let got = format!("{from_a:?} and {from_b:?}");
            return Err(call.wrong("inputs", "shapes that go together", got));
        }
        shape.push(a.max(b));
    }
    let mut values = call.room(&shape, 1)?;
    let [strides_a, strides_b] = [strides(&from_a), strides(&from_b)];
    let row = shape.last().copied().unwrap_or(1);
    let [step_a, step_b] = [&strides_a, &strides_b].map(|strides| strides.last().copied().unwrap_or(0));
    for (index, made) in values.chunks_mut(row).enumerate() {
        let first_a = offset(index, &shape, &strides_a);
        let first_b = offset(index, &shape, &strides_b);
        for (column, made) in made.iter_mut().enumerate() {
            *made = function(a.values[first_a + column * step_a], b.values[first_b + column * step_b]);
        }
    }
    Ok(Array { shape, values })
}

/// The stride of each dimension; 0 for a size of 1, which is broadcast.
fn strides(shape: &[usize]) -> Vec<usize> {
    let mut strides = vec![0; shape.len()];
    let mut apart = 1;
    for (stride, &size) in strides.iter_mut().zip(shape).rev() {
        *stride = if size == 1 { 0 } else { apart };
        apart *= size;
    }
    strides
}

/// Where the row of this index, counted through all dimensions but the last, begins.
fn offset(mut index: usize, shape: &[usize], strides: &[usize]) -> usize {
    let mut offset = 0;
    for (size, stride) in shape.iter().zip(strides).rev().skip(1) {
        offset += index % size * stride;
        index /= size;
    }
    offset
}
