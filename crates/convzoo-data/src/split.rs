//! Holding a part of a data set out, a fifth for testing, the same part every time.

use rand::SeedableRng;
use rand::rngs::ChaCha8Rng;
use rand::seq::SliceRandom;

/// Which samples of a data set are for training and which for testing, each in ascending order.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Split {
    /// Indices to train on.
    pub train: Vec<usize>,
    /// Indices to test on.
    pub test: Vec<usize>,
}

impl Split {
    /// The first four fifths for training and the rest for testing: of `len` in their order, or with a seed, of `len`
    /// shuffled by it.
    pub fn fifth(len: usize, seed: Option<u64>) -> Self {
        let mut order: Vec<usize> = (0..len).collect();
        if let Some(seed) = seed {
            order.shuffle(&mut ChaCha8Rng::seed_from_u64(seed));
        }
        let test = order.split_off(len - len.div_ceil(5));
        Self { train: order, test }.sorted()
    }

    /// A `share` of each class for testing, 0 to 1, to the nearest whole image but never the last of a class, chosen by
    /// `seed`.
    pub fn stratified(labels: &[usize], share: f64, seed: u64) -> Self {
        let mut classes: Vec<Vec<usize>> = Vec::new();
        for (index, &label) in labels.iter().enumerate() {
            classes.resize_with(classes.len().max(label + 1), Vec::new);
            classes[label].push(index);
        }
        let mut rng = ChaCha8Rng::seed_from_u64(seed);
        let mut split = Self { train: Vec::new(), test: Vec::new() };
        for mut class in classes {
            class.shuffle(&mut rng);
            let held_out = (share * class.len() as f64).round() as usize;
            split.test.extend(class.split_off(class.len() - held_out.min(class.len().saturating_sub(1))));
            split.train.extend(class);
        }
        split.sorted()
    }

    fn sorted(mut self) -> Self {
        self.train.sort_unstable();
        self.test.sort_unstable();
        self
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn without_a_seed_the_last_fifth_is_held_out_in_order() {
        let split = Split::fifth(10_000, None);
        assert_eq!(split.train, (0..8_000).collect::<Vec<_>>());
        assert_eq!(split.test, (8_000..10_000).collect::<Vec<_>>());
    }

    #[test]
    fn a_seed_always_gives_the_same_fifth_and_another_seed_another() {
        let split = Split::fifth(1797, Some(0));
        assert_eq!((split.train.len(), split.test.len()), (1437, 360));
        // Written down once: a changed generator would silently test on what earlier runs trained on.
        assert_eq!(split.test[..5], [0, 8, 11, 14, 16]);
        assert_ne!(split.test, Split::fifth(1797, Some(1)).test);
        let mut all = [split.train, split.test].concat();
        all.sort_unstable();
        assert_eq!(all, (0..1797).collect::<Vec<_>>());
    }

    #[test]
    fn every_class_is_held_out_in_proportion() {
        let labels: Vec<usize> = (0..100).map(|i| usize::from(i >= 70)).collect();
        let split = Split::stratified(&labels, 0.2, 7);
        assert_eq!(split.test.iter().filter(|&&i| i < 70).count(), 14);
        assert_eq!(split.test.len(), 20);
        assert_eq!(split, Split::stratified(&labels, 0.2, 7));
        // As many of each class as the fifth that was held out in whole numbers.
        for len in 0..500 {
            assert_eq!(Split::stratified(&vec![0; len], 0.2, 7).test.len(), (len + 2) / 5, "of {len}");
        }
        assert_eq!(Split::stratified(&[0, 1, 1], 0.9, 7).test.len(), 1, "a class has an image left");
    }

    #[test]
    fn small_and_empty_sets_do_not_panic() {
        for len in 0..12 {
            let split = Split::fifth(len, Some(3));
            assert_eq!(split.train.len() + split.test.len(), len);
            assert_eq!(Split::stratified(&vec![0; len], 0.2, 3).train.is_empty(), len == 0);
        }
    }
}
