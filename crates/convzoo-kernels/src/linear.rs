//! Fully-connected layers: their weights, and the dot products that both [`blocked`](crate::blocked) and
//! [`planar`](crate::planar) layers are made of.
//!
//! With one image each weight is used once: the layer takes as long as reading its weights does. They are read once for
//! up to four images, by all threads, in half precision where the user allows it.
#![allow(unsafe_code)]

use std::ops::Range;

use half::slice::HalfFloatSliceExt;
use half::{bf16, f16};

use crate::elementwise::{Activation, Apply};
use crate::error::check_length;
use crate::number::{Load, Number};
use crate::simd::Simd;
use crate::sparse::{BREAK_EVEN, SparseWeight, density};
use crate::{KernelError, Precision, Values};

/// The precision in which weights are kept; sums are always taken in f32.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub enum LinearPrecision {
    /// 32 bits.
    #[default]
    Single,
    /// IEEE's 16 bits: half the memory to read, each weight exact to one part in 2048.
    Half,
    /// bfloat16, 16 bits: each weight exact to one part in 256.
    Bf16,
}

impl From<Precision> for LinearPrecision {
    /// What fully-connected layers keep their weights in, in a network of a precision.
    fn from(precision: Precision) -> Self {
        match precision {
            Precision::F32 | Precision::Int8 => Self::Single,
            Precision::LinearF16 => Self::Half,
            Precision::Bf16 => Self::Bf16,
        }
    }
}

/// A fully-connected layer.
pub struct Linear {
    outputs: usize,
    inputs: usize,
    /// `[outputs, inputs]`.
    pub(crate) weight: Weight,
    pub(crate) bias: Vec<f32>,
    /// The weight without its zeros, and the most images that it is for.
    sparse: Option<(SparseWeight, usize)>,
}

/// A weight `[outputs, inputs]` in each precision.
pub(crate) enum Weight {
    Single(Values),
    Half(Vec<f16>),
    Bf16(Vec<bf16>),
}

impl Linear {
    /// From a weight `[outputs, inputs]`, which is kept as it is in single precision, and a bias `[outputs]`.
    ///
    /// # Errors
    /// The weight's length is not that.
    pub fn new(
        weight: impl Into<Values>,
        bias: Vec<f32>,
        inputs: usize,
        precision: LinearPrecision,
    ) -> Result<Self, KernelError> {
        let (outputs, weight) = (bias.len(), weight.into());
        check_length("a linear layer's weight", outputs * inputs, &weight)?;
        let weight = match precision {
            LinearPrecision::Single => Weight::Single(weight),
            LinearPrecision::Half => {
                let mut halves = vec![f16::ZERO; weight.len()];
                halves.convert_from_f32_slice(&weight);
                Weight::Half(halves)
            }
            LinearPrecision::Bf16 => Weight::Bf16(weight.iter().map(|weight| bf16::from_f32(*weight)).collect()),
        };
        Ok(Self { outputs, inputs, weight, bias, sparse: None })
    }

    /// The same layer, computed without its zeros where that is faster: for one image, if few weights are left.
    pub fn sparse_where_faster(self) -> Self {
        match &self.weight {
            Weight::Single(weight) if density(weight) < BREAK_EVEN => self.sparse_up_to(1),
            _ => self,
        }
    }

    /// The same layer, computed without its zeros for at most so many images, if it is in single precision.
    pub fn sparse_up_to(self, images: usize) -> Self {
        let sparse = match &self.weight {
            Weight::Single(weight) => Some((SparseWeight::new(weight, self.inputs), images)),
            Weight::Half(_) | Weight::Bf16(_) => None,
        };
        Self { sparse, ..self }
    }

    /// The weight without its zeros, if so many images are computed by it.
    pub(crate) fn sparse(&self, images: usize) -> Option<&SparseWeight> {
        self.sparse.as_ref().filter(|(_, most)| images <= *most).map(|(weight, _)| weight)
    }

    /// Input features.
    pub fn inputs(&self) -> usize {
        self.inputs
    }

    /// Output features.
    pub fn outputs(&self) -> usize {
        self.outputs
    }

    /// The precision of its weight.
    pub fn precision(&self) -> LinearPrecision {
        match self.weight {
            Weight::Single(_) => LinearPrecision::Single,
            Weight::Half(_) => LinearPrecision::Half,
            Weight::Bf16(_) => LinearPrecision::Bf16,
        }
    }

    /// Bytes of its weight.
    pub fn weight_bytes(&self) -> usize {
        let number = match &self.weight {
            Weight::Single(_) => size_of::<f32>(),
            Weight::Half(_) | Weight::Bf16(_) => size_of::<f16>(),
        };
        self.inputs * self.outputs * number
    }
}

