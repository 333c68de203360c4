//! Devices by name: `flex`, `ndarray`, `tch`, `wgpu[:N]`, `cuda[:N]`, `ws://HOST:PORT[#N]`.

use std::fmt;
use std::net::TcpListener;
use std::str::FromStr;

use burn::tensor::Device;
use serde::Serialize;
use thiserror::Error;

#[cfg(feature = "remote")]
use crate::front::Front;

/// A device that can be asked for, whether or not this build has it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum DeviceName {
    /// Burn's own CPU backend in pure Rust.
    Flex,
    /// The CPU through the ndarray crate.
    NdArray,
    /// libtorch on the CPU.
    Tch,
    /// A GPU through Vulkan, Metal or DirectX; the number counts those present.
    Wgpu(usize),
    /// An NVIDIA GPU.
    Cuda(usize),
    /// A device that another machine offers by [`serve`]; the number counts those that it offers. Where the server
    /// wants a token, it is taken from the environment's `CONVZOO_TOKEN`.
    Remote {
        /// `ws://HOST:PORT`.
        url: String,
        /// Counted from 0.
        index: usize,
    },
}

/// Why a device cannot be had.
#[derive(Debug, Error, PartialEq, Eq)]
pub enum DeviceError {
    /// No device is called so.
    #[error("there is no device '{name}'; devices are {SPELLINGS}")]
    Unknown {
        /// What was asked for.
        name: String,
    },
    /// This build leaves the device out.
    #[error("this build is without '{name}'; build with `--features {feature}` (compiled in: {})", compiled().join(", "))]
    NotCompiled {
        /// What was asked for.
        name: String,
        /// The cargo feature that adds it.
        feature: &'static str,
    },
    /// The device is compiled in, and not there.
    #[error("'{name}' is not present: {reason}")]
    Absent {
        /// What was asked for.
        name: String,
        /// What was found instead.
        reason: String,
    },
    /// Devices cannot be offered to other machines.
    #[error("cannot serve: {reason}")]
    Serve {
        /// What Burn's server says.
        reason: String,
    },
}

const SPELLINGS: &str = "flex, ndarray, tch, wgpu[:N], cuda[:N] and ws://HOST:PORT[#N]";

/// The variable of the environment that holds the token of remote devices.
pub const TOKEN: &str = "CONVZOO_TOKEN";

impl FromStr for DeviceName {
    type Err = DeviceError;

    fn from_str(name: &str) -> Result<Self, DeviceError> {
        let unknown = || DeviceError::Unknown { name: name.to_owned() };
        if let Some(host) = name.strip_prefix("ws://") {
            let (host, index) = host.split_once('#').unwrap_or((host, "0"));
            let (false, true, Ok(index)) = (host.starts_with(':'), host.contains(':'), index.parse()) else {
                return Err(unknown());
            };
            return Ok(Self::Remote { url: format!("ws://{host}"), index });
        }
        let (kind, index) = match name.split_once(':') {
            Some((kind, index)) => (kind, Some(index.parse::<usize>().map_err(|_| unknown())?)),
            None => (name, None),
        };
        match (kind, index) {
            ("flex", None) => Ok(Self::Flex),
            ("ndarray", None) => Ok(Self::NdArray),
            ("tch", None) => Ok(Self::Tch),
            ("wgpu", index) => Ok(Self::Wgpu(index.unwrap_or(0))),
            ("cuda", index) => Ok(Self::Cuda(index.unwrap_or(0))),
            _ => Err(unknown()),
        }
    }
}

impl fmt::Display for DeviceName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Wgpu(0) | Self::Cuda(0) | Self::Flex | Self::NdArray | Self::Tch => f.write_str(self.feature()),
            Self::Wgpu(index) | Self::Cuda(index) => write!(f, "{}:{index}", self.feature()),
            Self::Remote { url, index: 0 } => f.write_str(url),
            Self::Remote { url, index } => write!(f, "{url}#{index}"),
        }
    }
}

