//! Vectors of f32 and the choice of instruction set at run time.
//!
//! A kernel is written once, generic over [`Lanes`] and `#[inline(always)]`; [`vectorised!`] puts it into
//! one `#[target_feature]` function per instruction set, where it compiles to that set's instructions
//! without any build flag. The types that implement [`Lanes`] are named by that macro alone, behind a check
//! of the CPU, which is what makes their methods sound. Knows nothing of layers.
//!
//! Vectors are worked on in plain loops, not in closures for `array::map` and the like: in a closure that the
//! compiler does not inline into the `#[target_feature]` function, each instruction is a function call.

#[cfg(target_arch = "x86_64")]
mod x86;

#[cfg(target_arch = "x86_64")]
pub(super) use x86::{Avx2, Avx512};

/// A vector of [`Lanes::COUNT`] values of f32.
pub(super) trait Lanes: Copy {
    /// Values in a vector.
    const COUNT: usize;
    /// Whether there are 32 registers (tiles of 8 vectors) rather than 16 (tiles of 4).
    const WIDE: bool;
    /// `COUNT` vectors: a square that can be transposed.
    type Square: AsRef<[Self]> + AsMut<[Self]>;

    /// All lanes equal.
    fn splat(value: f32) -> Self;
    /// # Safety
    /// `COUNT` values are readable at `from`.
    unsafe fn load(from: *const f32) -> Self;
    /// The first `count <= COUNT` lanes from memory, the others from `fill`.
    ///
    /// # Safety
    /// `count` values are readable at `from`.
    unsafe fn load_first(from: *const f32, count: usize, fill: Self) -> Self;
    /// # Safety
    /// `COUNT` values are writable at `to`.
    unsafe fn store(self, to: *mut f32);
    /// The first `count <= COUNT` lanes to memory.
    ///
    /// # Safety
    /// `count` values are writable at `to`.
    unsafe fn store_first(self, to: *mut f32, count: usize);

    /// Prefetches the cache line at `address`; does nothing else.
    fn prefetch(address: *const f32);
    /// `self + other`.
    fn add(self, other: Self) -> Self;
    /// `self - other`.
    fn sub(self, other: Self) -> Self;
    /// `self * other`.
    fn mul(self, other: Self) -> Self;
    /// `self * factor + addend`.
    fn mul_add(self, factor: Self, addend: Self) -> Self;
    /// `self / other`, rounded as IEEE 754 says.
    fn div(self, other: Self) -> Self;
    /// The square root, rounded as IEEE 754 says.
    fn sqrt(self) -> Self;
    /// The greater of the two; `self` where it is NaN.
    fn at_least(self, bound: Self) -> Self;
    /// The smaller of the two; `self` where it is NaN.
    fn at_most(self, bound: Self) -> Self;
    /// `yes` where `self > bound`, else `no`.
    fn if_above(self, bound: Self, yes: Self, no: Self) -> Self;
    /// The sum of the lanes, in an order that depends on `COUNT` alone.
    fn sum(self) -> f32;
    /// `self[0], odd[0], self[1], odd[1], …` as two vectors.
    fn interleave(self, odd: Self) -> (Self, Self);
    /// The values at even and at odd places of `self` followed by `high`.
    fn deinterleave(self, high: Self) -> (Self, Self);
    /// A square of zeros.
    fn square() -> Self::Square;
    /// Lane `j` of vector `i` to lane `i` of vector `j`.
    fn transpose(square: Self::Square) -> Self::Square;
}

