//! The library as a program uses it that classifies images: published weights by name, and nothing that trains or draws.

#![allow(clippy::unwrap_used)] // a panic is how a test fails

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

use burn::tensor::Device;
use convzoo::data::{Image, Source};
use convzoo::pretrained::{PretrainedError, load};
use convzoo::{
    Classifier, ModelError, Network, Options, Preprocessing, classify, create, create_pretrained, imagenet, weights,
};

const FILE: &str = "squeezenet1_1-b8a52dc0.pth";

/// A cache folder, and the place of published weights in it.
fn cache() -> (tempfile::TempDir, PathBuf) {
    let folder = tempfile::tempdir().unwrap();
    fs::create_dir(folder.path().join("weights")).unwrap();
    let file = folder.path().join("weights").join(FILE);
    (folder, file)
}

fn open(weights: &str, cache: &Path) -> Result<Network, PretrainedError> {
    let source = Source { offline: true, cache_dir: Some(cache.to_owned()), ..Source::default() };
    load("squeezenet1_1", weights, &Options::default(), &source, &Device::flex())
}

/// SqueezeNet's tensors in safetensors, without what convzoo writes beside them.
fn foreign(file: &Path) {
    let network = create("squeezenet1_1", &Options::default(), &Device::flex()).unwrap();
    weights::save(&network, file).unwrap();
    let bytes = fs::read(file).unwrap();
    let (length, rest) = bytes.split_first_chunk().unwrap();
    let (header, data) = rest.split_at(u64::from_le_bytes(*length) as usize);
    let mut header: serde_json::Value = serde_json::from_slice(header).unwrap();
    assert!(header.as_object_mut().unwrap().remove("__metadata__").is_some());
    let header = header.to_string();
    fs::write(file, [&(header.len() as u64).to_le_bytes(), header.as_bytes(), data].concat()).unwrap();
}

#[test]
fn published_weights_are_loaded_by_name_and_know_their_classes() {
    let (cache, file) = cache();
    let missing = open("imagenet1k_v1", cache.path()).err().map(|error| error.to_string()).unwrap();
    assert!(missing.contains(FILE) && missing.contains("download.pytorch.org"), "{missing}");

    foreign(&file);
    let network = open("imagenet1k_v1", cache.path()).unwrap();
    assert_eq!(network.labels(), imagenet::class_names());
    assert_eq!(network.preprocessing(), Preprocessing::IMAGENET);
    let image = Image { height: 30, width: 40, channels: 3, pixels: vec![90; 3600] };
    let best = &classify(&network, &image, 1).unwrap()[0];
    assert_eq!(best.name(), network.labels()[best.class]);

    // A file is told by its name to be the published one; the thousand classes of another are ImageNet's, too.
    assert_eq!(open(file.to_str().unwrap(), cache.path()).unwrap().labels().len(), 1000);
    let other = cache.path().join("other.safetensors");
    fs::copy(&file, &other).unwrap();
    let network = open(other.to_str().unwrap(), cache.path()).unwrap();
    assert_eq!(network.labels(), imagenet::class_names());
}

#[test]
fn weights_that_are_not_published_are_an_error_that_names_those_that_are() {
    let told = |model, weights| create_pretrained(model, weights, &Device::flex()).err().unwrap().to_string();
    assert_eq!(
        told("resnet50", "imagenet1k_v3"),
        "no weights 'imagenet1k_v3' are published for resnet50; there are imagenet1k_v1 or imagenet1k_v2"
    );
    assert!(told("lenet5", "imagenet1k_v1").ends_with("there are none"));
    let unknown = create_pretrained("resnet51", "imagenet1k_v1", &Device::flex()).err();
    assert!(matches!(unknown, Some(PretrainedError::Model(ModelError::Unknown { .. }))));
}

#[test]
fn a_damaged_download_is_an_error_that_names_the_file() {
    let (cache, file) = cache();
    fs::write(&file, b"PK\x03\x04 and no more").unwrap();
    let error = open("imagenet1k_v1", cache.path()).err();
    let Some(PretrainedError::Load { path, .. }) = error else { panic!("{error:?}") };
    assert_eq!(path, file);
}

/// The readme shows the example as it is, and so compiled.
#[test]
fn the_readme_quotes_the_example() {
    let root = Path::new(env!("CARGO_MANIFEST_DIR")).join("../..");
    let read = |file: &str| fs::read_to_string(root.join(file)).unwrap();
    let example = read("examples/pretrained.rs");
    let program = &example[example.find("use ").unwrap()..];
    for readme in ["README.md", "README.zh-CN.md"] {
        assert!(read(readme).contains(&format!("```rust\n{program}```")), "{readme} shows another program");
    }
}

#[test]
fn a_program_that_classifies_images_needs_neither_training_nor_plotting() {
    let tree = |features: &[&str]| {
        let mut cargo = Command::new(env!("CARGO"));
        cargo.args(["tree", "--package", "convzoo", "--edges", "normal", "--prefix", "none", "--offline", "--locked"]);
        let output = cargo.args(features).current_dir(env!("CARGO_MANIFEST_DIR")).output().unwrap();
        assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
        String::from_utf8(output.stdout).unwrap()
    };
    let unneeded =
        ["burn-train ", "burn-optim ", "burn-dataset ", "plotters ", "convzoo-train ", "convzoo-report ", "clap "];
    let found = |tree: &str| unneeded.map(|name| tree.lines().any(|line| line.starts_with(name)));
    assert_eq!(found(&tree(&["--no-default-features", "--features", "flex"])), [false; 7]);
    // The names are those of packages that there are.
    assert_eq!(found(&tree(&[])), [true; 7]);
}
