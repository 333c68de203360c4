#![allow(unsafe_code)]

use std::ops::Range;
use std::sync::{Mutex, PoisonError};
use std::time::{Duration, Instant};

use super::layouts::{Homes, are_aligned, shapes, takes_planes};
use super::memory::{Need, assign};
use super::node::{Node, Op};
use super::passes::passes;
use super::profile::{Chosen, Profile, ProfiledStep};
use super::quantize::byte_sum;
use super::weights::PackedConvs;
use crate::blocked::conv::Epilogue;
use crate::blocked::elementwise::{elementwise, gate};
use crate::blocked::layer_norm::layer_norm;
use crate::blocked::linear::linear;
use crate::blocked::lrn::local_response_norm;
use crate::blocked::operation::unpack_all;
use crate::blocked::pool::pool2d;
use crate::blocked::rearrange::{Flatten, Pack, concatenate, gather};
use crate::cost;
use crate::error::check_length;
use crate::memory::Shared;
use crate::quantized::conv::ByteEpilogue;
use crate::quantized::elementwise::sum_bytes;
use crate::quantized::pool::pool_bytes;
use crate::quantized::rearrange::{FlattenBytes, ImagesToBytes, gather_bytes, to_bytes, to_floats};
use crate::quantized::{ByteScale, unpack_bytes};
use crate::{Buffer, KernelError, Layout, Operation, parallel};

/// What a network returns.
#[derive(Clone, Debug, PartialEq)]
pub struct Output {
    /// `[batch, channels, height, width]`; of vectors, height and width are 1.
    pub shape: [usize; 4],
    /// The values in that order.
    pub values: Vec<f32>,
}

/// A network for images of one shape: which kernels run, in which layouts, and where each tensor lies.
pub struct ExecutionPlan {
    input: [usize; 4],
    /// How often the steps run, each time on as many of the images.
    passes: usize,
    steps: Vec<Step>,
    /// Where the steps' tensors start, in bytes: the inputs and the output of one after those of another. `None` is the images.
    places: Vec<Option<usize>>,
    /// Of the output, and where it starts.
    layout: Layout,
    output: usize,
    memory: Mutex<Buffer>,
    /// Where the nodes' values are, in a plan that keeps them.
    kept: Vec<Kept>,
}

/// Where a node's value is.
struct Kept {
    start: usize,
    layout: Layout,
    shape: [usize; 4],
    bytes: Option<ByteScale>,
}

struct Step {
    operation: Box<dyn Operation>,
    about: ProfiledStep,
    /// The inputs, then the output.
    places: Range<usize>,
}

/// What a plan is made from.
struct Planner<'a> {
    nodes: &'a [Node],
    convs: &'a PackedConvs,
    batch: usize,
    /// Whether the images stay in NCHW order.
    planar: bool,
    shapes: Vec<[usize; 4]>,
    homes: Homes,
    layouts: Vec<Layout>,
    steps: Vec<UnplacedStep>,
}

impl<'a> Planner<'a> {
    /// The steps of all nodes.
    fn plan(nodes: &'a [Node], convs: &'a PackedConvs, input: [usize; 4]) -> Result<Self, KernelError> {
        let (shapes, planar) = (shapes(nodes, input)?, takes_planes(nodes));
        let homes = Homes::new(nodes, &shapes, convs, planar);
        let layouts: Vec<Layout> = (0..nodes.len()).map(|i| homes.layout(i, &shapes)).collect();
        let mut planner = Self { nodes, convs, batch: input[0], planar, shapes, homes, layouts, steps: Vec::new() };
        for (i, node) in nodes.iter().enumerate() {
            if !planner.homes.views[i] {
                planner.add(i, node)?;
            }
        }
        Ok(planner)
    }

    fn place(&self, node: usize) -> Place {
        let home = self.homes.homes[node];
        let layout = &self.layouts[node];
        Place { owner: home.owner, at: home.block * layout.block() * layout.numbers.bytes() }
    }

