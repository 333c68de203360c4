//! Loading and saving weights: formats, spellings, precisions, and what does not fit.

#![allow(clippy::unwrap_used)] // a panic is how a test fails

mod common;
#[path = "common/files.rs"]
mod files;
#[path = "common/tiny.rs"]
mod tiny;

use std::path::Path;

use burn::module::{Module, ModuleVisitor, Param};
use burn::store::bridge;
use burn::tensor::{DType, Device, Tensor, TensorData};
use convzoo_models::weights::{self, Checkpoint, Mismatch, Precision, WeightsError};
use convzoo_models::{Classifier, ModelError, Network, Options, Preprocessing, create, create_from};

use files::{file, fixture, path, safetensors, safetensors_of};
use tiny::Tiny;

/// Every tensor in the tree's order.
fn tensors<M: Module>(module: &M) -> Vec<TensorData> {
    struct Read(Vec<TensorData>);
    impl ModuleVisitor for Read {
        fn visit_float<const D: usize>(&mut self, param: &Param<Tensor<D>>) {
            self.0.push(param.val().into_data());
        }
    }
    let mut read = Read(Vec::new());
    module.visit(&mut read);
    read.0
}

/// A network's tensors by the reference's names.
fn state(network: &Network) -> Vec<(String, TensorData)> {
    network.state().into_iter().map(|entry| entry.name).zip(tensors(network)).collect()
}

fn write(name: &str, state: &[(String, TensorData)]) -> std::path::PathBuf {
    file(name, &safetensors(state.iter().map(|(name, tensor)| (name.as_str(), tensor))))
}

fn assert_same_bits(a: &Network, b: &Network) {
    let (a, b) = (state(a), state(b));
    assert_eq!(a.len(), b.len());
    for ((name, a), (other, b)) in a.iter().zip(&b) {
        assert!(name == other && a.as_bytes() == b.as_bytes() && a.shape() == b.shape(), "{name}");
    }
}

fn open(name: &str, path: &Path, options: &Options) -> Result<Network, WeightsError> {
    create_from(name, Checkpoint::open(path)?, options, &Device::flex())
}

fn mismatch(result: Result<Network, WeightsError>) -> Mismatch {
    match result.err() {
        Some(WeightsError::Mismatch { mismatch }) => mismatch,
        other => panic!("{other:?}"),
    }
}

#[test]
fn files_give_back_every_bit() {
    let device = Device::flex();
    for (name, classes) in [
        ("lenet5", 10),
        ("squeezenet1_1", 10),
        ("resnet20_cifar", 10),
        ("densenet40_k12", 100),
        ("preact_resnet110_cifar", 10),
        ("fractalnet20", 10),
        ("googlenet", 7),
        ("inception_v3", 7),
    ] {
        let network = common::filled(name, &Options::default().with_classes(classes), &device);
        let (safe, pack) = (path(&format!("bits-{name}.safetensors")), path(&format!("bits-{name}.bpk")));
        weights::save(&network, &safe).unwrap();
        weights::save_pack(&network, &pack, Precision::Full).unwrap();
        let compressed = path(&format!("bits-{name}.czc"));
        weights::save_compressed(&network, &compressed).unwrap();
        for path in [&safe, &pack, &compressed] {
            assert_same_bits(&network, &open(name, path, &Options::default()).unwrap());
        }
        // Through the other format, and again: the same files.
        let again = path(&format!("bits-{name}-again"));
        weights::save(&open(name, &pack, &Options::default()).unwrap(), &again).unwrap();
        assert!(std::fs::read(&safe).unwrap() == std::fs::read(&again).unwrap(), "{name}");
        for path in [safe, pack, compressed, again] {
            std::fs::remove_file(path).unwrap();
        }
    }
}

