//! Vector instructions chosen at run time.
//!
//! Two ways to use them: [`multiversion!`] compiles a plain loop once for each instruction set and leaves the vectors to the
//! compiler; [`Simd`] gives explicit vectors where registers must be planned by hand.

use std::cell::Cell;
use std::sync::OnceLock;

/// An instruction set the kernels are compiled for.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Isa {
    /// Whatever the target's baseline is (SSE2 on x86-64, NEON on AArch64).
    Portable,
    /// AVX2 and FMA: vectors of 8.
    Avx2,
    /// AVX-512 F, BW, DQ and VL: vectors of 16.
    Avx512,
}

thread_local! {
    static FORCED: Cell<Option<Isa>> = const { Cell::new(None) };
}

impl Isa {
    /// The best one this processor has. The environment variable `TRIMTAB_SIMD` (`portable`, `avx2`, `avx512`) can ask
    /// for a lesser one; a better one than the processor has, or another word, is ignored.
    pub fn best() -> Self {
        static BEST: OnceLock<Isa> = OnceLock::new();
        *BEST.get_or_init(|| {
            let wished = match std::env::var("TRIMTAB_SIMD").as_deref() {
                Ok("portable") => Self::Portable,
                Ok("avx2") => Self::Avx2,
                _ => Self::Avx512,
            };
            wished.min(Self::detected())
        })
    }

    /// The one that kernels called from this thread use: [`Self::best`], or what [`Self::scoped`] asked for.
    pub fn current() -> Self {
        FORCED.get().unwrap_or_else(Self::best)
    }

    /// Runs `f` with every kernel that it calls on this thread held to `self`, or to the best the processor has if that is
    /// less. For tests and benchmarks.
    pub fn scoped<R>(self, f: impl FnOnce() -> R) -> R {
        struct Restore(Option<Isa>);
        impl Drop for Restore {
            fn drop(&mut self) {
                FORCED.set(self.0);
            }
        }
        let _restore = Restore(FORCED.replace(Some(self.min(Self::detected()))));
        f()
    }

    fn detected() -> Self {
        #[cfg(target_arch = "x86_64")]
        {
            use std::arch::is_x86_feature_detected as has;
            let avx2 = has!("avx2") && has!("fma");
            if avx2 && has!("avx512f") && has!("avx512bw") && has!("avx512dq") && has!("avx512vl") {
                return Self::Avx512;
            }
            if avx2 {
                return Self::Avx2;
            }
        }
        Self::Portable
    }
}

