//! What reads files from outside, as functions of any bytes: each returns whether they were read, and must neither
//! panic nor hang nor ask for more memory than its limit.
//!
//! `cargo run -p convzoo-fuzz -- TARGET --seconds 60` mutates what [`corpus`] returns; the tests replay it. The functions
//! take what libFuzzer gives: `fuzz_target!(|data: &[u8]| { convzoo_fuzz::image(data); })`.

use std::fs;
use std::io::{self, Cursor};
use std::path::{Path, PathBuf};

use burn::module::Module;
use burn::tensor::Device;
use convzoo::compress::{Archive, Codebook, Entry, Tensor, prune, write};
use convzoo::data::{self, Dataset, Source, decode};
use convzoo::onnx::OnnxExport;
use convzoo::pretrained::lenet5_digits;
use convzoo::train::{Recipe, RunRecord, load_state};
use convzoo::weights::{self, Checkpoint, Precision};
use convzoo::{Options, create_from};
use image::{DynamicImage, ImageFormat, RgbImage};
use tempfile::TempDir;

use tiny::Tiny;

pub mod mutate;
#[path = "../../crates/convzoo-models/tests/common/tiny.rs"]
mod tiny;

/// A reader under test.
pub struct Target {
    /// The name of its folder in `corpus`.
    pub name: &'static str,
    /// Reads bytes, and says whether they were what it reads.
    pub run: fn(&[u8]) -> bool,
    /// The most bytes that it may ask for at once.
    pub most_bytes: usize,
}

const MIB: usize = 1 << 20;

/// Every reader.
pub const TARGETS: [Target; 12] = [
    Target { name: "pickle", run: checkpoint, most_bytes: 32 * MIB },
    Target { name: "zip", run: checkpoint, most_bytes: 32 * MIB },
    Target { name: "safetensors", run: checkpoint, most_bytes: 32 * MIB },
    // Burn makes room for the header's table, which it takes to have up to 100 MiB.
    Target { name: "pack", run: checkpoint, most_bytes: 128 * MIB },
    Target { name: "compressed", run: checkpoint, most_bytes: 32 * MIB },
    Target { name: "codes", run: codes, most_bytes: 32 * MIB },
    Target { name: "onnx", run: checkpoint, most_bytes: 32 * MIB },
    Target { name: "idx", run: idx, most_bytes: 32 * MIB },
    Target { name: "cifar", run: cifar, most_bytes: 32 * MIB },
    // 128 megapixels in 16 bits and four channels, and an encoder's buffer beside them.
    Target { name: "image", run: image, most_bytes: 1100 * MIB },
    Target { name: "recipe", run: recipe, most_bytes: 32 * MIB },
    Target { name: "checkpoint", run: run_folder, most_bytes: 128 * MIB },
];

/// A folder that holds these bytes as a file.
fn folder_with(name: &str, bytes: &[u8]) -> TempDir {
    let folder = tempfile::tempdir().expect("there is room for a folder");
    fs::write(folder.path().join(name), bytes).expect("there is room for a file");
    folder
}

/// The files that a target's mutations start from: those in `corpus/TARGET`, and some that are made here.
pub fn corpus(target: &Target) -> io::Result<Vec<Vec<u8>>> {
    let root = Path::new(env!("CARGO_MANIFEST_DIR"));
    let fixture = |name: &str| fs::read(root.join("../crates/convzoo-models/tests/fixtures").join(name));
    let mut files = match target.name {
        "pickle" => vec![fixture("legacy.pth")?],
        "zip" => vec![fixture("trained.pth")?, fixture("mixed.pth")?],
        "safetensors" | "pack" => saved(target.name)?,
        "compressed" | "codes" => compressed_files()?,
        "onnx" => [exported()?, vec![fixture("forked-folded.onnx")?, fixture("forked-dynamo.onnx")?]].concat(),
        "image" => images(),
        "recipe" => contents(&root.join("../crates/convzoo-train/recipes"))?,
        "checkpoint" => record()?,
        _ => Vec::new(),
    };
    let folder = root.join("corpus").join(target.name);
    if folder.is_dir() {
        files.extend(contents(&folder)?);
    }
    Ok(files)
}

