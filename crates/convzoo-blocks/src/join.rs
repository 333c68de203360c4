//! Where paths of a network meet.

use burn::tensor::Tensor;
use convzoo_kernels::elementwise::ScaleShift;
use convzoo_kernels::extension;

use crate::Activation;
use crate::observe;
use crate::trace::{self, Scope};

/// The concatenation along channels of maps `[batch, channels, height, width]`.
pub(crate) fn concat(maps: Vec<Tensor<4>>) -> Tensor<4> {
    trace::operation("concatenation", maps, |maps| Tensor::cat(maps, 1), |scope| Ok(scope.graph.concat(scope.inputs)))
}

/// The sum of two maps.
pub(crate) fn add(a: Tensor<4>, b: Tensor<4>) -> Tensor<4> {
    let compute = |maps: Vec<Tensor<4>>| maps.into_iter().reduce(|a, b| a + b).expect("two maps are summed");
    trace::operation("sum", vec![a, b], compute, |scope| Ok(scope.graph.add(scope.inputs)))
}

/// max(0, a + b), in one pass unless the pass is observed.
pub(crate) fn add_relu(a: Tensor<4>, b: Tensor<4>) -> Tensor<4> {
    match observe::is_watching() {
        true => Activation::Relu.forward(add(a, b)),
        false => extension::add_relu(a, b),
    }
}

/// A map times a number.
pub(crate) fn scale(map: Tensor<4>, factor: f64) -> Tensor<4> {
    let channels = map.dims()[1];
    trace::layer(
        "scale",
        map,
        |map| map.mul_scalar(factor),
        |Scope { graph, .. }, map| {
            let affine = ScaleShift { scale: vec![factor as f32; channels], shift: vec![0.0; channels] };
            Ok(graph.scale_shift(map, affine))
        },
    )
}
