use std::collections::BTreeMap;
use std::path::Path;

use convzoo_compress::MOST_BITS;
use convzoo_data::read_file;
use convzoo_train::Recipe;
use serde::{Deserialize, Serialize};

use super::CompressError;

/// What is done to a network. A file is this in TOML; what it leaves out is not done.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Plan {
    /// The share of each layer's weights that is pruned, 0 to below 1.
    pub sparsity: Option<Sparsity>,
    /// Rounds of pruning, each followed by retraining; the share of weights that are left falls by the same factor in
    /// each.
    pub rounds: usize,
    /// Points of accuracy that pruning one layer alone may cost where the sparsity is found by sensitivity.
    pub tolerance: f64,
    /// How the weights that are left are retrained after each round; not at all where this is not given.
    pub retrain: Option<Recipe>,
    /// Bits of an index into a layer's codebook.
    pub bits: Option<PerLayer<u32>>,
    /// How the values in the codebooks are fine-tuned; not at all where this is not given.
    pub tune: Option<Recipe>,
}

impl Default for Plan {
    fn default() -> Self {
        Self { sparsity: None, rounds: 1, tolerance: 1.0, retrain: None, bits: None, tune: None }
    }
}

/// How sparse layers become.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(untagged)]
pub enum Sparsity {
    /// As said.
    Given(PerLayer<f64>),
    /// Each as far as it can be pruned alone within the tolerance: `"sensitivity"`.
    Found(Sensitivity),
}

/// The word for it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Sensitivity {
    /// The only one.
    Sensitivity,
}

/// A value for all layers, or for some by name, where the name `default` stands for the others.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(untagged)]
pub enum PerLayer<T> {
    /// For all.
    All(T),
    /// By name.
    Layers(BTreeMap<String, T>),
}

/// The name that stands for layers without a value of their own.
const DEFAULT: &str = "default";

impl<T: Copy> PerLayer<T> {
    /// The layer's value, if there is one.
    pub fn of(&self, layer: &str) -> Option<T> {
        match self {
            Self::All(value) => Some(*value),
            Self::Layers(values) => values.get(layer).or_else(|| values.get(DEFAULT)).copied(),
        }
    }

    fn values(&self) -> Vec<T> {
        match self {
            Self::All(value) => vec![*value],
            Self::Layers(values) => values.values().copied().collect(),
        }
    }

    /// Refuses names that are none of the layers'.
    pub(super) fn check(&self, field: &'static str, layers: &[&str]) -> Result<(), CompressError> {
        let Self::Layers(values) = self else { return Ok(()) };
        match values.keys().find(|name| *name != DEFAULT && !layers.contains(&name.as_str())) {
            Some(layer) => Err(CompressError::Layer { field, layer: layer.clone(), known: layers.join(", ") }),
            None => Ok(()),
        }
    }
}

impl<T: std::str::FromStr> std::str::FromStr for PerLayer<T> {
    type Err = String;

    /// `5`, or `conv1=8,fc1=4`, or both: `5,conv1=8`.
    fn from_str(text: &str) -> Result<Self, String> {
        let number = |text: &str| text.trim().parse().map_err(|_| format!("'{text}' is no number"));
        if let Ok(value) = number(text) {
            return Ok(Self::All(value));
        }
        let pair = |part: &str| {
            let (layer, value) = part.split_once('=').unwrap_or((DEFAULT, part));
            Ok::<_, String>((layer.trim().to_owned(), number(value)?))
        };
        Ok(Self::Layers(text.split(',').map(pair).collect::<Result<_, String>>()?))
    }
}

impl std::str::FromStr for Sparsity {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        match text {
            "sensitivity" => Ok(Self::Found(Sensitivity::Sensitivity)),
            given => given.parse().map(Self::Given).map_err(|error| {
                format!("{error}; expected a share such as 0.9, LAYER=SHARE,LAYER=SHARE, or sensitivity")
            }),
        }
    }
}

impl Plan {
    /// Nothing but codebooks of so many bits.
    pub fn of_bits(bits: u32) -> Self {
        Self { bits: Some(PerLayer::All(bits)), ..Self::default() }
    }

    /// Nothing but pruning so large a share of each layer's weights.
    pub fn of_sparsity(sparsity: f64) -> Self {
        Self { sparsity: Some(Sparsity::Given(PerLayer::All(sparsity))), ..Self::default() }
    }

    /// The plan with training of so many epochs: under the mask after pruning, or where nothing else is asked for, by the
    /// recipe `transfer`, and of codebooks by Adam with small steps.
    pub fn trained(self, epochs: usize) -> Result<Self, CompressError> {
        let retrain = Recipe { epochs, ..Recipe::named("transfer")? };
        let tune = Recipe::default().with([("optimizer", "adam"), ("learning_rate", "0.00005")])?;
        let tune = Recipe { epochs, ..tune };
        Ok(Self {
            retrain: (self.sparsity.is_some() || self.bits.is_none()).then_some(retrain),
            tune: self.bits.is_some().then_some(tune),
            ..self
        })
    }

