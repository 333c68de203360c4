//! Inception modules: parallel branches over one feature map, concatenated along the channels.
//!
//! Every version is the same [`Inception`] with other branches, so a module is data: an [`InceptionConfig`] whose
//! constructors ([`v1`](InceptionConfig::v1), [`v3_a`](InceptionConfig::v3_a) …) read like the papers' figures.

mod factorized;
mod residual;
mod v4;

use burn::config::Config;
use burn::module::Module;
use burn::tensor::Device;

pub use residual::{InceptionResidual, InceptionResidualConfig};

use crate::features::{FeatureMap, Segment};
use crate::{ConvUnit, ConvUnitConfig, Init, NormConfig, Pool, PoolConfig};

/// Configures one branch of an [`Inception`] module, from its input on.
#[derive(Config, Debug)]
pub struct BranchConfig {
    /// Input channels.
    pub inputs: usize,
    /// Pooling of the input, if any.
    pub pool: Option<PoolConfig>,
    /// Convolutions, one after another.
    #[config(default = "Vec::new()")]
    pub convs: Vec<ConvUnitConfig>,
    /// Parallel convolutions at the branch's end, concatenated.
    #[config(default = "Vec::new()")]
    pub split: Vec<ConvUnitConfig>,
}

impl BranchConfig {
    /// A branch that pools first.
    pub fn pooled(inputs: usize, pool: PoolConfig) -> Self {
        Self::new(inputs).with_pool(Some(pool))
    }

    /// Adds a `size`×`size` convolution that keeps the feature map's size.
    pub fn conv(self, outputs: usize, size: usize) -> Self {
        self.factor(outputs, [size, size])
    }

    /// Adds a convolution of `[height, width]`, one factor of a larger one, that keeps the feature map's size.
    pub fn factor(self, outputs: usize, kernel_size: [usize; 2]) -> Self {
        let padding = kernel_size.map(|size| size / 2);
        let conv = ConvUnitConfig::new([self.outputs(), outputs], kernel_size).with_padding(padding);
        self.then(conv)
    }

    /// Adds a 3×3 convolution without padding.
    pub fn valid(self, outputs: usize) -> Self {
        let conv = ConvUnitConfig::square(self.outputs(), outputs, 3);
        self.then(conv)
    }

    /// Adds a 3×3 convolution that halves the feature map.
    pub fn halving(self, outputs: usize, padding: usize) -> Self {
        let conv = ConvUnitConfig::square(self.outputs(), outputs, 3).strided(2).padded(padding);
        self.then(conv)
    }

    /// Ends the branch in a 1×3 and a 3×1 convolution in parallel, `outputs` channels each.
    pub fn splitting(self, outputs: usize) -> Self {
        let inputs = self.outputs();
        let conv = |kernel_size, padding| ConvUnitConfig::new([inputs, outputs], kernel_size).with_padding(padding);
        self.with_split(vec![conv([1, 3], [0, 1]), conv([3, 1], [1, 0])])
    }

    /// Output channels.
    pub fn outputs(&self) -> usize {
        match (self.split.as_slice(), self.convs.last()) {
            ([], Some(last)) => last.channels[1],
            ([], None) => self.inputs,
            (split, _) => split.iter().map(|conv| conv.channels[1]).sum(),
        }
    }

    fn then(mut self, conv: ConvUnitConfig) -> Self {
        self.convs.push(conv);
        self
    }
}

/// Configures an [`Inception`] module.
#[derive(Config, Debug)]
pub struct InceptionConfig {
    /// The branches, in the order of their concatenation.
    pub branches: Vec<BranchConfig>,
    /// Normalization of each convolution, if any.
    pub norm: Option<NormConfig>,
    /// Whether convolutions add a bias.
    #[config(default = true)]
    pub bias: bool,
    /// Weight initialization.
    #[config(default = "Init::Torch")]
    pub init: Init,
}

