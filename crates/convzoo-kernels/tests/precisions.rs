//! Whole networks in 32 bits and in bfloat16: how far their outputs are apart, and how long they take.

#![allow(clippy::unwrap_used)] // a panic is how a test fails

mod common;

use std::time::Instant;

use common::random;
use convzoo_kernels::conv::ConvShape;
use convzoo_kernels::elementwise::{Activation, ScaleShift};
use convzoo_kernels::engine::{CompiledNetwork, Graph, Value};
use convzoo_kernels::linear::Linear;
use convzoo_kernels::pool::{PoolKind, PoolShape};
use convzoo_kernels::{Isa, Precision};

/// A network in the making, weights at random.
struct Net {
    graph: Graph,
    precision: Precision,
    seed: u64,
}

/// A value and its channels.
#[derive(Clone, Copy)]
struct Maps(Value, usize);

impl Net {
    fn new(precision: Precision) -> (Self, Maps) {
        let graph = Graph::new(3).in_precision(precision);
        let images = Maps(graph.input(), 3);
        (Self { graph, precision, seed: 0 }, images)
    }

    /// Weights of unit variance after a ReLU.
    fn weight(&mut self, len: usize, inputs: usize) -> Vec<f32> {
        self.seed += 1;
        let scale = (6.0 / inputs as f32).sqrt();
        random(len, self.seed).into_iter().map(|weight| weight * scale).collect()
    }

    fn conv_by(&mut self, x: Maps, shape: ConvShape, activation: Activation) -> Maps {
        let weight = self.weight(shape.weights(), shape.weights() / shape.channels[1]);
        let maps = self.graph.conv(x.0, shape, weight, Some(vec![0.01; shape.channels[1]])).unwrap();
        Maps(self.graph.activation(maps, activation), shape.channels[1])
    }

    fn conv(&mut self, x: Maps, outputs: usize, kernel: usize, stride: usize, activation: Activation) -> Maps {
        let shape = ConvShape::square(x.1, outputs, kernel);
        self.conv_by(x, ConvShape { stride: [stride; 2], padding: [kernel / 2; 2], ..shape }, activation)
    }

    fn relu(&mut self, x: Maps, outputs: usize, kernel: usize, stride: usize) -> Maps {
        self.conv(x, outputs, kernel, stride, Activation::Relu)
    }

    fn sum(&mut self, a: Maps, b: Maps, activation: Activation) -> Maps {
        let sum = self.graph.add(&[a.0, b.0]);
        Maps(self.graph.activation(sum, activation), a.1)
    }

    fn concat(&mut self, parts: &[Maps]) -> Maps {
        let values: Vec<Value> = parts.iter().map(|part| part.0).collect();
        Maps(self.graph.concat(&values), parts.iter().map(|part| part.1).sum())
    }

    fn pool(&mut self, x: Maps, kind: PoolKind, kernel: usize, stride: usize, padding: usize) -> Maps {
        let (kernel, stride, padding) = ([kernel; 2], [stride; 2], [padding; 2]);
        Maps(self.graph.pool(x.0, PoolShape::Sliding { kind, kernel, stride, padding, ceil: false }), x.1)
    }

    fn linear(&mut self, x: Value, inputs: usize, outputs: usize) -> Value {
        let weight = self.weight(inputs * outputs, inputs);
        let linear = Linear::new(weight, vec![0.0; outputs], inputs, self.precision.into()).unwrap();
        self.graph.linear(x, linear)
    }

    /// The means of feature maps, and a layer on them.
    fn head(mut self, x: Maps) -> CompiledNetwork {
        let pooled = self.graph.pool(x.0, PoolShape::adaptive_average([1; 2]));
        let vectors = self.graph.flatten(pooled);
        let logits = self.linear(vectors, x.1, 1000);
        self.graph.finish(logits).unwrap()
    }
}

