//! `Conv`.

use rayon::prelude::*;

use super::super::decoded::Array;
use super::call::Call;
use super::window::Window;
use crate::error::Result;

/// `Conv` in two dimensions: `[N, C, H, W]`, weight `[M, C / group, kh, kw]` and an optional bias `[M]` to
/// `[N, M, H', W']`.
pub(super) fn conv(call: &mut Call) -> Result<Array> {
    call.takes(3, &["kernel_shape", "strides", "pads", "dilations", "group"])?;
    let input = call.input(0)?;
    let weight = call.input(1)?;
    let bias = call.optional(2);
    let [images, channels, height, width] = call.sizes(input)?;
    let [filters, fan_in, rows, columns] = call.sizes(weight)?;
    let groups = groups(call, channels, [filters, fan_in])?;
    if bias.is_some_and(|bias| bias.shape != [filters]) {
        let got = format!("{:?}", bias.map(|bias| &bias.shape));
        return Err(call.wrong("bias", format!("shape [{filters}]"), got));
    }
    let window = Window::of_weight(call, [rows, columns])?;
    let [out_height, out_width] = window.output(call, [height, width])?;
    let shape = vec![images, filters, out_height, out_width];
    let mut values = call.room(&shape, fan_in * rows * columns)?;
    // a pointwise convolution reads its maps as one row each, which makes the inner loop long
    let maps = if window.is_point() {
        Maps { size: [1, height * width], output: [1, out_height * out_width] }
    } else {
        Maps { size: [height, width], output: [out_height, out_width] }
    };
    let plane = height * width;
    let per_group = filters / groups;
    values.par_chunks_mut(out_height * out_width).enumerate().for_each(|(index, output)| {
        let image = index / filters;
        let filter = index % filters;
        output.fill(bias.map_or(0.0, |bias| bias.values[filter]));
        let first = image * channels + filter / per_group * fan_in;
        let inputs = input.values[first * plane..(first + fan_in) * plane].chunks(plane);
        let size = rows * columns;
        let kernels = weight.values[filter * fan_in * size..(filter + 1) * fan_in * size].chunks(size);
        for (input, kernel) in inputs.zip(kernels) {
            add_filtered(&window, &maps, input, kernel, output);
        }
    });
    Ok(Array { shape, values })
}

/// The number of groups: each reads as many channels as a filter has, and makes as many filters as the others.
fn groups(call: &Call, channels: usize, [filters, fan_in]: [usize; 2]) -> Result<usize> {
    let group = call.int("group", 1)?;
    usize::try_from(group)
        .ok()
        .filter(|&groups: &usize| {
            groups > 0 && filters.is_multiple_of(groups) && fan_in.checked_mul(groups) == Some(channels)
        })
        .ok_or_else(|| {
            let expected = format!("one that makes {filters} filters of {fan_in} channels read {channels}");
            call.wrong("group", expected, group)
        })
}

/// Sizes of the maps that are read and made.
struct Maps {
    size: [usize; 2],
    output: [usize; 2],
}

/// Adds one input map, filtered by one kernel, to an output map.
fn add_filtered(window: &Window, maps: &Maps, input: &[f32], kernel: &[f32], output: &mut [f32]) {
    let [height, width] = maps.size;
    let [out_height, out_width] = maps.output;
    let [row_stride, stride] = window.strides;
    let [top, left] = window.before;
    for (index, &weight) in kernel.iter().enumerate() {
        let row = index / window.kernel[1];
        let column = index % window.kernel[1];
        let columns = window.places(1, column, width, out_width);
        if columns.is_empty() {
            continue; // all of them in the padding
        }
        for y in window.places(0, row, height, out_height) {
            let from = (y * row_stride + row - top) * width;
            let source = &input[from..from + width];
            let target = &mut output[y * out_width..][columns.clone()];
            let read = &source[columns.start * stride + column - left..];
            if stride == 1 {
                target.iter_mut().zip(read).for_each(|(sum, value)| *sum += weight * value);
            } else {
                let read = read.iter().step_by(stride);
                target.iter_mut().zip(read).for_each(|(sum, value)| *sum += weight * value);
            }
        }
    }
}
