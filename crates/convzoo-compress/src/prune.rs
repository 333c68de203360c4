/// Zeroes the weights of least magnitude, a `sparsity` from 0 to 1 of all, rounded down; those that are zero already
/// count. Of equals the first go.
pub fn prune(weights: &mut [f32], sparsity: f64) {
    let count = (sparsity.clamp(0.0, 1.0) * weights.len() as f64) as usize;
    if count == 0 {
        return;
    }
    let mut order: Vec<usize> = (0..weights.len()).collect();
    let smaller = |&a: &usize, &b: &usize| weights[a].abs().total_cmp(&weights[b].abs()).then(a.cmp(&b));
    order.select_nth_unstable_by(count - 1, smaller);
    order[..count].iter().for_each(|&index| weights[index] = 0.0);
}

/// Which weights of a tensor are left.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Mask(Vec<bool>);

impl Mask {
    /// Those that are not zero.
    pub fn of(weights: &[f32]) -> Self {
        Self(weights.iter().map(|weight| *weight != 0.0).collect())
    }

    /// Zeroes the gradient of those that are gone, so that an optimizer leaves them at zero.
    ///
    /// # Panics
    /// There are more or fewer numbers than weights.
    pub fn mask_gradient(&self, gradient: &mut [f32]) {
        assert_eq!(gradient.len(), self.0.len(), "a gradient has a number for each weight");
        gradient.iter_mut().zip(&self.0).filter(|(_, left)| !**left).for_each(|(gradient, _)| *gradient = 0.0);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_smallest_go_and_zeros_count() {
        let pruned = |sparsity| {
            let mut weights = [0.5, -0.1, 0.0, 2.0, -0.1, 0.3];
            prune(&mut weights, sparsity);
            weights
        };
        assert_eq!(pruned(0.0), [0.5, -0.1, 0.0, 2.0, -0.1, 0.3]);
        assert_eq!(pruned(0.34), [0.5, 0.0, 0.0, 2.0, -0.1, 0.3]);
        assert_eq!(pruned(0.5), [0.5, 0.0, 0.0, 2.0, 0.0, 0.3]);
        assert_eq!(pruned(1.0), [0.0; 6]);
    }

    #[test]
    fn a_mask_stops_the_gradient_of_what_is_gone() {
        let mut gradient = [1.0, 2.0, 3.0];
        Mask::of(&[0.0, -4.0, 0.0]).mask_gradient(&mut gradient);
        assert_eq!(gradient, [0.0, 2.0, 0.0]);
    }
}
