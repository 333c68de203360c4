//! Leaving out the images that cannot be read, and saying which.

use std::sync::Arc;
use std::thread;

use crate::dataset::{Dataset, Splits, Subset};
use crate::error::DataError;

impl Splits {
    /// All parts without the images that cannot be read, and what is wrong with each of those. All images are read
    /// for it, once, on all cores. [`Source::keep_unreadable`](crate::Source::keep_unreadable) has links to nowhere
    /// and folders that cannot be searched be among them.
    pub fn readable(self) -> Result<(Self, Vec<DataError>), DataError> {
        let (train, mut damaged) = readable(self.train)?;
        let mut whole = |part| -> Result<_, DataError> {
            let (part, more) = readable(part)?;
            damaged.extend(more);
            Ok(part)
        };
        let (val, test) = (self.val.map(&mut whole).transpose()?, whole(self.test)?);
        Ok((Self { train, val, test, ..self }, damaged))
    }
}

/// The samples of `data` whose images are whole, and why the others are not.
pub fn readable(data: Arc<dyn Dataset>) -> Result<(Arc<dyn Dataset>, Vec<DataError>), DataError> {
    if data.in_memory() {
        return Ok((data, Vec::new()));
    }
    let (mut whole, mut damaged) = (Vec::with_capacity(data.len()), Vec::new());
    for (index, result) in read_all(&*data).into_iter().enumerate() {
        match result {
            Ok(()) => whole.push(index),
            // Damaged, or a link to nowhere, or not for this user to read.
            Err(error @ (DataError::Image { .. } | DataError::Malformed { .. } | DataError::Io { .. })) => {
                damaged.push(error);
            }
            Err(error) => return Err(error),
        }
    }
    if whole.is_empty() && !damaged.is_empty() {
        return Err(DataError::Unreadable { images: damaged.len(), first: Box::new(damaged.swap_remove(0)) });
    }
    Ok((if damaged.is_empty() { data } else { Arc::new(Subset::new(data, whole)) }, damaged))
}

/// Whether each sample can be read.
fn read_all(data: &dyn Dataset) -> Vec<Result<(), DataError>> {
    let workers = thread::available_parallelism().map_or(1, usize::from);
    let indices: Vec<usize> = (0..data.len()).collect();
    thread::scope(|scope| {
        let read = |&index: &usize| data.get(index).map(|_| ());
        let parts = indices.chunks(indices.len().div_ceil(workers).max(1)).map(|part| {
            let read = move || part.iter().map(read).collect::<Vec<_>>();
            // Where no thread can be made, this one reads.
            thread::Builder::new().spawn_scoped(scope, read).map_err(|_| read())
        });
        let parts: Vec<_> = parts.collect();
        let results = |part: Result<thread::ScopedJoinHandle<'_, _>, _>| match part {
            Ok(thread) => thread.join().expect("reading an image returns an error"),
            Err(read_here) => read_here,
        };
        parts.into_iter().flat_map(results).collect()
    })
}
