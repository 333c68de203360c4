//! `--device` and `--kernels`.

use anyhow::{Context, Result, anyhow};
use burn::tensor::Device;
use convzoo::device::{self, DeviceName};
use convzoo_kernels::Isa;
use convzoo_kernels::extension::{self, Kernels};

/// `--device`.
#[derive(clap::Args, Clone)]
pub struct DeviceArgs {
    /// Where to compute: flex, ndarray, tch, wgpu[:N], cuda[:N] or ws://HOST:PORT[#N] [default: the best one present]
    #[arg(long, alias = "devices", value_name = "DEVICE")]
    pub device: Option<DeviceName>,
    #[command(flatten)]
    pub kernels: KernelsArgs,
}

impl DeviceArgs {
    /// Opens the device that was asked for, else the best one, with the kernels that were asked for.
    pub fn open(&self) -> Result<(DeviceName, Device)> {
        self.kernels.apply()?;
        let name = match &self.device {
            Some(name) => name.clone(),
            None => best()?,
        };
        let device = name.open()?;
        Ok((name, device))
    }
}

/// Opens the device for what runs on none in particular: counting, converting, drawing weights.
pub fn host() -> Result<Device> {
    Ok(device::host().ok_or_else(none)?.open()?)
}

fn best() -> Result<DeviceName> {
    device::best().ok_or_else(none)
}

fn none() -> anyhow::Error {
    anyhow!("this build has no device that is present")
}

/// `--device`, for one or several.
#[derive(clap::Args, Clone)]
pub struct DevicesArgs {
    /// Where to compute: flex, ndarray, tch, wgpu[:N], cuda[:N] or ws://HOST:PORT[#N], or several with commas between
    /// [default: the best one present]
    #[arg(long, alias = "devices", value_name = "DEVICE,…", value_delimiter = ',')]
    pub device: Vec<DeviceName>,
    #[command(flatten)]
    pub kernels: KernelsArgs,
}

impl DevicesArgs {
    /// The devices that were asked for, else the best one.
    pub fn names(&self) -> Result<Vec<DeviceName>> {
        match self.device.as_slice() {
            [] => Ok(vec![best()?]),
            names => Ok(names.to_vec()),
        }
    }
}

/// `--kernels`.
#[derive(clap::Args, Clone, Copy)]
pub struct KernelsArgs {
    /// Whether flex and GPUs compute with convzoo's kernels or Burn's [default: what the environment's CONVZOO_KERNELS says, else
    /// on]
    #[arg(long, value_enum)]
    kernels: Option<Switch>,
}

impl KernelsArgs {
    /// Whether they were asked for or against.
    pub fn asked(&self) -> Option<bool> {
        self.kernels.map(|switch| switch == Switch::On)
    }

    /// Has flex compute as was asked for, and makes the threads to do it.
    pub fn apply(&self) -> Result<()> {
        make_threads()?;
        extension::choose(match self.kernels {
            Some(Switch::On) => Kernels::Convzoo,
            Some(Switch::Off) => Kernels::Burn,
            None => Kernels::from_environment()?,
        })?;
        Isa::detect()?;
        Ok(())
    }
}

/// On or off.
#[derive(clap::ValueEnum, Clone, Copy, PartialEq)]
pub enum Switch {
    /// On
    On,
    /// Off
    Off,
}

/// Makes the threads that the CPU computes with, where that can still be an error.
pub fn make_threads() -> Result<()> {
    use std::error::Error;
    match rayon::ThreadPoolBuilder::new().build_global() {
        // Without a source they are there already.
        Err(error) if error.source().is_some() => Err(error).context(
            "no threads can be made to compute with; fewer (RAYON_NUM_THREADS=1), or a higher limit (ulimit -u), help",
        ),
        _ => Ok(()),
    }
}
