//! All seeds of a run, each from the run's own and a position, so that a resumed run draws what an uninterrupted one
//! would have drawn. Checkpoints count on these numbers: another mixture is another run.

use rand::rngs::ChaCha8Rng;
use rand::{RngExt, SeedableRng};

/// Odd, and without a pattern in their bits.
const MULTIPLIERS: [u64; 2] = [0x9E37_79B9_7F4A_7C15, 0xD1B5_4A32_D192_ED03];

/// Of an epoch's order and of its augmentation.
pub(crate) fn of_epoch(run: u64, epoch: usize) -> u64 {
    pair(run, epoch as u64)
}

/// Of one image's augmentation in an epoch of this seed.
pub(crate) fn of_image(epoch: u64, index: usize) -> u64 {
    pair(epoch, index as u64)
}

/// Whether an image's turn in an epoch is an odd one: every other epoch's is, which of the two is drawn for each image in
/// the epoch before the first.
pub(crate) fn odd_turn(run: u64, epoch: usize, index: usize) -> bool {
    let before: bool = ChaCha8Rng::seed_from_u64(of_image(of_epoch(run, 0), index)).random();
    before != (epoch % 2 == 1)
}

/// Of how a batch is mixed in an epoch of this seed. Batches are numbered from the other end than images, so that no
/// two share a seed.
pub(crate) fn of_mix(epoch: u64, batch: usize) -> u64 {
    pair(epoch, u64::MAX - batch as u64)
}

/// Of a device's random numbers in a training step, such as dropout's.
pub(crate) fn of_step(run: u64, epoch: usize, batch: usize) -> u64 {
    [epoch as u64, batch as u64].into_iter().fold(run, |mixed, part| {
        (mixed ^ part.wrapping_mul(MULTIPLIERS[1])).wrapping_mul(MULTIPLIERS[0]).rotate_left(29)
    })
}

/// Of one of several devices in a step of this seed; the first has the step's own, as a device alone has.
pub(crate) fn of_device(step: u64, device: usize) -> u64 {
    match device {
        0 => step,
        _ => pair(step, device as u64),
    }
}

/// One seed from two; (1, 2) is not (2, 1).
fn pair(seed: u64, number: u64) -> u64 {
    seed.wrapping_mul(MULTIPLIERS[0]).wrapping_add(number.wrapping_mul(MULTIPLIERS[1]))
}

#[cfg(test)]
mod tests {
    use std::collections::HashSet;

    use super::*;

    #[test]
    fn positions_have_seeds_of_their_own() {
        let positions = (0..20).flat_map(|epoch| (0..50).map(move |batch| (epoch, batch)));
        let steps: HashSet<u64> = positions.map(|(epoch, batch)| of_step(7, epoch, batch)).collect();
        assert_eq!(steps.len(), 1000);
        let epoch = of_epoch(7, 1);
        let drawn: HashSet<u64> = (0..500).flat_map(|at| [of_image(epoch, at), of_mix(epoch, at)]).collect();
        assert_eq!(drawn.len(), 1000);
    }

    #[test]
    fn turns_alternate_and_begin_independently() {
        let odd = |run, epoch| (0..10_000).map(|index| odd_turn(run, epoch, index)).collect::<Vec<_>>();
        let first = odd(7, 1);
        let half = |what: &str, of: usize| assert!((4_800..5_200).contains(&of), "{what}: {of} of 10000");
        half("odd", first.iter().filter(|&&odd| odd).count());
        half("as the image before", first.windows(2).filter(|pair| pair[0] == pair[1]).count());
        half("as in the next run", first.iter().zip(odd(8, 1)).filter(|&(&own, other)| own == other).count());
        assert!(first.iter().zip(odd(7, 2)).all(|(&first, second)| first != second));
        assert_eq!(first, odd(7, 3));
    }

    /// Runs of earlier versions are resumed by the same numbers.
    #[test]
    fn seeds_stay_what_they_were() {
        let seeds = [of_epoch(3, 2), of_image(5, 7), of_mix(5, 7), of_step(3, 2, 1)];
        let expected = [0x7E11_0192_2105_4E45, 0xD30A_6803_3778_E77E, 0x896B_0F08_EFDD_0451, 0x4A7D_C14A_B189_8643];
        assert_eq!(seeds, expected);
        let turns = (0..16).fold(0_u16, |turns, index| turns << 1 | u16::from(odd_turn(3, 2, index)));
        assert_eq!(turns, 0xEA60);
    }
}
