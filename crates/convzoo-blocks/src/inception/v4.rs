//! The modules of Inception-v4, and those that Inception-ResNet shares or varies
//! ([Szegedy et al., 2016](https://arxiv.org/abs/1602.07261)).

use super::{BranchConfig, InceptionConfig, mean};
use crate::PoolConfig;

/// The epsilon of batch normalization.
const EPSILON: f64 = 1e-3;

/// Average pooling that does not count the padding.
fn mean_inside() -> PoolConfig {
    mean().with_count_include_pad(false)
}

fn halving_max(inputs: usize) -> BranchConfig {
    BranchConfig::pooled(inputs, PoolConfig::max(3, 2))
}

impl InceptionConfig {
    /// The stem's first branching, Figure 3: max pooling beside a convolution, 147×147 to 73×73.
    pub fn v4_stem_a(inputs: usize, outputs: usize) -> Self {
        let conv = BranchConfig::new(inputs).halving(outputs, 0);
        Self::new(vec![halving_max(inputs), conv]).with_batch_norm(EPSILON)
    }

    /// The stem's second branching, Figure 3: 3×3 with and without factorized 7×7 before it, 73×73 to 71×71.
    pub fn v4_stem_b(inputs: usize) -> Self {
        let reduce = || BranchConfig::new(inputs).conv(64, 1);
        let factors = reduce().factor(64, [1, 7]).factor(64, [7, 1]);
        Self::new(vec![reduce().valid(96), factors.valid(96)]).with_batch_norm(EPSILON)
    }

    /// The stem's third branching, Figure 3: a convolution beside max pooling, 71×71 to 35×35.
    pub fn v4_stem_c(inputs: usize) -> Self {
        let conv = BranchConfig::new(inputs).halving(inputs, 0);
        Self::new(vec![conv, halving_max(inputs)]).with_batch_norm(EPSILON)
    }

    /// Inception-A, Figure 4, on the 35×35 feature maps.
    pub fn v4_a(inputs: usize) -> Self {
        let path = || BranchConfig::new(inputs);
        Self::new(vec![
            path().conv(96, 1),
            path().conv(64, 1).conv(96, 3),
            path().conv(64, 1).conv(96, 3).conv(96, 3),
            BranchConfig::pooled(inputs, mean_inside()).conv(96, 1),
        ])
        .with_batch_norm(EPSILON)
    }

    /// Reduction-A, Figure 7, 35×35 to 17×17, with the widths k, l, m, n of the paper's Table 1: 192, 224, 256, 384 in
    /// Inception-v4 and 256, 256, 384, 384 in Inception-ResNet-v2.
    pub fn reduction_a(inputs: usize, [k, l, m, n]: [usize; 4]) -> Self {
        let path = || BranchConfig::new(inputs);
        Self::new(vec![path().halving(n, 0), path().conv(k, 1).conv(l, 3).halving(m, 0), halving_max(inputs)])
            .with_batch_norm(EPSILON)
    }

    /// Inception-B, Figure 5, on the 17×17 feature maps.
    pub fn v4_b(inputs: usize) -> Self {
        let path = || BranchConfig::new(inputs);
        let double = path().conv(192, 1).factor(192, [7, 1]).factor(224, [1, 7]);
        Self::new(vec![
            path().conv(384, 1),
            path().conv(192, 1).factor(224, [1, 7]).factor(256, [7, 1]),
            double.factor(224, [7, 1]).factor(256, [1, 7]),
            BranchConfig::pooled(inputs, mean_inside()).conv(128, 1),
        ])
        .with_batch_norm(EPSILON)
    }

    /// Reduction-B of Inception-v4, Figure 8, 17×17 to 8×8.
    pub fn v4_reduction_b(inputs: usize) -> Self {
        let path = || BranchConfig::new(inputs);
        Self::new(vec![
            path().conv(192, 1).halving(192, 0),
            path().conv(256, 1).factor(256, [1, 7]).factor(320, [7, 1]).halving(320, 0),
            halving_max(inputs),
        ])
        .with_batch_norm(EPSILON)
    }

    /// Inception-C, Figure 6, on the 8×8 feature maps.
    pub fn v4_c(inputs: usize) -> Self {
        let path = || BranchConfig::new(inputs);
        Self::new(vec![
            path().conv(256, 1),
            path().conv(384, 1).splitting(256),
            path().conv(384, 1).factor(448, [3, 1]).factor(512, [1, 3]).splitting(256),
            BranchConfig::pooled(inputs, mean_inside()).conv(256, 1),
        ])
        .with_batch_norm(EPSILON)
    }

    /// The Inception module before Inception-ResNet-v2's first residual module, on the 35×35 feature maps.
    pub fn resnet_stem(inputs: usize) -> Self {
        let path = || BranchConfig::new(inputs);
        Self::new(vec![
            path().conv(96, 1),
            path().conv(48, 1).conv(64, 5),
            path().conv(64, 1).conv(96, 3).conv(96, 3),
            BranchConfig::pooled(inputs, mean_inside()).conv(64, 1),
        ])
        .with_batch_norm(EPSILON)
    }

    /// Reduction-B of Inception-ResNet-v2, Figure 18, 17×17 to 8×8.
    pub fn resnet_reduction_b(inputs: usize) -> Self {
        let path = || BranchConfig::new(inputs);
        Self::new(vec![
            path().conv(256, 1).halving(384, 0),
            path().conv(256, 1).halving(288, 0),
            path().conv(256, 1).conv(288, 3).halving(320, 0),
            halving_max(inputs),
        ])
        .with_batch_norm(EPSILON)
    }
}
