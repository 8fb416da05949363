//! The windows that convolutions and poolings move over a map.

use super::call::Call;
use crate::error::Result;

/// A window in two dimensions: sizes, steps, and what is added before and behind the map.
pub(super) struct Window {
    pub(super) kernel: [usize; 2],
    pub(super) strides: [usize; 2],
    pub(super) before: [usize; 2],
    behind: [usize; 2],
    ceil: bool,
}

/// Names of the attributes that say it.
pub(super) const ATTRIBUTES: [&str; 5] = ["kernel_shape", "strides", "pads", "dilations", "ceil_mode"];

impl Window {
    /// The window of a convolution, whose weight says how large it is.
    pub(super) fn of_weight(call: &Call, kernel: [usize; 2]) -> Result<Self> {
        let window = Self::read(call, Some(kernel))?;
        if window.kernel != kernel {
            let expected = format!("{kernel:?}, as the weight has");
            return Err(call.wrong("kernel_shape", expected, format!("{:?}", window.kernel)));
        }
        Ok(window)
    }

    /// The window of a pooling; a padding as large as the window would leave some without a value.
    pub(super) fn of_pooling(call: &Call) -> Result<Self> {
        let window = Self::read(call, None)?;
        let Self { kernel, before, behind, .. } = &window;
        if (0..2).any(|axis| before[axis].max(behind[axis]) >= kernel[axis]) {
            let expected = format!("less than the kernel, {kernel:?}");
            return Err(call.wrong("pads", expected, format!("{before:?} and {behind:?}")));
        }
        Ok(window)
    }

    fn read(call: &Call, default: Option<[usize; 2]>) -> Result<Self> {
        let kernel = call.ints("kernel_shape", 1)?.or(default);
        let kernel = kernel.ok_or_else(|| call.wrong("kernel_shape", "two sizes", "none"))?;
        let strides = call.ints("strides", 1)?.unwrap_or([1; 2]);
        let [top, left, bottom, right] = call.ints("pads", 0)?.unwrap_or([0; 4]);
        let dilations = call.ints("dilations", 1)?.unwrap_or([1; 2]);
        if dilations != [1; 2] {
            return Err(call.wrong("dilations", "[1, 1]", format!("{dilations:?}")));
        }
        let ceil = call.switch("ceil_mode", false)?;
        Ok(Self { kernel, strides, before: [top, left], behind: [bottom, right], ceil })
    }

    /// Whether it reads each place by itself, so that a map is as good as one long row.
    pub(super) fn is_point(&self) -> bool {
        self.kernel == [1; 2] && self.strides == [1; 2] && self.before == [0; 2] && self.behind == [0; 2]
    }

    /// The size of the output: `(size + pads - kernel) / stride + 1`, rounded down, or up with `ceil_mode`.
    pub(super) fn output(&self, call: &Call, map: [usize; 2]) -> Result<[usize; 2]> {
        let mut output = [0; 2];
        for axis in 0..2 {
            let size = map[axis] + self.before[axis] + self.behind[axis];
            let stride = self.strides[axis];
            let Some(room) = size.checked_sub(self.kernel[axis]) else {
                let expected = format!("a map of at least {:?} with its pads", self.kernel);
                return Err(call.wrong("input", expected, format!("{map:?}")));
            };
            output[axis] = if self.ceil { room.div_ceil(stride) } else { room / stride } + 1;
        }
        Ok(output)
    }

    /// The part of a map that the window covers at a place of the output, first to behind last; empty in the padding.
    pub(super) fn covered(&self, axis: usize, place: usize, size: usize) -> std::ops::Range<usize> {
        let start = place * self.strides[axis];
        let first = start.saturating_sub(self.before[axis]).min(size);
        let end = (start + self.kernel[axis]).saturating_sub(self.before[axis]).min(size);
        first..end
    }

    /// The part of the padded map that the window covers, counted in places.
    pub(super) fn covered_with_pads(&self, axis: usize, place: usize, size: usize) -> usize {
        let start = place * self.strides[axis];
        let padded = size + self.before[axis] + self.behind[axis];
        (start + self.kernel[axis]).min(padded).saturating_sub(start)
    }

    /// The places of the output whose window has a value of the map at `offset`, first to behind last.
    pub(super) fn places(
        &self,
        axis: usize,
        offset: usize,
        size: usize,
        output: usize,
    ) -> std::ops::Range<usize> {
        let before = self.before[axis];
        let stride = self.strides[axis];
        // place * stride + offset - before lies in 0..size
        let first = before.saturating_sub(offset).div_ceil(stride);
        let end = (size + before).saturating_sub(offset).div_ceil(stride).min(output);
        first.min(end)..end
    }
}