/// The files in a folder, by name.
fn contents(folder: &Path) -> io::Result<Vec<Vec<u8>>> {
    let entries = fs::read_dir(folder)?.map(|entry| entry.map(|entry| entry.path()));
    let mut paths: Vec<PathBuf> = entries.collect::<Result<_, _>>()?;
    paths.sort();
    paths.iter().filter(|path| path.is_file()).map(fs::read).collect()
}

/// A small network's weights in both precisions.
fn saved(format: &str) -> io::Result<Vec<Vec<u8>>> {
    let (network, folder) = (Tiny::new(&Device::flex()), tempfile::tempdir()?);
    let path = folder.path().join("weights");
    let files = [Precision::Full, Precision::Half].map(|precision| {
        let written = match format {
            "pack" => weights::save_pack(&network, &path, precision),
            _ => weights::save_as(&network, &path, precision),
        };
        written.map_err(io::Error::other).and_then(|()| fs::read(&path))
    });
    files.into_iter().collect()
}

/// A small network's weights and LeNet-5's: as they are, pruned, shared, and both.
fn compressed_files() -> io::Result<Vec<Vec<u8>>> {
    let device = Device::flex();
    let lenet = lenet5_digits(&device).map_err(io::Error::other)?;
    let tiny = weights::tensors(&Tiny::new(&device)).map_err(io::Error::other)?;
    let lenet = weights::tensors(&lenet).map_err(io::Error::other)?;
    let text = r#"{"model":"lenet5"}"#;
    let file = |text: &str, tensors: &[Tensor], sparsity: f64, bits: Option<u32>| {
        let compressed = tensors.iter().cloned().map(|mut tensor| {
            prune(&mut tensor.values, sparsity);
            if let Some(bits) = bits {
                tensor.values = Codebook::fit(&tensor.values, bits).weights();
            }
            tensor
        });
        write(text, &compressed.collect::<Vec<_>>())
    };
    Ok(vec![
        file("", &tiny, 0.0, None),
        file("", &tiny, 0.7, None),
        file("", &tiny, 0.0, Some(3)),
        file("", &tiny, 0.7, Some(2)),
        file(text, &lenet, 0.95, Some(3)),
    ])
}

/// A small network as ONNX files, its norms folded and kept.
fn exported() -> io::Result<Vec<Vec<u8>>> {
    let network = Tiny::new(&Device::flex());
    let export = || OnnxExport::new(&network, [3, 9, 9]);
    [export(), export().keep_norms()].iter().map(|export| export.to_bytes().map_err(io::Error::other)).collect()
}

/// A small network's state as checkpoints hold it.
fn record() -> io::Result<Vec<Vec<u8>>> {
    let folder = tempfile::tempdir()?;
    let path = folder.path().join("model.bpk");
    Tiny::new(&Device::flex()).into_record().save(&path).map_err(io::Error::other)?;
    Ok(vec![fs::read(&path)?])
}

/// A picture in every format.
fn images() -> Vec<Vec<u8>> {
    let picture =
        DynamicImage::from(RgbImage::from_fn(24, 17, |x, y| image::Rgb([9 * x as u8, 13 * y as u8, (x * y) as u8])));
    let encoded = |(format, picture): (ImageFormat, DynamicImage)| {
        let mut file = Cursor::new(Vec::new());
        picture.write_to(&mut file, format).expect("memory takes all that is written");
        file.into_inner()
    };
    let formats =
        [ImageFormat::Jpeg, ImageFormat::Png, ImageFormat::Bmp, ImageFormat::WebP].map(|f| (f, picture.clone()));
    let others = [
        (ImageFormat::Gif, picture.to_rgba8().into()),
        (ImageFormat::Jpeg, picture.to_luma8().into()),
        (ImageFormat::Png, picture.to_rgba16().into()),
    ];
    formats.into_iter().chain(others).map(encoded).collect()
}

