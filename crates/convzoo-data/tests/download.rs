//! Downloads, from a server on this machine that misbehaves on demand.

#![allow(clippy::unwrap_used)] // also in helpers

mod common;

use std::fs;
use std::io::{BufRead, BufReader, Write};
use std::net::{TcpListener, TcpStream};
use std::sync::{Arc, Mutex};
use std::thread;

use common::{gzip, idx};
use convzoo_data::download::{Remote, fetch};
use convzoo_data::{DataError, Source, open};
use sha2::{Digest, Sha256};
use tempfile::TempDir;

/// What the server does with a request for these bytes, from the range's start on.
#[derive(Clone, Copy)]
enum Manner {
    Proper,
    /// Announces everything, sends this many bytes and hangs up.
    Breaks(usize),
    /// Sends everything whatever range was asked for.
    IgnoresRanges,
    Absent,
}

struct Server {
    address: String,
    /// The first line and the range of each request.
    requests: Arc<Mutex<Vec<String>>>,
}

/// A server that replies to one request for `body` in each of `manners`.
fn serve(body: Vec<u8>, manners: &[Manner]) -> Server {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let address = format!("http://{}", listener.local_addr().unwrap());
    let requests = Arc::new(Mutex::new(Vec::new()));
    let (log, manners) = (requests.clone(), manners.to_vec());
    thread::spawn(move || {
        for manner in manners {
            let (stream, _) = listener.accept().unwrap();
            log.lock().unwrap().push(reply(stream, &body, manner));
        }
    });
    Server { address, requests }
}

fn reply(mut stream: TcpStream, body: &[u8], manner: Manner) -> String {
    let head: Vec<String> =
        BufReader::new(&stream).lines().map(Result::unwrap).take_while(|line| !line.is_empty()).collect();
    let range = head.iter().find_map(|line| line.to_lowercase().strip_prefix("range: bytes=").map(str::to_owned));
    let start = range.as_deref().map_or(0, |range| range.trim_end_matches('-').parse().unwrap());
    let close = "Connection: close\r\n";
    // The client may hang up first where it has seen enough.
    let _ = match manner {
        Manner::Absent => write!(stream, "HTTP/1.1 404 Not Found\r\n{close}Content-Length: 0\r\n\r\n"),
        Manner::Proper | Manner::Breaks(_) if start > body.len() => {
            write!(stream, "HTTP/1.1 416 Range Not Satisfiable\r\n{close}Content-Length: 0\r\n\r\n")
        }
        Manner::Proper | Manner::Breaks(_) => {
            let rest = &body[start..];
            let status = match range {
                Some(_) => {
                    format!("206 Partial Content\r\nContent-Range: bytes {start}-{}/{}", body.len() - 1, body.len())
                }
                None => "200 OK".to_owned(),
            };
            let sent = if let Manner::Breaks(length) = manner { length } else { rest.len() };
            write!(stream, "HTTP/1.1 {status}\r\n{close}Content-Length: {}\r\n\r\n", rest.len())
                .and_then(|()| stream.write_all(&rest[..sent]))
        }
        Manner::IgnoresRanges => write!(stream, "HTTP/1.1 200 OK\r\n{close}Content-Length: {}\r\n\r\n", body.len())
            .and_then(|()| stream.write_all(body)),
    };
    format!("{} {}", head[0], range.unwrap_or_default())
}

fn remote(server: &Server, body: &[u8]) -> Remote {
    let sha256 = Sha256::digest(body).iter().map(|byte| format!("{byte:02x}")).collect();
    Remote { file: "file".into(), urls: vec![server.address.clone()], sha256, bytes: Some(body.len() as u64) }
}

fn names(folder: &TempDir) -> Vec<String> {
    fs::read_dir(folder).unwrap().map(|entry| entry.unwrap().file_name().into_string().unwrap()).collect()
}

fn body() -> Vec<u8> {
    common::Noise(5).bytes(300_000)
}

#[test]
fn a_file_is_downloaded_once() {
    let server = serve(body(), &[Manner::Proper]);
    let folder = TempDir::new().unwrap();
    let remote = remote(&server, &body());
    for _ in 0..2 {
        let path = fetch(&remote, folder.path(), false).unwrap();
        assert_eq!(fs::read(path).unwrap(), body());
    }
    assert_eq!(names(&folder), ["file"]);
    assert_eq!(server.requests.lock().unwrap().len(), 1);
}

#[test]
fn an_interrupted_download_resumes_where_it_stopped() {
    let server = serve(body(), &[Manner::Breaks(100_000), Manner::Proper]);
    let folder = TempDir::new().unwrap();
    let remote = remote(&server, &body());
    let error = fetch(&remote, folder.path(), false).unwrap_err();
    assert!(matches!(error, DataError::Download { .. }), "{error}");
    assert_eq!(names(&folder), ["file.part"]);
    assert_eq!(fs::read(fetch(&remote, folder.path(), false).unwrap()).unwrap(), body());
    assert!(server.requests.lock().unwrap()[1].ends_with(" 100000-"));
}

