//! The file: a version, a text about the network, and tensors, each under its name with its shape.

use std::ops::Range;

use crate::coding::{decode, encode, most_weights};
use crate::error::FormatError;

/// What a file begins with, before a byte for its version.
pub const MAGIC: &[u8; 7] = b"convzoo";

/// The version that is written and read.
pub(crate) const VERSION: u8 = 1;

/// The most dimensions of a tensor.
const MOST_DIMENSIONS: usize = 8;

/// The most bytes of a name.
const MOST_NAME: usize = 1 << 10;

/// A tensor that is to be written.
#[derive(Clone, Debug)]
pub struct Tensor {
    /// Its name.
    pub name: String,
    /// Its shape, of at most 8 dimensions.
    pub shape: Vec<usize>,
    /// Its values, row-major.
    pub values: Vec<f32>,
}

/// A file of these tensors, each bit of which comes back, with a text about them.
pub fn write(text: &str, tensors: &[Tensor]) -> Vec<u8> {
    let mut bytes = [MAGIC.as_slice(), &[VERSION]].concat();
    put_text(&mut bytes, text);
    put_number(&mut bytes, tensors.len());
    for Tensor { name, shape, values } in tensors {
        put_text(&mut bytes, name);
        put_number(&mut bytes, shape.len());
        shape.iter().for_each(|side| put_number(&mut bytes, *side));
        let coded = encode(values).0;
        put_number(&mut bytes, coded.len());
        bytes.extend(coded);
    }
    bytes
}

/// A number in groups of seven bits, the lowest first; the eighth says that more follow.
pub(crate) fn put_number(bytes: &mut Vec<u8>, mut number: usize) {
    while number >= 0x80 {
        bytes.push(number as u8 | 0x80);
        number >>= 7;
    }
    bytes.push(number as u8);
}

fn put_text(bytes: &mut Vec<u8>, text: &str) {
    put_number(bytes, text.len());
    bytes.extend(text.as_bytes());
}

/// Where a tensor is in a file.
#[derive(Clone, Debug)]
pub struct Entry {
    /// Its name.
    pub name: String,
    /// Its shape.
    pub shape: Vec<usize>,
    /// Its codes.
    bytes: Range<usize>,
}

impl Entry {
    /// Bytes that it takes in the file, but for its name and shape.
    pub fn coded_bytes(&self) -> usize {
        self.bytes.len()
    }
}

/// A file that is read: its list of tensors is, each tensor when it is asked for.
///
/// Nothing in it is believed before it is checked: a tensor can have at most 1,024 weights per byte, which is what the
/// format can express, so that a small file asks for little memory.
#[derive(Clone, Debug)]
pub struct Archive {
    bytes: Vec<u8>,
    text: String,
    entries: Vec<Entry>,
}

impl Archive {
    /// Reads the list of tensors.
    ///
    /// # Errors
    /// The bytes are of another format or damaged.
    pub fn read(bytes: Vec<u8>) -> Result<Self, FormatError> {
        let rest = bytes.strip_prefix(MAGIC).ok_or(FormatError::Foreign)?;
        match rest.first() {
            Some(&VERSION) => {}
            Some(&other) => return Err(FormatError::Version(other)),
            None => return Err(FormatError::Header(CUT)),
        }
        let (text, entries) = list(&bytes).map_err(FormatError::Header)?;
        Ok(Self { text, entries, bytes })
    }

    /// The text about the tensors.
    pub fn text(&self) -> &str {
        &self.text
    }

    /// The tensors, in the order they were written.
    pub fn entries(&self) -> &[Entry] {
        &self.entries
    }

    /// The values of the tensor at an index of [`entries`](Self::entries), row-major.
    ///
    /// # Errors
    /// Its codes are damaged.
    ///
    /// # Panics
    /// There is no such tensor.
    pub fn values(&self, index: usize) -> Result<Vec<f32>, FormatError> {
        let Entry { name, shape, bytes } = &self.entries[index];
        let damaged = |reason| FormatError::Tensor { name: name.clone(), reason };
        decode(&self.bytes[bytes.clone()], shape.iter().product()).map_err(damaged)
    }
}

fn list(bytes: &[u8]) -> Result<(String, Vec<Entry>), &'static str> {
    let mut input = Input { bytes, at: MAGIC.len() + 1 };
    let text = input.text(bytes.len())?;
    let count = input.number()?;
    let mut entries = Vec::new();
    for _ in 0..count {
        let name = input.text(MOST_NAME)?;
        let dimensions = input.number()?;
        if dimensions > MOST_DIMENSIONS {
            return Err("a tensor has more than 8 dimensions");
        }
        let shape = (0..dimensions).map(|_| input.number()).collect::<Result<Vec<_>, _>>()?;
        let length = input.number()?;
        let start = input.at;
        input.bytes(length)?;
        let weights = shape.iter().try_fold(1usize, |product, side| product.checked_mul(*side));
        if weights.is_none_or(|weights| weights > most_weights(length)) {
            return Err("a tensor has more weights than its codes can mean");
        }
        entries.push(Entry { name, shape, bytes: start..start + length });
    }
    if input.rest().is_empty() { Ok((text, entries)) } else { Err("something follows its last tensor") }
}

