//! What the kernels are held against: the definitions, written as loops in f64.

use convzoo_kernels::conv::ConvShape;

/// Values in [-1, 1] that depend on `seed` alone.
pub fn random(len: usize, seed: u64) -> Vec<f32> {
    let mut state = seed.wrapping_mul(0x9E37_79B9_7F4A_7C15) | 1;
    let mut next = || {
        state ^= state << 13;
        state ^= state >> 7;
        state ^= state << 17;
        (state >> 40) as f32 / (1 << 23) as f32 - 1.0
    };
    (0..len).map(|_| next()).collect()
}

/// The convolution of images `[batch, channels, height, width]`, with the sum of the terms' magnitudes, which bounds
/// what rounding can do.
pub fn convolve(
    shape: &ConvShape,
    batch: usize,
    [height, width]: [usize; 2],
    input: &[f32],
    weight: &[f32],
    bias: &[f32],
) -> Vec<(f64, f64)> {
    let [inputs, outputs] = shape.channels;
    let [rows, columns] = shape.output([height, width]).unwrap();
    let group = [inputs / shape.groups, outputs / shape.groups];
    let mut result = Vec::new();
    for n in 0..batch {
        for o in 0..outputs {
            for y in 0..rows {
                for x in 0..columns {
                    let (mut total, mut magnitude) = (f64::from(bias[o]), f64::from(bias[o]).abs());
                    for c in 0..group[0] {
                        for ky in 0..shape.kernel[0] {
                            for kx in 0..shape.kernel[1] {
                                let iy = (y * shape.stride[0] + ky * shape.dilation[0]).wrapping_sub(shape.padding[0]);
                                let ix = (x * shape.stride[1] + kx * shape.dilation[1]).wrapping_sub(shape.padding[1]);
                                if iy < height && ix < width {
                                    let channel = o / group[1] * group[0] + c;
                                    let value = input[((n * inputs + channel) * height + iy) * width + ix];
                                    let tap = ((o * group[0] + c) * shape.kernel[0] + ky) * shape.kernel[1] + kx;
                                    let term = f64::from(value) * f64::from(weight[tap]);
                                    total += term;
                                    magnitude += term.abs();
                                }
                            }
                        }
                    }
                    result.push((total, magnitude));
                }
            }
        }
    }
    result
}

/// Fails at the first value that differs by more than `tolerance` of its terms' magnitude.
pub fn assert_close(found: &[f32], expected: &[(f64, f64)], tolerance: f64, what: &str) {
    assert_eq!(found.len(), expected.len(), "{what}: values");
    for (i, (found, (expected, magnitude))) in found.iter().zip(expected).enumerate() {
        let error = (f64::from(*found) - expected).abs();
        let bound = tolerance * magnitude.max(1.0);
        assert!(error <= bound, "{what}: value {i} is {found}, not {expected}; the error may be {bound:e}");
    }
}
