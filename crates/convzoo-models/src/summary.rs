use burn::tensor::Tensor;
use convzoo_blocks::observe::{self, Mode, ReceptiveField, Record};
use serde::Serialize;

use crate::Classifier;
use crate::names::name_tree;

/// A network layer by layer, as an observed pass of one image saw it.
#[derive(Debug, Clone, Serialize)]
pub struct Summary {
    /// Channels, height and width of the input.
    pub input: [usize; 3],
    /// Trainable parameters of the whole network, auxiliary classifiers included.
    pub params: usize,
    /// Multiply-adds of convolutions and linear layers for one image in inference.
    pub macs: usize,
    /// In the order of their calls.
    pub layers: Vec<LayerSummary>,
}

/// One layer of a [`Summary`].
#[derive(Debug, Clone, Serialize)]
pub struct LayerSummary {
    /// Its name in the reference's state dict.
    pub name: String,
    /// PyTorch's name for the kind of layer.
    pub kind: &'static str,
    /// Output shape without the batch.
    pub output: Vec<usize>,
    /// Trainable parameters.
    pub params: usize,
    /// Multiply-adds for one image.
    pub macs: usize,
    /// Height and width of what a cell of the output sees; `null` is all of the input.
    pub receptive_field: [Option<usize>; 2],
    /// Input pixels between neighbouring cells, vertically and horizontally.
    pub receptive_stride: [usize; 2],
    /// Input coordinates at the centre of the first cell's field.
    pub receptive_center: [f64; 2],
    /// Bytes of the output for one image in f32.
    pub activation_bytes: usize,
}

/// Summarises `network` for an image of `input`, `[channels, height, width]`, without computing anything: the pass
/// runs on shapes alone, on the flex or the network's own device.
pub fn summarize<N: Classifier>(network: &N, input: [usize; 3]) -> Summary {
    of_pass(network, input, |images| {
        network.forward(images);
    })
}

/// [`summarize`] for the layers in front of the head: those of [`Classifier::forward_features`].
pub fn summarize_features<N: Classifier>(network: &N, input: [usize; 3]) -> Summary {
    of_pass(network, input, |images| {
        network.forward_features(images);
    })
}

fn of_pass<N: Classifier>(network: &N, input: [usize; 3], pass: impl FnOnce(Tensor<4>)) -> Summary {
    let [channels, height, width] = input;
    let device = network.devices().into_iter().next().unwrap_or_default();
    let images = Tensor::zeros([1, channels, height, width], &device);
    let ((), records) = observe::records(Mode::Shapes, || pass(images));
    Summary::from_records(network, input, &records)
}

impl Summary {
    /// Names what an observed pass over images of `input`, `[channels, height, width]`, has recorded.
    pub fn from_records<N: Classifier>(network: &N, input: [usize; 3], records: &[Record]) -> Self {
        let tree = name_tree(network, &network.names());
        let layers = records.iter().map(|record| {
            let ReceptiveField { size, stride, center } = record.field;
            let output = record.output[1..].to_vec();
            LayerSummary {
                name: tree.layers.get(&record.id).cloned().unwrap_or_default(),
                kind: record.kind,
                params: record.params,
                macs: record.macs,
                receptive_field: size,
                receptive_stride: stride,
                receptive_center: center,
                activation_bytes: output.iter().product::<usize>() * size_of::<f32>(),
                output,
            }
        });
        let parameters = tree.state.iter().filter(|entry| entry.parameter);
        Self {
            input,
            params: parameters.map(|entry| entry.shape.iter().product::<usize>()).sum(),
            macs: records.iter().map(|record| record.macs).sum(),
            layers: layers.collect(),
        }
    }

    /// Bytes that inference on a batch needs at least, in f32: the weights and the two largest neighbouring outputs.
    pub fn inference_bytes(&self, batch: usize) -> usize {
        let outputs = self.layers.windows(2).map(|pair| pair[0].activation_bytes + pair[1].activation_bytes);
        self.params * size_of::<f32>() + batch * outputs.max().unwrap_or(0)
    }

    /// Bytes that a training step with momentum needs at least, in f32: weights, gradients, momenta and all outputs.
    pub fn training_bytes(&self, batch: usize) -> usize {
        let outputs: usize = self.layers.iter().map(|layer| layer.activation_bytes).sum();
        3 * self.params * size_of::<f32>() + batch * outputs
    }
}
