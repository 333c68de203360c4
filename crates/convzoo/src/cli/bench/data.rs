//! How fast images become batches, part by part: `bench --data`.

use std::hint::black_box;
use std::path::Path;
use std::process::ExitCode;
use std::sync::Arc;
use std::time::Instant;

use anyhow::{Context, Result, bail};
use burn::tensor::Device;
use convzoo::data::{
    Augment, DataError, Dataset, Fit, Image, InMemory, Orientation, Preprocess, Sample, decode, decode_for_training,
    read_file,
};
use convzoo::train::{Loader, Mix};
use serde::Serialize;

use super::row::median;
use crate::cli::images::{OrientationArgs, expand};
use crate::cli::output::{FormatArgs, print, table, thousands};

/// A part of the work, and how fast it is done.
#[derive(Serialize)]
struct Row {
    /// Which images.
    images: &'static str,
    /// What is done with each.
    work: &'static str,
    threads: usize,
    images_per_second: f64,
    /// The same of each of the threads.
    per_core: f64,
}

const COLUMNS: [&str; 5] = ["images", "work", "threads", "images_per_second", "per_core"];

/// Photographs that are kept in memory at the same time.
const MOST_PHOTOGRAPHS: usize = 256;

/// Turns that the measurements are spread over, so that what disturbs the machine for a while disturbs all alike.
const TURNS: usize = 8;

/// Measures the way of the photographs in `folder`, if one is named, and of images as small as CIFAR's.
pub fn run(folder: Option<&Path>, seconds: f64, threads: usize, format: FormatArgs) -> Result<ExitCode> {
    let mut rows = Vec::new();
    if let Some(folder) = folder {
        rows.extend(photographs(&read(folder)?, seconds, threads)?);
    }
    rows.extend(small(seconds, threads)?);
    let cells = |row: &Row| {
        let [all, each] = [row.images_per_second, row.per_core].map(|rate| rate.round() as usize);
        [row.images.to_owned(), row.work.to_owned(), row.threads.to_string(), all.to_string(), each.to_string()]
    };
    format.print(&rows, COLUMNS, rows.iter().map(cells), || {
        let header = ["images", "work", "threads", "images/s", "per core"];
        let shown = rows.iter().map(|row| {
            let [images, work, threads, ..] = cells(row);
            let [all, each] = [row.images_per_second, row.per_core].map(|rate| thousands(rate.round() as usize));
            vec![images, work, threads, all, each]
        });
        print(&table(&header, &[2, 3, 4], shown.collect()))
    })?;
    Ok(ExitCode::SUCCESS)
}

/// The files of the images in a folder.
fn read(folder: &Path) -> Result<Vec<Vec<u8>>> {
    const MOST_BYTES: u64 = 256 << 20;
    let sources = expand(&[folder.into()], OrientationArgs::default())?;
    let files = sources.iter().filter_map(|source| source.path()).take(MOST_PHOTOGRAPHS);
    let files = files.map(|path| Ok(read_file(path, MOST_BYTES)?)).collect::<Result<Vec<_>>>()?;
    if files.is_empty() {
        bail!("{} holds no images", folder.display());
    }
    Ok(files)
}

/// What is done with the image of this number.
type Work<'a> = Box<dyn FnMut(usize) -> Result<()> + 'a>;

/// The ways of ImageNet's photographs to inputs of 224 × 224.
fn photographs(files: &[Vec<u8>], seconds: f64, threads: usize) -> Result<Vec<Row>> {
    let preprocess = &Preprocess::imagenet();
    let augment = Augment { random_resized_crop: Some(0.08), random_horizontal_flip: 0.5, ..Augment::default() };
    let shortest = augment.shortest_side(preprocess);
    let read = |at: usize| decode_for_training(&files[at], Orientation::Apply, shortest);
    let images = files.iter().map(|file| decode(file)).collect::<Result<Vec<_>, _>>().context("decoding an image")?;
    let fitted: Vec<Image> = images.iter().map(|image| preprocess.fitted(image)).collect();
    let [mut augmented, mut normalized, mut measured, mut trained] = [(); 4].map(|()| Input::new(preprocess));
    let works: Vec<(&'static str, Work)> = vec![
        ("decode, to measure", Box::new(|at| seen(decode(&files[at])))),
        ("decode, to train", Box::new(|at| seen(read(at)))),
        ("resize and crop, to measure", Box::new(|at| seen(Ok(preprocess.fitted(&images[at]))))),
        (
            "crop, resize, mirror and normalize, to train",
            Box::new(|at| augmented.make(|seed, input| augment.append(&images[at], preprocess, seed, input))),
        ),
        ("normalize", Box::new(|at| normalized.make(|_, input| preprocess.normalize(&fitted[at], input)))),
        (
            "all, to measure",
            Box::new(|at| {
                let image = decode(&files[at])?;
                measured.make(|_, input| preprocess.append(&image, input))
            }),
        ),
        (
            "all, to train",
            Box::new(|at| {
                let image = read(at)?;
                trained.make(|seed, input| augment.append(&image, preprocess, seed, input))
            }),
        ),
    ];
    let mut rows = by_turns("photographs", works, files.len(), seconds)?;
    let data = Arc::new(Photographs { files: files.to_vec(), classes: vec!["photograph".to_owned()] });
    rows.push(batches("photographs", data, preprocess, (64, threads), &augment, seconds)?);
    Ok(rows)
}

