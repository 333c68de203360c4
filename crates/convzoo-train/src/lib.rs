//! Training and evaluating image classifiers: any [`Classifier`](convzoo_models::Classifier) on any
//! [`Dataset`](convzoo_data::Dataset), by a [`Recipe`], on burn-train.

mod average;
mod checkpoint;
mod class_weights;
mod dashboard;
mod error;
mod evaluate;
mod events;
mod features;
mod fit;
mod folder;
mod gradients;
mod history;
mod listing;
mod loader;
mod mix;
mod named;
mod optimizer;
mod precision;
mod preprocess;
mod progress;
mod quantization;
mod range_test;
mod recipe;
pub mod report;
mod run;
mod schedule;
mod seeds;
mod several;
mod sgd;
#[cfg(feature = "tui")]
mod terminal;
mod trainable;
mod trainer;
mod transfer;

pub use checkpoint::load_state;
pub use class_weights::ClassWeights;
pub use error::TrainError;
pub use evaluate::{ClassFigures, Ensemble, Evaluation, Member, Mistake, Views, evaluate, evaluate_ensemble};
pub use gradients::GradientRule;
pub use history::{Epoch, HeldOut, Measures, RunRecord, RunStatus};
pub use loader::{Batch, Loader, Partners};
pub use mix::Mix;
pub use named::{recipe_names, recipe_text};
pub use optimizer::Optimizer;
pub use precision::Precision;
pub use progress::{Event, Progress};
pub use quantization::QuantizationAware;
pub use range_test::{RangeTest, RateRange, RateStep};
pub use recipe::{Monitor, Recipe};
pub use schedule::Schedule;
pub use sgd::{Sgd, Velocity};
#[cfg(feature = "tui")]
pub use terminal::restore_terminal;
pub use trainable::{CrossEntropy, Loss, TrainableClassifier};
pub use trainer::{Outcome, Resources, Saving, Trainer};
pub use transfer::Transfer;
