#![allow(unsafe_code)]

use std::ops::Range;
use std::sync::{Mutex, PoisonError};
use std::time::{Duration, Instant};

use super::choose::{PLANAR_CHANNELS, choose};
use super::graph::{Node, Op};
use super::memory::{Need, assign};
use super::profile::{self, Chosen, Profile};
use super::{Network, Output};
use crate::conv::{Epilogue, length};
use crate::elementwise::elementwise;
use crate::operation::Shared;
use crate::pool::{PoolShape, pool};
use crate::rearrange::{Flatten, Pack, concatenate};
use crate::{Buffer, KernelError, Layout, Operation, parallel, unpack_all};

/// A network for images of one shape: which kernels run, in which layouts, and where each tensor lies.
pub struct Plan {
    input: [usize; 4],
    stages: Vec<Stage>,
    /// Where the stages' tensors begin: the inputs and the output of one after those of another. `None` is the images.
    places: Vec<Option<usize>>,
    /// Of the output, and where it begins.
    layout: Layout,
    output: usize,
    memory: Mutex<Buffer>,
}

struct Stage {
    operation: Box<dyn Operation>,
    about: profile::Stage,
    /// The inputs, the output behind them.
    places: Range<usize>,
}

impl Plan {
    pub(super) fn new(network: &Network, input: [usize; 4]) -> Result<Self, KernelError> {
        let nodes = &network.nodes;
        let (isa, lanes, threads) = (network.isa, network.isa.lanes(), parallel::threads());
        let shapes = shapes(nodes, input)?;
        let planar = takes_planes(nodes);
        let homes = Homes::new(nodes, &shapes, lanes, planar);
        let layouts: Vec<Layout> = (0..nodes.len()).map(|i| homes.layout(i, &shapes)).collect();
        let place = |i: usize| Place { owner: homes.homes[i].owner, at: homes.homes[i].block * layouts[i].block() };

        let mut stages = Vec::new();
        for (i, node) in nodes.iter().enumerate().filter(|(i, _)| !homes.views[*i]) {
            let output = layouts[i];
            let inputs: Vec<Layout> = node.inputs.iter().map(|input| layouts[*input]).collect();
            let mut chosen = None;
            let operation: Box<dyn Operation> = match &node.op {
                Op::Input(_) => Box::new(Pack(output)),
                Op::Conv(conv) => {
                    let planar = planar && node.inputs[0] == 0;
                    let algorithm = choose(&conv.shape, input[0], [output.height, output.width], planar);
                    let epilogue = Epilogue { sum: inputs.get(1).copied(), relu: conv.relu };
                    let conv = network.packed(i, conv, algorithm)?;
                    let operation = conv.operation(inputs[0], output, epilogue, threads)?;
                    chosen = Some(Chosen { conv, algorithm, isa });
                    operation
                }
                Op::Pool(shape) => pool(isa, shape, inputs[0], output, threads)?,
                Op::LocalResponse(norm) => norm.operation(isa, inputs[0], output, threads)?,
                Op::Elementwise { affine, activation } => {
                    elementwise(isa, affine.as_ref(), *activation, inputs, output, threads)?
                }
                Op::Flatten => Box::new(Flatten::new(inputs[0], threads)),
                Op::Linear { linear, activation } => linear.clone().operation(isa, *activation, inputs[0], threads)?,
                Op::Concat if are_aligned(&node.inputs, &shapes, lanes) => {
                    // What does not lie there already is copied.
                    let mut block = homes.homes[i].block;
                    for (part, layout) in node.inputs.iter().zip(&inputs) {
                        let into = Place { owner: homes.homes[i].owner, at: block * output.block() };
                        let from = place(*part);
                        if (from.owner, from.at) != (into.owner, into.at) {
                            let slice = Layout { channels: layout.channels, ..output };
                            let operation = concatenate(isa, vec![*layout], slice, threads)?;
                            let about = profile::Stage::new(node, &*operation, None);
                            stages.push(Step { operation, about, inputs: vec![from], output: into });
                        }
                        block += layout.blocks();
                    }
                    continue;
                }
                Op::Concat => concatenate(isa, inputs, output, threads)?,
            };
            if operation.output() != output {
                let (left, right) = (operation.output().shape(), output.shape());
                let shape = |[_, channels, height, width]: [usize; 4]| [channels, height, width];
                let operation = "a convolution over vectors";
                return Err(KernelError::Shapes { operation, left: shape(left), right: shape(right) });
            }
            let about = profile::Stage::new(node, &*operation, chosen);
            let inputs = node.inputs.iter().map(|input| place(*input)).collect();
            stages.push(Step { operation, about, inputs, output: place(i) });
        }
        Ok(Self::allocate(stages, input, &layouts, place(nodes.len() - 1)))
    }

