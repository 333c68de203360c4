//! A network of your own, trained and measured like those of the zoo: a module that implements `Classifier`.
//!
//! `cargo run --release --example own_network`

use burn::module::Module;
use burn::tensor::{Device, Tensor};
use burn::train::Interrupter;
use convzoo::blocks::{AdaptiveAvgPool2d, ConvUnit, ConvUnitConfig, Linear, LinearConfig};
use convzoo::data::{Source, open};
use convzoo::train::{Event, Recipe, Resources, Saving, Trainer};
use convzoo::{Classifier, Preprocessing, preprocess, summarize};

/// Three strided convolutions and the mean of what they leave.
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
    fn forward_features(&self, images: Tensor<4>) -> Tensor<4> {
        self.convs.iter().fold(images, |x, conv| conv.forward(x))
    }

    fn forward_head(&self, features: Tensor<4>) -> Tensor<2> {
        self.fc.forward(self.pool.forward(features).flatten(1, 3))
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
    println!("{} parameters", summarize(&network, input).params);

    let first = data.train.get(0)?.image;
    let folder = tempfile::tempdir()?;
    let trainer = Trainer {
        preprocess: preprocess(&network.preprocessing(), input, &first),
        network,
        data,
        recipe: Recipe { epochs: 5, ..Recipe::default() },
        recipe_name: None,
        seed: 0,
        device,
        device_name: "flex".to_owned(),
        out: folder.path().join("run"),
        saving: Saving::default(),
        resources: Resources::default(),
        command: std::env::args().collect(),
        setup: Default::default(),
        dashboard: false,
        interrupter: Interrupter::new(),
    };
    let outcome = trainer.start(|event| {
        if let Event::Epoch(epoch, _) = event {
            println!("epoch {}: {:.1}% of the test images", epoch.epoch, 100.0 * epoch.test.accuracy);
        }
    })?;
    println!("best: {:?}", outcome.best.map(|best| best.test.accuracy));
    Ok(())
}