const CUT: &str = "it is cut short";

/// Bytes that are read one after the other.
pub(crate) struct Input<'a> {
    bytes: &'a [u8],
    at: usize,
}

impl<'a> Input<'a> {
    pub fn new(bytes: &'a [u8]) -> Self {
        Self { bytes, at: 0 }
    }

    pub fn byte(&mut self) -> Result<u8, &'static str> {
        Ok(self.bytes(1)?[0])
    }

    /// The next so many.
    pub fn bytes(&mut self, count: usize) -> Result<&'a [u8], &'static str> {
        let bytes = self.rest().get(..count).ok_or(CUT)?;
        self.at += count;
        Ok(bytes)
    }

    /// All that are left.
    pub fn rest(&self) -> &'a [u8] {
        &self.bytes[self.at..]
    }

    /// A number, of at most 48 bits, so that sums and products by a few bits stay in bounds.
    pub fn number(&mut self) -> Result<usize, &'static str> {
        let mut number = 0u64;
        for group in 0..7 {
            let byte = self.byte()?;
            number |= u64::from(byte & 0x7F) << (7 * group);
            if byte < 0x80 {
                return usize::try_from(number).ok().filter(|_| number < 1 << 48).ok_or("a number is too large");
            }
        }
        Err("a number is too long")
    }

    fn text(&mut self, most: usize) -> Result<String, &'static str> {
        let length = self.number()?;
        let bytes = if length <= most { self.bytes(length)? } else { return Err("a name is too long") };
        String::from_utf8(bytes.to_vec()).map_err(|_| "a name is no text")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn tensors() -> Vec<Tensor> {
        let values = (0..60).map(|i| if i % 3 == 0 { (i % 5) as f32 } else { 0.0 }).collect();
        let weight = Tensor { name: "fc.weight".to_owned(), shape: vec![6, 10], values };
        let bias = Tensor { name: "fc.bias".to_owned(), shape: vec![3], values: vec![0.1, -0.2, 0.3] };
        let scalar = Tensor { name: "scale".to_owned(), shape: vec![], values: vec![4.0] };
        vec![weight, bias, scalar]
    }

    #[test]
    fn names_shapes_and_values_come_back() {
        let archive = Archive::read(write("{}", &tensors())).unwrap();
        assert_eq!(archive.text(), "{}");
        assert_eq!(archive.entries().len(), 3);
        for (index, (entry, tensor)) in archive.entries().iter().zip(tensors()).enumerate() {
            assert_eq!((&entry.name, &entry.shape), (&tensor.name, &tensor.shape));
            assert_eq!(archive.values(index).unwrap(), tensor.values, "{}", tensor.name);
        }
    }

    #[test]
    fn what_is_cut_short_or_goes_on_is_refused() {
        let whole = write("", &tensors());
        for length in 0..whole.len() {
            assert!(Archive::read(whole[..length].to_vec()).is_err(), "{length} of {} bytes were taken", whole.len());
        }
        assert!(Archive::read([whole, vec![0]].concat()).is_err(), "a byte too many was taken");
    }

    #[test]
    fn another_format_and_a_later_version_are_told() {
        assert_eq!(Archive::read(b"PK\x03\x04".to_vec()).unwrap_err(), FormatError::Foreign);
        assert_eq!(Archive::read([MAGIC.as_slice(), &[9]].concat()).unwrap_err(), FormatError::Version(9));
    }

    #[test]
    fn shapes_that_the_bytes_cannot_fill_are_refused() {
        let lying = |shape: Vec<usize>| {
            let mut bytes = [MAGIC.as_slice(), &[VERSION]].concat();
            put_text(&mut bytes, "");
            put_number(&mut bytes, 1);
            put_text(&mut bytes, "w");
            put_number(&mut bytes, shape.len());
            shape.iter().for_each(|side| put_number(&mut bytes, *side));
            put_number(&mut bytes, 2);
            bytes.extend([0, 0]);
            Archive::read(bytes)
        };
        assert!(lying(vec![2000]).is_ok(), "the list alone is in order");
        for shape in [vec![1 << 20], vec![1 << 40, 1 << 40], vec![1; 9], vec![1 << 30, 1 << 30, 1 << 30, 0]] {
            assert!(lying(shape.clone()).is_err(), "{shape:?} was taken");
        }
        assert!(lying(vec![2000]).unwrap().values(0).is_err(), "two bytes were taken for 2,000 weights");
    }

    #[test]
    fn a_flipped_bit_neither_panics_nor_asks_for_much() {
        let whole = write("text", &tensors());
        for bit in 0..8 * whole.len() {
            let mut bytes = whole.clone();
            bytes[bit / 8] ^= 1 << (bit % 8);
            let Ok(archive) = Archive::read(bytes) else { continue };
            for index in 0..archive.entries().len() {
                let values = archive.values(index);
                assert!(values.is_err() || values.unwrap().len() <= 1024 * whole.len(), "bit {bit}");
            }
        }
    }
}
