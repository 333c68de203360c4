use std::path::Path;

use convzoo_data::{Augment, read_file};
use convzoo_models::Options;
use serde::de::DeserializeOwned;
use serde::de::value::{MapAccessDeserializer, MapDeserializer};
use serde::de::{Deserializer, MapAccess, Visitor};
use serde::{Deserialize, Serialize};
use toml::{Table, Value};

use crate::{ClassWeights, Mix, Optimizer, Precision, QuantizationAware, Schedule, TrainError, Transfer};

/// How a network is trained. A recipe file is this in TOML; what it leaves out stays at its default.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Recipe {
    /// Passes over the training images.
    pub epochs: usize,
    /// Images per batch.
    pub batch_size: usize,
    /// Gradient accumulation: batches per step, which takes the mean of their gradients, weighted by images.
    pub accumulation: usize,
    /// The optimizer; `optimizer = "adam"` is short for `optimizer = { kind = "adam" }`.
    #[serde(deserialize_with = "kind_or_table")]
    pub optimizer: Optimizer,
    /// The highest rate.
    pub learning_rate: f64,
    /// The learning-rate schedule; a kind alone, as for the optimizer, takes the kind's defaults.
    #[serde(deserialize_with = "kind_or_table")]
    pub schedule: Schedule,
    /// Epochs, perhaps not whole, in which the rate rises linearly to the schedule's, before it.
    pub warmup_epochs: f64,
    /// The share of `learning_rate` that the warm-up begins with.
    pub warmup_start: f64,
    /// Weight decay: L2 in the gradient, and AdamW's decoupled decay.
    pub weight_decay: f64,
    /// Whether biases and the parameters of norms (all of one dimension) are decayed too, as PyTorch does by default.
    pub decay_all: bool,
    /// Label smoothing: the share of the target that is spread over all classes.
    pub label_smoothing: f64,
    /// How much the loss of an image counts, by its class.
    pub class_weights: Option<ClassWeights>,
    /// The largest norm of a step's whole gradient, to which larger ones are clipped.
    pub clip_norm: Option<f64>,
    /// Decay of an exponential moving average of the weights, which is what is tested and saved: after n steps
    /// min(`ema`, (1 + n) / (10 + n)), so that the first weights are soon forgotten.
    pub ema: Option<f64>,
    /// Probability of dropping a feature, for networks with dropout [`Options::dropout`].
    pub dropout: Option<f64>,
    /// Probability of dropping a path, for networks with paths [`Options::drop_path`].
    pub drop_path: Option<f64>,
    /// Weight of each auxiliary classifier's loss, for networks that have them.
    pub auxiliary_weight: f64,
    /// α of the Beta(α, α) that blends of images are drawn from ([`Mix::mixup`]); 0 for none.
    pub mixup: f64,
    /// α of the Beta(α, α) that the share of pasted rectangles is drawn from ([`Mix::cutmix`]); 0 for none.
    pub cutmix: f64,
    /// What makes an epoch better than another: for the best weights, early stopping and the schedule `plateau`.
    pub monitor: Monitor,
    /// Stops after this many epochs without a better one.
    pub early_stopping: Option<usize>,
    /// What numbers activations and their gradients are kept and multiplied in.
    pub precision: Precision,
    /// Whether the backward pass computes a block's values again, of which the forward pass then keeps the inputs alone.
    pub checkpointing: bool,
    /// What is done to the training images.
    pub augment: Augment,
    /// Which layers are trained, and at which learning rates.
    pub transfer: Transfer,
    /// Training of the network as it is in bytes.
    pub quantization: Option<QuantizationAware>,
}

/// What makes an epoch better than another, measured on the validation images, or on the test images where there are
/// no others.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Monitor {
    /// A higher accuracy.
    Accuracy,
    /// A lower loss.
    Loss,
}

