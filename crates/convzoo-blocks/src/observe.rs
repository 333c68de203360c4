//! The one mechanism that watches a forward pass.
//!
//! Every layer that has weights, or that pools, runs its computation through [`layer`]. Without an observer that is
//! one check of a thread-local flag. With one ([`watch`]), the observer is told each layer's identity, kind, output
//! shape, parameters, multiply-adds, receptive field and, when asked, its time; it sees the output itself and may
//! answer with another tensor in its place (to track its gradient, say).
//!
//! A layer is known by the id of its weight or, where it has none, of a flag it holds for the purpose, so that its
//! name is its path in the module tree and is never typed a second time.
//!
//! [`Mode::Shapes`] runs a pass without computing: each layer answers with zeros of its output's shape. Nothing is
//! multiplied and no weight is drawn, so a summary of VGG-19 takes milliseconds.

use std::cell::{Cell, RefCell};
use std::rc::Rc;
use std::time::{Duration, Instant};

use burn::module::ParamId;
use burn::tensor::Tensor;

use crate::arithmetic::Slide;

/// A sliding window, `[vertical, horizontal]`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Window {
    /// Taps.
    pub kernel: [usize; 2],
    /// Steps between windows.
    pub stride: [usize; 2],
    /// Zeros in front of the first row and column.
    pub padding: [usize; 2],
    /// Distance between taps.
    pub dilation: [usize; 2],
}

impl Window {
    /// Cells that the window fills along a direction of `input` cells.
    pub fn output(self, direction: usize, input: usize, ceil: bool) -> usize {
        let (kernel, stride) = (self.kernel[direction], self.stride[direction]);
        let slide = Slide { kernel, stride, dilation: self.dilation[direction] };
        slide.output(input, [self.padding[direction]; 2], ceil)
    }
}

/// What one cell of a layer's output sees of the network's input, per direction `[vertical, horizontal]`.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct ReceptiveField {
    /// Pixels from the first to the last that matter. `None`: all of the input.
    pub size: [Option<usize>; 2],
    /// Input pixels between the centres of neighbouring cells.
    pub stride: [usize; 2],
    /// The input coordinate at the centre of the first cell's field; negative where padding reaches out.
    pub center: [f64; 2],
}

impl ReceptiveField {
    /// A pixel of the input sees itself.
    const PIXEL: Self = Self { size: [Some(1); 2], stride: [1; 2], center: [0.0; 2] };

    fn through(mut self, window: Window) -> Self {
        for i in 0..2 {
            let reach = (window.kernel[i] - 1) * window.dilation[i];
            self.size[i] = self.size[i].map(|size| size + reach * self.stride[i]);
            self.center[i] += (reach as f64 / 2.0 - window.padding[i] as f64) * self.stride[i] as f64;
            self.stride[i] *= window.stride[i];
        }
        self
    }

    fn all(mut self) -> Self {
        self.size = [None; 2];
        self
    }

    /// The field of a sum or concatenation: all that either sees.
    fn union(mut self, other: Self) -> Self {
        for i in 0..2 {
            self.size[i] = self.size[i].zip(other.size[i]).map(|(a, b)| {
                let (half_a, half_b) = ((a - 1) as f64 / 2.0, (b - 1) as f64 / 2.0);
                let first = (self.center[i] - half_a).min(other.center[i] - half_b);
                let last = (self.center[i] + half_a).max(other.center[i] + half_b);
                self.center[i] = (first + last) / 2.0;
                (last - first).round() as usize + 1
            });
            self.stride[i] = self.stride[i].max(other.stride[i]);
        }
        self
    }
}

/// What a layer says of itself.
#[derive(Clone, Copy, Debug)]
pub struct Layer {
    kind: &'static str,
    id: ParamId,
    params: usize,
    macs: usize,
    sees: Sees,
}

#[derive(Clone, Copy, Debug)]
enum Sees {
    Cell,
    Window(Window),
    All,
}

impl Layer {
    /// A layer of a `kind` (PyTorch's name for it), known by `id`, with `params` trainable parameters.
    pub fn new(kind: &'static str, id: ParamId, params: usize) -> Self {
        Self { kind, id, params, macs: 0, sees: Sees::Cell }
    }

    /// Multiply-adds for one image.
    pub fn with_macs(mut self, macs: usize) -> Self {
        self.macs = macs;
        self
    }

