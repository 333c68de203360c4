use burn::optim::{LearningRate, Optimizer, RecordState, StateSink, StateSource, join_path};
use burn::tensor::{Device, Tensor};
use convzoo_kernels::extension::sgd_step;
use convzoo_kernels::planar::SgdStep;

/// Stochastic gradient descent with momentum and without dampening, as PyTorch's.
///
/// Burn's own passes over a network's weights several times, on flex with one thread; this passes once, with all.
#[derive(Clone, Copy, Debug, Default)]
pub struct Sgd {
    /// Share of the last step that is added to the next one.
    pub momentum: f64,
    /// Whether the gradient is looked at one step ahead.
    pub nesterov: bool,
    /// Share of the weights that is added to their gradient.
    pub weight_decay: f64,
}

impl Optimizer for Sgd {
    type State<const D: usize> = Velocity<D>;

    fn step<const D: usize>(
        &self,
        rate: LearningRate,
        param: Tensor<D>,
        gradient: Tensor<D>,
        state: Option<Velocity<D>>,
    ) -> (Tensor<D>, Option<Velocity<D>>) {
        let Self { momentum, nesterov, weight_decay } = *self;
        let rule = SgdStep { rate: rate as f32, momentum: momentum as f32, nesterov, decay: weight_decay as f32 };
        let velocity = state.map_or_else(|| gradient.zeros_like(), |state| state.0);
        let (param, velocity) = sgd_step(param, velocity, gradient, rule);
        // Without momentum the next step has no use for it.
        (param, (momentum > 0.0).then_some(Velocity(velocity)))
    }

    fn to_device<const D: usize>(state: Velocity<D>, device: &Device) -> Velocity<D> {
        Velocity(state.0.to_device(device))
    }
}

/// The last step of a parameter, but for the learning rate.
#[derive(Clone, Debug)]
pub struct Velocity<const D: usize>(Tensor<D>);

impl<const D: usize> Velocity<D> {
    /// As Burn's own optimizer names it.
    const NAME: [&str; 2] = ["momentum", "velocity"];
}

impl<const D: usize> RecordState for Velocity<D> {
    fn state_flatten(&self, prefix: &str, out: &mut StateSink) {
        out.push_tensor(&join_path(prefix, Self::NAME[0]), Self::NAME[1], self.0.to_data());
    }

    fn state_unflatten(prefix: &str, source: &mut StateSource, device: &Device) -> Option<Self> {
        let data = source.take_tensor(&join_path(prefix, Self::NAME[0]), Self::NAME[1])?;
        Some(Self(Tensor::from_data(data, device)))
    }
}