#[test]
fn half_precision_is_rounded_and_read_as_f32() {
    let network = common::filled("resnet20_cifar", &Options::default(), &Device::flex());
    let (full, half, pack) = (path("full.safetensors"), path("half.safetensors"), path("half.bpk"));
    weights::save(&network, &full).unwrap();
    weights::save_as(&network, &half, Precision::Half).unwrap();
    weights::save_pack(&network, &pack, Precision::Half).unwrap();
    let length = |path: &Path| path.metadata().unwrap().len();
    assert!(length(&half) < length(&full) * 6 / 10);
    for path in [half, pack] {
        let read = open("resnet20_cifar", &path, &Options::default()).unwrap();
        for ((name, a), (_, b)) in state(&network).iter().zip(&state(&read)) {
            assert_eq!(b.dtype(), DType::F32, "{name}");
            let expected = a.clone().convert_dtype(DType::F16).convert_dtype(DType::F32);
            assert!(expected.as_bytes() == b.as_bytes(), "{name}");
            let near = |(a, b): (f32, f32)| (a - b).abs() <= a.abs() / 2048.0 + 6e-8;
            assert!(a.iter::<f32>().zip(b.iter::<f32>()).all(near), "{name}");
        }
    }
}

#[test]
fn entries_of_other_precisions_are_converted() {
    let network = common::filled("lenet5", &Options::default(), &Device::flex());
    for dtype in [DType::F64, DType::F16, DType::BF16] {
        let converted: Vec<_> = state(&network).into_iter().map(|(n, t)| (n, t.convert_dtype(dtype))).collect();
        let read = open("lenet5", &write(&format!("{dtype:?}.safetensors"), &converted), &Options::default()).unwrap();
        for ((name, stored), (_, read)) in converted.iter().zip(&state(&read)) {
            let expected = stored.clone().convert_dtype(DType::F32);
            assert!(read.dtype() == DType::F32 && expected.as_bytes() == read.as_bytes(), "{dtype:?} {name}");
        }
        let tensors = converted.into_iter().map(|(name, tensor)| bridge::from_data(tensor, name, None));
        Checkpoint::from_tensors(tensors).apply(network.clone()).unwrap();
    }
}

#[test]
fn wrapper_prefixes_are_stripped() {
    let network = common::filled("resnet20_cifar", &Options::default(), &Device::flex());
    let counter = ("bn1.num_batches_tracked".to_owned(), TensorData::new(vec![7i64], [1]));
    let optimizer = TensorData::new(vec![0f32; 8], [8]);
    for (i, prefix) in [
        "",
        "module.",
        "state_dict.",
        "model.",
        "model_state_dict.",
        "state_dict.module.",
        "model.module.",
        "module.model.",
        "state_dict.model.",
    ]
    .into_iter()
    .enumerate()
    {
        let mut wrapped = state(&network);
        wrapped.push(counter.clone());
        wrapped.iter_mut().for_each(|(name, _)| name.insert_str(0, prefix));
        // What a training script keeps beside the weights.
        if prefix.contains("state_dict") || prefix.starts_with("model.") {
            wrapped.push(("optimizer.state.0.momentum_buffer".to_owned(), optimizer.clone()));
        }
        let path = write(&format!("wrapped-{i}.safetensors"), &wrapped);
        let read = open("resnet20_cifar", &path, &Options::default());
        assert_same_bits(&network, &read.unwrap_or_else(|error| panic!("{prefix}: {error}")));
    }
    // No wrapper: a layer beside it has weights too.
    let mut own = vec![("model.weight".to_owned(), optimizer.clone()), ("head.weight".to_owned(), optimizer)];
    let checkpoint = Checkpoint::open(&write("own.safetensors", &own)).unwrap();
    assert!(checkpoint.shapes().map(|(name, _)| name).eq(["head.weight", "model.weight"]));
    // However deep a name nests, reading it takes no time.
    own[0].0 = "model.".repeat(1 << 20);
    own.truncate(1);
    assert_eq!(mismatch(open("lenet5", &write("deep.safetensors", &own), &Options::default())).unexpected.len(), 1);
}

#[test]
fn any_length_of_a_header_is_told_from_other_formats() {
    let network = common::filled("lenet5", &Options::default(), &Device::flex());
    let whole = safetensors(state(&network).iter().map(|(name, tensor)| (name.as_str(), tensor)));
    let length = u64::from_le_bytes(whole[..8].try_into().unwrap()) as usize;
    // A pickle starts with 0x80 and a zip archive with "PK": so may a length.
    for padded in [0x480, 0x4b50] {
        let mut header = String::from_utf8(whole[8..8 + length].to_vec()).unwrap();
        header.extend(std::iter::repeat_n(' ', padded - length));
        let path = file("padded.safetensors", &safetensors_of(&header, &whole[8 + length..]));
        assert_same_bits(&network, &open("lenet5", &path, &Options::default()).unwrap());
    }
}

