use std::collections::{BTreeMap, HashMap};
use std::path::PathBuf;
use std::sync::Arc;

use burn::module::Module;
use burn::tensor::Device;
use burn::train::Interrupter;
use convzoo_compress::{Codebook, Mask, Tensor, prune};
use convzoo_data::{Dataset, Preprocess, Splits, Subset};
use convzoo_models::{Network, weights};
use convzoo_train::{Event, GradientRule, Recipe, Trainer, Views, evaluate};
use serde::Serialize;

use super::layers::{is_compressed, layer_of, layers};
use super::{CompressError, Plan, Sparsity};

/// A step of the method that is done, and what the network then is.
#[derive(Clone, Debug, Serialize)]
pub struct Step {
    /// What was done.
    pub name: String,
    /// Bytes of all tensors, stored as this step allows.
    pub bytes: usize,
    /// The share of the weights of convolutions and fully-connected layers that are not zero.
    pub left: f64,
    /// Top-1 accuracy on the test images, where there are such.
    pub accuracy: Option<f64>,
}

/// What compressing tells while it is under way.
pub enum Told<'a> {
    /// A step is done.
    Step(&'a Step),
    /// A layer can be pruned so far within the tolerance.
    Sensitivity(&'a str, f64),
    /// Training goes on.
    Training(Event<'a>),
}

type Tell = Arc<dyn Fn(Told) + Send + Sync>;

/// The images that a network is measured on and trained with.
pub struct Training {
    /// The data, its classes in the network's order.
    pub data: Splits,
    /// How images become the network's input.
    pub preprocess: Preprocess,
    /// Where to compute.
    pub device: Device,
    /// The folder in which training runs get folders of their own.
    pub runs: PathBuf,
    /// The random seed of the images' order.
    pub seed: u64,
    /// What stops training.
    pub interrupter: Interrupter,
}

/// How tensors are stored when a step is done.
#[derive(Clone, Copy)]
enum Stored {
    Raw,
    Pruned,
    Shared,
    Coded,
}

/// Shares that are tried to find how sparse a layer can be.
const TRIED: [f64; 9] = [0.3, 0.4, 0.5, 0.6, 0.7, 0.8, 0.9, 0.95, 0.98];

/// Images that a layer's sensitivity is measured on, of those to train on.
const MEASURED: usize = 2000;

/// Images per batch where nothing is trained.
const BATCH: usize = 64;

/// A network that is compressed step by step.
pub struct Compression {
    network: Network,
    tensors: Vec<Tensor>,
    training: Option<Training>,
    codebooks: HashMap<String, Codebook>,
    steps: Vec<Step>,
    tell: Tell,
}

impl Compression {
    /// Begins with `network`, which must be on a device with automatic differentiation if it is to be trained.
    pub fn new(network: Network) -> Result<Self, CompressError> {
        let tensors = weights::tensors(&network)?;
        let (codebooks, steps) = (HashMap::new(), Vec::new());
        Ok(Self { network, tensors, training: None, codebooks, steps, tell: Arc::new(|_| {}) })
    }

    /// With images to measure on and to train with.
    pub fn with_training(self, training: Training) -> Self {
        Self { training: Some(training), ..self }
    }

    /// `tell` is told what is done.
    pub fn telling(self, tell: impl Fn(Told) + Send + Sync + 'static) -> Self {
        Self { tell: Arc::new(tell), ..self }
    }

    /// The network as it is.
    pub fn network(&self) -> &Network {
        &self.network
    }

    /// Its tensors as they are.
    pub fn tensors(&self) -> &[Tensor] {
        &self.tensors
    }

    /// What was done.
    pub fn steps(&self) -> &[Step] {
        &self.steps
    }

    /// Names of the layers that are compressed.
    pub fn layers(&self) -> Vec<&str> {
        self.tensors.iter().filter(|tensor| is_compressed(tensor)).map(layer_of).collect()
    }

    /// Does all that `plan` says.
    pub fn run(&mut self, plan: &Plan) -> Result<(), CompressError> {
        plan.check(&self.layers())?;
        if let (Some(what), None) = (plan.needs_data(), &self.training) {
            return Err(CompressError::NoData(what));
        }
        self.done("given", Stored::Raw)?;
        if let Some(sparsity) = &plan.sparsity {
            let shares = match sparsity {
                Sparsity::Given(shares) => {
                    let shares =
                        self.layers().into_iter().filter_map(|layer| Some((layer.to_owned(), shares.of(layer)?)));
                    shares.collect()
                }
                Sparsity::Found(_) => self.sensitivity(plan.tolerance)?,
            };
            self.rounds(&shares, plan.rounds, plan.retrain.as_ref())?;
        } else if let Some(recipe) = &plan.retrain {
            self.retrain(recipe)?;
            self.done("retrained", Stored::Pruned)?;
        }
        if let Some(bits) = &plan.bits {
            self.share(|layer| bits.of(layer))?;
            self.done("shared", Stored::Shared)?;
        }
        if let Some(recipe) = &plan.tune {
            self.tune(recipe)?;
            self.done("fine-tuned", Stored::Shared)?;
        }
        self.done("Huffman-coded", Stored::Coded)
    }

    /// Prunes layers to these shares in rounds, each followed by retraining.
    fn rounds(
        &mut self,
        shares: &BTreeMap<String, f64>,
        rounds: usize,
        retrain: Option<&Recipe>,
    ) -> Result<(), CompressError> {
        for round in 1..=rounds {
            let part = round as f64 / rounds as f64;
            self.prune(|layer| shares.get(layer).map(|share| 1.0 - (1.0 - share).powf(part)))?;
            let of = if rounds > 1 { format!(" {round} of {rounds}") } else { String::new() };
            self.done(&format!("pruned{of}"), Stored::Pruned)?;
            if let Some(recipe) = retrain {
                self.retrain(recipe)?;
                self.done(&format!("retrained{of}"), Stored::Pruned)?;
            }
        }
        Ok(())
    }

    /// Zeroes the smallest weights of each layer, the share that `of` says.
    pub fn prune(&mut self, of: impl Fn(&str) -> Option<f64>) -> Result<(), CompressError> {
        for tensor in self.tensors.iter_mut().filter(|tensor| is_compressed(tensor)) {
            if let Some(share) = of(layer_of(tensor)) {
                prune(&mut tensor.values, share);
            }
        }
        self.put()
    }

    /// Trains the weights that are not zero; the others stay.
    pub fn retrain(&mut self, recipe: &Recipe) -> Result<(), CompressError> {
        let rule = |tensor: &Tensor| {
            let mask = Mask::of(&tensor.values);
            let rule: GradientRule = Arc::new(move |gradient| mask.mask_gradient(gradient));
            (tensor.name.clone(), rule)
        };
        let rules = self.tensors.iter().filter(|tensor| is_compressed(tensor)).map(rule).collect();
        self.train("retraining", recipe, rules)
    }

    /// Has each layer's weights that are not zero share values that indices of so many bits tell apart.
    pub fn share(&mut self, bits: impl Fn(&str) -> Option<u32>) -> Result<(), CompressError> {
        for tensor in self.tensors.iter_mut().filter(|tensor| is_compressed(tensor)) {
            if let Some(bits) = bits(layer_of(tensor)) {
                let mut codebook = Codebook::fit(&tensor.values, bits);
                codebook.balance(&tensor.values, tensor.values.len() / tensor.shape[0].max(1));
                tensor.values = codebook.weights();
                self.codebooks.insert(tensor.name.clone(), codebook);
            }
        }
        self.put()
    }

    /// Trains the values that weights share, by the sum of their gradients.
    pub fn tune(&mut self, recipe: &Recipe) -> Result<(), CompressError> {
        for tensor in self.tensors.iter().filter(|tensor| is_compressed(tensor)) {
            if !self.codebooks.contains_key(&tensor.name) {
                // Weights that were shared before say so themselves; others would each be its own.
                let shared = Codebook::shared(&tensor.values).filter(|shared| 2 * shared.len() <= tensor.values.len());
                let shared = shared.ok_or_else(|| CompressError::NotShared(layer_of(tensor).to_owned()))?;
                self.codebooks.insert(tensor.name.clone(), shared);
            }
        }
        let rule = |(name, codebook): (&String, &Codebook)| {
            let codebook = codebook.clone();
            let rule: GradientRule = Arc::new(move |gradient| codebook.sum_gradient(gradient));
            (name.clone(), rule)
        };
        self.train("fine-tuning of codebooks", recipe, self.codebooks.iter().map(rule).collect())?;
        for tensor in &mut self.tensors {
            if let Some(codebook) = self.codebooks.get_mut(&tensor.name) {
                codebook.refit(&tensor.values);
                tensor.values = codebook.weights();
            }
        }
        self.put()
    }

    /// For each layer, the largest share that it alone can be pruned by within so many points of accuracy, measured on
    /// images to train on.
    pub fn sensitivity(&self, tolerance: f64) -> Result<BTreeMap<String, f64>, CompressError> {
        let what = "finding the sparsity by sensitivity";
        let data = &self.training.as_ref().ok_or(CompressError::NoData(what))?.data;
        // Of data that is sorted by class, the first would be of one.
        let step = data.train.len().div_ceil(MEASURED).max(1);
        let some = Arc::new(Subset::new(Arc::clone(&data.train), (0..data.train.len()).step_by(step).collect()));
        let before = self.accuracy(&self.network, &(some.clone() as Arc<dyn Dataset>))?;
        let mut shares = BTreeMap::new();
        for (index, tensor) in self.tensors.iter().enumerate().filter(|(_, tensor)| is_compressed(tensor)) {
            let mut best = 0.0;
            for share in TRIED {
                let mut tensors = self.tensors.clone();
                prune(&mut tensors[index].values, share);
                let network = weights::with_tensors(self.network.clone(), &tensors)?;
                let after = self.accuracy(&network, &(some.clone() as Arc<dyn Dataset>))?;
                if 100.0 * (before - after) > tolerance {
                    break;
                }
                best = share;
            }
            (self.tell)(Told::Sensitivity(layer_of(tensor), best));
            shares.insert(layer_of(tensor).to_owned(), best);
        }
        Ok(shares)
    }

    /// A training run from the weights there are, whose last weights are taken: those of the best epoch would be chosen
    /// by the test images.
    fn train(
        &mut self,
        what: &'static str,
        recipe: &Recipe,
        rules: HashMap<String, GradientRule>,
    ) -> Result<(), CompressError> {
        let training = self.training.as_ref().ok_or(CompressError::NoData(what))?;
        let tell = Arc::clone(&self.tell);
        let name = format!("{}-{}-compress", self.network.name(), training.data.name);
        let outcome = Trainer::new(self.network.clone(), training.data.clone())
            .preprocess(training.preprocess.clone())
            .recipe(recipe.clone())
            .seed(training.seed)
            .device(training.device.clone())
            .interrupter(training.interrupter.clone())
            .gradient_rules(rules)
            .out_in(&training.runs, name)
            .start(move |event| tell(Told::Training(event)))?;
        if outcome.interrupted {
            return Err(CompressError::Interrupted);
        }
        self.network = weights::load(self.network.clone(), &outcome.folder.join("last.safetensors"))?;
        self.tensors = weights::tensors(&self.network)?;
        Ok(())
    }

    /// Puts the tensors into the network.
    fn put(&mut self) -> Result<(), CompressError> {
        self.network = weights::with_tensors(self.network.clone(), &self.tensors)?;
        Ok(())
    }

    /// Notes that a step is done.
    fn done(&mut self, name: &str, stored: Stored) -> Result<(), CompressError> {
        let rows = layers(&self.tensors);
        let bytes = match stored {
            Stored::Raw => rows.iter().map(|row| row.bytes).sum(),
            Stored::Pruned => rows.iter().map(|row| row.pruned).sum(),
            Stored::Shared => rows.iter().map(|row| row.shared).sum(),
            Stored::Coded => weights::compressed(&self.network)?.len(),
        };
        let compressed =
            || self.tensors.iter().filter(|tensor| is_compressed(tensor)).flat_map(|tensor| &tensor.values);
        let left = compressed().filter(|value| **value != 0.0).count() as f64 / compressed().count().max(1) as f64;
        let accuracy = match (&self.training, stored, self.steps.last()) {
            // Coding changes nothing.
            (_, Stored::Coded, Some(last)) => last.accuracy,
            (Some(training), ..) => Some(self.accuracy(&self.network, &training.data.test)?),
            _ => None,
        };
        let step = Step { name: name.to_owned(), bytes, left, accuracy };
        (self.tell)(Told::Step(&step));
        self.steps.push(step);
        Ok(())
    }

    fn accuracy(&self, network: &Network, images: &Arc<dyn Dataset>) -> Result<f64, CompressError> {
        let Training { preprocess, device, .. } = self.training.as_ref().ok_or(CompressError::NoData("measuring"))?;
        let inference = network.clone().valid().for_inference()?;
        let evaluation = evaluate(&inference, Arc::clone(images), preprocess, Views::Centre, BATCH, device, |_| {})?;
        Ok(evaluation.top1())
    }
}
