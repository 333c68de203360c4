//! What a run tells on its way and at its end.

use std::time::Duration;

use convzoo::train::{Epoch, Event, HeldOut, Measures, Outcome, Progress};
use indicatif::{HumanDuration, ProgressBar};

use super::super::output::{count, print, quoted, tell};
use super::prepare::Setup;

/// How a run is followed: a line for each epoch on standard output, or on standard error where a document is to stand
/// there, and a bar.
pub struct Lines {
    pub bar: ProgressBar,
    /// Whether a dashboard has the terminal as soon as the first epoch begins.
    pub dashboard: bool,
    pub json: bool,
}

impl Lines {
    pub fn tell(&self, event: &Event, opening: &str) {
        match event {
            Event::Folder(folder) => self.line(&format!("{opening}, folder {}", folder.display())),
            Event::Backbone(images, total) => self.backbone(*images as u64, *total as u64),
            Event::Progress(progress) if !self.dashboard => show(&self.bar, progress),
            Event::Epoch(epoch, record) if !self.dashboard => self.line(&epoch_line(epoch, record.recipe.epochs)),
            Event::Damaged(error) => self.problem(&format!("{error}; resuming from the one before")),
            Event::Unreported(error) => self.problem(&format!("the run is done but for its report: {error}")),
            _ => {}
        }
    }

    /// A log that nobody reads, or that has no room, is no reason to stop.
    fn line(&self, text: &str) {
        self.bar.suspend(|| match self.json {
            true => tell(text),
            false => _ = print(text),
        });
    }

    fn problem(&self, text: &str) {
        self.bar.suspend(|| tell(text));
    }

    /// A frozen backbone's pass, which comes before the epochs and may take longer than all of them.
    fn backbone(&self, images: u64, total: u64) {
        self.bar.set_length(total);
        self.bar.set_position(images);
        self.bar.set_prefix("features of the frozen backbone");
        let rate = images as f64 / self.bar.elapsed().as_secs_f64();
        let left = HumanDuration(Duration::from_secs_f64(((total - images) as f64 / rate).min(1e9)));
        self.bar.set_message(format!("{rate:.0} images/s, {left} left"));
        if images == total && self.dashboard {
            self.bar.finish_and_clear();
        }
    }
}

pub fn epoch_line(epoch: &Epoch, epochs: usize) -> String {
    let (part, held_out) = (epoch.held_out.part(), epoch.held_out.measures());
    format!(
        "epoch {:>3}/{epochs}  train loss {:.4} accuracy {:6.2}%  {part} loss {:.4} accuracy {:6.2}%  {:.1} s  {:.0} images/s",
        epoch.epoch,
        epoch.train.loss,
        100.0 * epoch.train.accuracy,
        held_out.loss,
        100.0 * held_out.accuracy,
        epoch.seconds,
        epoch.images_per_second,
    )
}

pub fn show(bar: &ProgressBar, progress: &Progress) {
    let Progress { epoch, testing, images, total, images_per_second, seconds_left } = *progress;
    if bar.length() != Some(total as u64) {
        bar.set_position(0);
        bar.set_length(total as u64);
    }
    bar.set_position(images as u64);
    bar.set_prefix(format!("epoch {epoch} {}", if testing { "test " } else { "train" }));
    let left = HumanDuration(Duration::from_secs_f64(seconds_left.min(1e9)));
    bar.set_message(format!("{images_per_second:.0} images/s, {left} left"));
}

pub fn closing(outcome: &Outcome) -> String {
    let (mut text, out) = (String::new(), &outcome.folder);
    let (weights, run) = (out.join("best.safetensors"), &outcome.record);
    if let Some(best) = &outcome.best {
        let percent = |measures: &Measures| format!("{:.2}%", 100.0 * measures.accuracy);
        text += &format!(
            "best {} accuracy {} in epoch {}, weights in {}\n",
            best.held_out.part(),
            percent(best.held_out.measures()),
            best.epoch,
            weights.display()
        );
        let last = run.epochs.last().filter(|last| last.epoch != best.epoch);
        match (best.held_out, last) {
            (HeldOut::Test(_), Some(last)) => {
                text += &format!(
                    "chosen on the test images themselves, which flatters it a little; the last epoch has {}\n",
                    percent(last.held_out.measures())
                );
            }
            (HeldOut::Val(_), _) => {
                if let Some(test) = &run.test {
                    text += &format!("test accuracy {} of those weights, measured this once\n", percent(test));
                }
            }
            (HeldOut::Test(_), None) => {}
        }
    }
    let (epochs, recipe) = (run.epochs.len(), &run.recipe);
    if let (false, Some(patience)) = (outcome.interrupted || epochs == recipe.epochs, recipe.early_stopping) {
        text += &format!("stopped after {}, {patience} of them without a better one\n", count(epochs, "epoch"));
    }
    if outcome.interrupted {
        return text + &format!("stopped; resume it with: convzoo train --resume {}\n", quoted(out));
    }
    let weights = match &recipe.quantization {
        Some(_) => out.join("best-int8.safetensors"),
        None => weights,
    };
    if recipe.quantization.is_some() {
        text += &format!("the figures are those of the network in bytes, which is in {}\n", weights.display());
    }
    let (weights, data) = (quoted(&weights), data_options(&run.setup));
    text += &format!("curves and mistakes in {}\n", out.join("report.html").display());
    text += &format!("measure it with: convzoo eval --weights {weights} {data}\n");
    text + &format!("classify with it: convzoo predict IMAGE --weights {weights}\n")
}

/// The options that choose the same data again.
fn data_options(setup: &serde_json::Value) -> String {
    let Ok(Setup { data, source, .. }) = serde_json::from_value(setup.clone()) else { return String::new() };
    let mut options = format!("--data {data}");
    if let Some(folder) = source.data_dir {
        options += &format!(" --data-dir {}", quoted(&folder));
    }
    if let Some(seed) = source.split_seed {
        options += &format!(" --split-seed {seed}");
    }
    options
}
