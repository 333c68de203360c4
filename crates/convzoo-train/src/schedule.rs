use std::f64::consts::PI;

use serde::{Deserialize, Serialize};

use crate::recipe::Wants;
use crate::{Measures, Monitor, Recipe, TrainError};

/// The learning-rate schedule. Epochs are counted from the run's beginning, warm-up included.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(tag = "kind", rename_all = "kebab-case", deny_unknown_fields)]
pub enum Schedule {
    /// It stays.
    Constant {},
    /// It is multiplied by `factor` after `every` so many epochs.
    Step {
        /// Epochs between falls.
        every: usize,
        /// What it falls to.
        #[serde(default = "tenth")]
        factor: f64,
    },
    /// It is multiplied by `factor` after each of these epochs.
    MultiStep {
        /// Epochs after which it falls.
        milestones: Vec<usize>,
        /// What it falls to.
        #[serde(default = "tenth")]
        factor: f64,
    },
    /// It falls along half a cosine, step by step, to `end` at the last one.
    Cosine {
        /// The rate at the end.
        #[serde(default)]
        end: f64,
    },
    /// It falls linearly, step by step, to `end` at the last one.
    Linear {
        /// The rate at the end.
        #[serde(default)]
        end: f64,
    },
    /// It rises along half a cosine to the recipe's rate and falls along another, step by step
    /// ([arXiv:1708.07120](https://arxiv.org/abs/1708.07120)); momentum stays.
    OneCycle {
        /// Share of the steps in which it rises.
        #[serde(default = "three_tenths")]
        rise: f64,
        /// The recipe's rate divided by this is the first.
        #[serde(default = "twenty_five")]
        start_divisor: f64,
        /// The first rate divided by this is the last.
        #[serde(default = "ten_thousand")]
        end_divisor: f64,
    },
    /// It is multiplied by `factor` when more than `patience` epochs in a row were not better by a share of
    /// `threshold`; the recipe's `monitor` says what better is.
    Plateau {
        /// What it falls to.
        #[serde(default = "tenth")]
        factor: f64,
        /// Epochs that may be no better.
        #[serde(default = "ten")]
        patience: usize,
        /// The least gain, as a share of the best value.
        #[serde(default = "ten_thousandth")]
        threshold: f64,
        /// It falls no lower than this.
        #[serde(default)]
        minimum: f64,
    },
}

fn tenth() -> f64 {
    0.1
}

fn three_tenths() -> f64 {
    0.3
}

fn twenty_five() -> f64 {
    25.0
}

fn ten_thousand() -> f64 {
    1e4
}

fn ten_thousandth() -> f64 {
    1e-4
}

fn ten() -> usize {
    10
}

impl Schedule {
    pub(crate) fn check(&self, recipe: &Recipe, wants: Wants) -> Result<(), TrainError> {
        let fall = |factor: f64| wants("schedule.factor", &factor, "above 0 and below 1", factor > 0.0 && factor < 1.0);
        let lowest = |field, rate: f64| {
            wants(field, &rate, "at least 0 and below learning_rate", (0.0..recipe.learning_rate).contains(&rate))
        };
        match self {
            Self::Constant {} => Ok(()),
            Self::Step { every, factor } => {
                wants("schedule.every", every, "at least 1", *every > 0)?;
                fall(*factor)
            }
            Self::MultiStep { milestones, factor } => {
                let ascending = milestones.is_sorted_by(|a, b| a < b) && milestones.first().is_some_and(|&m| m > 0);
                wants("schedule.milestones", &format!("{milestones:?}"), "ascending epochs from 1", ascending)?;
                fall(*factor)
            }
            Self::Cosine { end } | Self::Linear { end } => lowest("schedule.end", *end),
            Self::OneCycle { rise, start_divisor, end_divisor } => {
                wants("schedule.rise", rise, "above 0 and below 1", *rise > 0.0 && *rise < 1.0)?;
                wants("schedule.start_divisor", start_divisor, "at least 1", *start_divisor >= 1.0)?;
                wants("schedule.end_divisor", end_divisor, "at least 1", *end_divisor >= 1.0)?;
                let warmup = recipe.warmup_epochs;
                wants("warmup_epochs", &warmup, "0 with the schedule one-cycle, which has its own", warmup == 0.0)
            }
            Self::Plateau { factor, threshold, minimum, .. } => {
                fall(*factor)?;
                wants("schedule.threshold", threshold, "at least 0 and below 1", (0.0..1.0).contains(threshold))?;
                lowest("schedule.minimum", *minimum)
            }
        }
    }
}

