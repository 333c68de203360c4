//! Compiled networks, folded and planned, against the same operations one by one.

#![allow(clippy::unwrap_used)] // a panic is how a test fails

mod common;

use std::sync::Arc;

use common::{assert_close, random};
use convzoo_kernels::blocked::conv::{Algorithm, Conv, Epilogue};
use convzoo_kernels::blocked::elementwise::elementwise;
use convzoo_kernels::blocked::linear::linear;
use convzoo_kernels::blocked::lrn::local_response_norm;
use convzoo_kernels::blocked::pool::pool2d;
use convzoo_kernels::conv::ConvShape;
use convzoo_kernels::elementwise::{Activation, ScaleShift};
use convzoo_kernels::engine::{Graph, ProfiledStep, StepKind, Value};
use convzoo_kernels::linear::{Linear, LinearPrecision};
use convzoo_kernels::lrn::LocalResponse;
use convzoo_kernels::pool::{PoolKind, PoolShape};
use convzoo_kernels::winograd::WinogradTile;
use convzoo_kernels::{Isa, KernelError, Layout, Numbers, Precision};

/// A tensor made operation by operation by the portable kernels, and the same tensor of a graph.
#[derive(Clone)]
struct Both {
    dims: [usize; 4],
    values: Vec<f32>,
    node: Value,
}

/// Builds a graph and runs it as it goes.
struct Builder {
    graph: Graph,
    precision: Precision,
    seed: u64,
}

const ISA: Isa = Isa::Portable;

fn layout(dims: [usize; 4], halo: usize) -> Layout {
    Layout::new(dims, ISA.lanes(), halo)
}

impl Builder {
    fn new(dims: [usize; 4], precision: Precision) -> (Self, Both) {
        let graph = Graph::new(dims[1]).in_precision(precision);
        let node = graph.input();
        (Self { graph, precision, seed: 1 }, Both { dims, values: random(dims.iter().product(), 99), node })
    }

    fn random(&mut self, len: usize) -> Vec<f32> {
        self.seed += 1;
        random(len, self.seed)
    }

    fn conv(&mut self, x: &Both, outputs: usize, kernel: usize, stride: usize, bias: bool) -> Both {
        let [batch, inputs, height, width] = x.dims;
        let shape =
            ConvShape { stride: [stride; 2], padding: [kernel / 2; 2], ..ConvShape::square(inputs, outputs, kernel) };
        let scale = 1.0 / ((inputs * kernel * kernel) as f32).sqrt();
        let weight: Vec<f32> = self.random(shape.weights()).into_iter().map(|weight| weight * scale).collect();
        let bias = bias.then(|| self.random(outputs));
        let [rows, columns] = shape.output([height, width]).unwrap();
        let dims = [batch, outputs, rows, columns];
        let conv = Conv::new(ISA, shape, Algorithm::Direct, Numbers::F32, &weight, bias.as_deref()).unwrap();
        let operation = conv.operation(layout(x.dims, kernel / 2), layout(dims, 0), Epilogue::default(), 1).unwrap();
        let values = operation.apply(&[&x.values]);
        Both { dims, values, node: self.graph.conv(x.node, shape, weight, bias).unwrap() }
    }

    fn norm(&mut self, x: &Both) -> Both {
        let affine = ScaleShift { scale: self.random(x.dims[1]), shift: self.random(x.dims[1]) };
        let node = self.graph.scale_shift(x.node, affine.clone());
        self.elementwise(&[x], Some(&affine), Activation::Identity, node)
    }

    fn relu(&mut self, x: &Both) -> Both {
        let node = self.graph.activation(x.node, Activation::Relu);
        self.elementwise(&[x], None, Activation::Relu, node)
    }

    fn add(&mut self, a: &Both, b: &Both) -> Both {
        let node = self.graph.add(&[a.node, b.node]);
        self.elementwise(&[a, b], None, Activation::Identity, node)
    }

