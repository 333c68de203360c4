//! Devices that other processes serve on loopback: they compute as the device they stand for, several train as one, and
//! neither strangers nor clients that die disturb a server or those it serves.

#![cfg(feature = "remote")]
#![allow(clippy::unwrap_used)] // a panic is how a test fails

mod support;

use std::io::{BufRead, BufReader, Read, Write};
use std::net::TcpStream;
use std::process::{Child, Command, Output, Stdio};
use std::sync::atomic::{AtomicU32, Ordering};
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use serde_json::Value;
use support::{error, json, temp};

const WEIGHTS: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/weights/lenet5-digits.safetensors");

/// A server on a port of its own, stopped at the end.
struct Server {
    process: Child,
    address: String,
    /// What it has said since.
    said: Arc<Mutex<String>>,
}

impl Server {
    fn start(token: Option<&str>) -> Self {
        let mut command = Command::new(env!("CARGO_BIN_EXE_convzoo"));
        command.args(["serve", "--device", "flex", "--listen", "127.0.0.1:0"]).stderr(Stdio::piped());
        command.args(token.iter().flat_map(|token| ["--token", token]));
        let mut process = command.spawn().unwrap();
        let mut told = String::new();
        let mut lines = BufReader::new(process.stderr.take().unwrap());
        lines.read_line(&mut told).unwrap();
        let address = told.split(' ').find(|word| word.starts_with("ws://")).unwrap_or_else(|| panic!("{told}"));
        let said = Arc::new(Mutex::new(String::new()));
        let kept = Arc::clone(&said);
        std::thread::spawn(move || {
            lines.lines().map_while(Result::ok).for_each(|line| *kept.lock().unwrap() += &(line + "\n"))
        });
        Self { process, address: address.to_owned(), said }
    }

    /// A connection that has sent nothing yet.
    fn connect(&self) -> TcpStream {
        let stream = TcpStream::connect(self.address.strip_prefix("ws://").unwrap()).unwrap();
        stream.set_read_timeout(Some(Duration::from_secs(20))).unwrap();
        stream
    }

    /// A connection that has become a WebSocket.
    fn upgraded(&self, path: &str) -> TcpStream {
        let mut stream = self.connect();
        let key = "Sec-WebSocket-Version: 13\r\nSec-WebSocket-Key: AAAAAAAAAAAAAAAAAAAAAA==";
        write!(
            stream,
            "GET {path} HTTP/1.1\r\nHost: here\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n{key}\r\n\r\n"
        )
        .unwrap();
        let mut answer = Vec::new();
        while !answer.ends_with(b"\r\n\r\n") {
            let mut byte = [0];
            stream.read_exact(&mut byte).unwrap();
            answer.push(byte[0]);
        }
        assert!(answer.starts_with(b"HTTP/1.1 101"), "{}", String::from_utf8_lossy(&answer));
        stream
    }

    /// A session that has begun, as Burn's clients begin theirs.
    fn session(&self, token: &str) -> TcpStream {
        let mut stream = self.upgraded("/session");
        stream.write_all(&message(&init(token))).unwrap();
        // The answer's frame is not masked.
        let mut head = [0; 2];
        stream.read_exact(&mut head).unwrap();
        let mut answer = vec![0; usize::from(head[1])];
        stream.read_exact(&mut answer).unwrap();
        let answer = String::from_utf8_lossy(&answer).into_owned();
        assert!(answer.contains("Init") && !answer.contains("Refused"), "{answer}");
        stream
    }

    /// A number after a word in a file of the kernel's about the process.
    #[cfg(target_os = "linux")]
    fn status(&self, word: &str) -> u64 {
        let status = std::fs::read_to_string(format!("/proc/{}/status", self.process.id())).unwrap();
        let line = status.lines().find_map(|line| line.strip_prefix(word)).unwrap();
        line.trim_start_matches(':').split_whitespace().next().unwrap().parse().unwrap()
    }

