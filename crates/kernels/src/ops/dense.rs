//! Dense convolutions: products with the patches under the kernel, some images at a time.

use std::ops::Range;

use candle_core::{Result, Tensor, bail};

use super::product::{filter_rows, filters};
use super::{Backend, Op, PackedWeight, on_gpu, run};
use crate::cpu::dense::PatchShape;
use crate::cpu::product::{Matrix, MatrixMut, Write};
use crate::tensors::unfilled;
use space::Activation;

/// Most values of the patches that are made at a time, unless one image has more: 4 MB stay in the cache.
const PATCH_VALUES: usize = 1 << 20;

/// Kernel and stride of a dense convolution; padding is `kernel / 2`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Window {
    /// Side of the square kernel, odd.
    pub kernel: usize,
    /// Step in both directions.
    pub stride: usize,
}

impl Window {
    /// The shape of the patches of maps `[C, N, H, W]`.
    fn over(self, maps: &[usize]) -> Result<PatchShape> {
        let &[channels, images, height, width] = maps else {
            bail!("convolution: expected maps, got {maps:?}")
        };
        let Self { kernel, stride } = self;
        Ok(PatchShape { channels, images, height, width, kernel, stride })
    }
}

/// The patches of some images as a matrix.
fn columns<'a>(shape: &PatchShape, images: &Range<usize>, values: &'a [f32]) -> Matrix<'a> {
    let columns = images.len() * shape.out_plane();
    Matrix { values, rows: shape.taps(), columns, row_stride: columns, column_stride: 1 }
}

/// Room for the patches of the largest group.
fn room(shape: &PatchShape) -> Vec<f32> {
    let most = shape.groups(PATCH_VALUES).map(|images| images.len()).max().unwrap_or(0);
    unfilled(most * shape.taps() * shape.out_plane())
}