    fn elementwise(
        &mut self,
        inputs: &[&Both],
        affine: Option<&ScaleShift>,
        activation: Activation,
        node: Value,
    ) -> Both {
        let dims = inputs[0].dims;
        let layouts = vec![layout(dims, 0); inputs.len()];
        let operation = elementwise(ISA, affine, activation, layouts, layout(dims, 0), 1).unwrap();
        let slices: Vec<&[f32]> = inputs.iter().map(|input| input.values.as_slice()).collect();
        Both { dims, values: operation.apply(&slices), node }
    }

    fn pool(&mut self, x: &Both, shape: PoolShape) -> Both {
        let [batch, channels, height, width] = x.dims;
        let [rows, columns] = shape.output([height, width]).unwrap();
        let dims = [batch, channels, rows, columns];
        let values = pool2d(ISA, &shape, layout(x.dims, 0), layout(dims, 0), 1).unwrap().apply(&[&x.values]);
        Both { dims, values, node: self.graph.pool(x.node, shape) }
    }

    fn concat(&mut self, parts: &[&Both]) -> Both {
        let [batch, _, height, width] = parts[0].dims;
        let dims = [batch, parts.iter().map(|part| part.dims[1]).sum(), height, width];
        let values = (0..batch).flat_map(|n| {
            parts.iter().flat_map(move |part| part.values.chunks(part.values.len() / batch).nth(n).unwrap())
        });
        let nodes: Vec<Value> = parts.iter().map(|part| part.node).collect();
        Both { dims, values: values.copied().collect(), node: self.graph.concat(&nodes) }
    }

    fn flatten(&mut self, x: &Both) -> Both {
        let [batch, channels, height, width] = x.dims;
        Both {
            dims: [batch, channels * height * width, 1, 1],
            values: x.values.clone(),
            node: self.graph.flatten(x.node),
        }
    }

    fn linear(&mut self, x: &Both, outputs: usize) -> Both {
        let inputs = x.dims[1];
        let scale = 1.0 / (inputs as f32).sqrt();
        let weight: Vec<f32> = self.random(outputs * inputs).into_iter().map(|weight| weight * scale).collect();
        let bias = self.random(outputs);
        let make = |precision| Linear::new(weight.clone(), bias.clone(), inputs, precision).unwrap();
        let operation = linear(
            ISA,
            Arc::new(make(LinearPrecision::Single)),
            Activation::Identity,
            layout(x.dims, 0),
            Numbers::F32,
            1,
        )
        .unwrap();
        let values = operation.apply(&[&x.values]);
        Both { dims: [x.dims[0], outputs, 1, 1], values, node: self.graph.linear(x.node, make(self.precision.into())) }
    }
}

/// Builds the network anew for each instruction set and precision and compares its output, of two runs each.
fn check(dims: [usize; 4], build: impl Fn(&mut Builder, Both) -> Both) {
    // A number of 8 bits is off by a 256th at most, evenly to both sides; some tens of roundings follow each other.
    let precisions = [(Precision::F32, 2e-5), (Precision::Bf16, 3e-2)];
    for (isa, (precision, tolerance)) in Isa::available().flat_map(|isa| precisions.map(|of| (isa, of))) {
        let (mut builder, input) = Builder::new(dims, precision);
        let images = input.values.clone();
        let expected = build(&mut builder, input);
        let network = builder.graph.finish_for(expected.node, isa).unwrap();
        for run in 0..2 {
            let found = network.run(dims, &images).unwrap();
            assert_eq!(found.shape, expected.dims, "the shape on {isa}");
            let largest = expected.values.iter().fold(0.0f64, |max, value| max.max(f64::from(value.abs())));
            let values: Vec<_> = expected.values.iter().map(|value| (f64::from(*value), largest)).collect();
            let unit = largest.recip();
            let values: Vec<_> = values.into_iter().map(|(value, largest)| (value * unit, largest * unit)).collect();
            let found: Vec<f32> = found.values.iter().map(|value| (f64::from(*value) * unit) as f32).collect();
            assert_close(&found, &values, tolerance, &format!("run {run} in {precision} on {isa}"));
        }
    }
}

