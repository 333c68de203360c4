//! The example of a service, as its clients meet it: `cargo test --workspace --features convzoo/service --test service`.

#![allow(clippy::unwrap_used)] // a panic is how a test fails
#![allow(dead_code)] // what only the program's own `main` calls

mod support;

// The program itself, in this one: its modules name each other from the root.
#[path = "../../../examples/service/batch.rs"]
mod batch;
#[path = "../../../examples/service/http.rs"]
mod http;
#[path = "../../../examples/service/metrics.rs"]
mod metrics;
#[path = "../../../examples/service/serve.rs"]
mod serve;

use std::fmt::Write as _;
use std::io::{BufRead, BufReader, Cursor, Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use clap::Parser;
use image::{GrayImage, ImageFormat, Luma, RgbImage};
use rand::rngs::ChaCha8Rng;
use rand::{Rng, RngExt, SeedableRng};
use serde_json::Value;

#[derive(Parser)]
struct Arguments {
    #[command(flatten)]
    serve: serve::Args,
}

/// What the environment tells the process that is to serve: its options, with spaces between.
const OPTIONS: &str = "CONVZOO_TEST_SERVICE";

/// No test: the process that the others start.
#[test]
#[ignore = "it serves, for the other tests"]
fn serves() {
    let Ok(options) = std::env::var(OPTIONS) else { return };
    let arguments = Arguments::try_parse_from(["serve"].into_iter().chain(options.split_whitespace())).unwrap();
    let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(2).enable_all().build().unwrap();
    let ready = |address| println!("\nlistening on {address}");
    runtime.block_on(serve::run(arguments.serve, ready)).unwrap();
}

/// A service in a process of its own, which ends with the test.
struct Service {
    process: Child,
    address: SocketAddr,
}

impl Service {
    fn start(options: &str) -> Self {
        let mut process = Command::new(std::env::current_exe().unwrap())
            .args(["--exact", "serves", "--ignored", "--nocapture"])
            .env(OPTIONS, format!("--listen 127.0.0.1:0 {options}"))
            .stdout(Stdio::piped())
            .stderr(Stdio::null())
            .spawn()
            .unwrap();
        let mut lines = BufReader::new(process.stdout.take().unwrap()).lines().map_while(Result::ok);
        let address = lines.find_map(|line| line.strip_prefix("listening on ")?.parse().ok()).expect("it serves");
        // What else it prints is read, so that it never waits for a reader.
        std::thread::spawn(move || lines.for_each(drop));
        Self { process, address }
    }

    fn connect(&self) -> TcpStream {
        let connection = TcpStream::connect(self.address).unwrap();
        connection.set_read_timeout(Some(Duration::from_secs(30))).unwrap();
        connection
    }

    /// Sends bytes, and reads the status and the body of the answer; `None` where the connection is closed without one.
    fn send(&self, request: &[u8]) -> Option<(u16, String)> {
        let mut connection = self.connect();
        let _ = connection.write_all(request); // it may answer, and close, before it has read all
        answer(&mut connection)
    }

    fn post(&self, kind: &str, body: &[u8]) -> (u16, String) {
        self.send(&post(kind, body)).expect("an answer")
    }

    fn get(&self, path: &str) -> (u16, String) {
        self.send(format!("GET {path} HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n").as_bytes()).expect("an answer")
    }
}

impl Drop for Service {
    fn drop(&mut self) {
        let _ = self.process.kill();
        let _ = self.process.wait();
    }
}

fn post(kind: &str, body: &[u8]) -> Vec<u8> {
    let length = body.len();
    let head = format!(
        "POST /predict HTTP/1.1\r\nHost: x\r\nConnection: close\r\nContent-Type: {kind}\r\nContent-Length: {length}\r\n\r\n"
    );
    [head.as_bytes(), body].concat()
}

fn answer(connection: &mut TcpStream) -> Option<(u16, String)> {
    let mut bytes = Vec::new();
    let _ = connection.read_to_end(&mut bytes); // a reset after the answer is no loss
    let text = String::from_utf8_lossy(&bytes).into_owned();
    let (head, body) = text.split_once("\r\n\r\n")?;
    Some((head.split(' ').nth(1)?.parse().ok()?, body.to_owned()))
}

/// A one, as handwritten digits have it.
fn digit(format: ImageFormat) -> Vec<u8> {
    let mut bytes = Vec::new();
    let image = GrayImage::from_fn(8, 8, |x, _| Luma([if x == 4 { 255 } else { 0 }]));
    image.write_to(&mut Cursor::new(&mut bytes), format).unwrap();
    bytes
}

/// A PNG file that says it has this many pixels, and has none.
fn hollow(width: u32, height: u32) -> Vec<u8> {
    let mut bytes = digit(ImageFormat::Png);
    bytes[16..20].copy_from_slice(&width.to_be_bytes());
    bytes[20..24].copy_from_slice(&height.to_be_bytes());
    let checksum = bytes[12..29].iter().fold(!0_u32, |crc, &byte| {
        (0..8).fold(crc ^ u32::from(byte), |crc, _| if crc & 1 == 1 { crc >> 1 ^ 0xedb8_8320 } else { crc >> 1 })
    });
    bytes[29..33].copy_from_slice(&(!checksum).to_be_bytes());
    bytes
}

#[test]
fn images_are_answered_as_predict_does_and_counted() {
    let service = Service::start("--top 3 --max-wait 20");
    let folder = support::temp();
    std::fs::write(folder.path().join("1.png"), digit(ImageFormat::Png)).unwrap();
    let expected = support::json(folder.path(), &["predict", "1.png", "--top", "3", "--json"])[0]["top"].clone();
    let classes = |top: &Value| top.as_array().unwrap().iter().map(|top| top["class"].clone()).collect::<Vec<_>>();
    let (status, body) = service.post("image/png", &digit(ImageFormat::Png));
    let answer: Value = serde_json::from_str(&body).unwrap();
    assert_eq!((status, classes(&answer["top"])), (200, classes(&expected)), "{body}");
    let probability = |top: &Value| top[0]["probability"].as_f64().unwrap();
    assert!((probability(&answer["top"]) - probability(&expected)).abs() < 1e-5, "{answer} for {expected}");

    // A form of two, and many at once, who share passes.
    let part = |name: &str| {
        let head = format!("--B\r\nContent-Disposition: form-data; name=\"i\"; filename=\"{name}\"\r\n\r\n");
        [head.as_bytes(), &digit(ImageFormat::Bmp), b"\r\n"].concat()
    };
    let form = [part("a.bmp"), part("b.bmp"), b"--B--\r\n".to_vec()].concat();
    let (status, body) = service.post("multipart/form-data; boundary=B", &form);
    let answer: Value = serde_json::from_str(&body).unwrap();
    assert_eq!((status, &answer["images"][1]["image"]), (200, &Value::from("b.bmp")), "{body}");
    assert_eq!(classes(&answer["images"][0]["top"]), classes(&expected));
    std::thread::scope(|scope| {
        for _ in 0..24 {
            scope.spawn(|| assert_eq!(service.post("image/jpeg", &digit(ImageFormat::Jpeg)).0, 200));
        }
    });
    assert_eq!(service.get("/health"), (200, "ok\n".to_owned()));
    let (_, metrics) = service.get("/metrics");
    assert!(metrics.contains("convzoo_requests_total{status=\"200\"} 26"), "{metrics}");
    assert!(metrics.contains("convzoo_batch_images_sum 27\n"), "{metrics}");
    let passes: u32 =
        metrics.lines().find_map(|line| line.strip_prefix("convzoo_batch_images_count ")).unwrap().parse().unwrap();
    assert!(passes < 27, "no two images shared a pass: {metrics}");
    assert!(metrics.contains("convzoo_queue_images 0\n"), "{metrics}");
}

#[test]
fn hostile_bodies_are_told_what_is_wrong_with_them() {
    let service = Service::start("--max-bytes 100000 --max-pixels 1000000 --timeout 1000 --max-images 2");
    let png = digit(ImageFormat::Png);
    let jpeg = digit(ImageFormat::Jpeg);
    let mut large = Vec::new();
    RgbImage::new(2000, 2000).write_to(&mut Cursor::new(&mut large), ImageFormat::Png).unwrap();
    let part = b"--B\r\nContent-Disposition: form-data; name=\"i\"\r\n\r\nx\r\n";
    let crowd = [part.repeat(3), b"--B--\r\n".to_vec()].concat();
    let cases: [(&str, &[u8], u16, &str); 15] = [
        ("image/jpeg", &jpeg[..jpeg.len() - 2], 422, "truncated"),
        ("image/jpeg", &jpeg[..jpeg.len() / 2], 422, ""),
        ("image/png", &png[..png.len() / 2], 422, ""),
        ("image/png", &hollow(60_000, 60_000), 422, "more than the 1000000"),
        ("image/png", &hollow(0, 7), 422, ""),
        ("image/png", &large, 422, "2000 × 2000 pixels"),
        ("image/png", b"", 422, ""),
        ("image/png", b"no image", 422, ""),
        ("text/plain", &png, 415, "no type of image"),
        ("", &png, 415, "no type of image"),
        ("image/png", &vec![0; 100_001], 413, ""),
        ("multipart/form-data", b"--B--", 400, "boundary"),
        ("multipart/form-data; boundary=B", b"--B--\r\n", 422, "no images"),
        ("multipart/form-data; boundary=B", &crowd, 413, "more than the 2 images"),
        ("multipart/form-data; boundary=B", b"--B\r\nno form", 400, ""),
    ];
    for (kind, body, status, part) in cases {
        let (answered, text) = service.post(kind, body);
        assert_eq!(answered, status, "{kind}, {} bytes: {text}", body.len());
        assert!(text.contains(part), "{kind}, {} bytes: {text}", body.len());
    }
    // A body that does not come is not waited for.
    let start = Instant::now();
    let (status, text) = service.send(&post("image/png", &png)[..150]).expect("an answer");
    assert_eq!(status, 408, "{text}");
    assert!(start.elapsed() < Duration::from_secs(10), "it took {:?}", start.elapsed());
    assert_eq!(service.get("/predict").0, 405);
    assert_eq!(service.get("/none").0, 404);
    assert_eq!(service.post("image/png", &png).0, 200, "it serves on");
}

#[test]
fn no_more_wait_than_may() {
    // One image is computed, one waits, and the form's others come in less time than that takes.
    let service = Service::start("--queue 1 --max-batch 1 --max-images 256");
    let part = |name: usize| {
        let head = format!("--B\r\nContent-Disposition: form-data; name=\"{name}\"\r\n\r\n");
        [head.as_bytes(), &digit(ImageFormat::Png), b"\r\n"].concat()
    };
    let form = [(0..256).flat_map(part).collect(), b"--B--\r\n".to_vec()].concat();
    let (status, text) = service.post("multipart/form-data; boundary=B", &form);
    assert_eq!(status, 429, "{text}");
    assert!(text.contains("too many images are waiting"), "{text}");
    // What was taken of the form is passed over when its turn comes.
    let start = Instant::now();
    while service.post("image/png", &digit(ImageFormat::Png)).0 == 429 {
        assert!(start.elapsed() < Duration::from_secs(10), "it serves nobody any more");
    }
    assert!(service.get("/metrics").1.contains("convzoo_queue_images 0\n"), "what was refused waits no more");
}

#[test]
fn requests_that_are_no_requests_do_no_harm() {
    let service = Service::start("--max-bytes 100000 --timeout 200");
    let mut random = ChaCha8Rng::seed_from_u64(19);
    let seeds = [post("image/png", &digit(ImageFormat::Png)), post("image/jpeg", &digit(ImageFormat::Jpeg))];
    let mut counts = String::new();
    for case in 0..400 {
        let mut request = seeds[case % 2].clone();
        for _ in 0..random.random_range(1..6) {
            let at = random.random_range(0..request.len().max(2)) % request.len().max(1);
            match random.random_range(0..4) {
                0 if !request.is_empty() => request[at] = random.random(),
                1 => request.truncate(at),
                2 => request.insert(at.min(request.len()), random.random()),
                _ => {
                    let mut noise = vec![0; 8];
                    random.fill_bytes(&mut noise);
                    request.splice(at.min(request.len())..at.min(request.len()), noise);
                }
            }
        }
        let mut connection = service.connect();
        let _ = connection.write_all(&request);
        let _ = connection.shutdown(std::net::Shutdown::Write);
        if let Some((status, text)) = answer(&mut connection) {
            assert!(status == 200 || (400..500).contains(&status), "case {case}: {status} {text}");
            let _ = write!(counts, "{status} ");
        }
    }
    assert!(counts.contains("422"), "no mutated image came through: {counts}");
    assert_eq!(service.post("image/png", &digit(ImageFormat::Png)).0, 200, "it serves on");
}

#[cfg(unix)]
#[test]
fn asked_to_end_it_answers_what_it_was_asked() {
    let mut service = Service::start("");
    let request = post("image/png", &digit(ImageFormat::Png));
    let (begin, rest) = request.split_at(request.len() / 2);
    let mut asked: Vec<_> = (0..8).map(|_| service.connect()).collect();
    asked.iter_mut().for_each(|connection| connection.write_all(begin).unwrap());
    std::thread::sleep(Duration::from_millis(300));
    support::signal(&service.process, "TERM");
    std::thread::sleep(Duration::from_millis(300));
    assert!(TcpStream::connect(service.address).is_err(), "nobody listens any more");
    asked.iter_mut().for_each(|connection| connection.write_all(rest).unwrap());
    let answered: Vec<_> = asked.iter_mut().map(|connection| answer(connection).map(|(status, _)| status)).collect();
    assert_eq!(answered, vec![Some(200); 8], "what was in flight is answered");
    assert!(service.process.wait().unwrap().success(), "it ends well");
}
