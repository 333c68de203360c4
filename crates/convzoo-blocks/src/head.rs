use burn::config::Config;
use burn::module::Module;
use burn::nn::{Dropout, DropoutConfig};
use burn::tensor::Device;

use crate::features::{FeatureMap, FeatureVector, Features};
use crate::{Activation, GlobalPool, GlobalPooling, Init, Linear, LinearConfig};

/// Configures a [`ClassifierHead`].
#[derive(Config, Debug)]
pub struct ClassifierHeadConfig {
    /// Features of each layer, from the flattened feature map to the classes: `[9216, 4096, 4096, 1000]`.
    pub features: Vec<usize>,
    /// Dropout probability.
    #[config(default = 0.5)]
    pub dropout: f64,
    /// Whether dropout comes before each hidden layer (AlexNet) or after it (VGG).
    #[config(default = true)]
    pub dropout_first: bool,
    /// Activation after each hidden layer.
    #[config(default = "Activation::Relu")]
    pub activation: Activation,
    /// Weight initialization.
    #[config(default = "Init::Torch")]
    pub init: Init,
    /// Initialization of the last layer, where it differs.
    pub last_init: Option<Init>,
}

/// Fully-connected layers with dropout between them, the classifier of the early networks.
#[derive(Module, Debug)]
pub struct ClassifierHead {
    /// The layers, the last one giving the logits.
    pub layers: Vec<Linear>,
    dropout: Dropout,
    dropout_first: bool,
    #[module(skip)]
    activation: Activation,
}

impl ClassifierHeadConfig {
    /// Makes the head; its weights are initialized on first use.
    pub fn init(&self, device: &Device) -> ClassifierHead {
        let hidden = self.features.len() - 2;
        let layer = |(i, pair): (usize, &[usize])| {
            let init = if i == hidden { self.last_init.unwrap_or(self.init) } else { self.init };
            LinearConfig::new(pair[0], pair[1]).with_init(init).init(device)
        };
        ClassifierHead {
            layers: self.features.windows(2).enumerate().map(layer).collect(),
            dropout: DropoutConfig::new(self.dropout).init(),
            dropout_first: self.dropout_first,
            activation: self.activation,
        }
    }
}

impl ClassifierHead {
    /// `[batch, features]` to logits `[batch, classes]`.
    pub fn forward<V: FeatureVector>(&self, features: V) -> V {
        let last = self.layers.len() - 1;
        self.layers.iter().enumerate().fold(features, |x, (i, layer)| match i {
            _ if i == last => layer.forward(x),
            _ if self.dropout_first => layer.forward(x.dropout(&self.dropout)).activation(self.activation),
            _ => layer.forward(x).activation(self.activation).dropout(&self.dropout),
        })
    }

    /// Replaces the last layer with a newly initialized one of `classes` outputs.
    pub fn replace_classes(mut self, classes: usize) -> Self {
        if let Some(last) = self.layers.pop() {
            self.layers.push(last.replace_outputs(classes));
        }
        self
    }
}

/// Configures a [`PooledHead`].
#[derive(Config, Debug)]
pub struct PooledHeadConfig {
    /// Channels of the last feature map.
    pub features: usize,
    /// Number of classes; 0 leaves the linear layer out: the network then returns the pooled features.
    pub classes: usize,
    /// Global pooling.
    #[config(default = "GlobalPooling::Average")]
    pub global_pool: GlobalPooling,
    /// Dropout probability.
    #[config(default = 0.0)]
    pub dropout: f64,
    /// Weight initialization.
    #[config(default = "Init::Torch")]
    pub init: Init,
}

/// Global pooling, dropout and one linear layer: the head of networks since GoogLeNet.
#[derive(Module, Debug)]
pub struct PooledHead {
    /// Global pooling.
    pub pool: GlobalPool,
    dropout: Dropout,
    /// The classifier.
    pub fc: Option<Linear>,
    features: usize,
    #[module(skip)]
    init: Init,
}

impl PooledHeadConfig {
    /// Makes the head; its weights are initialized on first use.
    pub fn init(&self, device: &Device) -> PooledHead {
        PooledHead {
            pool: self.global_pool.init(),
            dropout: DropoutConfig::new(self.dropout).init(),
            fc: linear(self.features, self.classes, self.init, device),
            features: self.features,
            init: self.init,
        }
    }
}

impl PooledHead {
    /// `[batch, features, height, width]` to logits `[batch, classes]`.
    pub fn forward<M: FeatureMap>(&self, features: M) -> M::Vector {
        let features = self.pool.forward(features).flatten();
        match &self.fc {
            Some(fc) => fc.forward(features.dropout(&self.dropout)),
            None => features,
        }
    }

    /// Replaces the linear layer with a new one of `classes` outputs, its weights initialized as this one's were.
    pub fn replace_classes(self, classes: usize) -> Self {
        let device = self.fc.as_ref().map_or_else(Device::default, |fc| fc.weight.lazy_device());
        Self { fc: linear(self.features, classes, self.init, &device), ..self }
    }
}

fn linear(features: usize, classes: usize, init: Init, device: &Device) -> Option<Linear> {
    (classes > 0).then(|| LinearConfig::new(features, classes).with_init(init).init(device))
}
