use super::add_relu::{combine, map};
use crate::elementwise::{Activation, Apply};
use crate::number::Number;
use crate::simd::Isa;

/// A loop for each function: `$loop` with the function as a constant.
macro_rules! for_each_function {
    ($function:expr, |$each:ident| $loop:expr) => {
        for_each_function!($function, $each, $loop, Identity Relu Relu6 Tanh Sigmoid Hardsigmoid Silu Hardswish Gelu)
    };
    ($function:expr, $each:ident, $loop:expr, $($name:ident)*) => {
        match $function {
            $(Activation::$name => {
                const $each: Activation = Activation::$name;
                $loop
            })*
        }
    };
}

pub(super) use for_each_function;

/// A function of each element.
pub fn activation<N: Number>(isa: Isa, function: Activation, input: &[N]) -> Vec<N> {
    for_each_function!(function, |FUNCTION| map(isa, input, |x| FUNCTION.of(x)))
}

/// The gradient of [`activation`]'s input from that of its output, and from the output where
/// [`activation_keeps_output`] says so, else the input.
///
/// # Panics
/// The slices differ in length.
pub fn activation_backward<N: Number>(isa: Isa, function: Activation, kept: &[N], gradient: &[N]) -> Vec<N> {
    for_each_function!(function, |FUNCTION| combine(isa, kept, gradient, |kept, gradient| {
        FUNCTION.backward(kept, gradient)
    }))
}

/// Whether the backward pass of a function starts from its output.
pub fn activation_keeps_output(function: Activation) -> bool {
    function.keeps_output()
}
