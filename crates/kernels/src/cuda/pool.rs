//! Pooling.

use super::{Argument, Launch, Place, THREADS, i32_of, long};
use crate::cpu::pool::{Pool, Sampling};

fn launch(kernel: &str, places: &[Place], pool: &Pool, count: usize) -> Launch {
    let sizes = [pool.height, pool.width, pool.out_height(), pool.out_width()];
    let window = [pool.side, pool.stride, pool.padding];
    let sizes = Argument::Ints(sizes.into_iter().chain(window).map(i32_of).collect());
    let places = places.iter().copied().map(Argument::from);
    let arguments: Vec<_> = places.chain([sizes, long(count)]).collect();
    Launch::new("pool", kernel, count.div_ceil(THREADS), arguments)
}

/// Values of all maps before and after the pooling.
fn counts(pool: &Pool, maps: usize) -> [usize; 2] {
    [maps * pool.height * pool.width, maps * pool.out_height() * pool.out_width()]
}

/// y = maximum of each window.
pub fn max(pool: &Pool, maps: usize, x: Place, y: Place) -> Launch {
    launch("max_pool", &[x, y], pool, counts(pool, maps)[1])
}

/// dx: each dy at the first maximum of its window.
pub fn max_backward(pool: &Pool, maps: usize, [x, dy]: [Place; 2], dx: Place) -> Launch {
    launch("max_pool_backward", &[x, dy, dx], pool, counts(pool, maps)[0])
}

/// y = mean of each window's values inside the map.
pub fn average(pool: &Pool, maps: usize, x: Place, y: Place) -> Launch {
    launch("average_pool", &[x, y], pool, counts(pool, maps)[1])
}

/// dx: each dy spread over its window.
pub fn average_backward(pool: &Pool, maps: usize, dy: Place, dx: Place) -> Launch {
    launch("average_pool_backward", &[dy, dx], pool, counts(pool, maps)[0])
}

fn launch_sampling(kernel: &str, [from, to]: [Place; 2], sampling: &Sampling, count: usize) -> Launch {
    let &Sampling { height, width, first } = sampling;
    let sizes = [height, width, sampling.out_height(), sampling.out_width(), first];
    let sizes = Argument::Ints(sizes.into_iter().map(i32_of).collect());
    let arguments = vec![from.into(), to.into(), sizes, long(count)];
    Launch::new("pool", kernel, count.div_ceil(THREADS), arguments)
}

/// y = every second place.
pub fn sample(sampling: &Sampling, maps: usize, x: Place, y: Place) -> Launch {
    let count = maps * sampling.out_height() * sampling.out_width();
    launch_sampling("sample", [x, y], sampling, count)
}

/// dx: each dy at the place that it was sampled from.
pub fn sample_backward(sampling: &Sampling, maps: usize, dy: Place, dx: Place) -> Launch {
    launch_sampling("sample_backward", [dy, dx], sampling, maps * sampling.height * sampling.width)
}