#[test]
fn published_densenets_load_in_their_older_spelling() {
    let network = common::filled("densenet121", &Options::default().with_classes(5), &Device::flex());
    let older = |name: &str| {
        let layers = ["norm", "conv"].into_iter().flat_map(|layer| [1, 2].map(|number| (layer, number)));
        layers.fold(name.to_owned(), |name, (layer, number)| match name.contains("denselayer") {
            true => name.replace(&format!("{layer}{number}."), &format!("{layer}.{number}.")),
            false => name,
        })
    };
    let mut state = state(&network);
    let mut respelled = 0;
    for (name, _) in &mut state {
        let published = older(name);
        respelled += usize::from(published != *name);
        *name = published;
    }
    // Two norms and two convolutions in each of 58 layers.
    assert_eq!(respelled, 58 * (2 * 4 + 2));
    assert!(state.iter().any(|(name, _)| name == "features.denseblock1.denselayer1.norm.1.weight"));
    let read = open("densenet121", &write("published-densenet.safetensors", &state), &Options::default()).unwrap();
    assert_same_bits(&network, &read);
}

#[test]
fn auxiliary_classifiers_may_be_absent_but_not_in_part() {
    // timm's Inception v3 has none, torchvision's others only where they are asked for.
    for (name, layer) in [("inception_v3", "AuxLogits."), ("googlenet", "aux")] {
        let network = common::filled(name, &Options::default().with_classes(6), &Device::flex());
        let mut without = state(&network);
        let whole = without.len();
        without.retain(|(name, _)| !name.starts_with(layer));
        assert!(without.len() < whole);
        let path = write(&format!("without-{name}.safetensors"), &without);
        let read = open(name, &path, &Options::default()).unwrap();
        assert_eq!(read.classes(), 6);
        let with: Vec<_> = state(&read).into_iter().filter(|(name, _)| !name.starts_with(layer)).collect();
        assert!(with == without, "{name}");

        let mut part = state(&network);
        part.retain(|(name, _)| !name.starts_with(layer) || name.ends_with("bias"));
        let missing = mismatch(open(name, &write("part.safetensors", &part), &Options::default())).missing;
        assert!(!missing.is_empty() && missing.iter().all(|name| name.starts_with(layer)), "{missing:?}");
        std::fs::remove_file(path).unwrap();
    }
}

#[test]
fn the_file_says_how_many_classes_and_channels() {
    for (name, head) in [("squeezenet1_1", "classifier.1"), ("resnet20_cifar", "linear")] {
        let options = Options::default().with_classes(17).with_channels(1);
        let path = path(&format!("classes-{name}.safetensors"));
        weights::save(&common::filled(name, &options, &Device::flex()), &path).unwrap();
        let read = open(name, &path, &Options::default()).unwrap();
        assert_eq!((read.classes(), read.input()[0]), (17, 1));

        let other = mismatch(open(name, &path, &Options::default().with_classes(10)));
        let names: Vec<_> =
            other.misshapen.iter().map(|(name, own, theirs)| (name.as_str(), own[0], theirs[0])).collect();
        let (weight, bias) = (format!("{head}.weight"), format!("{head}.bias"));
        assert_eq!(names, [(weight.as_str(), 10, 17), (bias.as_str(), 10, 17)]);
        assert!(other.missing.is_empty() && other.unexpected.is_empty());
        let replaced = read.replace_head(10);
        assert_eq!(replaced.classes(), 10);
    }
}

#[test]
fn what_does_not_fit_is_listed() {
    let network = common::filled("lenet5", &Options::default(), &Device::flex());
    let mut other = state(&network);
    let names: Vec<_> = other.iter().map(|(name, _)| name.clone()).collect();
    other[0].0 = "stranger".to_owned();
    other[1].1 = TensorData::new(vec![0f32; 3], [3]);
    other[2].1 = TensorData::new(vec![0i64; other[2].1.num_elements()], other[2].1.shape().clone());
    let path = write("other.safetensors", &other);
    let told = mismatch(open("lenet5", &path, &Options::default()));
    assert_eq!(told.missing, [names[0].clone()]);
    assert_eq!(told.unexpected, ["stranger"]);
    assert_eq!(told.misshapen.len(), 1);
    assert_eq!((&told.misshapen[0].0, &told.misshapen[0].2), (&names[1], &vec![3]));
    assert_eq!(told.mistyped, [(names[2].clone(), "I64".to_owned())]);
    let text = told.to_string();
    for part in ["missing (1)", "unexpected (1): stranger", "of another shape (1)", "not floating-point (1)", "I64"] {
        assert!(text.contains(part), "{text}");
    }
    // A network that does not fit keeps what it has.
    let vgg = create("vgg11", &Options::default(), &Device::flex()).unwrap();
    let Err(WeightsError::Mismatch { mismatch }) = weights::load(vgg, &path) else { panic!("it fits") };
    assert_eq!((mismatch.missing.len(), mismatch.unexpected.len()), (22, 10));
    assert!(mismatch.to_string().contains("and 14 more"), "{mismatch}");
}

