//! [`FusedOps`] on GPUs: kernels in CubeCL, compiled for the device they run on.
//!
//! Burn fuses chains of elementwise operations itself, but not reductions with what surrounds them: a batch normalization in
//! training is a dozen passes over the feature maps there. Here it is two forward (statistics; normalization and ReLU) and two
//! backward (the two reductions; the input's gradient), in which the mask of the ReLU is found again from the input.
//!
//! Convolutions leave their channels last in memory, other operations first; the kernels take either as it is.

mod kernels;

use burn::backend::TensorMetadata;
use burn::backend::cubecl::dtype_to_storage_type;
use burn::tensor::{DType, Shape};
use burn_cubecl::cubecl::prelude::*;
use burn_cubecl::cubecl::{CubeCount, CubeDim, calculate_cube_count_elemwise};
use burn_cubecl::kernel::into_contiguous;
use burn_cubecl::ops::numeric::empty_device_contiguous_dtype;
use burn_cubecl::ops::{permute_nchw_to_nhwc, permute_nhwc_to_nchw};
use burn_cubecl::tensor::CubeTensor;
use burn_cubecl::{CubeBackend, kernel};

use super::burn_ops::BatchNorm;
use super::fused_ops::{FusedGradients, FusedOps};
use crate::elementwise::Activation;
use kernels::MapsLaunch;

/// The numbers that the kernels take; they compute in `f32`.
pub fn takes(dtype: DType) -> bool {
    matches!(dtype, DType::F32 | DType::F16 | DType::BF16)
}

/// Cubes that keep every GPU busy.
const CUBES: usize = 1024;

/// Values that a unit adds up at least, where there are as many.
const VALUES: usize = 8;

/// Feature maps, `[batch, channels, height, width]`, whose values lie one after another.
#[derive(Clone)]
struct Maps {
    /// Contiguous; with the channels last, `[batch, height, width, channels]`.
    tensor: CubeTensor,
    channels_last: bool,
}

impl Maps {
    /// As they lie, if without gaps.
    fn new(tensor: CubeTensor) -> Self {
        let channels_last = !tensor.is_contiguous() && permute_nchw_to_nhwc(tensor.clone()).is_contiguous();
        Self::ordered(tensor, channels_last)
    }

    /// In the order of others.
    fn like(&self, tensor: CubeTensor) -> Self {
        Self::ordered(tensor, self.channels_last)
    }

    fn ordered(tensor: CubeTensor, channels_last: bool) -> Self {
        let tensor = if channels_last { permute_nchw_to_nhwc(tensor) } else { tensor };
        Self { tensor: into_contiguous(tensor), channels_last }
    }

    /// Room for as many values in the same order.
    fn empty(&self) -> Self {
        let CubeTensor { client, device, dtype, .. } = self.tensor.clone();
        let tensor = empty_device_contiguous_dtype(client, device, self.tensor.shape(), dtype);
        Self { tensor, channels_last: self.channels_last }
    }

    fn into_tensor(self) -> CubeTensor {
        if self.channels_last { permute_nhwc_to_nchw(self.tensor) } else { self.tensor }
    }

    fn arg(&self) -> BufferArg {
        self.tensor.clone().into_buffer_arg()
    }

    fn values(&self) -> usize {
        self.tensor.shape().num_elements()
    }

    fn channels(&self) -> usize {
        self.tensor.shape()[if self.channels_last { 3 } else { 1 }]
    }

    /// Values of a channel.
    fn count(&self) -> usize {
        self.values() / self.channels().max(1)
    }

    fn places(&self) -> MapsLaunch {
        let shape = self.tensor.shape();
        let pixels = if self.channels_last { shape[1] * shape[2] } else { shape[2] * shape[3] };
        let channels = self.channels();
        MapsLaunch::new(channels, pixels, channels, pixels, self.count(), self.channels_last)
    }

    /// One value for each channel, of `f32`.
    fn statistic(&self) -> CubeTensor {
        self.floats([self.channels()])
    }

    fn floats(&self, shape: impl Into<Shape>) -> CubeTensor {
        let CubeTensor { client, device, .. } = self.tensor.clone();
        empty_device_contiguous_dtype(client, device, shape.into(), DType::F32)
    }

