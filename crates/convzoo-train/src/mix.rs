use rand::RngExt;
use rand::rngs::ChaCha8Rng;
use serde::{Deserialize, Serialize};

use crate::TrainError;

/// Blends pairs of images, and their targets alike. Where both kinds are on, each batch gets one of them by chance, as
/// in torchvision's training script.
#[derive(Debug, Clone, Copy, Default, PartialEq, Serialize, Deserialize)]
pub struct Mix {
    /// α of the Beta(α, α) that a batch's blend is drawn from, 0 for none: mixup
    /// ([Zhang et al., 2017](https://arxiv.org/abs/1710.09412)), 0.2 for ImageNet.
    pub mixup: f64,
    /// α of the Beta(α, α) that the share of a pasted rectangle is drawn from, 0 for none: CutMix
    /// ([Yun et al., 2019](https://arxiv.org/abs/1905.04899)), 1 for ImageNet.
    pub cutmix: f64,
}

/// What a mixed batch remembers: each image's own share, at least a half, and where the rest comes from.
pub(crate) struct Mixed {
    pub share: f64,
    /// Each image's partner, who lends the smaller share.
    pub partners: Vec<i64>,
}

/// The smallest and the largest α: beyond either drawing takes ever more attempts, and blends are all of one image, or
/// halves, by then.
const ALPHA: [f64; 2] = [0.001, 4.0];

impl Mix {
    /// Refuses what makes no sense.
    pub fn check(&self) -> Result<(), TrainError> {
        for (field, alpha) in [("mixup", self.mixup), ("cutmix", self.cutmix)] {
            if alpha != 0.0 && !(ALPHA[0]..=ALPHA[1]).contains(&alpha) {
                return Err(TrainError::Recipe {
                    field,
                    value: format!("{alpha:?}"),
                    expected: "0, or from 0.001 to 4",
                });
            }
        }
        Ok(())
    }

    /// Whether batches stay as they are.
    pub fn is_none(&self) -> bool {
        *self == Self::default()
    }

    /// Mixes images of `[height, width]` planes, one after another, with the neighbour before each; `targets`
    /// become the classes of the larger shares.
    pub(crate) fn apply(
        &self,
        images: &mut [f32],
        targets: &mut Vec<i64>,
        [height, width]: [usize; 2],
        chance: &mut ChaCha8Rng,
    ) -> Mixed {
        let cut = self.cutmix > 0.0 && (self.mixup == 0.0 || chance.random_bool(0.5));
        let mut others = images.to_vec();
        others.rotate_right(images.len() / targets.len().max(1));
        let own = beta(if cut { self.cutmix } else { self.mixup }, chance);
        let own = if cut {
            paste(images, &others, own, [height, width], chance)
        } else {
            let blend = |(own_value, other): (&mut f32, &f32)| {
                *own_value = (own * f64::from(*own_value) + (1.0 - own) * f64::from(*other)) as f32;
            };
            images.iter_mut().zip(&others).for_each(blend);
            own
        };
        let mut partners = targets.clone();
        partners.rotate_right(1);
        if own >= 0.5 {
            return Mixed { share: own, partners };
        }
        std::mem::swap(targets, &mut partners);
        Mixed { share: 1.0 - own, partners }
    }
}

/// A rectangle of the others' pixels in all images, about 1 − `own` of the area around a centre anywhere; returns
/// the share that is left.
fn paste(images: &mut [f32], others: &[f32], own: f64, [height, width]: [usize; 2], chance: &mut ChaCha8Rng) -> f64 {
    let half = 0.5 * (1.0 - own).sqrt();
    let mut span = |side: usize| {
        let (centre, reach) = (chance.random_range(0..side), (half * side as f64) as usize);
        centre.saturating_sub(reach)..(centre + reach).min(side)
    };
    let (columns, rows) = (span(width), span(height));
    for (plane, other) in images.chunks_exact_mut(height * width).zip(others.chunks_exact(height * width)) {
        for row in rows.clone() {
            let at = row * width;
            plane[at + columns.start..at + columns.end].copy_from_slice(&other[at + columns.start..at + columns.end]);
        }
    }
    1.0 - (columns.len() * rows.len()) as f64 / (height * width) as f64
}

