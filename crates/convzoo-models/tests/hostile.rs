//! Damaged and lying weights files: each is read or is a typed error, and none takes memory that it does not have.
//!
//! `CONVZOO_FUZZ=100000 cargo test --test hostile` makes that many mutations of each file.

#![allow(clippy::unwrap_used)] // a panic is how a test fails
#![allow(unsafe_code)] // to watch what is allocated

#[path = "common/files.rs"]
mod files;
#[path = "../../../fuzz/src/mutate.rs"]
mod mutate;
#[path = "common/tiny.rs"]
mod tiny;

use std::alloc::{GlobalAlloc, Layout, System};
use std::cell::Cell;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use burn::tensor::{Device, Tensor};
use convzoo_models::quantize::QuantizeOptions;
use convzoo_models::weights::{self, Checkpoint, Precision, WeightsError};
use convzoo_models::{Inference, Network, Options, Predict, create, create_from};

use mutate::{Random, mutate};

use files::{Pickle, file, fixture, path, safetensors_of, torch_zip};
use tiny::Tiny;

/// The system's, remembering the largest request of each thread.
struct Watch;

thread_local! {
    static LARGEST: Cell<usize> = const { Cell::new(0) };
}

fn remember(size: usize) {
    LARGEST.set(LARGEST.get().max(size));
}

// SAFETY: every call is passed on as it is.
unsafe impl GlobalAlloc for Watch {
    unsafe fn alloc(&self, layout: Layout) -> *mut u8 {
        remember(layout.size());
        unsafe { System.alloc(layout) }
    }
    unsafe fn alloc_zeroed(&self, layout: Layout) -> *mut u8 {
        remember(layout.size());
        unsafe { System.alloc_zeroed(layout) }
    }
    unsafe fn realloc(&self, pointer: *mut u8, layout: Layout, size: usize) -> *mut u8 {
        remember(size);
        unsafe { System.realloc(pointer, layout, size) }
    }
    unsafe fn dealloc(&self, pointer: *mut u8, layout: Layout) {
        unsafe { System.dealloc(pointer, layout) }
    }
}

#[global_allocator]
static ALLOCATOR: Watch = Watch;

/// More than any file here needs, far less than one can claim.
const ENOUGH: usize = 32 << 20;

/// Mutations of each file, unless `CONVZOO_FUZZ` says otherwise.
fn rounds(few: usize) -> usize {
    std::env::var("CONVZOO_FUZZ").map_or(few, |rounds| rounds.parse().expect("CONVZOO_FUZZ is a number"))
}

fn fuzz(name: &str, whole: &[u8], few: usize, read: impl Fn(&Path) -> Result<(), WeightsError>) {
    let structure = 4096;
    let target = file(&format!("fuzz-{name}"), whole);
    read(&target).unwrap_or_else(|error| panic!("{name} as it is: {error}"));
    let mut random = Random(u64::from_le_bytes(*b"hostile!") ^ name.len() as u64);
    let (start, mut good) = (Instant::now(), 0);
    for round in 0..rounds(few) {
        let bytes = mutate(whole, structure, &mut random);
        // A new file each time: the last one may still be mapped.
        std::fs::remove_file(&target).unwrap();
        std::fs::write(&target, &bytes).unwrap();
        LARGEST.set(0);
        let began = Instant::now();
        match read(&target) {
            Ok(()) => good += 1,
            Err(error) => assert!(!error.to_string().is_empty()),
        }
        let (largest, took) = (LARGEST.get(), began.elapsed());
        if largest > ENOUGH || took > Duration::from_secs(5) {
            let kept = file(&format!("fuzz-{name}-{round}"), &bytes);
            panic!("{} took {took:.1?} and asked for {largest} bytes at once", kept.display());
        }
    }
    println!("{name}: {} mutations, {good} still read, {:.1?}", rounds(few), start.elapsed());
}

fn tiny(path: &Path) -> Result<(), WeightsError> {
    weights::load(Tiny::new(&Device::flex()), path).map(drop)
}

fn network(name: &str, path: &Path) -> Result<Network, WeightsError> {
    create_from(name, Checkpoint::open(path)?, &Options::default(), &Device::flex())
}

