//! The page in the browser: its program in WebAssembly, its files, a server on loopback, and what tests it in Chromium.

use std::fs;
use std::io::{self, BufRead, BufReader, Read, Write};
use std::net::{Ipv4Addr, TcpListener, TcpStream};
use std::path::{Component, Path, PathBuf};
use std::process::{Command, ExitCode};
use std::thread;
use std::time::Duration;

use anyhow::{Context, Result, bail, ensure};
use flate2::{Compression, write::GzEncoder};
use serde_json::json;

use crate::{cargo, cargo_executable, root, succeed, write_whole};

/// What the chore is asked.
#[derive(clap::Args)]
pub struct Args {
    /// Serve the folder on loopback until the program is stopped
    #[arg(long)]
    serve: bool,
    /// The port to serve on
    #[arg(long, value_name = "N", default_value_t = 8080)]
    port: u16,
    /// Where the folder is written
    #[arg(long, value_name = "DIR", default_value = "target/web/page")]
    out: PathBuf,
    /// Weights to put beside the page, each a file whose name begins with its network's: .safetensors or .czc
    #[arg(long, value_name = "FILE", num_args = 1..)]
    weights: Vec<PathBuf>,
    /// Drive the page in headless Chromium
    #[arg(long)]
    check: bool,
    /// Measure the page in headless Chromium beside onnxruntime-web
    #[arg(long)]
    measure: bool,
    /// A convzoo that is built already [default: one built as `cargo build` does]
    #[arg(long, value_name = "FILE")]
    binary: Option<PathBuf>,
}

/// What each form is compiled with: loop strength reduction would compute each address that a load's constant offset holds,
/// and SqueezeNet 1.1 would take a tenth longer.
const FLAGS: &str = "-C llvm-args=-disable-lsr";

/// The program's forms, each with the instructions it is compiled for; WebAssembly cannot ask for them when it runs.
const FORMS: [(&str, &str, &str); 3] = [
    ("plain", "convzoo.wasm", ""),
    ("simd", "convzoo-simd.wasm", "-C target-feature=+simd128"),
    ("relaxed", "convzoo-relaxed.wasm", "-C target-feature=+simd128,+relaxed-simd"),
];

const TARGET: &str = "wasm32-unknown-unknown";

/// What one loads to see anything, without weights, compressed as servers do.
const MOST_BYTES: usize = 1_500_000;

/// The networks that the page has descriptions of: of every kind one, and those that are not too large for it.
const NETWORKS: [&str; 16] = [
    "lenet5",
    "alexnet",
    "vgg11",
    "squeezenet1_0",
    "squeezenet1_1",
    "googlenet",
    "resnet18",
    "resnet34",
    "resnet50",
    "resnet20_cifar",
    "densenet121",
    "mobilenet_v2",
    "mobilenet_v3_small",
    "shufflenet_v2_x1_0",
    "efficientnet_b0",
    "convnext_tiny",
];

const DIGITS: &str = "crates/convzoo/weights/lenet5-digits.safetensors";

/// Puts the page together, then does with it what is asked.
pub fn run(args: &Args) -> Result<ExitCode> {
    let program = match &args.binary {
        // Node.js runs in a folder of its own.
        Some(program) => fs::canonicalize(program).with_context(|| format!("looking for {}", program.display()))?,
        None => cargo_executable(&mut cargo(["build", "--bin", "convzoo"])?, "convzoo")?,
    };
    let page = root().join(&args.out);
    build(&page)?;
    fill(&page, &program, &args.weights)?;
    println!("the page is in {}", page.display());
    if args.check {
        browse(&["--test"], &page, &program)?;
    }
    if args.measure {
        browse(&["measure.mjs"], &page, &program)?;
    }
    if args.serve {
        let server = Server::new(page, args.port)?;
        println!("serving it on {}", server.url()?);
        server.run();
    }
    Ok(ExitCode::SUCCESS)
}

