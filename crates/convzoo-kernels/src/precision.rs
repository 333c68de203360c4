use std::fmt;

/// The numbers in which a compiled network keeps its weights and activations. Sums are taken in `f32` in each of them, and
/// biases are kept so.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub enum Precision {
    /// 32 bits.
    #[default]
    F32,
    /// 32 bits, but for the weights of fully-connected layers: these in IEEE's 16, half the memory to read, each weight exact
    /// to one part in 2048.
    LinearF16,
    /// bfloat16: 16 bits, of which the exponent has as many as that of 32. A number is exact to one part in 256.
    Bf16,
    /// Bytes, but for what has no form in them: a network has to be quantized for it.
    Int8,
}

impl Precision {
    /// Its name on the command line.
    pub fn name(self) -> &'static str {
        match self {
            Self::F32 => "f32",
            Self::LinearF16 => "linear-f16",
            Self::Bf16 => "bf16",
            Self::Int8 => "int8",
        }
    }
}

impl fmt::Display for Precision {
    fn fmt(&self, f: &mut fmt::Formatter) -> fmt::Result {
        f.write_str(self.name())
    }
}
