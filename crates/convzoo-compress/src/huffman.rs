//! Canonical Huffman codes of limited length: the lengths say all.

use crate::bits::{BitReader, BitWriter};

/// The longest code, which half a byte counts.
pub(crate) const LONGEST: u32 = 15;

/// The most symbols of a code: each can have one of these lengths.
pub(crate) const MOST_SYMBOLS: usize = 1 << (LONGEST - 1);

/// Lengths of the shortest codes, none longer than `longest`, for symbols that occur so often; 0 for those that do not
/// occur. By package-merge (Larmore, Hirschberg 1990). There must be at most 2^`longest` symbols.
pub(crate) fn lengths(counts: &[u64], longest: u32) -> Vec<u8> {
    let mut used: Vec<usize> = (0..counts.len()).filter(|&symbol| counts[symbol] > 0).collect();
    let mut lengths = vec![0; counts.len()];
    if let [only] = used[..] {
        lengths[only] = 1;
        return lengths;
    }
    used.sort_by_key(|&symbol| (counts[symbol], symbol));
    let leaves: Vec<u64> = used.iter().map(|&symbol| counts[symbol]).collect();
    // Of each level, from the longest codes up: which of its items, by weight, are leaves; the others are pairs of the
    // level below.
    let mut levels: Vec<Vec<bool>> = Vec::new();
    let mut below: Vec<u64> = Vec::new();
    for _ in 0..longest {
        let pairs: Vec<u64> = below.chunks_exact(2).map(|pair| pair[0] + pair[1]).collect();
        let (mut items, mut is_leaf) = (Vec::new(), Vec::new());
        let (mut leaf, mut pair) = (0, 0);
        while leaf < leaves.len() || pair < pairs.len() {
            let takes_leaf = pairs.get(pair).is_none_or(|pair| leaves.get(leaf).is_some_and(|leaf| leaf <= pair));
            items.push(if takes_leaf { leaves[leaf] } else { pairs[pair] });
            is_leaf.push(takes_leaf);
            *(if takes_leaf { &mut leaf } else { &mut pair }) += 1;
        }
        levels.push(is_leaf);
        below = items;
    }
    // The lightest 2(n − 1) items of the top level: each time a leaf is among those taken, its code is a bit longer.
    let mut taken = 2 * used.len().saturating_sub(1);
    for is_leaf in levels.iter().rev() {
        let leaves = is_leaf[..taken].iter().filter(|leaf| **leaf).count();
        used[..leaves].iter().for_each(|&symbol| lengths[symbol] += 1);
        taken = 2 * (taken - leaves);
    }
    lengths
}

/// A limit that costs little and keeps the reader's table in the nearest cache.
pub(crate) fn limit(symbols: usize) -> u32 {
    (symbols.max(2).ilog2() + 5).min(LONGEST)
}

/// The codes of these lengths, each with its first bit lowest.
fn codes(lengths: &[u8]) -> Vec<u32> {
    let mut next = [0u32; LONGEST as usize + 2];
    for &length in lengths.iter().filter(|length| **length > 0) {
        next[length as usize + 1] += 1;
    }
    for length in 1..next.len() {
        next[length] = (next[length] + next[length - 1]) << 1;
    }
    let mut code = |&length: &u8| {
        let code = next[length as usize];
        next[length as usize] += 1;
        code.reverse_bits() >> (32 - u32::from(length))
    };
    lengths.iter().map(|length| if *length == 0 { 0 } else { code(length) }).collect()
}

/// Writes symbols.
pub(crate) fn encode(lengths: &[u8], symbols: impl Iterator<Item = usize>) -> Vec<u8> {
    let (codes, mut bits) = (codes(lengths), BitWriter::default());
    symbols.for_each(|symbol| bits.put(codes[symbol], u32::from(lengths[symbol])));
    bits.finish()
}

/// What the next bits mean, for as many as the longest code has.
pub(crate) struct Table {
    /// A symbol, and below it in eight bits the length of its code.
    entries: Vec<u32>,
    mask: u32,
}