    /// It is there, and nothing in it has panicked.
    fn assert_sound(&mut self) {
        let said = self.said.lock().unwrap();
        assert!(!said.contains("panicked"), "{said}");
        assert_eq!(self.process.try_wait().unwrap(), None, "the server has ended: {said}");
    }
}

/// The message that begins a session, in MessagePack: `[{"Init": [VERSION, [SESSION], DEVICE, TOKEN]}]`.
fn init(token: &str) -> Vec<u8> {
    static SESSION: AtomicU32 = AtomicU32::new(1 << 31);
    let session = SESSION.fetch_add(1, Ordering::Relaxed);
    let token = [&[0xc4, token.len() as u8], token.as_bytes()].concat();
    [&b"\x91\x81\xa4Init\x94\x02\x91\xce"[..], &session.to_be_bytes(), &[0], &token].concat()
}

/// A binary WebSocket message, masked with zeros.
fn message(content: &[u8]) -> Vec<u8> {
    let length = content.len() as u16;
    [&[0x82, 0xfe], &length.to_be_bytes()[..], &[0; 4], content].concat()
}

/// Waits until the other side closes.
fn closed(mut stream: TcpStream, what: &str) {
    let begun = Instant::now();
    let mut rest = [0; 1024];
    loop {
        match stream.read(&mut rest) {
            Ok(0) => return,
            Ok(_) => {}
            Err(error) if error.kind() == std::io::ErrorKind::ConnectionReset => return,
            Err(error) => panic!("{what}: open after {:.0?}: {error}", begun.elapsed()),
        }
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        let _ = self.process.kill();
        let _ = self.process.wait();
    }
}

fn with_token(folder: &std::path::Path, token: &str, arguments: &[&str]) -> Output {
    let mut command = Command::new(env!("CARGO_BIN_EXE_convzoo"));
    command.args(arguments).current_dir(folder).env("CONVZOO_TOKEN", token).output().unwrap()
}

const EVAL: [&str; 7] = ["eval", "lenet5", "--data", "digits", "--weights", WEIGHTS, "--json"];

/// The server answers who has the token as flex answers here.
fn serves(server: &Server, token: &str) {
    let folder = temp();
    let answered = with_token(folder.path(), token, &[&EVAL[..], &["--device", &server.address]].concat());
    assert!(answered.status.success(), "{}", String::from_utf8_lossy(&answered.stderr));
    let here = json(folder.path(), &[&EVAL[..], &["--device", "flex"]].concat());
    assert_eq!(support::parse(&answered)["correct"], here["correct"]);
}

/// The losses of a short training of LeNet-5 on the digits, epoch by epoch, in training and on the test images.
fn losses(devices: &str, batch_size: &str) -> Vec<f64> {
    let folder = temp();
    let train = ["train", "--json", "--epochs", "3", "--device", devices, "--batch-size", batch_size, "--out", "run"];
    let run = json(folder.path(), &train);
    let epochs = run["epochs"].as_array().unwrap();
    let loss = |value: &Value| value["loss"].as_f64().unwrap();
    epochs.iter().flat_map(|epoch| [loss(&epoch["train"]), loss(&epoch["test"])]).collect()
}

fn near(own: &[f64], expected: &[f64]) {
    assert_eq!(own.len(), expected.len());
    for (own, expected) in own.iter().zip(expected) {
        assert!((own - expected).abs() < 1e-3 * expected.max(1.0), "{own} rather than {expected}");
    }
}

#[test]
fn a_remote_device_trains_as_the_one_it_stands_for_and_two_as_one_with_the_doubled_batch() {
    let (one, other) = (Server::start(None), Server::start(None));
    let doubled = losses("flex", "64");
    assert!(doubled[4] < 0.8 * doubled[0], "nothing was learnt: {doubled:?}");
    near(&losses(&one.address, "64"), &doubled);
    near(&losses(&format!("{},{}", one.address, other.address), "32"), &doubled);
}

