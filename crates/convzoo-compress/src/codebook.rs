use std::ops::Range;

/// The most bits of an index into a [`Codebook`].
pub const MOST_BITS: u32 = 12;

/// The most passes of k-means; it has mostly settled long before.
const MOST_PASSES: usize = 1000;

/// A tensor's weights as a few values that they share. Zero is its own value, and stays it.
#[derive(Clone, Debug, PartialEq)]
pub struct Codebook {
    /// Zero, then the others in ascending order.
    values: Vec<f32>,
    /// Which of them each weight has.
    of: Vec<u16>,
}

impl Codebook {
    /// Values for these weights such that an index has `bits`, from 1 to 12, by k-means over those that are not zero.
    /// The centroids begin evenly spaced between the smallest and the largest weight: so begun, the few large weights,
    /// which matter most, have values of their own (section 3.2 of the paper).
    pub fn fit(weights: &[f32], bits: u32) -> Self {
        let mut sorted: Vec<f32> = weights.iter().copied().filter(|weight| *weight != 0.0).collect();
        sorted.sort_by(f32::total_cmp);
        let has_zeros = sorted.len() < weights.len();
        let count = (1usize << bits.clamp(1, MOST_BITS)) - usize::from(has_zeros);
        let mut distinct = sorted.clone();
        distinct.dedup();
        let centroids = if distinct.len() <= count { distinct } else { k_means(&sorted, count) };
        Self::nearest(weights, centroids)
    }

    /// The values that these weights share already; nothing where there are more than an index of 12 bits tells apart.
    pub fn shared(weights: &[f32]) -> Option<Self> {
        let mut seen = std::collections::HashSet::new();
        for weight in weights.iter().filter(|weight| **weight != 0.0) {
            if seen.insert(weight.to_bits()) && seen.len() > 1 << MOST_BITS {
                return None;
            }
        }
        let mut values: Vec<f32> = seen.into_iter().map(f32::from_bits).collect();
        values.sort_by(f32::total_cmp);
        Some(Self::nearest(weights, values))
    }

    /// Each weight with the value nearest to it, of values in ascending order.
    fn nearest(weights: &[f32], centroids: Vec<f32>) -> Self {
        let index = |weight: &f32| match *weight == 0.0 {
            true => 0,
            false => {
                let above = centroids.partition_point(|value| value < weight);
                let is_lower =
                    above == centroids.len() || above > 0 && weight - centroids[above - 1] <= centroids[above] - weight;
                (above + usize::from(!is_lower)) as u16
            }
        };
        let of = weights.iter().map(index).collect();
        let values = std::iter::once(0.0).chain(centroids).collect();
        Self { values, of }
    }

    /// Gives some weights the value beside the nearest, so that the errors of each `row` of so many weights add up to
    /// about nothing. A filter's inputs are positive, most of them, after a ReLU: an error of its weights' sum would
    /// shift all of its map, which is worse than some noise in it.
    ///
    /// # Panics
    /// There are more or fewer weights than before.
    pub fn balance(&mut self, weights: &[f32], row: usize) {
        assert_eq!(weights.len(), self.of.len(), "there is a number for each weight");
        let Self { values, of } = self;
        for (weights, of) in weights.chunks(row.max(1)).zip(of.chunks_mut(row.max(1))) {
            let error = |(weight, index): (&f32, &u16)| f64::from(weight - values[usize::from(*index)]);
            let mut sum: f64 = weights.iter().zip(&*of).map(error).sum();
            let (up, most) = (sum > 0.0, values.len() - 1);
            // What a move changes the sum by, and the squared error it costs, per change.
            let step = |(place, (weight, &index)): (usize, (&f32, &u16))| {
                let old = usize::from(index);
                let new = if up { old + 1 } else { old.wrapping_sub(1) };
                let moves = old > 0 && (1..=most).contains(&new);
                moves.then(|| {
                    let square = |index: usize| f64::from(weight - values[index]).powi(2);
                    let change = f64::from(values[new] - values[old]);
                    ((square(new) - square(old)) / change.abs(), change, place, new as u16)
                })
            };
            let mut steps: Vec<_> = weights.iter().zip(&*of).enumerate().filter_map(step).collect();
            steps.sort_by(|a, b| a.0.total_cmp(&b.0));
            for (_, change, place, new) in steps {
                if (sum - change).abs() < sum.abs() {
                    sum -= change;
                    of[place] = new;
                }
            }
        }
    }