const MAX: PoolShape =
    PoolShape::Sliding { kind: PoolKind::Max, kernel: [3; 2], stride: [2; 2], padding: [1; 2], ceil: false };

#[test]
fn residual_networks_fold_norms_sums_and_activations() {
    check([2, 3, 33, 31], |net, images| {
        let stem = net.conv(&images, 24, 7, 2, false);
        let stem = net.norm(&stem);
        let stem = net.relu(&stem);
        let mut x = net.pool(&stem, MAX);
        for (outputs, stride) in [(24, 1), (40, 2), (40, 1)] {
            let main = net.conv(&x, outputs, 3, stride, false);
            let main = net.norm(&main);
            let main = net.relu(&main);
            let main = net.conv(&main, outputs, 3, 1, false);
            let main = net.norm(&main);
            let shortcut = match outputs == x.dims[1] {
                true => x.clone(),
                false => {
                    let projected = net.conv(&x, outputs, 1, stride, false);
                    net.norm(&projected)
                }
            };
            let sum = net.add(&main, &shortcut);
            x = net.relu(&sum);
        }
        let pooled = net.pool(&x, PoolShape::adaptive_average([1; 2]));
        let flat = net.flatten(&pooled);
        net.linear(&flat, 10)
    });
}

#[test]
fn dense_networks_concatenate_in_place_and_by_copying() {
    // Growth by whole blocks, and by channels that leave blocks partly empty.
    for growth in [32, 12] {
        check([2, 3, 12, 10], |net, images| {
            let mut x = net.conv(&images, 32, 3, 1, true);
            for _ in 0..3 {
                let new = net.norm(&x);
                let new = net.relu(&new);
                let new = net.conv(&new, 48, 1, 1, false);
                let new = net.norm(&new);
                let new = net.relu(&new);
                let new = net.conv(&new, growth, 3, 1, false);
                x = net.concat(&[&x, &new]);
            }
            let x = net.norm(&x);
            net.relu(&x)
        });
    }
}

#[test]
fn parallel_branches_join() {
    check([1, 5, 14, 15], |net, images| {
        let x = net.conv(&images, 32, 3, 1, true);
        let x = net.relu(&x);
        let one = net.conv(&x, 16, 1, 1, true);
        let one = net.relu(&one);
        let five = net.conv(&x, 16, 5, 1, true);
        let pooled = net.pool(
            &x,
            PoolShape::Sliding { kind: PoolKind::Max, kernel: [3; 2], stride: [1; 2], padding: [1; 2], ceil: false },
        );
        // A branch that is used twice, and the input of the module itself.
        let joined = net.concat(&[&one, &five, &pooled, &x, &one]);
        let joined = net.concat(&[&joined, &five]);
        let identity = net.pool(&joined, PoolShape::adaptive_average([14, 15]));
        net.conv(&identity, 20, 3, 2, true)
    });
}

#[test]
fn early_networks_normalize_and_flatten_feature_maps() {
    check([3, 1, 20, 20], |net, images| {
        let x = net.conv(&images, 20, 5, 1, true);
        let x = net.relu(&x);
        let norm = LocalResponse { size: 5, alpha: 1e-1, beta: 0.75, k: 2.0 };
        let node = net.graph.local_response(x.node, norm);
        let values =
            local_response_norm(ISA, norm, layout(x.dims, 0), layout(x.dims, 0), 1).unwrap().apply(&[&x.values]);
        let x = net.pool(&Both { values, node, ..x }, MAX);
        let x = net.flatten(&x);
        let x = net.linear(&x, 30);
        let x = net.relu(&x);
        net.linear(&x, 7)
    });
}