    /// Gives each tensor its memory.
    fn allocate(steps: Vec<Step>, input: [usize; 4], layouts: &[Layout], output: Place) -> Self {
        let unused = Need { first: usize::MAX, last: 0, len: 0 };
        let mut needs = vec![unused; layouts.len()];
        for (time, step) in steps.iter().enumerate() {
            for place in step.inputs.iter().chain([&step.output]) {
                let need = &mut needs[place.owner];
                need.first = need.first.min(time);
                need.last = need.last.max(time);
                // A cache line more, so that tensors of equal length do not all begin on the same lines of the cache.
                need.len = layouts[place.owner].len().next_multiple_of(LINE) + LINE;
            }
        }
        needs[output.owner].last = steps.len();
        let (starts, len) = assign(&needs);

        let start = |place: &Place| starts[place.owner] + place.at;
        let mut places = Vec::new();
        let stages = steps.into_iter().map(|step| {
            let first = places.len();
            match step.inputs.as_slice() {
                [] => places.push(None),
                inputs => places.extend(inputs.iter().map(|place| Some(start(place)))),
            }
            places.push(Some(start(&step.output)));
            Stage { operation: step.operation, about: step.about, places: first..places.len() }
        });
        let stages = stages.collect();
        let (layout, output) = (layouts[layouts.len() - 1], start(&output));
        Self { input, stages, places, layout, output, memory: Mutex::new(Buffer::zeros(len)) }
    }

    /// Runs the network on images of the plan's shape. Runs of one plan wait for each other.
    ///
    /// # Errors
    /// The images do not have the shape.
    pub fn run(&self, images: &[f32]) -> Result<Output, KernelError> {
        self.execute(images, |_| ())
    }

    /// [`run`](Self::run)s the network some times, once at least, and takes the time of each stage: from the end of the
    /// one before it to its own, with the call for the other threads in the first.
    ///
    /// # Errors
    /// The images do not have the shape.
    pub fn profile(&self, images: &[f32], passes: usize) -> Result<Profile, KernelError> {
        let mut times = vec![Vec::new(); self.stages.len() + 1];
        for _ in 0..passes.max(1) {
            let mut last = Instant::now();
            let mut passed = || {
                let now = Instant::now();
                now - std::mem::replace(&mut last, now)
            };
            self.execute(images, |stage| times[stage].push(passed()))?;
            times[self.stages.len()].push(passed());
        }
        times.iter_mut().for_each(|times: &mut Vec<Duration>| times.sort_unstable());
        let median = |times: &[Duration]| times[times.len() / 2];
        let stages = self.stages.iter().zip(&times).map(|(stage, times)| {
            let (time, fastest) = (median(times), times[0]);
            profile::Stage { time, fastest, ..stage.about.clone() }
        });
        Ok(Profile { stages: stages.collect(), answer: median(&times[self.stages.len()]) })
    }

    /// One run; `ended` is told as each stage ends.
    fn execute(&self, images: &[f32], ended: impl FnMut(usize)) -> Result<Output, KernelError> {
        length("a batch of images", self.input.iter().product(), images)?;
        let mut memory = self.memory.lock().unwrap_or_else(PoisonError::into_inner);
        let base = memory.as_mut_ptr();
        let pointer = |place: &Option<usize>| match place {
            // SAFETY: places lie within the memory.
            Some(at) => unsafe { base.add(*at) },
            None => images.as_ptr().cast_mut(),
        };
        let pointers: Vec<*const f32> = self.places.iter().map(|place| pointer(place).cast_const()).collect();
        let shared = Shared(pointers.as_slice());
        let tasks = |stage: usize| self.stages[stage].operation.tasks();
        let work = |stage: usize, task| {
            let Stage { operation, places, .. } = &self.stages[stage];
            let [inputs @ .., output] = &shared.get()[places.clone()] else { return };
            // SAFETY: the pointers are to tensors of the operation's layouts; what a stage writes overlaps nothing that
            // is needed at the same time, and images are only read.
            unsafe { operation.run(task, inputs, output.cast_mut()) }
        };
        parallel::stages(self.stages.len(), tasks, work, ended);
        let values = unpack_all(&memory[self.output..][..self.layout.len()], &self.layout);
        Ok(Output { shape: self.layout.shape(), values })
    }

    /// Floats of memory that the tensors take between the images and the output.
    pub fn memory(&self) -> usize {
        self.memory.lock().unwrap_or_else(PoisonError::into_inner).len()
    }
}

/// Floats in a cache line.
const LINE: usize = 16;

/// A stage before its memory is known.
struct Step {
    operation: Box<dyn Operation>,
    about: profile::Stage,
    inputs: Vec<Place>,
    output: Place,
}

/// A place in a node's memory.
#[derive(Clone, Copy)]
struct Place {
    owner: usize,
    at: usize,
}

/// The memory that a value lies in: its own, or a part of a concatenation's.
#[derive(Clone, Copy, PartialEq)]
struct Home {
    /// The node whose memory it is.
    owner: usize,
    /// The block at which the value begins.
    block: usize,
}

struct Homes {
    homes: Vec<Home>,
    /// Nodes whose value is their input's, as it lies.
    views: Vec<bool>,
    /// The halo of each memory, by its owner.
    halos: Vec<usize>,
    /// The lanes of each memory, by its owner.
    lanes: Vec<usize>,
}

