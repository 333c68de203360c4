//! Mutations of files, the same for the same seed.

/// splitmix64.
pub struct Random(pub u64);

impl Random {
    /// Any number.
    pub fn number(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let z = (self.0 ^ (self.0 >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        let z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        z ^ (z >> 31)
    }

    /// A number below `end`, or 0.
    pub fn below(&mut self, end: usize) -> usize {
        (self.number() % end.max(1) as u64) as usize
    }
}

/// One to four changes, most of them where the file says what it holds: within `structure` bytes of either end.
pub fn mutate(whole: &[u8], structure: usize, random: &mut Random) -> Vec<u8> {
    let mut bytes = whole.to_vec();
    for _ in 0..1 + random.below(4) {
        let length = bytes.len();
        if length == 0 {
            break;
        }
        let at = match random.below(5) {
            0 | 1 => random.below(structure.min(length)),
            2 | 3 => length - 1 - random.below(structure.min(length)),
            _ => random.below(length),
        };
        let rest = length - at;
        match random.below(8) {
            0 => bytes[at] ^= 1 << random.below(8),
            1 => bytes[at] = random.number() as u8,
            2 => bytes.truncate(at),
            // Lengths, offsets and counts at their edges.
            3 => {
                let edges = [0, 1, 0x7f, 0xff, 0x7fff_ffff, 0xffff_ffff, u64::MAX >> 1, u64::MAX, 1 << 40, 1 << 31];
                let edge = edges[random.below(edges.len())].to_le_bytes();
                let width = [1, 2, 4, 8][random.below(4)].min(rest);
                bytes[at..at + width].copy_from_slice(&edge[..width]);
            }
            // A decimal digit, as headers of text have them.
            4 => match bytes[at..].iter().position(u8::is_ascii_digit) {
                Some(digit) => {
                    let more = ["9", "99999", "99999999999999999999", "-", "0", ""][random.below(6)];
                    bytes.splice(at + digit..at + digit + 1, more.bytes());
                }
                None => bytes[at] = b'9',
            },
            // A piece of the file over another, or between.
            5 | 6 => {
                let (from, size) = (random.below(length), 1 + random.below(64));
                let piece = bytes[from..(from + size).min(length)].to_vec();
                let over = if random.below(2) == 0 { piece.len().min(rest) } else { 0 };
                bytes.splice(at..at + over, piece);
            }
            _ => drop(bytes.drain(at..at + (1 + random.below(16)).min(rest))),
        }
    }
    bytes
}
