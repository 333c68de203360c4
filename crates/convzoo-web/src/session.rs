use convzoo_data::{Image, decode};
use convzoo_graph::Node;
use convzoo_kernels::Isa;
use convzoo_kernels::conv::ConvShape;
use convzoo_kernels::engine::Graph;
use serde::Deserialize;
use serde_json::{Value, json};

use crate::error::within;
use crate::grad_cam::grad_cam;
use crate::network::Description;
use crate::occlusion::Occlusion;
use crate::products::products;
use crate::weights::Weights;
use crate::{Network, WebError};

/// What the page asks. Some requests come with bytes.
#[derive(Debug, Deserialize)]
#[serde(tag = "ask", rename_all = "camelCase")]
pub enum Request {
    /// Reads the bytes of a file of weights, and says what is in it. They wait for [`Open`](Self::Open).
    Weights,
    /// Makes a network of a description and the weights that were read, and lists its nodes.
    Open {
        /// What `convzoo draw` wrote.
        description: Box<Description>,
    },
    /// Decodes an image file, and returns its size.
    Image,
    /// Takes pixels as bytes, rows first, channels interleaved.
    Pixels {
        /// Columns.
        width: usize,
        /// Rows.
        height: usize,
        /// 1 or 3.
        channels: usize,
    },
    /// Prepares the image for the network, and returns what is left of it, as bytes.
    Prepare,
    /// Returns logits and probabilities, one after the other.
    Predict,
    /// The output of a node.
    Output {
        /// By its number in the graph.
        node: usize,
    },
    /// The weights of one output channel of a node.
    Filter {
        /// By its number in the graph.
        node: usize,
        /// Of the output.
        channel: usize,
    },
    /// The window of one value, then what it is multiplied by.
    Products {
        /// By its number in the graph.
        node: usize,
        /// Channel, row and column.
        at: [usize; 3],
    },
    /// Which regions speak for a class.
    GradCam {
        /// Counted from 0.
        class: usize,
    },
    /// Begins to cover the image, part by part.
    Occlude {
        /// Counted from 0.
        class: usize,
    },
    /// Covers the next part, and returns the map so far.
    OccludeNext,
    /// The prepared image, in grey from 0 to 1, under a 3×3 kernel, with a border of zeros.
    Convolve {
        /// Row by row.
        kernel: [f32; 9],
    },
}

/// What the page gets.
#[derive(Debug, Default)]
pub struct Answer {
    /// JSON.
    pub text: Value,
    /// Numbers, in the order that the text tells.
    pub values: Vec<f32>,
    /// Pixels.
    pub bytes: Vec<u8>,
}

/// What is open in the page: a network and an image.
#[derive(Default)]
pub struct Session {
    weights: Option<Weights>,
    network: Option<Network>,
    image: Option<Image>,
    /// The image at the input's size, and the input.
    prepared: Option<(Image, Vec<f32>)>,
    occlusion: Option<Occlusion>,
}

