//! The digits that come with the crate: 1,797 handwritten ones, 8 × 8, from the test part of UCI's Optical
//! Recognition of Handwritten Digits (E. Alpaydin and C. Kaynak, CC BY 4.0; see `data/ATTRIBUTION.md`).

use std::io::Read;
use std::path::PathBuf;
use std::sync::{Arc, LazyLock};

use flate2::read::GzDecoder;

use crate::dataset::{Dataset, InMemory};
use crate::part::{HoldOut, Parts};

const SIDE: usize = 8;
/// The ink of a pixel is counted from 0 to this.
const MOST_INK: u16 = 16;

static DIGITS: LazyLock<InMemory> =
    LazyLock::new(|| read(include_bytes!("../data/optdigits.csv.gz")).expect("the embedded file is well-formed"));

/// The digits, in one part.
pub(crate) fn find(seed: Option<u64>) -> Parts {
    let train: Option<Arc<dyn Dataset>> = Some(Arc::new(DIGITS.clone()));
    let (name, path) = ("digits", PathBuf::from("the embedded digits"));
    Parts { name, path, train, val: None, test: None, hold_out: HoldOut::Shuffled, seed }
}

/// The digits in a compressed table: on each line an image's pixels, row by row, and its digit.
fn read(table: &[u8]) -> Option<InMemory> {
    let mut text = String::new();
    GzDecoder::new(table).read_to_string(&mut text).ok()?;
    let (mut pixels, mut labels) = (Vec::new(), Vec::new());
    for line in text.lines() {
        let (ink, label) = line.rsplit_once(',')?;
        for ink in ink.split(',') {
            let ink: u16 = ink.parse().ok().filter(|&ink| ink <= MOST_INK)?;
            pixels.push(((ink * 255 + MOST_INK / 2) / MOST_INK) as u8);
        }
        labels.push(label.parse().ok()?);
    }
    InMemory::new((SIDE, SIDE, 1), pixels, labels, (0..10).map(|digit| digit.to_string()).collect())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::DataError;

    #[test]
    fn all_1797_digits_are_there_from_white_to_black() {
        assert_eq!(DIGITS.len(), 1797);
        let first = DIGITS.get(0).unwrap();
        assert_eq!(first.label, 0);
        // 0, 0, 5, 13, 9, 1, 0, 0 of 16
        assert_eq!(first.image.pixels[..8], [0, 0, 80, 207, 143, 16, 0, 0]);
        assert_eq!((0..1797).map(|i| *DIGITS.get(i).unwrap().image.pixels.iter().max().unwrap()).max(), Some(255));
    }

    #[test]
    fn a_fifth_is_held_out_and_every_digit_is_in_both_parts() {
        let splits = find(None).splits().unwrap();
        assert_eq!((splits.train.len(), splits.test.len()), (1437, 360));
        for part in [&splits.train, &splits.test] {
            let mut seen = [false; 10];
            (0..part.len()).for_each(|i| seen[part.label(i).unwrap()] = true);
            assert_eq!(seen, [true; 10]);
        }
        assert!(matches!(splits.test.get(360), Err(DataError::OutOfRange { index: 360, len: 360 })));
    }

    #[test]
    fn a_broken_table_is_nothing_and_not_a_panic() {
        assert!(read(b"").is_none());
        let whole = include_bytes!("../data/optdigits.csv.gz");
        assert!(read(&whole[..whole.len() / 2]).is_none());
    }
}