#[test]
fn a_server_with_a_token_serves_who_has_it() {
    let folder = temp();
    let server = Server::start(Some("secret"));
    serves(&server, "secret");

    let remote = [&EVAL[..], &["--device", &server.address]].concat();
    let refused = with_token(folder.path(), "guess", &remote);
    let told = String::from_utf8(refused.stderr).unwrap();
    assert!(!refused.status.success() && !told.contains("panicked") && told.contains(&server.address), "{told}");
    error(folder.path(), &remote);
}

#[test]
fn an_address_where_nobody_serves_is_one_error() {
    let folder = temp();
    // A port that was free a moment ago.
    let port = std::net::TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().port();
    let address = format!("ws://127.0.0.1:{port}");
    let told =
        error(folder.path(), &["eval", "lenet5", "--data", "digits", "--weights", WEIGHTS, "--device", &address]);
    assert!(told.contains(&address), "{told}");
}

#[test]
fn a_port_that_is_taken_is_an_error() {
    let folder = temp();
    let taken = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let address = taken.local_addr().unwrap().to_string();
    let told = error(folder.path(), &["serve", "--device", "flex", "--listen", &address]);
    assert!(told.contains(&address), "{told}");
}

#[test]
fn what_no_client_says_ends_that_connection_alone() {
    let mut server = Server::start(Some("secret"));
    let said = |path: &str, bytes: &[u8]| {
        let mut stream = server.upgraded(path);
        stream.write_all(bytes).unwrap();
        stream
    };
    let plain = |bytes: &[u8]| {
        let mut stream = server.connect();
        stream.write_all(bytes).unwrap();
        stream
    };
    let gigabyte = [&[0x82, 0xff][..], &(1_u64 << 30).to_be_bytes(), &[0; 4]].concat();
    let request = |tail: &[u8]| message(&[b"\x81\xadTensorRequest", tail].concat());
    let cases: [(&str, TcpStream); 15] = [
        ("random bytes", plain(&[0xa7; 20_000])),
        ("an endless request", plain(&[b"GET /session HTTP/1.1\r\nX: ", &[b'x'; 20_000][..]].concat())),
        ("another path", plain(b"GET /etc/passwd HTTP/1.1\r\n\r\n")),
        ("no upgrade", plain(b"GET /session HTTP/1.1\r\nHost: here\r\nConnection: close\r\n\r\n")),
        ("a text message", said("/session", &[0x81, 0x81, 0, 0, 0, 0, b'x'])),
        ("a message without a mask", said("/session", &[0x82, 0x01, b'x'])),
        ("a gigabyte announced", said("/session", &gigabyte)),
        ("no MessagePack", said("/session", &message(&[0xc1; 100]))),
        ("no first message", said("/session", &message(b"\x91\x81\xa5Close\x91\x05"))),
        ("no token", said("/session", &message(&init("")))),
        ("another token", said("/session", &message(&init("guess")))),
        ("no request", said("/data", &message(&[0xc1; 20]))),
        ("a long request", said("/data", &message(&[0; 1000]))),
        ("half a request", said("/data", &request(&[0xcf, 1]))),
        ("a request without a session", said("/data", &request(&[7]))),
    ];
    for (what, stream) in cases {
        closed(stream, what);
    }
    // With the token, too, a client harms itself alone.
    for (what, bytes) in [("garbage", message(&[0xc1; 300])), ("a second beginning", message(&init("secret")))] {
        let mut session = server.session("secret");
        session.write_all(&bytes).unwrap();
        closed(session, what);
    }
    serves(&server, "secret");
    server.assert_sound();
}

