//! Images as vectors (embeddings): a network's features before its classifier, for search, clustering and drawing.

use std::fs::{self, File};
use std::io::{self, BufReader, BufWriter, Read, Seek, SeekFrom, Write};
use std::path::{Path, PathBuf};

use burn::tensor::Tensor;
use convzoo_blocks::graph::{Graph, Operation};
use convzoo_blocks::{Observer, Step, observe};
use npyz::{NpyWriter, WriteOptions, WriterBuilder};
use thiserror::Error;

use crate::{Classifier, Fused, InferenceError, ModelError, Precision};

/// Penultimate features, `[batch, features]`, and logits, `[batch, classes]`, of images `[batch, channels, height,
/// width]`.
///
/// Penultimate is what enters the last layer with weights; where that is a convolution, the mean over height and width.
///
/// # Errors
/// The network does not take such images.
pub fn embed<N: Classifier>(network: &N, images: Tensor<4>) -> Result<(Tensor<2>, Tensor<2>), ModelError> {
    struct Penultimate {
        node: usize,
        input: Option<Tensor<4>>,
    }

    impl Observer for Penultimate {
        fn input(&mut self, step: Step, input: Tensor<4>) -> Tensor<4> {
            if step.node == self.node {
                self.input = Some(input.clone());
            }
            input
        }
    }
    let [_, channels, height, width] = images.dims();
    let node = last_weighted(&network.graph([channels, height, width])?);
    let mut penultimate = Penultimate { node, input: None };
    let network = network.valid();
    let logits = observe(&mut penultimate, images.without_autodiff(), |images| network.forward(images));
    let input = penultimate.input.expect("a pass runs the operations of its graph");
    Ok((input.mean_dims(&[2, 3]).flatten(1, 3), logits))
}

/// The last node of a classifier's graph that has weights.
fn last_weighted(graph: &Graph) -> usize {
    let weighted = |operation: &Operation| matches!(operation, Operation::Conv2d { .. } | Operation::Linear { .. });
    let last = graph.nodes().iter().rposition(|node| weighted(&node.operation));
    last.expect("a classifier ends in a layer with weights")
}

/// A network that [`embed`]s in a precision of compiled networks, on flex with convzoo's kernels.
pub struct FusedEmbedding {
    features: Fused,
    logits: Fused,
}

impl FusedEmbedding {
    /// Fuses a network for images of `[channels, height, width]`.
    ///
    /// # Errors
    /// The network does not take such images, or has an operation that the kernels do not have.
    pub fn new<N: Classifier>(network: &N, image: [usize; 3], precision: Precision) -> Result<Self, InferenceError> {
        let graph = network.graph(image)?;
        let before = graph.nodes()[last_weighted(&graph)].inputs[0];
        let up_to = |node| Fused::up_to(network, &graph, node, precision);
        Ok(Self { features: up_to(before)?, logits: up_to(graph.nodes().len() - 1)? })
    }

    /// What [`embed`] returns.
    ///
    /// # Errors
    /// The network does not take such images.
    pub fn embed(&self, images: Tensor<4>) -> Result<(Tensor<2>, Tensor<2>), InferenceError> {
        let features = self.features.maps(images.clone())?;
        Ok((features.mean_dims(&[2, 3]).flatten(1, 3), self.logits.forward(images)?))
    }
}

/// Why features cannot be written or read again.
#[derive(Debug, Error)]
#[non_exhaustive]
pub enum EmbedError {
    /// The name says no format.
    #[error("{}: features are written as .safetensors or .npy", .path.display())]
    Format {
        /// The file.
        path: PathBuf,
    },
    /// The operating system refused.
    #[error("cannot write {}: {source}", .path.display())]
    Io {
        /// The file.
        path: PathBuf,
        /// The system's reason.
        source: io::Error,
    },
}

/// A file of features that grows row by row, and takes its name when it is whole: no number of images is too large.
///
/// `.npy` holds the array `[images, features]`, `.safetensors` the same as the tensor `features`, both f32.
pub struct FeatureFile {
    path: PathBuf,
    part: PathBuf,
    width: usize,
    rows: usize,
    format: Option<Format>,
}

enum Format {
    Npy(NpyWriter<f32, BufWriter<File>>),
    Safetensors(BufWriter<File>),
}

/// Bytes of a safetensors header, filled up with blanks: its numbers are known last.
const HEADER: usize = 128;

impl FeatureFile {
    /// Begins a file of vectors of `width` features.
    pub fn create(path: &Path, width: usize) -> Result<Self, EmbedError> {
        let extension = path.extension().and_then(|extension| extension.to_str()).unwrap_or_default();
        let npy = match extension {
            "npy" => true,
            "safetensors" => false,
            _ => return Err(EmbedError::Format { path: path.to_owned() }),
        };
        let part = path.with_extension(format!("{extension}.part"));
        // From here on, what fails leaves nothing.
        let mut file = Self { path: path.to_owned(), part, width, rows: 0, format: None };
        let begun = if npy { file.begin_npy() } else { file.begin_safetensors() };
        file.format = Some(begun.map_err(|source| EmbedError::Io { path: path.to_owned(), source })?);
        Ok(file)
    }

