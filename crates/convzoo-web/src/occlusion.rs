//! Occlusion ([Zeiler and Fergus, 2013](https://arxiv.org/abs/1311.2901), Section 4.2), position by position, so that a page
//! shows how far it has come and stops where nobody looks any longer.

use crate::error::within;
use crate::{Network, WebError};

/// A square of the mean colour that is moved over an input.
pub struct Occlusion {
    class: usize,
    size: [usize; 2],
    window: usize,
    /// Where it stands, row and column.
    positions: Vec<[usize; 2]>,
    done: usize,
    /// The class's probability for the whole input.
    whole: f32,
    lost: Vec<f32>,
    weights: Vec<f32>,
}

impl Occlusion {
    /// Begins with a square of a quarter of the shorter side, moved by half of itself.
    ///
    /// # Errors
    /// There is no such class.
    pub fn new(network: &Network, input: &[f32], class: usize) -> Result<Self, WebError> {
        let [_, height, width] = network.graph.input();
        let probabilities = network.predict(input)?.probabilities;
        let whole = probabilities[within("class", class, probabilities.len())?];
        let window = (height.min(width) / 4).max(1);
        let columns = starts(width, window);
        let positions = starts(height, window).into_iter().flat_map(|top| columns.iter().map(move |left| [top, *left]));
        let (positions, zeros) = (positions.collect(), vec![0.0; height * width]);
        Ok(Self {
            class,
            size: [height, width],
            window,
            positions,
            done: 0,
            whole,
            lost: zeros.clone(),
            weights: zeros,
        })
    }

    /// Positions that are done, and all.
    pub fn progress(&self) -> [usize; 2] {
        [self.done, self.positions.len()]
    }

    /// Covers one more part of the input; nothing where all are done.
    ///
    /// # Errors
    /// The network does not take the input.
    pub fn step(&mut self, network: &Network, input: &[f32]) -> Result<(), WebError> {
        let Some(&[top, left]) = self.positions.get(self.done) else { return Ok(()) };
        let ([height, width], window) = (self.size, self.window);
        let mut covered = input.to_vec();
        for plane in covered.chunks_exact_mut(height * width) {
            plane.chunks_exact_mut(width).skip(top).take(window).for_each(|row| row[left..left + window].fill(0.0));
        }
        let probability = network.predict(&covered)?.probabilities[self.class];
        // How near a row or column of the square is to its middle.
        let middle = (window + 1) as f32 / 2.0;
        let near = |at: usize| 1.0 - ((at + 1) as f32 - middle).abs() / middle;
        for (row, column) in (0..window).flat_map(|row| (0..window).map(move |column| (row, column))) {
            let (place, weight) = ((top + row) * width + left + column, near(row) * near(column));
            self.lost[place] += weight * (self.whole - probability);
            self.weights[place] += weight;
        }
        self.done += 1;
        Ok(())
    }

    /// How much of the class's probability is lost where a pixel is covered, row by row: the mean over the positions that
    /// cover it, weighted by how near it is to their middle. Negative where covering helps.
    pub fn map(&self) -> Vec<f32> {
        let share = |(lost, weight): (&f32, &f32)| if *weight > 0.0 { lost / weight } else { 0.0 };
        self.lost.iter().zip(&self.weights).map(share).collect()
    }
}

/// Where the square begins along a side: every half of it, and flush with the end.
fn starts(side: usize, window: usize) -> Vec<usize> {
    let last = side - window;
    let mut starts: Vec<usize> = (0..=last).step_by(window.div_ceil(2)).collect();
    if !starts.contains(&last) {
        starts.push(last);
    }
    starts
}
