//! `MaxPool`, `AveragePool` and `GlobalAveragePool`.

use rayon::prelude::*;

use super::super::decoded::Array;
use super::call::Call;
use super::window::{ATTRIBUTES, Window};
use crate::error::Result;

/// `MaxPool` in two dimensions; its padding is below every value.
pub(super) fn max_pool(call: &mut Call) -> Result<Array> {
    call.takes(1, &[&ATTRIBUTES[..], &["storage_order"]].concat())?;
    call.switch("storage_order", false)?; // of the indices, which are not requested
    let window = Window::of_pooling(call)?;
    // not `max`, which would drop a NaN
    pool(call, &window, |values, _| {
        values.fold(
            f32::NEG_INFINITY,
            |most: f32, value: f32| if value > most || value.is_nan() { value } else { most },
        )
    })
}

/// `AveragePool` in two dimensions: the mean of the values of the map that a window covers, or with
/// `count_include_pad` their sum over the number of places of the padded map.
pub(super) fn average_pool(call: &mut Call) -> Result<Array> {
    call.takes(1, &["kernel_shape", "strides", "pads", "ceil_mode", "count_include_pad"])?;
    let include_pads = call.switch("count_include_pad", false)?;
    let window = Window::of_pooling(call)?;
    pool(call, &window, |values, [inside, with_pads]| {
        let count = if include_pads { with_pads } else { inside };
        values.sum::<f32>() / count as f32
    })
}

/// Reduces the values in each window, which come row by row with their number and that of the places with the padding.
fn pool(
    call: &mut Call,
    window: &Window,
    reduce: impl Fn(&mut dyn Iterator<Item = f32>, [usize; 2]) -> f32 + Sync,
) -> Result<Array> {
    let input = call.input(0)?;
    let [images, channels, height, width] = call.sizes(input)?;
    let output = window.output(call, [height, width])?;
    for (axis, size) in [height, width].into_iter().enumerate() {
        if window.covered(axis, output[axis] - 1, size).is_empty() {
            return Err(call.wrong("strides", "windows that cover a value each", "one beyond the map"));
        }
    }
    let shape = vec![images, channels, output[0], output[1]];
    let mut values = call.room(&shape, window.kernel[0] * window.kernel[1])?;
    let planes = values.par_chunks_mut(output[0] * output[1]).zip(input.values.par_chunks(height * width));
    planes.for_each(|(made, map)| {
        for (index, made) in made.iter_mut().enumerate() {
            let y = index / output[1];
            let x = index % output[1];
            let rows = window.covered(0, y, height);
            let columns = window.covered(1, x, width);
            let with_pads = window.covered_with_pads(0, y, height) * window.covered_with_pads(1, x, width);
            let inside = rows.len() * columns.len();
            let mut read = rows.flat_map(|row| map[row * width..][columns.clone()].iter().copied());
            *made = reduce(&mut read, [inside, with_pads]);
        }
    });
    Ok(Array { shape, values })
}

/// `GlobalAveragePool`: `[N, C, …]` to the means of each map, `[N, C, 1, …]`.
pub(super) fn global_average_pool(call: &mut Call) -> Result<Array> {
    call.takes(1, &[])?;
    let input = call.input(0)?;
    let [images, channels, maps @ ..] = input.shape.as_slice() else {
        return Err(call.wrong("inputs", "at least 2 dimensions", format!("shape {:?}", input.shape)));
    };
    let size = maps.iter().product();
    let mut shape = vec![*images, *channels];
    shape.resize(input.shape.len(), 1);
    let mut values = call.room(&shape, size)?;
    for (mean, map) in values.iter_mut().zip(input.values.chunks(size)) {
        *mean = map.iter().sum::<f32>() / size as f32;
    }
    Ok(Array { shape, values })
}