impl Default for Recipe {
    fn default() -> Self {
        Self {
            epochs: 20,
            batch_size: 64,
            accumulation: 1,
            optimizer: Optimizer::Sgd { momentum: 0.9, nesterov: false },
            learning_rate: 0.05,
            schedule: Schedule::Cosine { end: 0.0 },
            warmup_epochs: 0.0,
            warmup_start: 0.1,
            weight_decay: 0.0,
            decay_all: true,
            label_smoothing: 0.0,
            class_weights: None,
            clip_norm: None,
            ema: None,
            dropout: None,
            drop_path: None,
            auxiliary_weight: 0.3,
            mixup: 0.0,
            cutmix: 0.0,
            monitor: Monitor::Accuracy,
            early_stopping: None,
            precision: Precision::F32,
            checkpointing: false,
            augment: Augment::default(),
            transfer: Transfer::default(),
            quantization: None,
        }
    }
}

impl Recipe {
    /// Reads a recipe file.
    pub fn read(path: &Path) -> Result<Self, TrainError> {
        /// Some hundred times what a recipe needs that sets everything.
        const MOST_BYTES: u64 = 1 << 20;
        let refused = |reason| TrainError::RecipeFile { path: path.to_owned(), reason };
        let text = String::from_utf8(read_file(path, MOST_BYTES)?).map_err(|error| refused(error.to_string()))?;
        Self::parse(&text).map_err(refused)
    }

    /// The recipe in a TOML text, or what is wrong with it.
    pub(crate) fn parse(text: &str) -> Result<Self, String> {
        toml::from_str(text).map_err(|error| format!("{}{}", error.to_string().trim_end(), nearest(error.message())))
    }

