use burn::tensor::Tensor;
use convzoo_graph::Operation;

use crate::features::{FeatureMap, Layer};

/// Some of the channels of a feature map, as [ShuffleNet V2](https://arxiv.org/abs/1807.11164) splits it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Channels {
    /// The first of them.
    pub first: usize,
    /// How many.
    pub count: usize,
}

impl Layer<4> for Channels {
    fn operation(&self) -> Operation {
        Operation::Channels { first: self.first, count: self.count }
    }

    fn compute(&self, input: Tensor<4>) -> Tensor<4> {
        input.narrow(1, self.first, self.count)
    }
}

/// Channels that lie in groups one after the other take turns: the first of each group, the second of each, and so on
/// ([Zhang et al., 2017](https://arxiv.org/abs/1707.01083)). So what is grouped next mixes the groups before.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ChannelShuffle {
    /// Groups, a divisor of the channels.
    pub groups: usize,
}

impl ChannelShuffle {
    /// Keeps the shape, `[batch, channels, height, width]`.
    pub fn forward<M: FeatureMap>(&self, input: M) -> M {
        input.layer(self)
    }
}

impl Layer<4> for ChannelShuffle {
    fn operation(&self) -> Operation {
        Operation::ChannelShuffle { groups: self.groups }
    }

    fn compute(&self, input: Tensor<4>) -> Tensor<4> {
        let [batch, channels, height, width] = input.dims();
        let grouped = input.reshape([batch, self.groups, channels / self.groups, height * width]);
        grouped.swap_dims(1, 2).reshape([batch, channels, height, width])
    }
}

#[cfg(test)]
mod tests {
    use burn::tensor::Device;

    use super::*;

    #[test]
    fn shuffled_channels_take_turns_and_split_ones_stay_in_order() {
        let device = Device::flex();
        let maps = Tensor::<1>::from_floats([0.0, 1.0, 2.0, 3.0, 4.0, 5.0], &device).reshape([1, 6, 1, 1]);
        let values = |maps: Tensor<4>| maps.into_data().try_into_vec::<f32>().unwrap();
        assert_eq!(values(ChannelShuffle { groups: 2 }.forward(maps.clone())), [0.0, 3.0, 1.0, 4.0, 2.0, 5.0]);
        assert_eq!(values(ChannelShuffle { groups: 3 }.forward(maps.clone())), [0.0, 2.0, 4.0, 1.0, 3.0, 5.0]);
        assert_eq!(values(maps.channels(2, 3)), [2.0, 3.0, 4.0]);
    }
}
