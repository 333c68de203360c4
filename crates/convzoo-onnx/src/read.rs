use std::collections::HashMap;
use std::io::{Read, Seek};
use std::ops::Range;
use std::sync::Arc;

use crate::ReadError;
use crate::proto::{attribute, data_location, data_type, dimension, entry, graph, model, node, shape, tensor};
use crate::proto::{tensor_type, value_info, value_type};
use crate::wire::{Reader, Value};

/// What an ONNX file holds, without the numbers: its operations, and where its tensors are.
///
/// Nothing in the file is trusted: what is kept of it is bounded, and its numbers are looked for only when a network wants
/// them.
#[derive(Debug, Default)]
pub struct Contents {
    pub(crate) nodes: Vec<FileNode>,
    /// Names of values and tensors; others say them by their numbers here.
    pub(crate) names: Names,
    /// Tensors by name.
    tensors: HashMap<u32, Stored>,
    metadata: HashMap<String, String>,
    /// Names and dimensions of the graph's inputs, tensors among them in files of older exporters, and of its outputs.
    pub(crate) inputs: Vec<(u32, Vec<Option<usize>>)>,
    pub(crate) outputs: Vec<(u32, Vec<Option<usize>>)>,
}

/// A tensor in a file.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Stored {
    /// Its dimensions.
    pub dims: Vec<usize>,
    /// Its type, where it is a floating-point type that weights come in.
    pub kind: Option<ElementType>,
    /// Where its numbers are, little-endian.
    pub place: Place,
}

/// The type of a tensor's numbers.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ElementType {
    /// 32 bits.
    F32,
    /// 64 bits.
    F64,
    /// IEEE's 16 bits.
    F16,
    /// The upper 16 bits of 32.
    Bf16,
}

impl ElementType {
    /// Bytes of a number.
    pub fn size(self) -> usize {
        match self {
            Self::F32 => 4,
            Self::F64 => 8,
            Self::F16 | Self::Bf16 => 2,
        }
    }
}

/// Where a tensor's numbers are.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Place {
    /// Nowhere, or in a form that weights do not come in.
    Nowhere,
    /// In these bytes of the file.
    Here(Range<u64>),
    /// In another file.
    Beside {
        /// Its path from the folder of this one, as the file says.
        file: String,
        /// The first byte.
        offset: u64,
        /// Bytes, where the file says how many.
        length: Option<u64>,
    },
}

impl Stored {
    /// Number of elements, unless it is beyond all memory.
    pub fn elements(&self) -> Option<usize> {
        self.dims.iter().try_fold(1, |product: usize, size| product.checked_mul(*size))
    }
}

/// An operation of a file.
#[derive(Debug, Default)]
pub(crate) struct FileNode {
    pub operation: String,
    pub inputs: Vec<u32>,
    pub outputs: Vec<u32>,
    /// Attributes of [`KEPT`] names.
    pub integers: Vec<(&'static str, Vec<i64>)>,
}

/// The attributes that tell how an operation takes its weight.
const KEPT: [&str; 3] = ["perm", "transA", "transB"];

/// Names by their numbers.
#[derive(Debug, Default)]
pub(crate) struct Names {
    numbers: HashMap<Arc<str>, u32>,
    list: Vec<Arc<str>>,
}

impl Names {
    /// The name of this number.
    pub fn name(&self, number: u32) -> &str {
        &self.list[number as usize]
    }

    /// How many there are.
    pub fn len(&self) -> usize {
        self.list.len()
    }

