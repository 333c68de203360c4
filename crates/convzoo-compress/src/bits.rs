//! Codes of some bits each in a string of bytes, the first code in the lowest bits of the first byte.

/// Writes codes.
#[derive(Default)]
pub(crate) struct BitWriter {
    bytes: Vec<u8>,
    buffer: u64,
    count: u32,
}

impl BitWriter {
    /// Adds the lowest `count` bits of `code`, at most 32, of which those above are zero.
    pub fn put(&mut self, code: u32, count: u32) {
        self.buffer |= u64::from(code) << self.count;
        self.count += count;
        while self.count >= 8 {
            self.bytes.push(self.buffer as u8);
            self.buffer >>= 8;
            self.count -= 8;
        }
    }

    /// The bytes, the last filled up with zeros.
    pub fn finish(mut self) -> Vec<u8> {
        if self.count > 0 {
            self.bytes.push(self.buffer as u8);
        }
        self.bytes
    }
}

/// Reads codes; past the end there are zeros, which [`is_done`](Self::is_done) tells apart.
pub(crate) struct BitReader<'a> {
    bytes: &'a [u8],
    /// The next byte to load.
    at: usize,
    buffer: u64,
    count: u32,
}

impl<'a> BitReader<'a> {
    pub fn new(bytes: &'a [u8]) -> Self {
        Self { bytes, at: 0, buffer: 0, count: 0 }
    }

    /// The next bits, at least 32 of which are those of the file.
    #[inline(always)]
    pub fn peek(&mut self) -> u32 {
        if self.count < 32 {
            self.refill();
        }
        self.buffer as u32
    }

    /// Passes over `count` bits, no more than were seen.
    #[inline(always)]
    pub fn skip(&mut self, count: u32) {
        self.buffer >>= count;
        self.count -= count;
    }

    #[inline(always)]
    fn refill(&mut self) {
        match self.bytes.get(self.at..).and_then(|rest| rest.first_chunk::<8>()) {
            Some(chunk) => {
                self.buffer |= u64::from_le_bytes(*chunk) << self.count;
                let loaded = (63 - self.count) / 8;
                self.at += loaded as usize;
                self.count += 8 * loaded;
                // What was loaded of a further byte is loaded again.
                self.buffer &= u64::MAX >> (64 - self.count);
            }
            None => {
                while self.count <= 56 {
                    self.buffer |= u64::from(self.bytes.get(self.at).copied().unwrap_or(0)) << self.count;
                    self.at += 1;
                    self.count += 8;
                }
            }
        }
    }

    /// Whether what was read is all there is: up to zeros that fill the last byte, and nothing past it.
    pub fn is_done(&self) -> bool {
        let (read, there) = (self.at * 8 - self.count as usize, self.bytes.len() * 8);
        read.div_ceil(8) * 8 == there && self.buffer == 0
    }
}
