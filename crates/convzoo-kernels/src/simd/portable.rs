use super::{Kernel, Simd};

/// Arrays, whose loops the compiler vectorizes.
#[derive(Clone, Copy)]
pub struct Portable;

type Vector = [f32; 8];

#[inline(always)]
fn zip(mut a: Vector, b: Vector, f: impl Fn(f32, f32) -> f32) -> Vector {
    for i in 0..8 {
        a[i] = f(a[i], b[i]);
    }
    a
}

// SAFETY: a vector is 8 floats, and loads and stores are unaligned.
#[allow(clippy::missing_safety_doc)]
unsafe impl Simd for Portable {
    type Vector = Vector;
    const LANES: usize = 8;
    const PIXELS: usize = 3;

    unsafe fn call<K: Kernel>(kernel: K) -> K::Output {
        // SAFETY: the caller's promise.
        unsafe { kernel.run::<Portable>() }
    }

    #[inline(always)]
    unsafe fn splat(value: f32) -> Vector {
        [value; 8]
    }

    #[inline(always)]
    unsafe fn load(from: *const f32) -> Vector {
        // SAFETY: the pointer is valid for 8 floats.
        unsafe { from.cast::<Vector>().read_unaligned() }
    }

    #[inline(always)]
    unsafe fn load_half(from: *const half::f16) -> Vector {
        // SAFETY: the pointer is valid for 8 halves.
        unsafe { from.cast::<[half::f16; 8]>().read_unaligned() }.map(half::f16::to_f32)
    }

    #[inline(always)]
    unsafe fn load_bf16(from: *const half::bf16) -> Vector {
        // SAFETY: the pointer is valid for 8 numbers.
        let upper = unsafe { from.cast::<[u16; 8]>().read_unaligned() };
        upper.map(|upper| f32::from_bits(u32::from(upper) << 16))
    }

    #[inline(always)]
    unsafe fn pairs(cells: Vector) -> [Vector; 2] {
        let bits = cells.map(f32::to_bits);
        [bits.map(|bits| f32::from_bits(bits << 16)), bits.map(|bits| f32::from_bits(bits & 0xffff_0000))]
    }

    #[inline(always)]
    unsafe fn store_bf16(to: *mut half::bf16, vector: Vector) {
        let upper = vector.map(|value| {
            let bits = value.to_bits();
            // A quiet NaN, which rounding could carry to infinity.
            let quiet = bits | 0x0040_0000;
            let rounded = bits.wrapping_add(0x7fff + (bits >> 16 & 1));
            ((if value.is_nan() { quiet } else { rounded }) >> 16) as u16
        });
        // SAFETY: the pointer is valid for 8 numbers.
        unsafe { to.cast::<[u16; 8]>().write_unaligned(upper) }
    }

    #[inline(always)]
    unsafe fn load_bytes(from: *const u8) -> Vector {
        // SAFETY: the pointer is valid for 8 bytes.
        unsafe { from.cast::<[u8; 8]>().read_unaligned() }.map(f32::from)
    }

    #[inline(always)]
    unsafe fn store_bytes(to: *mut u8, vector: Vector) {
        /// Adding it leaves the whole number, rounded, in the lowest bits; those of NaN are 0.
        const SHIFT: f32 = 12_582_912.0;
        // SAFETY: the pointer is valid for 8 bytes.
        unsafe { to.cast::<[u8; 8]>().write_unaligned(vector.map(|x| (x + SHIFT).to_bits() as u8)) }
    }

    #[inline(always)]
    unsafe fn store(to: *mut f32, vector: Vector) {
        // SAFETY: the pointer is valid for 8 floats.
        unsafe { to.cast::<Vector>().write_unaligned(vector) }
    }

    #[inline(always)]
    unsafe fn add(a: Vector, b: Vector) -> Vector {
        zip(a, b, |a, b| a + b)
    }

    #[inline(always)]
    unsafe fn sub(a: Vector, b: Vector) -> Vector {
        zip(a, b, |a, b| a - b)
    }

    #[inline(always)]
    unsafe fn mul(a: Vector, b: Vector) -> Vector {
        zip(a, b, |a, b| a * b)
    }

    #[inline(always)]
    unsafe fn div(a: Vector, b: Vector) -> Vector {
        zip(a, b, |a, b| a / b)
    }

    #[inline(always)]
    unsafe fn max(a: Vector, b: Vector) -> Vector {
        zip(a, b, |a, b| if a > b { a } else { b })
    }

    #[inline(always)]
    unsafe fn min(a: Vector, b: Vector) -> Vector {
        zip(a, b, |a, b| if a < b { a } else { b })
    }

    #[inline(always)]
    unsafe fn max_or_nan(a: Vector, b: Vector) -> Vector {
        zip(a, b, |a, b| if a > b || a.is_nan() { a } else { b })
    }

    #[inline(always)]
    unsafe fn larger(a: [Vector; 2], mut b: [Vector; 2]) -> [Vector; 2] {
        for i in 0..8 {
            if a[0][i] > b[0][i] || a[0][i].is_nan() {
                (b[0][i], b[1][i]) = (a[0][i], a[1][i]);
            }
        }
        b
    }

    #[inline(always)]
    unsafe fn sqrt(a: Vector) -> Vector {
        a.map(f32::sqrt)
    }

    #[inline(always)]
    unsafe fn mul_add(a: Vector, b: Vector, c: Vector) -> Vector {
        // Not `f32::mul_add`: without the instruction that is a slow call.
        zip(zip(a, b, |a, b| a * b), c, |a, b| a + b)
    }

    #[inline(always)]
    unsafe fn sum(a: Vector) -> f32 {
        a.iter().sum()
    }
}
