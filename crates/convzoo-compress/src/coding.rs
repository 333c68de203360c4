//! One tensor as bytes, by whichever coding is shortest, and back. `docs/src/compression.md` describes them.

use std::collections::HashMap;

use crate::bits::BitReader;
use crate::file::{Input, put_number};
use crate::huffman::{self, MOST_SYMBOLS, Table};

/// All weights as they are.
const RAW: u8 = 0;
/// All weights by a codebook.
const DENSE: u8 = 1;
/// Weights that are not zero, each after the gap before it, as they are.
const SPARSE: u8 = 2;
/// Weights that are not zero, each after the gap before it, by a codebook.
const SHARED: u8 = 3;

/// The most bits of a gap's index.
const WIDEST: u32 = 8;

/// Bytes that a tensor takes after each step of the method.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Sizes {
    /// As 32-bit numbers.
    pub raw: usize,
    /// As 32-bit numbers that are not zero, each with the gap before it in a fixed number of bits.
    pub pruned: usize,
    /// The same with an index into a codebook for each number.
    pub shared: usize,
    /// With Huffman codes for gaps and indices: what the file has.
    pub coded: usize,
}

/// A tensor's values as their distinct ones, and which of them each is.
struct Values {
    distinct: Vec<f32>,
    counts: Vec<u64>,
    of: Vec<u16>,
}

impl Values {
    /// Of these values; nothing where there are too many for a codebook.
    fn of(values: &[f32]) -> Option<Self> {
        let mut places: HashMap<u32, u64> = HashMap::new();
        for value in values {
            *places.entry(value.to_bits()).or_default() += 1;
            if places.len() > MOST_SYMBOLS {
                return None;
            }
        }
        let mut pairs: Vec<(f32, u64)> =
            places.into_iter().map(|(bits, count)| (f32::from_bits(bits), count)).collect();
        pairs.sort_by(|a, b| a.0.total_cmp(&b.0));
        let (distinct, counts): (Vec<_>, Vec<_>) = pairs.into_iter().unzip();
        let indices: HashMap<u32, u16> = distinct.iter().map(|value| value.to_bits()).zip(0..).collect();
        let of = values.iter().map(|value| indices[&value.to_bits()]).collect();
        Some(Self { distinct, counts, of })
    }

    /// Of some of them, by their places.
    fn at(&self, places: &[usize]) -> Self {
        let mut counts = vec![0u64; self.counts.len()];
        places.iter().for_each(|&place| counts[usize::from(self.of[place])] += 1);
        let kept = || (0..counts.len()).filter(|&index| counts[index] > 0);
        let mut renumbered = vec![0; counts.len()];
        kept().zip(0..).for_each(|(index, number)| renumbered[index] = number);
        Self {
            distinct: kept().map(|index| self.distinct[index]).collect(),
            of: places.iter().map(|&place| renumbered[usize::from(self.of[place])]).collect(),
            counts: kept().map(|index| counts[index]).collect(),
        }
    }

    fn lengths(&self) -> Vec<u8> {
        huffman::lengths(&self.counts, huffman::limit(self.counts.len()))
    }

    /// Bits of an index into the codebook.
    fn width(&self) -> u32 {
        self.distinct.len().next_power_of_two().ilog2().max(1)
    }
}

/// A tensor as pairs of a gap, the zeros before, and a value. The last pair is for the tensor's last weight.
struct Pairs {
    /// Bits of a gap's index: gaps are below 2^`width`, and where there are more zeros, one of them is a value.
    width: u32,
    gaps: Vec<u8>,
    counts: Vec<u64>,
    /// Where the values are.
    places: Vec<usize>,
}

impl Pairs {
    fn new(weights: &[f32], width: u32) -> Self {
        let mut pairs = Self { width, gaps: Vec::new(), counts: vec![0; 1 << width], places: Vec::new() };
        let last = weights.len().saturating_sub(1);
        let mut gap = 0;
        for (index, weight) in weights.iter().enumerate() {
            if weight.to_bits() == 0 && index != last && gap < (1 << width) - 1 {
                gap += 1;
                continue;
            }
            pairs.gaps.push(gap as u8);
            pairs.counts[gap as usize] += 1;
            pairs.places.push(index);
            gap = 0;
        }
        pairs
    }

    fn lengths(&self) -> Vec<u8> {
        huffman::lengths(&self.counts, huffman::limit(self.counts.len()))
    }
}

