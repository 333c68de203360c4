use std::fmt;
use std::str::FromStr;
use std::sync::OnceLock;

use super::{Kernel, portable::Portable};
use crate::KernelError;

/// An instruction set that kernels are compiled for.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Isa {
    /// AVX-512F: 16 lanes, 32 registers.
    Avx512,
    /// AVX2 with FMA and F16C: 8 lanes, 16 registers.
    Avx2,
    /// 64-bit ARM's NEON: 8 lanes in two registers each.
    Neon,
    /// WebAssembly's SIMD, with fused multiply-adds where the program is compiled for relaxed SIMD: 8 lanes in two registers
    /// each. Which instructions a program has is decided when it is compiled.
    Simd128,
    /// Plain Rust that the compiler vectorizes with what every processor of the target has: 8 lanes.
    Portable,
}

impl Isa {
    /// Fastest first.
    const ALL: [Self; 5] = [Self::Avx512, Self::Avx2, Self::Neon, Self::Simd128, Self::Portable];

    /// What this processor has, fastest first; [`Portable`](Self::Portable) is always there.
    pub fn available() -> impl Iterator<Item = Self> {
        Self::ALL.into_iter().filter(|isa| isa.is_available())
    }

    /// The fastest that this processor has, or what the environment variable `CONVZOO_ISA` forces (`avx512`, `avx2`,
    /// `neon`, `simd128` or `portable`; it is read once).
    ///
    /// # Errors
    /// The variable names none of them, or one that this processor lacks.
    pub fn detect() -> Result<Self, KernelError> {
        static CHOICE: OnceLock<Result<Isa, KernelError>> = OnceLock::new();
        let choose = || match std::env::var("CONVZOO_ISA") {
            Ok(name) if !name.is_empty() => name.parse(),
            _ => Ok(Self::available().next().unwrap_or(Self::Portable)),
        };
        CHOICE.get_or_init(choose).clone()
    }

    /// Channels in a block of activations, which are the lanes of a vector.
    pub fn lanes(self) -> usize {
        match self {
            Self::Avx512 => 16,
            Self::Avx2 | Self::Neon | Self::Simd128 | Self::Portable => 8,
        }
    }

    /// Runs a kernel compiled for this instruction set.
    ///
    /// # Safety
    /// The processor has it: it came from [`available`](Self::available), [`detect`](Self::detect) or parsing; and the
    /// kernel's pointers are valid for what it does.
    pub unsafe fn call<K: Kernel>(self, kernel: K) -> K::Output {
        use super::Simd;
        // SAFETY: the caller's promise.
        unsafe {
            match self {
                #[cfg(target_arch = "x86_64")]
                Self::Avx512 => super::avx512::Avx512::<false>::call(kernel),
                #[cfg(target_arch = "x86_64")]
                Self::Avx2 => super::avx2::Avx2::call(kernel),
                #[cfg(target_arch = "aarch64")]
                Self::Neon => super::neon::Neon::call(kernel),
                #[cfg(all(target_arch = "wasm32", target_feature = "simd128"))]
                Self::Simd128 => super::simd128::Simd128::call(kernel),
                _ => Portable::call(kernel),
            }
        }
    }

    /// Runs a kernel on bfloat16 numbers, compiled for this instruction set and, where the processor has them, the
    /// instructions for such numbers.
    ///
    /// # Safety
    /// As [`call`](Self::call).
    pub(crate) unsafe fn call_bf16<K: Kernel>(self, kernel: K) -> K::Output {
        // SAFETY: the caller's promise, and the instructions have been found on this processor.
        unsafe {
            #[cfg(target_arch = "x86_64")]
            if self.multiplies_bf16() {
                return <super::avx512::Avx512<true> as super::Simd>::call(kernel);
            }
            self.call(kernel)
        }
    }

    /// Whether this processor multiplies bfloat16 numbers with this instruction set: with AVX-512 BF16. Otherwise kernels
    /// widen such numbers.
    pub fn multiplies_bf16(self) -> bool {
        #[cfg(target_arch = "x86_64")]
        if self == Self::Avx512 {
            return is_x86_feature_detected!("avx512bf16");
        }
        false
    }

    fn is_available(self) -> bool {
        match self {
            #[cfg(target_arch = "x86_64")]
            Self::Avx512 => is_x86_feature_detected!("avx512f"),
            #[cfg(target_arch = "x86_64")]
            Self::Avx2 => {
                is_x86_feature_detected!("avx2") && is_x86_feature_detected!("fma") && is_x86_feature_detected!("f16c")
            }
            #[cfg(target_arch = "aarch64")]
            Self::Neon => std::arch::is_aarch64_feature_detected!("neon"),
            Self::Simd128 => cfg!(all(target_arch = "wasm32", target_feature = "simd128")),
            Self::Portable => true,
            #[allow(unreachable_patterns)] // which are left depends on the target
            _ => false,
        }
    }
}

impl fmt::Display for Isa {
    fn fmt(&self, f: &mut fmt::Formatter) -> fmt::Result {
        f.write_str(match self {
            Self::Avx512 => "avx512",
            Self::Avx2 => "avx2",
            Self::Neon => "neon",
            Self::Simd128 => "simd128",
            Self::Portable => "portable",
        })
    }
}

impl FromStr for Isa {
    type Err = KernelError;

    fn from_str(name: &str) -> Result<Self, KernelError> {
        Self::available().find(|isa| isa.to_string() == name).ok_or_else(|| KernelError::Isa {
            name: name.to_owned(),
            available: Self::available().map(|isa| isa.to_string()).collect(),
        })
    }
}