impl Recipe {
    /// The rate of `step`, counted from 0, in a run with `steps_per_epoch`, on a `plateau` that is reached or not.
    pub(crate) fn rate(&self, step: usize, steps_per_epoch: usize, plateau: &Plateau) -> f64 {
        let warmup = (self.warmup_epochs * steps_per_epoch as f64).round();
        let (at, epoch) = (step as f64, step / steps_per_epoch);
        if at < warmup {
            return self.learning_rate * (self.warmup_start + (1.0 - self.warmup_start) * at / warmup);
        }
        let steps = self.epochs as f64 * steps_per_epoch as f64;
        let share = (at - warmup) / (steps - warmup);
        let rate = self.learning_rate;
        match &self.schedule {
            Schedule::Constant {} => rate,
            Schedule::Step { every, factor } => rate * factor.powi((epoch / every) as i32),
            Schedule::MultiStep { milestones, factor } => {
                rate * factor.powi(milestones.iter().filter(|&&milestone| milestone <= epoch).count() as i32)
            }
            Schedule::Cosine { end } => cosine(rate, *end, share),
            Schedule::Linear { end } => rate + (end - rate) * share,
            Schedule::OneCycle { rise, start_divisor, end_divisor } => {
                let start = rate / start_divisor;
                // PyTorch counts the steps between the first and the highest, and between that and the last.
                let top = (rise * steps - 1.0).max(0.0);
                match at <= top && top > 0.0 {
                    true => cosine(start, rate, at / top),
                    false => cosine(rate, start / end_divisor, (at - top) / (steps - 1.0 - top).max(1.0)),
                }
            }
            Schedule::Plateau { factor, minimum, .. } => (rate * factor.powi(plateau.falls as i32)).max(*minimum),
        }
    }
}

/// From `from` to `to` along half a cosine.
fn cosine(from: f64, to: f64, share: f64) -> f64 {
    to + 0.5 * (from - to) * (1.0 + (share * PI).cos())
}

/// What the schedule [`Schedule::Plateau`] remembers from epoch to epoch.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
pub(crate) struct Plateau {
    /// How often the rate has fallen.
    pub falls: usize,
    /// The best value of what is monitored.
    best: Option<f64>,
    /// Epochs in a row without a better one.
    bad: usize,
}