    /// The layer slides this window over its input.
    pub fn with_window(mut self, window: Window) -> Self {
        self.sees = Sees::Window(window);
        self
    }

    /// Each output depends on the whole input.
    pub fn seeing_all(mut self) -> Self {
        self.sees = Sees::All;
        self
    }
}

/// What the observer is told of a layer that has run.
#[derive(Clone, Debug)]
pub struct Record {
    /// Identifies the layer in the module tree.
    pub id: ParamId,
    /// PyTorch's name for the kind of layer: `Conv2d`, `BatchNorm2d`, `MaxPool2d`, `Linear` …
    pub kind: &'static str,
    /// The output's shape, batch first.
    pub output: Vec<usize>,
    /// Trainable parameters.
    pub params: usize,
    /// Multiply-adds for one image; only convolutions and linear layers are counted.
    pub macs: usize,
    /// What a cell of the output sees of the network's input.
    pub field: ReceptiveField,
    /// Time of the layer's own computation, the device synchronised; zero unless [`Mode::Timed`].
    pub time: Duration,
}

/// How an observed pass runs.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Mode {
    /// Nothing is computed: outputs are zeros of the right shape, and no weight is drawn.
    Shapes,
    /// As always.
    Values,
    /// As always, and each layer's time is taken, with the device synchronised around it.
    Timed,
    /// As always, but the callback is given each layer's input, before the layer runs, in place of its output.
    Inputs,
    /// As always, but a backward pass through what is computed follows this rule at each ReLU. The device's backend
    /// must be among this crate's features.
    Rectified(Rectification),
}

/// What of a gradient passes a ReLU on its way back. Where the activation is another, and everywhere else, the
/// gradient is the derivative's.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Rectification {
    /// What is positive, wherever the input was: the projections of
    /// [Zeiler and Fergus, 2013](https://arxiv.org/abs/1311.2901), which rectify on the way back as on the way there.
    Deconvnet,
    /// What is positive, where the input was positive, too: guided backpropagation
    /// ([Springenberg et al., 2014](https://arxiv.org/abs/1412.6806)).
    Guided,
}

type Callback = dyn FnMut(&Record, Tensor<4>) -> Tensor<4>;

struct Observer {
    mode: Mode,
    field: ReceptiveField,
    callback: Rc<RefCell<Callback>>,
}

thread_local! {
    static ACTIVE: Cell<bool> = const { Cell::new(false) };
    static OBSERVER: RefCell<Option<Observer>> = const { RefCell::new(None) };
}

/// Runs `pass` with an observer: `callback` is given each layer's [`Record`] and its output (or, as the mode says, its
/// input), and answers with the tensor that the network goes on with. Vectors `[batch, features]` come as `[batch, features, 1, 1]`.
///
/// Passes do not nest: an observed pass inside another replaces the outer observer for its duration.
pub fn watch<T>(
    mode: Mode,
    callback: impl FnMut(&Record, Tensor<4>) -> Tensor<4> + 'static,
    pass: impl FnOnce() -> T,
) -> T {
    /// Puts the outer observer back, also when the pass panics.
    struct Restore(Option<Observer>);
    impl Drop for Restore {
        fn drop(&mut self) {
            ACTIVE.set(self.0.is_some());
            OBSERVER.set(self.0.take());
        }
    }
    let observer = Observer { mode, field: ReceptiveField::PIXEL, callback: Rc::new(RefCell::new(callback)) };
    let _restore = Restore(OBSERVER.replace(Some(observer)));
    ACTIVE.set(true);
    pass()
}

/// Runs `pass` and returns its result with a record of every layer, in the order of their calls.
pub fn records<T>(mode: Mode, pass: impl FnOnce() -> T) -> (T, Vec<Record>) {
    let records = Rc::new(RefCell::new(Vec::new()));
    let sink = Rc::clone(&records);
    let keep = move |record: &Record, output| {
        sink.borrow_mut().push(record.clone());
        output
    };
    let result = watch(mode, keep, pass);
    let records = records.take();
    (result, records)
}

/// The rule that the backward pass follows at each ReLU, where it is not the derivative.
pub(crate) fn rectification() -> Option<Rectification> {
    if !ACTIVE.get() {
        return None;
    }
    OBSERVER.with_borrow(|observer| match observer.as_ref()?.mode {
        Mode::Rectified(rule) => Some(rule),
        _ => None,
    })
}