    /// The recipe with some values changed, each named by its key in TOML (`optimizer.momentum`) and written as in
    /// TOML, where a word needs no quotes and `none` takes the default. Another `optimizer` or `schedule` than the
    /// recipe's begins with the defaults of its kind.
    pub fn with<'a>(&self, changes: impl IntoIterator<Item = (&'a str, &'a str)>) -> Result<Self, TrainError> {
        // Where it cannot be written, a field that is out of all bounds says more.
        let mut table = self.table().or_else(|error| self.check().and(Err(error)))?;
        for (key, text) in changes {
            change(&mut table, key, value(text)).map_err(|reason| TrainError::Override { reason })?;
        }
        table.try_into().map_err(|error: toml::de::Error| TrainError::Override {
            reason: format!("{}{}", error.to_string().trim_end(), nearest(error.message())),
        })
    }

    /// The recipe in TOML, whose whole numbers end at 2⁶³.
    pub(crate) fn table(&self) -> Result<Table, TrainError> {
        let too_large = |error: toml::ser::Error| TrainError::Override { reason: error.to_string() };
        Table::try_from(self).map_err(too_large)
    }

    /// The network's options as this recipe has them, where `options` says nothing.
    pub fn options(&self, options: Options) -> Options {
        Options {
            dropout: options.dropout.or(self.dropout),
            drop_path: options.drop_path.or(self.drop_path),
            ..options
        }
    }

    /// Whether the features of an image are the same in all epochs.
    pub(crate) fn trains_head_alone(&self) -> bool {
        let same = self.augment.is_none() && self.mix().is_none() && self.quantization.is_none();
        self.transfer.freezes_backbone() && same
    }

    /// How batches are mixed.
    pub(crate) fn mix(&self) -> Mix {
        Mix { mixup: self.mixup, cutmix: self.cutmix }
    }

    /// Refuses what makes no sense.
    pub fn check(&self) -> Result<(), TrainError> {
        // What no run reaches, and what steps can be counted with.
        const MOST: usize = 1_000_000;
        let whole = "from 1 to 1000000";
        let share = "at least 0 and below 1";
        let wants = |field, value: &dyn ToString, expected, right: bool| match right {
            true => Ok(()),
            false => Err(TrainError::Recipe { field, value: value.to_string(), expected }),
        };
        let is_share = |value: f64| (0.0..1.0).contains(&value);
        wants("epochs", &self.epochs, whole, (1..=MOST).contains(&self.epochs))?;
        wants("batch_size", &self.batch_size, whole, (1..=MOST).contains(&self.batch_size))?;
        wants("accumulation", &self.accumulation, whole, (1..=MOST).contains(&self.accumulation))?;
        let rate = self.learning_rate;
        wants("learning_rate", &rate, "above 0 and finite", rate > 0.0 && rate.is_finite())?;
        let warmup = self.warmup_epochs;
        wants("warmup_epochs", &warmup, "from 0 to below epochs", warmup >= 0.0 && warmup < self.epochs as f64)?;
        wants("warmup_start", &self.warmup_start, "from 0 to 1", (0.0..=1.0).contains(&self.warmup_start))?;
        wants("weight_decay", &self.weight_decay, "from 0 to 1", (0.0..=1.0).contains(&self.weight_decay))?;
        wants("label_smoothing", &self.label_smoothing, share, is_share(self.label_smoothing))?;
        let auxiliary = self.auxiliary_weight;
        wants("auxiliary_weight", &auxiliary, "from 0 to 10", (0.0..=10.0).contains(&auxiliary))?;
        if let Some(norm) = self.clip_norm {
            wants("clip_norm", &norm, "above 0 and finite", norm > 0.0 && norm.is_finite())?;
        }
        for (field, value) in [("ema", self.ema), ("dropout", self.dropout), ("drop_path", self.drop_path)] {
            if let Some(value) = value {
                wants(field, &value, share, is_share(value))?;
            }
        }
        if let Some(epochs) = self.early_stopping {
            wants("early_stopping", &epochs, "at least 1", epochs > 0)?;
        }
        self.class_weights.as_ref().map_or(Ok(()), ClassWeights::check)?;
        self.mix().check()?;
        self.augment.check()?;
        self.transfer.check()?;
        self.quantization.as_ref().map_or(Ok(()), QuantizationAware::check)?;
        let whole_numbers = self.quantization.is_some();
        let precision = format!("{:?}", self.precision).to_lowercase();
        let suits = self.precision == Precision::F32 || !whole_numbers;
        wants("precision", &precision, "f32 where a network is trained in bytes (quantization)", suits)?;
        let in_bytes = "false where the recipe has quantization, which looks at every value";
        wants("checkpointing", &self.checkpointing, in_bytes, !self.checkpointing || self.quantization.is_none())?;
        self.optimizer.check(&wants)?;
        self.schedule.check(self, &wants)?;
        self.table().map(drop)
    }
}

/// Refuses a field's value unless it is right: the field, its value, what it may be, whether it is that.
pub(crate) type Wants<'a> = &'a dyn Fn(&'static str, &dyn ToString, &'static str, bool) -> Result<(), TrainError>;

/// `text` as a TOML value, where a word needs no quotes; nothing for `none`.
fn value(text: &str) -> Option<Value> {
    let parsed = || toml::from_str::<Table>(&format!("value = {text}")).ok()?.remove("value");
    // TOML's whole numbers end at 2⁶³.
    let number = || text.parse().ok().map(Value::Float);
    (text != "none").then(|| parsed().or_else(number).unwrap_or_else(|| Value::String(text.to_owned())))
}

/// Sets, or takes away, what stands at a path such as `augment.color_jitter.hue`.
fn change(table: &mut Table, path: &str, value: Option<Value>) -> Result<(), String> {
    if let Some((outer, inner)) = path.split_once('.')
        && inner != "kind"
    {
        let table = table.entry(outer).or_insert_with(|| Table::new().into());
        let table = table.as_table_mut().ok_or_else(|| format!("{outer} is a single value and has no {inner}"))?;
        return change(table, inner, value);
    }
    // Another kind has other fields; naming the one that is there changes nothing.
    let key = path.trim_end_matches(".kind");
    let kind = table.get(key).and_then(|table| table.get("kind"));
    match value {
        Some(value) if kind == Some(&value) => None,
        Some(value @ Value::String(_)) if kind.is_some() => {
            table.insert(key.to_owned(), Table::from_iter([("kind".to_owned(), value)]).into())
        }
        Some(value) => table.insert(key.to_owned(), value),
        None => table.remove(key),
    };
    Ok(())
}

