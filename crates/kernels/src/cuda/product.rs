//! Matrix products by a library, and dense convolutions on top of them.

use std::ops::Range;

use candle_core::{Result, Tensor, bail};

use super::gpu::{Gpu, Spot, contiguous, numbers, spot};
use super::{ActivationStorage, Place, RowSizes, dense, planes};
use crate::cpu::dense::PatchShape;
use space::Activation;

/// A matrix in memory: rows `lead` values apart, or, transposed, columns.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Operand {
    pub place: Place,
    pub lead: usize,
    pub transposed: bool,
}

/// `out = left x right`, or `out += left x right`; all matrices are row-major.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Product {
    /// Rows of `left`, columns of `left`, columns of `right`.
    pub sizes: [usize; 3],
    pub left: Operand,
    pub right: Operand,
    /// The result, and how far apart its rows begin.
    pub out: (Place, usize),
    pub accumulate: bool,
    /// Storage of the operands.
    pub given: ActivationStorage,
    /// Storage of the result.
    pub output: ActivationStorage,
}

/// A matrix that a product reads or writes.
#[derive(Clone, Copy, Debug)]
struct Matrix {
    spot: Spot,
    sizes: [usize; 2],
    strides: [usize; 2],
}

impl Matrix {
    fn of(tensor: &Tensor) -> Result<Self> {
        let (rows, columns) = tensor.dims2()?;
        let strides = tensor.stride();
        Ok(Self { spot: spot(tensor)?, sizes: [rows, columns], strides: [strides[0], strides[1]] })
    }

    /// The filters of a dense convolution `[O, I, k, k]`, `[O, I k k]`; they may be leading ones of a larger weight.
    fn filters(weight: &Tensor) -> Result<Self> {
        let (rows, _, height, width) = weight.dims4()?;
        let strides = weight.stride();
        if strides[1..] != [height * width, width, 1] {
            bail!("filters: expected each contiguous, got strides {strides:?} for {:?}", weight.dims());
        }
        let columns = weight.elem_count() / rows.max(1);
        Ok(Self { spot: spot(weight)?, sizes: [rows, columns], strides: [strides[0].max(columns), 1] })
    }

    /// Rows without gaps.
    fn compact(spot: Spot, sizes: [usize; 2]) -> Self {
        Self { spot, sizes, strides: [sizes[1], 1] }
    }

    fn transposed(self) -> Self {
        let [rows, columns] = self.sizes;
        let [down, along] = self.strides;
        Self { sizes: [columns, rows], strides: [along, down], ..self }
    }

    fn operand(&self) -> Result<Operand> {
        let [rows, columns] = self.sizes;
        let [down, along] = self.strides;
        let place = self.spot.place;
        if along == 1 || columns == 1 {
            return Ok(Operand { place, lead: down.max(columns), transposed: false });
        }
        if down == 1 || rows == 1 {
            return Ok(Operand { place, lead: along.max(rows), transposed: true });
        }
        bail!("product: strides {:?} of a matrix {:?}: one must be 1", self.strides, self.sizes)
    }
}

impl Gpu {
    fn multiply_matrices(&self, left: Matrix, right: Matrix, out: Matrix, accumulate: bool) -> Result<()> {
        let [rows, inner] = left.sizes;
        let columns = right.sizes[1];
        if right.sizes[0] != inner || out.sizes != [rows, columns] {
            bail!("product: {:?} times {:?} into {:?}", left.sizes, right.sizes, out.sizes);
        }
        if left.spot.storage != right.spot.storage {
            bail!("product: {:?} times {:?} values", left.spot.storage, right.spot.storage);
        }
        let kept = out.operand()?;
        if kept.transposed {
            bail!("product: rows of the result must be contiguous, got strides {:?}", out.strides);
        }
        self.multiply(&Product {
            sizes: [rows, inner, columns],
            left: left.operand()?,
            right: right.operand()?,
            out: (kept.place, kept.lead),
            accumulate,
            given: left.spot.storage,
            output: out.spot.storage,
        })
    }

    /// `left x right`, in the storage of `right`.
    pub fn product(&self, left: &Tensor, right: &Tensor) -> Result<Tensor> {
        let out = self.unfilled((left.dim(0)?, right.dim(1)?), ActivationStorage::of(right)?)?;
        self.multiply_matrices(Matrix::of(left)?, Matrix::of(right)?, Matrix::of(&out)?, false)?;
        Ok(out)
    }

    /// `destination += left x right`.
    pub fn add_product(&self, destination: &Tensor, left: &Tensor, right: &Tensor) -> Result<()> {
        self.multiply_matrices(Matrix::of(left)?, Matrix::of(right)?, Matrix::of(destination)?, true)
    }