fn resnet(precision: Precision, blocks: [usize; 4], bottleneck: bool) -> CompiledNetwork {
    let (mut net, images) = Net::new(precision);
    let stem = net.relu(images, 64, 7, 2);
    let mut x = net.pool(stem, PoolKind::Max, 3, 2, 1);
    for (stage, count) in blocks.into_iter().enumerate() {
        let width = 64 << stage;
        for block in 0..count {
            let stride = if stage > 0 && block == 0 { 2 } else { 1 };
            let main = match bottleneck {
                true => {
                    let narrow = net.relu(x, width, 1, 1);
                    let spread = net.relu(narrow, width, 3, stride);
                    net.conv(spread, 4 * width, 1, 1, Activation::Identity)
                }
                false => {
                    let first = net.relu(x, width, 3, stride);
                    net.conv(first, width, 3, 1, Activation::Identity)
                }
            };
            let shortcut = match x.1 == main.1 && stride == 1 {
                true => x,
                false => net.conv(x, main.1, 1, stride, Activation::Identity),
            };
            x = net.sum(main, shortcut, Activation::Relu);
        }
    }
    net.head(x)
}

fn resnet18(precision: Precision) -> CompiledNetwork {
    resnet(precision, [2; 4], false)
}

fn resnet50(precision: Precision) -> CompiledNetwork {
    resnet(precision, [3, 4, 6, 3], true)
}

fn vgg16(precision: Precision) -> CompiledNetwork {
    let (mut net, mut x) = Net::new(precision);
    for (width, count) in [(64, 2), (128, 2), (256, 3), (512, 3), (512, 3)] {
        for _ in 0..count {
            x = net.relu(x, width, 3, 1);
        }
        x = net.pool(x, PoolKind::Max, 2, 2, 0);
    }
    let mut vectors = net.graph.flatten(x.0);
    for (inputs, outputs) in [(25088, 4096), (4096, 4096)] {
        let features = net.linear(vectors, inputs, outputs);
        vectors = net.graph.activation(features, Activation::Relu);
    }
    let logits = net.linear(vectors, 4096, 1000);
    net.graph.finish(logits).unwrap()
}

fn squeezenet1_1(precision: Precision) -> CompiledNetwork {
    let (mut net, images) = Net::new(precision);
    let mut x = net.relu(images, 64, 3, 2);
    let fires = [&[(16, 64); 2][..], &[(32, 128); 2], &[(48, 192), (48, 192), (64, 256), (64, 256)]];
    for fires in fires {
        x = net.pool(x, PoolKind::Max, 3, 2, 0);
        for &(squeeze, expand) in fires {
            let squeezed = net.relu(x, squeeze, 1, 1);
            let parts = [1, 3].map(|kernel| net.relu(squeezed, expand, kernel, 1));
            x = net.concat(&parts);
        }
    }
    let maps = net.relu(x, 1000, 1, 1);
    let pooled = net.graph.pool(maps.0, PoolShape::adaptive_average([1; 2]));
    let logits = net.graph.flatten(pooled);
    net.graph.finish(logits).unwrap()
}

fn densenet121(precision: Precision) -> CompiledNetwork {
    let (mut net, images) = Net::new(precision);
    let stem = net.relu(images, 64, 7, 2);
    let mut x = net.pool(stem, PoolKind::Max, 3, 2, 1);
    let activated = |net: &mut Net, x: Maps| {
        let affine = ScaleShift { scale: vec![0.9; x.1], shift: vec![0.1; x.1] };
        let normed = net.graph.scale_shift(x.0, affine);
        Maps(net.graph.activation(normed, Activation::Relu), x.1)
    };
    for (stage, layers) in [6, 12, 24, 16].into_iter().enumerate() {
        if stage > 0 {
            let normed = activated(&mut net, x);
            let halved = net.conv(normed, x.1 / 2, 1, 1, Activation::Identity);
            x = net.pool(halved, PoolKind::Average { count_include_pad: false }, 2, 2, 0);
        }
        for _ in 0..layers {
            let normed = activated(&mut net, x);
            let narrow = net.relu(normed, 128, 1, 1);
            let new = net.conv(narrow, 32, 3, 1, Activation::Identity);
            x = net.concat(&[x, new]);
        }
    }
    let normed = activated(&mut net, x);
    net.head(normed)
}