/// For messages such as "unknown field `a`, expected one of `b`, `c`": which of the expected is meant.
fn nearest(message: &str) -> String {
    let mut quoted = message.split('`').skip(1).step_by(2);
    let (true, Some(unknown)) = (message.starts_with("unknown "), quoted.next()) else { return String::new() };
    let near = quoted.map(|name| (strsim::normalized_damerau_levenshtein(unknown, name), name));
    match near.max_by(|a, b| a.0.total_cmp(&b.0)) {
        Some((similarity, name)) if similarity > 0.5 => format!("\ndid you mean `{name}`?"),
        _ => String::new(),
    }
}

/// Reads a table, or a word that is the table's `kind`.
fn kind_or_table<'de, D: Deserializer<'de>, T: DeserializeOwned>(deserializer: D) -> Result<T, D::Error> {
    struct KindOrTable<T>(std::marker::PhantomData<T>);

    impl<'de, T: DeserializeOwned> Visitor<'de> for KindOrTable<T> {
        type Value = T;

        fn expecting(&self, f: &mut std::fmt::Formatter) -> std::fmt::Result {
            f.write_str("a kind, or a table with a kind")
        }

        fn visit_str<E: serde::de::Error>(self, kind: &str) -> Result<T, E> {
            T::deserialize(MapDeserializer::new(std::iter::once(("kind", kind))))
        }

        fn visit_map<A: MapAccess<'de>>(self, map: A) -> Result<T, A::Error> {
            T::deserialize(MapAccessDeserializer::new(map))
        }
    }

    deserializer.deserialize_any(KindOrTable(std::marker::PhantomData))
}

#[cfg(test)]
mod tests {
    use convzoo_data::ColorJitter;

    use super::*;

    #[test]
    fn a_recipe_is_what_it_was_after_being_written_and_read() {
        let recipe = Recipe {
            optimizer: Optimizer::AdamW { betas: [0.8, 0.95], epsilon: 1e-6 },
            schedule: Schedule::MultiStep { milestones: vec![3, 5], factor: 0.1 },
            ema: Some(0.99),
            ..Recipe::default()
        };
        let text = Table::try_from(&recipe).unwrap().to_string();
        assert_eq!(Recipe::parse(&text).unwrap(), recipe, "from TOML\n{text}");
        let json = serde_json::to_string(&recipe).unwrap();
        assert_eq!(serde_json::from_str::<Recipe>(&json).unwrap(), recipe, "from JSON\n{json}");
    }

    #[test]
    fn unknown_names_suggest_the_nearest() {
        let cases = [
            ("epoch = 3", "did you mean `epochs`?"),
            ("optimizer = \"adm\"", "did you mean `adam`?"),
            ("optimizer = { kind = \"sgd\", momentun = 0.9 }", "did you mean `momentum`?"),
            ("optimizer = { kind = \"adam\", momentum = 0.9 }", "unknown field `momentum`"),
            ("schedule = { kind = \"cosine\", endd = 0.1 }", "unknown field `endd`"),
            ("schedule = { kind = \"constant\", end = 0.1 }", "unknown field `end`"),
            ("schedule = { kind = \"multi-stp\" }", "did you mean `multi-step`?"),
            ("precision = \"f15\"", "did you mean `f16`?"),
            ("epochs = \"many\"", "epochs"),
        ];
        for (text, part) in cases {
            let told = Recipe::parse(text).unwrap_err();
            assert!(told.contains(part), "{text} told: {told}");
        }
    }

