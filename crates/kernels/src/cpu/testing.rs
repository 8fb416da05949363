//! Helpers of the kernels' tests: made-up values, comparison, thread counts.

use super::Isa;

/// `len` values in -1..1 from a xorshift generator.
pub(crate) fn values(len: usize, seed: u32) -> Vec<f32> {
    let mut state = seed.wrapping_mul(2_654_435_761) | 1;
    let mut values = Vec::with_capacity(len);
    for _ in 0..len {
        state ^= state << 13;
        state ^= state >> 17;
        state ^= state << 5;
        values.push(state as f32 / u32::MAX as f32 * 2.0 - 1.0);
    }
    values
}

/// An output before it is written: NaN, so that a test notices if it is read.
pub(super) fn garbage(len: usize) -> Vec<f32> {
    vec![f32::NAN; len]
}

/// Asserts equality up to 1e-5 of the greatest value.
#[track_caller]
pub(super) fn assert_close(got: &[f32], expect: &[f32], what: &dyn std::fmt::Debug) {
    assert_eq!(got.len(), expect.len());
    let greatest = expect.iter().fold(1e-3f32, |greatest, value| greatest.max(value.abs()));
    for (i, (got, expect)) in got.iter().zip(expect).enumerate() {
        assert!((got - expect).abs() <= 1e-5 * greatest, "{what:?}: at {i} got {got}, expected {expect}");
    }
}

/// Runs `kernel` on every instruction set of this CPU, and on one thread and on two, which must not differ
/// by a bit; gives each result to `check`.
pub(super) fn on_every_isa(kernel: impl Fn(Isa) -> Vec<f32> + Sync, check: impl Fn(Isa, &[f32])) {
    for isa in Isa::available() {
        let [one, two] = [1, 2].map(|threads| {
            let pool = rayon::ThreadPoolBuilder::new().num_threads(threads).build();
            pool.expect("a pool of two threads can be started").install(|| kernel(isa))
        });
        let bits = |values: &[f32]| values.iter().map(|value| value.to_bits()).collect::<Vec<_>>();
        assert_eq!(bits(&one), bits(&two), "{isa:?}: one thread and two differ");
        check(isa, &one);
    }
}
