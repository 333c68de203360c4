use burn::config::Config;
use burn::module::{Flag, Module, Param};
use burn::nn::{Dropout, DropoutConfig};
use burn::tensor::{Device, Distribution, Tensor};

use crate::checkpointing::drawn;
use crate::features::FeatureMap;
use crate::{ConvUnit, ConvUnitConfig, Init, Scale};

/// Which paths of a fractal are live in a pass.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum Paths {
    /// All of them, as in inference.
    All,
    /// Local drop path: each join drops each of its inputs with this probability, but never all of them.
    Local(f64),
    /// Global drop path: one column alone, counted from the shallowest.
    Column(usize),
}

impl Paths {
    /// What the paper trains with: local drop path in half of the passes, a random one of `columns` columns in the
    /// others.
    pub fn draw(drop_path: f64, columns: usize, device: &Device) -> Self {
        let [coin, column] = uniform(device);
        match coin < 0.5 {
            true => Self::Local(drop_path),
            false => Self::Column((column * columns as f64) as usize),
        }
    }

    /// Which of the paths that end in a join are live, for the columns from `first` on.
    /// Local drop path is drawn from a training pass's device; without one all are live.
    fn live(self, first: usize, columns: usize, device: Option<Device>) -> Vec<bool> {
        match (self, device) {
            (Self::Column(column), _) => (first..columns).map(|c| c == column).collect(),
            (Self::All, _) | (Self::Local(_), None) => vec![true; columns - first],
            (Self::Local(drop_path), Some(device)) => {
                let device = &device;
                let mut live: Vec<_> = (first..columns).map(|_| uniform::<1>(device)[0] >= drop_path).collect();
                if !live.contains(&true) {
                    let survivor = uniform::<1>(device)[0] * live.len() as f64;
                    live[survivor as usize] = true;
                }
                live
            }
        }
    }
}

/// Numbers in [0, 1) from the device's generator, so that the device's seed decides them.
fn uniform<const N: usize>(device: &Device) -> [f64; N] {
    let draws = drawn(|| Tensor::<1>::random([N], Distribution::Uniform(0.0, 1.0), device)).into_data();
    let mut draws = draws.iter::<f64>();
    // A draw in f32 may round up to 1.
    std::array::from_fn(|_| draws.next().unwrap_or(0.0).min(1.0 - f64::EPSILON))
}

/// Configures a [`FractalBlock`].
#[derive(Config, Debug)]
pub struct FractalBlockConfig {
    /// Input and output channels.
    pub channels: [usize; 2],
    /// Columns: the deepest path has 2^(columns − 1) convolutions.
    pub columns: usize,
    /// Probability that a join drops one of its inputs in training.
    #[config(default = 0.15)]
    pub drop_path: f64,
    /// Dropout probability after each convolution.
    #[config(default = 0.0)]
    pub dropout: f64,
    /// Weight initialization.
    #[config(default = "Init::XavierUniform")]
    pub init: Init,
}

/// A fractal of 3×3 convolutions ([Larsson et al., 2016](https://arxiv.org/abs/1605.07648)).
///
/// One column is a convolution, f₁(x) = conv(x); c + 1 columns are the join of a convolution and of two fractals of c
/// columns in sequence, f₍c₊₁₎(x) = join(conv(x), f₍c₎(f₍c₎(x))). Joins that meet are one: the mean of all paths that
/// end there and are live.
#[derive(Module, Debug)]
pub struct FractalBlock {
    /// From the shallowest column, one convolution, to the deepest.
    columns: Vec<Vec<ConvUnit>>,
    dropout: Dropout,
    drop_path: f64,
    /// Cleared by [`freeze`](Module::freeze): all paths are then live.
    training: Param<Flag>,
}

impl FractalBlockConfig {
    /// Makes the block; its weights are initialized on first use.
    pub fn init(&self, device: &Device) -> FractalBlock {
        let [inputs, outputs] = self.channels;
        let conv = |i| {
            let inputs = if i == 0 { inputs } else { outputs };
            ConvUnitConfig::square(inputs, outputs, 3).padded(1).with_batch_norm().with_init(self.init).init(device)
        };
        FractalBlock {
            columns: (0..self.columns).map(|column| (0..1 << column).map(conv).collect()).collect(),
            dropout: DropoutConfig::new(self.dropout).init(),
            drop_path: self.drop_path,
            training: Param::from_bool(true),
        }
    }
}