/// Defines a function whose first parameter is an [`Isa`] and whose body is compiled once for each instruction set.
///
/// What the body calls is compiled for the baseline unless it is inlined: mark it `#[inline(always)]`.
macro_rules! multiversion {
    ($(#[$meta:meta])* $vis:vis fn $name:ident $(<$(const $c:ident: $ct:ty),+>)? ($($arg:ident: $ty:ty),* $(,)?) $(-> $ret:ty)? $body:block) => {
        $(#[$meta])*
        #[allow(clippy::too_many_arguments, clippy::allow_attributes)]
        $vis fn $name $(<$(const $c: $ct),+>)? (isa: $crate::Isa, $($arg: $ty),*) $(-> $ret)? {
            #[inline(always)]
            #[allow(clippy::too_many_arguments, clippy::allow_attributes)]
            fn plain $(<$(const $c: $ct),+>)? ($($arg: $ty),*) $(-> $ret)? $body
            #[cfg(target_arch = "x86_64")]
            {
                #[target_feature(enable = "avx512f,avx512bw,avx512dq,avx512vl,avx2,fma")]
                #[allow(clippy::too_many_arguments, clippy::allow_attributes)]
                fn avx512 $(<$(const $c: $ct),+>)? ($($arg: $ty),*) $(-> $ret)? {
                    plain $(::<$($c),+>)? ($($arg),*)
                }
                #[target_feature(enable = "avx2,fma")]
                #[allow(clippy::too_many_arguments, clippy::allow_attributes)]
                fn avx2 $(<$(const $c: $ct),+>)? ($($arg: $ty),*) $(-> $ret)? {
                    plain $(::<$($c),+>)? ($($arg),*)
                }
                // SAFETY: an `Isa` other than `Portable` comes from `Isa::current`, which has asked the processor.
                match isa {
                    $crate::Isa::Avx512 => return unsafe { avx512 $(::<$($c),+>)? ($($arg),*) },
                    $crate::Isa::Avx2 => return unsafe { avx2 $(::<$($c),+>)? ($($arg),*) },
                    $crate::Isa::Portable => {}
                }
            }
            let _ = isa;
            plain $(::<$($c),+>)? ($($arg),*)
        }
    };
}
pub(crate) use multiversion;

/// Explicit vectors of `f32`.
///
/// # Safety
/// The methods may be called only where the processor has the instruction set, and inlined into a function compiled for it.
pub(crate) unsafe trait Simd: Copy {
    /// Elements of a vector.
    const LANES: usize;
    type V: Copy;
    unsafe fn splat(x: f32) -> Self::V;
    unsafe fn load(p: *const f32) -> Self::V;
    unsafe fn store(p: *mut f32, v: Self::V);
    /// `a * b + c`.
    unsafe fn fma(a: Self::V, b: Self::V, c: Self::V) -> Self::V;
    /// Sum of the elements.
    unsafe fn sum(v: Self::V) -> f32;
    /// Sums of the elements of each of eight vectors.
    #[inline(always)]
    unsafe fn sum8(v: [Self::V; 8]) -> [f32; 8] {
        v.map(|v| unsafe { Self::sum(v) })
    }
}

#[cfg(target_arch = "x86_64")]
mod x86 {
    use std::arch::x86_64::*;

    use super::Simd;

    #[derive(Clone, Copy)]
    pub(crate) struct Avx512;
    #[derive(Clone, Copy)]
    pub(crate) struct Avx2;

    // SAFETY: the trait's contract is passed on to the caller.
    unsafe impl Simd for Avx512 {
        const LANES: usize = 16;
        type V = __m512;
        #[inline(always)]
        unsafe fn splat(x: f32) -> __m512 {
            unsafe { _mm512_set1_ps(x) }
        }
        #[inline(always)]
        unsafe fn load(p: *const f32) -> __m512 {
            unsafe { _mm512_loadu_ps(p) }
        }
        #[inline(always)]
        unsafe fn store(p: *mut f32, v: __m512) {
            unsafe { _mm512_storeu_ps(p, v) }
        }
        #[inline(always)]
        unsafe fn fma(a: __m512, b: __m512, c: __m512) -> __m512 {
            unsafe { _mm512_fmadd_ps(a, b, c) }
        }
        #[inline(always)]
        unsafe fn sum(v: __m512) -> f32 {
            unsafe { _mm512_reduce_add_ps(v) }
        }
        /// Halves the eight vectors three times by adding what lies across, 15 shuffles instead of 56.
        #[inline(always)]
        unsafe fn sum8(v: [__m512; 8]) -> [f32; 8] {
            unsafe {
                // Halves of vectors i and i + 4 side by side.
                let halves: [__m512; 4] = std::array::from_fn(|i| {
                    let (a, b) = (v[i], v[i + 4]);
                    _mm512_add_ps(_mm512_shuffle_f32x4::<0x44>(a, b), _mm512_shuffle_f32x4::<0xEE>(a, b))
                });
                // Quarters of vectors i, i + 4, i + 2, i + 6.
                let quarters: [__m512; 2] = std::array::from_fn(|i| {
                    let (a, b) = (halves[i], halves[i + 2]);
                    _mm512_add_ps(_mm512_shuffle_f32x4::<0x88>(a, b), _mm512_shuffle_f32x4::<0xDD>(a, b))
                });
                let [a, b] = quarters;
                let pairs = _mm512_add_ps(_mm512_unpacklo_ps(a, b), _mm512_unpackhi_ps(a, b));
                let sums = _mm512_add_ps(pairs, _mm512_permute_ps::<0x4E>(pairs));
                let mut all = [0f32; 16];
                _mm512_storeu_ps(all.as_mut_ptr(), sums);
                [all[0], all[1], all[8], all[9], all[4], all[5], all[12], all[13]]
            }
        }
    }

    // SAFETY: the trait's contract is passed on to the caller.
    unsafe impl Simd for Avx2 {
        const LANES: usize = 8;
        type V = __m256;
        #[inline(always)]
        unsafe fn splat(x: f32) -> __m256 {
            unsafe { _mm256_set1_ps(x) }
        }
        #[inline(always)]
        unsafe fn load(p: *const f32) -> __m256 {
            unsafe { _mm256_loadu_ps(p) }
        }
        #[inline(always)]
        unsafe fn store(p: *mut f32, v: __m256) {
            unsafe { _mm256_storeu_ps(p, v) }
        }
        #[inline(always)]
        unsafe fn fma(a: __m256, b: __m256, c: __m256) -> __m256 {
            unsafe { _mm256_fmadd_ps(a, b, c) }
        }
        #[inline(always)]
        unsafe fn sum(v: __m256) -> f32 {
            unsafe {
                let half = _mm_add_ps(_mm256_castps256_ps128(v), _mm256_extractf128_ps::<1>(v));
                let pair = _mm_add_ps(half, _mm_movehl_ps(half, half));
                _mm_cvtss_f32(_mm_add_ss(pair, _mm_movehdup_ps(pair)))
            }
        }
    }
}
#[cfg(target_arch = "x86_64")]
pub(crate) use x86::{Avx2, Avx512};

/// Vectors of four that the compiler maps to the baseline's registers.
#[derive(Clone, Copy)]
pub(crate) struct Portable;

// SAFETY: plain code, allowed everywhere.
unsafe impl Simd for Portable {
    const LANES: usize = 4;
    type V = [f32; 4];
    #[inline(always)]
    unsafe fn splat(x: f32) -> [f32; 4] {
        [x; 4]
    }
    #[inline(always)]
    unsafe fn load(p: *const f32) -> [f32; 4] {
        unsafe { p.cast::<[f32; 4]>().read_unaligned() }
    }
    #[inline(always)]
    unsafe fn store(p: *mut f32, v: [f32; 4]) {
        unsafe { p.cast::<[f32; 4]>().write_unaligned(v) }
    }
    #[inline(always)]
    unsafe fn fma(a: [f32; 4], b: [f32; 4], c: [f32; 4]) -> [f32; 4] {
        // Not `mul_add`: without the instruction that is a call into the C library.
        std::array::from_fn(|i| a[i] * b[i] + c[i])
    }
    #[inline(always)]
    unsafe fn sum(v: [f32; 4]) -> f32 {
        (v[0] + v[2]) + (v[1] + v[3])
    }
}
