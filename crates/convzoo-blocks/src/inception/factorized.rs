//! The modules of Inception v2 and v3: large convolutions as chains and factors of small ones.

use super::{BranchConfig, InceptionConfig, mean};
use crate::PoolConfig;

/// The epsilon of batch normalization in v3.
const EPSILON: f64 = 1e-3;

impl InceptionConfig {
    /// The module of [Ioffe and Szegedy, 2015](https://arxiv.org/abs/1502.03167): v1 with two 3×3 in place of 5×5.
    ///
    /// `widths` is a row of the paper's table: 1×1, 3×3 reduce, 3×3, double 3×3 reduce, double 3×3, pool projection.
    /// `pool` keeps the feature map's size: average pooling, in the network's last module max pooling.
    pub fn v2(inputs: usize, widths: [usize; 6], pool: PoolConfig) -> Self {
        let [c1, c3_reduce, c3, double_reduce, double, projection] = widths;
        let path = || BranchConfig::new(inputs);
        Self::new(vec![
            path().conv(c1, 1),
            path().conv(c3_reduce, 1).conv(c3, 3),
            path().conv(double_reduce, 1).conv(double, 3).conv(double, 3),
            BranchConfig::pooled(inputs, pool).conv(projection, 1),
        ])
        .with_batch_norm(1e-5)
    }

    /// [`v2`](Self::v2) that halves the feature map and passes the pooled input through. `widths`: 3×3 reduce, 3×3,
    /// double 3×3 reduce, double 3×3. Height and width must be even.
    pub fn v2_reduction(inputs: usize, widths: [usize; 4]) -> Self {
        let [c3_reduce, c3, double_reduce, double] = widths;
        let path = || BranchConfig::new(inputs);
        Self::new(vec![
            path().conv(c3_reduce, 1).halving(c3, 1),
            path().conv(double_reduce, 1).conv(double, 3).halving(double, 1),
            BranchConfig::pooled(inputs, PoolConfig::max(3, 2).with_ceil_mode(true)),
        ])
        .with_batch_norm(1e-5)
    }

    /// Module A of [Szegedy et al., 2015](https://arxiv.org/abs/1512.00567), Figure 5: two 3×3 for one 5×5 (in one of
    /// two branches, as the network was published), on the 35×35 feature maps.
    pub fn v3_a(inputs: usize, pool_features: usize) -> Self {
        let path = || BranchConfig::new(inputs);
        Self::new(vec![
            path().conv(64, 1),
            path().conv(48, 1).conv(64, 5),
            path().conv(64, 1).conv(96, 3).conv(96, 3),
            BranchConfig::pooled(inputs, mean()).conv(pool_features, 1),
        ])
        .with_batch_norm(EPSILON)
    }

    /// Module B, the grid reduction of Figure 10, 35×35 to 17×17: without a representational bottleneck.
    pub fn v3_b(inputs: usize) -> Self {
        let path = || BranchConfig::new(inputs);
        Self::new(vec![
            path().halving(384, 0),
            path().conv(64, 1).conv(96, 3).halving(96, 0),
            BranchConfig::pooled(inputs, PoolConfig::max(3, 2)),
        ])
        .with_batch_norm(EPSILON)
    }

    /// Module C, Figure 6: 7×7 factorized into 1×7 and 7×1, on the 17×17 feature maps; `width` channels in between.
    pub fn v3_c(inputs: usize, width: usize) -> Self {
        let path = || BranchConfig::new(inputs);
        let double = path().conv(width, 1).factor(width, [7, 1]).factor(width, [1, 7]);
        Self::new(vec![
            path().conv(192, 1),
            path().conv(width, 1).factor(width, [1, 7]).factor(192, [7, 1]),
            double.factor(width, [7, 1]).factor(192, [1, 7]),
            BranchConfig::pooled(inputs, mean()).conv(192, 1),
        ])
        .with_batch_norm(EPSILON)
    }

    /// Module D, the grid reduction from 17×17 to 8×8.
    pub fn v3_d(inputs: usize) -> Self {
        let path = || BranchConfig::new(inputs);
        Self::new(vec![
            path().conv(192, 1).halving(320, 0),
            path().conv(192, 1).factor(192, [1, 7]).factor(192, [7, 1]).halving(192, 0),
            BranchConfig::pooled(inputs, PoolConfig::max(3, 2)),
        ])
        .with_batch_norm(EPSILON)
    }

    /// Module E, Figure 7: wide rather than deep, 1×3 beside 3×1, on the 8×8 feature maps.
    pub fn v3_e(inputs: usize) -> Self {
        let path = || BranchConfig::new(inputs);
        Self::new(vec![
            path().conv(320, 1),
            path().conv(384, 1).splitting(384),
            path().conv(448, 1).conv(384, 3).splitting(384),
            BranchConfig::pooled(inputs, mean()).conv(192, 1),
        ])
        .with_batch_norm(EPSILON)
    }
}