/// Defines `fn name(isa: Isa, …)`, which calls the generic `kernel::<T, …>` for the instruction set `isa`.
macro_rules! vectorised {
    ($(#[$meta:meta])* $visibility:vis fn $name:ident $(<$(const $parameter:ident),+>)?
     ($($argument:ident: $kind:ty),* $(,)?) $(-> $output:ty)? = $kernel:ident) => {
        $(#[$meta])*
        #[allow(clippy::too_many_arguments)] // one for each slice of the kernel
        $visibility fn $name $(<$(const $parameter: usize),+>)?
        (isa: $crate::cpu::Isa, $($argument: $kind),*) $(-> $output)? {
            #[cfg(target_arch = "x86_64")]
            #[target_feature(enable = "avx512f")]
            #[allow(clippy::too_many_arguments)] // as above
            fn avx512 $(<$(const $parameter: usize),+>)? ($($argument: $kind),*) $(-> $output)? {
                $kernel::<$crate::cpu::simd::Avx512 $($(, $parameter)+)?>($($argument),*)
            }
            #[cfg(target_arch = "x86_64")]
            #[target_feature(enable = "avx2,fma")]
            #[allow(clippy::too_many_arguments)] // as above
            fn avx2 $(<$(const $parameter: usize),+>)? ($($argument: $kind),*) $(-> $output)? {
                $kernel::<$crate::cpu::simd::Avx2 $($(, $parameter)+)?>($($argument),*)
            }
            match isa.or_portable() {
                #[cfg(target_arch = "x86_64")]
                // SAFETY: `or_portable` has found the features on this CPU.
                $crate::cpu::Isa::Avx512 => unsafe {
                    avx512 $(::<$($parameter),+>)? ($($argument),*)
                },
                #[cfg(target_arch = "x86_64")]
                // SAFETY: as above.
                $crate::cpu::Isa::Avx2 => unsafe {
                    avx2 $(::<$($parameter),+>)? ($($argument),*)
                },
                _ => $kernel::<$crate::cpu::simd::Portable $($(, $parameter)+)?>($($argument),*),
            }
        }
    };
}
pub(super) use vectorised;

/// Values that are summed in f32 before the sum goes into an f64: long rows stay exact to f32 rounding.
pub(super) const BLOCK: usize = 4096;

/// Prefetches the cache lines of `len` values from `values` on; does nothing else, so that they need not
/// exist.
#[inline(always)]
pub(super) fn prefetch<T: Lanes>(values: *const f32, len: usize) {
    /// Values of a cache line.
    const LINE: usize = 16;
    for i in (0..len).step_by(LINE) {
        T::prefetch(values.wrapping_add(i));
    }
}

/// # Safety
/// `count <= COUNT` values are readable at `from`.
#[inline(always)]
pub(super) unsafe fn load_up_to<T: Lanes>(from: *const f32, count: usize, fill: T) -> T {
    // SAFETY: the caller's promise; the first branch reads `COUNT == count` values.
    unsafe { if count == T::COUNT { T::load(from) } else { T::load_first(from, count, fill) } }
}

/// # Safety
/// `count <= COUNT` values are writable at `to`.
#[inline(always)]
pub(super) unsafe fn store_up_to<T: Lanes>(value: T, to: *mut f32, count: usize) {
    // SAFETY: the caller's promise; the first branch writes `COUNT == count` values.
    unsafe { if count == T::COUNT { value.store(to) } else { value.store_first(to, count) } }
}

/// `out[i] = f(inputs[..][i])`; an input may be `out` itself.
///
/// # Safety
/// `len` values are readable at every input and writable at `out`; an input that overlaps `out` equals it.
#[inline(always)]
unsafe fn map_raw<T: Lanes, const I: usize>(
    inputs: [*const f32; I],
    out: *mut f32,
    len: usize,
    f: impl Fn([T; I]) -> T,
) {
    let mut at = 0;
    while at < len {
        let count = T::COUNT.min(len - at);
        // SAFETY: `at + count <= len`; the loads of a round come before its store.
        unsafe {
            let mut values = [T::splat(0.0); I];
            for (value, input) in values.iter_mut().zip(&inputs) {
                *value = load_up_to(input.add(at), count, *value);
            }
            store_up_to(f(values), out.add(at), count);
        }
        at += T::COUNT;
    }
}

/// `out[i] = f(inputs[..][i])`.
#[inline(always)]
pub(super) fn map<T: Lanes, const I: usize>(inputs: [&[f32]; I], out: &mut [f32], f: impl Fn([T; I]) -> T) {
    assert!(inputs.iter().all(|input| input.len() == out.len()));
    // SAFETY: the lengths are equal, and a shared slice cannot overlap a unique one.
    unsafe { map_raw(inputs.map(<[f32]>::as_ptr), out.as_mut_ptr(), out.len(), f) }
}

/// `values[i] = f(values[i])`.
#[inline(always)]
pub(super) fn map_in_place<T: Lanes>(values: &mut [f32], f: impl Fn(T) -> T) {
    let out = values.as_mut_ptr();
    let len = values.len();
    // SAFETY: the only input is `out` itself.
    unsafe { map_raw([out.cast_const()], out, len, |[value]| f(value)) }
}

/// `values[i] = f(values[i], other[i])`.
#[inline(always)]
pub(super) fn zip_in_place<T: Lanes>(values: &mut [f32], other: &[f32], f: impl Fn(T, T) -> T) {
    assert_eq!(values.len(), other.len());
    let out = values.as_mut_ptr();
    let len = values.len();
    // SAFETY: equal lengths; the first input is `out` itself, the second is a shared slice.
    unsafe { map_raw([out.cast_const(), other.as_ptr()], out, len, |[value, other]| f(value, other)) }
}

/// The `O` sums of `f(inputs[..][i])` over at most [`BLOCK`] values; what is missing in the last vector is
/// taken from `fill`, for which `f` must be 0.
#[inline(always)]
pub(super) fn block_sums<T: Lanes, const I: usize, const O: usize>(
    inputs: [&[f32]; I],
    fill: [T; I],
    f: impl Fn([T; I]) -> [T; O],
) -> [f32; O] {
    /// Chains of additions: enough to hide the latency of one.
    const CHAINS: usize = 4;
    let len = inputs[0].len();
    assert!(inputs.iter().all(|input| input.len() == len));
    let mut sums = [[T::splat(0.0); CHAINS]; O];
    let mut at = 0;
    while at < len {
        for chain in 0..CHAINS {
            let start = (at + chain * T::COUNT).min(len);
            let count = T::COUNT.min(len - start);
            let mut values = fill;
            for (value, input) in values.iter_mut().zip(&inputs) {
                // SAFETY: `start + count <= len`, the length of every input.
                *value = unsafe { load_up_to(input.as_ptr().add(start), count, *value) };
            }
            for (sum, term) in sums.iter_mut().zip(f(values)) {
                sum[chain] = sum[chain].add(term);
            }
        }
        at += CHAINS * T::COUNT;
    }
    let mut totals = [0.0; O];
    for (total, [a, b, c, d]) in totals.iter_mut().zip(sums) {
        *total = a.add(b).add(c.add(d)).sum();
    }
    totals
}

/// [`block_sums`] over any number of values, added in f64 from block to block.
#[inline(always)]
pub(super) fn sums<T: Lanes, const I: usize, const O: usize>(
    inputs: [&[f32]; I],
    f: impl Fn([T; I]) -> [T; O],
) -> [f64; O] {
    let len = inputs[0].len();
    let mut totals = [0.0; O];
    let mut start = 0;
    while start < len {
        let end = len.min(start + BLOCK);
        let block = block_sums(inputs.map(|input| &input[start..end]), [T::splat(0.0); I], &f);
        for (total, sum) in totals.iter_mut().zip(block) {
            *total += f64::from(sum);
        }
        start = end;
    }
    totals
}

/// Transposes at most `COUNT x COUNT` values: row `i` of the source, at `source + from[i]`, becomes lane `i`
/// of the rows `target + to[..]`. `lanes` lanes of each target row are written, zero from `from.len()` on.
///
/// # Safety
/// `from` and `to` have at most `COUNT` entries and `lanes` is at most `COUNT`; `to.len()` values are
/// readable at every source row and `lanes` are writable at every target row.
#[inline(always)]
pub(super) unsafe fn transpose<T: Lanes>(
    source: *const f32,
    from: &[usize],
    target: *mut f32,
    to: &[usize],
    lanes: usize,
) {
    let mut square = T::square();
    for (row, &offset) in square.as_mut().iter_mut().zip(from) {
        // SAFETY: the caller's promise.
        *row = unsafe { load_up_to(source.add(offset), to.len(), T::splat(0.0)) };
    }
    let square = T::transpose(square);
    for (row, &offset) in square.as_ref().iter().zip(to) {
        // SAFETY: the caller's promise.
        unsafe { store_up_to(*row, target.add(offset), lanes) };
    }
}

/// Eight lanes in plain Rust, for every machine; the compiler uses the instructions of the target.
#[derive(Clone, Copy)]
pub(super) struct Portable([f32; 8]);

impl Portable {
    #[inline(always)]
    fn zip(mut self, other: Self, f: impl Fn(f32, f32) -> f32) -> Self {
        for i in 0..8 {
            self.0[i] = f(self.0[i], other.0[i]);
        }
        self
    }
}

impl Lanes for Portable {
    const COUNT: usize = 8;
    const WIDE: bool = false;
    type Square = [Self; 8];

    #[inline(always)]
    fn splat(value: f32) -> Self {
        Self([value; 8])
    }
    #[inline(always)]
    unsafe fn load(from: *const f32) -> Self {
        // SAFETY: the caller's promise; an array of f32 needs no more alignment than an f32.
        Self(unsafe { from.cast::<[f32; 8]>().read() })
    }
    #[inline(always)]
    unsafe fn load_first(from: *const f32, count: usize, fill: Self) -> Self {
        let mut values = fill;
        for (i, value) in values.0.iter_mut().enumerate().take(count) {
            // SAFETY: only places below `count` are read.
            *value = unsafe { *from.add(i) };
        }
        values
    }
    #[inline(always)]
    unsafe fn store(self, to: *mut f32) {
        // SAFETY: as for `load`.
        unsafe { to.cast::<[f32; 8]>().write(self.0) }
    }
    #[inline(always)]
    unsafe fn store_first(self, to: *mut f32, count: usize) {
        for (i, value) in self.0.iter().enumerate().take(count) {
            // SAFETY: only places below `count` are written.
            unsafe { *to.add(i) = *value };
        }
    }
    #[inline(always)]
    fn prefetch(_: *const f32) {}
    #[inline(always)]
    fn add(self, other: Self) -> Self {
        self.zip(other, |a, b| a + b)
    }
    #[inline(always)]
    fn sub(self, other: Self) -> Self {
        self.zip(other, |a, b| a - b)
    }
    #[inline(always)]
    fn mul(self, other: Self) -> Self {
        self.zip(other, |a, b| a * b)
    }
    #[inline(always)]
    fn mul_add(self, factor: Self, addend: Self) -> Self {
        // Not `f32::mul_add`: without the instruction that is a call of the C library for each value.
        self.mul(factor).add(addend)
    }
    #[inline(always)]
    fn div(self, other: Self) -> Self {
        self.zip(other, |a, b| a / b)
    }
    #[inline(always)]
    fn sqrt(self) -> Self {
        self.zip(self, |value, _| value.sqrt())
    }
    #[inline(always)]
    fn at_least(self, bound: Self) -> Self {
        self.zip(bound, |value, bound| if value < bound { bound } else { value })
    }
    #[inline(always)]
    fn at_most(self, bound: Self) -> Self {
        self.zip(bound, |value, bound| if value > bound { bound } else { value })
    }
    #[inline(always)]
    fn if_above(self, bound: Self, yes: Self, no: Self) -> Self {
        let mut values = no;
        for i in 0..8 {
            values.0[i] = if self.0[i] > bound.0[i] { yes.0[i] } else { no.0[i] };
        }
        values
    }
    #[inline(always)]
    fn sum(self) -> f32 {
        let [a, b, c, d, e, f, g, h] = self.0;
        ((a + e) + (c + g)) + ((b + f) + (d + h))
    }
    #[inline(always)]
    fn interleave(self, odd: Self) -> (Self, Self) {
        let mut low = self;
        let mut high = odd;
        for i in 0..4 {
            (low.0[2 * i], low.0[2 * i + 1]) = (self.0[i], odd.0[i]);
            (high.0[2 * i], high.0[2 * i + 1]) = (self.0[i + 4], odd.0[i + 4]);
        }
        (low, high)
    }
    #[inline(always)]
    fn deinterleave(self, high: Self) -> (Self, Self) {
        let mut even = self;
        let mut odd = high;
        for i in 0..4 {
            (even.0[i], odd.0[i]) = (self.0[2 * i], self.0[2 * i + 1]);
            (even.0[i + 4], odd.0[i + 4]) = (high.0[2 * i], high.0[2 * i + 1]);
        }
        (even, odd)
    }
    #[inline(always)]
    fn square() -> Self::Square {
        [Self([0.0; 8]); 8]
    }
    #[inline(always)]
    fn transpose(square: Self::Square) -> Self::Square {
        let mut out = square;
        for (i, row) in out.iter_mut().enumerate() {
            for (j, value) in row.0.iter_mut().enumerate() {
                *value = square[j].0[i];
            }
        }
        out
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::cpu::Isa;

    #[inline(always)]
    fn exercise<T: Lanes>() -> Vec<f32> {
        let values: Vec<f32> = (0..2 * T::COUNT).map(|i| i as f32).collect();
        let mut out = vec![0.0; 2 * T::COUNT];
        // SAFETY: both buffers hold two vectors.
        unsafe {
            let low = T::load(values.as_ptr());
            let high = T::load(values.as_ptr().add(T::COUNT));
            let (even, odd) = low.deinterleave(high);
            even.store(out.as_mut_ptr());
            odd.store(out.as_mut_ptr().add(T::COUNT));
            assert!((0..T::COUNT).all(|i| out[i] == values[2 * i] && out[T::COUNT + i] == values[2 * i + 1]));
            let (low, high) = even.interleave(odd);
            low.store(out.as_mut_ptr());
            high.store(out.as_mut_ptr().add(T::COUNT));
        }
        assert_eq!(out, values);
        out
    }
    vectorised!(fn exercise_on() -> Vec<f32> = exercise);

    #[inline(always)]
    fn turn<T: Lanes>(rows: usize, columns: usize) {
        let rows = rows.min(T::COUNT);
        let columns = columns.min(T::COUNT);
        let source: Vec<f32> = (0..rows * columns).map(|i| i as f32).collect();
        let mut target = vec![-1.0; rows * columns];
        let from: Vec<usize> = (0..rows).map(|i| i * columns).collect();
        let to: Vec<usize> = (0..columns).map(|i| i * rows).collect();
        // SAFETY: both buffers hold `rows * columns` values and the offsets stay inside.
        unsafe { transpose::<T>(source.as_ptr(), &from, target.as_mut_ptr(), &to, rows) };
        for (i, value) in target.iter().enumerate() {
            assert_eq!(*value, source[i % rows * columns + i / rows]);
        }
    }
    vectorised!(fn turn_on(rows: usize, columns: usize) = turn);

    #[inline(always)]
    fn total<T: Lanes>(values: &[f32]) -> f64 {
        sums::<T, 1, 1>([values], |[value]| [value])[0]
    }
    vectorised!(fn total_on(values: &[f32]) -> f64 = total);

    #[test]
    fn shuffles_keep_every_value() {
        for isa in Isa::available() {
            exercise_on(isa);
            for (rows, columns) in [(1, 1), (3, 8), (8, 5), (16, 16), (13, 4)] {
                turn_on(isa, rows, columns);
            }
        }
    }

    #[test]
    fn sums_of_any_length() {
        for isa in Isa::available() {
            for len in [1, 7, 16, 63, 65, 4096, 4097, 9000] {
                let values: Vec<f32> = (0..len).map(|i| i as f32 * 0.5).collect();
                let expect = (len * (len - 1)) as f64 / 4.0;
                assert!((total_on(isa, &values) / expect.max(1.0) - expect / expect.max(1.0)).abs() < 1e-6);
            }
        }
    }
}
