use std::net::{SocketAddr, TcpListener};
use std::process::ExitCode;

use anyhow::{Context, Result};
use convzoo::device::{self, TOKEN};

use super::select::DevicesArgs;

/// Arguments of `serve`.
#[derive(clap::Args)]
pub struct Args {
    #[command(flatten)]
    devices: DevicesArgs,
    /// Address and port to listen on; 0.0.0.0 is every network of this machine
    #[arg(long, value_name = "ADDRESS:PORT", default_value = "127.0.0.1:3000")]
    listen: SocketAddr,
    /// Serve only who has this token in CONVZOO_TOKEN [default: that of this machine's CONVZOO_TOKEN, if there is one]
    #[arg(long, value_name = "TOKEN")]
    token: Option<String>,
}

pub const EXAMPLES: &str = "Examples:
  convzoo serve --device flex --listen 0.0.0.0:3000 --token SECRET
  convzoo eval --weights best.safetensors --data digits --device ws://HOST:3000     on the other machine";

/// Serves until it is stopped.
pub fn run(args: &Args) -> Result<ExitCode> {
    args.devices.kernels.apply()?;
    let names = args.devices.names()?;
    let token = args.token.clone().or_else(|| std::env::var(TOKEN).ok());
    let listener = TcpListener::bind(args.listen).with_context(|| format!("listening on {}", args.listen))?;
    let address = listener.local_addr().context("asking for the port")?;
    let list = names.iter().map(ToString::to_string).collect::<Vec<_>>().join(", ");
    let whom = if token.is_some() { "who has the token" } else { "anyone" };
    eprintln!("serving {list} at ws://{address} for {whom}, unencrypted; Ctrl-C stops");
    #[cfg(feature = "remote")]
    log_warnings();
    device::serve(&names, listener, token.as_deref())?;
    Ok(ExitCode::SUCCESS)
}

/// Has warnings told, or what RUST_LOG asks for: left to itself Burn's server tells of every tensor that travels, and of
/// each refusal, as the front before it does, that knows the client's address.
#[cfg(feature = "remote")]
fn log_warnings() {
    use tracing_subscriber::EnvFilter;
    let filter =
        EnvFilter::try_from_default_env().unwrap_or_else(|_| EnvFilter::new("warn,burn_remote::transport=error"));
    // Where the process has a subscriber already, that one stays.
    let _ = tracing_subscriber::fmt().with_env_filter(filter).with_writer(std::io::stderr).try_init();
}
