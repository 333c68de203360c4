use std::path::Path;

use crate::{Epoch, RunRecord, TrainError};

/// What a run tells whoever watches it.
#[derive(Debug)]
#[non_exhaustive]
pub enum Event<'a> {
    /// The run has this folder, which no other run can have meanwhile.
    Folder(&'a Path),
    /// A frozen backbone has computed the features of so many images, of so many, which are kept.
    Backbone(usize, usize),
    /// A batch is done.
    Progress(Progress),
    /// An epoch is done.
    Epoch(&'a Epoch, &'a RunRecord),
    /// A checkpoint cannot be read, and the one before it is tried.
    Damaged(&'a TrainError),
    /// The run is done but for a report, which cannot be made.
    Unreported(&'a TrainError),
}

/// How far an epoch is.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Progress {
    /// The epoch, counted from 1.
    pub epoch: usize,
    /// Whether its training is done and its test under way.
    pub testing: bool,
    /// Images done.
    pub images: usize,
    /// Images in all.
    pub total: usize,
    /// Images per second, of the training or the test so far.
    pub images_per_second: f64,
    /// Seconds that the rest of the run will take at this speed.
    pub seconds_left: f64,
}