impl Table {
    /// The table of codes of these lengths, or nothing where some bits would mean no symbol, or two.
    pub fn new(lengths: &[u8]) -> Option<Self> {
        let longest = u32::from(*lengths.iter().max()?);
        let space = |length: &u8| if *length == 0 { 0 } else { 1u64 << (longest - u32::from(*length)) };
        let filled: u64 = lengths.iter().map(space).sum();
        // A single symbol has a code of one bit, and the other bit no meaning.
        let is_single = longest == 1 && filled == 1;
        if longest == 0 || longest > LONGEST || filled != 1 << longest && !is_single {
            return None;
        }
        let mut entries = vec![0; 1 << longest];
        for (symbol, (&length, code)) in lengths.iter().zip(codes(lengths)).enumerate() {
            if length > 0 {
                let entry = (symbol as u32) << 8 | u32::from(length);
                entries[code as usize..].iter_mut().step_by(1 << length).for_each(|place| *place = entry);
            }
        }
        if is_single {
            // The reader sees then that a bit is left over.
            entries[1] = entries[0] & !0xFF;
        }
        Some(Self { mask: entries.len() as u32 - 1, entries })
    }

    /// The next symbol.
    #[inline(always)]
    pub fn next(&self, bits: &mut BitReader) -> usize {
        let entry = self.entries[(bits.peek() & self.mask) as usize];
        bits.skip(entry & 0xFF);
        (entry >> 8) as usize
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Bits of symbols that occur so often.
    fn bits(lengths: &[u8], counts: &[u64]) -> u64 {
        lengths.iter().zip(counts).map(|(&length, count)| u64::from(length) * count).sum()
    }

    /// Huffman's own, without a limit: the sum of all merged weights is the length in bits.
    fn shortest(counts: &[u64]) -> u64 {
        let mut weights: Vec<u64> = counts.iter().copied().filter(|count| *count > 0).collect();
        let mut bits = 0;
        while weights.len() > 1 {
            weights.sort_unstable_by(|a, b| b.cmp(a));
            let merged = weights.pop().unwrap() + weights.pop().unwrap();
            bits += merged;
            weights.push(merged);
        }
        bits
    }

    #[test]
    fn codes_are_as_short_as_huffmans_where_no_limit_binds() {
        for counts in [vec![5, 9, 12, 13, 16, 45], vec![1, 1], vec![3, 0, 1, 1, 0, 8, 2], vec![7; 256]] {
            let lengths = lengths(&counts, LONGEST);
            assert_eq!(bits(&lengths, &counts), shortest(&counts), "{counts:?} has lengths {lengths:?}");
        }
    }

    #[test]
    fn codes_keep_to_their_limit_and_leave_no_bits_without_meaning() {
        let fibonacci = std::iter::successors(Some((1u64, 1u64)), |(a, b)| Some((*b, a + b)));
        let counts: Vec<u64> = fibonacci.map(|pair| pair.0).take(30).collect();
        for longest in [5, 8, 12, 15] {
            let lengths = lengths(&counts, longest);
            assert!(lengths.iter().all(|length| (1..=longest as u8).contains(length)), "{longest}: {lengths:?}");
            assert!(Table::new(&lengths).is_some(), "{longest}: {lengths:?}");
        }
    }

    #[test]
    fn symbols_come_back() {
        let symbols: Vec<usize> =
            (0..5000).map(|i: usize| (i * i % 17).min(i % 7) + usize::from(i.is_multiple_of(97))).collect();
        let mut counts = vec![0; 32];
        symbols.iter().for_each(|&symbol| counts[symbol] += 1);
        let lengths = lengths(&counts, limit(counts.len()));
        let bytes = encode(&lengths, symbols.iter().copied());
        let (table, mut reader) = (Table::new(&lengths).unwrap(), BitReader::new(&bytes));
        let read: Vec<usize> = symbols.iter().map(|_| table.next(&mut reader)).collect();
        assert_eq!(read, symbols);
        assert!(reader.is_done(), "bits are left, or were made up");
    }

    #[test]
    fn lengths_that_are_no_code_are_refused() {
        for lengths in [&[][..], &[0, 0], &[1, 1, 1], &[2, 2, 2], &[2], &[1, 2]] {
            assert!(Table::new(lengths).is_none(), "{lengths:?} was taken");
        }
        assert!(Table::new(&[0, 1]).is_some(), "a single symbol has a code of one bit");
    }
}
