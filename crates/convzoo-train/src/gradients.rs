use std::collections::HashMap;
use std::sync::Arc;

use burn::module::{Module, ModuleVisitor, Param, ParamId};
use burn::optim::GradientsParams;
use burn::tensor::{Tensor, TensorData, TensorReadError};
use convzoo_models::{Classifier, tensor_names};

/// What is done to a parameter's gradient, row-major, before the optimizer sees it: zeroing that of weights that are to
/// stay, or giving the same to weights that are to stay equal.
pub type GradientRule = Arc<dyn Fn(&mut [f32]) + Send + Sync>;

/// The rules of some parameters.
#[derive(Default)]
pub(crate) struct Rules(HashMap<ParamId, GradientRule>);

impl Rules {
    /// Rules by the reference's names of the tensors.
    pub fn of<N: Classifier>(network: &N, rules: &HashMap<String, GradientRule>) -> Self {
        let names = if rules.is_empty() { HashMap::new() } else { tensor_names(network) };
        Self(names.into_iter().filter_map(|(id, name)| Some((id, Arc::clone(rules.get(&name)?)))).collect())
    }

    /// The gradients as the rules have them.
    pub fn apply<M: Module>(&self, module: &M, gradients: GradientsParams) -> Result<GradientsParams, TensorReadError> {
        if self.0.is_empty() {
            return Ok(gradients);
        }
        let mut ruled = Ruled { rules: self, gradients, error: None };
        module.visit(&mut ruled);
        ruled.error.map_or(Ok(ruled.gradients), Err)
    }
}

/// Applies rules.
struct Ruled<'a> {
    rules: &'a Rules,
    gradients: GradientsParams,
    error: Option<TensorReadError>,
}

impl ModuleVisitor for Ruled<'_> {
    fn visit_float<const D: usize>(&mut self, param: &Param<Tensor<D>>) {
        let Some(rule) = self.rules.0.get(&param.id) else { return };
        let Some(gradient) = self.gradients.remove::<D>(param.id) else { return };
        let (shape, device) = (gradient.dims(), gradient.device());
        match gradient.try_into_vec_as::<f32>() {
            Ok(mut values) => {
                rule(&mut values);
                self.gradients.register(param.id, Tensor::<D>::from_data(TensorData::new(values, shape), &device));
            }
            Err(error) => self.error = Some(error),
        }
    }
}

/// The gradient of a step under way: the mean over the images of several batches.
#[derive(Default)]
pub(crate) struct Gradients {
    mean: GradientsParams,
    batches: usize,
    images: usize,
}

impl Gradients {
    /// Adds a batch's, the mean over its `images`.
    pub fn add<M: Module>(&mut self, module: &M, gradients: GradientsParams, images: usize) {
        self.images += images;
        self.batches += 1;
        if self.batches == 1 {
            self.mean = gradients;
        } else {
            let share = images as f64 / self.images as f64;
            module.visit(&mut Blend { mean: &mut self.mean, new: gradients, share });
        }
    }

    /// Batches in it.
    pub fn batches(&self) -> usize {
        self.batches
    }

    /// Divides the mean by `scale`; false where it is not finite.
    pub fn unscale<M: Module>(&mut self, module: &M, scale: f64) -> Result<bool, TensorReadError> {
        let mut squares = Squares { gradients: &self.mean, sum: None };
        module.visit(&mut squares);
        let Some(sum) = squares.sum else { return Ok(true) };
        let factor = sum.clone().zeros_like().add_scalar(1.0 / scale);
        module.visit(&mut Scale { gradients: &mut self.mean, factor });
        Ok(sum.try_into_scalar::<f32>()?.is_finite())
    }

    /// The mean, its norm over all parameters clipped to `norm`; nothing is left here.
    pub fn take<M: Module>(&mut self, module: &M, norm: Option<f64>) -> GradientsParams {
        let mut gradients = std::mem::take(self).mean;
        if let Some(norm) = norm {
            let mut squares = Squares { gradients: &gradients, sum: None };
            module.visit(&mut squares);
            if let Some(sum) = squares.sum {
                // PyTorch's, with its guard against a norm of zero.
                let factor = sum.sqrt().add_scalar(1e-6).recip().mul_scalar(norm).clamp_max(1.0);
                module.visit(&mut Scale { gradients: &mut gradients, factor });
            }
        }
        gradients
    }
}

struct Blend<'a> {
    mean: &'a mut GradientsParams,
    new: GradientsParams,
    share: f64,
}