impl Homes {
    fn new(nodes: &[Node], shapes: &[[usize; 4]], lanes: usize, planar: bool) -> Self {
        let mut homes: Vec<Home> = (0..nodes.len()).map(|owner| Home { owner, block: 0 }).collect();
        // Concatenations from the last to the first: one that is part of another lies in the other's memory, and so do
        // its parts.
        for (i, node) in nodes.iter().enumerate().rev() {
            if !matches!(node.op, Op::Concat) || !are_aligned(&node.inputs, shapes, lanes) {
                continue;
            }
            let mut home = homes[i];
            for part in &node.inputs {
                let fixed = matches!(nodes[*part].op, Op::Input(_) | Op::Flatten | Op::Linear { .. });
                if homes[*part].owner == *part && !fixed {
                    homes[*part] = home;
                }
                home.block += shapes[*part][1].div_ceil(lanes);
            }
        }
        let mut views = vec![false; nodes.len()];
        for (i, node) in nodes.iter().enumerate() {
            if let Op::Pool(PoolShape::Adaptive(_)) = node.op
                && shapes[i] == shapes[node.inputs[0]]
                && homes[i].owner == i
            {
                homes[i] = homes[node.inputs[0]];
                views[i] = true;
            }
        }
        let mut halos = vec![0; nodes.len()];
        for node in nodes {
            if let Op::Conv(conv) = &node.op {
                let halo = &mut halos[homes[node.inputs[0]].owner];
                *halo = conv.shape.padding[1].max(*halo);
            }
        }
        for (i, node) in nodes.iter().enumerate() {
            if let Op::Flatten = node.op
                && shapes[node.inputs[0]][2..] == [1, 1]
                && halos[homes[node.inputs[0]].owner] == 0
                && homes[i].owner == i
                && halos[i] == 0
            {
                homes[i] = homes[node.inputs[0]];
                views[i] = true;
            }
        }
        let lanes = (0..nodes.len()).map(|i| if planar && i == 0 { 1 } else { lanes }).collect();
        Self { homes, views, halos, lanes }
    }

    fn layout(&self, node: usize, shapes: &[[usize; 4]]) -> Layout {
        let owner = self.homes[node].owner;
        let whole = Layout::new(shapes[owner], self.lanes[owner], self.halos[owner]);
        Layout { channels: shapes[node][1], ..whole }
    }
}

/// Whether each part begins at a block.
fn are_aligned(parts: &[usize], shapes: &[[usize; 4]], lanes: usize) -> bool {
    let Some((_, front)) = parts.split_last() else { return false };
    front.iter().all(|part| shapes[*part][1].is_multiple_of(lanes))
}

/// Whether the images stay in their order: they have few channels, and only convolutions look at them.
fn takes_planes(nodes: &[Node]) -> bool {
    let few = matches!(nodes[0].op, Op::Input(channels) if channels <= PLANAR_CHANNELS);
    let convolved = |node: &Node| match node.op {
        Op::Conv(_) => node.inputs.get(1) != Some(&0),
        _ => !node.inputs.contains(&0),
    };
    few && nodes.len() > 1 && nodes.iter().all(convolved)
}

/// The shape of each node's value.
fn shapes(nodes: &[Node], input: [usize; 4]) -> Result<Vec<[usize; 4]>, KernelError> {
    if input.contains(&0) {
        return Err(KernelError::Missing("pixel in the images"));
    }
    let mut shapes: Vec<[usize; 4]> = Vec::with_capacity(nodes.len());
    for node in nodes {
        let first = node.inputs.first().map_or(input, |first| shapes[*first]);
        let [batch, channels, height, width] = first;
        let takes = |operation, expected| match channels == expected {
            true => Ok(()),
            false => Err(KernelError::Channels { operation, expected, found: channels }),
        };
        shapes.push(match &node.op {
            Op::Input(expected) => {
                takes("the network", *expected)?;
                input
            }
            Op::Conv(conv) => {
                takes("a convolution", conv.shape.channels[0])?;
                let [height, width] = conv.shape.output([height, width])?;
                [batch, conv.shape.channels[1], height, width]
            }
            Op::Pool(shape) => {
                let [height, width] = shape.output([height, width])?;
                [batch, channels, height, width]
            }
            Op::LocalResponse(_) | Op::Elementwise { .. } => match node.inputs.is_empty() {
                true => return Err(KernelError::Missing("tensor to add")),
                false => first,
            },
            Op::Concat => match node.inputs.is_empty() {
                true => return Err(KernelError::Missing("tensor to concatenate")),
                false => [batch, node.inputs.iter().map(|part| shapes[*part][1]).sum(), height, width],
            },
            Op::Flatten => [batch, channels * height * width, 1, 1],
            Op::Linear { linear, .. } => [batch, linear.outputs(), 1, 1],
        });
    }
    Ok(shapes)
}
