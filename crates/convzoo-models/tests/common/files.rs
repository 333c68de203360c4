//! Weights files made byte by byte, right ones and lying ones.
#![allow(dead_code)] // each test binary uses its part

use std::path::PathBuf;

use burn::tensor::{DType, TensorData};
use serde_json::{Map, Value, json};

/// A file of these bytes under the build's temporary folder; tests give names of their own.
pub fn file(name: &str, bytes: &[u8]) -> PathBuf {
    let path = path(name);
    std::fs::write(&path, bytes).unwrap();
    path
}

/// A place for a file.
pub fn path(name: &str) -> PathBuf {
    PathBuf::from(env!("CARGO_TARGET_TMPDIR")).join(name)
}

/// A file of `tests/fixtures`.
pub fn fixture(name: &str) -> PathBuf {
    PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("tests/fixtures").join(name)
}

/// A safetensors file of these tensors.
pub fn safetensors<'a>(tensors: impl IntoIterator<Item = (&'a str, &'a TensorData)>) -> Vec<u8> {
    let (mut header, mut data) = (Map::new(), Vec::new());
    for (name, tensor) in tensors {
        let dtype = match tensor.dtype() {
            DType::F32 => "F32",
            DType::F64 => "F64",
            DType::F16 => "F16",
            DType::BF16 => "BF16",
            DType::I64 => "I64",
            other => panic!("{other:?} is not needed"),
        };
        let start = data.len();
        data.extend_from_slice(tensor.as_bytes());
        let shape: &[usize] = tensor.shape();
        header.insert(name.to_owned(), json!({"dtype": dtype, "shape": shape, "data_offsets": [start, data.len()]}));
    }
    safetensors_of(&Value::from(header).to_string(), &data)
}

/// A safetensors file of this header, true or not.
pub fn safetensors_of(header: &str, data: &[u8]) -> Vec<u8> {
    [&(header.len() as u64).to_le_bytes(), header.as_bytes(), data].concat()
}

/// A pickle of protocol 2.
pub struct Pickle(pub Vec<u8>);

impl Pickle {
    pub fn new() -> Self {
        Self(vec![0x80, 2])
    }

    pub fn op(mut self, bytes: impl AsRef<[u8]>) -> Self {
        self.0.extend_from_slice(bytes.as_ref());
        self
    }

    pub fn global(self, module: &str, name: &str) -> Self {
        self.op(format!("c{module}\n{name}\n"))
    }

    pub fn text(self, text: &str) -> Self {
        self.op("X").op((text.len() as u32).to_le_bytes()).op(text)
    }

    pub fn int(self, int: i64) -> Self {
        self.op([0x8a, 8]).op(int.to_le_bytes())
    }

    pub fn tuple(self, ints: &[i64]) -> Self {
        ints.iter().fold(self.op("("), |pickle, &int| pickle.int(int)).op("t")
    }

    /// A call of `module.name` with one text.
    pub fn call(self, module: &str, name: &str, argument: &str) -> Self {
        self.global(module, name).text(argument).op([0x85]).op("R")
    }

    /// A float32 tensor in the storage `key` of `elements`.
    pub fn tensor(self, key: &str, elements: i64, shape: &[i64], stride: &[i64]) -> Self {
        let pickle = self.global("torch._utils", "_rebuild_tensor_v2").op("((").text("storage");
        let pickle = pickle.global("torch", "FloatStorage").text(key).text("cpu").int(elements).op("tQ");
        let pickle = pickle.int(0).tuple(shape).tuple(stride).op([0x89]);
        pickle.global("collections", "OrderedDict").op(")RtR")
    }

    pub fn end(self) -> Vec<u8> {
        self.op(".").0
    }
}

/// A zip archive, uncompressed, as `torch.save` writes it.
pub fn zip(entries: &[(&str, &[u8])]) -> Vec<u8> {
    let (mut file, mut directory) = (Vec::new(), Vec::new());
    for (name, data) in entries {
        let start = file.len() as u32;
        // Version, flags, method, time and date; checksum and sizes; lengths of name and extra field.
        let mut header = vec![20, 0, 0, 0, 0, 0, 0, 0, 0, 0];
        header.extend(crc32(data).to_le_bytes());
        header.extend([(data.len() as u32).to_le_bytes(), (data.len() as u32).to_le_bytes()].concat());
        header.extend([(name.len() as u16).to_le_bytes(), [0, 0]].concat());
        file.extend(b"PK\x03\x04");
        file.extend(&header);
        file.extend(name.as_bytes());
        file.extend(*data);
        directory.extend(b"PK\x01\x02\x14\x00");
        directory.extend(&header);
        directory.extend([0; 10]);
        directory.extend(start.to_le_bytes());
        directory.extend(name.as_bytes());
    }
    let (start, count) = (file.len() as u32, (entries.len() as u16).to_le_bytes());
    file.extend(&directory);
    file.extend(b"PK\x05\x06\x00\x00\x00\x00");
    file.extend([count, count].concat());
    file.extend([(directory.len() as u32).to_le_bytes(), start.to_le_bytes()].concat());
    file.extend([0, 0]);
    file
}

fn crc32(data: &[u8]) -> u32 {
    !data.iter().fold(!0, |crc, &byte| {
        (0..8).fold(crc ^ u32::from(byte), |crc, _| if crc & 1 == 1 { (crc >> 1) ^ 0xedb8_8320 } else { crc >> 1 })
    })
}

/// A torch archive of this pickle, with one storage, "0".
pub fn torch_zip(pickle: &[u8], storage: &[u8]) -> Vec<u8> {
    zip(&[("archive/data.pkl", pickle), ("archive/version", b"3\n"), ("archive/data/0", storage)])
}
