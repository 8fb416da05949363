//! `Flatten` and `Gemm`.

use super::super::decoded::Array;
use super::call::Call;
use crate::error::Result;

/// `Flatten`: the sizes before `axis` become one, and so do the others.
pub(super) fn flatten(call: &mut Call) -> Result<Array> {
    call.takes(1, &["axis"])?;
    let input = call.input(0)?;
    let axis = call.int("axis", 1)?;
    let rank = input.shape.len() as i64;
    if axis < -rank || axis > rank {
        return Err(call.wrong("axis", format!("-{rank} to {rank}"), axis));
    }
    let axis = if axis < 0 { axis + rank } else { axis } as usize;
    let (front, back) = input.shape.split_at(axis);
    let shape = vec![front.iter().product(), back.iter().product()];
    let mut values = call.room(&shape, 1)?;
    values.copy_from_slice(&input.values);
    Ok(Array { shape, values })
}

/// A matrix as it is read: transposed or not.
struct Matrix<'a> {
    values: &'a [f32],
    size: [usize; 2],
    steps: [usize; 2],
}

impl<'a> Matrix<'a> {
    fn new(call: &Call, array: &'a Array, transposed: bool) -> Result<Self> {
        let [rows, columns] = call.sizes(array)?;
        let (size, steps) =
            if transposed { ([columns, rows], [1, columns]) } else { ([rows, columns], [columns, 1]) };
        Ok(Self { values: &array.values, size, steps })
    }

    fn at(&self, row: usize, column: usize) -> f32 {
        self.values[row * self.steps[0] + column * self.steps[1]]
    }
}

/// `Gemm`: `alpha A B + beta C`, with `C` broadcast to `[rows of A, columns of B]`.
pub(super) fn gemm(call: &mut Call) -> Result<Array> {
    call.takes(3, &["alpha", "beta", "transA", "transB"])?;
    let alpha = call.float("alpha", 1.0)?;
    let beta = call.float("beta", 1.0)?;
    let a = Matrix::new(call, call.input(0)?, call.switch("transA", false)?)?;
    let b = Matrix::new(call, call.input(1)?, call.switch("transB", false)?)?;
    let [rows, inner] = a.size;
    let [other, columns] = b.size;
    if inner != other {
        return Err(call.wrong("B", format!("{inner} rows, as A has columns"), other));
    }
    let shift = Shift::new(call, [rows, columns])?;
    let mut values = call.room(&[rows, columns], inner)?;
    for (index, made) in values.iter_mut().enumerate() {
        let row = index / columns;
        let column = index % columns;
        let product: f32 = (0..inner).map(|k| a.at(row, k) * b.at(k, column)).sum();
        *made = alpha * product + shift.as_ref().map_or(0.0, |shift| beta * shift.at(row, column));
    }
    Ok(Array { shape: vec![rows, columns], values })
}

/// `C`, of which a size of 1, or none, serves for all rows or columns.
struct Shift<'a> {
    values: &'a [f32],
    steps: [usize; 2],
}

impl<'a> Shift<'a> {
    fn new(call: &Call<'a>, output: [usize; 2]) -> Result<Option<Self>> {
        let Some(array) = call.optional(2) else { return Ok(None) };
        let size = match *array.shape.as_slice() {
            [] => [1, 1],
            [columns] => [1, columns],
            [rows, columns] => [rows, columns],
            _ => [0, 0],
        };
        if (0..2).any(|axis| size[axis] != 1 && size[axis] != output[axis]) {
            let expected = format!("a shape that goes with {output:?}");
            return Err(call.wrong("C", expected, format!("{:?}", array.shape)));
        }
        let step = |axis: usize, apart: usize| if size[axis] == 1 { 0 } else { apart };
        Ok(Some(Self { values: &array.values, steps: [step(0, size[1]), step(1, 1)] }))
    }

    fn at(&self, row: usize, column: usize) -> f32 {
        self.values[row * self.steps[0] + column * self.steps[1]]
    }
}