    /// `act(x + shift)` in place, one shift per row.
    pub fn activate(&self, x: &Tensor, shift: &Tensor, activation: Activation) -> Result<()> {
        let at = contiguous(x)?;
        let rows = x.dim(0)?;
        let sizes = RowSizes { rows, length: x.elem_count() / rows.max(1) };
        let shift = planes::BiasLaunches { sizes, bias: Some(numbers(shift)?), activation };
        self.run(at.storage, [shift.forward(at.place, at.place)])
    }

    /// Dense convolution: filters `[O, I, k, k]`, `x` `[I, N, H, W]`.
    pub fn convolve(&self, weight: &Tensor, x: &Tensor, shape: &PatchShape) -> Result<Tensor> {
        self.convolve_filters(Matrix::filters(weight)?, x, shape)
    }

    /// [`Gpu::convolve`] with filters `[O, I k k]`.
    pub fn convolve_rows(&self, filters: &Tensor, x: &Tensor, shape: &PatchShape) -> Result<Tensor> {
        self.convolve_filters(Matrix::of(filters)?, x, shape)
    }

    fn convolve_filters(&self, filters: Matrix, x: &Tensor, shape: &PatchShape) -> Result<Tensor> {
        let outputs = filters.sizes[0];
        let y = self.unfilled(
            (outputs, shape.images, shape.out_height(), shape.out_width()),
            ActivationStorage::of(x)?,
        )?;
        let at = contiguous(&y)?;
        self.for_each_patches(shape, x, |images, patches| {
            self.multiply_matrices(filters, patches, part(at, shape, &images, outputs), false)
        })?;
        Ok(y)
    }

    /// Adds the gradient of the filters to `destination`.
    pub fn add_convolve_weight(
        &self,
        destination: &Tensor,
        x: &Tensor,
        dy: &Tensor,
        shape: &PatchShape,
    ) -> Result<()> {
        let out = Matrix::filters(destination)?;
        let at = contiguous(dy)?;
        self.for_each_patches(shape, x, |images, patches| {
            let dy = part(at, shape, &images, out.sizes[0]);
            self.multiply_matrices(dy, patches.transposed(), out, true)
        })
    }

    /// The gradient of a dense convolution's input.
    pub fn convolve_backward_input(
        &self,
        weight: &Tensor,
        dy: &Tensor,
        shape: &PatchShape,
    ) -> Result<Tensor> {
        let filters = Matrix::filters(weight)?;
        let at = contiguous(dy)?;
        let dx = self.unfilled((shape.channels, shape.images, shape.height, shape.width), at.storage)?;
        let to = contiguous(&dx)?;
        let room = self.patches_room(shape, at.storage)?;
        for images in shape.groups(MOST_PATCHES) {
            let patches = columns(contiguous(&room)?, shape, &images);
            let dy = part(at, shape, &images, filters.sizes[0]);
            self.multiply_matrices(filters.transposed(), dy, patches, false)?;
            self.run(at.storage, [dense::fold_patches(shape, images, patches.spot.place, to.place)])?;
        }
        Ok(dx)
    }

    fn for_each_patches(
        &self,
        shape: &PatchShape,
        x: &Tensor,
        mut visit: impl FnMut(Range<usize>, Matrix) -> Result<()>,
    ) -> Result<()> {
        let x = contiguous(x)?;
        let room = self.patches_room(shape, x.storage)?;
        for images in shape.groups(MOST_PATCHES) {
            let patches = columns(contiguous(&room)?, shape, &images);
            self.run(x.storage, [dense::patches(shape, images.clone(), x.place, patches.spot.place)])?;
            visit(images, patches)?;
        }
        Ok(())
    }

    /// Room for the patches of the largest group.
    fn patches_room(&self, shape: &PatchShape, storage: ActivationStorage) -> Result<Tensor> {
        let most = shape.groups(MOST_PATCHES).map(|images| images.len()).max().unwrap_or(0);
        self.unfilled((most * shape.taps() * shape.out_plane()).max(1), storage)
    }
}

/// Most values of the patches that are made at a time, unless one image has more: 256 MB of f32.
const MOST_PATCHES: usize = 1 << 26;

/// The patches of some images as a matrix.
fn columns(room: Spot, shape: &PatchShape, images: &Range<usize>) -> Matrix {
    Matrix::compact(room, [shape.taps(), images.len() * shape.out_plane()])
}

/// The part of an output `[O, N, Ho, Wo]` that belongs to some images, as a matrix.
fn part(all: Spot, shape: &PatchShape, images: &Range<usize>, outputs: usize) -> Matrix {
    let place = all.offset(images.start * shape.out_plane());
    Matrix {
        spot: Spot { place, ..all },
        sizes: [outputs, images.len() * shape.out_plane()],
        strides: [shape.images * shape.out_plane(), 1],
    }
}
