//! The wire format of [Protocol Buffers](https://protobuf.dev/programming-guides/encoding/), as far as ONNX uses it: a
//! message is a sequence of fields, each a number and a value.

use std::io::{self, Cursor, Read, Seek, Write};
use std::ops::Range;

use crate::ReadError;

/// A message in the making.
#[derive(Clone, Debug, Default)]
pub(crate) struct Message(Vec<u8>);

/// How a value is laid out: the lower three bits of a field's key.
const VARINT: u8 = 0;
const EIGHT_BYTES: u8 = 1;
const LENGTH: u8 = 2;
const FOUR_BYTES: u8 = 5;

impl Message {
    /// Adds an integer.
    pub fn int(mut self, field: u32, value: i64) -> Self {
        self.key(field, VARINT);
        // Negative numbers take ten bytes, as the format has it.
        self.varint(value as u64);
        self
    }

    /// Adds several integers.
    pub fn ints(self, field: u32, values: impl IntoIterator<Item = i64>) -> Self {
        values.into_iter().fold(self, |message, value| message.int(field, value))
    }

    /// Adds a number.
    pub fn float(mut self, field: u32, value: f32) -> Self {
        self.key(field, FOUR_BYTES);
        self.0.extend(value.to_le_bytes());
        self
    }

    /// Adds a text.
    pub fn text(self, field: u32, text: &str) -> Self {
        self.bytes(field, text.as_bytes())
    }

    /// Adds several texts.
    pub fn texts<'a>(self, field: u32, texts: impl IntoIterator<Item = &'a str>) -> Self {
        texts.into_iter().fold(self, |message, text| message.text(field, text))
    }

    /// Adds a message.
    pub fn message(self, field: u32, message: &Message) -> Self {
        self.bytes(field, &message.0)
    }

    /// Adds the head of a field of so many bytes; they must follow the message.
    pub fn head(mut self, field: u32, length: u64) -> Self {
        self.key(field, LENGTH);
        self.varint(length);
        self
    }

    /// Adds bytes.
    pub fn bytes(self, field: u32, bytes: &[u8]) -> Self {
        let mut message = self.head(field, bytes.len() as u64);
        message.0.extend_from_slice(bytes);
        message
    }

    /// The message with the fields of another after its own.
    pub fn followed_by(mut self, other: &Message) -> Self {
        self.0.extend_from_slice(&other.0);
        self
    }

    /// Bytes so far.
    pub fn len(&self) -> u64 {
        self.0.len() as u64
    }

    /// Writes the bytes.
    pub fn write(&self, target: &mut impl Write) -> io::Result<()> {
        target.write_all(&self.0)
    }

    fn key(&mut self, field: u32, kind: u8) {
        self.varint(u64::from(field) << 3 | u64::from(kind));
    }

    fn varint(&mut self, mut value: u64) {
        while value >= 0x80 {
            self.0.push(value as u8 | 0x80);
            value >>= 7;
        }
        self.0.push(value as u8);
    }
}

/// The value of a field.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(crate) enum Value {
    /// An integer, or the bits of a floating-point number.
    Number(u64),
    /// Bytes: a text, a message, several numbers. They are taken from the [`Reader`], or skipped.
    Bytes,
}

/// Reads fields one after the other, from a file or from memory. Nothing is kept of what is not asked for.
pub(crate) struct Reader<R> {
    source: R,
    at: u64,
    /// Where the message ends.
    end: u64,
    /// Where the next field starts.
    next: u64,
}

impl<'a> Reader<Cursor<&'a [u8]>> {
    /// Reads a message in memory.
    pub fn of(bytes: &'a [u8]) -> Self {
        Self::new(Cursor::new(bytes), bytes.len() as u64)
    }
}

impl<R: Read + Seek> Reader<R> {
    /// Reads a message of so many bytes.
    pub fn new(source: R, length: u64) -> Self {
        Self { source, at: 0, end: length, next: 0 }
    }

    /// The next field of the message and its value, or none at its end.
    pub fn field(&mut self) -> Result<Option<(u32, Value)>, ReadError> {
        if self.at < self.next {
            // Lengths are checked against the file's, which is an i64 on every system.
            self.source.seek_relative((self.next - self.at) as i64)?;
            self.at = self.next;
        }
        if self.at == self.end {
            return Ok(None);
        }
        let key = self.varint()?;
        let field = u32::try_from(key >> 3).ok().filter(|field| *field > 0);
        let field = field.ok_or(ReadError::Malformed { at: self.at, reason: "a field has an impossible number" })?;
        let value = match (key & 7) as u8 {
            VARINT => Value::Number(self.varint()?),
            EIGHT_BYTES => Value::Number(u64::from_le_bytes(self.array()?)),
            FOUR_BYTES => Value::Number(u64::from(u32::from_le_bytes(self.array()?))),
            LENGTH => {
                let length = self.varint()?;
                if length > self.end - self.at {
                    return Err(ReadError::Malformed { at: self.at, reason: "a field is longer than what it is in" });
                }
                self.next = self.at + length;
                return Ok(Some((field, Value::Bytes)));
            }
            _ => return Err(ReadError::Malformed { at: self.at, reason: "a field is of an unknown kind" }),
        };
        self.next = self.at;
        Ok(Some((field, value)))
    }

    /// Where the bytes of the present field are.
    pub fn range(&self) -> Range<u64> {
        self.at..self.next
    }

