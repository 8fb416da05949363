//! The place of a smaller weight in the big one: along each dimension the leading part, the middle, or the leading part of
//! each of some blocks.

use candle_core::{Result, Tensor};
use space::{Take, WeightSpec};

/// The middle of a dimension, as a view.
pub(super) fn center(tensor: &Tensor, dimension: usize, length: usize) -> Result<Tensor> {
    tensor.narrow(dimension, tensor.dim(dimension)? / 2 - length / 2, length)
}

/// Whether a weight has to be gathered instead of viewed: its blocks lie apart.
pub(super) fn is_gathered(weight: &WeightSpec) -> bool {
    weight.takes.iter().any(|take| matches!(take, Take::Blocks(_)))
}

/// The part of a big contiguous tensor that a weight takes, as a view. A dimension of blocks becomes two: the blocks, and
/// the values of each.
pub(super) fn view(big: &Tensor, weight: &WeightSpec) -> Result<Tensor> {
    let mut split = Vec::with_capacity(weight.shape.len());
    for (&length, take) in big.dims().iter().zip(&weight.takes) {
        match *take {
            Take::Blocks(blocks) => split.extend([blocks, length / blocks]),
            Take::Leading | Take::Center => split.push(length),
        }
    }
    let mut view = if split == big.dims() { big.clone() } else { big.reshape(split)? };
    let mut dimension = 0;
    for (&length, take) in weight.shape.iter().zip(&weight.takes) {
        view = match *take {
            Take::Leading => view.narrow(dimension, 0, length)?,
            Take::Center => center(&view, dimension, length)?,
            Take::Blocks(blocks) => {
                dimension += 1;
                view.narrow(dimension, 0, length / blocks)?
            }
        };
        dimension += 1;
    }
    Ok(view)
}

#[cfg(test)]
mod tests {
    use candle_core::Device;
    use space::WeightRole;

    use super::*;

    fn taken(shape: &[usize], takes: &[Take]) -> Vec<f32> {
        let big = Tensor::arange(0.0f32, 24.0, &Device::Cpu)
            .and_then(|row| row.reshape((4, 6)))
            .expect("24 values");
        let name = "x".to_string();
        let role = WeightRole::Matrix;
        let weight = WeightSpec { name, shape: shape.to_vec(), role, takes: takes.to_vec() };
        let part = view(&big, &weight).and_then(|view| view.flatten_all()).expect("a part");
        assert_eq!(is_gathered(&weight), takes.iter().any(|take| matches!(take, Take::Blocks(_))));
        part.to_vec1().expect("f32")
    }

    #[test]
    fn parts_lie_where_they_are_said_to() {
        use Take::{Blocks, Center, Leading};
        assert_eq!(taken(&[2, 3], &[Leading, Leading]), [0., 1., 2., 6., 7., 8.]);
        assert_eq!(taken(&[2, 2], &[Center, Center]), [8., 9., 14., 15.]);
        assert_eq!(taken(&[1, 4], &[Leading, Blocks(2)]), [0., 1., 3., 4.]);
        assert_eq!(taken(&[2, 3], &[Blocks(2), Blocks(3)]), [0., 2., 4., 12., 14., 16.]);
    }
}
