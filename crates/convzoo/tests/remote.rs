//! Devices that other processes serve on loopback: they compute as the device they stand for, and several train as one.

#![cfg(feature = "remote")]
#![allow(clippy::unwrap_used)] // a panic is how a test fails

mod support;

use std::io::{BufRead, BufReader};
use std::process::{Child, Command, Output, Stdio};

use serde_json::Value;
use support::{error, json, temp};

const WEIGHTS: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/weights/lenet5-digits.safetensors");

/// A server on a port of its own, stopped at the end.
struct Server {
    process: Child,
    address: String,
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
        // What it says later is read and left, so that it can go on saying it.
        std::thread::spawn(move || std::io::copy(&mut lines, &mut std::io::sink()));
        Self { process, address: address.to_owned() }
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
    let eval = ["eval", "lenet5", "--data", "digits", "--weights", WEIGHTS, "--json", "--device"];
    let remote = [&eval[..], &[&server.address]].concat();
    let answered = with_token(folder.path(), "secret", &remote);
    assert!(answered.status.success(), "{}", String::from_utf8_lossy(&answered.stderr));
    let (remote_answer, here) = (support::parse(&answered), json(folder.path(), &[&eval[..], &["flex"]].concat()));
    assert_eq!(remote_answer["correct"], here["correct"]);

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