    /// A unit for each of so many values.
    fn units(&self, values: usize) -> (CubeCount, CubeDim) {
        let client = &self.tensor.client;
        let dim = CubeDim::new(client, values);
        (calculate_cube_count_elemwise(client, values, dim), dim)
    }

    fn reduction(&self) -> Reduction {
        let most = self.tensor.client.properties().hardware.max_units_per_cube.min(256) as usize;
        let units = 1 << most.max(1).ilog2();
        let lanes = if self.channels_last { self.channels().next_power_of_two().min(32).min(units) } else { 1 };
        let groups = self.channels().div_ceil(lanes);
        let parts = (CUBES / groups).min(self.count().div_ceil(units / lanes * VALUES)).max(1);
        Reduction { lanes, units, groups, parts }
    }
}

/// How cubes divide the values of channels.
struct Reduction {
    /// Channels of a cube.
    lanes: usize,
    units: usize,
    /// Cubes that have all channels.
    groups: usize,
    /// Parts of a channel's values.
    parts: usize,
}

impl Reduction {
    fn cubes(&self) -> (CubeCount, CubeDim) {
        (CubeCount::new_2d(self.groups as u32, self.parts as u32), CubeDim::new_1d(self.units as u32))
    }
}

/// A batch normalization's parameters and statistics, `[channels]`.
struct Norm {
    scale: CubeTensor,
    shift: CubeTensor,
    mean: CubeTensor,
    variance: CubeTensor,
    epsilon: f32,
    relu: bool,
}

impl Norm {
    fn new(norm: BatchNorm<CubeBackend>, activation: Activation) -> Self {
        let BatchNorm { scale, shift, mean, variance, epsilon } = norm;
        let [scale, shift] = [scale, shift].map(into_contiguous);
        // One type for both in a kernel.
        let shift = kernel::cast(shift, scale.dtype);
        let [mean, variance] = [mean, variance].map(|values| into_contiguous(kernel::cast(values, DType::F32)));
        Self { scale, shift, mean, variance, epsilon: epsilon as f32, relu: activation == Activation::Relu }
    }

    fn dtypes(&self, maps: &Maps) -> [ElemType; 2] {
        [maps.tensor.dtype, self.scale.dtype].map(dtype_to_storage_type)
    }

    fn apply(&self, input: &Maps) -> Maps {
        let output = input.empty();
        let (count, dim) = input.units(input.values());
        kernels::normalize::launch(
            &input.tensor.client,
            count,
            dim,
            input.arg(),
            self.scale.clone().into_buffer_arg(),
            self.shift.clone().into_buffer_arg(),
            self.mean.clone().into_buffer_arg(),
            self.variance.clone().into_buffer_arg(),
            output.arg(),
            input.places(),
            self.epsilon,
            self.relu,
            self.dtypes(input),
        );
        output
    }

    /// The gradients of shift and scale, of `f32`.
    fn parameter_gradients(&self, input: &Maps, gradient: &Maps) -> [CubeTensor; 2] {
        let reduction = input.reduction();
        let sums = input.floats([2, reduction.parts, input.channels()]);
        let (count, dim) = reduction.cubes();
        kernels::gradient_sums::launch(
            &input.tensor.client,
            count,
            dim,
            input.arg(),
            self.scale.clone().into_buffer_arg(),
            self.shift.clone().into_buffer_arg(),
            self.mean.clone().into_buffer_arg(),
            self.variance.clone().into_buffer_arg(),
            gradient.arg(),
            sums.clone().into_buffer_arg(),
            input.places(),
            self.epsilon,
            self.relu,
            reduction.lanes,
            reduction.units,
            self.dtypes(input),
        );
        let gradients = [input.statistic(), input.statistic()];
        let (count, dim) = input.units(input.channels());
        let [shift, scale] = gradients.clone().map(CubeTensor::into_buffer_arg);
        kernels::add_parts::launch(
            &input.tensor.client,
            count,
            dim,
            sums.into_buffer_arg(),
            shift,
            scale,
            reduction.parts,
        );
        gradients
    }

