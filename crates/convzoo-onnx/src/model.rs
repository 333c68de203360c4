use std::io::{self, Write};
use std::ops::Deref;

use crate::proto::{data_location, data_type, entry, graph, model, opset, tensor};
use crate::wire::Message;

/// A network as an ONNX model, before it is written: its operations, and its weights where they are.
pub struct Model<V> {
    /// The fields of the graph besides its tensors.
    pub(crate) graph: Message,
    pub(crate) tensors: Vec<Tensor<V>>,
    pub(crate) metadata: Vec<(String, String)>,
}

/// A named tensor of a model.
pub(crate) struct Tensor<V> {
    pub name: String,
    pub dims: Vec<usize>,
    pub content: Content<V>,
}

pub(crate) enum Content<V> {
    /// A weight, the filter of each output multiplied by a factor where there are factors.
    Weight(V, Option<Vec<f32>>),
    /// Numbers that the export has made.
    Made(Vec<f32>),
    /// Sizes and places.
    Integers(Vec<i64>),
    /// Weights in bytes, or the bytes of 0 for them.
    Bytes(Vec<i8>),
    /// The byte of 0 in a value's.
    Byte(u8),
    /// What is added to sums of products of bytes.
    Sums(Vec<i32>),
}

/// The version of the operations that models are written in.
pub const OPSET: i64 = 17;

/// The version of the format, that of opset 17.
const IR_VERSION: i64 = 8;

/// The most bytes of a message that Protocol Buffers reads.
pub const MOST_BYTES: u64 = i32::MAX as u64;

impl<V: Deref<Target = [f32]>> Content<V> {
    fn bytes(&self) -> u64 {
        match self {
            Self::Weight(values, _) => 4 * values.len() as u64,
            Self::Made(values) => 4 * values.len() as u64,
            Self::Integers(values) => 8 * values.len() as u64,
            Self::Bytes(values) => values.len() as u64,
            Self::Byte(_) => 1,
            Self::Sums(values) => 4 * values.len() as u64,
        }
    }

    fn write(&self, target: &mut impl Write) -> io::Result<()> {
        let mut floats = |values: &[f32], factor: f32| -> io::Result<()> {
            values.iter().try_for_each(|value| target.write_all(&(value * factor).to_le_bytes()))
        };
        match self {
            Self::Weight(values, Some(factors)) if !factors.is_empty() => {
                let filter = values.len() / factors.len();
                let mut filters = values.chunks_exact(filter.max(1)).zip(factors);
                filters.try_for_each(|(filter, factor)| floats(filter, *factor))
            }
            Self::Weight(values, _) => floats(values, 1.0),
            Self::Made(values) => floats(values, 1.0),
            Self::Integers(values) => values.iter().try_for_each(|value| target.write_all(&value.to_le_bytes())),
            Self::Bytes(values) => values.iter().try_for_each(|value| target.write_all(&value.to_le_bytes())),
            Self::Byte(value) => target.write_all(&[*value]),
            Self::Sums(values) => values.iter().try_for_each(|value| target.write_all(&value.to_le_bytes())),
        }
    }
}

impl<V: Deref<Target = [f32]>> Tensor<V> {
    /// All but the numbers.
    fn head(&self) -> Message {
        let kind = match self.content {
            Content::Weight(..) | Content::Made(_) => data_type::FLOAT,
            Content::Integers(_) => data_type::INT64,
            Content::Bytes(_) => data_type::INT8,
            Content::Byte(_) => data_type::UINT8,
            Content::Sums(_) => data_type::INT32,
        };
        let dims = self.dims.iter().map(|size| *size as i64);
        let head = Message::default().ints(tensor::DIMS, dims).int(tensor::DATA_TYPE, i64::from(kind));
        head.text(tensor::NAME, &self.name)
    }

