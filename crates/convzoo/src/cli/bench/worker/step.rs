//! Where the time of a training step on the kernels goes.

use std::collections::HashMap;
use std::time::Instant;

use anyhow::Result;
use burn::module::{Module, ModuleVisitor, Param};
use burn::tensor::Tensor;
use convzoo::{Classifier, Network, Summary, record};
use convzoo_kernels::extension::trace::{Part, trace};
use convzoo_kernels::{Isa, Numbers, extension, peak};

use super::{Form, Subject, ms, unnamed};
use crate::cli::bench::job::{LayerTime, Peak, Profile, StepTimes, Work};
use crate::cli::bench::row::{gflops, median};

/// Bytes of which the reading is measured: more than caches hold.
const MEMORY: usize = 64 << 20;

/// What an operation belongs to: the parameters of one layer, by the identity of any of them, or no layer that has some.
#[derive(Clone, Copy, PartialEq, Eq, Hash)]
enum Owner {
    Parameter(u64),
    Operation(&'static str),
}

/// Milliseconds of each part.
type Times = HashMap<(Owner, Part), f64>;

/// Steps, and each layer's median time in all parts of them.
pub(super) fn profile(mut subject: Subject, passes: usize) -> Result<(Subject, Profile)> {
    let mut runs: Vec<(f64, Times)> = Vec::with_capacity(passes);
    for _ in 0..passes {
        let owners = match &subject.form {
            Form::Train(network, _) => addresses(network),
            Form::Infer(_) => HashMap::new(),
        };
        let start = Instant::now();
        let (pass, traced) = trace(|| subject.pass());
        let total = ms(start);
        subject = pass?;
        let mut times = Times::new();
        for operation in traced {
            let parameter = operation.weight.and_then(|address| owners.get(&address));
            let owner = parameter.map_or(Owner::Operation(operation.operation), |id| Owner::Parameter(*id));
            *times.entry((owner, operation.part)).or_default() += 1e3 * operation.time.as_secs_f64();
        }
        runs.push((total, times));
    }
    let layers = match &subject.form {
        Form::Train(network, _) => layers(network, &subject.images, &runs)?,
        Form::Infer(_) => Vec::new(),
    };
    let isa = Isa::detect()?;
    let read = 1e-9 * peak::bandwidth(isa, MEMORY);
    let peak = Peak { gflops: 2e-9 * peak::multiply_adds(isa, Numbers::F32), weights_gbs: read, values_gbs: read };
    Ok((subject, Profile { layers, peak: Some(peak) }))
}

/// Where the values of each parameter lie, and its identity.
fn addresses(network: &Network) -> HashMap<usize, u64> {
    struct Visit(HashMap<usize, u64>);
    impl ModuleVisitor for Visit {
        fn visit_float<const D: usize>(&mut self, param: &Param<Tensor<D>>) {
            if let Some(address) = extension::address(param.val().without_autodiff()) {
                self.0.insert(address, param.id.val());
            }
        }
    }
    let mut visit = Visit(HashMap::new());
    network.visit(&mut visit);
    visit.0
}

/// The layers that have parameters, then what has none, then what is left of the steps.
fn layers(network: &Network, images: &Tensor<4>, runs: &[(f64, Times)]) -> Result<Vec<LayerTime>> {
    let [batch, channels, height, width] = images.dims();
    let graph = record(network, [channels, height, width], |images| network.forward_train(images).logits)?;
    let summary = Summary::new(&graph, network);
    let times = |owners: &[Owner]| {
        let part = |part: Part| {
            let of = |times: &Times| owners.iter().filter_map(|owner| times.get(&(*owner, part))).sum::<f64>();
            median(&runs.iter().map(|(_, times)| of(times)).collect::<Vec<_>>())
        };
        StepTimes {
            forward_ms: part(Part::Forward),
            input_gradient_ms: part(Part::InputGradient),
            weight_gradient_ms: part(Part::WeightGradient),
            update_ms: part(Part::Update),
        }
    };
    let named = graph.layers().zip(summary.layers).filter(|((_, node), _)| !node.parameters.is_empty());
    let named = named.map(|((_, node), layer)| {
        let owners: Vec<_> = node.parameters.iter().map(|parameter| Owner::Parameter(parameter.id)).collect();
        let parts = times(&owners);
        let StepTimes { forward_ms, input_gradient_ms, weight_gradient_ms, .. } = parts;
        // The first layer has no gradient of its input.
        let computed = [forward_ms, input_gradient_ms, weight_gradient_ms].iter().filter(|time| **time > 0.0).count();
        let macs = layer.macs * batch * computed;
        let work = Work { macs, multiplications: macs, weight_bytes: 0, value_bytes: 0 };
        LayerTime {
            name: layer.name,
            kind: layer.kind.to_owned(),
            output: layer.output,
            gflops: gflops(macs, forward_ms + input_gradient_ms + weight_gradient_ms),
            work: (macs > 0).then_some(work),
            ..whole("", parts)
        }
    });
    let mut operations: Vec<&str> = Vec::new();
    for (owner, _) in runs.iter().flat_map(|(_, times)| times.keys()) {
        match owner {
            Owner::Operation(operation) if !operations.contains(operation) => operations.push(operation),
            _ => {}
        }
    }
    operations.sort_unstable();
    let nameless = operations.into_iter().map(|operation| LayerTime {
        kind: operation.to_owned(),
        ..whole("without parameters", times(&[Owner::Operation(operation)]))
    });
    let rest = runs.iter().map(|(total, times)| total - times.values().sum::<f64>());
    let rest = unnamed("Burn's operations", median(&rest.collect::<Vec<_>>()));
    Ok(named.chain(nameless).chain([rest]).collect())
}

/// All parts of a layer.
fn whole(name: &str, parts: StepTimes) -> LayerTime {
    let StepTimes { forward_ms, input_gradient_ms, weight_gradient_ms, update_ms } = parts;
    let sum = forward_ms + input_gradient_ms + weight_gradient_ms + update_ms;
    LayerTime { parts: Some(parts), ..unnamed(name, sum) }
}
