use burn::backend::tensor::{FloatTensor, IntTensor};
use burn::backend::{Backend, backend_extension};
use burn::tensor::Shape;
use burn::tensor::ops::{ConvOptions, MaxPoolOptions};

use crate::elementwise::Activation;
use crate::pool::PoolShape;
use crate::train::Descent;

/// What networks compute, forward. The functions beside this module document the operations.
#[backend_extension(Autodiff, Flex)]
pub trait Operations: Backend {
    fn convolve(input: FloatTensor<Self>, weight: FloatTensor<Self>, options: ConvOptions<2>) -> FloatTensor<Self>;

    fn convolve_biased(
        input: FloatTensor<Self>,
        weight: FloatTensor<Self>,
        bias: FloatTensor<Self>,
        options: ConvOptions<2>,
    ) -> FloatTensor<Self>;

    fn convolve_affine(
        input: FloatTensor<Self>,
        weight: FloatTensor<Self>,
        scale: FloatTensor<Self>,
        shift: FloatTensor<Self>,
        relu: bool,
        options: ConvOptions<2>,
    ) -> FloatTensor<Self>;

    /// Output, mean and biased variance.
    fn normalise(
        input: FloatTensor<Self>,
        scale: FloatTensor<Self>,
        shift: FloatTensor<Self>,
        epsilon: f64,
        relu: bool,
    ) -> (FloatTensor<Self>, FloatTensor<Self>, FloatTensor<Self>);

    fn normalise_by(
        input: FloatTensor<Self>,
        scale: FloatTensor<Self>,
        shift: FloatTensor<Self>,
        mean: FloatTensor<Self>,
        variance: FloatTensor<Self>,
        epsilon: f64,
        relu: bool,
    ) -> FloatTensor<Self>;

    fn add_rectified(a: FloatTensor<Self>, b: FloatTensor<Self>) -> FloatTensor<Self>;

    fn largest(input: FloatTensor<Self>, options: MaxPoolOptions<2>) -> FloatTensor<Self>;

    /// The means of windows; no maxima.
    fn averaged(input: FloatTensor<Self>, shape: PoolShape) -> FloatTensor<Self>;

    /// A hyperbolic tangent or a logistic function; no other.
    fn squashed(input: FloatTensor<Self>, function: Activation) -> FloatTensor<Self>;

    fn connect(input: FloatTensor<Self>, weight: FloatTensor<Self>, bias: FloatTensor<Self>) -> FloatTensor<Self>;

    /// The parameter and the velocity after a step.
    fn descend(
        param: FloatTensor<Self>,
        velocity: FloatTensor<Self>,
        gradient: FloatTensor<Self>,
        rule: Descent,
    ) -> (FloatTensor<Self>, FloatTensor<Self>);
}

/// What a batch normalisation in training is defined by.
#[derive(Clone, Debug)]
pub struct Normalisation<B: Backend> {
    pub scale: FloatTensor<B>,
    pub shift: FloatTensor<B>,
    pub mean: FloatTensor<B>,
    pub variance: FloatTensor<B>,
    pub epsilon: f64,
    pub relu: bool,
}

/// What the backward pass needs of a backend whose [`Operations`] are differentiated.
pub trait Gradients: Operations {
    fn convolve_input(
        input: FloatTensor<Self>,
        weight: FloatTensor<Self>,
        gradient: FloatTensor<Self>,
        options: ConvOptions<2>,
    ) -> FloatTensor<Self>;

    fn convolve_weight(
        input: FloatTensor<Self>,
        weight: FloatTensor<Self>,
        gradient: FloatTensor<Self>,
        options: ConvOptions<2>,
    ) -> FloatTensor<Self>;

    fn convolve_bias(
        input: FloatTensor<Self>,
        bias: FloatTensor<Self>,
        gradient: FloatTensor<Self>,
    ) -> FloatTensor<Self>;

    /// The gradient of a fully-connected layer's input.
    fn connect_input(weight: FloatTensor<Self>, gradient: FloatTensor<Self>) -> FloatTensor<Self>;

    fn connect_weight(input: FloatTensor<Self>, gradient: FloatTensor<Self>) -> FloatTensor<Self>;

    /// Gradients of input, scale and shift.
    fn normalise_backward(
        input: FloatTensor<Self>,
        normalisation: Normalisation<Self>,
        gradient: FloatTensor<Self>,
    ) -> [FloatTensor<Self>; 3];

    /// The gradient of either summand.
    fn add_rectified_backward(output: FloatTensor<Self>, gradient: FloatTensor<Self>) -> FloatTensor<Self>;

    /// The output and where in the input's planes it was found.
    fn largest_where(input: FloatTensor<Self>, options: MaxPoolOptions<2>) -> (FloatTensor<Self>, IntTensor<Self>);

    fn largest_backward(
        input: FloatTensor<Self>,
        options: MaxPoolOptions<2>,
        indices: IntTensor<Self>,
        gradient: FloatTensor<Self>,
    ) -> FloatTensor<Self>;

    fn averaged_backward(input: Shape, shape: PoolShape, gradient: FloatTensor<Self>) -> FloatTensor<Self>;

    fn squashed_backward(
        output: FloatTensor<Self>,
        function: Activation,
        gradient: FloatTensor<Self>,
    ) -> FloatTensor<Self>;
}