    fn push(
        &mut self,
        node: &Node,
        operation: Box<dyn Operation>,
        chosen: Option<Chosen>,
        places: (Vec<Place>, Place),
    ) {
        let about = ProfiledStep::new(node, &*operation, chosen);
        self.steps.push(UnplacedStep { operation, about, inputs: places.0, output: places.1 });
    }

    /// Adds the steps that compute a node.
    fn add(&mut self, i: usize, node: &Node) -> Result<(), KernelError> {
        if matches!(node.op, Op::Concat) && are_aligned(&node.inputs, &self.shapes, self.convs.isa().lanes()) {
            return self.add_copies(i, node);
        }
        let output = self.layouts[i];
        let (operation, chosen) = self.operation(i, node)?;
        if operation.output() != output {
            let (left, right) = (operation.output().shape(), output.shape());
            let shape = |[_, channels, height, width]: [usize; 4]| [channels, height, width];
            let operation = "a convolution over vectors";
            return Err(KernelError::Shapes { operation, left: shape(left), right: shape(right) });
        }
        let inputs = node.inputs.iter().map(|input| self.place(*input)).collect();
        self.push(node, operation, chosen, (inputs, self.place(i)));
        Ok(())
    }

    /// The operation that computes a node; for a convolution also which algorithm.
    fn operation(&self, i: usize, node: &Node) -> Result<(Box<dyn Operation>, Option<Chosen>), KernelError> {
        let (isa, threads, output) = (self.convs.isa(), parallel::threads(), self.layouts[i]);
        let inputs: Vec<Layout> = node.inputs.iter().map(|input| self.layouts[*input]).collect();
        let operation: Box<dyn Operation> = match &node.op {
            Op::Input(_) => Box::new(Pack(output)),
            Op::Conv(conv) => {
                let planar = self.planar && node.inputs[0] == 0;
                let algorithm = cost::algorithm(
                    &conv.shape,
                    self.convs.numbers(),
                    self.batch,
                    [output.height, output.width],
                    planar,
                );
                let epilogue = Epilogue { sum: inputs.get(1).copied(), activation: conv.activation };
                let conv = self.convs.get(i, conv, algorithm)?;
                let operation = conv.operation(inputs[0], output, epilogue, threads)?;
                return Ok((operation, Some(Chosen { conv, algorithm })));
            }
            _ if node.bytes.is_some() || self.of_bytes(node) => return Ok((self.byte_operation(i, node)?, None)),
            Op::Pool(shape) => pool2d(isa, shape, inputs[0], output, threads)?,
            Op::LocalResponse(norm) => local_response_norm(isa, *norm, inputs[0], output, threads)?,
            Op::Elementwise { affine, activation } => {
                elementwise(isa, affine.as_ref(), *activation, inputs, output, threads)?
            }
            Op::LayerNorm(norm) => layer_norm(isa, norm, inputs[0], output, threads)?,
            Op::Gate => match inputs[..] {
                [maps, factors] => gate(isa, [maps, factors], output, threads)?,
                _ => return Err(KernelError::Missing("gate")),
            },
            Op::Gather(sources) => gather(isa, sources.clone(), inputs, output, threads)?,
            Op::Flatten => Box::new(Flatten::new(inputs[0], threads)),
            Op::Linear { linear: layer, activation } => {
                linear(isa, layer.clone(), *activation, inputs[0], output.numbers, threads)?
            }
            Op::Concat => concatenate(isa, inputs, output, threads)?,
            Op::ToBytes { .. } | Op::ToFloats | Op::ByteConv(_) => return Err(KernelError::Missing("scale of bytes")),
        };
        Ok((operation, None))
    }

    /// Whether a node reads bytes.
    fn of_bytes(&self, node: &Node) -> bool {
        node.inputs.iter().any(|input| self.nodes[*input].bytes.is_some())
    }

