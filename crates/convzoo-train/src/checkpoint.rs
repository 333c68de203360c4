use std::path::{Path, PathBuf};
use std::sync::Arc;

use burn::module::{Module, ModuleDisplay, ModuleVisitor, Param};
use burn::optim::{ModuleOptimizer, OptimizerRecord};
use burn::store::burn_pack::Reader;
use burn::store::{ModuleRecord, RecordError};
use burn::tensor::{Int, Tensor};
use convzoo_data::read_file;
use convzoo_models::Classifier;
use convzoo_models::quantize::Simulation;
use serde::{Deserialize, Serialize};

use crate::average::Average;
use crate::history::write_whole;
use crate::precision::LossScale;
use crate::quantization::Scales;
use crate::schedule::Plateau;
use crate::trainable::{Tally, TrainableClassifier};
use crate::{Epoch, Recipe, TrainError};

/// Where a run stands, besides its tensors. With the seed, this and the tensors decide all that follows: the order of
/// an epoch and the random numbers of a step come from the seed and their position.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub(crate) struct Position {
    /// Optimizer steps done.
    pub steps: usize,
    /// The epoch under way, counted from 1.
    pub epoch: usize,
    /// Its batches done.
    pub batches: usize,
    /// Time spent on it.
    pub seconds: f64,
    /// What they gave.
    pub tally: Tally,
    /// What the schedule remembers.
    pub plateau: Plateau,
    /// The scales of values in bytes, where the recipe trains with such.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub scales: Option<Scales>,
    /// What the loss is multiplied by, where the recipe's precision needs that.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub loss_scale: Option<LossScale>,
    /// The epochs done.
    pub epochs: Vec<Epoch>,
}

impl Position {
    /// The beginning of a run of `recipe`.
    pub fn start(recipe: &Recipe) -> Self {
        let (steps, batches, seconds, scales, epochs) = Default::default();
        let (tally, plateau) = Default::default();
        let loss_scale = LossScale::of(recipe.precision);
        Self { steps, epoch: 1, batches, seconds, tally, plateau, scales, loss_scale, epochs }
    }
}

/// All that training changes.
#[derive(Clone)]
pub(crate) struct State<N: Module + ModuleDisplay> {
    pub model: TrainableClassifier<N>,
    pub optimizer: ModuleOptimizer,
    pub average: Option<Average<TrainableClassifier<N>>>,
    pub position: Position,
}

impl<N: Module + ModuleDisplay> State<N> {
    /// The beginning of a run of `recipe` with the parameters of `model`.
    pub fn start(model: TrainableClassifier<N>, recipe: &Recipe) -> Self {
        Self {
            optimizer: recipe.optimizer(&model),
            average: recipe.ema.map(|decay| Average::new(model.valid(), decay)),
            model,
            position: Position::start(recipe),
        }
    }

    /// The same in bytes.
    pub fn in_bytes(self, simulation: &Arc<Simulation>) -> Self {
        let average = self.average.map(|average| Average { module: average.module.in_bytes(simulation), ..average });
        Self { model: self.model.in_bytes(simulation), average, ..self }
    }

    /// The same for batches of the backbone's features.
    pub fn of_features(self) -> Self {
        let average = self.average.map(|average| Average { module: average.module.of_features(), ..average });
        Self { model: self.model.of_features(), average, ..self }
    }
}

const MODEL: &str = "model.bpk";
const OPTIMIZER: &str = "optimizer.bpk";
const AVERAGE: &str = "average.bpk";
const POSITION: &str = "position.toml";

/// The checkpoints in a run's folder: a folder each, `EPOCH-BATCHES`, which appears when all its files are whole.
pub(crate) struct Checkpoints {
    folder: PathBuf,
    keep: usize,
}

impl Checkpoints {
    /// Those of the run in `run`, of which the last `keep` are kept.
    pub fn new(run: &Path, keep: usize) -> Self {
        Self { folder: run.join("checkpoints"), keep }
    }

    /// Writes a checkpoint, then removes those that are too old.
    pub fn save<N: Classifier + ModuleDisplay>(&self, state: &State<N>) -> Result<(), TrainError> {
        let Position { epoch, batches, .. } = state.position;
        let path = self.folder.join(format!("{epoch:05}-{batches:07}"));
        std::fs::create_dir_all(&self.folder).map_err(TrainError::io("create", &self.folder))?;
        let draft = tempfile::Builder::new().prefix(DRAFT).tempdir_in(&self.folder);
        let draft = draft.map_err(TrainError::io("create", &path))?;
        let unwritten = |error: RecordError| TrainError::Checkpoint {
            verb: "write",
            path: path.clone(),
            reason: error.to_string(),
        };
        // Making a copy for evaluation folds the last batch into the running statistics of the model itself.
        drop(state.model.valid());
        state.model.clone().into_record().save(draft.path().join(MODEL)).map_err(unwritten)?;
        state.optimizer.to_record().save(draft.path().join(OPTIMIZER)).map_err(unwritten)?;
        if let Some(average) = &state.average {
            average.module.clone().into_record().save(draft.path().join(AVERAGE)).map_err(unwritten)?;
        }
        // TOML reads floating-point numbers back as they were written.
        let position = toml::to_string(&state.position).expect("a position is a table");
        write_whole(&draft.path().join(POSITION), position.as_bytes())?;
        // A damaged one may stand there, from which the run has not continued.
        if path.exists() {
            std::fs::remove_dir_all(&path).map_err(TrainError::io("replace", &path))?;
        }
        std::fs::rename(draft.path(), &path).map_err(TrainError::io("write", &path))?;
        for old in self.list()?.iter().rev().skip(self.keep) {
            std::fs::remove_dir_all(old).map_err(TrainError::io("remove", old))?;
        }
        Ok(())
    }

