use crate::{Graph, GraphError, Node, Operation, Parameter};

/// A graph in the making: operations are added in the order in which they run.
///
/// [`finish`](Self::finish) returns the error of the first operation that does not take its inputs; what follows it is
/// not checked.
#[derive(Debug)]
pub struct Builder {
    nodes: Vec<Node>,
    failure: Option<GraphError>,
}

impl Builder {
    /// An empty graph over images of `[channels, height, width]`.
    pub fn new(input: [usize; 3]) -> Self {
        let images = Node::new(Operation::Input, Vec::new(), input.to_vec());
        Self { nodes: vec![images], failure: None }
    }

    /// The node of the images.
    pub fn input(&self) -> usize {
        0
    }

    /// Number of nodes, the images' counted.
    #[allow(clippy::len_without_is_empty)] // a graph has at least the images
    pub fn len(&self) -> usize {
        self.nodes.len()
    }

    /// Adds an operation on the outputs of earlier nodes, and returns its node.
    pub fn add(&mut self, operation: Operation, inputs: &[usize]) -> usize {
        self.add_layer(operation, inputs, None, Vec::new())
    }

    /// [`add`](Self::add) for a layer with an identity and parameters.
    pub fn add_layer(
        &mut self,
        operation: Operation,
        inputs: &[usize],
        layer: Option<u64>,
        parameters: Vec<Parameter>,
    ) -> usize {
        let number = self.nodes.len();
        let shapes: Vec<&[usize]> = inputs.iter().map(|input| self.nodes[*input].shape.as_slice()).collect();
        let output = match &self.failure {
            Some(_) => Ok(Vec::new()),
            None => {
                operation.output(&shapes).and_then(|output| fits(&operation, &shapes, &parameters).map(|()| output))
            }
        };
        let shape = output.unwrap_or_else(|reason| {
            self.failure = Some(GraphError::Shape { node: number, kind: operation.kind(), reason });
            Vec::new()
        });
        let macs = macs(&operation, shapes.first().copied().unwrap_or_default(), &shape);
        self.nodes.push(Node { macs, layer, parameters, ..Node::new(operation, inputs.to_vec(), shape) });
        number
    }

    /// The shape of a node's output, without the batch; `None` after an operation that does not take its inputs.
    pub fn shape(&self, node: usize) -> Option<&[usize]> {
        let shape = self.nodes[node].shape.as_slice();
        (!shape.is_empty()).then_some(shape)
    }

    /// The graph whose output is this node's.
    ///
    /// # Errors
    /// An operation does not take its inputs.
    pub fn finish(mut self, output: usize) -> Result<Graph, GraphError> {
        match self.failure {
            Some(failure) => Err(failure),
            None => {
                self.nodes.truncate(output + 1);
                Ok(Graph { nodes: self.nodes })
            }
        }
    }
}

/// Multiply-adds of an operation from one shape to another.
fn macs(operation: &Operation, input: &[usize], output: &[usize]) -> usize {
    match (operation, input, output) {
        (Operation::Conv2d { window, groups, .. }, [channels, ..], output) => {
            let filter = channels / groups * window.kernel[0] * window.kernel[1];
            output.iter().product::<usize>() * filter
        }
        (Operation::Linear { .. }, [inputs, ..], output) => output.iter().product::<usize>() * inputs,
        _ => 0,
    }
}