    /// The operation that computes a node on bytes, or of bytes, or to bytes.
    fn byte_operation(&self, i: usize, node: &Node) -> Result<Box<dyn Operation>, KernelError> {
        let (isa, threads, output) = (self.convs.isa(), parallel::threads(), self.layouts[i]);
        let inputs: Vec<Layout> = node.inputs.iter().map(|input| self.layouts[*input]).collect();
        let scale = |i: usize| self.nodes[i].bytes.ok_or(KernelError::Missing("scale of bytes"));
        let channels = |i: usize| self.shapes[i][1];
        let first = *node.inputs.first().ok_or(KernelError::Missing("tensor of bytes"))?;
        Ok(match &node.op {
            Op::ToBytes { planes: true } => Box::new(ImagesToBytes::new(isa, scale(i)?, inputs[0], output, threads)?),
            Op::ToBytes { planes: false } => to_bytes(isa, scale(i)?, inputs[0], output, threads)?,
            Op::ToFloats => to_floats(isa, scale(first)?, inputs[0], output, threads)?,
            Op::ByteConv(conv) => {
                let (requantize, activation) = (conv.requantize.clone(), conv.activation);
                let bytes = node.bytes.map(|scale| scale.zero);
                let epilogue = ByteEpilogue { sum: inputs.get(1).copied(), requantize, bytes, activation };
                conv.conv.operation((inputs[0], scale(first)?.zero), output, epilogue, threads)?
            }
            Op::Pool(shape) => pool_bytes(isa, shape, [scale(first)?, scale(i)?], inputs[0], output, threads)?,
            Op::Elementwise { affine, activation } => {
                let scales = node.inputs.iter().map(|input| scale(*input)).collect::<Result<Vec<_>, _>>()?;
                let sum = byte_sum(affine.as_ref(), *activation, &scales, scale(i)?, channels(i));
                sum_bytes(isa, &sum, inputs, output, threads)?
            }
            Op::Concat => {
                let parts = node.inputs.iter().enumerate();
                let sources = parts.flat_map(|(part, input)| (0..channels(*input)).map(move |c| (part, c))).collect();
                gather_bytes(isa, sources, scale(i)?.zero, inputs, output, threads)?
            }
            Op::Gather(sources) => gather_bytes(isa, sources.clone(), scale(i)?.zero, inputs, output, threads)?,
            Op::Flatten => Box::new(FlattenBytes::new(channels(first), inputs[0])?),
            _ => return Err(KernelError::Missing("operation on bytes")),
        })
    }

    /// Copies those parts of a concatenation that do not lie in their place already.
    fn add_copies(&mut self, i: usize, node: &Node) -> Result<(), KernelError> {
        let (output, home) = (self.layouts[i], self.homes.homes[i]);
        let mut block = home.block;
        for part in &node.inputs {
            let layout = self.layouts[*part];
            let (from, to) =
                (self.place(*part), Place { owner: home.owner, at: block * output.block() * output.numbers.bytes() });
            if (from.owner, from.at) != (to.owner, to.at) {
                let slice = Layout { channels: layout.channels, ..output };
                let operation = match node.bytes {
                    Some(scale) => {
                        let sources = (0..self.shapes[*part][1]).map(|channel| (0, channel)).collect();
                        gather_bytes(self.convs.isa(), sources, scale.zero, vec![layout], slice, parallel::threads())?
                    }
                    None => concatenate(self.convs.isa(), vec![layout], slice, parallel::threads())?,
                };
                self.push(node, operation, None, (vec![from], to));
            }
            block += layout.blocks();
        }
        Ok(())
    }
}

impl ExecutionPlan {
    pub(super) fn new(nodes: &[Node], convs: &PackedConvs, input: [usize; 4]) -> Result<Self, KernelError> {
        let [batch, channels, height, width] = input;
        let passes = passes(nodes, &shapes(nodes, input)?, convs.numbers());
        let planner = Planner::plan(nodes, convs, [batch / passes, channels, height, width])?;
        let output = planner.place(nodes.len() - 1);
        let (mut plan, _) = Self::allocate(planner.steps, input, &planner.layouts, output, false);
        plan.passes = passes;
        plan.steps.iter_mut().for_each(|step| step.about.repeat(passes));
        Ok(plan)
    }

