//! The two vector types of x86-64.
//!
//! Every `unsafe` of an arithmetic method has the same reason: the instruction exists, since a value of
//! the type is only made inside a function that [`super::vectorised!`] calls after asking the CPU.

use super::Lanes;
use std::arch::x86_64::*;

/// Sixteen lanes: AVX-512 F.
#[derive(Clone, Copy)]
pub(in super::super) struct Avx512(__m512);

/// The mask of the first `count` lanes.
#[inline(always)]
fn first(count: usize) -> __mmask16 {
    ((1u32 << count) - 1) as __mmask16
}

impl Lanes for Avx512 {
    const COUNT: usize = 16;
    const WIDE: bool = true;
    type Square = [Self; 16];

    #[inline(always)]
    fn splat(value: f32) -> Self {
        // SAFETY: see the module.
        Self(unsafe { _mm512_set1_ps(value) })
    }
    #[inline(always)]
    unsafe fn load(from: *const f32) -> Self {
        // SAFETY: see the module; the caller promises 16 values.
        Self(unsafe { _mm512_loadu_ps(from) })
    }
    #[inline(always)]
    unsafe fn load_first(from: *const f32, count: usize, fill: Self) -> Self {
        // SAFETY: see the module; lanes outside the mask are not read.
        Self(unsafe { _mm512_mask_loadu_ps(fill.0, first(count), from) })
    }
    #[inline(always)]
    unsafe fn store(self, to: *mut f32) {
        // SAFETY: see the module; the caller promises 16 places.
        unsafe { _mm512_storeu_ps(to, self.0) }
    }
    #[inline(always)]
    unsafe fn store_first(self, to: *mut f32, count: usize) {
        // SAFETY: see the module; lanes outside the mask are not written.
        unsafe { _mm512_mask_storeu_ps(to, first(count), self.0) }
    }
    #[inline(always)]
    fn prefetch(address: *const f32) {
        // SAFETY: a prefetch never faults, whatever the address.
        unsafe { _mm_prefetch::<_MM_HINT_T0>(address.cast()) }
    }
    #[inline(always)]
    fn add(self, other: Self) -> Self {
        // SAFETY: see the module.
        Self(unsafe { _mm512_add_ps(self.0, other.0) })
    }
    #[inline(always)]
    fn sub(self, other: Self) -> Self {
        // SAFETY: see the module.
        Self(unsafe { _mm512_sub_ps(self.0, other.0) })
    }
    #[inline(always)]
    fn mul(self, other: Self) -> Self {
        // SAFETY: see the module.
        Self(unsafe { _mm512_mul_ps(self.0, other.0) })
    }
    #[inline(always)]
    fn mul_add(self, factor: Self, addend: Self) -> Self {
        // SAFETY: see the module.
        Self(unsafe { _mm512_fmadd_ps(self.0, factor.0, addend.0) })
    }
    #[inline(always)]
    fn div(self, other: Self) -> Self {
        // SAFETY: see the module.
        Self(unsafe { _mm512_div_ps(self.0, other.0) })
    }
    #[inline(always)]
    fn sqrt(self) -> Self {
        // SAFETY: see the module.
        Self(unsafe { _mm512_sqrt_ps(self.0) })
    }
    #[inline(always)]
    fn at_least(self, bound: Self) -> Self {
        // SAFETY: see the module. The instruction gives its second operand where one is NaN.
        Self(unsafe { _mm512_max_ps(bound.0, self.0) })
    }
    #[inline(always)]
    fn at_most(self, bound: Self) -> Self {
        // SAFETY: see the module. The instruction gives its second operand where one is NaN.
        Self(unsafe { _mm512_min_ps(bound.0, self.0) })
    }
    #[inline(always)]
    fn if_above(self, bound: Self, yes: Self, no: Self) -> Self {
        // SAFETY: see the module.
        Self(unsafe {
            let above = _mm512_cmp_ps_mask::<_CMP_GT_OQ>(self.0, bound.0);
            _mm512_mask_blend_ps(above, no.0, yes.0)
        })
    }
    #[inline(always)]
    fn sum(self) -> f32 {
        // SAFETY: see the module.
        unsafe { _mm512_reduce_add_ps(self.0) }
    }
    #[inline(always)]
    fn interleave(self, odd: Self) -> (Self, Self) {
        // SAFETY: see the module. An index from 16 on names a lane of the second operand.
        unsafe {
            let low = _mm512_setr_epi32(0, 16, 1, 17, 2, 18, 3, 19, 4, 20, 5, 21, 6, 22, 7, 23);
            let high = _mm512_setr_epi32(8, 24, 9, 25, 10, 26, 11, 27, 12, 28, 13, 29, 14, 30, 15, 31);
            (
                Self(_mm512_permutex2var_ps(self.0, low, odd.0)),
                Self(_mm512_permutex2var_ps(self.0, high, odd.0)),
            )
        }
    }
    #[inline(always)]
    fn deinterleave(self, high: Self) -> (Self, Self) {
        // SAFETY: see the module. An index from 16 on names a lane of the second operand.
        unsafe {
            let even = _mm512_setr_epi32(0, 2, 4, 6, 8, 10, 12, 14, 16, 18, 20, 22, 24, 26, 28, 30);
            let odd = _mm512_setr_epi32(1, 3, 5, 7, 9, 11, 13, 15, 17, 19, 21, 23, 25, 27, 29, 31);
            (
                Self(_mm512_permutex2var_ps(self.0, even, high.0)),
                Self(_mm512_permutex2var_ps(self.0, odd, high.0)),
            )
        }
    }
    #[inline(always)]
    fn square() -> Self::Square {
        [Self::splat(0.0); 16]
    }
    /// Pairs, then fours within quarters of a vector, then the quarters themselves.
    #[inline(always)]
    fn transpose(square: Self::Square) -> Self::Square {
        let mut fours = square;
        let mut out = square;
        // SAFETY: see the module.
        unsafe {
            for row in (0..16).step_by(4) {
                let r0 = square[row].0;
                let r1 = square[row + 1].0;
                let r2 = square[row + 2].0;
                let r3 = square[row + 3].0;
                let a = _mm512_castps_pd(_mm512_unpacklo_ps(r0, r1));
                let b = _mm512_castps_pd(_mm512_unpackhi_ps(r0, r1));
                let c = _mm512_castps_pd(_mm512_unpacklo_ps(r2, r3));
                let d = _mm512_castps_pd(_mm512_unpackhi_ps(r2, r3));
                fours[row] = Self(_mm512_castpd_ps(_mm512_unpacklo_pd(a, c)));
                fours[row + 1] = Self(_mm512_castpd_ps(_mm512_unpackhi_pd(a, c)));
                fours[row + 2] = Self(_mm512_castpd_ps(_mm512_unpacklo_pd(b, d)));
                fours[row + 3] = Self(_mm512_castpd_ps(_mm512_unpackhi_pd(b, d)));
            }
            for column in 0..4 {
                let a = fours[column].0;
                let b = fours[column + 4].0;
                let c = fours[column + 8].0;
                let d = fours[column + 12].0;
                let ab = _mm512_shuffle_f32x4::<0x88>(a, b);
                let cd = _mm512_shuffle_f32x4::<0x88>(c, d);
                out[column] = Self(_mm512_shuffle_f32x4::<0x88>(ab, cd));
                out[column + 8] = Self(_mm512_shuffle_f32x4::<0xdd>(ab, cd));
                let ab = _mm512_shuffle_f32x4::<0xdd>(a, b);
                let cd = _mm512_shuffle_f32x4::<0xdd>(c, d);
                out[column + 4] = Self(_mm512_shuffle_f32x4::<0x88>(ab, cd));
                out[column + 12] = Self(_mm512_shuffle_f32x4::<0xdd>(ab, cd));
            }
        }
        out
    }
}

