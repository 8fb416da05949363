//! From tensors to slices and back: the only place that looks inside a tensor's storage.

use std::mem::MaybeUninit;

use candle_core::{
    CpuStorage, Device, InplaceOp1, InplaceOp2, InplaceOp3, Layout, Shape, Storage, Tensor, bail,
};

/// The values of an f32 tensor on the CPU, from its first element on, with its sizes and strides.
pub(super) struct View<'a> {
    pub values: &'a [f32],
    pub layout: &'a Layout,
}

impl<'a> View<'a> {
    fn of(storage: &'a CpuStorage, layout: &'a Layout) -> candle_core::Result<Self> {
        let CpuStorage::F32(values) = storage else { bail!("expected f32 values, got {:?}", dtype(storage)) };
        Ok(Self { values: &values[layout.start_offset()..], layout })
    }

    /// All values of a contiguous tensor.
    pub fn contiguous(&self) -> candle_core::Result<&'a [f32]> {
        if !self.layout.is_contiguous() {
            bail!(
                "expected a contiguous tensor, got strides {:?} for {:?}",
                self.layout.stride(),
                self.layout.dims()
            );
        }
        Ok(&self.values[..self.layout.shape().elem_count()])
    }
}

fn dtype(storage: &CpuStorage) -> candle_core::DType {
    use candle_core::backend::BackendStorage;
    storage.dtype()
}

/// Calls `read` with the values of each tensor, all of them on the CPU.
pub(super) fn with_views<const N: usize, T>(
    tensors: [&Tensor; N],
    read: impl FnOnce([View<'_>; N]) -> candle_core::Result<T>,
) -> candle_core::Result<T> {
    let guards = tensors.map(Tensor::storage_and_layout);
    let mut views = Vec::with_capacity(N);
    for (storage, layout) in &guards {
        let Storage::Cpu(storage) = &**storage else {
            bail!("no kernel for this device yet: {:?}", storage.device())
        };
        views.push(View::of(storage, layout)?);
    }
    let Ok(views) = views.try_into() else { unreachable!("one view per tensor") };
    read(views)
}

/// Makes a new contiguous tensor of `shape`; `compute` gets the inputs' values and must fill all of the output.
pub(super) fn compute<const N: usize>(
    inputs: [&Tensor; N],
    shape: impl Into<Shape>,
    compute: impl FnOnce([View<'_>; N], &mut [f32]) -> candle_core::Result<()>,
) -> candle_core::Result<Tensor> {
    let shape = shape.into();
    let mut output = unfilled(shape.elem_count());
    with_views(inputs, |views| compute(views, &mut output))?;
    Tensor::from_vec(output, shape, &Device::Cpu)
}

/// [`compute`] with several outputs.
pub(super) fn compute_many<const N: usize, const M: usize>(
    inputs: [&Tensor; N],
    shapes: [Shape; M],
    compute: impl FnOnce([View<'_>; N], [&mut [f32]; M]) -> candle_core::Result<()>,
) -> candle_core::Result<[Tensor; M]> {
    let mut outputs = shapes.each_ref().map(|shape| unfilled(shape.elem_count()));
    with_views(inputs, |views| compute(views, outputs.each_mut().map(Vec::as_mut_slice)))?;
    let mut tensors = Vec::with_capacity(M);
    for (output, shape) in outputs.into_iter().zip(shapes) {
        tensors.push(Tensor::from_vec(output, shape, &Device::Cpu)?);
    }
    let Ok(tensors) = tensors.try_into() else { unreachable!("one tensor per shape") };
    Ok(tensors)
}

/// A vector for a kernel to fill. Zeroing the 10 MB outputs first would cost as much as the lighter kernels.
pub(super) fn unfilled(length: usize) -> Vec<f32> {
    let mut values: Vec<MaybeUninit<f32>> = Vec::with_capacity(length);
    // SAFETY: `MaybeUninit` needs no initial value, and the capacity is `length`.
    unsafe { values.set_len(length) };
    let mut values = std::mem::ManuallyDrop::new(values);
    // SAFETY: same allocation, size and alignment; every bit pattern is an f32, and each kernel writes every
    // element of its output before anything reads it.
    unsafe { Vec::from_raw_parts(values.as_mut_ptr().cast::<f32>(), length, values.capacity()) }
}

/// The destination of an in-place operation: the values from the first element on, with sizes and strides.
pub(super) struct Destination<'a> {
    pub values: &'a mut [f32],
    pub layout: &'a Layout,
}

impl Destination<'_> {
    /// All values of a contiguous destination.
    pub fn contiguous(&mut self) -> candle_core::Result<&mut [f32]> {
        if !self.layout.is_contiguous() {
            bail!("expected a contiguous destination, got strides {:?}", self.layout.stride());
        }
        let length = self.layout.shape().elem_count();
        Ok(&mut self.values[..length])
    }
}

/// A function that writes into its first tensor, as an in-place operation of candle.
struct Update<F> {
    name: &'static str,
    write: F,
}

impl<F: Fn(Destination<'_>, &[View<'_>]) -> candle_core::Result<()>> Update<F> {
    fn run(
        &self,
        storage: &mut CpuStorage,
        layout: &Layout,
        inputs: &[(&CpuStorage, &Layout)],
    ) -> candle_core::Result<()> {
        let views = inputs.iter().map(|(storage, layout)| View::of(storage, layout));
        let views = views.collect::<candle_core::Result<Vec<_>>>()?;
        let CpuStorage::F32(values) = storage else { bail!("{}: expected an f32 destination", self.name) };
        (self.write)(Destination { values: &mut values[layout.start_offset()..], layout }, &views)
    }
}

impl<F: Fn(Destination<'_>, &[View<'_>]) -> candle_core::Result<()>> InplaceOp1 for Update<F> {
    fn name(&self) -> &'static str {
        self.name
    }

    fn cpu_fwd(&self, storage: &mut CpuStorage, layout: &Layout) -> candle_core::Result<()> {
        self.run(storage, layout, &[])
    }
}

impl<F: Fn(Destination<'_>, &[View<'_>]) -> candle_core::Result<()>> InplaceOp2 for Update<F> {
    fn name(&self) -> &'static str {
        self.name
    }

    fn cpu_fwd(
        &self,
        storage: &mut CpuStorage,
        layout: &Layout,
        s1: &CpuStorage,
        l1: &Layout,
    ) -> candle_core::Result<()> {
        self.run(storage, layout, &[(s1, l1)])
    }
}

impl<F: Fn(Destination<'_>, &[View<'_>]) -> candle_core::Result<()>> InplaceOp3 for Update<F> {
    fn name(&self) -> &'static str {
        self.name
    }

    fn cpu_fwd(
        &self,
        storage: &mut CpuStorage,
        layout: &Layout,
        s1: &CpuStorage,
        l1: &Layout,
        s2: &CpuStorage,
        l2: &Layout,
    ) -> candle_core::Result<()> {
        self.run(storage, layout, &[(s1, l1), (s2, l2)])
    }
}

/// Writes into `destination`, which may be a narrowed view; candle refuses inputs that share its storage.
pub(super) fn update<const N: usize>(
    name: &'static str,
    destination: &Tensor,
    inputs: [&Tensor; N],
    write: impl Fn(Destination<'_>, &[View<'_>]) -> candle_core::Result<()>,
) -> candle_core::Result<()> {
    let update = Update { name, write };
    match inputs.as_slice() {
        [] => destination.inplace_op1(&update),
        [one] => destination.inplace_op2(one, &update),
        [one, two] => destination.inplace_op3(one, two, &update),
        _ => bail!("{name}: {N} inputs, at most 2"),
    }
}