/// Whether the pass is observed: blocks that have a form in which layers do not show run in the one where they do.
pub fn is_watching() -> bool {
    ACTIVE.get()
}

/// Runs one layer: `compute(input)`, or what an observer makes of it.
///
/// `describe` is called only under an observer, with the input's shape, and answers with the layer and its output's
/// shape.
pub fn layer<const I: usize, const O: usize>(
    input: Tensor<I>,
    describe: impl FnOnce([usize; I]) -> (Layer, [usize; O]),
    compute: impl FnOnce(Tensor<I>) -> Tensor<O>,
) -> Tensor<O> {
    if !ACTIVE.get() {
        return compute(input);
    }
    observed(input, describe, compute)
}

#[cold]
fn observed<const I: usize, const O: usize>(
    input: Tensor<I>,
    describe: impl FnOnce([usize; I]) -> (Layer, [usize; O]),
    compute: impl FnOnce(Tensor<I>) -> Tensor<O>,
) -> Tensor<O> {
    let (layer, shape) = describe(input.dims());
    let (mode, field, callback) = OBSERVER.with_borrow_mut(|observer| {
        let observer = observer.as_mut().expect("the flag is set only while there is an observer");
        observer.field = match layer.sees {
            Sees::Cell => observer.field,
            Sees::Window(window) => observer.field.through(window),
            Sees::All => observer.field.all(),
        };
        (observer.mode, observer.field, Rc::clone(&observer.callback))
    });

    let record = |output: [usize; O], time| Record {
        id: layer.id,
        kind: layer.kind,
        output: output.to_vec(),
        params: layer.params,
        macs: layer.macs,
        field,
        time,
    };
    if mode == Mode::Inputs {
        return compute(show(&callback, &record(shape, Duration::ZERO), input));
    }
    let device = input.device();
    let (output, time) = match mode {
        Mode::Shapes => (Tensor::zeros(shape, &device), Duration::ZERO),
        Mode::Values | Mode::Inputs | Mode::Rectified(_) => (compute(input), Duration::ZERO),
        Mode::Timed => {
            let sync = || device.sync().expect("a device that computes can be waited for");
            sync();
            let start = Instant::now();
            let output = compute(input);
            sync();
            (output, start.elapsed())
        }
    };
    debug_assert!(mode == Mode::Shapes || output.dims() == shape, "{} said {shape:?}", layer.kind);

    show(&callback, &record(output.dims(), time), output)
}

/// What the callback makes of a layer's input or output.
fn show<const D: usize>(callback: &RefCell<Callback>, record: &Record, tensor: Tensor<D>) -> Tensor<D> {
    let dims: [usize; D] = tensor.dims();
    let mut map_dims = [1; 4];
    map_dims[..D].copy_from_slice(&dims);
    let answer = (callback.borrow_mut())(record, tensor.reshape(map_dims));
    answer.reshape(dims)
}

/// Follows receptive fields through parallel branches: each [`branch`](Self::branch) starts from the field in front
/// of the fork, and what comes behind it sees all that any branch sees.
pub struct Fork {
    start: Option<ReceptiveField>,
    joined: Option<ReceptiveField>,
}

impl Fork {
    /// A fork at the current point of the pass.
    #[allow(clippy::new_without_default)] // it depends on the pass it stands in
    pub fn new() -> Self {
        Self { start: current_field(), joined: None }
    }

    /// Runs one branch.
    pub fn branch<T>(&mut self, run: impl FnOnce() -> T) -> T {
        let Some(start) = self.start else { return run() };
        set_field(start);
        let result = run();
        self.joined = match (self.joined, current_field()) {
            (Some(joined), Some(field)) => Some(joined.union(field)),
            (joined, field) => joined.or(field),
        };
        result
    }
}

impl Drop for Fork {
    fn drop(&mut self) {
        if let Some(field) = self.joined {
            set_field(field);
        }
    }
}

fn current_field() -> Option<ReceptiveField> {
    if !ACTIVE.get() {
        return None;
    }
    OBSERVER.with_borrow(|observer| observer.as_ref().map(|observer| observer.field))
}

fn set_field(field: ReceptiveField) {
    OBSERVER.with_borrow_mut(|observer| {
        if let Some(observer) = observer {
            observer.field = field;
        }
    });
}