fn transposed(matrix: Matrix<'_>) -> Matrix<'_> {
    let Matrix { values, rows, columns, row_stride, column_stride } = matrix;
    Matrix { values, rows: columns, columns: rows, row_stride: column_stride, column_stride: row_stride }
}

impl Backend {
    /// Calls `visit` with each group of images and its patches.
    fn for_each_patches(
        &self,
        shape: &PatchShape,
        x: &[f32],
        mut visit: impl FnMut(Range<usize>, Matrix<'_>) -> Result<()>,
    ) -> Result<()> {
        let mut values = room(shape);
        for images in shape.groups(PATCH_VALUES) {
            let values = &mut values[..shape.taps() * images.len() * shape.out_plane()];
            run!(self, dense::patches(shape, images.clone(), x, values));
            visit(images.clone(), columns(shape, &images, values))?;
        }
        Ok(())
    }

    /// Dense convolution without bias: `[O, I, k, k]`, `[I, N, H, W] -> [O, N, H/s, W/s]`. The weight may be the leading
    /// channels of a larger one.
    ///
    /// # Errors
    /// If the shapes do not fit.
    pub fn convolve(&self, weight: &Tensor, x: &Tensor, stride: usize) -> Result<Tensor> {
        let (shape, outputs) = fitting(weight.dims(), x.dims(), stride)?;
        let op = Op::new("convolve").macs(outputs * shape.taps() * shape.images * shape.out_plane());
        on_gpu!(self, op, [weight, x], gpu => gpu.convolve(weight, x, &shape));
        self.compute(op, [weight, x], &maps_of(&shape, outputs), |[weight, x], y| {
            let weight = filters(&weight)?;
            let row_stride = shape.images * shape.out_plane();
            self.for_each_patches(&shape, x.contiguous()?, |images, patches| {
                let out = MatrixMut { values: &mut y[images.start * shape.out_plane()..], row_stride };
                self.product_into(weight, patches, out, Write::Replace)
            })
        })
    }

    /// `act(convolution + shift)`, the weight packed from `[O, I k k]`, the shift `[O]`.
    ///
    /// # Errors
    /// If the shapes do not fit.
    pub fn convolve_activated(
        &self,
        weight: &PackedWeight,
        x: &Tensor,
        window: Window,
        shift: &Tensor,
        activation: Activation,
    ) -> Result<Tensor> {
        let shape = window.over(x.dims())?;
        let (outputs, taps) = weight.weight.dims2()?;
        if taps != shape.taps() || shift.dims() != [outputs] {
            bail!("convolve_activated: {outputs}x{taps} on {:?} with shift {:?}", x.dims(), shift.dims());
        }
        let op = Op::new("convolve activated").macs(outputs * taps * shape.images * shape.out_plane());
        on_gpu!(self, op, [&weight.weight, x], gpu => {
            let y = gpu.convolve_rows(&weight.weight, x, &shape)?;
            gpu.activate(&y, shift, activation)?;
            Ok(y)
        });
        self.compute(op, [&weight.weight, x, shift], &maps_of(&shape, outputs), |[filters, x, shift], y| {
            let write = Write::Activate { shift: shift.contiguous()?, activation };
            let row_stride = shape.images * shape.out_plane();
            let values = filters.contiguous()?;
            let filters = Matrix { values, rows: outputs, columns: taps, row_stride: taps, column_stride: 1 };
            self.for_each_patches(&shape, x.contiguous()?, |images, patches| {
                let out = MatrixMut { values: &mut y[images.start * shape.out_plane()..], row_stride };
                self.packed_into(weight, filters, patches, out, write)
            })
        })
    }

    /// The gradient of [`Backend::convolve`]'s input, whose maps are `height` x `width`.
    ///
    /// # Errors
    /// If the shapes do not fit.
    pub fn convolve_backward_input(
        &self,
        weight: &Tensor,
        dy: &Tensor,
        stride: usize,
        height: usize,
        width: usize,
    ) -> Result<Tensor> {
        let maps = [weight.dim(1)?, dy.dim(1)?, height, width];
        let (shape, outputs) = fitting(weight.dims(), &maps, stride)?;
        if dy.dims() != maps_of(&shape, outputs) {
            bail!("convolve_backward_input: {:?} for {maps:?} at stride {stride}", dy.dims());
        }
        let op = Op::new("convolve backward input").macs(dy.elem_count() * shape.taps());
        on_gpu!(self, op, [weight, dy], gpu => gpu.convolve_backward_input(weight, dy, &shape));
        self.compute(op, [weight, dy], &maps, |[weight, dy], dx| {
            let weight = transposed(filters(&weight)?);
            let mut values = room(&shape);
            for images in shape.groups(PATCH_VALUES) {
                let dy = output(&shape, &images, outputs, dy.contiguous()?);
                let values = &mut values[..shape.taps() * dy.columns];
                let out = MatrixMut { values, row_stride: dy.columns };
                self.product_into(weight, dy, out, Write::Replace)?;
                run!(self, dense::fold_patches(&shape, images, values, dx));
            }
            Ok(())
        })
    }

    /// Adds the gradient of [`Backend::convolve`]'s weight to `destination`, which may be the leading channels of a
    /// larger one.
    ///
    /// # Errors
    /// If the shapes do not fit.
    pub fn add_convolve_weight(
        &self,
        destination: &Tensor,
        x: &Tensor,
        dy: &Tensor,
        stride: usize,
    ) -> Result<()> {
        let (shape, outputs) = fitting(destination.dims(), x.dims(), stride)?;
        if dy.dims() != maps_of(&shape, outputs) {
            bail!("add_convolve_weight: {:?} for {:?} at stride {stride}", dy.dims(), x.dims());
        }
        let op = Op::new("add convolve weight").macs(dy.elem_count() * shape.taps());
        on_gpu!(self, op, [x, dy], gpu => gpu.add_convolve_weight(destination, x, dy, &shape));
        self.update(op, destination, [x, dy], |destination, views| {
            let (_, _, row_stride) = filter_rows(destination.layout)?;
            let dy = views[1].contiguous()?;
            self.for_each_patches(&shape, views[0].contiguous()?, |images, patches| {
                let out = MatrixMut { values: &mut *destination.values, row_stride };
                self.product_into(
                    output(&shape, &images, outputs, dy),
                    transposed(patches),
                    out,
                    Write::Accumulate,
                )
            })
        })
    }
}

/// The part of an output `[O, N, Ho, Wo]` that belongs to some images, as a matrix.
fn output<'a>(shape: &PatchShape, images: &Range<usize>, outputs: usize, values: &'a [f32]) -> Matrix<'a> {
    Matrix {
        values: &values[images.start * shape.out_plane()..],
        rows: outputs,
        columns: images.len() * shape.out_plane(),
        row_stride: shape.images * shape.out_plane(),
        column_stride: 1,
    }
}

/// The shape of the patches, and the number of outputs, of a weight over maps.
fn fitting(weight: &[usize], maps: &[usize], stride: usize) -> Result<(PatchShape, usize)> {
    let &[outputs, inputs, kernel, width] = weight else { bail!("convolution: weight {weight:?}") };
    let shape = Window { kernel, stride }.over(maps)?;
    if inputs != shape.channels || width != kernel || kernel % 2 == 0 || stride == 0 {
        bail!("convolution: weight {weight:?} on {maps:?} at stride {stride}");
    }
    Ok((shape, outputs))
}

/// Shape of the output.
fn maps_of(shape: &PatchShape, outputs: usize) -> [usize; 4] {
    [outputs, shape.images, shape.out_height(), shape.out_width()]
}