    fn begin_npy(&self) -> io::Result<Format> {
        let file = BufWriter::new(File::create(&self.part)?);
        let options = WriteOptions::<f32>::new().default_dtype().writer(file);
        Ok(Format::Npy(options.begin_2d(self.width as u64)?))
    }

    fn begin_safetensors(&self) -> io::Result<Format> {
        let mut file = BufWriter::new(File::create(&self.part)?);
        file.write_all(&header(0, self.width))?;
        Ok(Format::Safetensors(file))
    }

    /// Adds vectors, one after another.
    pub fn push(&mut self, features: &[f32]) -> Result<(), EmbedError> {
        let written = match self.format.as_mut() {
            Some(Format::Npy(writer)) => writer.extend(features.iter().copied()),
            Some(Format::Safetensors(file)) => {
                features.iter().try_for_each(|value| file.write_all(&value.to_le_bytes()))
            }
            None => Ok(()),
        };
        written.map_err(|source| EmbedError::Io { path: self.path.clone(), source })?;
        self.rows += features.len() / self.width;
        Ok(())
    }

    /// How many vectors there are.
    pub fn rows(&self) -> usize {
        self.rows
    }

    /// Completes the file under its own name, and opens it for reading.
    pub fn finish(mut self) -> Result<FeatureRows, EmbedError> {
        let complete = |format: Option<Format>| match format {
            Some(Format::Npy(writer)) => writer.finish(),
            Some(Format::Safetensors(mut file)) => {
                file.seek(SeekFrom::Start(0))?;
                file.write_all(&header(self.rows, self.width))?;
                file.flush()
            }
            None => Ok(()),
        };
        let format = self.format.take();
        let finished = complete(format).and_then(|()| fs::rename(&self.part, &self.path));
        finished.map_err(|source| EmbedError::Io { path: self.path.clone(), source })?;
        // Under this name there is nothing left to remove.
        self.part.clear();
        Ok(FeatureRows { path: self.path.clone(), rows: self.rows, width: self.width })
    }
}

impl Drop for FeatureFile {
    /// What was not finished leaves nothing.
    fn drop(&mut self) {
        drop(self.format.take());
        if !self.part.as_os_str().is_empty() {
            let _ = fs::remove_file(&self.part);
        }
    }
}