    fn number(&mut self, name: String) -> Result<u32, ReadError> {
        if let Some(number) = self.numbers.get(name.as_str()) {
            return Ok(*number);
        }
        if self.list.len() == MOST_NAMES {
            return Err(ReadError::TooMany { what: "names", most: MOST_NAMES });
        }
        let (number, name) = (self.list.len() as u32, Arc::<str>::from(name));
        self.list.push(Arc::clone(&name));
        self.numbers.insert(name, number);
        Ok(number)
    }
}

/// The most operations or tensors: fifty times those of a ResNet-1202.
const MOST_THINGS: usize = 1 << 18;

/// The most names of values and tensors.
const MOST_NAMES: usize = 1 << 20;

/// The most bytes that all operations, names and other small things may have together; some exporters write down where
/// in a program each operation is from.
const MOST_SMALL: u64 = 64 << 20;

/// The most inputs or outputs of an operation: twenty times those of DenseNet's concatenations.
const MOST_PARTS: usize = 1 << 12;

/// The most dimensions of a tensor, or integers of an attribute.
const MOST_DIMS: usize = 16;

impl Contents {
    /// Whether these are the first bytes of an ONNX file: the version of its format, then another field of a model.
    pub fn begin_with(head: &[u8]) -> bool {
        const SMALL: u8 = 0x40;
        matches!(head, [0x08, 1..SMALL, 0x12 | 0x1a | 0x22 | 0x28 | 0x32 | 0x3a | 0x42 | 0x72, ..])
    }

    /// Reads a file of so many bytes.
    ///
    /// # Errors
    /// It cannot be read, breaks the format, or has more in it than any network.
    pub fn read(source: impl Read + Seek, length: u64) -> Result<Self, ReadError> {
        let mut reading = Reading { reader: Reader::new(source, length), small: 0, contents: Self::default() };
        reading.model()?;
        Ok(reading.contents)
    }

    /// An entry of its metadata.
    pub fn metadata(&self, key: &str) -> Option<&str> {
        self.metadata.get(key).map(String::as_str)
    }

    /// Its operations in their order: what each is, and the names of what it takes and of what it makes.
    pub fn operations(&self) -> impl Iterator<Item = (&str, Vec<&str>, Vec<&str>)> {
        let named = |numbers: &[u32]| numbers.iter().map(|number| self.names.name(*number)).collect();
        self.nodes.iter().map(move |node| (node.operation.as_str(), named(&node.inputs), named(&node.outputs)))
    }

    /// The tensor of this name.
    pub fn tensor(&self, name: &str) -> Option<&Stored> {
        self.tensors.get(self.names.numbers.get(name)?)
    }

    /// The tensor of this name's number.
    pub(crate) fn tensor_of(&self, name: u32) -> Option<&Stored> {
        self.tensors.get(&name)
    }

    /// Names and dimensions of its tensors.
    pub fn tensors(&self) -> impl Iterator<Item = (&str, &Stored)> {
        self.tensors.iter().map(|(name, tensor)| (self.names.name(*name), tensor))
    }

    /// Dimensions of the images, `[batch, channels, height, width]` in files of networks: what the file leaves open is
    /// `None`.
    pub fn images(&self) -> Option<&[Option<usize>]> {
        let images = self.inputs.iter().find(|(name, _)| !self.tensors.contains_key(name))?;
        Some(&images.1)
    }

    /// Dimensions of the first output, `[batch, classes]` in files of networks.
    pub fn output(&self) -> Option<&[Option<usize>]> {
        self.outputs.first().map(|(_, dims)| dims.as_slice())
    }
}

/// A file on its way into its contents.
struct Reading<R> {
    reader: Reader<R>,
    /// Bytes of small things so far.
    small: u64,
    contents: Contents,
}

impl<R: Read + Seek> Reading<R> {
    fn model(&mut self) -> Result<(), ReadError> {
        while let Some((field, value)) = self.reader.field()? {
            match (field, value) {
                (model::GRAPH, Value::Bytes) => {
                    let outer = self.reader.enter();
                    self.graph()?;
                    self.reader.leave(outer);
                }
                (model::METADATA_PROPS, Value::Bytes) => {
                    let [key, text] = self.entry()?;
                    count(self.contents.metadata.len(), "entries of metadata")?;
                    self.contents.metadata.insert(key, text);
                }
                _ => {}
            }
        }
        Ok(())
    }