#[test]
fn files_store_options_and_labels() {
    let options = Options { activation: Some(convzoo_blocks::Activation::Relu), ..Options::default() };
    let labels: Vec<String> = (0..10).map(|i| format!("digit {i}")).collect();
    let network = common::filled("lenet5", &options, &Device::flex()).with_labels(labels.clone()).unwrap();
    let (safe, pack) = (path("remember.safetensors"), path("remember.bpk"));
    weights::save(&network, &safe).unwrap();
    weights::save_pack(&network, &pack, Precision::Full).unwrap();
    for path in [safe, pack] {
        let read = open("lenet5", &path, &Options::default()).unwrap();
        assert_eq!(read.labels(), labels);
        assert_eq!(read.metadata(), network.metadata());
    }
}

#[test]
fn a_number_of_labels_that_is_not_the_classes_is_refused() {
    let network = create("lenet5", &Options::default(), &Device::flex()).unwrap();
    for labels in [0, 9, 11] {
        let error = network.clone().with_labels(vec!["a digit".to_owned(); labels]).err();
        assert_eq!(error, Some(ModelError::Labels { name: "lenet5", classes: 10, labels }));
    }
}

#[test]
fn files_store_a_preprocessing_that_is_not_the_familys() {
    let network = common::filled("lenet5", &Options::default(), &Device::flex());
    let own = network.preprocessing();
    assert_eq!(network.clone().with_preprocessing(own).metadata(), network.metadata());
    let other = Preprocessing { resize: Some(40), mean: [0.5; 3], ..own };
    let (safe, pack) = (path("preprocessing.safetensors"), path("preprocessing.bpk"));
    let network = network.with_preprocessing(other);
    weights::save(&network, &safe).unwrap();
    weights::save_pack(&network, &pack, Precision::Full).unwrap();
    let compressed = path("preprocessing.czc");
    weights::save_compressed(&network, &compressed).unwrap();
    for path in [safe, pack, compressed] {
        assert_eq!(open("lenet5", &path, &Options::default()).unwrap().preprocessing(), other);
    }
    // One that would make images of a billion pixels, or none.
    for wrong in [
        Preprocessing { resize: Some(usize::MAX), ..own },
        Preprocessing { resize: Some(0), ..own },
        Preprocessing { size: [0, 32], ..own },
        Preprocessing { size: [usize::MAX; 2], resize: Some(9), ..own },
        Preprocessing { std: [1.0, 0.0, 1.0], ..own },
    ] {
        let path = path("wrong_preprocessing.safetensors");
        weights::save(&network.clone().with_preprocessing(wrong), &path).unwrap();
        let error = open("lenet5", &path, &Options::default()).err();
        assert!(matches!(error, Some(WeightsError::Damaged { .. })), "{wrong:?}: {error:?}");
    }
}

#[test]
fn checkpoints_of_pytorch_itself_load() {
    let device = Device::flex();
    let input = TensorData::new((0..105).map(|i| (i % 11) as f32 / 11.0).collect::<Vec<_>>(), [1, 3, 7, 5]);
    for (name, tolerance) in [("trained.pth", 1e-6), ("legacy.pth", 1e-6), ("mixed.pth", 2e-3)] {
        let network = weights::load(Tiny::new(&device), &fixture(name)).unwrap();
        let logits = network.forward(Tensor::from_data(input.clone(), &device)).into_data();
        // As `fixtures/make.py` prints them.
        for (ours, theirs) in logits.iter::<f32>().zip([-0.076_650_84, 0.074_349_7, -0.156_620_5]) {
            assert!((ours - theirs).abs() < tolerance, "{name}: {ours}, and PyTorch says {theirs}");
        }
    }
}

