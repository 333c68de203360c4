//! From options to a service that runs until it is to stop.

use std::ffi::OsString;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use anyhow::{Context, Result, bail};
use convzoo::data::Source;
use convzoo::{Classifier, Network, Options, device, pretrained};
use tokio::net::TcpListener;
use tokio::sync::{Semaphore, watch};

use crate::batch::{self, Queue};
use crate::http::{self, Service, router};
use crate::metrics::Metrics;

/// Arguments of `serve`.
#[derive(clap::Args)]
pub struct Args {
    /// The network
    #[arg(default_value = "lenet5")]
    pub model: String,
    /// Its weights: a file, or the name of published ones [default for lenet5: those of the digits]
    #[arg(long)]
    pub weights: Option<OsString>,
    /// Where to compute
    #[arg(long, default_value = "flex")]
    pub device: String,
    /// Address and port; port 0 is any that is free
    #[arg(long, default_value = "127.0.0.1:8080")]
    pub listen: SocketAddr,
    /// Classes of each answer
    #[arg(long, default_value_t = 5, value_parser = clap::value_parser!(u32).range(1..))]
    pub top: u32,
    /// The most images of a pass
    #[arg(long, default_value_t = 16, value_parser = clap::value_parser!(u32).range(1..=1024))]
    pub max_batch: u32,
    /// The longest that an image waits for those that are being decoded, in milliseconds
    #[arg(long, default_value_t = 2)]
    pub max_wait: u64,
    /// The most images that wait
    #[arg(long, default_value_t = 256, value_parser = clap::value_parser!(u32).range(1..=65536))]
    pub queue: u32,
    /// The most bytes of a request
    #[arg(long, default_value_t = 16 << 20)]
    pub max_bytes: usize,
    /// The most pixels of an image
    #[arg(long, default_value_t = 50_000_000)]
    pub max_pixels: u64,
    /// The most images of a form
    #[arg(long, default_value_t = 16, value_parser = clap::value_parser!(u32).range(1..=1024))]
    pub max_images: u32,
    /// The longest that a request's body may take to come, and then its answer, in milliseconds
    #[arg(long, default_value_t = 10_000)]
    pub timeout: u64,
}

/// Serves until SIGTERM or Ctrl-C: then no connection is taken, and what was asked is answered. `ready` is told the
/// address.
pub async fn run(args: Args, ready: impl FnOnce(SocketAddr)) -> Result<()> {
    let device = device::open(&args.device)?;
    let network = network(&args, &device)?.for_inference()?;
    let (preprocessing, input) = (network.network().preprocessing(), network.network().input());
    let limits = batch::Limits {
        batch: args.max_batch as usize,
        wait: Duration::from_millis(args.max_wait),
        queue: args.queue as usize,
    };
    let metrics = Arc::new(Metrics::default());
    let (queue, thread) = Queue::start(network, args.top as usize, limits, Arc::clone(&metrics))?;
    let time = Duration::from_millis(args.timeout);
    let cores = std::thread::available_parallelism().map_or(1, usize::from);
    let service = Service {
        queue,
        metrics,
        limits: http::Limits { bytes: args.max_bytes, pixels: args.max_pixels, images: args.max_images as usize, time },
        preprocessing,
        input,
        decoders: Semaphore::new(cores),
    };
    let listener = TcpListener::bind(args.listen).await.with_context(|| format!("listening on {}", args.listen))?;
    ready(listener.local_addr().context("asking for the port")?);

    let (stop, mut stopping) = watch::channel(false);
    let stopped = async move {
        asked_to_stop().await;
        let _ = stop.send(true);
    };
    let served = axum::serve(listener, router(Arc::new(service))).with_graceful_shutdown(stopped).into_future();
    let patience = async {
        // A request takes at most twice this; who has not even asked by then is not waited for.
        let _ = stopping.wait_for(|stopping| *stopping).await;
        tokio::time::sleep(2 * time).await;
    };
    tokio::select! {
        served = served => served.context("serving")?,
        () = patience => {}
    }
    // With the last connection the queue has gone, and the network's thread ends.
    tokio::task::spawn_blocking(move || thread.join()).await?.map_err(|_| anyhow::anyhow!("the network's thread died"))
}

fn network(args: &Args, device: &burn::tensor::Device) -> Result<Network> {
    Ok(match (&args.weights, args.model.as_str()) {
        (Some(weights), model) => pretrained::load(model, weights, &Options::default(), &Source::default(), device)?,
        (None, "lenet5") => pretrained::lenet5_digits(device)?,
        (None, model) => bail!("{model} needs --weights; only lenet5 comes with weights of its own"),
    })
}

/// Until the system, or who sits at the terminal, asks for an end.
async fn asked_to_stop() {
    #[cfg(unix)]
    {
        use tokio::signal::unix::{SignalKind, signal};
        if let Ok(mut term) = signal(SignalKind::terminate()) {
            tokio::select! {
                _ = term.recv() => {}
                _ = tokio::signal::ctrl_c() => {}
            }
            return;
        }
    }
    let _ = tokio::signal::ctrl_c().await;
}
