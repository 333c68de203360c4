//! What is alike in a network's graph and in the operations of a file: the layers with weights, and how they follow each
//! other.

use std::collections::HashMap;

use convzoo_graph::{Graph, Operation};

use crate::read::{Contents, FileNode};

/// A kind of layer; the same in a graph and in a file.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub(crate) enum Kind {
    /// A convolution or a linear layer, which is a convolution of one pixel.
    Weighted,
    /// A batch norm.
    BatchNorm,
    /// A layer norm.
    LayerNorm,
    /// A factor for each channel.
    Scale,
}

/// Where a layer is: with its weight's dimensions, it tells the layers of a network apart. Counted in convolutions and
/// linear layers on the shortest and on the longest way from the images, and on those to the output.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub(crate) struct Depth {
    from_images: [u32; 2],
    to_output: [u32; 2],
}

/// A layer of a graph.
pub(crate) struct GraphLayer {
    pub kind: Kind,
    pub node: usize,
    pub depth: Depth,
}

/// A layer of a file.
pub(crate) struct FileLayer {
    pub kind: Kind,
    /// The weight first.
    pub parameters: Vec<Operand>,
    pub depth: Depth,
}

/// A tensor that an operation of a file takes, as it takes it.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Operand {
    /// The number of the name that the operation takes it by.
    pub name: u32,
    /// That of the tensor in the file.
    pub tensor: u32,
    /// Whether it is a matrix that is transposed on the way.
    pub transposed: bool,
}

/// The kind of layer that an operation is, where it is one.
fn kind(operation: &Operation) -> Option<Kind> {
    match operation {
        Operation::Conv2d { .. } | Operation::Linear { .. } => Some(Kind::Weighted),
        Operation::BatchNorm2d { .. } => Some(Kind::BatchNorm),
        Operation::LayerNorm2d { .. } => Some(Kind::LayerNorm),
        Operation::LayerScale => Some(Kind::Scale),
        _ => None,
    }
}

/// The layers of a graph, in the order in which they run.
pub(crate) fn of_graph(graph: &Graph) -> Vec<GraphLayer> {
    let weighted = |node: usize| u32::from(kind(&graph.nodes()[node].operation) == Some(Kind::Weighted));
    let mut before: Vec<Option<[u32; 2]>> = Vec::with_capacity(graph.nodes().len());
    for (number, node) in graph.nodes().iter().enumerate() {
        let joined = node.inputs.iter().filter_map(|input| before[*input]).reduce(widest);
        before.push(Some(joined.unwrap_or([0; 2]).map(|count| count + weighted(number))));
    }
    let mut after: Vec<Option<[u32; 2]>> = vec![None; graph.nodes().len()];
    if let Some(last) = after.last_mut() {
        *last = Some([0; 2]);
    }
    for (number, node) in graph.nodes().iter().enumerate().rev() {
        let Some(own) = after[number] else { continue };
        let own = own.map(|count| count + weighted(number));
        for input in &node.inputs {
            after[*input] = Some(after[*input].map_or(own, |other| widest(other, own)));
        }
    }
    let layers = graph.nodes().iter().enumerate().filter_map(|(number, node)| {
        let depth = Depth { from_images: before[number]?, to_output: after[number]? };
        Some(GraphLayer { kind: kind(&node.operation)?, node: number, depth })
    });
    layers.collect()
}

/// The layers of a file on the way from its images to its first output, in the order in which they run.
pub(crate) fn of_file(file: &Contents) -> Vec<FileLayer> {
    let operands = operands(file);
    let found: Vec<Option<(Kind, Vec<Operand>)>> = file.nodes.iter().map(|node| layer(file, node, &operands)).collect();
    let weighted = |node: usize| u32::from(matches!(found[node], Some((Kind::Weighted, _))));

    let mut before: Vec<Option<[u32; 2]>> = vec![None; file.names.len()];
    for (name, _) in file.inputs.iter().filter(|(name, _)| file.tensor_of(*name).is_none()) {
        before[*name as usize] = Some([0; 2]);
    }
    let mut at: Vec<Option<[u32; 2]>> = Vec::with_capacity(file.nodes.len());
    for (number, node) in file.nodes.iter().enumerate() {
        let joined = node.inputs.iter().filter_map(|input| before[*input as usize]).reduce(widest);
        let own = joined.map(|joined| joined.map(|count| count + weighted(number)));
        at.push(own);
        if own.is_some() {
            node.outputs.iter().for_each(|output| before[*output as usize] = own);
        }
    }
    let mut after: Vec<Option<[u32; 2]>> = vec![None; file.names.len()];
    if let Some((output, _)) = file.outputs.first() {
        after[*output as usize] = Some([0; 2]);
    }
    let mut beyond: Vec<Option<[u32; 2]>> = vec![None; file.nodes.len()];
    for (number, node) in file.nodes.iter().enumerate().rev() {
        let Some(own) = node.outputs.iter().filter_map(|output| after[*output as usize]).reduce(widest) else {
            continue;
        };
        beyond[number] = Some(own);
        let own = own.map(|count| count + weighted(number));
        for input in &node.inputs {
            let input = &mut after[*input as usize];
            *input = Some(input.map_or(own, |other| widest(other, own)));
        }
    }
    let users = only_users(file);
    let layers = found.into_iter().enumerate().filter_map(|(number, found)| {
        let depth = Depth { from_images: at[number]?, to_output: beyond[number]? };
        let (kind, mut parameters) = found?;
        // A linear layer without a bias of its own, and a sum with a vector after it.
        let node = &file.nodes[number];
        if kind == Kind::Weighted && parameters.len() == 1 && node.operation == "MatMul" {
            parameters.extend(added(file, node, &users, &operands));
        }
        Some(FileLayer { kind, parameters, depth })
    });
    layers.collect()
}

