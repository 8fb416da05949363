//! Updates of long-lived tensors, copies, the optimizer's step and the loss, on tensors.

use candle_core::{Result, Tensor, bail};

use super::gpu::{Gpu, contiguous, kept_as, numbers, place, spot};
use super::planes::{self, Strided};
use super::training::{self, Parameter, Weight, pair};
use super::{ActivationStorage, Launch, Place, THREADS, int};
use crate::cpu::updates::AdamWStep;
use crate::{AdamWParameter, HardLabels, NesterovParameter};

impl Gpu {
    /// `destination += x`.
    pub fn add_assign(&self, destination: &Tensor, x: &Tensor) -> Result<()> {
        let to = contiguous(destination)?;
        self.run(to.storage, [planes::add(to.place, kept_as(x, to.storage)?, x.elem_count())])
    }

    /// `destination += x`, any view, all f32.
    pub fn add_to_view(&self, destination: &Tensor, x: &Tensor) -> Result<()> {
        let to = spot(destination)?;
        if to.storage != ActivationStorage::F32 {
            bail!("add_to_view: expected f32 values, got {:?}", to.storage);
        }
        let view = strided(destination)?;
        self.run(ActivationStorage::F32, [planes::add_to_view(to.place, &view, numbers(x)?)])
    }

    /// [`Gpu::copy`], if there is something to change.
    pub fn kept(&self, view: &Tensor, target: ActivationStorage) -> Result<Tensor> {
        if view.is_contiguous() && ActivationStorage::of(view)? == target {
            Ok(view.clone())
        } else {
            self.copy(view, target)
        }
    }

    /// A contiguous copy of a tensor, in the same storage.
    pub fn duplicate(&self, x: &Tensor) -> Result<Tensor> {
        self.copy(x, ActivationStorage::of(x)?)
    }

    /// The rows of two tensors of one storage, one after the other; `shape` is that of both.
    pub fn join(&self, first: &Tensor, second: &Tensor, shape: &[usize]) -> Result<Tensor> {
        let storage = ActivationStorage::of(first)?;
        let out = self.unfilled(shape, storage)?;
        let to = contiguous(&out)?;
        let (copying, launched) = planes::copying(storage, storage);
        for (part, place) in [(first, to.place), (second, to.offset(first.elem_count()))] {
            let from = kept_as(part, storage)?;
            self.run(launched, [planes::copy(from, &strided(part)?, place, copying)])?;
        }
        Ok(out)
    }

    /// A contiguous copy of a view, in the given storage.
    pub fn copy(&self, view: &Tensor, target: ActivationStorage) -> Result<Tensor> {
        let from = spot(view)?;
        let out = self.unfilled(view.shape(), target)?;
        let (copying, storage) = planes::copying(from.storage, target);
        let launch = planes::copy(from.place, &strided(view)?, contiguous(&out)?.place, copying);
        self.run(storage, [launch])?;
        Ok(out)
    }

    /// A tensor on the CPU that holds zeros and one other number, as activations. It is copied to the GPU as bits:
    /// a copy of 64 KB or more from memory that is not page-locked would wait for all work in flight.
    pub fn mask(&self, mask: &Tensor) -> Result<Tensor> {
        let values = mask.flatten_all()?.to_vec1::<f32>()?;
        let factor = values.iter().copied().find(|value| *value != 0.0).unwrap_or(0.0);
        if let Some(other) = values.iter().find(|value| **value != 0.0 && **value != factor) {
            bail!("mask: expected zeros and {factor} alone, got {other}");
        }
        let mut words = Vec::with_capacity(values.len().div_ceil(32));
        for values in values.chunks(32) {
            let mut word = 0;
            for (bit, value) in values.iter().enumerate() {
                word |= u32::from(*value != 0.0) << bit;
            }
            words.push(word);
        }
        let bits = self.upload(&words)?;
        let out = self.unfilled(mask.shape(), self.activations())?;
        let launch = planes::mask(place(&bits)?, factor, contiguous(&out)?.place, values.len());
        self.run(self.activations(), [launch])?;
        Ok(out)
    }

    /// Keeps one multiprocessor busy for a time that depends on its clock alone; `values` holds one number per thread.
    pub fn chain_of_products(&self, values: &Tensor, steps: usize) -> Result<()> {
        if values.elem_count() != THREADS {
            bail!("chain: expected {THREADS} values, got {:?}", values.dims());
        }
        self.run(
            ActivationStorage::F32,
            [Launch::new("clock", "chain", 1, [numbers(values)?.into(), int(steps)])],
        )
    }

    /// One step of Nesterov's on all parameters; their gradients are zero after it.
    pub fn nesterov(&self, moved: &[NesterovParameter], lr: f32, momentum: f32) -> Result<()> {
        let mut parameters = Vec::with_capacity(moved.len() * Parameter::WORDS);
        for NesterovParameter { parameter, gradient, velocity, weight_decay } in moved {
            let [value, gradient, velocity] = [numbers(parameter)?, numbers(gradient)?, numbers(velocity)?];
            let length = parameter.elem_count() as i64;
            let parameter = Parameter { value, gradient, velocity, length, weight_decay: *weight_decay };
            parameters.extend(parameter.words());
        }
        let lengths: Vec<_> = moved.iter().map(|moved| moved.parameter.elem_count()).collect();
        self.run_chunks(ActivationStorage::F32, &parameters, &lengths, |parameters, chunks, count| {
            training::nesterov(parameters, chunks, count, lr, momentum)
        })
    }