    fn graph(&mut self) -> Result<(), ReadError> {
        while let Some((field, value)) = self.reader.field()? {
            match (field, value) {
                (graph::NODE, Value::Bytes) => {
                    let bytes = self.small()?;
                    count(self.contents.nodes.len(), "operations")?;
                    let node = file_node(&bytes, &mut self.contents.names)?;
                    self.contents.nodes.push(node);
                }
                (graph::INITIALIZER, Value::Bytes) => {
                    let outer = self.reader.enter();
                    let (name, stored) = self.tensor()?;
                    self.reader.leave(outer);
                    count(self.contents.tensors.len(), "tensors")?;
                    let name = self.contents.names.number(name)?;
                    self.contents.tensors.insert(name, stored);
                }
                (graph::INPUT | graph::OUTPUT, Value::Bytes) => {
                    let bytes = self.small()?;
                    let (name, dims) = edge(&bytes)?;
                    let name = self.contents.names.number(name)?;
                    let edges =
                        if field == graph::INPUT { &mut self.contents.inputs } else { &mut self.contents.outputs };
                    count(edges.len(), "inputs and outputs")?;
                    edges.push((name, dims));
                }
                _ => {}
            }
        }
        Ok(())
    }

    /// Takes the bytes of a small thing.
    fn small(&mut self) -> Result<Vec<u8>, ReadError> {
        let bytes = self.reader.bytes(MOST_SMALL - self.small)?;
        self.small += bytes.len() as u64;
        Ok(bytes)
    }

    /// Takes a small text.
    fn text(&mut self) -> Result<String, ReadError> {
        let at = self.reader.range().start;
        let text = String::from_utf8(self.small()?);
        text.map_err(|_| ReadError::Malformed { at, reason: "a text is not UTF-8" })
    }

    /// A key and its value.
    fn entry(&mut self) -> Result<[String; 2], ReadError> {
        let mut pair = [String::new(), String::new()];
        let outer = self.reader.enter();
        while let Some((field, value)) = self.reader.field()? {
            match (field, value) {
                (entry::KEY, Value::Bytes) => pair[0] = self.text()?,
                (entry::VALUE, Value::Bytes) => pair[1] = self.text()?,
                _ => {}
            }
        }
        self.reader.leave(outer);
        Ok(pair)
    }