#[cfg(target_os = "linux")]
#[test]
fn a_thousand_strangers_keep_nobody_out() {
    use nix::sys::resource::{Resource, getrlimit, setrlimit};
    // This test's own end of a thousand connections.
    let (_, most) = getrlimit(Resource::RLIMIT_NOFILE).unwrap();
    setrlimit(Resource::RLIMIT_NOFILE, most, most).unwrap();

    let mut server = Server::start(Some("secret"));
    let session = server.session("secret");
    serves(&server, "secret");
    let stranger = |number: usize| match number % 4 {
        0 => server.connect(),
        1 => {
            let mut stream = server.connect();
            stream.write_all(b"GET /session HTTP/1.1\r\nHost: he").unwrap();
            stream
        }
        2 => {
            // Half a message.
            let mut stream = server.upgraded("/session");
            stream.write_all(&message(&[0x91; 60_000])[..59_000]).unwrap();
            stream
        }
        _ => server.upgraded("/data"),
    };
    // As many as there are places for, more than once, so that memory kept for the next is no growth.
    let first: Vec<TcpStream> = (0..400).map(stranger).collect();
    let before = server.status("VmRSS");
    let strangers: Vec<TcpStream> = (0..1000).map(stranger).collect();
    drop(first);
    serves(&server, "secret");
    let files = std::fs::read_dir(format!("/proc/{}/fd", server.process.id())).unwrap().count();
    assert!(files < 700, "{files} open files");
    let grown = server.status("VmRSS").saturating_sub(before);
    assert!(grown < 64 << 10, "{grown} KiB for a thousand strangers");
    for (number, stream) in strangers.into_iter().enumerate() {
        closed(stream, &format!("stranger {number}"));
    }
    // Who was in before is in still.
    session.set_nonblocking(true).unwrap();
    let open = (&session).read(&mut [0]).unwrap_err();
    assert_eq!(open.kind(), std::io::ErrorKind::WouldBlock, "the session has ended");
    serves(&server, "secret");
    server.assert_sound();
}

#[cfg(target_os = "linux")]
#[test]
fn clients_killed_amid_a_step_leave_nothing_behind() {
    let mut server = Server::start(None);
    let sessions = |server: &Server| {
        let threads = std::fs::read_dir(format!("/proc/{}/task", server.process.id())).unwrap();
        let names = threads.filter_map(|thread| std::fs::read_to_string(thread.unwrap().path().join("comm")).ok());
        names.filter(|name| name.starts_with("burn-remote-ses")).count()
    };
    let folder = temp();
    let train = |run: &str, epochs: &str, device: &str| {
        let mut command = Command::new(env!("CARGO_BIN_EXE_convzoo"));
        command.args(["train", "--plain", "--epochs", epochs, "--device", device, "--out", run]);
        command.current_dir(folder.path()).stdout(Stdio::null()).stderr(Stdio::null()).spawn().unwrap()
    };
    // They begin at once: the server's random numbers are shared, and must not decide about weights.
    let others = ["other-0", "other-1", "other-2", "other-3"];
    let clients = others.map(|run| train(run, "2", &server.address));
    for round in 0..4 {
        let mut victim = train(&format!("victim-{round}"), "1000", &server.address);
        let begun = Instant::now();
        while !folder.path().join(format!("victim-{round}/last.safetensors")).exists() {
            assert!(begun.elapsed() < Duration::from_secs(120), "a client never finished an epoch");
            std::thread::sleep(Duration::from_millis(20));
        }
        victim.kill().unwrap();
        victim.wait().unwrap();
    }
    for mut client in clients {
        assert!(client.wait().unwrap().success(), "a client beside those that were killed failed");
    }
    assert!(train("alone", "2", &server.address).wait().unwrap().success());
    let weights = |run: &str| std::fs::read(folder.path().join(run).join("last.safetensors")).unwrap();
    for run in others {
        assert!(weights(run) == weights("alone"), "{run}: clients beside it changed what it computes");
    }
    let begun = Instant::now();
    while sessions(&server) > 0 {
        assert!(begun.elapsed() < Duration::from_secs(30), "{} sessions of nobody", sessions(&server));
        std::thread::sleep(Duration::from_millis(50));
    }
    server.assert_sound();
}
