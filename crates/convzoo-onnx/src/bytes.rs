//! What a quantized network has besides floats: values rounded to bytes, and layers with their weights in bytes.

use std::ops::Deref;

use convzoo_graph::{Operation, Parameter, QuantizedLayer, QuantizedValue};

use crate::export::{Exporter, int, named};
use crate::model::Content;

impl<V: Deref<Target = [f32]>, F: FnMut(&Parameter) -> Option<V>> Exporter<'_, V, F> {
    /// The name of an earlier node's output as a node takes it: in floats, or as the floats that its bytes stand for.
    pub fn input(&mut self, number: usize, input: usize) -> String {
        let output = self.outputs[input].clone();
        let (from, to) = (self.place(input), self.place(number));
        // Within a value, nothing is rounded.
        let Some(place) = from.filter(|_| from != to) else { return output };
        let takes_bytes = self.value_of(number).is_some_and(|value| value.from_bytes);
        let is_layer =
            matches!(self.graph.nodes()[number].operation, Operation::Conv2d { .. } | Operation::Linear { .. });
        let scale = match self.quantized.values.get(place) {
            Some(QuantizedValue { scale: Some(scale), rounded, .. }) if *rounded || takes_bytes => *scale,
            _ => return output,
        };
        let rounded = self.rounded(place, &output, scale);
        if is_layer && !takes_bytes { self.apart(&rounded, scale) } else { rounded }
    }

    /// Whether a node's work is part of a layer that has its weights in bytes.
    pub fn is_in_bytes(&self, number: usize) -> bool {
        self.value_of(number).is_some_and(|value| value.layer.is_some())
    }

    /// Adds weight and bias of a layer that has its weights in bytes, and returns the names of the floats that they stand
    /// for; none where it has not.
    pub fn byte_operands(
        &mut self,
        number: usize,
        output: &str,
        dims: impl Fn(&Parameter) -> Vec<usize>,
    ) -> Option<[String; 2]> {
        let node = &self.graph.nodes()[number];
        let (input, _) = self.value_of(*node.inputs.first()?)?.scale?;
        let place = self.place(number)?;
        let layer = self.quantized.values.get_mut(place)?.layer.as_mut()?;
        let QuantizedLayer { weight, scales, bias } = std::mem::take(layer);

        let parameter = node.parameters.first()?;
        let name = named(parameter);
        // Layers may share a weight, and not what is folded into it.
        let layer = match self.has_tensor(&name) {
            true => output,
            false => name.strip_suffix(".weight").unwrap_or(&name),
        };
        let (weight_name, bias_name) = (format!("{layer}.weight"), format!("{layer}.bias"));
        let zeros = Content::Bytes(vec![0; scales.len()]);
        let weight = self.dequantized(weight_name, dims(parameter), Content::Bytes(weight), scales.clone(), zeros);

        let units: Vec<f32> = scales.iter().map(|scale| scale * input).collect();
        let bias = match sums(&bias, &units) {
            Some(sums) => {
                let zeros = Content::Sums(vec![0; units.len()]);
                self.dequantized(bias_name, vec![sums.len()], Content::Sums(sums), units, zeros)
            }
            None => self.floats(bias_name, vec![bias.len()], bias),
        };
        Some([weight, bias])
    }

    /// The place of the value that a node of the graph helps to make.
    fn place(&self, number: usize) -> Option<usize> {
        self.quantized.value_of.get(number).copied().flatten()
    }

    fn value_of(&self, number: usize) -> Option<&QuantizedValue> {
        self.quantized.values.get(self.place(number)?)
    }

    /// Rounds a value to bytes, once, and returns the name of the floats that they stand for.
    fn rounded(&mut self, place: usize, value: &str, (scale, zero): (f32, u8)) -> String {
        if let Some(name) = self.rounded.get(&place) {
            return name.clone();
        }
        let [bytes, rounded] = ["bytes", "rounded"].map(|part| format!("{value}/{part}"));
        let scale = self.scalar(&format!("{value}/scale"), scale);
        let zero = self.tensor(format!("{value}/zero_point"), Vec::new(), Content::Byte(zero));
        self.node("QuantizeLinear", &[value, &scale, &zero], &bytes, Vec::new());
        self.node("DequantizeLinear", &[&bytes, &scale, &zero], &rounded, Vec::new());
        self.rounded.insert(place, rounded.clone());
        rounded
    }

    /// What bytes stand for, cut where they end, which changes nothing, for a layer in floats. ONNX Runtime would round the
    /// weights of one that it finds right between numbers that were bytes and such as become bytes.
    fn apart(&mut self, rounded: &str, (scale, zero): (f32, u8)) -> String {
        let [apart, least, most] = ["apart", "least", "most"].map(|part| format!("{rounded}/{part}"));
        if !self.has_tensor(&least) {
            let end = |byte: u8| (f32::from(byte) - f32::from(zero)) * scale;
            let [least, most] = [self.scalar(&least, end(0)), self.scalar(&most, end(u8::MAX))];
            self.node("Clip", &[rounded, &least, &most], &apart, Vec::new());
        }
        apart
    }

    /// Adds integers with a scale and a zero point for each output, and returns the name of what they stand for.
    fn dequantized(
        &mut self,
        name: String,
        dims: Vec<usize>,
        integers: Content<V>,
        scales: Vec<f32>,
        zeros: Content<V>,
    ) -> String {
        let floats = format!("{name}/floats");
        let outputs = vec![scales.len()];
        let scale = self.floats(format!("{name}_scale"), outputs.clone(), scales);
        let zero = self.tensor(format!("{name}_zero_point"), outputs, zeros);
        let integers = self.tensor(name, dims, integers);
        self.node("DequantizeLinear", &[&integers, &scale, &zero], &floats, vec![int("axis", 0)]);
        floats
    }
}

/// A bias in units of the products of bytes that it is added to, if 32 bits hold it.
fn sums(bias: &[f32], units: &[f32]) -> Option<Vec<i32>> {
    let sum = |(bias, unit): (&f32, &f32)| {
        let sum = (f64::from(*bias) / f64::from(*unit)).round_ties_even();
        (unit.is_normal() && sum.abs() <= f64::from(i32::MAX)).then_some(sum as i32)
    };
    bias.iter().zip(units).map(sum).collect()
}