fn widest(a: [u32; 2], b: [u32; 2]) -> [u32; 2] {
    [a[0].min(b[0]), a[1].max(b[1])]
}

/// Tensors of a file by the names that operations take them by: exporters give one tensor several names, and transpose
/// matrices.
fn operands(file: &Contents) -> HashMap<u32, Operand> {
    let mut operands: HashMap<u32, Operand> = HashMap::new();
    let find = |operands: &HashMap<u32, Operand>, name: u32| match file.tensor_of(name) {
        Some(_) => Some(Operand { name, tensor: name, transposed: false }),
        None => operands.get(&name).copied(),
    };
    for node in &file.nodes {
        let ([input], [output]) = (node.inputs.as_slice(), node.outputs.as_slice()) else { continue };
        let Some(operand) = find(&operands, *input) else { continue };
        let renamed = match node.operation.as_str() {
            "Identity" => Operand { name: *output, ..operand },
            "Transpose" if integers(node, "perm").is_none_or(|perm| perm == [1, 0]) => {
                Operand { transposed: !operand.transposed, ..operand }
            }
            _ => continue,
        };
        operands.insert(*output, renamed);
    }
    for node in &file.nodes {
        for input in &node.inputs {
            if let Some(operand) = find(&operands, *input) {
                operands.insert(*input, operand);
            }
        }
    }
    operands
}

/// The layer that an operation of a file is, and its tensors, where it is one.
fn layer(file: &Contents, node: &FileNode, operands: &HashMap<u32, Operand>) -> Option<(Kind, Vec<Operand>)> {
    let operand = |input: usize| operands.get(node.inputs.get(input)?).copied();
    let all = |from: usize| (from..node.inputs.len()).map_while(operand).collect::<Vec<_>>();
    match node.operation.as_str() {
        "Conv" => Some((Kind::Weighted, all(1))),
        // PyTorch's exporters multiply by 1.
        "Gemm" if integers(node, "transA").is_none_or(|values| values == [0]) => {
            let mut parameters = all(1);
            let weight = parameters.first_mut()?;
            weight.transposed ^= integers(node, "transB").is_none_or(|values| values == [0]);
            Some((Kind::Weighted, parameters))
        }
        "MatMul" => {
            let mut weight = operand(1)?;
            weight.transposed = !weight.transposed;
            Some((Kind::Weighted, vec![weight]))
        }
        "BatchNormalization" => Some((Kind::BatchNorm, all(1))),
        "LayerNormalization" => Some((Kind::LayerNorm, all(1))),
        "Mul" => {
            let factor = [0, 1].into_iter().find_map(operand)?;
            // A number alone is no factor for each channel.
            let dims = &file.tensor_of(factor.tensor)?.dims;
            (dims.iter().any(|size| *size > 1)).then(|| (Kind::Scale, vec![factor]))
        }
        _ => None,
    }
    .filter(|(_, parameters)| !parameters.is_empty())
}

/// The operation that uses each value, where there is one alone.
fn only_users(file: &Contents) -> HashMap<u32, Option<usize>> {
    let mut users = HashMap::new();
    for (number, node) in file.nodes.iter().enumerate() {
        for input in &node.inputs {
            users.entry(*input).and_modify(|user| *user = None).or_insert(Some(number));
        }
    }
    users
}

/// The vector that is added to the output of an operation, if that is all that becomes of it.
fn added(
    file: &Contents,
    node: &FileNode,
    users: &HashMap<u32, Option<usize>>,
    operands: &HashMap<u32, Operand>,
) -> Option<Operand> {
    let user = *users.get(node.outputs.first()?)?;
    let sum = Some(&file.nodes[user?]).filter(|node| node.operation == "Add")?;
    let bias = sum.inputs.iter().find_map(|input| operands.get(input)).copied()?;
    (file.tensor_of(bias.tensor)?.dims.len() == 1).then_some(bias)
}

/// An attribute of an operation.
fn integers<'a>(node: &'a FileNode, name: &str) -> Option<&'a [i64]> {
    node.integers.iter().find(|(own, _)| *own == name).map(|(_, values)| values.as_slice())
}
