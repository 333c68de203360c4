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

    /// Identifies the layer whose work the node does.
    pub fn label(&mut self, node: usize, layer: u64) {
        self.nodes[node].layer = Some(layer);
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
        (Operation::Linear { .. }, [inputs], [outputs]) => inputs * outputs,
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
        Operation::BatchNorm2d { .. } => weight.shape[0],
        _ => channels,
    };
    match channels == expected {
        true => Ok(()),
        false => Err(format!("its weights are for {expected} channels or features and the input has {channels}")),
    }
}
