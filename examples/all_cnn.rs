//! A family of networks as one file of the zoo has it: All-CNN-C of Springenberg, Dosovitskiy, Brox, Riedmiller, *Striving
//! for Simplicity: The All Convolutional Net*, [arXiv:1412.6806](https://arxiv.org/abs/1412.6806), 2014, which halves its
//! maps by strided convolutions rather than pooling. `docs/src/adding-a-network.md` quotes it.
//!
//! `cargo run --release --example all_cnn`

use burn::config::Config;
use burn::module::Module;
use burn::nn::{Dropout, DropoutConfig};
use burn::tensor::{Device, Tensor};
use convzoo::blocks::{AdaptiveAvgPool2d, ConvUnit, ConvUnitConfig, FeatureMap, Init};
use convzoo::{Classifier, Fused, Precision, Preprocessing, summarize};

// ANCHOR: config
/// Configures an [`AllCnn`].
#[derive(Config, Debug)]
pub struct AllCnnConfig {
    /// Channels of the three stages.
    #[config(default = "[96, 192, 192]")]
    pub widths: [usize; 3],
    /// Number of classes.
    #[config(default = 10)]
    pub classes: usize,
    /// Channels of the images.
    #[config(default = 3)]
    pub channels: usize,
    /// Probability of dropping a feature after each strided convolution.
    #[config(default = 0.5)]
    pub dropout: f64,
}
// ANCHOR_END: config

// ANCHOR: network
/// Nine convolutions, two of which halve the map, and the mean of each class's map.
#[derive(Module, Debug)]
pub struct AllCnn {
    stages: Vec<Vec<ConvUnit>>,
    classifier: ConvUnit,
    dropout: Dropout,
    avgpool: AdaptiveAvgPool2d,
}

impl AllCnnConfig {
    /// Makes the network; its weights are drawn when first used.
    pub fn init(&self, device: &Device) -> AllCnn {
        let [a, b, c] = self.widths;
        let conv = |inputs, outputs, size| ConvUnitConfig::square(inputs, outputs, size).with_init(INIT);
        let same = |inputs, outputs| conv(inputs, outputs, 3).padded(1);
        let stages = [
            vec![same(self.channels, a), same(a, a), same(a, a).strided(2)],
            vec![same(a, b), same(b, b), same(b, b).strided(2)],
            vec![conv(b, c, 3), conv(c, c, 1)],
        ];
        AllCnn {
            stages: stages.map(|stage| stage.iter().map(|conv| conv.init(device)).collect()).into(),
            classifier: conv(c, self.classes, 1).init(device),
            dropout: DropoutConfig::new(self.dropout).init(),
            avgpool: AdaptiveAvgPool2d::new([1, 1]),
        }
    }
}

const INIT: Init = Init::KaimingNormalFanIn;
// ANCHOR_END: network

// ANCHOR: forward
impl Classifier for AllCnn {
    fn forward_features<M: FeatureMap>(&self, images: M) -> M {
        let last = self.stages.len() - 1;
        self.stages.iter().enumerate().fold(images, |x, (i, stage)| {
            let x = stage.iter().fold(x, |x, conv| conv.forward(x));
            if i == last { x } else { x.dropout(&self.dropout) }
        })
    }

    fn forward_head<M: FeatureMap>(&self, features: M) -> M::Vector {
        self.avgpool.forward(self.classifier.forward(features)).flatten()
    }

    fn replace_head(self, classes: usize) -> Self {
        let fresh = self.classifier.replace_outputs(classes).expect("the classifier is a plain 1×1 convolution");
        Self { classifier: fresh, ..self }
    }

    fn preprocessing(&self) -> Preprocessing {
        Preprocessing::small(32)
    }

    /// The paper's own counting, from one.
    fn reference_name(&self, path: &[&str]) -> String {
        match path {
            ["stages", stage, conv, "conv", tensor] => {
                let number = |part: &str| part.parse::<usize>().unwrap_or_default();
                format!("conv{}.{tensor}", 3 * number(stage) + number(conv) + 1)
            }
            ["classifier", "conv", tensor] => format!("conv9.{tensor}"),
            _ => path.join("."),
        }
    }
}
// ANCHOR_END: forward

fn main() -> Result<(), Box<dyn std::error::Error>> {
    let device = Device::flex();
    let network = AllCnnConfig::new().init(&device);
    // The paper says "≈ 1.3 M"; its table of layers makes 1,369,738.
    let summary = summarize(&network, [3, 32, 32])?;
    for layer in &summary.layers {
        println!("{:<8} {:<18} {:?}", layer.name, layer.kind, layer.output);
    }
    println!("{} parameters", summary.params);
    assert_eq!(summary.params, 1_369_738);

    // All that reads a network's graph reads this one's: its compiled form gives the same logits.
    let images = Tensor::ones([1, 3, 32, 32], &device);
    let compiled = Fused::new(&network, [3, 32, 32], Precision::F32)?.forward(images.clone())?;
    let difference = (compiled - network.forward(images)).abs().max().into_scalar::<f32>();
    println!("compiled, its logits differ by {difference:.1e} at most");
    Ok(())
}