    /// Reads a plan's file.
    pub fn read(path: &Path) -> Result<Self, CompressError> {
        /// Some hundred times what a plan needs.
        const MOST_BYTES: u64 = 1 << 20;
        let refused =
            |reason: String| CompressError::Plan(format!("reading {}: {}", path.display(), reason.trim_end()));
        let text = String::from_utf8(read_file(path, MOST_BYTES)?).map_err(|error| refused(error.to_string()))?;
        toml::from_str(&text).map_err(|error| refused(error.to_string()))
    }

    /// Whether images are needed.
    pub fn needs_data(&self) -> Option<&'static str> {
        match self {
            Self { retrain: Some(_), .. } => Some("retraining"),
            Self { tune: Some(_), .. } => Some("fine-tuning of codebooks"),
            Self { sparsity: Some(Sparsity::Found(_)), .. } => Some("finding the sparsity by sensitivity"),
            _ => None,
        }
    }

    /// Refuses what makes no sense for a network with these layers.
    pub fn check(&self, layers: &[&str]) -> Result<(), CompressError> {
        let wants = |field, value: &dyn ToString, expected, right: bool| match right {
            true => Ok(()),
            false => Err(CompressError::Value { field, value: value.to_string(), expected }),
        };
        if let Some(Sparsity::Given(sparsity)) = &self.sparsity {
            sparsity.check("sparsity", layers)?;
            for share in sparsity.values() {
                wants("sparsity", &share, "at least 0 and below 1", (0.0..1.0).contains(&share))?;
            }
        }
        if let Some(bits) = &self.bits {
            bits.check("bits", layers)?;
            for bits in bits.values() {
                wants("bits", &bits, "from 1 to 12", (1..=MOST_BITS).contains(&bits))?;
            }
        }
        wants("rounds", &self.rounds, "from 1 to 100", (1..=100).contains(&self.rounds))?;
        let tolerance = self.tolerance;
        wants("tolerance", &tolerance, "from 0 to 100", (0.0..=100.0).contains(&tolerance))?;
        if self.rounds > 1 && self.sparsity.is_none() {
            return Err(CompressError::Plan("rounds are of pruning, and there is no sparsity to prune to".to_owned()));
        }
        for recipe in self.retrain.iter().chain(&self.tune) {
            recipe.check()?;
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn values_are_for_all_layers_or_by_name() {
        let bits: PerLayer<u32> = "5".parse().unwrap();
        assert_eq!(bits.of("conv1"), Some(5));
        let bits: PerLayer<u32> = "5,conv1=8".parse().unwrap();
        assert_eq!((bits.of("conv1"), bits.of("fc1")), (Some(8), Some(5)));
        let bits: PerLayer<u32> = "conv1=8".parse().unwrap();
        assert_eq!((bits.of("conv1"), bits.of("fc1")), (Some(8), None));
        assert!("five".parse::<PerLayer<u32>>().is_err());
    }

    #[test]
    fn a_plan_is_read_from_toml() {
        let text = "sparsity = { default = 0.9, conv1 = 0.5 }\nrounds = 3\nbits = 4\n[retrain]\nepochs = 2";
        let plan: Plan = toml::from_str(text).unwrap();
        let Some(Sparsity::Given(sparsity)) = &plan.sparsity else { panic!("{plan:?}") };
        assert_eq!((sparsity.of("conv1"), sparsity.of("fc1")), (Some(0.5), Some(0.9)));
        assert_eq!(plan.retrain.as_ref().map(|recipe| recipe.epochs), Some(2));
        assert_eq!(plan.needs_data(), Some("retraining"));
        let plan: Plan = toml::from_str("sparsity = \"sensitivity\"").unwrap();
        assert_eq!(plan.sparsity, "sensitivity".parse().ok());
        assert!(toml::from_str::<Plan>("sparseness = 0.9").is_err(), "a field that is none was taken");
    }

    #[test]
    fn what_makes_no_sense_is_refused() {
        let told = |plan: Plan| plan.check(&["conv1", "fc1"]).unwrap_err().to_string();
        assert!(told(Plan::of_bits(0)).contains("bits must be from 1 to 12"));
        assert!(told(Plan::of_sparsity(1.0)).contains("sparsity must be at least 0 and below 1"));
        let named = Plan { bits: "conv9=4".parse().ok(), ..Plan::default() };
        assert!(told(named).contains("'conv9', and the network's layers with weights are conv1, fc1"));
        assert!(told(Plan { rounds: 2, ..Plan::of_bits(4) }).contains("no sparsity"));
        Plan::default().check(&[]).unwrap();
    }
}