impl InceptionConfig {
    /// The naive module, Figure 2(a) of [Szegedy et al., 2014](https://arxiv.org/abs/1409.4842): 1×1, 3×3, 5×5 and
    /// max pooling straight from the input, so that outputs grow from module to module and 5×5 costs the most.
    pub fn naive(inputs: usize, [c1, c3, c5]: [usize; 3]) -> Self {
        let path = || BranchConfig::new(inputs);
        Self::new(vec![path().conv(c1, 1), path().conv(c3, 3), path().conv(c5, 5), BranchConfig::pooled(inputs, max())])
    }

    /// The module with dimension reduction, Figure 2(b) of
    /// [Szegedy et al., 2014](https://arxiv.org/abs/1409.4842).
    ///
    /// `widths` is a row of the paper's table: 1×1, 3×3 reduce, 3×3, 5×5 reduce, 5×5, pool projection. `large` is the
    /// kernel of the 5×5 branch: 5 in the paper, 3 in torchvision.
    pub fn v1(inputs: usize, widths: [usize; 6], large: usize) -> Self {
        let [c1, c3_reduce, c3, c5_reduce, c5, pool] = widths;
        let path = || BranchConfig::new(inputs);
        Self::new(vec![
            path().conv(c1, 1),
            path().conv(c3_reduce, 1).conv(c3, 3),
            path().conv(c5_reduce, 1).conv(c5, large),
            BranchConfig::pooled(inputs, max()).conv(pool, 1),
        ])
    }

    /// Batch normalization after each convolution, which then needs no bias.
    pub fn with_batch_norm(self, epsilon: f64) -> Self {
        self.with_norm(Some(NormConfig::batch(epsilon))).with_bias(false)
    }

    /// Output channels.
    pub fn outputs(&self) -> usize {
        self.branches.iter().map(BranchConfig::outputs).sum()
    }

    /// Makes the module; its weights are initialized on first use.
    pub fn init(&self, device: &Device) -> Inception {
        let unit = |conv: &ConvUnitConfig| {
            conv.clone().with_norm(self.norm).with_bias(self.bias).with_init(self.init).init(device)
        };
        let branch = |branch: &BranchConfig| Branch {
            pool: branch.pool.as_ref().map(PoolConfig::init),
            convs: branch.convs.iter().map(unit).collect(),
            split: branch.split.iter().map(unit).collect(),
        };
        Inception { branches: self.branches.iter().map(branch).collect() }
    }
}

/// 3×3 max pooling that keeps the feature map's size.
fn max() -> PoolConfig {
    PoolConfig::max(3, 1).with_padding([1, 1])
}

/// 3×3 average pooling that keeps the feature map's size.
fn mean() -> PoolConfig {
    PoolConfig::avg(3, 1).with_padding([1, 1])
}

/// An Inception module: parallel branches, concatenated ([Szegedy et al., 2014](https://arxiv.org/abs/1409.4842)).
#[derive(Module, Debug)]
pub struct Inception {
    branches: Vec<Branch>,
}

impl Inception {
    /// `[batch, inputs, height, width]` to `[batch, outputs, height', width']`, halved by the reductions.
    pub fn forward<M: FeatureMap>(&self, input: M) -> M {
        input.segment(self)
    }
}

impl Segment for Inception {
    fn pass<M: FeatureMap>(&self, input: M) -> M {
        side_by_side(&self.branches, input, Branch::forward)
    }
}

#[derive(Module, Debug)]
struct Branch {
    pool: Option<Pool>,
    convs: Vec<ConvUnit>,
    split: Vec<ConvUnit>,
}

impl Branch {
    fn forward<M: FeatureMap>(&self, input: M) -> M {
        let input = match &self.pool {
            Some(pool) => pool.forward(input),
            None => input,
        };
        let output = self.convs.iter().fold(input, |x, conv| conv.forward(x));
        match self.split.as_slice() {
            [] => output,
            split => side_by_side(split, output, ConvUnit::forward),
        }
    }
}

