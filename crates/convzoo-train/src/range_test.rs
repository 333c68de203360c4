//! The learning-rate range test: Smith, "Cyclical Learning Rates for Training Neural Networks",
//! [arXiv:1506.01186](https://arxiv.org/abs/1506.01186), 2015, section 3.3.

use burn::data::dataloader::DataLoader;
use burn::module::ModuleDisplay;
use burn::tensor::TensorReadError;
use burn::train::TrainStep;
use convzoo_models::Classifier;
use convzoo_report::{Chart, Lines, Page};
use serde::Serialize;

use crate::checkpoint::State;
use crate::gradients::{Gradients, Rules};
use crate::precision::LossScale;
use crate::run::Job;
use crate::trainable::{Pending, TrainableClassifier};
use crate::{TrainError, seeds};

/// How a range test goes: a few steps of training, each at a rate by the same factor higher than the one before.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct RangeTest {
    /// The first step's rate.
    pub lowest: f64,
    /// The last step's.
    pub highest: f64,
    /// Steps, at least 2.
    pub steps: usize,
}

impl Default for RangeTest {
    fn default() -> Self {
        Self { lowest: 1e-6, highest: 10.0, steps: 100 }
    }
}

/// What a range test saw, up to the step at which the loss had risen to four times its lowest.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct RateRange {
    /// Each step's.
    pub steps: Vec<RateStep>,
    /// The rate at which the smoothed loss was lowest: about the highest that the network learns at.
    pub lowest_loss: f64,
    /// A tenth of it, a rate to train with; nothing where the loss did not rise beyond it, so that the test ended too early.
    pub suggested: Option<f64>,
}

/// A step of a range test.
#[derive(Debug, Clone, Copy, PartialEq, Serialize)]
pub struct RateStep {
    /// The learning rate.
    pub rate: f64,
    /// The mean loss of its images, before the step.
    pub loss: f64,
    /// The same, averaged over the steps before with weights that fall by a tenth from each to the one before it.
    pub smoothed: f64,
}

/// What remains of a step's weight in the smoothed loss at the next.
const SMOOTHING: f64 = 0.9;

/// The test ends when the smoothed loss has risen so many times above its lowest.
const DIVERGED: f64 = 4.0;

impl RangeTest {
    fn rate(&self, step: usize) -> f64 {
        self.lowest * (self.highest / self.lowest).powf(step as f64 / (self.steps - 1) as f64)
    }

    fn check(&self) -> Result<(), TrainError> {
        let right = self.lowest > 0.0 && self.lowest < self.highest && self.highest.is_finite() && self.steps >= 2;
        let Self { lowest, highest, steps } = self;
        match right {
            true => Ok(()),
            false => Err(TrainError::Recipe {
                field: "a range test",
                value: format!("from {lowest} to {highest} in {steps} steps"),
                expected: "from a rate above 0 to a higher one in two steps at least",
            }),
        }
    }
}

impl Job {
    /// Trains on for a test, on the first device alone, and saves nothing. `progress` is told each step.
    pub fn range_test<N: Classifier + ModuleDisplay + 'static>(
        &self,
        model: TrainableClassifier<N>,
        preprocess: &convzoo_data::Preprocess,
        test: &RangeTest,
        mut progress: impl FnMut(usize),
    ) -> Result<RateRange, TrainError> {
        test.check()?;
        let state = self.in_bytes(State::start(model, &self.recipe), preprocess)?;
        let State { mut model, mut optimizer, mut position, .. } = state;
        let plan = self.plan(&model, preprocess)?;
        let rules = Rules::of(&model.network, &self.gradient_rules);
        model = plan.freeze(model, 1);
        let loader = self.training_loader(preprocess);
        let mut losses = Smoothed::default();
        let (mut steps, mut epoch) = (Vec::new(), 0);
        'test: loop {
            epoch += 1;
            let (mut gradients, mut loss, mut images) = (Gradients::default(), 0.0, 0);
            for (number, batch) in loader.iter().enumerate() {
                let batch = batch.map_err(|error| TrainError::Unread(error.to_string()))?;
                self.device.seed(seeds::of_step(self.seed, epoch, number));
                model.scale_loss(position.loss_scale);
                let output = TrainStep::step(&model, batch);
                let figures = Pending::of(&output.item).read()?;
                gradients.add(&model, output.grads, figures.images);
                loss += figures.loss * figures.images as f64;
                images += figures.images;
                if gradients.batches() < self.recipe.accumulation && number + 1 < loader.batches() {
                    continue;
                }
                let (rate, mean) = (test.rate(steps.len()), loss / images as f64);
                let Some(smoothed) = losses.add(mean) else { break 'test };
                steps.push(RateStep { rate, loss: mean, smoothed });
                progress(steps.len());
                if steps.len() == test.steps || self.interrupter.should_stop() {
                    break 'test;
                }
                let stopped = |error: TensorReadError| TrainError::Stopped(error.to_string());
                (loss, images) = (0.0, 0);
                let taken = LossScale::take(&mut position.loss_scale, &mut gradients, &model, self.recipe.clip_norm);
                let Some(gradient) = taken.map_err(stopped)? else { continue };
                let gradient = rules.apply(&model, gradient).map_err(stopped)?;
                model = optimizer.step(plan.rates(rate), model, gradient);
            }
        }
        RateRange::of(steps)
    }
}