fn mobilenet_v2(precision: Precision) -> CompiledNetwork {
    let (mut net, images) = Net::new(precision);
    let mut x = net.conv(images, 32, 3, 2, Activation::Relu6);
    for (factor, outputs, count, stride) in
        [(1, 16, 1, 1), (6, 24, 2, 2), (6, 32, 3, 2), (6, 64, 4, 2), (6, 96, 3, 1), (6, 160, 3, 2), (6, 320, 1, 1)]
    {
        for block in 0..count {
            let stride = if block == 0 { stride } else { 1 };
            let wide = if factor == 1 { x } else { net.conv(x, factor * x.1, 1, 1, Activation::Relu6) };
            let shape = ConvShape {
                groups: wide.1,
                stride: [stride; 2],
                padding: [1; 2],
                ..ConvShape::square(wide.1, wide.1, 3)
            };
            let spread = net.conv_by(wide, shape, Activation::Relu6);
            let narrow = net.conv(spread, outputs, 1, 1, Activation::Identity);
            x = if block > 0 { net.sum(narrow, x, Activation::Identity) } else { narrow };
        }
    }
    let last = net.conv(x, 1280, 1, 1, Activation::Relu6);
    net.head(last)
}

type Make = fn(Precision) -> CompiledNetwork;

const NETWORKS: [(&str, Make); 6] = [
    ("resnet18", resnet18),
    ("resnet50", resnet50),
    ("squeezenet1_1", squeezenet1_1),
    ("vgg16", vgg16),
    ("densenet121", densenet121),
    ("mobilenet_v2", mobilenet_v2),
];

#[test]
fn whole_networks_in_bfloat16_are_near_those_in_32_bits() {
    // Small images of three networks that take a second: Winograd's method, strides, sums, concatenations, depthwise.
    for ((name, make), layers) in [(NETWORKS[0], 21), (NETWORKS[2], 26), (NETWORKS[5], 53)] {
        let image = random(3 * 64 * 64, 7);
        let run = |precision| make(precision).run([1, 3, 64, 64], &image).unwrap().values;
        let (exact, rounded) = (run(Precision::F32), run(Precision::Bf16));
        let square = |values: &mut dyn Iterator<Item = f32>| values.map(|x| f64::from(x).powi(2)).sum::<f64>();
        let difference = square(&mut exact.iter().zip(&rounded).map(|(a, b)| a - b));
        let error = (difference / square(&mut exact.iter().copied())).sqrt();
        println!("{name}: {error:.1e} relative");
        // Each layer rounds its weights and its output by a 256th at most, up and down, so that errors add up as their
        // squares; twice that, since layers after them may amplify.
        let bound = 2.0 * f64::from(2 * layers).sqrt() / 256.0;
        assert!((1e-4..bound).contains(&error), "{name} in bfloat16 is {error:.1e} away, where {bound:.1e} may be");
    }
}

/// What `docs/src/kernels.md` shows.
#[test]
#[ignore = "it measures"]
fn time_of_both_precisions() {
    println!("{}, the least and the median milliseconds of runs by turns", Isa::detect().unwrap());
    println!("| network | images | f32 | bf16 | bf16 / f32 | medians |\n| --- | --: | --: | --: | --: | --: |");
    for (name, make) in NETWORKS {
        let networks = [Precision::F32, Precision::Bf16].map(make);
        for batch in [1, 8] {
            let shape = [batch, 3, 224, 224];
            let images = random(shape.iter().product(), 1);
            let plans = [0, 1].map(|i: usize| networks[i].plan(shape).unwrap());
            let mut times = [Vec::new(), Vec::new()];
            let start = Instant::now();
            while start.elapsed().as_secs_f64() < 6.0 {
                for (plan, times) in plans.iter().zip(&mut times) {
                    let start = Instant::now();
                    plan.run(&images).unwrap();
                    times.push(1e3 * start.elapsed().as_secs_f64());
                }
            }
            times.iter_mut().for_each(|times: &mut Vec<f64>| times.sort_by(f64::total_cmp));
            let [[f32, f32_median], [bf16, bf16_median]] = times.map(|times| [times[0], times[times.len() / 2]]);
            println!(
                "| {name} | {batch} | {f32:.2} | {bf16:.2} | {:.2} | {f32_median:.2} / {bf16_median:.2} |",
                bf16 / f32
            );
        }
    }
}