/// Has the compiler take an image for one that is needed.
fn seen(image: Result<Image, DataError>) -> Result<()> {
    black_box(image?);
    Ok(())
}

/// Room for a network's input, used again for each image, and a seed that is another for each.
struct Input {
    values: Vec<f32>,
    seed: u64,
}

impl Input {
    fn new(preprocess: &Preprocess) -> Self {
        Self { values: Vec::with_capacity(preprocess.len()), seed: 0 }
    }

    fn make(&mut self, work: impl FnOnce(u64, &mut Vec<f32>)) -> Result<()> {
        self.values.clear();
        self.seed += 1;
        work(self.seed, &mut self.values);
        black_box(&self.values);
        Ok(())
    }
}

/// The way of images of 32 × 32 that are in memory.
fn small(seconds: f64, threads: usize) -> Result<Vec<Row>> {
    const IMAGES: usize = 2_000;
    const NAME: &str = "32 × 32, in memory";
    let mut noise = 1u32;
    let pixels = (0..IMAGES * 3072).map(|_| {
        noise = noise.wrapping_mul(1_664_525).wrapping_add(1_013_904_223);
        (noise >> 24) as u8
    });
    let classes = vec!["noise".to_owned()];
    let data =
        InMemory::new((32, 32, 3), pixels.collect(), vec![0; IMAGES], classes).context("making images of noise")?;
    let preprocess = Preprocess::new(3, 32, 32, Fit::Resize).normalized([0.49, 0.48, 0.45], [0.25, 0.24, 0.26]);
    let augment = Augment { random_crop: Some(4), random_horizontal_flip: 0.5, ..Augment::default() };
    let data: Arc<dyn Dataset> = Arc::new(data);
    let mut input = Input::new(&preprocess);
    let work: Work = Box::new(|at| {
        let image = data.get(at)?.image;
        input.make(|seed, input| augment.append(&image, &preprocess, seed, input))
    });
    let mut rows = by_turns(NAME, vec![("crop, mirror and normalize, to train", work)], IMAGES, seconds)?;
    rows.push(batches(NAME, Arc::clone(&data), &preprocess, (128, threads), &augment, seconds)?);
    Ok(rows)
}

/// Measures works on one thread by turns, each for so many seconds at least and each image once. Of an image the fastest
/// reading counts: what else runs on the machine only ever slows one down.
fn by_turns(
    images: &'static str,
    mut works: Vec<(&'static str, Work)>,
    count: usize,
    seconds: f64,
) -> Result<Vec<Row>> {
    let mut fastest = vec![vec![f64::INFINITY; count]; works.len()];
    for _ in 0..TURNS {
        for ((_, work), fastest) in works.iter_mut().zip(&mut fastest) {
            let turn = Instant::now();
            while turn.elapsed().as_secs_f64() < seconds / TURNS as f64 {
                for (at, fastest) in fastest.iter_mut().enumerate() {
                    let start = Instant::now();
                    work(at)?;
                    *fastest = fastest.min(start.elapsed().as_secs_f64());
                }
            }
        }
    }
    let row = |((work, _), fastest): (&(&'static str, Work), &Vec<f64>)| {
        let rate = count as f64 / fastest.iter().sum::<f64>();
        Row { images, work, threads: 1, images_per_second: rate, per_core: rate }
    };
    Ok(works.iter().zip(&fastest).map(row).collect())
}

/// Measures whole epochs of batches that `threads` threads make, on the CPU.
fn batches(
    images: &'static str,
    data: Arc<dyn Dataset>,
    preprocess: &Preprocess,
    (size, threads): (usize, usize),
    augment: &Augment,
    seconds: f64,
) -> Result<Row> {
    let loader = Loader::new(data, preprocess.clone(), size, &Device::flex())
        .with_workers(threads)
        .shuffled(0, 1)
        .augmented(augment.clone(), Mix::default());
    let (begun, mut rates) = (Instant::now(), Vec::new());
    while rates.is_empty() || begun.elapsed().as_secs_f64() < seconds {
        rates.push(loader.images_per_second()?);
    }
    let rate = median(&rates);
    let work = if size == 64 { "batches of 64, to train" } else { "batches of 128, to train" };
    Ok(Row { images, work, threads, images_per_second: rate, per_core: rate / threads as f64 })
}

/// Images whose files are in memory, each of them several times, so that an epoch has many batches.
struct Photographs {
    files: Vec<Vec<u8>>,
    classes: Vec<String>,
}

impl Photographs {
    /// The fewest images of an epoch.
    const LEAST: usize = 512;

    fn file(&self, index: usize) -> Result<&[u8], DataError> {
        let len = self.len();
        match index < len {
            true => Ok(&self.files[index % self.files.len()]),
            false => Err(DataError::OutOfRange { index, len }),
        }
    }
}

impl Dataset for Photographs {
    fn len(&self) -> usize {
        self.files.len() * Self::LEAST.div_ceil(self.files.len())
    }

    fn get(&self, index: usize) -> Result<Sample, DataError> {
        Ok(Sample { image: decode(self.file(index)?)?, label: 0 })
    }

    fn get_for_training(&self, index: usize, shortest: Option<usize>) -> Result<Sample, DataError> {
        Ok(Sample { image: decode_for_training(self.file(index)?, Orientation::Apply, shortest)?, label: 0 })
    }

    fn classes(&self) -> &[String] {
        &self.classes
    }
}