    #[test]
    fn changes_reach_every_field() {
        let recipe = Recipe::default();
        let changed = recipe
            .with([
                ("epochs", "7"),
                ("optimizer", "sgd"),
                ("optimizer.nesterov", "true"),
                ("schedule", "multi-step"),
                ("schedule.milestones", "[2, 4]"),
                ("learning_rate", "1e20"),
                ("ema", "0.99"),
                ("monitor", "loss"),
                ("augment.color_jitter.hue", "0.25"),
            ])
            .unwrap();
        let expected = Recipe {
            epochs: 7,
            optimizer: Optimizer::Sgd { momentum: 0.9, nesterov: true },
            schedule: Schedule::MultiStep { milestones: vec![2, 4], factor: 0.1 },
            learning_rate: 1e20,
            ema: Some(0.99),
            monitor: Monitor::Loss,
            augment: Augment { color_jitter: ColorJitter { hue: 0.25, ..Default::default() }, ..Augment::default() },
            ..recipe
        };
        assert_eq!(changed, expected);
        assert_eq!(changed.with([("ema", "none")]).unwrap().ema, None);
        let optimizer = changed.with([("optimizer.kind", "adam")]).unwrap().optimizer;
        assert_eq!(optimizer, Optimizer::Adam { betas: [0.9, 0.999], epsilon: 1e-8 });
        for (key, value, part) in [
            ("epoch", "3", "did you mean `epochs`?"),
            ("epochs", "many", "epochs"),
            ("epochs.first", "3", "epochs is a single value"),
            ("augment.color_jitter.huge", "0.1", "did you mean `hue`?"),
            ("optimizer.betas", "3", "unknown field `betas`"),
        ] {
            let told = changed.with([(key, value)]).unwrap_err().to_string();
            assert!(told.contains(part), "{key}={value} told: {told}");
        }
    }

    #[test]
    fn numbers_that_toml_cannot_write_are_refused() {
        for text in ["epochs = 9223372036854775808", "schedule = { kind = \"step\", every = 9223372036854775808 }"] {
            let Ok(recipe) = Recipe::parse(text) else { continue };
            assert!(recipe.with([("seed", "1")]).is_err(), "{text}");
            assert!(recipe.check().is_err(), "{text}");
        }
        assert!(Recipe::default().with([("epochs", "9223372036854775808")]).is_err());
    }

    #[test]
    fn values_that_make_no_sense_are_refused() {
        let cases = [
            ("epochs", "0"),
            ("epochs", "9223372036854775807"),
            ("batch_size", "9223372036854775807"),
            ("accumulation", "9223372036854775807"),
            ("batch_size", "0"),
            ("accumulation", "0"),
            ("learning_rate", "-0.1"),
            ("learning_rate", "nan"),
            ("learning_rate", "inf"),
            ("warmup_epochs", "20"),
            ("warmup_epochs", "-1"),
            ("warmup_start", "2"),
            ("weight_decay", "-1"),
            ("label_smoothing", "1"),
            ("clip_norm", "0"),
            ("ema", "1"),
            ("dropout", "1.5"),
            ("drop_path", "-0.1"),
            ("auxiliary_weight", "-1"),
            ("early_stopping", "0"),
            ("mixup", "-1"),
            ("augment.random_erasing", "2"),
            ("quantization.weight_bits", "9"),
            ("quantization.images", "0"),
            ("optimizer.momentum", "1"),
            ("schedule.end", "0.1"),
        ];
        for (key, value) in cases {
            let told = Recipe::default().with([(key, value)]).unwrap().check().unwrap_err().to_string();
            let field = key.trim_start_matches("augment.");
            assert!(told.contains(&format!("{field} must be")), "{key} = {value} told: {told}");
        }
        let both = Recipe::default().with([("checkpointing", "true"), ("quantization.images", "8")]).unwrap();
        let told = both.check().unwrap_err().to_string();
        assert!(told.contains("checkpointing must be false where the recipe has quantization"), "{told}");
        Recipe::default().check().unwrap();
    }
}
