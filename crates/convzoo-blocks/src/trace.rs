//! A network's operations, read off one forward pass, for an engine that runs networks whole.
//!
//! The pass computes nothing ([`Mode::Shapes`]). Each operation that blocks know of tells its place in the graph
//! through `operation` and answers with a tensor that is filled with a number of its own, by which the operations
//! behind it know their inputs again, whatever lies between (a clone, a reshape, dropout in inference). A number that
//! nobody gave out means that something was computed that the trace did not see, and is an error.

use std::cell::{Cell, RefCell};

use burn::module::ParamId;
use burn::tensor::{Device, Tensor};
use convzoo_kernels::engine::{CompiledNetwork, Graph, Value};
use convzoo_kernels::linear::LinearPrecision;
use convzoo_kernels::{KernelError, Values, extension};
use thiserror::Error;

use crate::observe::{self, Mode, Record};

/// Why a network cannot be traced.
#[derive(Clone, Debug, Error, PartialEq)]
pub enum TraceError {
    /// Something between the layers that the trace does not know.
    #[error("the network computes something in front of its {0} that cannot be traced")]
    Unknown(&'static str),
    /// A device that records gradients.
    #[error("a network is traced in inference, not on an autodiff device")]
    Training,
    /// Weights that cannot be read from their device.
    #[error("the weights of a {layer} cannot be read: {reason}")]
    Weights {
        /// The layer.
        layer: &'static str,
        /// What the device said.
        reason: String,
    },
    /// The kernels do not take the network.
    #[error(transparent)]
    Kernel(#[from] KernelError),
}

struct Trace {
    graph: Graph,
    precision: LinearPrecision,
    /// Each value with its shape, in the order of their tags.
    values: Vec<(Value, [usize; 4])>,
    /// The layers observed since the last operation.
    layers: Vec<ParamId>,
    failure: Option<TraceError>,
}

thread_local! {
    static ACTIVE: Cell<bool> = const { Cell::new(false) };
    static TRACE: RefCell<Option<Trace>> = const { RefCell::new(None) };
}

/// Traces the network that `pass` computes from one image of `[channels, height, width]`. Its linear layers keep their
/// weights in `precision`; its operations are labelled with the ids under which their layers are observed.
///
/// # Errors
/// The pass does something that cannot be traced, or the kernels do not take a layer.
pub fn trace(
    [channels, height, width]: [usize; 3],
    precision: LinearPrecision,
    device: &Device,
    pass: impl FnOnce(Tensor<4>) -> Tensor<2>,
) -> Result<CompiledNetwork, TraceError> {
    /// Ends the trace, also when the pass panics.
    struct End;
    impl Drop for End {
        fn drop(&mut self) {
            ACTIVE.set(false);
            TRACE.take();
        }
    }
    if device.is_autodiff() {
        return Err(TraceError::Training);
    }
    let shape = [1, channels, height, width];
    let graph = Graph::new(channels);
    let values = vec![(graph.input(), shape)];
    TRACE.set(Some(Trace { graph, precision, values, layers: Vec::new(), failure: None }));
    ACTIVE.set(true);
    let _end = End;
    let images = Tensor::full(shape, tag(0), device);
    let note = |record: &Record, output| {
        with_trace(|trace| trace.layers.push(record.id));
        output
    };
    let output = observe::watch(Mode::Shapes, note, || pass(images));
    TRACE.with_borrow_mut(|trace| {
        let mut trace = trace.take().expect("the trace lasts as long as the pass");
        let output = trace.value(&output, "output");
        match trace.failure {
            Some(failure) => Err(failure),
            None => Ok(trace.graph.finish(output?)?),
        }
    })
}

/// Whether a pass is traced.
pub(crate) fn is_tracing() -> bool {
    ACTIVE.get()
}

/// What an operation needs in order to tell its place in the graph.
pub(crate) struct Scope<'a> {
    pub graph: &'a mut Graph,
    pub inputs: &'a [Value],
    pub precision: LinearPrecision,
}

/// Runs an operation on some inputs, `compute(inputs)`; under a trace, `add` puts it into the graph. `kind` names it in
/// errors.
pub(crate) fn operation<const I: usize, const O: usize>(
    kind: &'static str,
    inputs: Vec<Tensor<I>>,
    compute: impl FnOnce(Vec<Tensor<I>>) -> Tensor<O>,
    add: impl FnOnce(Scope) -> Result<Value, TraceError>,
) -> Tensor<O> {
    if !is_tracing() {
        return compute(inputs);
    }
    traced(kind, inputs, compute, add)
}

/// [`operation`] on one input.
pub(crate) fn layer<const I: usize, const O: usize>(
    kind: &'static str,
    input: Tensor<I>,
    compute: impl FnOnce(Tensor<I>) -> Tensor<O>,
    add: impl FnOnce(Scope, Value) -> Result<Value, TraceError>,
) -> Tensor<O> {
    if !is_tracing() {
        return compute(input);
    }
    let compute = |mut inputs: Vec<Tensor<I>>| compute(inputs.remove(0));
    traced(kind, vec![input], compute, |scope| {
        let input = scope.inputs[0];
        add(scope, input)
    })
}

#[cold]
fn traced<const I: usize, const O: usize>(
    kind: &'static str,
    inputs: Vec<Tensor<I>>,
    compute: impl FnOnce(Vec<Tensor<I>>) -> Tensor<O>,
    add: impl FnOnce(Scope) -> Result<Value, TraceError>,
) -> Tensor<O> {
    let values = with_trace(|trace| inputs.iter().map(|input| trace.value(input, kind)).collect::<Result<Vec<_>, _>>());
    let output = compute(inputs);
    let shape = spread(output.dims());
    let tag = with_trace(|trace| {
        let value = values
            .and_then(|values| add(Scope { graph: &mut trace.graph, inputs: &values, precision: trace.precision }));
        match value {
            Ok(value) => {
                trace.layers.drain(..).for_each(|layer| trace.graph.label(value, layer.val()));
                trace.values.push((value, shape));
                tag(trace.values.len() - 1)
            }
            Err(failure) => {
                trace.failure.get_or_insert(failure);
                0.0
            }
        }
    });
    Tensor::full(output.dims(), tag, &output.device())
}

fn with_trace<T>(work: impl FnOnce(&mut Trace) -> T) -> T {
    TRACE.with_borrow_mut(|trace| work(trace.as_mut().expect("the flag is set only while there is a trace")))
}

impl Trace {
    /// The value whose tag fills the tensor, flattened where the tensor is.
    fn value<const D: usize>(&mut self, tensor: &Tensor<D>, kind: &'static str) -> Result<Value, TraceError> {
        let unknown = TraceError::Unknown(kind);
        let data = tensor.clone().into_data();
        let numbers = data.as_slice::<f32>().map_err(|_| unknown.clone())?;
        let first = numbers.first().copied().unwrap_or_default();
        let found = (0..self.values.len()).find(|i| tag(*i) == first);
        let (value, shape) = found.map(|i| self.values[i]).ok_or(unknown.clone())?;
        if numbers.iter().any(|number| *number != first) || shape.iter().product::<usize>() != numbers.len() {
            return Err(unknown);
        }
        match spread(tensor.dims()) {
            dims if dims == shape => Ok(value),
            [_, _, 1, 1] if D == 2 => Ok(self.graph.flatten(value)),
            _ => Err(unknown),
        }
    }
}

/// A vector's shape as a map's.
fn spread<const D: usize>(dims: [usize; D]) -> [usize; 4] {
    let mut shape = [1; 4];
    shape[..D].copy_from_slice(&dims);
    shape
}

/// The number by which a value is known: negative, so that no activation keeps it, and from a range that no sum and
/// no difference of two such numbers falls into.
fn tag(value: usize) -> f32 {
    const RANGE: usize = 1 << 23;
    // Odd, so that no two values share a number, and large, so that neighbours lie far apart.
    const STEP: usize = 5_193_771;
    -((RANGE + value * STEP % RANGE) as f32)
}

/// The values of a weight, shared with it where they can be.
pub(crate) fn values<const D: usize>(weight: Tensor<D>, layer: &'static str) -> Result<Values, TraceError> {
    extension::values(weight).map_err(|error| TraceError::Weights { layer, reason: error.to_string() })
}