    /// One step of AdamW on all parameters, each by the constants of its own; their gradients are zero after it.
    pub fn adamw(&self, adapted: &[AdamWParameter], steps: &[AdamWStep]) -> Result<()> {
        let Some(shared) = steps.first() else { return Ok(()) };
        let mut parameters = Vec::with_capacity(adapted.len() * training::Adapted::WORDS);
        for (AdamWParameter { parameter, gradient, moments: [first, second], .. }, step) in
            adapted.iter().zip(steps)
        {
            let [value, gradient] = [numbers(parameter)?, numbers(gradient)?];
            let moments = [numbers(first)?, numbers(second)?];
            let length = parameter.elem_count() as i64;
            let adapted = training::Adapted { value, gradient, moments, length, step: *step };
            parameters.extend(adapted.words());
        }
        let lengths: Vec<_> = adapted.iter().map(|adapted| adapted.parameter.elem_count()).collect();
        self.run_chunks(ActivationStorage::F32, &parameters, &lengths, |parameters, chunks, count| {
            training::adamw(parameters, chunks, count, *shared)
        })
    }

    /// Clamps every value of a contiguous tensor.
    pub fn clamp(&self, values: &Tensor, most: f32) -> Result<()> {
        let launch = training::clamp_values(numbers(values)?, most, values.elem_count());
        self.run(ActivationStorage::F32, [launch])
    }

    /// Moves every value of a contiguous tensor toward that of another.
    pub fn move_toward(&self, values: &Tensor, to: &Tensor, share: f32) -> Result<()> {
        let launch = training::move_toward(numbers(values)?, numbers(to)?, share, values.elem_count());
        self.run(ActivationStorage::F32, [launch])
    }

    /// One launch over the chunks of tensors of these lengths, each described by some words of `table`.
    fn run_chunks(
        &self,
        storage: ActivationStorage,
        table: &[i64],
        lengths: &[usize],
        plan: impl FnOnce(Place, Place, usize) -> Launch,
    ) -> Result<()> {
        let chunks = training::chunks(lengths);
        if chunks.is_empty() {
            return Ok(());
        }
        let words: Vec<_> = chunks.iter().map(|[tensor, index]| pair(*tensor, *index)).collect();
        let table = self.upload(table)?;
        let words = self.upload(&words)?;
        self.run(storage, [plan(place(&table)?, place(&words)?, chunks.len())])
    }

    /// Whether products read a weight unchanged.
    pub fn is_operand(&self, weight: &Tensor) -> Result<bool> {
        Ok(ActivationStorage::of(weight)? == self.activations())
    }

    /// Operands of products: the weights themselves for f32, else copies, all made by one launch. Each weight is rows of
    /// contiguous values.
    pub fn operands(&self, weights: &[&Tensor]) -> Result<Vec<Tensor>> {
        let target = self.activations();
        if target == ActivationStorage::F32 {
            return Ok(weights.iter().map(|weight| (*weight).clone()).collect());
        }
        // each begins where the GPU's longest vector may begin
        let room = |weight: &Tensor| weight.elem_count().next_multiple_of(64);
        let copies =
            self.unfilled(weights.iter().map(|weight| room(weight)).sum::<usize>().max(1), target)?;
        let at = contiguous(&copies)?;
        let mut begin = 0;
        let mut table = Vec::new();
        let mut operands = Vec::with_capacity(weights.len());
        for weight in weights {
            let count = weight.elem_count();
            let stride = weight.stride();
            let columns = count / weight.dim(0)?.max(1);
            let compact = weight.get(0)?.is_contiguous();
            let from = spot(weight)?;
            if !compact || from.storage != ActivationStorage::F32 {
                bail!("operands: expected rows of f32, got strides {stride:?} for {:?}", weight.dims());
            }
            let to = at.offset(begin);
            let stride = stride[0].max(columns);
            table.extend(Weight { from: from.place, to, count, columns, stride }.words());
            operands.push(copies.narrow(0, begin, count)?.reshape(weight.shape())?);
            begin += room(weight);
        }
        let lengths: Vec<_> = weights.iter().map(|weight| weight.elem_count()).collect();
        self.run_chunks(target, &table, &lengths, training::take_weights)?;
        Ok(operands)
    }

    /// Each image's loss `[N]` and the gradient of the mean loss `[N, classes]` at the logits, all f32, each multiplied by
    /// the image's scale, if there are scales.
    pub fn cross_entropy(
        &self,
        logits: &Tensor,
        labels: HardLabels<'_>,
        teacher: Option<&Tensor>,
        scales: Option<&[f32]>,
    ) -> Result<(Tensor, Tensor)> {
        let HardLabels { classes: labels, smoothing, weight } = labels;
        let (images, classes) = logits.dims2()?;
        let losses = self.unfilled(images, ActivationStorage::F32)?;
        let gradient = self.unfilled((images, classes), ActivationStorage::F32)?;
        let labels = self.upload(labels)?;
        let scales = scales.map(|scales| self.upload(scales)).transpose()?;
        let places = training::CrossEntropyPlaces {
            logits: numbers(logits)?,
            labels: place(&labels)?,
            teacher: teacher.map(numbers).transpose()?,
            scales: scales.as_ref().map(place).transpose()?,
            losses: numbers(&losses)?,
            gradient: numbers(&gradient)?,
            images,
            classes,
        };
        self.run(ActivationStorage::F32, [training::cross_entropy(&places, smoothing, weight)])?;
        Ok((losses, gradient))
    }
}

fn strided(view: &Tensor) -> Result<Strided<'_>> {
    if view.rank() > 4 {
        bail!("a view of {} axes, at most 4", view.rank());
    }
    Ok(Strided { sizes: view.dims(), strides: view.stride() })
}