/// Builds the program in each form.
fn build(page: &Path) -> Result<()> {
    succeed(Command::new("rustup").args(["target", "add", TARGET]))?;
    fs::create_dir_all(page).with_context(|| format!("making {}", page.display()))?;
    for (form, file, flags) in FORMS {
        let folder = root().join("target/web").join(form);
        let mut build = cargo(["build", "--package", "convzoo-web", "--lib", "--target", TARGET, "--profile", "web"])?;
        build.arg("--config").arg(root().join("crates/convzoo-web/profile.toml"));
        succeed(build.arg("--target-dir").arg(&folder).env("RUSTFLAGS", format!("{FLAGS} {flags}")))?;
        let built = folder.join(TARGET).join("web/convzoo_web.wasm");
        fs::copy(&built, page.join(file)).with_context(|| format!("copying {}", built.display()))?;
    }
    Ok(())
}

/// Brings the files of the page together.
fn fill(page: &Path, program: &Path, weights: &[PathBuf]) -> Result<()> {
    copy_folder(&root().join("crates/convzoo-web/page"), page)?;
    let (networks, beside) = (page.join("networks"), page.join("weights"));
    for folder in [&networks, &beside] {
        fs::create_dir_all(folder).with_context(|| format!("making {}", folder.display()))?;
    }
    for name in NETWORKS {
        let out = networks.join(name).with_extension("json");
        succeed(Command::new(program).args(["draw", name, "--out"]).arg(out).stdout(io::stderr()))?;
    }
    let mut known = Vec::new();
    for path in weights.iter().chain([&root().join(DIGITS)]) {
        let file = path.file_name().and_then(|name| name.to_str()).context("weights have a name")?;
        let network = NETWORKS.iter().filter(|name| file.starts_with(**name)).max_by_key(|name| name.len());
        let network = network.with_context(|| format!("{file} begins with the name of no network of the page"))?;
        fs::copy(path, beside.join(file)).with_context(|| format!("copying {}", path.display()))?;
        known.push(json!({ "model": network, "file": file }));
    }
    let classes = root().join("crates/convzoo-models/data/imagenet_classes.txt");
    let classes = fs::read_to_string(&classes).with_context(|| format!("reading {}", classes.display()))?;
    let classes: Vec<&str> = classes.lines().collect();
    let index = json!({ "networks": NETWORKS, "weights": known, "classes": classes });
    write_whole(&page.join("networks.json"), &index.to_string())?;
    weigh(page)
}

/// Copies a folder's files, and those of the folders in it.
fn copy_folder(from: &Path, to: &Path) -> Result<()> {
    fs::create_dir_all(to).with_context(|| format!("making {}", to.display()))?;
    for entry in fs::read_dir(from).with_context(|| format!("reading {}", from.display()))? {
        let path = entry.with_context(|| format!("reading {}", from.display()))?.path();
        let target = to.join(path.file_name().unwrap_or_default());
        match path.is_dir() {
            true => copy_folder(&path, &target)?,
            false => drop(fs::copy(&path, &target).with_context(|| format!("copying {}", path.display()))?),
        }
    }
    Ok(())
}

/// Says how many bytes a visitor loads before any weights, and refuses too many.
fn weigh(page: &Path) -> Result<()> {
    let gzipped = |path: &Path| -> Result<usize> {
        let mut encoder = GzEncoder::new(Vec::new(), Compression::best());
        encoder.write_all(&fs::read(path).with_context(|| format!("reading {}", path.display()))?)?;
        Ok(encoder.finish()?.len())
    };
    let mut own = 0;
    for folder in [page.to_path_buf(), page.join("lessons")] {
        for entry in fs::read_dir(&folder).with_context(|| format!("reading {}", folder.display()))? {
            let path = entry?.path();
            if path.is_file() && path.extension().is_none_or(|extension| extension != "wasm") {
                own += gzipped(&path)?;
            }
        }
    }
    for (_, file, _) in FORMS {
        let bytes = gzipped(&page.join(file))? + own;
        println!("{file} with the page: {bytes} bytes, gzipped");
        ensure!(bytes <= MOST_BYTES, "{file} and the page are larger than {MOST_BYTES} bytes");
    }
    Ok(())
}