    /// The tensor as a field of its graph, up to the numbers in it.
    fn inside(&self) -> Message {
        let bytes = self.content.bytes();
        let tensor = self.head().head(tensor::RAW_DATA, bytes);
        let field = Message::default().head(graph::INITIALIZER, tensor.len() + bytes);
        field.followed_by(&tensor)
    }

    /// The tensor as a field of its graph, with its numbers at a place of another file.
    fn outside(&self, file: &str, offset: u64) -> Message {
        let place =
            [("location", file), ("offset", &offset.to_string()), ("length", &self.content.bytes().to_string())];
        let tensor = place
            .into_iter()
            .fold(self.head(), |tensor, (key, value)| tensor.message(tensor::EXTERNAL_DATA, &pair(key, value)));
        let tensor = tensor.int(tensor::DATA_LOCATION, i64::from(data_location::EXTERNAL));
        Message::default().message(graph::INITIALIZER, &tensor)
    }
}

/// A key and its value.
fn pair(key: &str, value: &str) -> Message {
    Message::default().text(entry::KEY, key).text(entry::VALUE, value)
}

impl<V: Deref<Target = [f32]>> Model<V> {
    /// Bytes of the model in one file; beyond [`MOST_BYTES`], no reader takes it.
    pub fn bytes(&self) -> u64 {
        self.head(self.graph_bytes()).len() + self.graph_bytes()
    }

    /// Writes the model as one file.
    ///
    /// # Errors
    /// The target's.
    pub fn write(&self, target: &mut impl Write) -> io::Result<()> {
        self.head(self.graph_bytes()).write(target)?;
        self.graph.write(target)?;
        self.tensors.iter().try_for_each(|tensor| {
            tensor.inside().write(target)?;
            tensor.content.write(target)
        })
    }

    /// Writes the model without its weights, and these to `data`, which will be the file of this `name` beside the
    /// model's: for models of more than [`MOST_BYTES`].
    ///
    /// # Errors
    /// A target's.
    pub fn write_apart(&self, target: &mut impl Write, data: &mut impl Write, name: &str) -> io::Result<()> {
        let mut at = 0;
        let heads: Vec<Message> = self
            .tensors
            .iter()
            .map(|tensor| match tensor.content {
                // Shapes are read before the weights.
                Content::Integers(_) => tensor.inside(),
                _ => {
                    let head = tensor.outside(name, at);
                    at += tensor.content.bytes();
                    head
                }
            })
            .collect();
        let integers = |tensor: &&Tensor<V>| matches!(tensor.content, Content::Integers(_));
        let within: u64 = self.tensors.iter().filter(integers).map(|tensor| tensor.content.bytes()).sum();
        let bytes = self.graph.len() + heads.iter().map(Message::len).sum::<u64>() + within;
        self.head(bytes).write(target)?;
        self.graph.write(target)?;
        for (tensor, head) in self.tensors.iter().zip(heads) {
            head.write(target)?;
            match integers(&tensor) {
                true => tensor.content.write(target)?,
                false => tensor.content.write(data)?,
            }
        }
        Ok(())
    }

    fn graph_bytes(&self) -> u64 {
        let tensors = self.tensors.iter().map(|tensor| tensor.inside().len() + tensor.content.bytes());
        self.graph.len() + tensors.sum::<u64>()
    }

    /// All that stands before the fields of a graph of so many bytes.
    fn head(&self, graph_bytes: u64) -> Message {
        let operations = Message::default().text(opset::DOMAIN, "").int(opset::VERSION, OPSET);
        let head = Message::default()
            .int(model::IR_VERSION, IR_VERSION)
            .text(model::PRODUCER_NAME, "convzoo")
            .text(model::PRODUCER_VERSION, env!("CARGO_PKG_VERSION"))
            .message(model::OPSET_IMPORT, &operations);
        let entries = self.metadata.iter().map(|(key, value)| pair(key, value));
        entries.fold(head, |head, entry| head.message(model::METADATA_PROPS, &entry)).head(model::GRAPH, graph_bytes)
    }
}