/// Eight lanes: AVX2 and FMA.
#[derive(Clone, Copy)]
pub(in super::super) struct Avx2(__m256);

/// The mask of the first `count <= 8` lanes.
#[inline(always)]
fn first_of_8(count: usize) -> __m256i {
    // SAFETY: see the module.
    unsafe {
        let places = _mm256_setr_epi32(0, 1, 2, 3, 4, 5, 6, 7);
        _mm256_cmpgt_epi32(_mm256_set1_epi32(count as i32), places)
    }
}

impl Lanes for Avx2 {
    const COUNT: usize = 8;
    const WIDE: bool = false;
    type Square = [Self; 8];

    #[inline(always)]
    fn splat(value: f32) -> Self {
        // SAFETY: see the module.
        Self(unsafe { _mm256_set1_ps(value) })
    }
    #[inline(always)]
    unsafe fn load(from: *const f32) -> Self {
        // SAFETY: see the module; the caller promises 8 values.
        Self(unsafe { _mm256_loadu_ps(from) })
    }
    #[inline(always)]
    unsafe fn load_first(from: *const f32, count: usize, fill: Self) -> Self {
        // SAFETY: see the module; lanes outside the mask are not read.
        Self(unsafe {
            let mask = first_of_8(count);
            _mm256_blendv_ps(fill.0, _mm256_maskload_ps(from, mask), _mm256_castsi256_ps(mask))
        })
    }
    #[inline(always)]
    unsafe fn store(self, to: *mut f32) {
        // SAFETY: see the module; the caller promises 8 places.
        unsafe { _mm256_storeu_ps(to, self.0) }
    }
    #[inline(always)]
    unsafe fn store_first(self, to: *mut f32, count: usize) {
        // SAFETY: see the module; lanes outside the mask are not written.
        unsafe { _mm256_maskstore_ps(to, first_of_8(count), self.0) }
    }
    #[inline(always)]
    fn prefetch(address: *const f32) {
        // SAFETY: a prefetch never faults, whatever the address.
        unsafe { _mm_prefetch::<_MM_HINT_T0>(address.cast()) }
    }
    #[inline(always)]
    fn add(self, other: Self) -> Self {
        // SAFETY: see the module.
        Self(unsafe { _mm256_add_ps(self.0, other.0) })
    }
    #[inline(always)]
    fn sub(self, other: Self) -> Self {
        // SAFETY: see the module.
        Self(unsafe { _mm256_sub_ps(self.0, other.0) })
    }
    #[inline(always)]
    fn mul(self, other: Self) -> Self {
        // SAFETY: see the module.
        Self(unsafe { _mm256_mul_ps(self.0, other.0) })
    }
    #[inline(always)]
    fn mul_add(self, factor: Self, addend: Self) -> Self {
        // SAFETY: see the module.
        Self(unsafe { _mm256_fmadd_ps(self.0, factor.0, addend.0) })
    }
    #[inline(always)]
    fn div(self, other: Self) -> Self {
        // SAFETY: see the module.
        Self(unsafe { _mm256_div_ps(self.0, other.0) })
    }
    #[inline(always)]
    fn sqrt(self) -> Self {
        // SAFETY: see the module.
        Self(unsafe { _mm256_sqrt_ps(self.0) })
    }
    #[inline(always)]
    fn at_least(self, bound: Self) -> Self {
        // SAFETY: see the module. The instruction gives its second operand where one is NaN.
        Self(unsafe { _mm256_max_ps(bound.0, self.0) })
    }
    #[inline(always)]
    fn at_most(self, bound: Self) -> Self {
        // SAFETY: see the module. The instruction gives its second operand where one is NaN.
        Self(unsafe { _mm256_min_ps(bound.0, self.0) })
    }
    #[inline(always)]
    fn if_above(self, bound: Self, yes: Self, no: Self) -> Self {
        // SAFETY: see the module.
        Self(unsafe { _mm256_blendv_ps(no.0, yes.0, _mm256_cmp_ps::<_CMP_GT_OQ>(self.0, bound.0)) })
    }
    #[inline(always)]
    fn sum(self) -> f32 {
        // SAFETY: see the module.
        unsafe {
            let four = _mm_add_ps(_mm256_castps256_ps128(self.0), _mm256_extractf128_ps::<1>(self.0));
            let two = _mm_add_ps(four, _mm_movehl_ps(four, four));
            _mm_cvtss_f32(_mm_add_ss(two, _mm_shuffle_ps::<1>(two, two)))
        }
    }
    #[inline(always)]
    fn interleave(self, odd: Self) -> (Self, Self) {
        // SAFETY: see the module.
        unsafe {
            let low = _mm256_unpacklo_ps(self.0, odd.0);
            let high = _mm256_unpackhi_ps(self.0, odd.0);
            (Self(_mm256_permute2f128_ps::<0x20>(low, high)), Self(_mm256_permute2f128_ps::<0x31>(low, high)))
        }
    }
    #[inline(always)]
    fn deinterleave(self, high: Self) -> (Self, Self) {
        // SAFETY: see the module.
        unsafe {
            let even = _mm256_castps_pd(_mm256_shuffle_ps::<0x88>(self.0, high.0));
            let odd = _mm256_castps_pd(_mm256_shuffle_ps::<0xdd>(self.0, high.0));
            (
                Self(_mm256_castpd_ps(_mm256_permute4x64_pd::<0b11_01_10_00>(even))),
                Self(_mm256_castpd_ps(_mm256_permute4x64_pd::<0b11_01_10_00>(odd))),
            )
        }
    }
    #[inline(always)]
    fn square() -> Self::Square {
        [Self::splat(0.0); 8]
    }
    /// Pairs, then fours within halves of a vector, then the halves themselves.
    #[inline(always)]
    fn transpose(square: Self::Square) -> Self::Square {
        let mut fours = square;
        let mut out = square;
        // SAFETY: see the module.
        unsafe {
            for row in [0, 4] {
                let a = square[row].0;
                let b = square[row + 1].0;
                let c = square[row + 2].0;
                let d = square[row + 3].0;
                let ab = _mm256_unpacklo_ps(a, b);
                let cd = _mm256_unpacklo_ps(c, d);
                fours[row] = Self(_mm256_shuffle_ps::<0x44>(ab, cd));
                fours[row + 1] = Self(_mm256_shuffle_ps::<0xee>(ab, cd));
                let ab = _mm256_unpackhi_ps(a, b);
                let cd = _mm256_unpackhi_ps(c, d);
                fours[row + 2] = Self(_mm256_shuffle_ps::<0x44>(ab, cd));
                fours[row + 3] = Self(_mm256_shuffle_ps::<0xee>(ab, cd));
            }
            for column in 0..4 {
                let a = fours[column].0;
                let b = fours[column + 4].0;
                out[column] = Self(_mm256_permute2f128_ps::<0x20>(a, b));
                out[column + 4] = Self(_mm256_permute2f128_ps::<0x31>(a, b));
            }
        }
        out
    }
}