impl DeviceName {
    /// The cargo feature that compiles it in.
    pub fn feature(&self) -> &'static str {
        match self {
            Self::Flex => "flex",
            Self::NdArray => "ndarray",
            Self::Tch => "tch",
            Self::Wgpu(_) => "wgpu",
            Self::Cuda(_) => "cuda",
            Self::Remote { .. } => "remote",
        }
    }

    /// Opens the device, or says why it cannot be had.
    #[allow(deprecated)] // burn-ndarray and burn-tch are deprecated upstream and part of this project
    pub fn open(&self) -> Result<Device, DeviceError> {
        match self {
            #[cfg(feature = "flex")]
            Self::Flex => Ok(Device::flex()),
            #[cfg(feature = "ndarray")]
            Self::NdArray => Ok(Device::ndarray()),
            #[cfg(feature = "tch")]
            Self::Tch => Ok(Device::libtorch()),
            #[cfg(feature = "wgpu")]
            Self::Wgpu(index) => wgpu().into_iter().nth(*index).map(|(device, _)| device).ok_or_else(|| {
                let reason = match wgpu().len() {
                    0 => "no GPU and no software rasterizer is present through Vulkan, Metal or DirectX".to_owned(),
                    count => format!("there are {count} adapters, counted from 0"),
                };
                DeviceError::Absent { name: self.to_string(), reason }
            }),
            #[cfg(feature = "cuda")]
            Self::Cuda(index) => match cuda() {
                Ok(names) if *index < names.len() => Ok(Device::cuda(*index)),
                Ok(names) => {
                    let reason = format!("there are {} NVIDIA GPUs, counted from 0", names.len());
                    Err(DeviceError::Absent { name: self.to_string(), reason })
                }
                Err(reason) => Err(DeviceError::Absent { name: self.to_string(), reason }),
            },
            #[cfg(feature = "remote")]
            Self::Remote { url, index } => {
                let host = burn::remote::RemoteHost::websocket(url);
                let host = match std::env::var(TOKEN) {
                    Ok(token) => host.with_credential(token),
                    Err(_) => host,
                };
                let absent = |reason: String| DeviceError::Absent { name: self.to_string(), reason };
                let options = Device::remote_options(&host).device_index(*index);
                options.init().map_err(|error| absent(error.to_string()))
            }
            #[allow(unreachable_patterns)] // every device may be compiled in
            _ => Err(DeviceError::NotCompiled { name: self.to_string(), feature: self.feature() }),
        }
    }
}

/// Opens the device of this name.
pub fn open(name: &str) -> Result<Device, DeviceError> {
    name.parse::<DeviceName>()?.open()
}

/// Offers `devices`, all of one kind, to other machines that present `token`, or to all without one, until the process
/// is asked to stop. Nothing on the way is encrypted: a token keeps strangers out of a trusted network, and no more.
///
/// Burn's server listens on loopback, behind what keeps from it all that is no client's.
#[cfg(feature = "remote")]
pub fn serve(devices: &[DeviceName], listener: TcpListener, token: Option<&str>) -> Result<(), DeviceError> {
    use burn::server::{
        AuthorizationRequest, ClientId, PeerAuthorizer, RemoteServer, TokenAuthorizer, WebSocketTransport,
    };
    let failed = |reason: String| DeviceError::Serve { reason };
    let devices = devices.iter().map(DeviceName::open).collect::<Result<Vec<_>, _>>()?;
    let token = token.map(TokenAuthorizer::new).transpose().map_err(|error| failed(error.to_string()))?;
    let inner = TcpListener::bind((std::net::Ipv4Addr::LOCALHOST, 0)).map_err(|error| failed(error.to_string()))?;
    let address = inner.local_addr().map_err(|error| failed(error.to_string()))?;
    let front = Front::open(listener, address).map_err(|error| failed(error.to_string()))?;
    let doors = front.doors();
    let authorizer = move |request: AuthorizationRequest<'_>| {
        let ClientId::WebSocket(address) = request.client else { return Err("it came by another way".to_owned()) };
        let has_token = token.as_ref().is_none_or(|token| token.authorize(request).is_ok());
        doors.decide(address, if has_token { Ok(()) } else { Err("it has not the token".to_owned()) })
    };
    let server = RemoteServer::new(devices).with_authorizer(authorizer);
    server.serve(WebSocketTransport::from_listener(inner)).map_err(|error| failed(error.to_string()))
}