#[test]
fn mutations_of_every_format_are_read_or_refused() {
    let device = Device::flex();
    for name in ["trained.pth", "legacy.pth", "mixed.pth"] {
        fuzz(name, &std::fs::read(fixture(name)).unwrap(), 3000, tiny);
    }
    let read = weights::load(Tiny::new(&device), &fixture("trained.pth")).unwrap();
    let (safe, pack) = (path("tiny.safetensors"), path("tiny.bpk"));
    weights::save_as(&read, &safe, Precision::Half).unwrap();
    weights::save_pack(&read, &pack, Precision::Full).unwrap();
    fuzz("tiny.safetensors", &std::fs::read(safe).unwrap(), 3000, tiny);
    fuzz("tiny.bpk", &std::fs::read(pack).unwrap(), 3000, tiny);

    let compressed = path("tiny.czc");
    weights::save_compressed(&read, &compressed).unwrap();
    fuzz("tiny.czc", &std::fs::read(compressed).unwrap(), 3000, tiny);

    // Here classes, channels, options and labels are the file's to say.
    let (safe, pack) = (path("small.safetensors"), path("small.bpk"));
    let lenet = create("lenet5", &Options::default(), &device).unwrap();
    weights::save(&lenet, &safe).unwrap();
    weights::save_pack(&lenet, &pack, Precision::Half).unwrap();
    for path in [safe, pack] {
        let name = path.file_name().unwrap().to_str().unwrap();
        fuzz(name, &std::fs::read(&path).unwrap(), 500, |path| network("lenet5", path).map(drop));
    }
}

#[test]
fn mutations_of_quantized_weights_are_refused_or_compute() {
    let device = Device::flex();
    let path = path("small-int8.safetensors");
    let images = Tensor::ones([1, 1, 32, 32], &device);
    let lenet = create("lenet5", &Options::default(), &device).unwrap();
    let quantized = lenet.quantize(std::slice::from_ref(&images), &QuantizeOptions::default()).unwrap();
    weights::save_quantized(&quantized, &path).unwrap();
    fuzz("small-int8.safetensors", &std::fs::read(&path).unwrap(), 500, |path| {
        let network = network("lenet5", path)?;
        if let Ok(inference) = Inference::new(network, convzoo_models::Precision::Int8) {
            inference.predict(images.clone()).unwrap();
        }
        Ok(())
    });
}

#[test]
fn mutations_of_a_published_pickle_are_read_or_refused() {
    let root = std::env::var_os("CONVZOO_SHARED").map(PathBuf::from);
    let root = root.unwrap_or_else(|| Path::new(env!("CARGO_MANIFEST_DIR")).join("../../../shared"));
    let path = root.join("data/weights/resnet20-12fca82f.th");
    let Ok(whole) = std::fs::read(&path) else {
        eprintln!("skipped: {} is not here", path.display());
        return;
    };
    fuzz("resnet20.th", &whole, 200, |path| network("resnet20_cifar", path).map(drop));
}

/// The error of reading a file of these bytes as LeNet-5, which asks for no more memory than it needs.
fn refused(name: &str, bytes: &[u8]) -> WeightsError {
    let path = file(name, bytes);
    LARGEST.set(0);
    let error = network("lenet5", &path).err().unwrap_or_else(|| panic!("{name} was read"));
    let largest = LARGEST.get();
    assert!(largest < ENOUGH, "{name} asked for {largest} bytes");
    error
}

#[test]
fn a_pickle_that_names_more_than_tensors_is_refused_and_nothing_is_run() {
    let witness = path("witness");
    let command = format!("touch '{}'", witness.display());
    for (module, name) in [("os", "system"), ("posix", "system"), ("builtins", "eval"), ("torch", "load")] {
        let call = |pickle: Pickle| pickle.call(module, name, &command);
        let tensor = |pickle: Pickle| pickle.text("c1.weight").tensor("0", 4, &[4], &[1]);
        let alone = call(Pickle::new()).end();
        let beside = call(tensor(Pickle::new().op("}(")).text("extra")).op("u").end();
        let within = call(Pickle::new().op("}(").text("state_dict").op("}(").text("c1.weight")).op("uu").end();
        let listed = call(tensor(Pickle::new().op("}(")).text("extra").op("](")).op("eu").end();
        // Without the call: a class alone.
        let named = tensor(Pickle::new().op("}(")).text("extra").global(module, name).op("u").end();
        for (form, pickle) in [alone, beside, within, listed, named].into_iter().enumerate() {
            let plain = if form == 0 || form == 2 { Some(pickle.clone()) } else { None };
            for bytes in plain.into_iter().chain([torch_zip(&pickle, &[0; 16])]) {
                let error = refused("foreign.pth", &bytes);
                let WeightsError::Refused { name: told, .. } = &error else {
                    panic!("{module}.{name} {form}: {error}")
                };
                assert_eq!(*told, format!("{module}.{name}"));
                assert!(error.to_string().contains("is refused"), "{error}");
            }
        }
        // A tensor among the arguments.
        let given = Pickle::new().op("}(").text("c1.weight").global(module, name).tensor("0", 4, &[4], &[1]);
        let error = refused("foreign.pth", &torch_zip(&given.op([0x85]).op("Ru").end(), &[0; 16]));
        assert!(error.to_string().contains(name), "{error}");
    }
    assert!(!witness.exists());
}