impl FractalBlock {
    /// `[batch, inputs, height, width]` to `[batch, outputs, height, width]`, in training with local drop path.
    pub fn forward<M: FeatureMap>(&self, input: M) -> M {
        self.forward_paths(input, Paths::Local(self.drop_path))
    }

    /// [`forward`](Self::forward) on other paths; unless the block trains on an autodiff device, all are live.
    pub fn forward_paths<M: FeatureMap>(&self, input: M, paths: Paths) -> M {
        let training = self.training.is_enabled() && input.training_device().is_some();
        self.join(input, 0, 0, if training { paths } else { Paths::All })
    }

    /// [`forward`](Self::forward) on the paths of one column alone, a plain network, in inference too.
    pub fn forward_column<M: FeatureMap>(&self, input: M, column: usize) -> M {
        self.join(input, 0, 0, Paths::Column(column))
    }

    /// The fractal of the columns from `first` on, beginning with that column's convolution at `index`.
    fn join<M: FeatureMap>(&self, input: M, first: usize, index: usize, paths: Paths) -> M {
        let live = paths.live(first, self.columns.len(), input.training_device());
        let outputs = self.paths(input, first, index, paths, &live);
        let count = outputs.len() as f64;
        let sum = outputs.into_iter().reduce(M::add).expect("at least one path is live");
        if count == 1.0 { sum } else { sum.layer(&Scale(1.0 / count)) }
    }

    /// The outputs of the live ones of the paths that end in a join, the shallowest first.
    fn paths<M: FeatureMap>(&self, input: M, first: usize, index: usize, paths: Paths, live: &[bool]) -> Vec<M> {
        let mut outputs = Vec::with_capacity(live.len());
        if live[0] {
            let conv = &self.columns[first][index];
            outputs.push(conv.forward(input.clone()).dropout(&self.dropout));
        }
        if live[1..].contains(&true) {
            let half = self.join(input, first + 1, 2 * index, paths);
            outputs.extend(self.paths(half, first + 1, 2 * index + 1, paths, &live[1..]));
        }
        outputs
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn values(tensor: Tensor<4>) -> Vec<f32> {
        tensor.into_data().try_into_vec().unwrap()
    }

    #[test]
    fn a_join_is_the_mean_of_its_paths() {
        let device = Device::flex();
        let block = FractalBlockConfig::new([2, 3], 2).init(&device);
        let input = Tensor::random([2, 2, 5, 5], Distribution::Default, &device);
        let [shallow, deep] = [0, 1].map(|column| values(block.forward_column(input.clone(), column)));
        let joined = values(block.forward(input));
        for ((a, b), c) in shallow.iter().zip(&deep).zip(&joined) {
            assert!(((a + b) / 2.0 - c).abs() < 1e-6);
        }
    }

    #[test]
    fn paths_drop_in_training_alone() {
        let inference = Device::flex();
        let training = Device::flex().autodiff();
        training.seed(1);
        for (columns, paths) in [(1, Paths::Local(0.99)), (4, Paths::Local(0.99)), (4, Paths::Column(2))] {
            let live = |first| paths.live(first, columns, Some(training.clone()));
            assert!((0..columns.min(2)).all(|first| live(first).iter().filter(|live| **live).count() >= 1));
        }
        let block = FractalBlockConfig::new([1, 1], 3).with_drop_path(0.5).init(&inference);
        let input = Tensor::random([1, 1, 4, 4], Distribution::Default, &inference);
        let all = values(block.forward(input.clone()));
        assert_eq!(values(block.forward_paths(input.clone(), Paths::Column(0))), all);
        assert_ne!(values(block.forward_column(input, 0)), all);

        // Frozen, or without loss of paths, the training device makes no difference.
        let block = FractalBlockConfig::new([1, 2], 3).with_drop_path(0.5).init(&training).freeze();
        let input = Tensor::random([1, 1, 4, 4], Distribution::Default, &training);
        let all = values(block.forward_paths(input.clone(), Paths::All));
        assert_eq!(values(block.forward(input)), all);
    }

    #[test]
    fn half_of_the_passes_are_one_column() {
        let device = Device::flex();
        device.seed(7);
        let draws: Vec<_> = (0..200).map(|_| Paths::draw(0.15, 4, &device)).collect();
        let local = draws.iter().filter(|paths| **paths == Paths::Local(0.15)).count();
        assert!((70..130).contains(&local), "{local} of 200");
        for column in 0..4 {
            assert!(draws.contains(&Paths::Column(column)));
        }
    }
}
