//! An HTTP service that classifies images: one network, loaded once, for all who ask at the same time.
//!
//! `cargo run --release --features service --example service -- serve squeezenet1_1 --weights imagenet1k_v1`, then
//! `curl --data-binary @photo.jpg -H 'Content-Type: image/jpeg' http://127.0.0.1:8080/predict`; `load` measures it.

mod batch;
mod http;
mod load;
mod metrics;
mod serve;

use anyhow::Result;
use clap::{Parser, Subcommand};

#[derive(Parser)]
#[command(name = "service", about = "An HTTP service that classifies images, and what measures it")]
struct Arguments {
    #[command(subcommand)]
    command: Command,
}

#[derive(Subcommand)]
enum Command {
    /// Answer images until SIGTERM or Ctrl-C
    Serve(serve::Args),
    /// Ask a service on this machine from several clients at once, and tell its speed
    Load(load::Args),
}

fn main() -> Result<()> {
    // Threads for connections; the network has its own.
    let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(2).enable_all().build()?;
    runtime.block_on(async {
        match Arguments::parse().command {
            Command::Serve(args) => serve::run(args, |address| println!("listening on http://{address}")).await,
            Command::Load(args) => load::run(&args).await,
        }
    })
}
