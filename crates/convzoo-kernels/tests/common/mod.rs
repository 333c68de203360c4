//! Inputs, and how results are compared.

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

/// Fails at the first value that differs by more than `tolerance` of its terms' magnitude.
pub fn assert_close(found: &[f32], expected: &[(f64, f64)], tolerance: f64, what: &str) {
    assert_eq!(found.len(), expected.len(), "{what}: values");
    for (i, (found, (expected, magnitude))) in found.iter().zip(expected).enumerate() {
        let error = (f64::from(*found) - expected).abs();
        let bound = tolerance * magnitude.max(1.0);
        assert!(error <= bound, "{what}: value {i} is {found}, not {expected}; the error may be {bound:e}");
    }
}
