//! Visualization of networks: filters, feature maps, and which pixels of an image a prediction depends on.
//!
//! Every method reads the network's graph, or its forward pass under an [`Observer`](convzoo_blocks::Observer), so that it works for
//! every network of the zoo and for those of your own. Functions take any [`Classifier`](crate::Classifier) and images
//! as tensors, and return numbers ([`Map`], [`Colours`]) that draw themselves as pictures; [`View`] prepares an
//! image as a network of the zoo takes it.
//!
//! | method | shows | from |
//! |---|---|---|
//! | [`features()`], [`overview`] | the feature maps of a layer, or the strongest of each layer | |
//! | [`filters()`] | the kernels of a convolution | |
//! | [`deconvnet()`] | what in the image excited this channel | [Zeiler and Fergus, 2013](https://arxiv.org/abs/1311.2901) |
//! | [`saliency`] | which pixels change the class's score most | [Simonyan et al., 2013](https://arxiv.org/abs/1312.6034) |
//! | [`grad_cam()`] | which regions contribute to the class's score | [Selvaraju et al., 2016](https://arxiv.org/abs/1610.02391) |
//! | [`guided_grad_cam`] | the same, at the resolution of the pixels | ibid. |
//! | [`occlusion()`] | how much of the class's probability is lost when a part is covered | [Zeiler and Fergus, 2013](https://arxiv.org/abs/1311.2901) |
//!
//! ```
//! use convzoo::data::{Source, open};
//! use convzoo::{device, pretrained, visualize};
//!
//! let network = pretrained::lenet5_digits(&device::open("flex")?)?;
//! let digit = open("digits", &Source::default())?.test.get(0)?;
//! let view = visualize::View::new(&network, &digit.image)?;
//! let map = visualize::grad_cam(&network, view.input(), digit.label, None)?;
//! let picture = map.over(&view.picture());
//! assert_eq!(picture.dimensions(), (32, 32));
//! # Ok::<(), Box<dyn std::error::Error>>(())
//! ```

mod colours;
mod deconvnet;
mod error;
mod features;
mod filters;
mod grad_cam;
mod gradient;
mod layers;
mod map;
mod occlusion;
mod view;

pub use colours::Colours;
pub use deconvnet::{Cell, Found, PATCHES, Strongest, deconvnet, peaks};
pub use error::VisualizeError;
pub use features::{Features, Glimpse, features, overview, short};
pub use filters::{Filters, filters};
pub use grad_cam::{grad_cam, guided_grad_cam};
pub use gradient::{gradient, saliency};
pub use layers::{Patch, SeenLayer, find_layer, layers};
pub use map::{Map, heat_bar, scale_bar};
pub use occlusion::{Occluder, occlusion};
pub use view::View;
