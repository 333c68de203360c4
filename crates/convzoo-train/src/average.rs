use burn::module::{Module, ModuleMapper, ModuleVisitor, Param, ParamId};
use burn::tensor::Tensor;
use burn::tensor::container::TensorContainer;

/// A moving average of a module's tensors, running statistics included.
#[derive(Clone)]
pub(crate) struct Average<M> {
    /// The module with the averages as its tensors, without gradients.
    pub module: M,
    pub decay: f64,
}

impl<M: Module> Average<M> {
    /// Begins with the tensors of `module`, a module without gradients that nothing else changes.
    pub fn new(module: M, decay: f64) -> Self {
        Self { module, decay }
    }

    /// Moves towards the tensors of `trained` after so many `steps`.
    pub fn update(self, trained: &M, steps: usize) -> Self {
        let steps = steps as f64;
        let decay = self.decay.min((1.0 + steps) / (10.0 + steps));
        let mut tensors = Tensors(TensorContainer::new());
        // A copy for evaluation has the last batch's running statistics, which the trained one itself may still lack.
        trained.valid().visit(&mut tensors);
        Self { module: self.module.map(&mut Blend { tensors: tensors.0, decay }), decay: self.decay }
    }
}

struct Tensors(TensorContainer<ParamId>);

impl ModuleVisitor for Tensors {
    fn visit_float<const D: usize>(&mut self, param: &Param<Tensor<D>>) {
        self.0.register(param.id, param.val());
    }
}

struct Blend {
    tensors: TensorContainer<ParamId>,
    decay: f64,
}

impl ModuleMapper for Blend {
    fn map_float<const D: usize>(&mut self, param: Param<Tensor<D>>) -> Param<Tensor<D>> {
        let (id, average, mapper) = param.consume();
        let average = match self.tensors.remove::<Tensor<D>>(&id) {
            Some(new) => average.mul_scalar(self.decay) + new.mul_scalar(1.0 - self.decay),
            None => average,
        };
        Param::from_mapped_value(id, average, mapper)
    }
}

#[cfg(test)]
mod tests {
    use burn::module::RunningState;
    use burn::tensor::Device;

    use super::*;

    #[derive(Module, Debug)]
    struct Weights {
        weight: Param<Tensor<1>>,
        statistics: RunningState<Tensor<1>>,
    }

    #[test]
    fn averages_follow_the_recurrence_that_defines_them() {
        let device = Device::flex().autodiff();
        let mut weights = Weights {
            weight: Param::from_tensor(Tensor::from_floats([1.0], &device)),
            statistics: RunningState::new(Tensor::from_floats([1.0], &Device::flex())),
        };
        let mut average = Average::new(weights.valid(), 0.3);
        let mut expected = 1.0;
        for step in 1..=6 {
            let value = (step * step) as f32;
            weights.weight = weights.weight.map(|weight| Tensor::full([1], value, &weight.device()).require_grad());
            // Not yet folded into the value that a visitor of `weights` itself would see.
            weights.statistics.update(Tensor::full([1], value, &Device::flex()));
            average = average.update(&weights, step);
            let decay = f32::min(0.3, (1.0 + step as f32) / (10.0 + step as f32));
            expected = decay * expected + (1.0 - decay) * value;
            let own: f32 = average.module.weight.val().into_scalar();
            assert!((own - expected).abs() < 1e-5, "step {step}: weight {own} rather than {expected}");
            let own: f32 = average.module.statistics.value().into_scalar();
            assert!((own - expected).abs() < 1e-5, "step {step}: statistics {own} rather than {expected}");
        }
    }
}
