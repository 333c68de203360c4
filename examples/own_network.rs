//! A network of your own, trained and measured like those of the zoo: a module that implements `Classifier`.
//!
//! `cargo run --release --example own_network`

use burn::module::Module;
use burn::tensor::Device;
use convzoo::blocks::{AdaptiveAvgPool2d, ConvUnit, ConvUnitConfig, FeatureMap, Linear, LinearConfig};
use convzoo::data::{Source, open};
use convzoo::train::{Event, Recipe, Trainer};
use convzoo::{Classifier, Preprocessing, summarize};

/// Three strided convolutions and global average pooling.
#[derive(Module, Debug)]
struct Small {
    convs: Vec<ConvUnit>,
    pool: AdaptiveAvgPool2d,
    fc: Linear,
}

impl Small {
    fn new(classes: usize, device: &Device) -> Self {
        let conv = |inputs, outputs| ConvUnitConfig::square(inputs, outputs, 3).strided(2).padded(1).with_batch_norm();
        Self {
            convs: [(1, 16), (16, 32), (32, 64)].map(|(i, o)| conv(i, o).init(device)).into(),
            pool: AdaptiveAvgPool2d::new([1, 1]),
            fc: LinearConfig::new(64, classes).init(device),
        }
    }
}

impl Classifier for Small {
    fn forward_features<M: FeatureMap>(&self, images: M) -> M {
        self.convs.iter().fold(images, |x, conv| conv.forward(x))
    }

    fn forward_head<M: FeatureMap>(&self, features: M) -> M::Vector {
        self.fc.forward(self.pool.forward(features).flatten())
    }

    fn replace_head(self, classes: usize) -> Self {
        Self { fc: self.fc.replace_outputs(classes), ..self }
    }

    fn preprocessing(&self) -> Preprocessing {
        Preprocessing::small(32)
    }
}

fn main() -> Result<(), Box<dyn std::error::Error>> {
    let device = Device::flex();
    let data = open("digits", &Source::default())?;
    let input = [1, 32, 32];
    let network = Small::new(data.classes().len(), &device.clone().autodiff());
    println!("{} parameters", summarize(&network, input)?.params);

    let folder = tempfile::tempdir()?;
    let trainer =
        Trainer::new(network, data).recipe(Recipe { epochs: 5, ..Recipe::default() }).out(folder.path().join("run"));
    let outcome = trainer.start(|event| {
        if let Event::Epoch(epoch, _) = event {
            println!("epoch {}: {:.1}% of the test images", epoch.epoch, 100.0 * epoch.held_out.measures().accuracy);
        }
    })?;
    println!("best: {:?}", outcome.best.map(|best| best.held_out.measures().accuracy));
    Ok(())
}
