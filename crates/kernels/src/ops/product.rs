//! Matrix products.

use candle_core::{Layout, Result, Tensor, bail};

use super::{Backend, Implementation, Op, View, cpu, on_gpu, reference};
use crate::cpu::product::{Matrix, MatrixMut, Packed, Write};
use crate::tensors::with_views;
use space::Activation;

fn matrix<'a>(view: &View<'a>) -> Result<Matrix<'a>> {
    let (rows, columns) = view.layout.shape().dims2()?;
    let stride = view.layout.stride();
    Ok(Matrix { values: view.values, rows, columns, row_stride: stride[0], column_stride: stride[1] })
}

/// The filters of a dense convolution `[O, I, k, k]` as a matrix `[O, I k k]`; leading channels of a larger weight are
/// rows that lie further apart.
pub(super) fn filters<'a>(view: &View<'a>) -> Result<Matrix<'a>> {
    let (rows, columns, row_stride) = filter_rows(view.layout)?;
    Ok(Matrix { values: view.values, rows, columns, row_stride, column_stride: 1 })
}

/// Number and length of a dense convolution's filters, and how far apart they begin.
pub(super) fn filter_rows(layout: &Layout) -> Result<(usize, usize, usize)> {
    let (output, input, height, width) = layout.shape().dims4()?;
    let stride = layout.stride();
    if stride[1..] != [height * width, width, 1] {
        bail!("filters: expected each contiguous, got strides {stride:?} for {:?}", layout.dims());
    }
    let length = input * height * width;
    Ok((output, length, stride[0].max(length)))
}

/// A weight, and its operand: the weight in the order in which products read it.
pub struct PackedWeight {
    pub(super) weight: Tensor,
    packed: Option<Packed>,
}

impl Backend {
    pub(super) fn product_into(
        &self,
        left: Matrix,
        right: Matrix,
        out: MatrixMut,
        write: Write,
    ) -> Result<()> {
        if left.columns != right.rows {
            bail!("product: {}x{} times {}x{}", left.rows, left.columns, right.rows, right.columns);
        }
        match &self.implementation {
            Implementation::Reference => reference::matrix::product(left, right, out, write),
            Implementation::Cpu(isa) => cpu::product::product(*isa, left, right, out, write),
            Implementation::Cuda(_) => unreachable!("a GPU has taken this already"),
        }
        Ok(())
    }

    /// `left x right`: `[M, K] x [K, N] -> [M, N]`; operands may be strided views.
    ///
    /// # Errors
    /// If the inner sizes differ.
    pub fn product(&self, left: &Tensor, right: &Tensor) -> Result<Tensor> {
        let m = left.dim(0)?;
        let n = right.dim(1)?;
        let op = Op::new("product").macs(left.elem_count() * n);
        on_gpu!(self, op, [left, right], gpu => gpu.product(left, right));
        self.compute(op, [left, right], (m, n), |[left, right], out| {
            let out = MatrixMut { values: out, row_stride: n };
            self.product_into(matrix(&left)?, matrix(&right)?, out, Write::Replace)
        })
    }

    /// Packs a weight `[M, K]` for many products.
    ///
    /// # Errors
    /// If it is not a matrix of f32.
    pub fn pack(&self, weight: &Tensor) -> Result<PackedWeight> {
        if let Implementation::Cuda(gpu) = &self.implementation {
            return Ok(PackedWeight { weight: gpu.copy(weight, gpu.activations())?, packed: None });
        }
        let packed = with_views([weight], |[weight]| {
            Ok(match &self.implementation {
                Implementation::Reference => None,
                Implementation::Cpu(isa) => Some(Packed::new(*isa, &matrix(&weight)?)),
                Implementation::Cuda(_) => None,
            })
        })?;
        Ok(PackedWeight { weight: weight.clone(), packed })
    }

    /// `act(weight x right + shift)`: `[M, K] x [K, N] -> [M, N]`, one shift per row, `[M]`.
    ///
    /// # Errors
    /// If the sizes do not fit.
    pub fn product_activated(
        &self,
        left: &PackedWeight,
        right: &Tensor,
        shift: &Tensor,
        activation: Activation,
    ) -> Result<Tensor> {
        let (m, k) = left.weight.dims2()?;
        let n = right.dim(1)?;
        if shift.dims() != [m] || right.dim(0)? != k {
            bail!("product_activated: {m}x{k} times {:?} with shift {:?}", right.dims(), shift.dims());
        }
        let op = Op::new("product activated").macs(m * k * n);
        on_gpu!(self, op, [&left.weight, right], gpu => {
            let y = gpu.product(&left.weight, right)?;
            gpu.activate(&y, shift, activation)?;
            Ok(y)
        });
        self.compute(op, [&left.weight, right, shift], (m, n), |[weight, right, shift], out| {
            let out = MatrixMut { values: out, row_stride: n };
            let write = Write::Activate { shift: shift.contiguous()?, activation };
            self.packed_into(left, matrix(&weight)?, matrix(&right)?, out, write)
        })
    }

    /// `weight` is the view of the packed weight.
    pub(super) fn packed_into(
        &self,
        left: &PackedWeight,
        weight: Matrix,
        right: Matrix,
        out: MatrixMut,
        write: Write,
    ) -> Result<()> {
        match &left.packed {
            // One column is a matrix times a vector, which reads every weight once, where it lies.
            Some(packed) if right.columns > 1 => cpu::product::product_packed(packed, right, out, write),
            _ => self.product_into(weight, right, out, write)?,
        }
        Ok(())
    }

    /// `sums += factor * row` of a matrix of rows as long as `sums`, for each term `(row, factor)`: a product with a vector
    /// that is mostly zeros, on the calling thread. It is not recorded in a profile.
    ///
    /// # Panics
    /// If a row is not in the matrix.
    pub fn add_rows(&self, matrix: &[f32], terms: &[(u32, f32)], sums: &mut [f32]) {
        match &self.implementation {
            Implementation::Reference => reference::matrix::add_rows(matrix, terms, sums),
            Implementation::Cpu(isa) => cpu::weighted_rows::add(*isa, matrix, terms, sums),
            Implementation::Cuda(_) => cpu::weighted_rows::add(cpu::Isa::detect(), matrix, terms, sums),
        }
    }

    /// `destination += left x right`; `destination` is a view `[M, N]` whose columns are contiguous.
    ///
    /// # Errors
    /// If the sizes differ.
    pub fn add_product(&self, destination: &Tensor, left: &Tensor, right: &Tensor) -> Result<()> {
        let sizes = (left.dim(0)?, right.dim(1)?);
        if destination.dims2()? != sizes || (destination.stride()[1] != 1 && sizes.1 != 1) {
            bail!("add_product: destination {:?} for a product {sizes:?}", destination.layout());
        }
        let op = Op::new("add product").macs(left.elem_count() * sizes.1);
        on_gpu!(self, op, [destination, left, right], gpu => gpu.add_product(destination, left, right));
        self.update(op, destination, [left, right], |destination, views| {
            let row_stride = destination.layout.stride()[0].max(sizes.1);
            let out = MatrixMut { values: destination.values, row_stride };
            self.product_into(matrix(&views[0])?, matrix(&views[1])?, out, Write::Accumulate)
        })
    }
}