#[test]
fn plain_records_beside_the_weights_are_no_reason_to_refuse() {
    let pickle = Pickle::new().op("}(").text("state_dict").op("}(");
    let pickle = pickle.text("x").tensor("0", 4, &[2, 2], &[2, 1]).op("u");
    // What numpy makes of a best accuracy, and an options record.
    let pickle = pickle.text("best").call("numpy.core.multiarray", "scalar", "f8");
    let pickle =
        pickle.text("args").global("argparse", "Namespace").op([b')', 0x81]).op("}").text("lr").int(1).op("sb");
    let path = file("plain.pth", &torch_zip(&pickle.op("u").end(), &[0; 16]));
    let checkpoint = Checkpoint::open(&path).unwrap();
    assert_eq!(checkpoint.shapes().collect::<Vec<_>>(), [("x", &[2, 2][..])]);
}

#[test]
fn lying_pickles_are_refused_before_memory_is_taken() {
    let tensor = |elements: i64, shape: &[i64], stride: &[i64]| {
        let pickle = Pickle::new().op("}(").text("output.weight").tensor("0", elements, shape, stride);
        torch_zip(&pickle.op("u").end(), &[0; 64])
    };
    for (elements, shape, stride) in [
        (1 << 40, &[1 << 40][..], &[1][..]),
        (i64::MAX, &[i64::MAX], &[1]),
        (16, &[1 << 40], &[1]),
        // As many classes as bytes.
        (16, &[16, 4], &[0, 0]),
        // One number over and over.
        (16, &[1 << 28, 8], &[0, 0]),
        (16, &[i64::MAX, i64::MAX, 0], &[1, 1, 1]),
        (16, &[i64::MAX, 0], &[1, 1]),
        (16, &[-1, 4], &[1, 1]),
        (16, &[4, 4], &[i64::MAX, i64::MAX]),
        (16, &[4, 4], &[4]),
    ] {
        let error = refused("lying.pth", &tensor(elements, shape, stride));
        assert!(matches!(error, WeightsError::Damaged { .. } | WeightsError::Mismatch { .. }), "{shape:?}: {error}");
    }
    // A text of 4 GiB, a dictionary in itself ten thousand deep, and one that is copied into itself.
    let long = Pickle::new().op("}(X").op([0xff; 4]).op("abc").end();
    let deep = Pickle::new().op("}(X\x01\0\0\0a".repeat(10_000)).op("N").op("u".repeat(10_000)).end();
    let doubling = Pickle::new().op("]q\0").op(b"h\0h\0\x86q\0".repeat(64)).end();
    for pickle in [long, deep, doubling] {
        for bytes in [pickle.clone(), torch_zip(&pickle, &[])] {
            let error = refused("lying.pth", &bytes);
            assert!(matches!(error, WeightsError::Damaged { .. }), "{error}");
        }
    }
}

