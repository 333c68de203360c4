//! Networks as pictures.
//!
//! ```
//! use convzoo::{Options, create, draw, device};
//!
//! let network = create("lenet5", &Options::default(), &device::open("flex")?)?;
//! let drawing = draw::drawing(&network, network.input())?;
//! assert!(drawing.svg().contains("Conv 5×5"));
//! # Ok::<(), Box<dyn std::error::Error>>(())
//! ```

use burn::module::{Module, ModuleVisitor, Param};
use burn::tensor::{Tensor, TensorReadError};
pub use convzoo_draw::{DrawError, Drawing, Histogram};

use convzoo_draw::Picture;
use convzoo_graph::Graph;
use serde::Serialize;

use crate::{Classifier as _, ModelError, Network, Preprocessing, variant};

/// What another program needs to compute and show a network, but for its weights: convzoo's page in the browser reads it.
#[derive(Debug, Serialize)]
pub struct Description {
    /// The network's name.
    pub model: &'static str,
    /// Year of its paper.
    pub year: u16,
    /// Where that is.
    pub paper: &'static str,
    /// How images become its input.
    pub preprocessing: Preprocessing,
    /// Its operations.
    pub graph: Graph,
    /// Pictures of it and of its blocks.
    pub pictures: Vec<Picture>,
    /// The style sheet of the pictures.
    pub style: &'static str,
}

/// Describes a network for images of `[channels, height, width]`.
///
/// # Errors
/// The network does not take such images.
pub fn describe(network: &Network, input: [usize; 3]) -> Result<Description, ModelError> {
    let drawing = drawing(network, input)?;
    let variant = variant(network.name())?;
    Ok(Description {
        model: variant.name,
        year: variant.year,
        paper: variant.paper,
        preprocessing: network.preprocessing(),
        graph: network.graph(input)?,
        pictures: drawing.pictures(),
        style: convzoo_draw::STYLE,
    })
}

/// The drawing of a network for images of `[channels, height, width]`. No weight is drawn at random for it.
///
/// # Errors
/// The network does not take such images.
pub fn drawing(network: &Network, input: [usize; 3]) -> Result<Drawing, ModelError> {
    network.check_input(input)?;
    Ok(Drawing::new(network.name(), network.graph(input)?))
}

/// Histograms of a network's weights and statistics, by their names in the reference's state dict.
///
/// # Errors
/// The device does not give the weights.
pub fn histograms(network: &Network) -> Result<Vec<(String, Histogram)>, TensorReadError> {
    let mut read = Read { values: Vec::new() };
    network.visit(&mut read);
    let names = network.state().into_iter().map(|entry| entry.name);
    let mut histograms = Vec::new();
    for (name, values) in names.zip(read.values) {
        histograms.extend(Histogram::of(&values?).map(|histogram| (name, histogram)));
    }
    Ok(histograms)
}

/// Reads all tensors, in the order of [`Network::state`].
struct Read {
    values: Vec<Result<Vec<f32>, TensorReadError>>,
}

impl ModuleVisitor for Read {
    fn visit_float<const D: usize>(&mut self, param: &Param<Tensor<D>>) {
        self.values.push(param.val().try_into_vec_as());
    }
}