/// Outputs and images whose dot products run side by side.
pub(crate) const ROWS: usize = 4;
pub(crate) const IMAGES: usize = 4;

/// Where the products of a layer are read and written.
pub(crate) struct Vectors<'a, I, O> {
    pub bias: &'a [f32],
    /// The first image's features, and the step to the next image.
    pub input: *const I,
    pub input_step: usize,
    /// The same of the outputs.
    pub output: *mut O,
    pub output_step: usize,
    pub batch: usize,
    /// What comes last.
    pub activation: Activation,
}

/// A weight `[outputs, inputs]`, as products with vectors read it.
pub(crate) trait Products {
    /// Writes outputs `rows` of all images, before the activation.
    ///
    /// # Safety
    /// The processor has `S`'s instructions; the pointers are valid for all images, inputs and those rows.
    unsafe fn rows<S: Simd, I: Number, O: Number>(&self, vectors: &Vectors<'_, I, O>, rows: Range<usize>);
}

impl<I: Number, O: Number> Vectors<'_, I, O> {
    /// Writes outputs `rows` of all images.
    ///
    /// # Safety
    /// As [`Products::rows`].
    #[inline(always)]
    pub unsafe fn write<S: Simd>(&self, weight: &impl Products, rows: Range<usize>) {
        // SAFETY: the caller's promise.
        unsafe {
            weight.rows::<S, I, O>(self, rows.clone());
            if self.activation != Activation::Identity {
                for image in 0..self.batch {
                    let output = self.output.add(image * self.output_step + rows.start);
                    self.activation.all::<S, O>(std::slice::from_raw_parts_mut(output, rows.len()));
                }
            }
        }
    }
}

/// A weight with all its numbers.
pub(crate) struct Dense<W> {
    /// `[outputs, inputs]`.
    pub weight: *const W,
    /// Input features.
    pub inputs: usize,
}

impl<W: Load> Products for Dense<W> {
    #[inline(always)]
    unsafe fn rows<S: Simd, I: Number, O: Number>(&self, vectors: &Vectors<'_, I, O>, rows: Range<usize>) {
        let whole = rows.end - rows.len() % ROWS;
        // SAFETY: the caller's promise.
        unsafe {
            for row in (rows.start..whole).step_by(ROWS) {
                let mut image = 0;
                while image + IMAGES <= vectors.batch {
                    self.block::<S, I, O, ROWS, IMAGES>(vectors, row, image);
                    image += IMAGES;
                }
                for image in image..vectors.batch {
                    self.block::<S, I, O, ROWS, 1>(vectors, row, image);
                }
            }
            for row in whole..rows.end {
                for image in 0..vectors.batch {
                    self.block::<S, I, O, 1, 1>(vectors, row, image);
                }
            }
        }
    }
}

impl<W: Load> Dense<W> {
    /// `R` outputs of `N` images, before the activation: beside its code the sums would not stay in registers.
    #[inline(always)]
    unsafe fn block<S: Simd, I: Number, O: Number, const R: usize, const N: usize>(
        &self,
        vectors: &Vectors<'_, I, O>,
        row: usize,
        image: usize,
    ) {
        let inputs = self.inputs;
        // Pairs of bfloat16 numbers are multiplied as they lie; others are widened.
        let paired = W::PER_CELL == 2 && I::PER_CELL == 2;
        let step = if paired { 2 * S::LANES } else { S::LANES };
        let whole = inputs - inputs % step;
        // SAFETY: the rows and images exist.
        unsafe {
            let weight = self.weight.add(row * inputs);
            let input = vectors.input.add(image * vectors.input_step);
            let mut totals = [[S::splat(0.0); N]; R];
            for i in (0..whole).step_by(step) {
                let mut values = [S::splat(0.0); N];
                for (n, value) in values.iter_mut().enumerate() {
                    let from = input.add(n * vectors.input_step + i);
                    *value = if paired { S::load(from.cast()) } else { I::load::<S>(from) };
                }
                for (r, totals) in totals.iter_mut().enumerate() {
                    let from = weight.add(r * inputs + i);
                    let weight = if paired { S::load(from.cast()) } else { W::load::<S>(from) };
                    for (total, value) in totals.iter_mut().zip(values) {
                        *total = match paired {
                            true => I::mul_add::<S>(weight, value, *total),
                            false => S::mul_add(weight, value, *total),
                        };
                    }
                }
            }
            for (r, totals) in totals.into_iter().enumerate() {
                for (n, total) in totals.into_iter().enumerate() {
                    let mut total = S::sum(total) + vectors.bias[row + r];
                    for i in whole..inputs {
                        total +=
                            (*weight.add(r * inputs + i)).value() * (*input.add(n * vectors.input_step + i)).value();
                    }
                    vectors.output.add((image + n) * vectors.output_step + row + r).write(O::of(total));
                }
            }
        }
    }
}
