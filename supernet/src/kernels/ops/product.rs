//! Matrix products, and the patches that make one of a dense convolution.

use candle_core::{Result, Tensor, bail};

use super::{Kernels, Op, Path, View, cpu, reference, run};
use crate::kernels::cpu::dense::PatchShape;
use crate::kernels::cpu::product::{Matrix, MatrixMut, Packed, Write};
use crate::kernels::tensors::with_views;
use crate::space::Activation;

fn matrix<'a>(view: &View<'a>) -> Result<Matrix<'a>> {
    let (rows, columns) = view.layout.shape().dims2()?;
    let stride = view.layout.stride();
    Ok(Matrix { values: view.values, rows, columns, row_stride: stride[0], column_stride: stride[1] })
}

/// A weight, and the same in the order in which products read it.
pub struct PackedWeight {
    weight: Tensor,
    packed: Option<Packed>,
}

impl Kernels {
    fn product_into(self, left: Matrix, right: Matrix, out: MatrixMut, write: Write) -> Result<()> {
        if left.columns != right.rows {
            bail!("product: {}x{} times {}x{}", left.rows, left.columns, right.rows, right.columns);
        }
        match self.path {
            Path::Reference => reference::matrix::product(left, right, out, write),
            Path::Cpu(isa) => cpu::product::product(isa, left, right, out, write),
        }
        Ok(())
    }

    /// `left x right`: `[M, K] x [K, N] -> [M, N]`; operands may be strided views.
    ///
    /// # Errors
    /// If the inner sizes differ.
    pub fn product(self, left: &Tensor, right: &Tensor) -> Result<Tensor> {
        let (m, n) = (left.dim(0)?, right.dim(1)?);
        let op = Op::new("product").macs(left.elem_count() * n);
        self.compute(op, [left, right], (m, n), |[left, right], out| {
            let out = MatrixMut { values: out, row_stride: n };
            self.product_into(matrix(&left)?, matrix(&right)?, out, Write::Replace)
        })
    }

    /// A weight `[M, K]` made ready for many products.
    ///
    /// # Errors
    /// If it is no matrix of f32.
    pub fn pack(self, weight: &Tensor) -> Result<PackedWeight> {
        let packed = with_views([weight], |[weight]| {
            Ok(match self.path {
                Path::Reference => None,
                Path::Cpu(isa) => Some(Packed::new(isa, &matrix(&weight)?)),
            })
        })?;
        Ok(PackedWeight { weight: weight.clone(), packed })
    }

    /// `act(weight x right + shift)`: `[M, K] x [K, N] -> [M, N]`, the shift one value a row, `[M]`.
    ///
    /// # Errors
    /// If the sizes do not fit.
    pub fn product_activated(
        self,
        left: &PackedWeight,
        right: &Tensor,
        shift: &Tensor,
        activation: Activation,
    ) -> Result<Tensor> {
        let ((m, k), n) = (left.weight.dims2()?, right.dim(1)?);
        if shift.dims() != [m] || right.dim(0)? != k {
            bail!("product_activated: {m}x{k} times {:?} with shift {:?}", right.dims(), shift.dims());
        }
        let op = Op::new("product activated").macs(m * k * n);
        self.compute(op, [&left.weight, right, shift], (m, n), |[weight, right, shift], out| {
            let out = MatrixMut { values: out, row_stride: n };
            let write = Write::Activate { shift: shift.contiguous()?, activation };
            match &left.packed {
                // One column is a matrix times a vector, which reads every weight once, where it lies.
                Some(packed) if n > 1 => cpu::product::product_packed(packed, matrix(&right)?, out, write),
                _ => self.product_into(matrix(&weight)?, matrix(&right)?, out, write)?,
            }
            Ok(())
        })
    }

    /// `destination += left x right`; `destination` is a view `[M, N]` whose columns are contiguous.
    ///
    /// # Errors
    /// If the sizes differ.
    pub fn add_product(self, destination: &Tensor, left: &Tensor, right: &Tensor) -> Result<()> {
        let sizes = (left.dim(0)?, right.dim(1)?);
        if destination.dims2()? != sizes || (destination.stride()[1] != 1 && sizes.1 != 1) {
            bail!("add_product: destination {:?} for a product {sizes:?}", destination.layout());
        }
        let op = Op::new("add product").macs(left.elem_count() * sizes.1);
        self.update(op, destination, [left, right], |destination, views| {
            let row_stride = destination.layout.stride()[0].max(sizes.1);
            let out = MatrixMut { values: destination.values, row_stride };
            self.product_into(matrix(&views[0])?, matrix(&views[1])?, out, Write::Accumulate)
        })
    }

    /// Patches under a dense convolution's kernel, padding k/2: `[C, N, H, W] -> [C k k, N Ho Wo]`, with the
    /// output's height and width.
    ///
    /// # Errors
    /// If the tensor is not contiguous.
    pub fn patches(self, x: &Tensor, kernel: usize, stride: usize) -> Result<(Tensor, (usize, usize))> {
        let (channels, images, height, width) = x.dims4()?;
        let shape = PatchShape { channels, images, height, width, kernel, stride };
        let (out_height, out_width) = (height.div_ceil(stride), width.div_ceil(stride));
        let sizes = (channels * kernel * kernel, images * out_height * out_width);
        let patches = self.compute(Op::new("patches"), [x], sizes, |[x], out| {
            run!(self, dense::patches(&shape, x.contiguous()?, out));
            Ok(())
        })?;
        Ok((patches, (out_height, out_width)))
    }
}