impl ModuleVisitor for Blend<'_> {
    fn visit_float<const D: usize>(&mut self, param: &Param<Tensor<D>>) {
        let old = self.mean.remove::<D>(param.id).map(|old| old.mul_scalar(1.0 - self.share));
        let new = self.new.remove::<D>(param.id).map(|new| new.mul_scalar(self.share));
        if let Some(mean) = old.into_iter().chain(new).reduce(|old, new| old + new) {
            self.mean.register(param.id, mean);
        }
    }
}

/// Adds up the squares of all gradients.
struct Squares<'a> {
    gradients: &'a GradientsParams,
    sum: Option<Tensor<1>>,
}

impl ModuleVisitor for Squares<'_> {
    fn visit_float<const D: usize>(&mut self, param: &Param<Tensor<D>>) {
        if let Some(gradient) = self.gradients.get::<D>(param.id) {
            let square = gradient.square().sum();
            self.sum = Some(match self.sum.take() {
                Some(sum) => sum + square,
                None => square,
            });
        }
    }
}

struct Scale<'a> {
    gradients: &'a mut GradientsParams,
    factor: Tensor<1>,
}

impl ModuleVisitor for Scale<'_> {
    fn visit_float<const D: usize>(&mut self, param: &Param<Tensor<D>>) {
        if let Some(gradient) = self.gradients.remove::<D>(param.id) {
            self.gradients.register(param.id, gradient.mul(self.factor.clone().unsqueeze()));
        }
    }
}

#[cfg(test)]
mod tests {
    use burn::tensor::Device;

    use super::*;

    #[derive(Module, Debug)]
    struct Weights {
        vector: Param<Tensor<1>>,
        matrix: Param<Tensor<2>>,
    }

    fn weights() -> Weights {
        let device = Device::flex();
        Weights {
            vector: Param::from_tensor(Tensor::zeros([2], &device)),
            matrix: Param::from_tensor(Tensor::zeros([2, 1], &device)),
        }
    }

    fn gradients(weights: &Weights, vector: [f32; 2], matrix: [[f32; 1]; 2]) -> GradientsParams {
        let device = Device::flex();
        let mut gradients = GradientsParams::new();
        gradients.register::<1>(weights.vector.id, Tensor::from_floats(vector, &device));
        gradients.register::<2>(weights.matrix.id, Tensor::from_floats(matrix, &device));
        gradients
    }

    fn values(weights: &Weights, gradients: &GradientsParams) -> Vec<f32> {
        let vector = gradients.get::<1>(weights.vector.id).unwrap().try_into_vec_as::<f32>().unwrap();
        let matrix = gradients.get::<2>(weights.matrix.id).unwrap().try_into_vec_as::<f32>().unwrap();
        [vector, matrix].concat()
    }

    /// `crates/convzoo-train/tests/torch.py` printed the clipped ones, with PyTorch 2.9.0.
    #[test]
    fn the_norm_over_all_parameters_is_clipped() {
        let weights = weights();
        let clip = |norm| {
            let mut step = Gradients::default();
            step.add(&weights, gradients(&weights, [3.0, 4.0], [[12.0], [0.0]]), 1);
            values(&weights, &step.take(&weights, norm))
        };
        for (own, expected) in clip(Some(6.5)).into_iter().zip([1.499_999_9, 1.999_999_9, 5.999_999_5, 0.0]) {
            assert!((own - expected).abs() < 1e-6, "{own}, in PyTorch {expected}");
        }
        assert_eq!(clip(Some(14.0)), clip(None), "a norm of 13 is below 14");
    }

    #[test]
    fn a_rule_changes_its_parameters_gradient_and_no_other() {
        let weights = weights();
        let rule: GradientRule = Arc::new(|gradient| gradient[0] = 0.0);
        let rules = Rules(HashMap::from([(weights.matrix.id, rule)]));
        let ruled = rules.apply(&weights, gradients(&weights, [3.0, 4.0], [[12.0], [5.0]])).unwrap();
        assert_eq!(values(&weights, &ruled), [3.0, 4.0, 0.0, 5.0]);
    }

    #[test]
    fn accumulated_gradients_are_the_mean_over_all_images() {
        let weights = weights();
        let mut step = Gradients::default();
        step.add(&weights, gradients(&weights, [1.0, 0.0], [[8.0], [0.0]]), 2);
        step.add(&weights, gradients(&weights, [4.0, 2.0], [[2.0], [0.0]]), 4);
        assert_eq!(step.batches(), 2);
        let mean = values(&weights, &step.take(&weights, None));
        for (own, expected) in mean.into_iter().zip([3.0, 4.0 / 3.0, 4.0, 0.0]) {
            assert!((own - expected).abs() < 1e-6, "{own} rather than {expected}");
        }
        assert_eq!(step.batches(), 0, "what was taken is still there");
    }
}
