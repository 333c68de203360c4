//! Training on libtorch: convolutions and batch normalizations whose gradients libtorch computes, in one call each.
//!
//! Burn composes them: the gradient of a weight as a convolution with kernels as large as a feature map, those of a
//! normalization from a dozen operations. The calls themselves (`convolution_backward`, `native_batch_norm_backward`)
//! are not among those that `tch` binds, but libtorch's autograd makes them: an operation is recorded with its inputs
//! as leaves, and played back with the gradient that Burn has.

#![allow(deprecated)] // Burn is going to drop libtorch; as long as it is there, it is a device like the others

use burn::backend::autodiff::checkpoint::base::Checkpointer;
use burn::backend::autodiff::checkpoint::strategy::CheckpointStrategy;
use burn::backend::autodiff::grads;
use burn::backend::autodiff::ops::{Backward, Ops, OpsKind};
use burn::backend::tensor::FloatTensor;
use burn::backend::{Autodiff, AutodiffBackend, Backend, LibTorch, backend_extension};
use burn::tensor::ops::ConvOptions;
use burn_tch::TchTensor;
use tch::Tensor;

/// Operations that libtorch differentiates as a whole. Convolutions are padded evenly.
#[backend_extension(Autodiff, LibTorch)]
pub trait LibtorchOps: Backend {
    fn libtorch_conv2d(
        input: FloatTensor<Self>,
        weight: FloatTensor<Self>,
        options: ConvOptions<2>,
    ) -> FloatTensor<Self>;

    fn libtorch_conv2d_bias(
        input: FloatTensor<Self>,
        weight: FloatTensor<Self>,
        bias: FloatTensor<Self>,
        options: ConvOptions<2>,
    ) -> FloatTensor<Self>;

    /// Output, mean and biased variance.
    fn libtorch_batch_norm_train(
        input: FloatTensor<Self>,
        scale: FloatTensor<Self>,
        shift: FloatTensor<Self>,
        epsilon: f64,
    ) -> (FloatTensor<Self>, FloatTensor<Self>, FloatTensor<Self>);
}

fn conv2d(input: &Tensor, weight: &Tensor, bias: Option<&Tensor>, options: &ConvOptions<2>) -> Tensor {
    let pair = |values: [usize; 2]| values.map(|value| value as i64);
    let padding = pair(options.padding.map(|(begin, _)| begin));
    let (stride, dilation) = (pair(options.stride), pair(options.dilation));
    input.conv2d(weight, bias, stride, padding, dilation, options.groups as i64)
}

/// Output, mean and biased variance.
fn batch_norm_train(input: &Tensor, scale: &Tensor, shift: &Tensor, epsilon: f64) -> [Tensor; 3] {
    let (mean, variance) = (scale.zeros_like().detach(), scale.zeros_like().detach());
    // With a momentum of one, the running statistics are the batch's.
    let statistics = (Some(&mean), Some(&variance));
    let output = input.batch_norm(Some(scale), Some(shift), statistics.0, statistics.1, true, 1.0, epsilon, true);
    // libtorch keeps the unbiased variance, which one value does not have.
    let values = input.numel() as f64 / mean.numel().max(1) as f64;
    let variance = if values > 1.0 { variance * ((values - 1.0) / values) } else { mean.zeros_like() };
    // libtorch keeps what it is given; a copy may be overwritten.
    [output, mean.copy(), variance]
}

impl LibtorchOps for LibTorch {
    fn libtorch_conv2d(input: TchTensor, weight: TchTensor, options: ConvOptions<2>) -> TchTensor {
        TchTensor::new(conv2d(&input.tensor, &weight.tensor, None, &options))
    }

    fn libtorch_conv2d_bias(
        input: TchTensor,
        weight: TchTensor,
        bias: TchTensor,
        options: ConvOptions<2>,
    ) -> TchTensor {
        TchTensor::new(conv2d(&input.tensor, &weight.tensor, Some(&bias.tensor), &options))
    }

    fn libtorch_batch_norm_train(
        input: TchTensor,
        scale: TchTensor,
        shift: TchTensor,
        epsilon: f64,
    ) -> (TchTensor, TchTensor, TchTensor) {
        batch_norm_train(&input.tensor, &scale.tensor, &shift.tensor, epsilon).map(TchTensor::new).into()
    }
}

/// What libtorch has recorded of an operation.
#[derive(Clone, Debug)]
struct Tape {
    /// The operation's inputs. As long as they are here, Burn does not write over them.
    leaves: Vec<TchTensor>,
    output: TchTensor,
}

