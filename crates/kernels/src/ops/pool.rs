//! Pooling over windows.

use candle_core::{Result, Tensor, bail};

use super::{Backend, Op, Window, on_gpu, run};
use crate::cpu::pool::{Pool, Sampling};

/// The pooling of maps `[C, N, H, W]`.
fn pool_of(maps: &[usize], [side, stride, padding]: [usize; 3]) -> Result<(Pool, [usize; 4])> {
    let &[channels, images, height, width] = maps else { bail!("pool: expected maps, got {maps:?}") };
    if stride == 0 || stride > side {
        bail!("pool: stride {stride} of windows of {side}");
    }
    let pool = Pool { height, width, side, stride, padding };
    Ok((pool, [channels, images, pool.out_height(), pool.out_width()]))
}

/// The sampling of maps `[C, N, H, W]`, and the shape of what it gives.
fn sampling_of(maps: &[usize], first: usize) -> Result<(Sampling, [usize; 4])> {
    let &[channels, images, height, width] = maps else { bail!("sample: expected maps, got {maps:?}") };
    if first > 1 {
        bail!("sample: expected the first place to be 0 or 1, got {first}");
    }
    let sampling = Sampling { height, width, first };
    Ok((sampling, [channels, images, sampling.out_height(), sampling.out_width()]))
}

/// Side and padding of the windows of a maximum.
const MAX_POOL: [usize; 2] = [3, 1];

/// Side, stride and padding of windows around their places; one more place after than before where the side is even.
fn around(Window { kernel, stride }: Window) -> [usize; 3] {
    [kernel, stride, kernel.saturating_sub(1) / 2]
}

impl Backend {
    /// Maximum over 3 x 3, padding 1: `[C, N, H, W] -> [C, N, H/s, W/s]`, rounded up.
    ///
    /// # Errors
    /// If the tensor is not contiguous.
    pub fn max_pool(&self, x: &Tensor, stride: usize) -> Result<Tensor> {
        let (pool, maps) = pool_of(x.dims(), [MAX_POOL[0], stride, MAX_POOL[1]])?;
        on_gpu!(self, Op::new("max pool"), [x], gpu => gpu.max_pool(x, &pool, &maps));
        self.compute(Op::new("max pool"), [x], &maps, |[x], y| {
            run!(self, pool::max(&pool, x.contiguous()?, y));
            Ok(())
        })
    }

    /// The gradient of [`Backend::max_pool`]'s input.
    ///
    /// # Errors
    /// If the shapes do not fit.
    pub fn max_pool_backward(&self, x: &Tensor, stride: usize, dy: &Tensor) -> Result<Tensor> {
        let (pool, maps) = pool_of(x.dims(), [MAX_POOL[0], stride, MAX_POOL[1]])?;
        if dy.dims() != maps {
            bail!("max_pool_backward: {:?} for {:?}", dy.dims(), x.dims());
        }
        on_gpu!(self, Op::new("max pool backward"), [x, dy], gpu => gpu.max_pool_backward(x, dy, &pool));
        self.compute(Op::new("max pool backward"), [x, dy], x.shape(), |[x, dy], dx| {
            run!(self, pool::max_backward(&pool, x.contiguous()?, dy.contiguous()?, dx));
            Ok(())
        })
    }

    /// Mean over windows with padding `(kernel - 1) / 2`, at the edge over the values inside the map.
    ///
    /// # Shapes
    /// `[C, N, H, W] -> [C, N, H/s, W/s]`, rounded up.
    ///
    /// # Errors
    /// If the tensor is not contiguous.
    pub fn average_pool(&self, x: &Tensor, window: Window) -> Result<Tensor> {
        let (pool, maps) = pool_of(x.dims(), around(window))?;
        on_gpu!(self, Op::new("average pool"), [x], gpu => gpu.average_pool(x, &pool, &maps));
        self.compute(Op::new("average pool"), [x], &maps, |[x], y| {
            run!(self, pool::average(&pool, x.contiguous()?, y));
            Ok(())
        })
    }

    /// The gradient of [`Backend::average_pool`]'s input, whose maps are `height` x `width`.
    ///
    /// # Errors
    /// If the shapes do not fit.
    pub fn average_pool_backward(
        &self,
        dy: &Tensor,
        window: Window,
        height: usize,
        width: usize,
    ) -> Result<Tensor> {
        let input = [dy.dim(0)?, dy.dim(1)?, height, width];
        let (pool, maps) = pool_of(&input, around(window))?;
        if dy.dims() != maps {
            bail!("average_pool_backward: {:?} for {input:?} at stride {}", dy.dims(), window.stride);
        }
        on_gpu!(self, Op::new("average pool backward"), [dy], gpu => {
            gpu.average_pool_backward(dy, &pool, &input)
        });
        self.compute(Op::new("average pool backward"), [dy], &input, |[dy], dx| {
            run!(self, pool::average_backward(&pool, dy.contiguous()?, dx));
            Ok(())
        })
    }

    /// Every second place in both directions from `first`, 0 or 1, on; a place beyond the map is 0.
    ///
    /// # Shapes
    /// `[C, N, H, W] -> [C, N, H/2, W/2]`, rounded up.
    ///
    /// # Errors
    /// If the tensor is not contiguous.
    pub fn sample(&self, x: &Tensor, first: usize) -> Result<Tensor> {
        let (sampling, maps) = sampling_of(x.dims(), first)?;
        on_gpu!(self, Op::new("sample"), [x], gpu => gpu.sample(x, &sampling, &maps));
        self.compute(Op::new("sample"), [x], &maps, |[x], y| {
            run!(self, pool::sample(&sampling, x.contiguous()?, y));
            Ok(())
        })
    }

    /// The gradient of [`Backend::sample`]'s input, whose maps are `height` x `width`.
    ///
    /// # Errors
    /// If the shapes do not fit.
    pub fn sample_backward(&self, dy: &Tensor, first: usize, [height, width]: [usize; 2]) -> Result<Tensor> {
        let input = [dy.dim(0)?, dy.dim(1)?, height, width];
        let (sampling, maps) = sampling_of(&input, first)?;
        if dy.dims() != maps {
            bail!("sample_backward: {:?} for {input:?}", dy.dims());
        }
        on_gpu!(self, Op::new("sample backward"), [dy], gpu => gpu.sample_backward(dy, &sampling, &input));
        self.compute(Op::new("sample backward"), [dy], &input, |[dy], dx| {
            run!(self, pool::sample_backward(&sampling, dy.contiguous()?, dx));
            Ok(())
        })
    }
}