#[test]
fn lying_headers_of_safetensors_are_refused() {
    let entry = |dtype: &str, shape: &str, offsets: &str| {
        format!(r#"{{"output.weight":{{"dtype":"{dtype}","shape":{shape},"data_offsets":{offsets}}}}}"#)
    };
    for header in [
        entry("F32", "[4]", "[0,1600]"),
        entry("F32", "[400]", "[0,1600]"),
        entry("F32", "[18446744073709551615,2]", "[0,16]"),
        entry("F32", "[1099511627776,0]", "[0,0]"),
        entry("F32", "[0,1099511627776]", "[0,0]"),
        entry("F32", "[4]", "[16,0]"),
        entry("F32", "[4]", "[8,24]"),
        entry("F32", "[-4]", "[0,16]"),
        entry("F33", "[4]", "[0,16]"),
        r#"{"__metadata__":{"convzoo":{"model":"lenet5"}}}"#.to_owned(),
        r#"{"__metadata__":[]}"#.to_owned(),
        format!("{}{}", r#"{"a":"#.repeat(20_000), "}".repeat(20_000)),
        "{".to_owned(),
        "{}".to_owned(),
    ] {
        let error = refused("lying.safetensors", &safetensors_of(&header, &[0; 16]));
        let shown = &header[..header.len().min(80)];
        assert!(matches!(error, WeightsError::Damaged { .. } | WeightsError::Mismatch { .. }), "{shown}: {error}");
    }
    for length in [0, 1, 17, 99_999_999, 100_000_001, u64::MAX >> 16, u64::MAX] {
        let mut bytes = length.to_le_bytes().to_vec();
        bytes.extend(b"{\"a\":1}");
        let error = refused("length.safetensors", &bytes);
        assert!(matches!(error, WeightsError::Damaged { .. } | WeightsError::Format { .. }), "{length}: {error}");
    }
    // What a file remembers may be false too.
    for (remembered, part) in [
        (r#"{\"model\":\"lenet5\",\"options\":{\"dropout\":7.5}}"#, "dropout"),
        (r#"{\"model\":\"lenet5\",\"options\":{\"drop_path\":0.5}}"#, "drop_path"),
        (r#"{\"model\":\"lenet5\",\"options\":{\"classes\":99999999999}}"#, "missing (10)"),
        (r#"{\"model\":7}"#, "missing (10)"),
        ("no JSON", "missing (10)"),
    ] {
        let error = refused(
            "false.safetensors",
            &safetensors_of(&format!(r#"{{"__metadata__":{{"convzoo":"{remembered}"}}}}"#), &[]),
        );
        assert!(error.to_string().contains(part), "{remembered}: {error}");
    }
}

#[test]
fn lying_headers_of_packs_are_refused() {
    let pack = path("lying.bpk");
    weights::save_pack(&Tiny::new(&Device::flex()), &pack, Precision::Full).unwrap();
    let whole = std::fs::read(&pack).unwrap();
    for size in [0, 1, 1000, 100 << 20, (100 << 20) + 1, u32::MAX] {
        let bytes = [&whole[..6], &u32::to_le_bytes(size), &whole[10..]].concat();
        assert!(matches!(refused("lying.bpk", &bytes), WeightsError::Damaged { .. }), "{size}");
    }
    let version = [&whole[..4], &[0xff, 0xff], &whole[6..]].concat();
    assert!(matches!(refused("lying.bpk", &version), WeightsError::Damaged { .. }));
}

#[test]
fn what_is_no_weights_file_is_told_so() {
    for (name, bytes) in
        [("empty", &b""[..]), ("text", b"no weights at all"), ("gzip", b"\x1f\x8b\x08\0\0\0\0\0\0\0\0\0")]
    {
        let error = refused(name, bytes);
        assert!(matches!(error, WeightsError::Format { .. }), "{name}: {error}");
    }
    for bytes in [&b"PK"[..], b"PK\x03\x04", b"PK\x05\x06", b"\x80", b"\x80\x02.", b"\x80\x02N.", &[b'P'; 16]] {
        let error = refused("short", bytes);
        assert!(matches!(error, WeightsError::Damaged { .. } | WeightsError::Format { .. }), "{bytes:?}: {error}");
    }
    let folder = network("lenet5", Path::new(env!("CARGO_TARGET_TMPDIR"))).err().unwrap();
    assert!(matches!(folder, WeightsError::Read { .. }), "{folder}");
}

#[cfg(unix)]
#[test]
fn what_is_no_regular_file_is_refused_at_once() {
    let pipe = path("pipe.pth");
    let _ = std::fs::remove_file(&pipe);
    assert!(std::process::Command::new("mkfifo").arg(&pipe).status().unwrap().success());
    // Opening a pipe waits for a writer, which never comes; a device has no end.
    for path in [pipe.as_path(), Path::new("/dev/zero")] {
        let path = path.to_owned();
        let (sender, receiver) = std::sync::mpsc::channel();
        let opened = path.clone();
        std::thread::spawn(move || sender.send(network("lenet5", &opened).err()));
        let error = receiver.recv_timeout(Duration::from_secs(10));
        let error = error.unwrap_or_else(|_| panic!("{} is waited for", path.display())).unwrap();
        assert!(matches!(error, WeightsError::Read { .. }), "{}: {error}", path.display());
        assert!(error.to_string().contains("not a regular file"), "{error}");
    }
    // Nothing of a file of many terabytes, all of them a hole, is read.
    let hole = file("hole.pth", b"PK\x03\x04");
    std::fs::File::options().write(true).open(&hole).unwrap().set_len(1 << 42).unwrap();
    let error = network("lenet5", &hole).err().unwrap();
    assert!(error.to_string().contains("more than the"), "{error}");
    std::fs::remove_file(hole).unwrap();
}
