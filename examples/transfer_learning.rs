//! Hand signs with SqueezeNet: a network that knows ImageNet is taught ten signs from sixteen hundred photographs. First
//! only its new head is trained, then all of it.
//!
//! `cargo run --release --example transfer_learning -- SIGNS WEIGHTS [FOLDER]`: the folder or archive of photographs,
//! SqueezeNet 1.0's weights, and where the two runs go (`runs/hand-signs`). With `--quick` first it is a try: a tenth of
//! the photographs, an epoch each, nothing kept.
//!
//! The photographs are the Sign Language Digits Dataset, <https://github.com/ardamavi/Sign-Language-Digits-Dataset>
//! (Apache License 2.0), the weights torchvision's `squeezenet1_0`, from
//! <https://download.pytorch.org/models/squeezenet1_0-b66bff10.pth>.

use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::Arc;

use convzoo::data::{Dataset, Source, Splits, Subset, open};
use convzoo::train::{Event, Recipe, TrainError, Trainer};
use convzoo::weights::{self, Checkpoint};
use convzoo::{Classifier, Network, Options, create_from, device};

fn main() -> Result<(), Box<dyn std::error::Error>> {
    let mut arguments: Vec<String> = std::env::args().skip(1).collect();
    let quick = arguments.first().is_some_and(|first| first == "--quick");
    let mut paths = arguments.drain(usize::from(quick)..).map(PathBuf::from);
    let (Some(signs), Some(pretrained)) = (paths.next(), paths.next()) else {
        println!("skipped: give the photographs and the weights; the first lines of this example say where they are");
        return Ok(());
    };
    let out = paths.next().unwrap_or_else(|| "runs/hand-signs".into());
    if let Some(missing) = [&signs, &pretrained].into_iter().find(|path| !path.exists()) {
        return Err(format!("{} is not there", missing.display()).into());
    }

    let temporary = tempfile::tempdir()?;
    let out = if quick { temporary.path().join("runs") } else { out };
    let signs = if signs.is_file() { unpack(&signs, temporary.path())? } else { signs };
    // A fifth of each sign, chosen by the seed, is for testing.
    let mut data = open("folder", &Source { split_seed: Some(0), ..Source::folder(signs) })?;
    if quick {
        data = Splits { train: tenth(data.train), test: tenth(data.test), ..data };
    }

    let name = device::best().ok_or("this build has no device that is present")?;
    let device = name.open()?;
    device.seed(0);
    let checkpoint = Checkpoint::open(&pretrained)?;
    let network = create_from("squeezenet1_0", checkpoint, &Options::default(), &device.clone().autodiff())?;
    let network = network.replace_head(data.classes().len()).with_labels(data.classes().to_vec())?;

    let recipe = |name: &str| -> Result<Recipe, TrainError> {
        let recipe = Recipe::named(name)?;
        Ok(if quick { Recipe { epochs: 1, ..recipe } } else { recipe })
    };
    let on = name.to_string();
    let network = train("the head", network, recipe("transfer_head")?, &data, &on, out.join("head"))?;
    train("the whole network", network, recipe("transfer")?, &data, &on, out.join("whole"))?;
    Ok(())
}

/// Trains in a folder and returns the network at its best.
fn train(
    what: &'static str,
    network: Network,
    recipe: Recipe,
    data: &Splits,
    device_name: &str,
    out: PathBuf,
) -> Result<Network, Box<dyn std::error::Error>> {
    println!("{what}, {} images to train on and {} to test on:", data.train.len(), data.test.len());
    let best = out.join("best.safetensors");
    let trainer = Trainer::new(network.clone(), data.clone()).recipe(recipe).device_name(device_name).out(out);
    trainer.start(|event| {
        if let Event::Epoch(epoch, _) = event {
            let (accuracy, seconds) = (100.0 * epoch.held_out.measures().accuracy, epoch.seconds);
            println!("  epoch {}: {accuracy:.2}% of the test images, {seconds:.0} s", epoch.epoch);
        }
    })?;
    Ok(weights::load(network, &best)?)
}

/// The folder of signs in an archive.
fn unpack(archive: &Path, folder: &Path) -> Result<PathBuf, Box<dyn std::error::Error>> {
    let status = Command::new("tar").arg("-xzf").arg(archive).arg("-C").arg(folder).status()?;
    if status.success() { Ok(folder.join("Dataset")) } else { Err("tar cannot unpack the photographs".into()) }
}

fn tenth(data: Arc<dyn Dataset>) -> Arc<dyn Dataset> {
    let indices = (0..data.len()).step_by(10).collect();
    Arc::new(Subset::new(data, indices))
}
