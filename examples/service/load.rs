//! Asks a service on this machine from several clients at once.

use std::net::SocketAddr;
use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail, ensure};
use tokio::io::{AsyncBufReadExt, AsyncReadExt, AsyncWriteExt, BufReader};
use tokio::net::TcpStream;
use tokio::task::JoinSet;

/// Arguments of `load`.
#[derive(clap::Args)]
pub struct Args {
    /// The service's address, of this machine
    #[arg(long, default_value = "127.0.0.1:8080")]
    pub address: SocketAddr,
    /// The image to ask for, a JPEG or PNG file
    #[arg(long)]
    pub image: PathBuf,
    /// Clients at once, each with a connection of its own: one row for each number
    #[arg(long, value_delimiter = ',', default_value = "1,4,16,64", value_parser = clap::value_parser!(u16).range(1..=512))]
    pub clients: Vec<u16>,
    /// Requests of each row
    #[arg(long, default_value_t = 1000, value_parser = clap::value_parser!(u32).range(1..=10_000_000))]
    pub requests: u32,
}

/// Measures each number of clients, and prints a table.
pub async fn run(args: &Args) -> Result<()> {
    ensure!(args.address.ip().is_loopback(), "load is for a service on this machine: {} is not", args.address);
    let image = std::fs::read(&args.image).with_context(|| format!("reading {}", args.image.display()))?;
    let kind = if image.starts_with(&[0xff, 0xd8]) { "image/jpeg" } else { "image/png" };
    let request = Arc::new(post(args.address, kind, &image));
    println!("| clients | images/s | 50th ms | 95th ms | 99th ms | memory MiB |");
    println!("| --: | --: | --: | --: | --: | --: |");
    for &clients in &args.clients {
        let start = Instant::now();
        let mut times = ask(args.address, &request, clients, args.requests as usize).await?;
        let rate = times.len() as f64 / start.elapsed().as_secs_f64();
        times.sort_unstable();
        let [p50, p95, p99] = [0.5, 0.95, 0.99].map(|share| {
            let at = (share * (times.len() - 1) as f64).round() as usize;
            1e3 * times[at].as_secs_f64()
        });
        let memory = memory(args.address).await?;
        println!("| {clients} | {rate:.0} | {p50:.2} | {p95:.2} | {p99:.2} | {memory:.1} |");
    }
    Ok(())
}

/// A request for an image's classes.
fn post(address: SocketAddr, kind: &str, image: &[u8]) -> Vec<u8> {
    let length = image.len();
    let head = format!(
        "POST /predict HTTP/1.1\r\nHost: {address}\r\nContent-Type: {kind}\r\nContent-Length: {length}\r\n\r\n"
    );
    [head.as_bytes(), image].concat()
}

/// The times of so many requests, which the clients share.
async fn ask(address: SocketAddr, request: &Arc<Vec<u8>>, clients: u16, requests: usize) -> Result<Vec<Duration>> {
    let begun = Arc::new(AtomicUsize::new(0));
    let mut tasks = JoinSet::new();
    for _ in 0..clients {
        let (begun, request) = (Arc::clone(&begun), Arc::clone(request));
        tasks.spawn(async move {
            let mut connection = BufReader::new(TcpStream::connect(address).await.context("connecting")?);
            connection.get_ref().set_nodelay(true).context("connecting")?;
            let mut times = Vec::new();
            while begun.fetch_add(1, Ordering::Relaxed) < requests {
                let start = Instant::now();
                let (status, body) = exchange(&mut connection, &request).await?;
                ensure!(status == 200, "the service answers {status}: {body}");
                times.push(start.elapsed());
            }
            anyhow::Ok(times)
        });
    }
    let mut times = Vec::with_capacity(requests);
    while let Some(done) = tasks.join_next().await {
        times.extend(done.context("a client")??);
    }
    Ok(times)
}

/// Writes a request and reads its answer: the status and the body.
pub async fn exchange(connection: &mut BufReader<TcpStream>, request: &[u8]) -> Result<(u16, String)> {
    connection.get_mut().write_all(request).await.context("asking")?;
    let mut line = String::new();
    connection.read_line(&mut line).await.context("reading an answer")?;
    let status = line.split(' ').nth(1).and_then(|status| status.parse().ok());
    let Some(status) = status else { bail!("no answer, but '{}'", line.trim_end()) };
    let mut length = 0;
    loop {
        line.clear();
        connection.read_line(&mut line).await.context("reading an answer")?;
        match line.trim_end().split_once(':') {
            Some((name, value)) if name.eq_ignore_ascii_case("content-length") => {
                length = value.trim().parse().context("reading a length")?;
            }
            Some(_) => {}
            None => break,
        }
    }
    let mut body = vec![0; length];
    connection.read_exact(&mut body).await.context("reading an answer")?;
    Ok((status, String::from_utf8_lossy(&body).into_owned()))
}

/// The memory that the service says it holds, in MiB.
async fn memory(address: SocketAddr) -> Result<f64> {
    let mut connection = BufReader::new(TcpStream::connect(address).await.context("connecting")?);
    let request = format!("GET /metrics HTTP/1.1\r\nHost: {address}\r\n\r\n");
    let (_, text) = exchange(&mut connection, request.as_bytes()).await?;
    let value = text.lines().find_map(|line| line.strip_prefix("process_resident_memory_bytes "));
    Ok(value.and_then(|bytes| bytes.parse::<f64>().ok()).unwrap_or(f64::NAN) / f64::from(1 << 20))
}