#[test]
fn one_network_runs_on_images_of_any_size_and_number() {
    let (mut builder, x) = Builder::new([1, 3, 8, 8], Precision::F32);
    let x = builder.conv(&x, 16, 3, 1, true);
    let x = builder.conv(&x, 16, 3, 1, true);
    let network = builder.graph.finish(x.node).unwrap();
    let image = random(3 * 64, 5);
    let one = network.run([1, 3, 8, 8], &image).unwrap().values;
    let many = network.run([30, 3, 8, 8], &image.repeat(30)).unwrap().values;
    // Their numbers may make the two choose other algorithms.
    for (i, (many, one)) in many.iter().zip(one.iter().cycle()).enumerate() {
        assert!((many - one).abs() < 1e-4, "value {i} is {many} of thirty and {one} of one");
    }
    for side in 1..9 {
        let shape = network.run([1, 3, side, side], &random(3 * side * side, 6)).unwrap().shape;
        assert_eq!(shape, [1, 16, side, side]);
    }
}

#[test]
fn a_batch_whose_activations_leave_the_cache_is_computed_in_passes() {
    let shape = ConvShape::square(3, 16, 1);
    let mut graph = Graph::new(3);
    let images = graph.input();
    let conv = graph.conv(images, shape, random(shape.weights(), 1), None).unwrap();
    let maps = graph.activation(conv, Activation::Relu);
    let pooled = graph.pool(maps, PoolShape::adaptive_average([1; 2]));
    let network = graph.finish(pooled).unwrap();

    // Their feature maps take 8 × 3.2 MiB.
    let (batch, image) = ([8, 3, 224, 224], 3 * 224 * 224);
    let values = random(8 * image, 2);
    let together = network.run(batch, &values).unwrap();
    assert_eq!(together.shape, [8, 16, 1, 1]);
    let alone = values.chunks(image).flat_map(|image| network.run([1, 3, 224, 224], image).unwrap().values);
    let alone: Vec<(f64, f64)> = alone.map(|value| (value.into(), 1.0)).collect();
    assert_close(&together.values, &alone, 1e-6, "a batch and its images one by one");

    let memory = |images| network.plan([images, 3, 224, 224]).unwrap().memory();
    assert!(memory(8) <= 4 * memory(1), "{} bytes for eight images, {} for one", memory(8), memory(1));
    let steps = network.plan(batch).unwrap().profile(&values, 2).unwrap().steps;
    let conv = steps.iter().find(|step| step.macs > 0).unwrap();
    assert_eq!((conv.output, conv.macs), ([8, 16, 224, 224], 8 * 16 * image), "figures are those of all images");
}

#[test]
fn images_that_do_not_fit_are_an_error() {
    let (mut builder, x) = Builder::new([1, 3, 8, 8], Precision::F32);
    let x = builder.conv(&x, 16, 3, 1, true);
    let x = builder.flatten(&x);
    let x = builder.linear(&x, 4);
    let network = builder.graph.finish(x.node).unwrap();
    let run = |shape: [usize; 4]| network.run(shape, &vec![0.0; shape.iter().product()]).map(|output| output.shape);
    assert_eq!(run([2, 3, 8, 8]), Ok([2, 4, 1, 1]));
    let channels = |operation, expected, found| Err(KernelError::Channels { operation, expected, found });
    assert_eq!(run([1, 4, 8, 8]), channels("the network", 3, 4));
    assert_eq!(run([1, 3, 8, 9]), channels("a linear layer", 1024, 1152));
    assert_eq!(run([0, 3, 8, 8]), Err(KernelError::Missing("pixel in the images")));
    let error = network.run([1, 3, 8, 8], &[0.0; 7]).err();
    assert_eq!(error, Some(KernelError::Length { what: "a batch of images", expected: 192, found: 7 }));
}