/// Runs all `paths` on `input` and concatenates their outputs.
fn side_by_side<P, M: FeatureMap>(paths: &[P], input: M, forward: impl Fn(&P, M) -> M) -> M {
    let Some((last, paths)) = paths.split_last() else { return input };
    let (mut rest, mut outputs) = (input, Vec::with_capacity(paths.len() + 1));
    for path in paths {
        let [input, others] = rest.fork();
        outputs.push(forward(path, input));
        rest = others;
    }
    outputs.push(forward(last, rest));
    M::concat(outputs)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::Symbol;
    use crate::graph::{Graph, Node};

    fn graph(config: &InceptionConfig, [inputs, size]: [usize; 2]) -> Graph {
        let module = config.init(&Device::flex());
        let graph = Symbol::record([inputs, size, size], |maps| module.forward(maps)).unwrap();
        assert_eq!(graph.output().shape[0], config.outputs());
        graph
    }

    fn macs(graph: &Graph) -> usize {
        graph.nodes().iter().map(|node| node.macs).sum()
    }

    #[test]
    fn dimension_reduction_saves_what_the_paper_says() {
        // Module 3a: 159K weights and 128M multiply-adds in the paper's table, where K is 1024.
        let widths = [64, 96, 128, 16, 32, 32];
        let reduced = graph(&InceptionConfig::v1(192, widths, 5).with_bias(false), [192, 28]);
        assert_eq!(reduced.output().shape, [256, 28, 28]);
        assert_eq!(reduced.nodes().iter().map(Node::params).sum::<usize>() / 1024, 159);
        assert_eq!(macs(&reduced) / 1_000_000, 128);

        let naive = graph(&InceptionConfig::naive(192, [64, 128, 32]), [192, 28]);
        assert_eq!(naive.output().shape, [64 + 128 + 32 + 192, 28, 28]);
        assert!(macs(&naive) > 2 * macs(&reduced));
    }

    #[test]
    fn the_receptive_field_is_that_of_the_widest_branch() {
        let fields = graph(&InceptionConfig::v1(4, [1; 6], 5), [4, 9]).receptive_fields();
        let last = fields.last().unwrap();
        assert_eq!((last.size, last.center), ([Some(5); 2], [0.0; 2]));
    }

    #[test]
    fn factorized_modules_keep_or_halve_the_feature_map() {
        let check = |config: InceptionConfig, input, output: [usize; 2]| {
            assert_eq!(graph(&config, input).output().shape, [output[0], output[1], output[1]]);
        };
        check(InceptionConfig::v2(192, [64, 64, 64, 64, 96, 32], mean()), [192, 28], [256, 28]);
        check(InceptionConfig::v2_reduction(320, [128, 160, 64, 96]), [320, 28], [576, 14]);
        check(InceptionConfig::v3_a(192, 32), [192, 35], [256, 35]);
        check(InceptionConfig::v3_b(288), [288, 35], [768, 17]);
        check(InceptionConfig::v3_c(768, 128), [768, 17], [768, 17]);
        check(InceptionConfig::v3_d(768), [768, 17], [1280, 8]);
        check(InceptionConfig::v3_e(1280), [1280, 8], [2048, 8]);
        check(InceptionConfig::v4_stem_a(64, 96), [64, 147], [160, 73]);
        check(InceptionConfig::v4_stem_b(160), [160, 73], [192, 71]);
        check(InceptionConfig::v4_stem_c(192), [192, 71], [384, 35]);
        check(InceptionConfig::v4_a(384), [384, 35], [384, 35]);
        check(InceptionConfig::reduction_a(384, [192, 224, 256, 384]), [384, 35], [1024, 17]);
        check(InceptionConfig::v4_b(1024), [1024, 17], [1024, 17]);
        check(InceptionConfig::v4_reduction_b(1024), [1024, 17], [1536, 8]);
        check(InceptionConfig::v4_c(1536), [1536, 8], [1536, 8]);
        check(InceptionConfig::resnet_stem(192), [192, 35], [320, 35]);
        check(InceptionConfig::resnet_reduction_b(1088), [1088, 17], [2080, 8]);
    }
}