impl Tape {
    /// The operation's output, and how it came about.
    fn record<const N: usize>(inputs: [TchTensor; N], run: impl FnOnce([&Tensor; N]) -> Tensor) -> (TchTensor, Self) {
        let leaves = inputs
            .map(|input| TchTensor { tensor: input.tensor.detach().set_requires_grad(true), storage: input.storage });
        let output = tch::with_grad(|| run(leaves.each_ref().map(|leaf| &leaf.tensor)));
        let result = TchTensor::new(output.detach());
        let output = TchTensor { tensor: output, storage: result.storage.clone() };
        (result, Self { leaves: leaves.into(), output })
    }

    /// The gradients of the inputs that are asked for, in their order, from that of the output.
    fn play(self, gradient: &TchTensor, asked: impl Iterator<Item = bool>) -> Vec<TchTensor> {
        let leaves: Vec<_> = self.leaves.iter().zip(asked).filter(|(_, asked)| *asked).collect();
        let leaves: Vec<_> = leaves.into_iter().map(|(leaf, _)| &leaf.tensor).collect();
        // What has this gradient with respect to the output is its product with it.
        let product = tch::with_grad(|| self.output.tensor.flatten(0, -1).dot(&gradient.tensor.flatten(0, -1)));
        let gradients = Tensor::run_backward(&[product], &leaves, false, false);
        // Burn takes a tensor that is no view to be contiguous; libtorch orders a gradient as its input.
        gradients.into_iter().map(|gradient| TchTensor::new(gradient.contiguous())).collect()
    }
}

/// Plays the tape, whatever the operation.
#[derive(Debug)]
struct Play;

impl<const N: usize> Backward<LibTorch, N> for Play {
    type State = Tape;

    fn backward(self, ops: Ops<Tape, N>, grads: &mut grads::Gradients, _: &mut Checkpointer) {
        let gradient = grads.consume::<LibTorch>(&ops.node);
        let values = ops.state.play(&gradient, ops.parents.iter().map(Option::is_some));
        for (node, values) in ops.parents.into_iter().flatten().zip(values) {
            grads.register::<LibTorch>(node.id, values);
        }
    }
}

/// The output of an operation on tracked tensors.
fn track<const N: usize, C: CheckpointStrategy>(
    inputs: [FloatTensor<Autodiff<LibTorch, C>>; N],
    run: impl FnOnce([&Tensor; N]) -> Tensor,
) -> FloatTensor<Autodiff<LibTorch, C>> {
    let prepared = Backward::<LibTorch, N>::prepare::<C>(Play, inputs.each_ref().map(|input| input.node()));
    let inputs = inputs.map(|input| input.into_primitive());
    match prepared.compute_bound().stateful() {
        OpsKind::Tracked(prep) => {
            let (output, tape) = Tape::record(inputs, run);
            prep.finish(tape, output)
        }
        OpsKind::UnTracked(prep) => prep.finish(TchTensor::new(run(inputs.each_ref().map(|input| &input.tensor)))),
    }
}

impl<C: CheckpointStrategy> LibtorchOps for Autodiff<LibTorch, C> {
    fn libtorch_conv2d(
        input: FloatTensor<Self>,
        weight: FloatTensor<Self>,
        options: ConvOptions<2>,
    ) -> FloatTensor<Self> {
        track::<_, C>([input, weight], |[input, weight]| conv2d(input, weight, None, &options))
    }

    fn libtorch_conv2d_bias(
        input: FloatTensor<Self>,
        weight: FloatTensor<Self>,
        bias: FloatTensor<Self>,
        options: ConvOptions<2>,
    ) -> FloatTensor<Self> {
        track::<_, C>([input, weight, bias], |[input, weight, bias]| conv2d(input, weight, Some(bias), &options))
    }

    fn libtorch_batch_norm_train(
        input: FloatTensor<Self>,
        scale: FloatTensor<Self>,
        shift: FloatTensor<Self>,
        epsilon: f64,
    ) -> (FloatTensor<Self>, FloatTensor<Self>, FloatTensor<Self>) {
        let mut statistics = None;
        let output = track::<_, C>([input, scale, shift], |[input, scale, shift]| {
            let [output, mean, variance] = batch_norm_train(input, scale, shift, epsilon);
            statistics = Some([mean, variance]);
            output
        });
        let [mean, variance] = statistics.expect("the operation has run");
        let constant = |values: Tensor| <Self as AutodiffBackend>::from_inner(TchTensor::new(values));
        (output, constant(mean), constant(variance))
    }
}
