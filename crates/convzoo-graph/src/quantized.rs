/// How a network computes in bytes, for those who read it from its [graph](crate::Graph).
///
/// Operations that are computed in one go, a convolution with its norm, a sum and an activation say, make one *value*:
/// nothing is rounded between them. A value is rounded to bytes at its end, or its floats are where something else needs
/// bytes. The network's output is floats.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Quantized {
    /// For each node of the graph the value that it helps to make, by its place in [`values`](Self::values); none where
    /// numbers are only read from where they were first.
    pub value_of: Vec<Option<usize>>,
    /// The values.
    pub values: Vec<QuantizedValue>,
}

/// A value of a network in bytes.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct QuantizedValue {
    /// How bytes stand for it, if it is ever bytes: the scale and the byte of 0; a number is scale · (byte − zero).
    pub scale: Option<(f32, u8)>,
    /// Whether it is computed in bytes, so that whoever takes it in floats takes what its bytes stand for.
    pub rounded: bool,
    /// Whether it is computed from bytes.
    pub from_bytes: bool,
    /// The layer that makes it, where that one has its weights in bytes.
    pub layer: Option<QuantizedLayer>,
}

/// A convolution or a linear layer in bytes, its norm and its constant factors folded in.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct QuantizedLayer {
    /// From −127 to 127, `[outputs, inputs / groups, …]`.
    pub weight: Vec<i8>,
    /// What an output's bytes are multiplied by, positive, `[outputs]`.
    pub scales: Vec<f32>,
    /// `[outputs]`.
    pub bias: Vec<f32>,
}