    /// The tensor's weights by these values.
    pub fn weights(&self) -> Vec<f32> {
        self.of.iter().map(|&index| self.values[usize::from(index)]).collect()
    }

    /// How many values weights share, zero not counted.
    pub fn len(&self) -> usize {
        self.values.len() - 1
    }

    /// Whether all weights are zero.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// Gives each weight the sum of the gradients of all that share its value, so that an optimizer moves them
    /// together; those at zero stay there.
    ///
    /// # Panics
    /// There are more or fewer numbers than weights.
    pub fn sum_gradient(&self, gradient: &mut [f32]) {
        let mut sums = self.sums(gradient);
        sums[0] = 0.0;
        gradient.iter_mut().zip(&self.of).for_each(|(gradient, &index)| *gradient = sums[usize::from(index)] as f32);
    }

    /// Moves each value to the mean of the weights that share it, which training may have left a last bit apart.
    ///
    /// # Panics
    /// There are more or fewer weights than before.
    pub fn refit(&mut self, weights: &[f32]) {
        let sums = self.sums(weights);
        let mut counts = vec![0u64; self.values.len()];
        self.of.iter().for_each(|&index| counts[usize::from(index)] += 1);
        for ((value, sum), count) in
            self.values.iter_mut().zip(sums).zip(counts).skip(1).filter(|(_, count)| *count > 0)
        {
            *value = (sum / count as f64) as f32;
        }
    }

    /// Per value, the sum over the weights that share it.
    fn sums(&self, numbers: &[f32]) -> Vec<f64> {
        assert_eq!(numbers.len(), self.of.len(), "there is a number for each weight");
        let mut sums = vec![0.0; self.values.len()];
        numbers.iter().zip(&self.of).for_each(|(number, &index)| sums[usize::from(index)] += f64::from(*number));
        sums
    }
}

/// At most `count` centroids of sorted numbers, in ascending order.
fn k_means(sorted: &[f32], count: usize) -> Vec<f32> {
    let numbers = Sums::of(sorted);
    let (low, high) = (f64::from(sorted[0]), f64::from(sorted[sorted.len() - 1]));
    let step = (high - low) / (count.max(2) - 1) as f64;
    let mut centroids: Vec<f64> = (0..count).map(|index| low + step * index as f64).collect();
    for _ in 0..MOST_PASSES {
        // Between two centroids, numbers belong to the nearer: each has a run of the sorted numbers.
        let borders = centroids.windows(2).map(|pair| (pair[0] + pair[1]) / 2.0);
        let ends = borders.map(|border| sorted.partition_point(|number| f64::from(*number) <= border));
        let ends: Vec<usize> = std::iter::once(0).chain(ends).chain([sorted.len()]).collect();
        let runs: Vec<_> = ends.windows(2).map(|ends| ends[0]..ends[1]).filter(|run| !run.is_empty()).collect();
        let mut moved: Vec<f64> = runs.iter().map(|run| numbers.mean(run)).collect();
        if moved == centroids {
            // A centroid that no number was nearest to helps where the error is largest.
            let worst = (0..runs.len()).max_by(|&a, &b| numbers.error(&runs[a]).total_cmp(&numbers.error(&runs[b])));
            let Some(worst) = worst.filter(|_| moved.len() < count) else { break };
            let run = runs[worst].clone();
            let middle = run.start + sorted[run.clone()].partition_point(|number| f64::from(*number) <= moved[worst]);
            if middle == run.start || middle == run.end {
                break;
            }
            moved.splice(worst..=worst, [run.start..middle, middle..run.end].iter().map(|half| numbers.mean(half)));
        }
        centroids = moved;
    }
    let mut centroids: Vec<f32> = centroids.into_iter().map(|centroid| centroid as f32).collect();
    // A mean of numbers beside zero may round to it.
    centroids.retain(|centroid| *centroid != 0.0);
    centroids.dedup();
    centroids
}

/// Sums of the first n numbers and of their squares, for every n.
struct Sums {
    first: Vec<f64>,
    squares: Vec<f64>,
}

impl Sums {
    fn of(numbers: &[f32]) -> Self {
        let running = |power: i32| {
            let add = move |sum: &mut f64, number: &f32| {
                *sum += f64::from(*number).powi(power);
                Some(*sum)
            };
            std::iter::once(0.0).chain(numbers.iter().scan(0.0, add)).collect()
        };
        Self { first: running(1), squares: running(2) }
    }