    fn input_gradient(&self, input: &Maps, gradient: &Maps, [shift, scale]: &[CubeTensor; 2]) -> Maps {
        let output = input.empty();
        let (count, dim) = input.units(input.values());
        kernels::normalize_backward::launch(
            &input.tensor.client,
            count,
            dim,
            input.arg(),
            self.scale.clone().into_buffer_arg(),
            self.shift.clone().into_buffer_arg(),
            self.mean.clone().into_buffer_arg(),
            self.variance.clone().into_buffer_arg(),
            gradient.arg(),
            shift.clone().into_buffer_arg(),
            scale.clone().into_buffer_arg(),
            output.arg(),
            input.places(),
            self.epsilon,
            self.relu,
            self.dtypes(input),
        );
        output
    }
}

/// Mean and biased variance of each channel.
fn moments(input: &Maps) -> [CubeTensor; 2] {
    let reduction = input.reduction();
    let dtype = dtype_to_storage_type(input.tensor.dtype);
    let sums = input.floats([2, reduction.parts, input.channels()]);
    let (count, dim) = reduction.cubes();
    kernels::moment_sums::launch(
        &input.tensor.client,
        count,
        dim,
        input.arg(),
        sums.clone().into_buffer_arg(),
        input.places(),
        reduction.lanes,
        reduction.units,
        dtype,
    );
    let moments = [input.statistic(), input.statistic()];
    let [mean, variance] = moments.clone().map(CubeTensor::into_buffer_arg);
    let (count, dim) = input.units(input.channels());
    kernels::moments::launch(
        &input.tensor.client,
        count,
        dim,
        input.arg(),
        sums.into_buffer_arg(),
        mean,
        variance,
        input.places(),
        reduction.parts,
        dtype,
    );
    moments
}

impl FusedOps for CubeBackend {
    fn kernel_batch_norm_train(
        input: CubeTensor,
        scale: CubeTensor,
        shift: CubeTensor,
        epsilon: f64,
        activation: Activation,
    ) -> (CubeTensor, CubeTensor, CubeTensor) {
        let input = Maps::new(input);
        let [mean, variance] = moments(&input);
        let norm = BatchNorm { scale, shift, mean: mean.clone(), variance: variance.clone(), epsilon };
        let output = Norm::new(norm, activation).apply(&input);
        (output.into_tensor(), mean, variance)
    }

    fn kernel_add_relu(a: CubeTensor, b: CubeTensor) -> CubeTensor {
        let a = Maps::new(a);
        let (b, output) = (a.like(b), a.empty());
        let (count, dim) = a.units(a.values());
        let dtype = dtype_to_storage_type(a.tensor.dtype);
        kernels::add_relu::launch(&a.tensor.client, count, dim, a.arg(), b.arg(), output.arg(), dtype);
        output.into_tensor()
    }
}

impl FusedGradients for CubeBackend {
    fn kernel_batch_norm_again(input: CubeTensor, norm: BatchNorm<Self>, activation: Activation) -> CubeTensor {
        Norm::new(norm, activation).apply(&Maps::new(input)).into_tensor()
    }

    fn kernel_batch_norm_backward(
        input: CubeTensor,
        norm: BatchNorm<Self>,
        activation: Activation,
        gradient: CubeTensor,
    ) -> (CubeTensor, CubeTensor, CubeTensor) {
        let dtypes = [norm.scale.dtype, norm.shift.dtype];
        let input = Maps::new(input);
        let (norm, gradient) = (Norm::new(norm, activation), input.like(gradient));
        let of_parameters = norm.parameter_gradients(&input, &gradient);
        let of_input = norm.input_gradient(&input, &gradient, &of_parameters).into_tensor();
        let [shift, scale] = of_parameters;
        (of_input, kernel::cast(scale, dtypes[0]), kernel::cast(shift, dtypes[1]))
    }

    fn kernel_add_relu_backward(output: CubeTensor, gradient: CubeTensor) -> CubeTensor {
        let output = Maps::new(output);
        let (gradient, result) = (output.like(gradient), output.empty());
        let (count, dim) = output.units(output.values());
        let dtype = dtype_to_storage_type(output.tensor.dtype);
        let client = &output.tensor.client;
        kernels::add_relu_backward::launch(client, count, dim, output.arg(), gradient.arg(), result.arg(), dtype);
        result.into_tensor()
    }
}