    /// A plan that keeps the values of all nodes, for [`observe`](Self::observe).
    pub(super) fn keeping(nodes: &[Node], convs: &PackedConvs, input: [usize; 4]) -> Result<Self, KernelError> {
        let planner = Planner::plan(nodes, convs, input)?;
        let places: Vec<Place> = (0..nodes.len()).map(|i| planner.place(i)).collect();
        let output = places[nodes.len() - 1];
        let (mut plan, starts) = Self::allocate(planner.steps, input, &planner.layouts, output, true);
        let kept = places.iter().zip(nodes).enumerate().map(|(i, (place, node))| Kept {
            start: starts[place.owner] + place.at,
            layout: planner.layouts[i],
            shape: planner.shapes[i],
            bytes: node.bytes,
        });
        plan.kept = kept.collect();
        Ok(plan)
    }

    /// Gives each tensor its memory.
    ///
    /// `keep`: what a tensor is written to stays its own to the end.
    fn allocate(
        steps: Vec<UnplacedStep>,
        input: [usize; 4],
        layouts: &[Layout],
        output: Place,
        keep: bool,
    ) -> (Self, Vec<usize>) {
        let unused = Need { first: usize::MAX, last: 0, len: 0 };
        let mut needs = vec![unused; layouts.len()];
        for (time, step) in steps.iter().enumerate() {
            for place in step.inputs.iter().chain([&step.output]) {
                let need = &mut needs[place.owner];
                need.first = need.first.min(time);
                need.last = if keep { steps.len() } else { need.last.max(time) };
                // A cache line more, so that tensors of equal length do not all start on the same lines of the cache.
                need.len = layouts[place.owner].bytes().next_multiple_of(LINE) + LINE;
            }
        }
        needs[output.owner].last = steps.len();
        let (starts, len) = assign(&needs);

        let start = |place: &Place| starts[place.owner] + place.at;
        let mut places = Vec::new();
        let steps = steps.into_iter().map(|step| {
            let first = places.len();
            match step.inputs.as_slice() {
                [] => places.push(None),
                inputs => places.extend(inputs.iter().map(|place| Some(start(place)))),
            }
            places.push(Some(start(&step.output)));
            Step { operation: step.operation, about: step.about, places: first..places.len() }
        });
        let steps = steps.collect();
        let (layout, output) = (layouts[layouts.len() - 1], start(&output));
        let memory = Mutex::new(Buffer::zeros(len / size_of::<f32>()));
        (Self { input, passes: 1, steps, places, layout, output, memory, kept: Vec::new() }, starts)
    }

    /// Runs the network, and shows the value of each node, `[batch, channels, height, width]`, by its place among them: of
    /// bytes the numbers they stand for.
    pub(super) fn observe(
        &self,
        images: &[f32],
        mut see: impl FnMut(usize, [usize; 4], &[f32]),
    ) -> Result<(), KernelError> {
        self.execute(images, |_| ())?;
        let memory = self.memory.lock().unwrap_or_else(PoisonError::into_inner);
        for (i, Kept { start, layout, shape, bytes }) in self.kept.iter().enumerate() {
            // SAFETY: the plan has kept the node's tensor, of this layout, from that byte on; cells begin at whole floats.
            let cells =
                unsafe { std::slice::from_raw_parts(memory.as_ptr().cast::<u8>().add(*start).cast(), layout.len()) };
            let values = match bytes {
                Some(scale) => {
                    unpack_bytes(cells, shape[1], layout).into_iter().map(|byte| scale.number(byte)).collect()
                }
                // SAFETY: as above.
                None => unsafe { unpack_all(cells.as_ptr().cast(), layout) },
            };
            see(i, *shape, &values);
        }
        Ok(())
    }