#[test]
fn a_profile_tells_what_each_step_does_and_what_that_takes() {
    let shape = ConvShape { padding: [1; 2], ..ConvShape::square(16, 16, 3) };
    let affine = || ScaleShift { scale: vec![2.0; 16], shift: vec![1.0; 16] };
    let mut graph = Graph::new(16);
    let images = graph.input();
    let conv = graph.conv(images, shape, random(shape.weights(), 1), None).unwrap();
    graph.label(conv, 10);
    let norm = graph.scale_shift(conv, affine());
    graph.label(norm, 11);
    let sum = graph.add(&[norm, images]);
    let maps = graph.activation(sum, Activation::Relu);
    let pooled = graph.pool(maps, PoolShape::adaptive_average([1; 2]));
    graph.label(pooled, 12);
    let vectors = graph.flatten(pooled);
    let linear = Linear::new(random(5 * 16, 2), vec![0.0; 5], 16, LinearPrecision::Half).unwrap();
    let logits = graph.linear(vectors, linear);
    graph.label(logits, 13);
    let network = graph.finish(logits).unwrap();

    let input = [2, 16, 12, 12];
    let steps = network.plan(input).unwrap().profile(&random(input.iter().product(), 3), 3).unwrap().steps;
    let layers: Vec<&[u64]> = steps.iter().map(|step| &*step.layers).collect();
    assert_eq!(layers, [&[][..], &[10, 11], &[12], &[13]], "{steps:?}");
    let [_, conv, pool, linear] = &steps[..] else { panic!("{steps:?}") };
    let StepKind::Conv { algorithm, kernel: [3, 3] } = conv.kind else { panic!("{conv:?}") };
    assert_eq!((conv.sum, conv.activation, conv.output), (true, Activation::Relu, input));
    let macs = 2 * 144 * 16 * 16 * 9;
    assert_eq!(conv.macs, macs);
    // A tile of four takes 36 multiplications for 16 pixels of 9 each, one of two takes 16 for 4.
    let done = match algorithm {
        Algorithm::Direct => macs,
        Algorithm::Winograd(WinogradTile::Two) => macs * 16 / 36,
        Algorithm::Winograd(WinogradTile::Four) => macs * 36 / 144,
        other => panic!("{other:?} is not for 3×3"),
    };
    assert_eq!(conv.multiplications, done, "{algorithm:?}");
    assert!(conv.weight_bytes >= 4 * shape.weights(), "{conv:?}");
    // The images, their sum and the result.
    assert!(conv.value_bytes >= 3 * 4 * 2 * 16 * 144, "{conv:?}");
    assert_eq!((pool.kind, pool.macs, pool.output), (StepKind::Pool, 0, [2, 16, 1, 1]));
    assert_eq!(
        (linear.kind, linear.macs, linear.weight_bytes),
        (StepKind::Linear(LinearPrecision::Half), 2 * 80, 2 * 80)
    );
    let timed = |step: &ProfiledStep| !step.fastest.is_zero() && step.fastest <= step.time;
    assert!(steps.iter().any(timed), "{steps:?}");
}

#[test]
fn bfloat16_takes_half_the_memory() {
    let bytes = |precision| {
        let (mut builder, x) = Builder::new([1, 3, 32, 32], precision);
        // Strides of two and single pixels, which Winograd's method is not for.
        let x = builder.conv(&x, 64, 3, 2, true);
        let x = builder.conv(&x, 128, 1, 1, true);
        let x = builder.conv(&x, 64, 3, 2, true);
        let x = builder.flatten(&x);
        let x = builder.linear(&x, 1000);
        let network = builder.graph.finish(x.node).unwrap();
        let plan = network.plan([1, 3, 32, 32]).unwrap();
        let steps = plan.profile(&random(3 * 32 * 32, 1), 1).unwrap().steps;
        let [first, rest @ ..] = &steps[1..] else { panic!("{steps:?}") };
        // The images and the filters over them stay as they are.
        assert_eq!(first.weight_bytes, 4 * 64 * 27, "{first:?}");
        (rest.iter().map(|step| step.weight_bytes).sum::<usize>(), plan.memory())
    };
    let ([weights, values], [half_weights, half_values]) =
        (<[usize; 2]>::from(bytes(Precision::F32)), <[usize; 2]>::from(bytes(Precision::Bf16)));
    assert_eq!(2 * half_weights, weights, "bytes of weights");
    assert!(10 * half_values < 6 * values, "{half_values} bytes of activations, {values} in 32 bits");
}