/// A share from Beta(α, α), by Jöhnk's rejection.
fn beta(alpha: f64, chance: &mut ChaCha8Rng) -> f64 {
    loop {
        let [x, y] = [(); 2].map(|()| chance.random::<f64>().powf(1.0 / alpha));
        // Both may be too small for a number.
        if x + y <= 1.0 && x + y > 0.0 {
            return x / (x + y);
        }
    }
}

#[cfg(test)]
mod tests {
    use rand::SeedableRng;

    use super::*;

    fn chance() -> ChaCha8Rng {
        ChaCha8Rng::seed_from_u64(11)
    }

    #[test]
    fn shares_are_beta_distributed() {
        for alpha in [0.2, 1.0, 3.0] {
            let mut chance = chance();
            let shares: Vec<f64> = (0..4000).map(|_| beta(alpha, &mut chance)).collect();
            let mean = shares.iter().sum::<f64>() / 4000.0;
            let variance = shares.iter().map(|share| (share - 0.5).powi(2)).sum::<f64>() / 4000.0;
            let expected = 1.0 / (4.0 * (2.0 * alpha + 1.0));
            assert!((mean - 0.5).abs() < 0.02, "α {alpha}: mean {mean}");
            assert!((variance / expected - 1.0).abs() < 0.08, "α {alpha}: variance {variance}, not {expected}");
        }
    }

    /// Three images of one plane each, of all 1, 2 and 3.
    fn batch() -> (Vec<f32>, Vec<i64>) {
        ([[1.0; 48], [2.0; 48], [3.0; 48]].concat(), vec![1, 2, 3])
    }

    #[test]
    fn targets_are_mixed_as_images_are() {
        let mut chance = chance();
        for mix in [Mix { mixup: 0.8, cutmix: 0.0 }, Mix { mixup: 0.0, cutmix: 1.0 }, Mix { mixup: 0.8, cutmix: 1.0 }] {
            for _ in 0..50 {
                let (mut images, mut targets) = batch();
                let mixed = mix.apply(&mut images, &mut targets, [6, 8], &mut chance);
                assert!((0.5..=1.0).contains(&mixed.share), "{mix:?}: share {}", mixed.share);
                for (image, (target, partner)) in images.chunks(48).zip(targets.iter().zip(&mixed.partners)) {
                    let mean = f64::from(image.iter().sum::<f32>()) / 48.0;
                    let expected = mixed.share * *target as f64 + (1.0 - mixed.share) * *partner as f64;
                    assert!((mean - expected).abs() < 1e-5, "{mix:?}: mean {mean}, targets say {expected}");
                }
            }
        }
    }

    /// Below the lower bound nearly every attempt ends in numbers too small to divide.
    #[test]
    fn drawing_ends_at_both_bounds_and_what_is_beyond_is_refused() {
        let mut chance = chance();
        for alpha in ALPHA {
            let shares: f64 = (0..1000).map(|_| beta(alpha, &mut chance)).sum();
            assert!((400.0..600.0).contains(&shares), "α {alpha}: mean {}", shares / 1000.0);
        }
        for alpha in [1e-300, 1e-100, 0.0009, 4.1, -1.0, f64::NAN, f64::INFINITY] {
            for mix in [Mix { mixup: alpha, cutmix: 0.0 }, Mix { mixup: 0.0, cutmix: alpha }] {
                assert!(mix.check().is_err(), "{mix:?}");
            }
        }
        Mix::default().check().unwrap();
    }

    #[test]
    fn both_kinds_take_turns() {
        let mut chance = chance();
        let mix = Mix { mixup: 1.0, cutmix: 1.0 };
        let pasted = (0..200).filter(|_| {
            let (mut images, mut targets) = batch();
            mix.apply(&mut images, &mut targets, [6, 8], &mut chance);
            images.iter().all(|value| value.fract() == 0.0)
        });
        let pasted = pasted.count();
        assert!((70..130).contains(&pasted), "{pasted} of 200 pasted");
    }
}