impl Plateau {
    /// Is told how an epoch's test went.
    pub fn epoch(&mut self, recipe: &Recipe, test: &Measures) {
        let Schedule::Plateau { patience, threshold, .. } = recipe.schedule else { return };
        let value = match recipe.monitor {
            Monitor::Accuracy => test.accuracy,
            Monitor::Loss => test.loss,
        };
        let better = self.best.is_none_or(|best| match recipe.monitor {
            Monitor::Accuracy => value > best * (1.0 + threshold),
            Monitor::Loss => value < best * (1.0 - threshold),
        });
        if better {
            (self.best, self.bad) = (Some(value), 0);
        } else {
            self.bad += 1;
        }
        if self.bad > patience {
            self.falls += 1;
            self.bad = 0;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn near(name: &str, own: &[f64], expected: &[f64]) {
        assert_eq!(own.len(), expected.len());
        for (step, (own, expected)) in own.iter().zip(expected).enumerate() {
            assert!((own - expected).abs() < 1e-9, "{name}, step {step}: {own}, in PyTorch {expected}");
        }
    }

    /// The rates of six epochs of two steps.
    fn rates(schedule: Schedule, warmup_epochs: f64) -> Vec<f64> {
        let recipe = Recipe { epochs: 6, learning_rate: 0.1, schedule, warmup_epochs, ..Recipe::default() };
        recipe.check().unwrap();
        (0..12).map(|step| recipe.rate(step, 2, &Plateau::default())).collect()
    }

    /// `crates/convzoo-train/tests/torch.py` printed them, with PyTorch 2.9.0.
    #[test]
    fn schedules_go_as_pytorchs_do() {
        let cosine = [
            0.1,
            0.0984666622,
            0.0939711432,
            0.0868198052,
            0.0775,
            0.066646857,
            0.055,
            0.043353143,
            0.0325,
            0.0231801948,
            0.0160288568,
            0.0115333378,
        ];
        near("cosine", &rates(Schedule::Cosine { end: 0.01 }, 0.0), &cosine);
        let linear = [0.1, 0.0925, 0.085, 0.0775, 0.07, 0.0625, 0.055, 0.0475, 0.04, 0.0325, 0.025, 0.0175];
        near("linear", &rates(Schedule::Linear { end: 0.01 }, 0.0), &linear);
        let warm = [
            0.01,
            0.0325,
            0.055,
            0.0775,
            0.1,
            0.0961939766,
            0.0853553391,
            0.0691341716,
            0.05,
            0.0308658284,
            0.0146446609,
            0.00380602337,
        ];
        near("cosine after a warm-up", &rates(Schedule::Cosine { end: 0.0 }, 2.0), &warm);
        let one_cycle = [
            0.004,
            0.0349789654,
            0.0879285159,
            0.0994415435,
            0.093301297,
            0.0811745654,
            0.0647378998,
            0.0462637103,
            0.0283060998,
            0.013347753,
            0.00345669874,
            4e-7,
        ];
        let schedule = Schedule::OneCycle { rise: 0.3, start_divisor: 25.0, end_divisor: 1e4 };
        near("one-cycle", &rates(schedule, 0.0), &one_cycle);
        let one_cycle = [
            0.01,
            0.055,
            0.1,
            0.0969876464,
            0.0883139199,
            0.075025,
            0.0587237265,
            0.0413762735,
            0.025075,
            0.0117860801,
            0.00311235359,
            0.0001,
        ];
        let schedule = Schedule::OneCycle { rise: 0.25, start_divisor: 10.0, end_divisor: 100.0 };
        near("another one-cycle", &rates(schedule, 0.0), &one_cycle);
        // By epochs of two steps.
        let doubled = |rates: [f64; 6]| rates.map(|rate| [rate, rate]).concat();
        let step = doubled([0.1, 0.1, 0.05, 0.05, 0.025, 0.025]);
        near("step", &rates(Schedule::Step { every: 2, factor: 0.5 }, 0.0), &step);
        let multi_step = doubled([0.1, 0.01, 0.01, 0.01, 0.001, 0.001]);
        near("multi-step", &rates(Schedule::MultiStep { milestones: vec![1, 4], factor: 0.1 }, 0.0), &multi_step);
        near("constant", &rates(Schedule::Constant {}, 0.0), &[0.1; 12]);
    }

    /// `crates/convzoo-train/tests/torch.py` printed them, with PyTorch 2.9.0.
    #[test]
    fn plateaus_are_left_when_pytorch_leaves_them() {
        let values = [0.5, 0.6, 0.6, 0.60001, 0.59, 0.7, 0.7, 0.7, 0.7, 0.7, 0.7];
        let rates = |schedule: Schedule, monitor, values: [f64; 11]| {
            let recipe = Recipe { learning_rate: 0.1, schedule, monitor, ..Recipe::default() };
            let mut plateau = Plateau::default();
            values.map(|value| {
                plateau.epoch(&recipe, &Measures { loss: value, accuracy: value });
                recipe.rate(0, 1, &plateau)
            })
        };
        let schedule = Schedule::Plateau { factor: 0.1, patience: 2, threshold: 1e-4, minimum: 0.0 };
        let expected = [0.1, 0.1, 0.1, 0.1, 0.01, 0.01, 0.01, 0.01, 0.001, 0.001, 0.001];
        near("accuracy", &rates(schedule, Monitor::Accuracy, values), &expected);
        let schedule = Schedule::Plateau { factor: 0.5, patience: 1, threshold: 1e-4, minimum: 0.02 };
        let expected = [0.1, 0.1, 0.1, 0.05, 0.05, 0.05, 0.05, 0.025, 0.025, 0.02, 0.02];
        near("loss", &rates(schedule, Monitor::Loss, values.map(|value| 1.0 - value)), &expected);
    }

    #[test]
    fn short_runs_have_rates_for_all_their_steps() {
        for epochs in 1..4 {
            let schedule = Schedule::OneCycle { rise: 0.3, start_divisor: 25.0, end_divisor: 1e4 };
            let recipe = Recipe { epochs, schedule, ..Recipe::default() };
            for step in 0..epochs {
                let rate = recipe.rate(step, 1, &Plateau::default());
                assert!(rate > 0.0 && rate <= recipe.learning_rate, "step {step} of {epochs}: {rate}");
            }
        }
    }
}