/// Runs Node.js in `browser/`, with the packages that are pinned there, beside a server of the page.
fn browse(arguments: &[&str], page: &Path, program: &Path) -> Result<()> {
    let source = root().join("crates/convzoo-web/browser");
    let folder = root().join("target/web/browser");
    copy_folder(&source, &folder)?;
    let mut install = Command::new("npm");
    succeed(install.current_dir(&folder).args(["ci", "--ignore-scripts", "--no-audit", "--no-fund"]))?;
    let server = Server::new(page.to_path_buf(), 0)?;
    let url = server.url()?;
    thread::spawn(move || server.run());
    let mut node = Command::new("node");
    node.current_dir(&folder).args(arguments).env("PAGE", url).env("CONVZOO", program);
    node.env("WEIGHTS", root().join(DIGITS)).env("PAGE_FOLDER", page);
    succeed(&mut node)
}

/// A server of files, for this machine alone.
struct Server {
    folder: PathBuf,
    listener: TcpListener,
}

impl Server {
    fn new(folder: PathBuf, port: u16) -> Result<Self> {
        let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, port)).with_context(|| format!("taking port {port}"))?;
        Ok(Self { folder, listener })
    }

    fn url(&self) -> Result<String> {
        Ok(format!("http://{}/", self.listener.local_addr().context("asking for the server's address")?))
    }

    /// Serves until the program ends.
    fn run(&self) {
        thread::scope(|scope| {
            for stream in self.listener.incoming().flatten() {
                // A visitor who leaves is no error of the server's.
                scope.spawn(move || drop(self.answer(stream)));
            }
        });
    }

    /// Answers one request, and closes.
    fn answer(&self, mut stream: TcpStream) -> Result<()> {
        const PATIENCE: Duration = Duration::from_secs(10);
        /// The longest head of a request that is read.
        const MOST: u64 = 1 << 14;
        stream.set_read_timeout(Some(PATIENCE))?;
        let mut lines = BufReader::new(stream.try_clone()?.take(MOST)).lines();
        let first = lines.next().context("no request")??;
        // The rest of the head is read, so that closing the connection does not reset it.
        for line in lines {
            if line?.is_empty() {
                break;
            }
        }
        let (status, kind, body) = match self.find(&first) {
            Ok((kind, body)) => ("200 OK", kind, body),
            Err(_) => ("404 Not Found", "text/plain", b"there is no such file\n".to_vec()),
        };
        let length = body.len();
        write!(stream, "HTTP/1.1 {status}\r\nContent-Type: {kind}\r\nContent-Length: {length}\r\n")?;
        write!(stream, "Cache-Control: no-cache\r\nConnection: close\r\n\r\n")?;
        Ok(stream.write_all(&body)?)
    }

    /// The kind and bytes of the file that a request's first line asks for.
    fn find(&self, request: &str) -> Result<(&'static str, Vec<u8>)> {
        let mut words = request.split(' ');
        let (Some("GET"), Some(target)) = (words.next(), words.next()) else { bail!("not a request for a file") };
        let path = target.split(['?', '#']).next().unwrap_or_default().trim_start_matches('/');
        let path = Path::new(if path.is_empty() { "index.html" } else { path });
        ensure!(path.components().all(|part| matches!(part, Component::Normal(_))), "outside of the page");
        let kind = match path.extension().and_then(|extension| extension.to_str()) {
            Some("html") => "text/html; charset=utf-8",
            Some("css") => "text/css",
            Some("js" | "mjs") => "text/javascript",
            Some("json") => "application/json",
            Some("wasm") => "application/wasm",
            _ => "application/octet-stream",
        };
        Ok((kind, fs::read(self.folder.join(path))?))
    }
}

/// Whether this machine has what the browser's tests need.
pub fn can_browse() -> bool {
    ["chromium", "node", "npm"].iter().all(|program| Command::new(program).arg("--version").output().is_ok())
}

/// Builds the page and drives it, as continuous integration does.
pub fn check(program: PathBuf) -> Result<()> {
    let args = Args {
        serve: false,
        port: 0,
        out: PathBuf::from("target/web/page"),
        weights: Vec::new(),
        check: true,
        measure: false,
        binary: Some(program),
    };
    run(&args).map(drop)
}
