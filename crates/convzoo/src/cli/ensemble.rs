//! Networks whose probabilities are averaged.

use std::ffi::OsStr;
use std::path::Path;

use anyhow::{Result, bail};
use convzoo::{Network, variant};

use super::eval::alike;

/// The network and the weights of `[MODEL=]FILE|NAME`. A file may have `=` in its name.
pub fn split(entry: &OsStr) -> Result<(Option<&str>, &OsStr)> {
    match entry.to_str().and_then(|entry| entry.split_once('=')) {
        Some((model, weights)) if !Path::new(entry).exists() => Ok((Some(variant(model)?.name), OsStr::new(weights))),
        _ => Ok((None, entry)),
    }
}

/// The output of `other` for each output of `first`, by the names of their classes; `None` where they are the same or
/// one of them knows no names.
pub fn outputs(first: &Network, other: &Network) -> Result<Option<Vec<usize>>> {
    let (own, theirs) = (first.labels(), other.labels());
    if first.classes() != other.classes() {
        let (classes, others) = (first.classes(), other.classes());
        bail!("{} has {classes} classes and {} {others}: their means mean nothing", first.name(), other.name());
    }
    if own.is_empty() || theirs.is_empty() || own == theirs {
        return Ok(None);
    }
    let output = |class: &String| match theirs.iter().position(|name| alike(name, class)) {
        Some(output) => Ok(output),
        None => bail!("{} has the class '{class}', which the weights of {} do not know", first.name(), other.name()),
    };
    own.iter().map(output).collect::<Result<Vec<_>>>().map(Some)
}