/// The tensor's bytes, the shortest of all codings, and how they came about.
pub(crate) fn encode(weights: &[f32]) -> (Vec<u8>, Sizes) {
    let raw = 4 * weights.len();
    let mut sizes = Sizes { raw, pruned: raw, shared: raw, coded: 0 };
    let mut best: Vec<u8> =
        std::iter::once(RAW).chain(weights.iter().flat_map(|weight| weight.to_le_bytes())).collect();
    let mut offer = |bytes: Vec<u8>| {
        if bytes.len() < best.len() {
            best = bytes;
        }
    };
    let values = Values::of(weights);
    if let Some(values) = &values {
        sizes.shared = raw.min((weights.len() * values.width() as usize).div_ceil(8) + 4 * values.distinct.len());
        offer(dense(values));
    }
    // Gaps pay where some are there; the best width is found by trying.
    if weights.iter().any(|weight| weight.to_bits() == 0) {
        for width in 1..=WIDEST {
            let pairs = Pairs::new(weights, width);
            let values = values.as_ref().map(|values| values.at(&pairs.places));
            let fixed = |value: u32| (pairs.gaps.len() * (width + value) as usize).div_ceil(8);
            sizes.pruned = sizes.pruned.min(fixed(32));
            if let Some(values) = &values {
                sizes.shared = sizes.shared.min(fixed(values.width()) + 4 * values.distinct.len());
            }
            offer(sparse(weights, &pairs, values.as_ref()));
            // A codebook of numbers that differ all is longer than they are.
            offer(sparse(weights, &pairs, None));
        }
    }
    // What shares nothing is no larger for it.
    sizes.shared = sizes.shared.min(sizes.pruned);
    sizes.coded = best.len();
    (best, sizes)
}

fn dense(values: &Values) -> Vec<u8> {
    let (mut bytes, lengths) = (vec![DENSE], values.lengths());
    put_codebook(&mut bytes, values, &lengths);
    bytes.extend(huffman::encode(&lengths, values.of.iter().map(|index| usize::from(*index))));
    bytes
}

fn sparse(weights: &[f32], pairs: &Pairs, values: Option<&Values>) -> Vec<u8> {
    let lengths = pairs.lengths();
    let mut bytes = vec![if values.is_some() { SHARED } else { SPARSE }, pairs.width as u8];
    put_number(&mut bytes, pairs.gaps.len());
    put_lengths(&mut bytes, &lengths);
    let gaps = huffman::encode(&lengths, pairs.gaps.iter().map(|gap| usize::from(*gap)));
    put_number(&mut bytes, gaps.len());
    bytes.extend(gaps);
    match values {
        Some(values) => {
            let lengths = values.lengths();
            put_codebook(&mut bytes, values, &lengths);
            bytes.extend(huffman::encode(&lengths, values.of.iter().map(|index| usize::from(*index))));
        }
        None => bytes.extend(pairs.places.iter().flat_map(|&place| weights[place].to_le_bytes())),
    }
    bytes
}

fn put_codebook(bytes: &mut Vec<u8>, values: &Values, lengths: &[u8]) {
    put_number(bytes, values.distinct.len());
    bytes.extend(values.distinct.iter().flat_map(|value| value.to_le_bytes()));
    put_lengths(bytes, lengths);
}

/// Lengths of codes, two in a byte.
fn put_lengths(bytes: &mut Vec<u8>, lengths: &[u8]) {
    bytes.extend(lengths.chunks(2).map(|pair| pair[0] | pair.get(1).map_or(0, |second| second << 4)));
}

/// The most weights that so many bytes can mean: in two bits a gap of 255 and the value after it.
pub(crate) fn most_weights(bytes: usize) -> usize {
    bytes.saturating_mul(4 << WIDEST)
}

/// The `count` weights that these bytes mean, or what is wrong with them. The caller has checked that there is room for
/// as many; no other memory is asked for than in proportion to the bytes.
pub(crate) fn decode(bytes: &[u8], count: usize) -> Result<Vec<f32>, &'static str> {
    let mut input = Input::new(bytes);
    match input.byte()? {
        RAW => numbers(&mut input, count).filter(|_| input.rest().is_empty()).ok_or(LENGTH),
        DENSE => {
            let (codebook, table) = codebook(&mut input)?;
            let bits = input.rest();
            if count > 8 * bits.len() {
                return Err(LENGTH);
            }
            let mut bits = BitReader::new(bits);
            let weights = (0..count).map(|_| codebook[table.next(&mut bits)]).collect();
            if bits.is_done() { Ok(weights) } else { Err(LENGTH) }
        }
        kind @ (SPARSE | SHARED) => {
            let width = u32::from(input.byte()?);
            if !(1..=WIDEST).contains(&width) {
                return Err("gaps are of 1 to 8 bits");
            }
            let pairs = input.number()?;
            let gaps = table(&mut input, 1 << width)?;
            let length = input.number()?;
            let bits = input.bytes(length)?;
            // Before anything is made room for: each pair has a bit at least, and no more pairs than weights.
            if pairs > 8 * bits.len() || pairs > count || count > pairs << width {
                return Err(LENGTH);
            }
            let mut bits = BitReader::new(bits);
            let gaps = (0..pairs).map(|_| gaps.next(&mut bits));
            let weights = match kind {
                SPARSE => {
                    let values = numbers(&mut input, pairs).filter(|_| input.rest().is_empty()).ok_or(LENGTH)?;
                    place(count, gaps.zip(values))?
                }
                _ => {
                    let (codebook, table) = codebook(&mut input)?;
                    let rest = input.rest();
                    if pairs > 8 * rest.len() {
                        return Err(LENGTH);
                    }
                    let mut of = BitReader::new(rest);
                    let values = (0..pairs).map(|_| codebook[table.next(&mut of)]);
                    let weights = place(count, gaps.zip(values))?;
                    if !of.is_done() {
                        return Err(LENGTH);
                    }
                    weights
                }
            };
            if bits.is_done() { Ok(weights) } else { Err(LENGTH) }
        }
        _ => Err("it is coded in no known way"),
    }
}