    /// Takes the bytes of the present field, at most so many.
    pub fn bytes(&mut self, most: u64) -> Result<Vec<u8>, ReadError> {
        let length = self.next - self.at;
        if length > most {
            return Err(ReadError::TooLarge { at: self.at, length, most });
        }
        let mut bytes = vec![0; length as usize];
        self.fill(&mut bytes)?;
        Ok(bytes)
    }

    /// Takes the text of the present field.
    pub fn text(&mut self) -> Result<String, ReadError> {
        let at = self.at;
        let text = String::from_utf8(self.bytes(MOST_TEXT)?);
        text.map_err(|_| ReadError::Malformed { at, reason: "a text is not UTF-8" })
    }

    /// The integers of the present field: one, or several in one field. At most so many.
    pub fn integers(&mut self, value: Value, most: usize) -> Result<Vec<u64>, ReadError> {
        if let Value::Number(number) = value {
            return Ok(vec![number]);
        }
        let mut integers = Vec::new();
        while self.at < self.next {
            if integers.len() == most {
                return Err(ReadError::TooLarge { at: self.at, length: self.next - self.at, most: most as u64 });
            }
            integers.push(self.varint()?);
        }
        match self.at == self.next {
            true => Ok(integers),
            false => Err(ReadError::Malformed { at: self.at, reason: "an integer goes on beyond its field" }),
        }
    }

    /// Goes into the message that the present field is; what this returns is for [`leave`](Self::leave).
    pub fn enter(&mut self) -> u64 {
        let outer = std::mem::replace(&mut self.end, self.next);
        self.next = self.at;
        outer
    }

    /// Goes back to the message that it is in, of which all fields have been read.
    pub fn leave(&mut self, outer: u64) {
        self.end = outer;
    }

    fn varint(&mut self) -> Result<u64, ReadError> {
        let mut value = 0;
        for shift in (0..70).step_by(7) {
            let [byte] = self.array()?;
            // The tenth byte has one bit of 64.
            if shift == 63 && byte > 1 {
                break;
            }
            value |= u64::from(byte & 0x7f) << shift;
            if byte < 0x80 {
                return Ok(value);
            }
        }
        Err(ReadError::Malformed { at: self.at, reason: "an integer has more than 64 bits" })
    }

    fn array<const N: usize>(&mut self) -> Result<[u8; N], ReadError> {
        let mut bytes = [0; N];
        self.fill(&mut bytes)?;
        Ok(bytes)
    }

    fn fill(&mut self, bytes: &mut [u8]) -> Result<(), ReadError> {
        if bytes.len() as u64 > self.end - self.at {
            return Err(ReadError::Malformed { at: self.at, reason: "a message ends within a field" });
        }
        self.source.read_exact(bytes)?;
        self.at += bytes.len() as u64;
        Ok(())
    }
}

/// The longest name or other text that is read, in bytes: the names of a million classes.
const MOST_TEXT: u64 = 64 << 20;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn fields_are_read_as_they_were_written() {
        let inner = Message::default().text(1, "conv").ints(3, [1, -1, 1 << 40]);
        let message = Message::default().int(1, 300).float(2, 0.5).message(7, &inner).bytes(9, &[1, 2, 3]);
        let mut reader = Reader::of(&message.0);
        assert_eq!(reader.field().unwrap(), Some((1, Value::Number(300))));
        assert_eq!(reader.field().unwrap(), Some((2, Value::Number(u64::from(0.5f32.to_bits())))));
        assert_eq!(reader.field().unwrap(), Some((7, Value::Bytes)));
        let outer = reader.enter();
        assert_eq!(reader.field().unwrap(), Some((1, Value::Bytes)));
        assert_eq!(reader.text().unwrap(), "conv");
        let integers: Vec<_> = std::iter::from_fn(|| reader.field().unwrap()).collect();
        assert_eq!(integers, [(3, Value::Number(1)), (3, Value::Number(u64::MAX)), (3, Value::Number(1 << 40))]);
        reader.leave(outer);
        // A field that nobody takes is skipped.
        assert_eq!(reader.field().unwrap(), Some((9, Value::Bytes)));
        assert_eq!(reader.field().unwrap(), None);
    }

    #[test]
    fn integers_come_one_to_a_field_or_packed() {
        let mut reader = Reader::of(&[0x0a, 3, 5, 0x80, 1]);
        let (_, value) = reader.field().unwrap().unwrap();
        assert_eq!(reader.integers(value, 4).unwrap(), [5, 128]);
        assert_eq!(reader.field().unwrap(), None);
        let mut reader = Reader::of(&[0x0a, 3, 5, 6, 7]);
        let (_, value) = reader.field().unwrap().unwrap();
        assert!(matches!(reader.integers(value, 2), Err(ReadError::TooLarge { .. })), "three of at most two");
    }

    #[test]
    fn what_breaks_the_format_is_an_error() {
        let fails = |bytes: &[u8]| {
            let mut reader = Reader::of(bytes);
            loop {
                match reader.field() {
                    Ok(Some(_)) => {}
                    Ok(None) => return false,
                    Err(_) => return true,
                }
            }
        };
        assert!(fails(&[0x08]), "no value");
        assert!(fails(&[0x0a, 5, 1]), "longer than the message");
        assert!(fails(&[0x0b]), "a group");
        assert!(fails(&[0x00, 1]), "field 0");
        assert!(fails(&[&[0x08][..], &[0xff; 10], &[1]].concat()), "more than 64 bits");
        assert!(fails(&[0x0d, 1, 2]), "half a number");
    }
}
