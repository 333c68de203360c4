//! Average pooling in training, against its definition, on every instruction set of this machine.

use convzoo_kernels::Isa;
use convzoo_kernels::planar::AveragePoolPass;
use convzoo_kernels::pool::{PoolKind, PoolShape};
use proptest::prelude::*;

mod common;
use common::random;

const PLANES: usize = 3;

/// The cells of a window, and what their sum is divided by.
type Cells = (Vec<usize>, f64);

/// The windows of a shape over `size` cells in one direction, from PyTorch's documentation.
fn windows(shape: &PoolShape, size: usize) -> Vec<Cells> {
    match *shape {
        PoolShape::Adaptive { output: [outputs, _], .. } => (0..outputs)
            .map(|i| {
                let cells: Vec<_> = (i * size / outputs..((i + 1) * size).div_ceil(outputs)).collect();
                let count = cells.len() as f64;
                (cells, count)
            })
            .collect(),
        PoolShape::Sliding { kind, kernel, stride, padding, ceil } => {
            let (kernel, stride, padding) = (kernel[0], stride[0], padding[0]);
            let room = size + 2 * padding - kernel;
            let count = if ceil { room.div_ceil(stride) } else { room / stride } + 1;
            let starts = (0..count).map(|i| i * stride).filter(|start| *start < size + padding);
            let include = matches!(kind, PoolKind::Average { count_include_pad: true });
            starts
                .map(|start| {
                    let all = (start..start + kernel).filter(|at| *at < size + 2 * padding);
                    let cells: Vec<_> = all
                        .clone()
                        .filter(|at| (padding..size + padding).contains(at))
                        .map(|at| at - padding)
                        .collect();
                    let divisor = if include { all.count() } else { cells.len() };
                    (cells, divisor as f64)
                })
                .collect()
        }
    }
}

fn shapes() -> impl Strategy<Value = PoolShape> {
    let sliding = (1..5usize, 1..4usize, any::<bool>(), any::<bool>()).prop_flat_map(|(kernel, stride, pads, ceil)| {
        (0..=kernel / 2).prop_map(move |padding| PoolShape::Sliding {
            kind: PoolKind::Average { count_include_pad: pads },
            kernel: [kernel; 2],
            stride: [stride; 2],
            padding: [padding; 2],
            ceil,
        })
    });
    let kind = PoolKind::Average { count_include_pad: true };
    let halving = PoolShape::Sliding { kind, kernel: [2; 2], stride: [2; 2], padding: [0; 2], ceil: false };
    prop_oneof![sliding, Just(halving), (1..6usize).prop_map(|side| PoolShape::adaptive_average([side; 2]))]
}

proptest! {
    #[test]
    fn a_mean_and_its_gradient_are_their_definition(shape in shapes(), size in [5..40usize, 5..40usize], seed in 0..1000u64) {
        let [rows, columns] = size.map(|size| windows(&shape, size));
        let input = random(PLANES * size[0] * size[1], seed);
        let gradient = random(PLANES * rows.len() * columns.len(), seed + 1);
        let (mut output, mut back) = (vec![0.0; gradient.len()], vec![0.0; input.len()]);
        for plane in 0..PLANES {
            for (y, (row, height)) in rows.iter().enumerate() {
                for (x, (column, width)) in columns.iter().enumerate() {
                    let to = (plane * rows.len() + y) * columns.len() + x;
                    for (r, c) in row.iter().flat_map(|r| column.iter().map(move |c| (r, c))) {
                        let from = (plane * size[0] + r) * size[1] + c;
                        output[to] += f64::from(input[from]) / (height * width);
                        back[from] += f64::from(gradient[to]) / (height * width);
                    }
                }
            }
        }
        for isa in Isa::available() {
            let pass = AveragePoolPass::new(isa, &shape, PLANES, size).unwrap();
            prop_assert_eq!(pass.output(), [rows.len(), columns.len()]);
            for (what, own, expected) in
                [("mean", pass.forward(&input), &output), ("gradient", pass.backward(&gradient), &back)]
            {
                for (own, expected) in own.iter().zip(expected) {
                    prop_assert!((f64::from(*own) - expected).abs() < 1e-5, "{} on {:?}: {} is not {}", what, isa, own, expected);
                }
            }
        }
    }
}

#[test]
fn maxima_are_refused() {
    let shape =
        PoolShape::Sliding { kind: PoolKind::Max, kernel: [2; 2], stride: [2; 2], padding: [0; 2], ceil: false };
    assert!(AveragePoolPass::new(Isa::detect().unwrap(), &shape, 1, [4, 4]).is_err());
}