#[test]
fn the_embedded_digits_weights_load() {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("../convzoo/weights/lenet5-digits.safetensors");
    let bytes = std::fs::read(&path).unwrap();
    let network =
        create_from("lenet5", Checkpoint::from_safetensors(&bytes).unwrap(), &Options::default(), &Device::flex());
    let network = network.unwrap();
    assert_eq!(network.labels(), ["0", "1", "2", "3", "4", "5", "6", "7", "8", "9"]);
    assert_same_bits(&network, &open("lenet5", &path, &Options::default()).unwrap());
    let cut = Checkpoint::from_safetensors(&bytes[..bytes.len() - 1]);
    assert!(matches!(cut.err(), Some(WeightsError::Damaged { .. })));
}

#[test]
fn files_that_cannot_be_written_leave_nothing() {
    let network = common::filled("lenet5", &Options::default(), &Device::flex());
    let nowhere = path("no-such-folder").join("weights");
    for result in [weights::save(&network, &nowhere), weights::save_pack(&network, &nowhere, Precision::Half)] {
        let error = result.unwrap_err();
        assert!(matches!(error, WeightsError::Write { .. }) && error.to_string().contains("no-such-folder"), "{error}");
    }
    let missing = Checkpoint::open(&nowhere).err().unwrap();
    assert!(matches!(missing, WeightsError::Read { .. }), "{missing}");
}

#[test]
fn the_same_weights_make_the_same_files() {
    let first = common::filled("lenet5", &Options::default(), &Device::flex());
    let start = path("same.safetensors");
    weights::save(&first, &start).unwrap();
    for precision in [Precision::Full, Precision::Half] {
        // Burn gives each network that is made other ids.
        let written: Vec<[Vec<u8>; 2]> = (0..3)
            .map(|_| {
                let network = open("lenet5", &start, &Options::default()).unwrap();
                let (safe, pack) = (path("written.safetensors"), path("written.bpk"));
                weights::save_as(&network, &safe, precision).unwrap();
                weights::save_pack(&network, &pack, precision).unwrap();
                [safe, pack].map(|path| std::fs::read(path).unwrap())
            })
            .collect();
        assert!(written.iter().all(|files| *files == written[0]), "{precision:?}");
    }
}

#[test]
fn values_that_are_no_numbers_are_refused_by_name() {
    let network = common::filled("lenet5", &Options::default(), &Device::flex());
    for (bad, dtype) in [(f32::NAN, DType::F32), (f32::INFINITY, DType::F16), (f32::NEG_INFINITY, DType::F64)] {
        let mut state = state(&network);
        let (name, tensor) = state.iter_mut().find(|(name, _)| name == "f6.weight").unwrap();
        let mut values = tensor.try_to_vec::<f32>().unwrap();
        values[77] = bad;
        *tensor = TensorData::new(values, tensor.shape().clone()).convert_dtype(dtype);
        let name = name.clone();
        let path = write("diverged.safetensors", &state);
        match open("lenet5", &path, &Options::default()).err() {
            Some(WeightsError::NotFinite { name: told, value, index, .. }) => {
                assert_eq!((told, index, value.to_string()), (name, 77, bad.to_string()));
            }
            other => panic!("{bad}: {other:?}"),
        }
    }
}

#[test]
fn what_sixteen_bits_cannot_hold_is_refused_by_name() {
    let network = common::filled("lenet5", &Options::default(), &Device::flex());
    let put = |value: f32| {
        let mut state = state(&network);
        let tensor = &mut state.iter_mut().find(|(name, _)| name == "c3.bias").unwrap().1;
        let mut values = tensor.try_to_vec::<f32>().unwrap();
        values[2] = value;
        *tensor = TensorData::new(values, tensor.shape().clone());
        open("lenet5", &write("large.safetensors", &state), &Options::default()).unwrap()
    };
    let saved = |network: &Network| {
        let (safe, pack) = (path("half.safetensors"), path("half.bpk"));
        [weights::save_as(network, &safe, Precision::Half), weights::save_pack(network, &pack, Precision::Half)]
    };
    for value in [65_504.0, -65_519.0] {
        assert!(saved(&put(value)).iter().all(Result::is_ok), "{value}");
    }
    let before = std::fs::read(path("half.bpk")).unwrap();
    for value in [65_520.0, -1e9] {
        for result in saved(&put(value)) {
            match result.err() {
                Some(WeightsError::BeyondHalf { name, value: told, index }) => {
                    assert_eq!((name.as_str(), index, told), ("c3.bias", 2, value));
                }
                other => panic!("{value}: {other:?}"),
            }
        }
    }
    assert!(std::fs::read(path("half.bpk")).unwrap() == before, "a refused file has replaced the last");
}