    /// Runs the network on images of the plan's shape. Runs of one plan wait for each other.
    ///
    /// # Errors
    /// The images do not have the shape.
    pub fn run(&self, images: &[f32]) -> Result<Output, KernelError> {
        self.execute(images, |_| ())
    }

    /// [`run`](Self::run)s the network some times, once at least, and takes the time of each step: from the end of the
    /// one before it to its own, with the call for the other threads in the first, and what follows a pass in the next.
    ///
    /// # Errors
    /// The images do not have the shape.
    pub fn profile(&self, images: &[f32], runs: usize) -> Result<Profile, KernelError> {
        let mut times: Vec<Vec<Duration>> = vec![Vec::new(); self.steps.len() + 1];
        for run in 0..runs.max(1) {
            let mut last = Instant::now();
            let mut passed = || {
                let now = Instant::now();
                now - std::mem::replace(&mut last, now)
            };
            times.iter_mut().for_each(|times| times.push(Duration::ZERO));
            self.execute(images, |step| times[step][run] += passed())?;
            times[self.steps.len()][run] += passed();
        }
        times.iter_mut().for_each(|times| times.sort_unstable());
        let median = |times: &[Duration]| times[times.len() / 2];
        let steps = self.steps.iter().zip(&times).map(|(step, times)| {
            let (time, fastest) = (median(times), times[0]);
            ProfiledStep { time, fastest, ..step.about.clone() }
        });
        Ok(Profile { steps: steps.collect(), answer: median(&times[self.steps.len()]) })
    }

    /// One run; `ended` is called as each step ends.
    fn execute(&self, images: &[f32], mut ended: impl FnMut(usize)) -> Result<Output, KernelError> {
        check_length("a batch of images", self.input.iter().product(), images)?;
        let mut memory = self.memory.lock().unwrap_or_else(PoisonError::into_inner);
        let base = memory.as_mut_ptr().cast::<u8>();
        let pointer = |images: &[f32], place: &Option<usize>| match place {
            // SAFETY: places lie within the memory.
            Some(at) => unsafe { base.add(*at).cast_const() },
            None => images.as_ptr().cast(),
        };
        let of_pass = |images| self.places.iter().map(move |place| pointer(images, place));
        let pointers: Vec<*const u8> = images.chunks(images.len() / self.passes).flat_map(of_pass).collect();
        let shared = Shared(pointers.as_slice());
        let (steps, mut values) = (self.steps.len(), Vec::new());
        let tasks = |stage: usize| self.steps[stage % steps].operation.tasks();
        let work = |stage: usize, task| {
            let Step { operation, places, .. } = &self.steps[stage % steps];
            let pointers = &shared.get()[stage / steps * self.places.len()..];
            let [inputs @ .., output] = &pointers[places.clone()] else { return };
            // SAFETY: the pointers are to tensors of the operation's layouts; what a step writes overlaps nothing that
            // is needed at the same time, and images are only read.
            unsafe { operation.run(task, inputs, output.cast_mut()) }
        };
        parallel::stages(self.passes * steps, tasks, work, |stage| {
            ended(stage % steps);
            if (stage + 1) % steps == 0 {
                // SAFETY: the output lies within the memory, and the next pass has not begun.
                values.extend(unsafe { unpack_all(base.add(self.output), &self.layout) });
            }
        });
        let [images, channels, height, width] = self.layout.shape();
        Ok(Output { shape: [self.passes * images, channels, height, width], values })
    }

    /// Bytes of memory that the tensors take between the images and the output.
    pub fn memory(&self) -> usize {
        size_of_val(&**self.memory.lock().unwrap_or_else(PoisonError::into_inner))
    }
}

/// Bytes in a cache line.
const LINE: usize = 64;

/// A step before its memory is known.
struct UnplacedStep {
    operation: Box<dyn Operation>,
    about: ProfiledStep,
    inputs: Vec<Place>,
    output: Place,
}

/// A place in a node's memory, in bytes.
#[derive(Clone, Copy)]
struct Place {
    owner: usize,
    at: usize,
}