/// Whether the weights have the shapes that the operation and its input require.
fn fits(operation: &Operation, inputs: &[&[usize]], parameters: &[Parameter]) -> Result<(), String> {
    let Some(weight) = parameters.first() else { return Ok(()) };
    let channels = inputs[0][0];
    let expected = match operation {
        Operation::Conv2d { groups, .. } => weight.shape[1] * groups,
        Operation::Linear { .. } => weight.shape[1],
        Operation::BatchNorm2d { .. } | Operation::LayerNorm2d { .. } | Operation::LayerScale => weight.shape[0],
        _ => channels,
    };
    match channels == expected {
        true => Ok(()),
        false => Err(format!("its weights are for {expected} channels or features and the input has {channels}")),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::Window;

    fn conv(outputs: usize, size: usize) -> Operation {
        let window = Window::square(size).padded(size / 2);
        Operation::Conv2d { outputs, window, groups: 1, bias: false }
    }

    /// A convolution with a skip connection around two more, on images of 3×16×16.
    fn residual() -> Graph {
        let mut graph = Builder::new([3, 16, 16]);
        let stem = graph.add(Operation::MaxPool2d { window: Window::square(2).strided(2), ceil_mode: false }, &[0]);
        let stem = graph.add_layer(conv(8, 3), &[stem], Some(1), Vec::new());
        let x = graph.add_layer(conv(8, 3), &[stem], Some(2), Vec::new());
        let x = graph.add_layer(conv(8, 3), &[x], Some(3), Vec::new());
        let sum = graph.add(Operation::Add, &[stem, x]);
        let output = graph.add(Operation::Flatten, &[sum]);
        graph.finish(output).unwrap()
    }

    #[test]
    fn shapes_and_multiply_adds_follow_from_the_operations() {
        let graph = residual();
        assert_eq!(graph.output().shape, [8 * 8 * 8]);
        let macs: Vec<_> = graph.nodes().iter().map(|node| node.macs).collect();
        assert_eq!(macs, [0, 0, 3 * 8 * 9 * 64, 8 * 8 * 9 * 64, 8 * 8 * 9 * 64, 0, 0]);
    }

    #[test]
    fn a_sum_sees_all_that_its_terms_see() {
        let fields = residual().receptive_fields();
        // 2×2 pooling, then 3×3 on every second pixel, once around the block and three times through it.
        assert_eq!((fields[2].size[0], fields[2].center[0]), (Some(2 + 4), 0.5));
        assert_eq!((fields[5].size, fields[5].stride, fields[5].center), ([Some(2 + 3 * 4); 2], [2; 2], [0.5; 2]));
    }

    #[test]
    fn a_block_ends_with_the_sum_after_its_last_layer() {
        let names = [(1, "stem"), (2, "block.conv1"), (3, "block.conv2")];
        let names = names.map(|(id, name)| (id, name.to_owned())).into();
        let graph = residual().named(&names, &Default::default());
        assert_eq!(
            [graph.end_of("stem"), graph.end_of("block"), graph.end_of("block.conv1")],
            [Some(2), Some(5), Some(3)]
        );
        assert_eq!(graph.end_of("bloc"), None, "part of a name is no block");
        assert_eq!(graph.users()[2], [3, 5], "the stem's output is used twice");
    }

    #[test]
    fn channels_are_split_shuffled_gated_and_mixed_at_each_pixel() {
        let mut graph = Builder::new([8, 4, 6]);
        let half = graph.add(Operation::Channels { first: 4, count: 4 }, &[0]);
        let shuffled = graph.add(Operation::ChannelShuffle { groups: 2 }, &[half]);
        let gate = graph.add(Operation::AdaptiveAvgPool2d { output: [1, 1] }, &[half]);
        let gated = graph.add(Operation::Gate, &[shuffled, gate]);
        let mixed = graph.add(Operation::Linear { outputs: 16 }, &[gated]);
        let graph = graph.finish(mixed).unwrap();
        assert_eq!((graph.output().shape.as_slice(), graph.output().macs), (&[16, 4, 6][..], 16 * 4 * 24));
        let fields = graph.receptive_fields();
        assert_eq!((fields[shuffled].size, fields[mixed].size), ([Some(1); 2], [None; 2]), "a gate sees all pixels");
    }

    #[test]
    fn channels_that_are_not_there_are_an_error() {
        let refused = |operation: Operation, inputs: &[usize]| {
            let mut graph = Builder::new([6, 4, 4]);
            let map = graph.add(operation, inputs);
            graph.finish(map).unwrap_err().to_string()
        };
        assert!(refused(Operation::Channels { first: 4, count: 3 }, &[0]).contains("[6, 4, 4]"));
        assert!(refused(Operation::ChannelShuffle { groups: 4 }, &[0]).contains("[6, 4, 4]"));
        let gate = refused(Operation::Gate, &[0, 0]);
        assert!(gate.contains("[6, 4, 4] is no factor for each channel of [6, 4, 4]"), "{gate}");
    }

    #[test]
    fn the_last_layer_is_made_for_other_classes() {
        let mut graph = Builder::new([3, 16, 16]);
        let weight =
            |shape: &[usize]| vec![Parameter { name: "weight".into(), shape: shape.to_vec(), trainable: true, id: 0 }];
        let maps = graph.add_layer(conv(8, 3), &[0], Some(1), weight(&[8, 3, 3, 3]));
        let pooled = graph.add(Operation::AdaptiveAvgPool2d { output: [1, 1] }, &[maps]);
        let vector = graph.add(Operation::Flatten, &[pooled]);
        let logits = graph.add_layer(Operation::Linear { outputs: 10 }, &[vector], Some(2), weight(&[10, 8]));
        let graph = graph.finish(logits).unwrap().with_classes(3).unwrap();
        let head = graph.output();
        assert_eq!(
            (head.shape.as_slice(), head.parameters[0].shape.as_slice(), head.macs),
            (&[3][..], &[3, 8][..], 24)
        );
        assert_eq!(graph.nodes()[maps].parameters[0].shape[0], 8, "earlier layers stay");
    }

    #[test]
    fn the_first_operation_that_does_not_take_its_inputs_is_told() {
        let fails = |build: &dyn Fn(&mut Builder) -> usize| {
            let mut graph = Builder::new([3, 4, 4]);
            let output = build(&mut graph);
            graph.finish(output).unwrap_err().to_string()
        };
        let large = fails(&|graph| {
            let window = Window::square(5);
            let pool = graph.add(Operation::MaxPool2d { window, ceil_mode: false }, &[0]);
            graph.add(Operation::Flatten, &[pool])
        });
        assert_eq!(large, "operation 1 of the network, MaxPool2d: no window fits into a map of 4×4");
        let sum = fails(&|graph| {
            let conv = graph.add(conv(8, 3), &[0]);
            graph.add(Operation::Add, &[0, conv])
        });
        assert!(sum.contains("[3, 4, 4] and [8, 4, 4] cannot be added"), "{sum}");
        let weight = Parameter { name: String::new(), shape: vec![8, 5, 3, 3], trainable: true, id: 0 };
        let channels = fails(&|graph| graph.add_layer(conv(8, 3), &[0], None, vec![weight.clone()]));
        assert!(channels.contains("for 5 channels or features and the input has 3"), "{channels}");
    }
}
