//! Training and evaluating image classifiers: any [`Classifier`](convzoo_models::Classifier) on any
//! [`Dataset`](convzoo_data::Dataset), by a [`Recipe`], on burn-train.

mod checkpoint;
mod error;
mod evaluate;
mod history;
mod loader;
mod mix;
mod preprocess;
mod progress;
mod recipe;
mod run;
mod step;

pub use error::TrainError;
pub use evaluate::{Evaluation, Views, evaluate};
pub use history::{Epoch, Measures, RunRecord, RunStatus};
pub use loader::{Batch, Loader, Partners};
pub use mix::Mix;
pub use preprocess::preprocess;
pub use recipe::{Optimizer, Recipe, Schedule};
pub use run::{Outcome, Trainer};
