//! The graph's operations in ONNX's.

use std::ops::Deref;

use convzoo_graph::{Activation, Operation, Parameter, Window};

use crate::ExportError;
use crate::export::{Exporter, float, int, ints};
use crate::wire::Message;

impl<V: Deref<Target = [f32]>, F: FnMut(&Parameter) -> Option<V>> Exporter<'_, V, F> {
    /// Adds what a node of the graph computes, and returns the name of its output.
    pub fn operation(&mut self, number: usize) -> Result<String, ExportError> {
        let graph = self.graph;
        let node = &graph.nodes()[number];
        let inputs: Vec<String> = node.inputs.iter().map(|input| self.input(number, *input)).collect();
        let inputs: Vec<&str> = inputs.iter().map(String::as_str).collect();
        let input = inputs.first().copied().unwrap_or_default();
        let shape = node.inputs.first().map_or(&[][..], |input| graph.nodes()[*input].shape.as_slice());
        match &node.operation {
            Operation::Input => return Ok("input".to_owned()),
            // The identity in inference, and where an average is of one pixel.
            Operation::Dropout { .. }
            | Operation::StochasticDepth { .. }
            | Operation::Activation(Activation::Identity) => return Ok(input.to_owned()),
            Operation::AdaptiveAvgPool2d { output } if shape[1..] == *output => return Ok(input.to_owned()),
            // Folded into the convolution.
            Operation::BatchNorm2d { .. } if self.folded.contains_key(&number) => return Ok(input.to_owned()),
            Operation::BatchNorm2d { .. } | Operation::Scale(_) | Operation::LayerScale if self.is_in_bytes(number) => {
                return Ok(input.to_owned());
            }
            _ => {}
        }
        let output = self.name(number);
        match &node.operation {
            Operation::Conv2d { window, groups, .. } => self.conv(number, input, &output, *window, *groups)?,
            Operation::Linear { .. } => self.linear(number, input, &output)?,
            Operation::BatchNorm2d { epsilon } => {
                let parameters = self.parameters(number)?;
                let [weight, bias, mean, var] = parameters.as_slice() else { return Err(self.lacking(number)) };
                let epsilon = vec![float("epsilon", *epsilon)];
                self.node("BatchNormalization", &[input, weight, bias, mean, var], &output, epsilon);
            }
            Operation::LayerNorm2d { epsilon } => {
                let parameters = self.parameters(number)?;
                let [weight, bias] = parameters.as_slice() else { return Err(self.lacking(number)) };
                // ONNX normalizes the last dimensions.
                let [last, normal] = ["channels_last", "normalized"].map(|part| format!("{output}/{part}"));
                self.node("Transpose", &[input], &last, vec![ints("perm", [0, 2, 3, 1])]);
                let attributes = vec![int("axis", -1), float("epsilon", *epsilon)];
                self.node("LayerNormalization", &[&last, weight, bias], &normal, attributes);
                self.node("Transpose", &[&normal], &output, vec![ints("perm", [0, 3, 1, 2])]);
            }
            Operation::LayerScale => {
                let parameters = self.parameters(number)?;
                let [scale] = parameters.as_slice() else { return Err(self.lacking(number)) };
                self.node("Mul", &[input, scale], &output, Vec::new());
            }
            Operation::Scale(factor) => {
                let factor = self.scalar(&format!("{output}/factor"), *factor as f32);
                self.node("Mul", &[input, &factor], &output, Vec::new());
            }
            Operation::LocalResponseNorm { size, alpha, beta, k } => {
                let numbers = [("alpha", *alpha), ("beta", *beta), ("bias", *k)].map(|(name, n)| float(name, n));
                let attributes = numbers.into_iter().chain([int("size", *size as i64)]).collect();
                self.node("LRN", &[input], &output, attributes);
            }
            Operation::Activation(function) => self.activation(*function, input, &output),
            Operation::MaxPool2d { window, .. } => {
                let pads = pads(*window, &shape[1..], &node.shape[1..]);
                self.node("MaxPool", &[input], &output, slides(*window, pads));
            }
            Operation::AvgPool2d { window, count_include_pad, .. } => {
                self.average(input, &output, *window, *count_include_pad, [&shape[1..], &node.shape[1..]]);
            }
            Operation::AdaptiveAvgPool2d { output: size } => self.adaptive(input, &output, &shape[1..], *size),
            Operation::GlobalMaxPool2d => self.node("GlobalMaxPool", &[input], &output, Vec::new()),
            Operation::Add if inputs.len() == 2 => self.node("Add", &inputs, &output, Vec::new()),
            Operation::Add => self.node("Sum", &inputs, &output, Vec::new()),
            Operation::Gate => self.node("Mul", &inputs, &output, Vec::new()),
            Operation::Concat => self.node("Concat", &inputs, &output, vec![int("axis", 1)]),
            Operation::Channels { first, count } => {
                self.slice(input, &output, &[1], [&[*first], &[first + count], &[1]]);
            }
            Operation::ChannelShuffle { groups } => self.shuffle(input, &output, shape, *groups),
            Operation::PadShortcut { stride, zeros } => self.pad_shortcut(input, &output, shape, *stride, *zeros),
            Operation::Flatten => self.node("Flatten", &[input], &output, vec![int("axis", 1)]),
            Operation::Opaque { name, .. } => {
                return Err(ExportError::Opaque { node: number, name: name.clone() });
            }
            Operation::Input | Operation::Dropout { .. } | Operation::StochasticDepth { .. } => {}
        }
        Ok(output)
    }

    fn conv(
        &mut self,
        number: usize,
        input: &str,
        output: &str,
        window: Window,
        groups: usize,
    ) -> Result<(), ExportError> {
        let graph = self.graph;
        let norm = self.folded.iter().find(|(_, conv)| **conv == number).map(|(norm, _)| *norm);
        let bias = graph.nodes()[number].parameters.get(1);
        let dims = |weight: &Parameter| weight.shape.clone();
        let (weight, bias) = match (self.byte_operands(number, output, dims), norm) {
            (Some([weight, bias]), _) => (weight, Some(bias)),
            (None, Some(norm)) => {
                let bias = bias.map(|bias| self.value(number, bias)).transpose()?;
                let (factors, shift) = self.fold(norm, bias.as_deref())?;
                let weight = self.weight(number, dims, Some(factors))?;
                let name = format!("{}.bias", weight.strip_suffix(".weight").unwrap_or(&weight));
                let bias = self.floats(name, vec![shift.len()], shift);
                (weight, Some(bias))
            }
            (None, None) => {
                let mut parameters = self.parameters(number)?.into_iter();
                let weight = parameters.next().ok_or_else(|| self.lacking(number))?;
                (weight, parameters.next())
            }
        };
        let inputs: Vec<&str> = [input, &weight].into_iter().chain(bias.as_deref()).collect();
        let [top, left] = window.padding;
        let mut attributes = slides(window, [top, left, top, left]);
        attributes.push(int("group", groups as i64));
        self.node("Conv", &inputs, output, attributes);
        Ok(())
    }

    /// A batch norm as what it multiplies and adds, after a convolution of this bias.
    fn fold(&mut self, norm: usize, bias: Option<&[f32]>) -> Result<(Vec<f32>, Vec<f32>), ExportError> {
        let graph = self.graph;
        let node = &graph.nodes()[norm];
        let Operation::BatchNorm2d { epsilon } = node.operation else { return Err(self.lacking(norm)) };
        let values = node.parameters.iter().map(|parameter| self.value(norm, parameter));
        let values = values.collect::<Result<Vec<_>, _>>()?;
        let [weight, shift, mean, var] = values.as_slice() else { return Err(self.lacking(norm)) };
        // In 64 bits, so that a mean of many deviations loses no digits.
        let channel = |c: usize| {
            let factor = f64::from(weight[c]) / (f64::from(var[c]) + epsilon).sqrt();
            let mean = f64::from(mean[c]) - bias.map_or(0.0, |bias| f64::from(bias[c]));
            (factor as f32, (f64::from(shift[c]) - mean * factor) as f32)
        };
        Ok((0..weight.len()).map(channel).unzip())
    }

    fn linear(&mut self, number: usize, input: &str, output: &str) -> Result<(), ExportError> {
        let graph = self.graph;
        let node = &graph.nodes()[number];
        // At each pixel of a feature map it is a convolution.
        let is_conv = node.shape.len() > 1;
        let dims = |weight: &Parameter| [&weight.shape[..], if is_conv { &[1, 1] } else { &[] }].concat();
        let operands = match self.byte_operands(number, output, dims) {
            Some(operands) => operands.to_vec(),
            None => {
                let weight = self.weight(number, dims, None)?;
                std::iter::once(weight).chain(self.parameters(number)?.into_iter().skip(1)).collect()
            }
        };
        let inputs: Vec<&str> = std::iter::once(input).chain(operands.iter().map(String::as_str)).collect();
        match is_conv {
            true => self.node("Conv", &inputs, output, slides(Window::square(1), [0; 4])),
            false => self.node("Gemm", &inputs, output, vec![int("transB", 1)]),
        }
        Ok(())
    }

    fn activation(&mut self, function: Activation, input: &str, output: &str) {
        let operation = match function {
            Activation::Relu => "Relu",
            Activation::Tanh => "Tanh",
            Activation::Sigmoid => "Sigmoid",
            Activation::Hardswish => "HardSwish",
            Activation::Hardsigmoid => {
                let attributes = vec![float("alpha", 1.0 / 6.0), float("beta", 0.5)];
                return self.node("HardSigmoid", &[input], output, attributes);
            }
            Activation::Relu6 => {
                let [zero, six] =
                    [("constant/0", 0.0), ("constant/6", 6.0)].map(|(name, value)| self.scalar(name, value));
                return self.node("Clip", &[input, &zero, &six], output, Vec::new());
            }
            Activation::Silu => {
                let gate = format!("{output}/sigmoid");
                self.node("Sigmoid", &[input], &gate, Vec::new());
                return self.node("Mul", &[input, &gate], output, Vec::new());
            }
            // As PyTorch exports it, which runtimes know and compute in one go: x / √2 → erf → + 1 → · x → / 2.
            Activation::Gelu => {
                let [scaled, erf, sum, product] =
                    ["scaled", "erf", "sum", "product"].map(|part| format!("{output}/{part}"));
                let root = self.scalar("constant/root_2", std::f32::consts::SQRT_2);
                let [one, half] =
                    [("constant/1", 1.0), ("constant/half", 0.5)].map(|(name, value)| self.scalar(name, value));
                self.node("Div", &[input, &root], &scaled, Vec::new());
                self.node("Erf", &[&scaled], &erf, Vec::new());
                self.node("Add", &[&erf, &one], &sum, Vec::new());
                self.node("Mul", &[input, &sum], &product, Vec::new());
                return self.node("Mul", &[&product, &half], output, Vec::new());
            }
            Activation::Identity => "Identity",
        };
        self.node(operation, &[input], output, Vec::new());
    }

    /// Average pooling from a map of one size to another.
    fn average(
        &mut self,
        input: &str,
        output: &str,
        window: Window,
        count_include_pad: bool,
        [from, to]: [&[usize]; 2],
    ) {
        let padded = count_include_pad && window.padding != [0; 2];
        if !padded {
            // What lies beyond the map is no part of a mean.
            self.node("AveragePool", &[input], output, slides(window, pads(window, from, to)));
            return;
        }
        // Zeros that count in the mean are put around the map; those that a last window needs do not count.
        let zeros = format!("{output}/padded");
        let [top, left] = window.padding.map(|cells| cells as i64);
        let sizes = self.integers(format!("{output}/padding"), vec![0, 0, top, left, 0, 0, top, left]);
        self.node("Pad", &[input, &sizes], &zeros, Vec::new());
        let larger = [from[0] + 2 * window.padding[0], from[1] + 2 * window.padding[1]];
        let window = window.padded(0);
        self.node("AveragePool", &[&zeros], output, slides(window, pads(window, &larger, to)));
    }

    /// Adaptive average pooling.
    fn adaptive(&mut self, input: &str, output: &str, from: &[usize], to: [usize; 2]) {
        if to == [1, 1] {
            return self.node("GlobalAveragePool", &[input], output, Vec::new());
        }
        // Windows from ⌊i · from / to⌋ to ⌈(i + 1) · from / to⌉.
        let bounds = |side: usize, i: usize| (i * from[side] / to[side], ((i + 1) * from[side]).div_ceil(to[side]));
        if from[0].is_multiple_of(to[0]) && from[1].is_multiple_of(to[1]) {
            let kernel = [from[0] / to[0], from[1] / to[1]];
            let window = Window { kernel, stride: kernel, padding: [0; 2], dilation: [1; 2] };
            return self.node("AveragePool", &[input], output, slides(window, [0; 4]));
        }
        // Windows of several sizes are a product with a matrix of means on each side.
        let mean = |side: usize, i: usize, pixel: usize| {
            let (start, end) = bounds(side, i);
            if (start..end).contains(&pixel) { 1.0 / (end - start) as f32 } else { 0.0 }
        };
        let rows = (0..to[0]).flat_map(|i| (0..from[0]).map(move |pixel| mean(0, i, pixel))).collect();
        let columns = (0..from[1]).flat_map(|pixel| (0..to[1]).map(move |i| mean(1, i, pixel))).collect();
        let rows = self.floats(format!("{output}/rows"), vec![to[0], from[0]], rows);
        let columns = self.floats(format!("{output}/columns"), vec![from[1], to[1]], columns);
        let narrow = format!("{output}/narrow");
        self.node("MatMul", &[input, &columns], &narrow, Vec::new());
        self.node("MatMul", &[&rows, &narrow], output, Vec::new());
    }

    /// Part of a tensor along some axes: starts, ends and steps.
    fn slice(&mut self, input: &str, output: &str, axes: &[usize], parts: [&[usize]; 3]) {
        let integers = |values: &[usize]| values.iter().map(|value| *value as i64).collect::<Vec<_>>();
        let [starts, ends, steps] = [("starts", parts[0]), ("ends", parts[1]), ("steps", parts[2])]
            .map(|(name, values)| self.integers(format!("{output}/{name}"), integers(values)));
        let axes = self.integers(format!("{output}/axes"), integers(axes));
        self.node("Slice", &[input, &starts, &ends, &axes, &steps], output, Vec::new());
    }

    fn shuffle(&mut self, input: &str, output: &str, shape: &[usize], groups: usize) {
        let [channels, height, width] = [0, 1, 2].map(|i| shape[i] as i64);
        let groups = groups as i64;
        let [apart, turned] = ["groups", "turned"].map(|part| format!("{output}/{part}"));
        // 0 leaves the batch as it is.
        let in_groups = vec![0, groups, channels / groups, height, width];
        let in_groups = self.integers(format!("{output}/in_groups"), in_groups);
        let together = self.integers(format!("{output}/together"), vec![0, channels, height, width]);
        self.node("Reshape", &[input, &in_groups], &apart, Vec::new());
        self.node("Transpose", &[&apart], &turned, vec![ints("perm", [0, 2, 1, 3, 4])]);
        self.node("Reshape", &[&turned, &together], output, Vec::new());
    }

    fn pad_shortcut(&mut self, input: &str, output: &str, shape: &[usize], stride: usize, zeros: [usize; 2]) {
        let strided = format!("{output}/strided");
        self.slice(input, &strided, &[2, 3], [&[0, 0], &shape[1..], &[stride, stride]]);
        let [before, after] = zeros.map(|channels| channels as i64);
        let padding = self.integers(format!("{output}/padding"), vec![0, before, 0, 0, 0, after, 0, 0]);
        self.node("Pad", &[&strided, &padding], output, Vec::new());
    }
}

/// The attributes of a sliding window with this padding: top, left, bottom, right.
fn slides(window: Window, pads: [usize; 4]) -> Vec<Message> {
    let mut attributes = vec![ints("kernel_shape", window.kernel), ints("strides", window.stride), ints("pads", pads)];
    if window.dilation != [1; 2] {
        attributes.push(ints("dilations", window.dilation));
    }
    attributes
}

/// Padding with which windows from a map of one size to another need not extend past the end. Runtimes differ in how
/// many windows `ceil_mode` has.
fn pads(window: Window, from: &[usize], to: &[usize]) -> [usize; 4] {
    let [bottom, right] = [0, 1].map(|i| {
        let reach = (window.kernel[i] - 1) * window.dilation[i] + 1;
        let last = (to[i] - 1) * window.stride[i] + reach;
        last.saturating_sub(from[i] + window.padding[i])
    });
    [window.padding[0], window.padding[1], bottom, right]
}
