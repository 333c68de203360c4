//! What on the command line overrides the recipe.

use std::str::FromStr;

use super::super::select::NetworkArgs;

/// Where help lists what a recipe has a value for.
const RECIPE: &str = "Options that override the recipe";

/// What overrides the recipe.
#[derive(clap::Args)]
pub struct Overrides {
    /// Passes over the training images
    #[arg(long, value_name = "N", help_heading = RECIPE)]
    pub epochs: Option<usize>,
    /// Images per batch, or `auto` for the size of 8, 16, 32 … up to 1024 and a tenth of the images that trains fastest here,
    /// found by trying
    #[arg(long = "batch", alias = "batch-size", value_name = "N|auto", help_heading = RECIPE)]
    pub batch_size: Option<BatchSize>,
    /// The optimizer: sgd, adam, adamw or rmsprop
    #[arg(long, value_name = "KIND", help_heading = RECIPE)]
    optimizer: Option<String>,
    /// The highest learning rate
    #[arg(long, visible_alias = "lr", value_name = "RATE", allow_negative_numbers = true, help_heading = RECIPE)]
    learning_rate: Option<f64>,
    /// The learning-rate schedule: constant, step, multi-step, cosine, linear, one-cycle or plateau
    #[arg(long, value_name = "KIND", help_heading = RECIPE)]
    schedule: Option<String>,
    /// Momentum of sgd or rmsprop
    #[arg(long, value_name = "M", allow_negative_numbers = true, help_heading = RECIPE)]
    momentum: Option<f64>,
    /// L2 penalty, or adamw's decoupled decay
    #[arg(long, value_name = "W", allow_negative_numbers = true, help_heading = RECIPE)]
    weight_decay: Option<f64>,
    /// Label smoothing: the share of the target spread over all classes
    #[arg(long, value_name = "S", allow_negative_numbers = true, help_heading = RECIPE)]
    label_smoothing: Option<f64>,
    /// Weight of each auxiliary classifier's loss
    #[arg(long, value_name = "W", allow_negative_numbers = true, help_heading = RECIPE)]
    auxiliary_weight: Option<f64>,
    /// Numbers in which activations and their gradients are kept and multiplied: f32, bf16 or f16; weights, optimizer and
    /// statistics stay in f32
    #[arg(long, value_name = "NUMBERS", help_heading = RECIPE)]
    precision: Option<String>,
    /// Keep only the inputs of blocks and compute each block again in the backward pass: less memory, one more forward pass
    #[arg(long, help_heading = RECIPE)]
    checkpointing: bool,
    /// Freeze the weights up to this layer or block, named as `convzoo summary` names it, or `backbone` for all
    /// before the head
    #[arg(long, value_name = "LAYER", help_heading = RECIPE)]
    freeze: Option<String>,
    /// Any field of the recipe, as in its file: `ema=0.999`, `schedule.milestones=[30,60]`, `augment.random_crop=4`;
    /// `none` takes the default. May be given often
    #[arg(long, value_name = "KEY=VALUE", value_parser = key_and_value, help_heading = RECIPE)]
    set: Vec<(String, String)>,
}

/// `--batch`.
#[derive(Clone, Copy, PartialEq, Eq)]
pub enum BatchSize {
    Auto,
    Images(usize),
}

impl FromStr for BatchSize {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        match text {
            "auto" => Ok(Self::Auto),
            _ => text.parse().map(Self::Images).map_err(|_| "expected a number of images, or auto".to_owned()),
        }
    }
}

fn key_and_value(text: &str) -> Result<(String, String), String> {
    let (key, value) = text.split_once('=').ok_or("expected KEY=VALUE, such as ema=0.999")?;
    Ok((key.trim().to_owned(), value.trim().to_owned()))
}

impl Overrides {
    /// As changes of a recipe, those of `--set` last.
    pub fn changes(&self, network: &NetworkArgs) -> Vec<(String, String)> {
        fn text<T: ToString>(value: &Option<T>) -> Option<String> {
            value.as_ref().map(T::to_string)
        }
        let images = self.batch_size.and_then(|size| match size {
            BatchSize::Images(images) => Some(images.to_string()),
            BatchSize::Auto => None,
        });
        let named = [
            ("epochs", text(&self.epochs)),
            ("batch_size", images),
            ("optimizer", self.optimizer.clone()),
            ("learning_rate", text(&self.learning_rate)),
            ("schedule", self.schedule.clone()),
            ("optimizer.momentum", text(&self.momentum)),
            ("weight_decay", text(&self.weight_decay)),
            ("label_smoothing", text(&self.label_smoothing)),
            ("auxiliary_weight", text(&self.auxiliary_weight)),
            ("precision", self.precision.clone()),
            ("checkpointing", self.checkpointing.then(|| "true".to_owned())),
            ("transfer.freeze", self.freeze.clone()),
            ("dropout", text(&network.dropout)),
            ("drop_path", text(&network.drop_path)),
        ];
        let named = named.into_iter().filter_map(|(key, value)| Some((key.to_owned(), value?)));
        named.chain(self.set.iter().cloned()).collect()
    }
}