#[test]
fn a_server_without_ranges_starts_over() {
    let server = serve(body(), &[Manner::Breaks(100_000), Manner::IgnoresRanges]);
    let folder = TempDir::new().unwrap();
    let remote = remote(&server, &body());
    fetch(&remote, folder.path(), false).unwrap_err();
    assert_eq!(fs::read(fetch(&remote, folder.path(), false).unwrap()).unwrap(), body());
}

#[test]
fn a_stale_beginning_is_dropped() {
    let folder = TempDir::new().unwrap();
    for stale in [vec![0; 1000], vec![0; 300_000], vec![0; 400_000]] {
        let server = serve(body(), &[Manner::Proper; 2]);
        fs::write(folder.path().join("file.part"), stale).unwrap();
        let path = fetch(&remote(&server, &body()), folder.path(), false).unwrap();
        assert_eq!(fs::read(&path).unwrap(), body());
        fs::remove_file(path).unwrap();
    }
}

#[test]
fn the_wrong_contents_are_refused_and_leave_nothing() {
    let folder = TempDir::new().unwrap();
    let mut altered = body();
    altered[7] ^= 1;
    let longer = [body(), vec![0]].concat();
    for wrong in [altered, longer] {
        let server = serve(wrong, &[Manner::Proper]);
        let error = fetch(&remote(&server, &body()), folder.path(), false).unwrap_err();
        assert!(matches!(error, DataError::Download { .. }), "{error}");
        assert!(names(&folder).is_empty(), "{error}");
    }
}

#[test]
fn a_file_that_cannot_be_put_in_its_place_leaves_nothing() {
    let server = serve(body(), &[Manner::Proper]);
    let folder = TempDir::new().unwrap();
    // A folder stands where the file should go.
    fs::create_dir_all(folder.path().join("file/inside")).unwrap();
    let error = fetch(&remote(&server, &body()), folder.path(), false).unwrap_err();
    assert!(matches!(error, DataError::Io { .. }), "{error}");
    assert_eq!(names(&folder), ["file"]);
}

#[cfg(target_os = "linux")]
#[test]
fn a_full_disk_keeps_no_half_of_a_download() {
    let server = serve(body(), &[Manner::Proper]);
    let folder = TempDir::new().unwrap();
    // What takes no byte, as a disk without room.
    std::os::unix::fs::symlink("/dev/full", folder.path().join("file.part")).unwrap();
    let error = fetch(&remote(&server, &body()), folder.path(), false).unwrap_err();
    assert!(matches!(error, DataError::Io { doing: "write", .. }), "{error}");
    assert!(names(&folder).is_empty());
}

#[test]
fn the_next_server_is_tried() {
    let (absent, good) = (serve(vec![], &[Manner::Absent]), serve(body(), &[Manner::Proper]));
    let folder = TempDir::new().unwrap();
    let mut remote = remote(&good, &body());
    remote.urls.insert(0, absent.address.clone());
    assert!(fetch(&remote, folder.path(), false).is_ok());
}

#[test]
fn threads_that_want_the_same_file_share_one_download() {
    let server = serve(body(), &[Manner::Proper]);
    let folder = TempDir::new().unwrap();
    let remote = remote(&server, &body());
    thread::scope(|scope| {
        for _ in 0..4 {
            scope.spawn(|| assert_eq!(fs::read(fetch(&remote, folder.path(), false).unwrap()).unwrap(), body()));
        }
    });
    assert_eq!(names(&folder), ["file"]);
}

#[test]
fn a_mirror_is_asked_for_the_data_set_and_its_checksums_still_hold() {
    let fake = gzip(&idx(&[1], &[0]));
    let server = serve(fake, &[Manner::Proper]);
    let cache = TempDir::new().unwrap();
    let source = Source {
        cache_dir: Some(cache.path().into()),
        mirror: Some(format!("{}/", server.address)),
        ..Source::default()
    };
    let message = open("mnist", &source).unwrap_err().to_string();
    assert!(message.contains("CONVZOO_MIRROR") && message.contains("bytes"), "{message}");
    assert_eq!(server.requests.lock().unwrap()[0], "GET /mnist/train-images-idx3-ubyte.gz HTTP/1.1 ");
}

#[test]
fn a_cache_that_cannot_be_written_is_an_error() {
    let folder = TempDir::new().unwrap();
    let file = folder.path().join("file");
    fs::write(&file, "not a folder").unwrap();
    let source = Source { cache_dir: Some(file), ..Source::default() };
    assert!(matches!(open("mnist", &source), Err(DataError::Io { doing: "create", .. })));
}
