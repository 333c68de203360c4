use super::add_relu::{combine, map};
use crate::math;
use crate::simd::Isa;

/// The hyperbolic tangent of each element.
pub fn tanh(isa: Isa, input: &[f32]) -> Vec<f32> {
    map(isa, input, math::tanh)
}

/// The gradient of [`tanh`]'s input from its output and that output's gradient.
///
/// # Panics
/// The slices differ in length; so below.
pub fn tanh_backward(isa: Isa, output: &[f32], gradient: &[f32]) -> Vec<f32> {
    combine(isa, output, gradient, |output, gradient| gradient * (1.0 - output * output))
}

/// The sigmoid of each element.
pub fn sigmoid(isa: Isa, input: &[f32]) -> Vec<f32> {
    map(isa, input, math::sigmoid)
}

/// The gradient of [`sigmoid`]'s input from its output and that output's gradient.
pub fn sigmoid_backward(isa: Isa, output: &[f32], gradient: &[f32]) -> Vec<f32> {
    combine(isa, output, gradient, |output, gradient| gradient * (output * (1.0 - output)))
}