    /// The state of a run of `recipe` in the last checkpoint, with a model like `model`. A damaged checkpoint is told to
    /// `damaged`, and the one before it is taken.
    pub fn load<N: Classifier + ModuleDisplay>(
        &self,
        model: &TrainableClassifier<N>,
        recipe: &Recipe,
        mut damaged: impl FnMut(&TrainError),
    ) -> Result<Option<State<N>>, TrainError> {
        for path in self.list()?.iter().rev() {
            match read(path, model.clone(), recipe) {
                Ok(state) => return Ok(Some(state)),
                Err(reason) => damaged(&TrainError::Checkpoint { verb: "read", path: path.clone(), reason }),
            }
        }
        Ok(None)
    }

    /// Removes what a killed run has left half written.
    pub fn clean(&self) -> Result<(), TrainError> {
        for path in self.entries()? {
            if path.file_name().is_some_and(|name| name.as_encoded_bytes().starts_with(DRAFT.as_bytes())) {
                std::fs::remove_dir_all(&path).map_err(TrainError::io("remove", &path))?;
            }
        }
        Ok(())
    }

    /// The checkpoints, the oldest first.
    fn list(&self) -> Result<Vec<PathBuf>, TrainError> {
        let number = |path: &PathBuf| -> Option<[u64; 2]> {
            let (epoch, batches) = path.file_name()?.to_str()?.split_once('-')?;
            let number = [epoch.parse().ok()?, batches.parse().ok()?];
            path.is_dir().then_some(number)
        };
        let mut list: Vec<_> = self.entries()?.into_iter().filter_map(|path| Some((number(&path)?, path))).collect();
        // By number: in the order of names 100000 would stand before 99999.
        list.sort();
        Ok(list.into_iter().map(|(_, path)| path).collect())
    }

    fn entries(&self) -> Result<Vec<PathBuf>, TrainError> {
        if !self.folder.exists() {
            return Ok(Vec::new());
        }
        let entries = std::fs::read_dir(&self.folder)
            .and_then(|entries| entries.map(|entry| entry.map(|entry| entry.path())).collect::<Result<Vec<_>, _>>());
        entries.map_err(TrainError::io("read", &self.folder))
    }
}

/// What the names of unfinished checkpoints begin with.
const DRAFT: &str = ".draft";

/// The state in a checkpoint's folder, or what is wrong with it.
fn read<N: Classifier + ModuleDisplay>(
    path: &Path,
    model: TrainableClassifier<N>,
    recipe: &Recipe,
) -> Result<State<N>, String> {
    /// A kilobyte for each of as many epochs as a recipe may have.
    const MOST_BYTES: u64 = 1 << 30;
    let text = |error: RecordError| error.to_string();
    let position = read_file(&path.join(POSITION), MOST_BYTES).map_err(|error| error.to_string())?;
    let position = toml::from_slice(&position).map_err(|error| error.to_string())?;
    // Parameters take over the ids in the record. Whatever names parameters by id, such as the optimizer's groups and
    // its state, has to be made of the model that is loaded, not of the one before.
    let model = load_state(model, &path.join(MODEL))?;
    let State { model, optimizer, average, .. } = State::start(model, recipe);
    let average = match average {
        Some(average) => {
            let module = load_state(average.module, &path.join(AVERAGE))?;
            Some(Average { module, ..average })
        }
        None => None,
    };
    let optimizer = optimizer.load_record(OptimizerRecord::load(path.join(OPTIMIZER)).map_err(text)?);
    Ok(State { model, optimizer, average, position })
}

/// `module` with the state in a file of a checkpoint, or what is wrong with that.
///
/// # Errors
///
/// When the file is damaged, or is another module's.
pub fn load_state<M: Module>(module: M, path: &Path) -> Result<M, String> {
    // Burn panics where a tensor of the module's is to become one of whole numbers.
    let mut kinds = Kinds { has_whole_numbers: false };
    module.visit(&mut kinds);
    let tensors = Reader::from_file(path).and_then(Reader::into_tensors).map_err(|error| error.to_string())?;
    let whole = tensors.iter().find(|tensor| tensor.dtype.is_int() || tensor.dtype.is_uint());
    if let (false, Some(tensor)) = (kinds.has_whole_numbers, whole) {
        return Err(format!("{} is said to be of whole numbers ({:?})", tensor.name, tensor.dtype));
    }
    let text = |error: RecordError| error.to_string();
    module.try_load_record(ModuleRecord::load(path).map_err(text)?).map_err(text)
}

struct Kinds {
    has_whole_numbers: bool,
}

impl ModuleVisitor for Kinds {
    fn visit_int<const D: usize>(&mut self, _: &Param<Tensor<D, Int>>) {
        self.has_whole_numbers = true;
    }
}