    fn tensor(&mut self) -> Result<(String, Stored), ReadError> {
        let (mut name, mut dims, mut kind, mut place) = (String::new(), Vec::new(), None, Place::Nowhere);
        let (mut outside, mut beside) = (false, (String::new(), 0, None));
        while let Some((field, value)) = self.reader.field()? {
            match (field, value) {
                (tensor::NAME, Value::Bytes) => name = self.text()?,
                (tensor::DIMS, value) => {
                    let sizes = self.reader.integers(value, MOST_DIMS)?;
                    dims.extend(sizes.into_iter().map(|size| usize::try_from(size).unwrap_or(usize::MAX)));
                    few(dims.len(), MOST_DIMS, "dimensions of a tensor")?;
                }
                (tensor::DATA_TYPE, Value::Number(number)) => {
                    kind = match u32::try_from(number) {
                        Ok(data_type::FLOAT) => Some(ElementType::F32),
                        Ok(data_type::DOUBLE) => Some(ElementType::F64),
                        Ok(data_type::FLOAT16) => Some(ElementType::F16),
                        Ok(data_type::BFLOAT16) => Some(ElementType::Bf16),
                        _ => None,
                    };
                }
                // Packed numbers are as they are in raw data.
                (tensor::RAW_DATA | tensor::FLOAT_DATA | tensor::DOUBLE_DATA, Value::Bytes) => {
                    place = Place::Here(self.reader.range());
                }
                (tensor::DATA_LOCATION, Value::Number(number)) => {
                    outside = number == u64::from(data_location::EXTERNAL);
                }
                (tensor::EXTERNAL_DATA, Value::Bytes) => {
                    let [key, text] = self.entry()?;
                    let at = self.reader.range().start;
                    let number = text.parse();
                    let number = number.map_err(|_| ReadError::Malformed { at, reason: "a place is no number" });
                    match key.as_str() {
                        "location" => beside.0 = text,
                        "offset" => beside.1 = number?,
                        "length" => beside.2 = Some(number?),
                        _ => {}
                    }
                }
                _ => {}
            }
        }
        if outside {
            place = Place::Beside { file: beside.0, offset: beside.1, length: beside.2 };
        }
        Ok((name, Stored { dims, kind, place }))
    }
}

fn count(so_far: usize, what: &'static str) -> Result<(), ReadError> {
    if so_far < MOST_THINGS { Ok(()) } else { Err(ReadError::TooMany { what, most: MOST_THINGS }) }
}

fn few(so_far: usize, most: usize, what: &'static str) -> Result<(), ReadError> {
    if so_far <= most { Ok(()) } else { Err(ReadError::TooMany { what, most }) }
}

/// An operation of these bytes.
fn file_node(bytes: &[u8], names: &mut Names) -> Result<FileNode, ReadError> {
    let mut reader = Reader::of(bytes);
    let mut read = FileNode::default();
    while let Some((field, value)) = reader.field()? {
        match (field, value) {
            (node::INPUT, Value::Bytes) => read.inputs.push(names.number(reader.text()?)?),
            (node::OUTPUT, Value::Bytes) => read.outputs.push(names.number(reader.text()?)?),
            (node::OP_TYPE, Value::Bytes) => read.operation = reader.text()?,
            (node::ATTRIBUTE, Value::Bytes) => {
                let outer = reader.enter();
                let (mut name, mut integers) = (String::new(), Vec::new());
                while let Some((field, value)) = reader.field()? {
                    match (field, value) {
                        (attribute::NAME, Value::Bytes) => name = reader.text()?,
                        (attribute::I | attribute::INTS, value) if integers.len() < MOST_DIMS => {
                            // Longer lists are in attributes of other names.
                            let bytes = reader.range().end - reader.range().start;
                            if bytes <= MOST_DIMS as u64 {
                                let numbers = reader.integers(value, MOST_DIMS)?;
                                integers.extend(numbers.into_iter().map(|number| number as i64));
                            }
                        }
                        _ => {}
                    }
                }
                reader.leave(outer);
                let known = KEPT.iter().find(|kept| **kept == name);
                if let Some(kept) = known.filter(|kept| read.integers.iter().all(|(own, _)| own != *kept)) {
                    read.integers.push((kept, integers));
                }
            }
            _ => {}
        }
        few(read.inputs.len().max(read.outputs.len()), MOST_PARTS, "inputs or outputs of an operation")?;
    }
    Ok(read)
}

/// Name and dimensions of an input or output of a graph.
fn edge(bytes: &[u8]) -> Result<(String, Vec<Option<usize>>), ReadError> {
    let mut reader = Reader::of(bytes);
    let (mut name, mut dims) = (String::new(), Vec::new());
    // The shape is a message in the tensor's type in the type.
    const INTO: [u32; 3] = [value_info::TYPE, value_type::TENSOR_TYPE, tensor_type::SHAPE];
    let mut outer = Vec::new();
    loop {
        let depth = outer.len();
        match reader.field()? {
            Some((value_info::NAME, Value::Bytes)) if depth == 0 => name = reader.text()?,
            Some((shape::DIM, Value::Bytes)) if depth == INTO.len() => {
                let outside = reader.enter();
                let mut size = None;
                while let Some((field, value)) = reader.field()? {
                    if let (dimension::DIM_VALUE, Value::Number(number)) = (field, value) {
                        size = usize::try_from(number).ok();
                    }
                }
                reader.leave(outside);
                dims.push(size);
                few(dims.len(), MOST_DIMS, "dimensions of an input or output")?;
            }
            Some((field, Value::Bytes)) if INTO.get(depth) == Some(&field) => outer.push(reader.enter()),
            Some(_) => {}
            None => match outer.pop() {
                Some(end) => reader.leave(end),
                None => return Ok((name, dims)),
            },
        }
    }
}