const LENGTH: &str = "its codes end before its last weight or after it";

/// Zeros but for values, each after a gap.
#[inline(always)]
fn place(count: usize, pairs: impl Iterator<Item = (usize, f32)>) -> Result<Vec<f32>, &'static str> {
    let (mut weights, mut next) = (vec![0.0; count], 0);
    for (gap, value) in pairs {
        *weights.get_mut(next + gap).ok_or(LENGTH)? = value;
        next += gap + 1;
    }
    if next == count { Ok(weights) } else { Err(LENGTH) }
}

/// So many 32-bit numbers, if they are there.
fn numbers(input: &mut Input, count: usize) -> Option<Vec<f32>> {
    let bytes = input.bytes(count.checked_mul(4)?).ok()?;
    Some(bytes.as_chunks::<4>().0.iter().map(|bytes| f32::from_le_bytes(*bytes)).collect())
}

fn codebook(input: &mut Input) -> Result<(Vec<f32>, Table), &'static str> {
    let length = input.number()?;
    if !(1..=MOST_SYMBOLS).contains(&length) {
        return Err("its codebook is empty or too large");
    }
    let values = numbers(input, length).ok_or("its codebook is cut short")?;
    Ok((values, table(input, length)?))
}

fn table(input: &mut Input, symbols: usize) -> Result<Table, &'static str> {
    let bytes = input.bytes(symbols.div_ceil(2))?;
    let lengths: Vec<u8> = bytes.iter().flat_map(|byte| [byte & 15, byte >> 4]).take(symbols).collect();
    Table::new(&lengths).ok_or("its lengths are those of no Huffman code")
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Deterministic numbers that look like none.
    fn noise(count: usize) -> Vec<f32> {
        let mut state = 1u32;
        let mut next = || {
            state = state.wrapping_mul(1_664_525).wrapping_add(1_013_904_223);
            (state >> 8) as f32 / (1 << 24) as f32 - 0.5
        };
        (0..count).map(|_| next()).collect()
    }

    fn kind_of(weights: &[f32]) -> u8 {
        let (bytes, sizes) = encode(weights);
        let read = decode(&bytes, weights.len()).unwrap();
        let same = read.iter().zip(weights).all(|(a, b)| a.to_bits() == b.to_bits());
        assert!(same && read.len() == weights.len(), "coding {} changed the weights", bytes[0]);
        assert!(sizes.raw >= sizes.pruned && sizes.pruned >= sizes.shared, "a step made them larger: {sizes:?}");
        bytes[0]
    }

    #[test]
    fn each_coding_is_chosen_where_it_is_shortest_and_gives_back_every_bit() {
        let plain = noise(2000);
        let shared: Vec<f32> = plain.iter().map(|value| (value * 16.0).round() / 16.0 + 1.0).collect();
        let left = |least: f32| plain.iter().map(move |value| if value.abs() < least { 0.0 } else { *value });
        let pruned: Vec<f32> = left(0.25).collect();
        let both: Vec<f32> = left(0.45).map(|value| (value * 16.0).round() / 16.0).collect();
        assert_eq!(kind_of(&plain), RAW);
        assert_eq!(kind_of(&shared), DENSE);
        assert_eq!(kind_of(&pruned), SPARSE);
        assert_eq!(kind_of(&both), SHARED);
    }

    #[test]
    fn extremes_come_back() {
        let mut alone = vec![0.0; 3000];
        alone[2500] = 1.0;
        let negative_zero = [vec![-0.0; 5], vec![0.0; 400]].concat();
        let cases = [vec![], vec![0.0], vec![3.5], vec![0.0; 100_000], vec![2.0; 77], alone, negative_zero];
        for weights in cases {
            kind_of(&weights);
        }
    }

    #[test]
    fn a_tensor_of_zeros_takes_no_less_than_the_reader_expects() {
        let bytes = encode(&vec![0.0; 1 << 20]).0;
        assert!(1 << 20 <= most_weights(bytes.len()), "{} bytes would be refused", bytes.len());
    }

    #[test]
    fn fillers_bridge_gaps_of_any_length() {
        for gap in [0, 1, 2, 3, 7, 8, 254, 255, 256, 257, 511, 512, 513] {
            let weights = [vec![0.0; gap], vec![1.0], vec![0.0; gap]].concat();
            for width in 1..=WIDEST {
                let pairs = Pairs::new(&weights, width);
                let values = Values::of(&weights).map(|values| values.at(&pairs.places));
                let bytes = sparse(&weights, &pairs, values.as_ref());
                assert_eq!(decode(&bytes, weights.len()).as_deref(), Ok(&weights[..]), "gaps of {gap} by {width} bits");
            }
        }
    }
}