    fn mean(&self, run: &Range<usize>) -> f64 {
        (self.first[run.end] - self.first[run.start]) / run.len() as f64
    }

    /// The sum of squared differences from the mean.
    fn error(&self, run: &Range<usize>) -> f64 {
        self.squares[run.end] - self.squares[run.start] - self.mean(run).powi(2) * run.len() as f64
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn few_weights_keep_their_values() {
        let weights = [0.5, 0.0, -0.25, 0.5, 1.0];
        assert_eq!(Codebook::fit(&weights, 2).weights(), weights);
        assert_eq!(Codebook::shared(&weights).unwrap().weights(), weights);
    }

    #[test]
    fn k_means_finds_clusters_and_leaves_zeros() {
        let weights = [-1.01, -0.99, 0.0, 0.49, 0.51, 0.0, 2.0];
        let codebook = Codebook::fit(&weights, 2);
        let near = [-1.0, -1.0, 0.0, 0.5, 0.5, 0.0, 2.0];
        for (own, expected) in codebook.weights().iter().zip(near) {
            assert!((own - expected).abs() < 1e-6, "{:?} rather than {near:?}", codebook.weights());
        }
        assert_eq!(codebook.len(), 3);
    }

    #[test]
    fn more_bits_are_nearer() {
        let weights: Vec<f32> = (1..2000).map(|i| (i as f32 * 0.37).sin().powi(3)).collect();
        let error = |bits| {
            let shared = Codebook::fit(&weights, bits).weights();
            weights.iter().zip(shared).map(|(a, b)| f64::from((a - b).powi(2))).sum::<f64>()
        };
        let errors: Vec<f64> = (1..=8).map(error).collect();
        assert!(errors.windows(2).all(|pair| pair[1] < 0.5 * pair[0]), "squared errors by bits: {errors:?}");
    }

    #[test]
    fn balanced_rows_err_by_noise_and_not_by_a_shift() {
        let weights: Vec<f32> =
            (1..=4000).map(|i| if i % 3 == 0 { 0.0 } else { (i as f32 * 0.37).sin().powi(3) }).collect();
        let shift = |codebook: &Codebook| {
            let shared = codebook.weights();
            let rows = weights.chunks(100).zip(shared.chunks(100));
            let sums = rows.map(|(a, b)| a.iter().zip(b).map(|(a, b)| a - b).sum::<f32>().abs());
            sums.sum::<f32>()
        };
        let noise =
            |codebook: &Codebook| weights.iter().zip(codebook.weights()).map(|(a, b)| (a - b).powi(2)).sum::<f32>();
        let near = Codebook::fit(&weights, 4);
        let mut balanced = near.clone();
        balanced.balance(&weights, 100);
        assert!(shift(&balanced) < 0.2 * shift(&near), "{} beside {}", shift(&balanced), shift(&near));
        assert!(noise(&balanced) < 1.3 * noise(&near), "{} beside {}", noise(&balanced), noise(&near));
        let zeros = |values: &[f32]| values.iter().map(|value| *value == 0.0).collect::<Vec<_>>();
        assert_eq!(zeros(&balanced.weights()), zeros(&weights), "other weights are zero");
    }

    #[test]
    fn weights_of_one_value_have_one_gradient() {
        let codebook = Codebook::shared(&[1.0, 0.0, 2.0, 1.0]).unwrap();
        let mut gradient = [0.5, 9.0, 4.0, 0.25];
        codebook.sum_gradient(&mut gradient);
        assert_eq!(gradient, [0.75, 0.0, 4.0, 0.75]);
        let mut moved = codebook.clone();
        moved.refit(&[1.5, 0.0, 3.0, 1.25]);
        assert_eq!(moved.weights(), [1.375, 0.0, 3.0, 1.375]);
    }

    #[test]
    fn odd_tensors_are_taken() {
        assert!(Codebook::fit(&[0.0; 4], 3).is_empty());
        assert_eq!(Codebook::fit(&[], 3).weights(), []);
        assert_eq!(Codebook::fit(&[7.0; 3], 1).weights(), [7.0; 3]);
        assert_eq!(Codebook::fit(&[1.0, 2.0, 3.0, 0.0], 1).weights(), [2.0, 2.0, 2.0, 0.0]);
    }
}
