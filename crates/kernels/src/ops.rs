//! The kernels as methods on tensors: they check shapes, call the implementation, and time it if there is a profile.
//!
//! The CPU's kernels compute on f32 tensors in its memory, a GPU's on tensors in the GPU's memory, where activations may be
//! bfloat16. A tensor elsewhere is an error that names its device.

mod batch_norm;
mod chain;
mod dense;
mod planes;
mod pool;
mod product;
mod updates;

use candle_core::{Result, Shape, Tensor, bail};

use super::cuda;
use super::tensors::{self, Destination, View};
use super::{Backend, Implementation, cpu, reference};

pub use batch_norm::BatchNormAffine;
pub(crate) use batch_norm::BatchNormBackward;
pub use chain::{ChainKept, ChainOutputGradient, DepthwiseChain, ExciteBackward};
pub use dense::Window;
pub use product::PackedWeight;
pub use updates::{AdamWParameter, CrossEntropy, HardLabels, NesterovParameter};

/// Calls a slice kernel with the implementation that `$self` names.
macro_rules! run {
    ($self:expr, $module:ident :: $function:ident ( $($argument:expr),* $(,)? )) => {
        match &$self.implementation {
            $crate::Implementation::Reference => $crate::reference::$module::$function($($argument),*),
            $crate::Implementation::Cpu(isa) => $crate::cpu::$module::$function(*isa, $($argument),*),
            $crate::Implementation::Cuda(_) => unreachable!("a GPU has taken this already"),
        }
    };
}
use run;

/// Returns the result of `$call` if `$self` is a GPU: `on_gpu!(self, op, [tensors read or written], gpu => call)`.
macro_rules! on_gpu {
    ($self:expr, $op:expr, $tensors:expr, $gpu:ident => $call:expr) => {
        if let $crate::Implementation::Cuda($gpu) = &$self.implementation {
            return $self.record($op, $crate::ops::bytes($tensors), || $call);
        }
    };
}
use on_gpu;

/// An operation's name and its multiply-accumulates.
#[derive(Clone, Copy)]
struct Op {
    name: &'static str,
    macs: usize,
}

impl Op {
    const fn new(name: &'static str) -> Self {
        Self { name, macs: 0 }
    }

    const fn macs(self, macs: usize) -> Self {
        Self { macs, ..self }
    }
}

impl Backend {
    /// A new tensor of `shape` that `compute` fills from the inputs' values.
    fn compute<const N: usize>(
        &self,
        op: Op,
        inputs: [&Tensor; N],
        shape: impl Into<Shape>,
        compute: impl FnOnce([View<'_>; N], &mut [f32]) -> Result<()>,
    ) -> Result<Tensor> {
        let shape = shape.into();
        let moved = bytes(inputs) + VALUE * shape.elem_count();
        self.record(op, moved, || tensors::compute(inputs, shape, compute))
    }

    /// [`Backend::compute`] with several outputs.
    fn compute_many<const N: usize, const M: usize>(
        &self,
        op: Op,
        inputs: [&Tensor; N],
        shapes: [Shape; M],
        compute: impl FnOnce([View<'_>; N], [&mut [f32]; M]) -> Result<()>,
    ) -> Result<[Tensor; M]> {
        let moved = bytes(inputs) + VALUE * shapes.iter().map(Shape::elem_count).sum::<usize>();
        self.record(op, moved, || tensors::compute_many(inputs, shapes, compute))
    }

    /// Writes into `destination`, which may be a narrowed view.
    fn update<const N: usize>(
        &self,
        op: Op,
        destination: &Tensor,
        inputs: [&Tensor; N],
        write: impl Fn(Destination<'_>, &[View<'_>]) -> Result<()>,
    ) -> Result<()> {
        let moved = bytes(inputs) + 2 * VALUE * destination.elem_count();
        self.record(op, moved, || tensors::update(op.name, destination, inputs, write))
    }

    /// Runs `body`; with a profile, times it, on a GPU by events and without waiting. `moved` is the number of bytes read
    /// and written.
    fn record<T>(&self, op: Op, moved: usize, body: impl FnOnce() -> T) -> T {
        let Some(profile) = &self.profile else { return body() };
        let before = self.moment();
        let result = body();
        let after = self.moment();
        // without events there is no time; the GPU's next operation reports the error that prevented them
        if let (Ok(before), Ok(after)) = (before, after) {
            profile.add((self.layer, op.name), [before, after], op.macs as u64, moved as u64);
        }
        result
    }
}

/// Bytes of a value in f32.
const VALUE: usize = 4;

fn bytes<'a>(tensors: impl AsRef<[&'a Tensor]>) -> usize {
    tensors.as_ref().iter().map(|tensor| tensor.elem_count() * tensor.dtype().size_in_bytes()).sum()
}

fn same_shape(name: &str, left: &Tensor, right: &Tensor) -> Result<()> {
    if left.dims() != right.dims() {
        bail!("{name}: shapes differ: {:?} and {:?}", left.dims(), right.dims());
    }
    Ok(())
}

/// Rows of `x`, each of which has one value in `bias`.
fn bias_rows(x: &Tensor, bias: Option<&Tensor>) -> Result<usize> {
    let rows = x.dim(0)?;
    if let Some(bias) = bias
        && bias.dims() != [rows]
    {
        bail!("bias {:?} for {:?}", bias.dims(), x.dims());
    }
    Ok(rows)
}