/// Offers devices to other machines, in builds that can.
#[cfg(not(feature = "remote"))]
pub fn serve(_: &[DeviceName], _: TcpListener, _: Option<&str>) -> Result<(), DeviceError> {
    Err(DeviceError::NotCompiled { name: "serve".to_owned(), feature: "remote" })
}

/// The best device that is compiled in and present: an NVIDIA GPU, another GPU, libtorch, flex, ndarray.
pub fn best() -> Option<DeviceName> {
    let gpu = |found: &Found| found.present && found.hardware != Hardware::Software;
    let found = all();
    let present = |name: &str| {
        found
            .iter()
            .find(|found| gpu(found) && found.name.split(':').next() == Some(name))
            .map(|found| found.name.clone())
    };
    ["cuda", "wgpu", "tch", "flex", "ndarray"].into_iter().find_map(present).and_then(|name| name.parse().ok())
}

/// Where this process computes what is no device's: its CPU, or the best device of a build that has none for it.
///
/// Networks to be trained draw their weights here. So a seed gives the same ones on every device, also on one that is
/// served to others, whose draws come from the same generator.
pub fn host() -> Option<DeviceName> {
    [DeviceName::Flex, DeviceName::NdArray, DeviceName::Tch]
        .into_iter()
        .find(|name| compiled().contains(&name.feature()))
        .or_else(best)
}

/// What `convzoo devices` says of a device.
#[derive(Debug, Clone, Serialize)]
pub struct Found {
    /// As `--device` names it.
    pub name: String,
    /// Whether this build has it.
    pub compiled: bool,
    /// Whether it can be used here.
    pub present: bool,
    /// What it runs on.
    pub hardware: Hardware,
    /// The hardware's own name, or why it is absent.
    pub description: String,
}

/// What a device runs on.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum Hardware {
    /// The CPU.
    Cpu,
    /// A graphics card.
    Gpu,
    /// A software rasterizer: a GPU that the CPU emulates.
    Software,
    /// Another machine.
    Remote,
}

/// Every device there is a name for: compiled in or not, present or not.
pub fn all() -> Vec<Found> {
    let cpu = |name: &str, compiled: bool, description: &str| Found {
        name: name.to_owned(),
        compiled,
        present: compiled,
        hardware: Hardware::Cpu,
        description: description.to_owned(),
    };
    let mut found = vec![
        cpu("flex", cfg!(feature = "flex"), "CPU, Burn's own backend in pure Rust"),
        cpu("ndarray", cfg!(feature = "ndarray"), "CPU, the ndarray crate"),
        cpu("tch", cfg!(feature = "tch"), "CPU, libtorch"),
    ];
    found.extend(wgpu_found());
    found.extend(cuda_found());
    found.push(Found {
        name: "ws://HOST:PORT".to_owned(),
        compiled: cfg!(feature = "remote"),
        present: cfg!(feature = "remote"),
        hardware: Hardware::Remote,
        description: "a device that another machine offers".to_owned(),
    });
    found
}

fn compiled() -> Vec<&'static str> {
    let features = [
        ("flex", cfg!(feature = "flex")),
        ("ndarray", cfg!(feature = "ndarray")),
        ("tch", cfg!(feature = "tch")),
        ("wgpu", cfg!(feature = "wgpu")),
        ("cuda", cfg!(feature = "cuda")),
        ("remote", cfg!(feature = "remote")),
    ];
    features.into_iter().filter_map(|(name, compiled)| compiled.then_some(name)).collect()
}

fn absent(name: &str, compiled: bool, description: impl Into<String>) -> Found {
    Found { name: name.to_owned(), compiled, present: false, hardware: Hardware::Gpu, description: description.into() }
}