impl Session {
    /// Answers a request as JSON with bytes.
    ///
    /// # Errors
    /// It is no request, or cannot be answered; the session stays as it was.
    pub fn answer(&mut self, request: &[u8], bytes: &[u8]) -> Result<Answer, WebError> {
        match serde_json::from_slice(request)? {
            Request::Weights => {
                let weights = Weights::read(bytes)?;
                let values: usize = weights.tensors.values().map(|tensor| tensor.values.len()).sum();
                let text = json!({ "about": weights.about, "tensors": weights.tensors.len(), "values": values });
                self.weights = Some(weights);
                Ok(Answer { text, ..Answer::default() })
            }
            Request::Open { description } => {
                let weights = self.weights.take().ok_or(WebError::Missing("file of weights"))?;
                let network = Network::new(*description, weights)?;
                (self.prepared, self.occlusion) = (None, None);
                let text = summary(&network);
                self.network = Some(network);
                Ok(Answer { text, ..Answer::default() })
            }
            Request::Image => self.take(decode(bytes)?),
            Request::Pixels { width, height, channels } => {
                let image = Image::new(width, height, channels, bytes.to_vec());
                self.take(image.ok_or(WebError::Pixels(bytes.len()))?)
            }
            Request::Prepare => {
                let (image, _) = self.prepared()?;
                let text = json!({ "width": image.width, "height": image.height, "channels": image.channels });
                Ok(Answer { text, bytes: image.pixels.clone(), ..Answer::default() })
            }
            Request::Predict => {
                let (network, _, input) = self.ready()?;
                let predicted = network.predict(input)?;
                let text = json!({ "classes": predicted.logits.len() });
                Ok(Answer { text, values: [predicted.logits, predicted.probabilities].concat(), ..Answer::default() })
            }
            Request::Output { node } => {
                let (network, _, input) = self.ready()?;
                let values = network.output(node, input)?;
                let text = json!({ "shape": network.graph.nodes()[node].shape });
                Ok(Answer { text, values, ..Answer::default() })
            }
            Request::Filter { node, channel } => {
                let network = self.network.as_ref().ok_or(WebError::Missing("network"))?;
                let weight = network.parameter(node, 0).ok_or(WebError::Unsuited("this layer has no weights"))?;
                let shape = &network.graph.nodes()[node].parameters[0].shape;
                let filter = weight.chunks_exact(weight.len() / shape[0]).nth(within("channel", channel, shape[0])?);
                let values = filter.map(<[f32]>::to_vec).unwrap_or_default();
                Ok(Answer { text: json!({ "shape": shape[1..] }), values, ..Answer::default() })
            }
            Request::Products { node, at } => {
                let (network, _, input) = self.ready()?;
                let before = network.graph.nodes().get(node).and_then(|node| node.inputs.first().copied());
                let maps = network.output(before.unwrap_or(0), input)?;
                let products = products(network, node, at, &maps)?;
                let text = json!({ "products": products });
                Ok(Answer { text, values: [products.values, products.weights].concat(), ..Answer::default() })
            }
            Request::GradCam { class } => {
                let (network, _, input) = self.ready()?;
                let map = grad_cam(network, input, class)?;
                let text = json!({ "node": map.node, "size": map.size });
                Ok(Answer { text, values: map.values, ..Answer::default() })
            }
            Request::Occlude { class } => {
                let (network, _, input) = self.ready()?;
                self.occlusion = Some(Occlusion::new(network, input, class)?);
                self.occlusion()
            }
            Request::OccludeNext => {
                let mut occlusion = self.occlusion.take().ok_or(WebError::Missing("occlusion"))?;
                let (network, _, input) = self.ready()?;
                occlusion.step(network, input)?;
                self.occlusion = Some(occlusion);
                self.occlusion()
            }
            Request::Convolve { kernel } => {
                let (image, _) = self.prepared()?;
                let grey = image.to_grey();
                let values: Vec<f32> = grey.pixels.iter().map(|byte| f32::from(*byte) / 255.0).collect();
                let mut graph = Graph::new(1);
                let shape = ConvShape { padding: [1; 2], ..ConvShape::square(1, 1, 3) };
                let filtered = graph.conv(graph.input(), shape, kernel.to_vec(), None)?;
                let filtered = graph.finish(filtered)?.run([1, 1, grey.height, grey.width], &values)?.values;
                let text = json!({ "size": [grey.height, grey.width] });
                Ok(Answer { text, values: filtered, ..Answer::default() })
            }
        }
    }

    fn take(&mut self, image: Image) -> Result<Answer, WebError> {
        let text = json!({ "width": image.width, "height": image.height });
        (self.image, self.prepared, self.occlusion) = (Some(image), None, None);
        Ok(Answer { text, ..Answer::default() })
    }

    /// The image at the input's size, and the input.
    fn prepared(&mut self) -> Result<&(Image, Vec<f32>), WebError> {
        self.ready()?;
        self.prepared.as_ref().ok_or(WebError::Missing("image"))
    }

    /// The network, the image at its input's size, and the input.
    fn ready(&mut self) -> Result<(&mut Network, &Image, &[f32]), WebError> {
        let network = self.network.as_mut().ok_or(WebError::Missing("network"))?;
        let image = self.image.as_ref().ok_or(WebError::Missing("image"))?;
        let (image, input) = self.prepared.get_or_insert_with(|| network.prepare(image));
        Ok((network, image, input))
    }

    fn occlusion(&self) -> Result<Answer, WebError> {
        let occlusion = self.occlusion.as_ref().ok_or(WebError::Missing("occlusion"))?;
        let [done, all] = occlusion.progress();
        Ok(Answer { text: json!({ "done": done, "all": all }), values: occlusion.map(), ..Answer::default() })
    }
}

/// What the page lists of a network.
fn summary(network: &Network) -> Value {
    let graph = &network.graph;
    let fields = graph.receptive_fields();
    let node = |(node, field): (&Node, &convzoo_graph::ReceptiveField)| {
        json!({
            "kind": node.operation.kind(),
            "operation": node.operation,
            "name": node.name,
            "inputs": node.inputs,
            "shape": node.shape,
            "macs": node.macs,
            "params": node.params(),
            "parameters": node.parameters,
            "field": field,
        })
    };
    let nodes: Vec<Value> = graph.nodes().iter().zip(&fields).map(node).collect();
    let isa = Isa::detect().map(|isa| isa.to_string()).unwrap_or_default();
    json!({ "nodes": nodes, "input": graph.input(), "isa": isa })
}