/// Weights of any format, told apart by content: as those of a small network, and as LeNet-5's.
pub fn checkpoint(bytes: &[u8]) -> bool {
    let folder = folder_with("weights", bytes);
    let (path, device) = (folder.path().join("weights"), Device::flex());
    let small = weights::load(Tiny::new(&device), &path).is_ok();
    let lenet = Checkpoint::open(&path)
        .and_then(|checkpoint| create_from("lenet5", checkpoint, &Options::default(), &device))
        .is_ok();
    small | lenet
}

/// Compressed weights, each tensor by itself, without a file and without a network.
pub fn codes(bytes: &[u8]) -> bool {
    let Ok(archive) = Archive::read(bytes.to_vec()) else { return false };
    let read = |(index, entry): (usize, &Entry)| {
        let values = archive.values(index);
        let count: usize = entry.shape.iter().product();
        assert!(values.as_ref().map_or(true, |values| values.len() == count), "'{}' has not its shape", entry.name);
        values.is_ok()
    };
    archive.entries().iter().enumerate().map(read).fold(true, |all, one| all & one)
}

/// The images of MNIST beside the labels of three, then its labels beside three images.
pub fn idx(bytes: &[u8]) -> bool {
    let labels = [&[0, 0, 8, 1, 0, 0, 0, 3][..], &[1, 2, 3]].concat();
    let images = [&[0, 0, 8, 3, 0, 0, 0, 3, 0, 0, 0, 2, 0, 0, 0, 2][..], &[7; 12]].concat();
    let read = |images: &[u8], labels: &[u8]| {
        let folder = folder_with("t10k-images-idx3-ubyte", images);
        fs::write(folder.path().join("t10k-labels-idx1-ubyte"), labels).expect("there is room for a file");
        whole("mnist", folder.path())
    };
    let as_images = read(bytes, &labels);
    as_images | read(&images, bytes)
}

/// A batch of CIFAR-10, of CIFAR-100, or the archive of the former.
pub fn cifar(bytes: &[u8]) -> bool {
    let files = [("cifar10", "test_batch.bin"), ("cifar100", "test.bin"), ("cifar10", "cifar-10-binary.tar.gz")];
    let read = |(name, file): (&str, &str)| whole(name, folder_with(file, bytes).path());
    files.map(read).contains(&true)
}

/// Whether a data set can be opened and read from end to end.
fn whole(name: &str, folder: &Path) -> bool {
    let readable = |part: &dyn Dataset| (0..part.len()).all(|index| part.get(index).is_ok());
    data::open(name, &Source::folder(folder)).is_ok_and(|splits| readable(&*splits.train) && readable(&*splits.test))
}

/// An image file of any format.
pub fn image(bytes: &[u8]) -> bool {
    let image = decode(bytes);
    if let Ok(image) = &image {
        assert_eq!(image.pixels.len(), image.width * image.height * image.channels, "pixels and sides disagree");
    }
    image.is_ok()
}

/// A recipe's TOML file.
pub fn recipe(bytes: &[u8]) -> bool {
    let folder = folder_with("recipe.toml", bytes);
    Recipe::read(&folder.path().join("recipe.toml")).and_then(|recipe| recipe.check()).is_ok()
}

/// What a run remembers: `run.json`, or a network's state in a checkpoint, told apart by the first byte.
pub fn run_folder(bytes: &[u8]) -> bool {
    if bytes.starts_with(b"{") {
        return RunRecord::read(folder_with("run.json", bytes).path()).is_ok();
    }
    let folder = folder_with("model.bpk", bytes);
    load_state(Tiny::new(&Device::flex()), &folder.path().join("model.bpk")).is_ok()
}