/// The adapters that are present, GPUs before software rasterizers, with their names.
#[cfg(feature = "wgpu")]
fn wgpu() -> Vec<(Device, String)> {
    use burn::tensor::DeviceType;
    let mut adapters: Vec<_> = Device::enumerate(DeviceType::Wgpu)
        .into_vec()
        .into_iter()
        .map(|device| (device.identity(), device))
        .filter_map(|(identity, device)| identity.map(|identity| (identity, device)))
        .collect();
    // A software rasterizer is no card.
    adapters.sort_by_key(|(identity, _)| identity.physical.is_none());
    adapters.into_iter().map(|(identity, device)| (device, identity.name)).collect()
}

#[cfg(feature = "wgpu")]
fn wgpu_found() -> Vec<Found> {
    let adapters = wgpu();
    if adapters.is_empty() {
        return vec![absent("wgpu", true, "no adapter is present through Vulkan, Metal or DirectX")];
    }
    let found = adapters.into_iter().enumerate().map(|(index, (device, description))| {
        let software = device.identity().is_none_or(|identity| identity.physical.is_none());
        Found {
            name: DeviceName::Wgpu(index).to_string(),
            compiled: true,
            present: true,
            hardware: if software { Hardware::Software } else { Hardware::Gpu },
            description,
        }
    });
    found.collect()
}

#[cfg(not(feature = "wgpu"))]
fn wgpu_found() -> Vec<Found> {
    vec![absent("wgpu", false, "a GPU through Vulkan, Metal or DirectX")]
}

/// The NVIDIA GPUs by name, asked of the driver's management library: Burn itself panics, in a thread of its own,
/// where there is no driver.
#[cfg(feature = "cuda")]
fn cuda() -> Result<Vec<String>, String> {
    let nvml = nvml_wrapper::Nvml::init().map_err(|error| format!("no NVIDIA driver answers ({error})"))?;
    let count = nvml.device_count().map_err(|error| error.to_string())?;
    (0..count).map(|i| nvml.device_by_index(i).and_then(|gpu| gpu.name()).map_err(|error| error.to_string())).collect()
}

#[cfg(feature = "cuda")]
fn cuda_found() -> Vec<Found> {
    let gpus = match cuda() {
        Ok(gpus) => gpus,
        Err(reason) => return vec![absent("cuda", true, reason)],
    };
    let found = gpus.into_iter().enumerate().map(|(index, description)| Found {
        name: DeviceName::Cuda(index).to_string(),
        compiled: true,
        present: true,
        hardware: Hardware::Gpu,
        description,
    });
    found.collect()
}

#[cfg(not(feature = "cuda"))]
fn cuda_found() -> Vec<Found> {
    vec![absent("cuda", false, "an NVIDIA GPU")]
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_are_read_and_written_alike() {
        for name in ["flex", "ndarray", "tch", "wgpu", "wgpu:1", "cuda", "cuda:3", "ws://gpu:3000", "ws://gpu:1#2"] {
            assert_eq!(name.parse::<DeviceName>().unwrap().to_string(), name);
        }
        assert_eq!("wgpu:0".parse::<DeviceName>().unwrap(), DeviceName::Wgpu(0));
    }

    #[test]
    fn a_bad_name_gives_the_valid_ones() {
        for name in [
            "",
            "gpu",
            "cuda:",
            "cuda:x",
            "flex:1",
            "wgpu:-1",
            "ws://",
            "ws://:80",
            "ws://host",
            "ws://host:1#x",
            "FLEX",
        ] {
            let error = name.parse::<DeviceName>().unwrap_err().to_string();
            assert!(error.contains(SPELLINGS), "{name}: {error}");
        }
    }

    #[test]
    fn what_is_compiled_in_opens_and_the_rest_names_its_feature() {
        for (name, compiled) in [("flex", cfg!(feature = "flex")), ("ndarray", cfg!(feature = "ndarray"))] {
            assert_eq!(open(name).is_ok(), compiled, "{name}");
        }
        if !cfg!(feature = "cuda") {
            let error = open("cuda").unwrap_err();
            assert_eq!(error, DeviceError::NotCompiled { name: "cuda".to_owned(), feature: "cuda" });
        }
    }

    #[test]
    fn the_best_device_is_there() {
        let best = best().expect("flex is compiled in");
        assert!(best.open().is_ok(), "{best}");
    }
}