#[test]
fn a_write_that_fails_or_was_killed_leaves_nothing_behind() {
    let network = create("lenet5", &Options::default(), &Device::flex()).unwrap();
    let folder = tempfile::tempdir().unwrap();
    let names = || {
        let entries = std::fs::read_dir(&folder).unwrap().map(|entry| entry.unwrap().file_name());
        let mut names: Vec<_> = entries.map(|name| name.into_string().unwrap()).collect();
        names.sort();
        names
    };
    // A folder stands where the file should go.
    let taken = folder.path().join("taken");
    std::fs::create_dir(&taken).unwrap();
    std::fs::write(taken.join("something"), "").unwrap();
    for result in [weights::save(&network, &taken), weights::save_pack(&network, &taken, Precision::Full)] {
        assert!(matches!(result, Err(WeightsError::Write { .. })));
        assert_eq!(names(), ["taken"]);
    }
    // What a killed process leaves: nobody holds its lock. Another's is held, and a third is no scratch folder.
    for name in ["weights.bpk.killed.tmp", "weights.bpk.living.tmp", "weights.bpk.notes.tmp"] {
        std::fs::create_dir(folder.path().join(name)).unwrap();
        std::fs::write(folder.path().join(name).join("weights.bpk"), "half").unwrap();
    }
    let lock = |name: &str| std::fs::File::create(folder.path().join(name).join("lock")).unwrap();
    lock("weights.bpk.killed.tmp");
    let living = lock("weights.bpk.living.tmp");
    living.lock().unwrap();
    weights::save_pack(&network, &folder.path().join("weights.bpk"), Precision::Full).unwrap();
    assert_eq!(names(), ["taken", "weights.bpk", "weights.bpk.living.tmp", "weights.bpk.notes.tmp"]);
}

#[test]
fn a_network_needs_its_file_no_longer_than_it_loads() {
    let network = common::filled("lenet5", &Options::default(), &Device::flex());
    let (safe, pack) = (path("gone.safetensors"), path("gone.bpk"));
    weights::save(&network, &safe).unwrap();
    weights::save_pack(&network, &pack, Precision::Full).unwrap();
    let late = Checkpoint::open(&safe).unwrap();
    for path in [safe, pack] {
        let read = open("lenet5", &path, &Options::default()).unwrap();
        // Not removed but emptied: the file itself is gone, whoever holds it open.
        std::fs::write(&path, "").unwrap();
        assert_same_bits(&network, &read);
    }
    let error = late.apply(network).err().unwrap();
    assert!(matches!(error, WeightsError::Damaged { .. }), "{error}");
}

#[test]
fn thousands_of_tensors_load_in_seconds() {
    let device = Device::flex();
    let network = create("resnet1202_cifar", &Options::default(), &device).unwrap();
    let path = path("deepest.safetensors");
    weights::save(&network, &path).unwrap();
    let start = std::time::Instant::now();
    open("resnet1202_cifar", &path, &Options::default()).unwrap();
    let took = start.elapsed();
    println!("{took:.2?}");
    assert!(took.as_secs() < 5, "{took:.1?}");
    std::fs::remove_file(path).unwrap();
}

#[cfg(unix)]
#[test]
fn saved_weights_are_as_public_as_other_new_files() {
    use std::os::unix::fs::PermissionsExt;
    let folder = tempfile::tempdir().unwrap();
    let [weights, other] = ["weights.safetensors", "other"].map(|name| folder.path().join(name));
    weights::save(&create("lenet5", &Options::default(), &Device::flex()).unwrap(), &weights).unwrap();
    std::fs::write(&other, "").unwrap();
    let mode = |path: &Path| std::fs::metadata(path).unwrap().permissions().mode() & 0o777;
    assert_eq!(format!("{:o}", mode(&weights)), format!("{:o}", mode(&other)));
}
