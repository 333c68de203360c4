//! burn-train's dashboard, told of each batch by the training loop itself.

use std::sync::Arc;

use burn::train::Interrupter;
use burn::train::metric::{MetricAttributes, MetricDefinition, MetricEntry, MetricId};
use burn::train::metric::{NumericAttributes, NumericEntry, SerializedEntry};
use burn::train::renderer::{MetricState, MetricsRenderer, default_renderer};

use crate::trainable::{BatchFigures, Tally};

/// The two parts of an epoch.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Part {
    Training,
    Test,
}

/// A run's dashboard, where it is shown.
pub(crate) struct Dashboard(Option<Shown>);

struct Shown {
    renderer: Box<dyn MetricsRenderer>,
    /// Whether it has taken a terminal.
    #[cfg(feature = "tui")]
    in_terminal: bool,
    loss: MetricId,
    accuracy: MetricId,
    /// What the part under way has given so far.
    tally: Tally,
}

impl Dashboard {
    /// Nothing is shown.
    pub fn none() -> Self {
        Self(None)
    }

    /// Takes the terminal, for a run of so many `epochs` of which `done` are done. Its keys stop the run by
    /// `interrupter`.
    pub fn open(interrupter: &Interrupter, epochs: usize, done: usize) -> Self {
        #[cfg(feature = "tui")]
        crate::terminal::survive_hang_up();
        // Before its thread may find that the terminal has just been closed.
        #[cfg(feature = "tui")]
        let in_terminal = crate::terminal::is_there();
        let renderer = default_renderer(interrupter.clone(), (done > 0).then_some(done));
        #[cfg(all(unix, feature = "tui"))]
        crate::terminal::keep_ctrl_c();
        let [loss, accuracy] = ["Loss", "Accuracy"].map(|name| MetricId::new(Arc::new(name.to_owned())));
        let mut shown = Shown {
            renderer,
            #[cfg(feature = "tui")]
            in_terminal,
            loss,
            accuracy,
            tally: Tally::default(),
        };
        shown.register(&shown.accuracy.clone(), "Accuracy", Some("%"), true);
        shown.register(&shown.loss.clone(), "Loss", None, false);
        shown.renderer.start(epochs, done + 1, None, None);
        Self(Some(shown))
    }

    /// A part of an epoch begins, of so many images.
    pub fn begin(&mut self, part: Part, images: usize) {
        let Some(shown) = &mut self.0 else { return };
        shown.tally = Tally::default();
        shown.renderer.start_split(if part == Part::Training { "train" } else { "valid" }, images);
    }

    /// A batch of it is done.
    pub fn batch(&mut self, part: Part, figures: &BatchFigures) {
        if let Some(shown) = &mut self.0 {
            shown.batch(part, figures);
        }
    }

    /// A part of an epoch ends.
    pub fn end(&mut self, part: Part) {
        let Some(shown) = &mut self.0 else { return };
        shown.finals(part);
        shown.renderer.end_split();
    }

    /// An epoch ends.
    pub fn epoch(&mut self, epoch: usize) {
        if let Some(shown) = &mut self.0 {
            shown.renderer.update_epoch(epoch);
        }
    }

    /// Gives the terminal back.
    pub fn close(self) {
        let Some(mut shown) = self.0 else { return };
        #[cfg(feature = "tui")]
        if shown.in_terminal && !crate::terminal::is_there() {
            // Its thread waits for a terminal that has been closed, and dropping it would wait for the thread.
            std::mem::forget(shown);
            return;
        }
        shown.renderer.end();
        // There is no summary that could fail to be shown.
        let _ = shown.renderer.on_train_end(None);
    }
}

impl Shown {
    fn register(&mut self, id: &MetricId, name: &str, unit: Option<&str>, higher_is_better: bool) {
        self.renderer.register_metric(MetricDefinition {
            metric_id: id.clone(),
            name: Arc::new(name.to_owned()),
            description: None,
            attributes: MetricAttributes::Numeric(NumericAttributes {
                unit: unit.map(str::to_owned),
                higher_is_better,
            }),
        });
    }

    fn batch(&mut self, part: Part, figures: &BatchFigures) {
        self.tally.add(figures);
        let epoch = self.tally.measures();
        let accuracy = 100.0 * figures.correct as f64 / figures.images.max(1) as f64;
        let shown = format!("epoch {:.2} % - batch {accuracy:.2} %", 100.0 * epoch.accuracy);
        self.show(part, &self.accuracy.clone(), shown, NumericEntry::Value(accuracy));
        let shown = format!("epoch {:.4} - batch {:.4}", epoch.loss, figures.loss);
        self.show(part, &self.loss.clone(), shown, NumericEntry::Value(figures.loss));
        self.renderer.update_split(self.tally.images);
        self.renderer.log_event_training("Iteration".to_owned());
    }

    /// The means over all of a part.
    fn finals(&mut self, part: Part) {
        let epoch = self.tally.measures();
        let accuracy = 100.0 * epoch.accuracy;
        self.show(part, &self.accuracy.clone(), format!("epoch {accuracy:.2} %"), NumericEntry::Final(accuracy));
        self.show(part, &self.loss.clone(), format!("epoch {:.4}", epoch.loss), NumericEntry::Final(epoch.loss));
    }

    fn show(&mut self, part: Part, metric: &MetricId, shown: String, value: NumericEntry) {
        let entry = MetricEntry::new(metric.clone(), SerializedEntry::new(shown, value.serialize()));
        let state = MetricState::Numeric(entry, Some(value));
        match part {
            Part::Training => self.renderer.update_train(state),
            Part::Test => self.renderer.update_valid(state),
        }
    }
}