/// A safetensors header for `rows` vectors, its length first.
fn header(rows: usize, width: usize) -> Vec<u8> {
    let bytes = rows * width * size_of::<f32>();
    let text = format!(r#"{{"features":{{"dtype":"F32","shape":[{rows},{width}],"data_offsets":[0,{bytes}]}}}}"#);
    let mut header = (HEADER as u64).to_le_bytes().to_vec();
    header.extend(format!("{text:<HEADER$}").bytes());
    header
}

/// The vectors of a finished file, read one at a time.
#[derive(Debug, Clone)]
pub struct FeatureRows {
    path: PathBuf,
    rows: usize,
    width: usize,
}

impl FeatureRows {
    /// How many vectors there are.
    pub fn rows(&self) -> usize {
        self.rows
    }

    /// Features of each.
    pub fn width(&self) -> usize {
        self.width
    }

    /// Reads them all in their order.
    pub fn each(&self, mut take: impl FnMut(&[f32])) -> io::Result<()> {
        let bytes = self.width * size_of::<f32>();
        let mut file = File::open(&self.path)?;
        // Both formats end with the numbers.
        file.seek(SeekFrom::End(-((self.rows * bytes) as i64)))?;
        let mut file = BufReader::new(file);
        let (mut buffer, mut row) = (vec![0u8; bytes], vec![0f32; self.width]);
        for _ in 0..self.rows {
            file.read_exact(&mut buffer)?;
            for (value, bytes) in row.iter_mut().zip(buffer.chunks_exact(size_of::<f32>())) {
                *value = f32::from_le_bytes([bytes[0], bytes[1], bytes[2], bytes[3]]);
            }
            take(&row);
        }
        Ok(())
    }
}

/// Vectors projected to the plane in which they differ most.
#[derive(Debug, Clone, PartialEq)]
pub struct Plane {
    /// A point for each vector.
    pub points: Vec<[f64; 2]>,
    /// The share of the whole variance that lies along each axis, 0 to 1.
    pub explained: [f64; 2],
}

/// The first two principal components (PCA) of the vectors that `each` reads, always in the same order, as often as it
/// is called: by orthogonal iteration, so that nothing but a few vectors is kept. Each axis points to where its largest
/// loading is positive.
pub fn project<E>(width: usize, each: impl Fn(&mut dyn FnMut(&[f32])) -> Result<(), E>) -> Result<Plane, E> {
    /// Directions that are iterated: some more than asked for, since close ones converge slowly.
    const DIRECTIONS: usize = 6;
    const MOST_STEPS: usize = 200;

    let (mut mean, mut count) = (vec![0f64; width], 0f64);
    each(&mut |row| {
        count += 1.0;
        mean.iter_mut().zip(row).for_each(|(mean, &value)| *mean += (f64::from(value) - *mean) / count);
    })?;
    let centred =
        |row: &[f32]| -> Vec<f64> { row.iter().zip(&mean).map(|(&value, mean)| f64::from(value) - mean).collect() };
    let mut variance = 0.0;
    each(&mut |row| variance += centred(row).iter().map(|value| value * value).sum::<f64>())?;

    // Any start that is not orthogonal to what is sought; a fixed one, so that the result is always the same.
    let start = |direction: usize, i: usize| ((1 + i * (2 * direction + 1)) as f64 * 0.7548776662466927).fract() - 0.5;
    let mut directions: Vec<Vec<f64>> =
        (0..DIRECTIONS.min(width)).map(|direction| (0..width).map(|i| start(direction, i)).collect()).collect();
    orthonormalize(&mut directions);
    let mut strengths = vec![0f64; directions.len()];
    for _ in 0..MOST_STEPS {
        let mut next = vec![vec![0f64; width]; directions.len()];
        each(&mut |row| {
            let row = centred(row);
            for (next, direction) in next.iter_mut().zip(&directions) {
                let along = dot(&row, direction);
                next.iter_mut().zip(&row).for_each(|(next, value)| *next += along * value);
            }
        })?;
        let now = orthonormalize(&mut next);
        let settled = now.iter().zip(&strengths).take(2).all(|(now, before)| (now - before).abs() <= 1e-10 * variance);
        directions = next;
        strengths = now;
        if settled {
            break;
        }
    }
    for direction in &mut directions {
        let largest = direction
            .iter()
            .copied()
            .fold(0.0, |largest: f64, value| if value.abs() > largest.abs() { value } else { largest });
        if largest < 0.0 {
            direction.iter_mut().for_each(|value| *value = -*value);
        }
    }

    let mut points = Vec::with_capacity(count as usize);
    each(&mut |row| {
        let row = centred(row);
        points.push([0, 1].map(|axis| directions.get(axis).map_or(0.0, |direction| dot(&row, direction))));
    })?;
    let along = |axis: usize| points.iter().map(|point| point[axis] * point[axis]).sum::<f64>();
    let explained = [0, 1].map(|axis| if variance > 0.0 { along(axis) / variance } else { 0.0 });
    Ok(Plane { points, explained })
}

fn dot(a: &[f64], b: &[f64]) -> f64 {
    a.iter().zip(b).map(|(a, b)| a * b).sum()
}

/// Makes vectors perpendicular and of length 1, in their order, and says how long what was new in each was.
fn orthonormalize(vectors: &mut [Vec<f64>]) -> Vec<f64> {
    let mut lengths = Vec::with_capacity(vectors.len());
    for i in 0..vectors.len() {
        let (done, rest) = vectors.split_at_mut(i);
        let vector = &mut rest[0];
        // Twice, since rounding leaves a little of the others after once.
        for other in done.iter().chain(done.iter()) {
            let along = dot(vector, other);
            vector.iter_mut().zip(other).for_each(|(value, other)| *value -= along * other);
        }
        let length = dot(vector, vector).sqrt();
        lengths.push(length);
        let scale = if length > 0.0 { 1.0 / length } else { 0.0 };
        vector.iter_mut().for_each(|value| *value *= scale);
    }
    lengths
}

#[cfg(test)]
mod tests {
    use std::convert::Infallible;

    use super::*;

    fn plane(rows: &[&[f32]]) -> Plane {
        let each = |take: &mut dyn FnMut(&[f32])| {
            rows.iter().for_each(|row| take(row));
            Ok::<_, Infallible>(())
        };
        project(rows[0].len(), each).unwrap_or_else(|never| match never {})
    }

    #[test]
    fn the_projection_is_what_numpy_computes() {
        let rows: [&[f32]; 5] = [
            &[2.0, 0.0, 1.0, 3.0],
            &[0.0, 1.0, 0.0, -1.0],
            &[4.0, 2.0, -1.0, 0.5],
            &[1.0, 1.0, 1.0, 1.0],
            &[-3.0, 0.5, 2.0, -2.0],
        ];
        // x = rows - rows.mean(0); u, s, v = numpy.linalg.svd(x); x @ v[:2].T (signs: largest loading positive); s² / Σ s²
        let expected = [
            [2.1339685, 2.2587413],
            [-1.134337, -1.0928557],
            [3.2569235, -1.8478568],
            [0.4140605, 0.61829],
            [-4.6706155, 0.0636813],
        ];
        let plane = plane(&rows);
        let pairs = plane.points.as_flattened().iter().zip(expected.as_flattened());
        for (value, expected) in pairs.chain(plane.explained.iter().zip(&[0.78437119, 0.20606446])) {
            assert!((value - expected).abs() < 1e-5, "{plane:?}");
        }
    }

    #[test]
    fn images_that_are_all_alike_lie_on_one_point() {
        let same = plane(&[&[1.0, 2.0, 3.0], &[1.0, 2.0, 3.0]]);
        assert_eq!(same, Plane { points: vec![[0.0; 2]; 2], explained: [0.0; 2] });
        assert_eq!(plane(&[&[5.0]]).points, [[0.0; 2]]);
    }
}