/// Losses, and their average as far as it goes.
#[derive(Default)]
struct Smoothed {
    sum: f64,
    weight: f64,
    lowest: Option<f64>,
}

impl Smoothed {
    /// The average with this loss; nothing where it is beyond all use.
    fn add(&mut self, loss: f64) -> Option<f64> {
        self.sum = SMOOTHING * self.sum + loss;
        self.weight = SMOOTHING * self.weight + 1.0;
        let smoothed = self.sum / self.weight;
        let lowest = self.lowest.map_or(smoothed, |lowest| lowest.min(smoothed));
        self.lowest = Some(lowest);
        (smoothed.is_finite() && smoothed <= DIVERGED * lowest).then_some(smoothed)
    }
}

impl RateRange {
    fn of(steps: Vec<RateStep>) -> Result<Self, TrainError> {
        let lowest = steps.iter().min_by(|a, b| a.smoothed.total_cmp(&b.smoothed));
        let (Some(lowest), Some(last)) = (lowest, steps.last()) else {
            return Err(TrainError::Stopped("the loss is no number before the first step".to_owned()));
        };
        let (lowest_loss, rises) = (lowest.rate, last.smoothed > lowest.smoothed);
        Ok(Self { suggested: rises.then_some(lowest_loss / 10.0), lowest_loss, steps })
    }

    /// The loss over the rates, as a page under a title.
    pub fn page(&self, title: impl Into<String>) -> Result<Page, TrainError> {
        let curve = |value: fn(&RateStep) -> f64| self.steps.iter().map(move |step| (step.rate, value(step)));
        let chart = Lines::new("Loss at rising learning rates", "learning rate", "loss on the step's images")
            .logarithmic_x()
            .series("each step's", curve(|step| step.loss))
            .series("smoothed", curve(|step| step.smoothed));
        let suggested =
            self.suggested.map_or_else(|| "–: the loss has not risen".to_owned(), |rate| format!("{rate:.2e}"));
        let rows = [
            vec!["lowest smoothed loss at".to_owned(), format!("{:.2e}", self.lowest_loss)],
            vec!["suggested: a tenth of it".to_owned(), suggested],
            vec!["steps".to_owned(), self.steps.len().to_string()],
        ];
        let page = Page::new(title).table(&["learning rate", ""], &rows).svg(&chart.svg()?, "");
        Ok(page.text(
            "Each step of training takes a higher rate than the one before. Where the smoothed loss falls, the network \
             learns; where it turns up, the rate is too high. A tenth of the rate at the lowest point is a start.",
        ))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_suggestion_is_a_tenth_of_where_the_loss_turns() {
        let test = RangeTest { lowest: 1e-4, highest: 1.0, steps: 5 };
        let range = |losses: [f64; 5]| {
            let mut smoothed = Smoothed::default();
            let steps = losses
                .iter()
                .enumerate()
                .map_while(|(at, &loss)| Some(RateStep { rate: test.rate(at), loss, smoothed: smoothed.add(loss)? }));
            RateRange::of(steps.collect()).unwrap()
        };
        let turning = range([2.0, 1.0, 0.2, 9.0, 30.0]);
        assert!((turning.lowest_loss - 1e-2).abs() < 1e-9, "{turning:?}");
        assert!((turning.suggested.unwrap() - 1e-3).abs() < 1e-9, "{turning:?}");
        assert_eq!(range([5.0, 4.0, 3.0, 2.0, 1.0]).suggested, None, "it only falls");
        assert_eq!(range([1.0, 1.0, f64::NAN, 1.0, 1.0]).steps.len(), 2);
        assert!(RateRange::of(Vec::new()).is_err());
    }
}
