//! What stands before Burn's remote server. That takes any number of connections, waits for ever for what they say first,
//! reads a gigabyte of it, and panics, or waits for ever, where it is asked for a tensor that there is not.
//!
//! Each connection has to say in time, and in a few bytes, who it is; only that goes on to Burn, which listens on loopback.
//! When Burn has let a client in, bytes pass in both directions as they come. Those who have not been let in yet give way
//! to newcomers, the oldest first, so that no number of them keeps others out.

use std::collections::{BTreeMap, HashMap};
use std::fmt;
use std::io;
use std::net::SocketAddr;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use socket2::{SockRef, TcpKeepalive};
use tokio::io::{AsyncBufRead, AsyncBufReadExt, AsyncRead, AsyncReadExt, AsyncWriteExt, BufReader, copy_buf};
use tokio::net::tcp::{OwnedReadHalf, OwnedWriteHalf};
use tokio::net::{TcpListener, TcpStream};
use tokio::runtime::{Builder, Runtime};
use tokio::sync::oneshot;
use tokio::task::AbortHandle;
use tokio::time::{sleep, timeout};

/// How long a connection may take to be let in.
const PATIENCE: Duration = Duration::from_secs(10);

/// The most sessions at once, with the connections that have not been let in yet.
const MOST_SESSIONS: usize = 128;

/// The most links at once by which other servers fetch tensors.
const MOST_LINKS: usize = 64;

/// The most links of one machine that have not been answered yet. They have no token to show, and Burn waits for the
/// tensor they name even after they are gone.
const MOST_UNANSWERED: usize = 8;

/// The longest head of a request, in bytes.
const MOST_HEAD: usize = 8 << 10;

/// The longest first message, which has a token in it, in bytes.
const MOST_INIT: u64 = 64 << 10;

/// The longest message on a link; a request has 24 bytes at most, a control frame 125.
const MOST_REQUEST: u64 = 125;

/// How a request on a link begins: `{"TensorRequest": NUMBER}` in MessagePack.
const REQUEST: &[u8] = b"\x81\xadTensorRequest";

/// What is passed on at once, in bytes.
const BUFFER: usize = 64 << 10;

/// Refusals are told once in this time, with how many there were.
const QUIET: Duration = Duration::from_secs(1);

/// Why a connection is closed.
#[derive(Debug)]
enum Refusal {
    /// It could not be read or written.
    Io(io::Error),
    /// What it sent is not what Burn's clients and servers send.
    Protocol(&'static str),
    /// It took too long.
    Late,
    /// Burn's server has refused it.
    Unwelcome(String),
    /// There is no room.
    Full,
    /// It made room for another.
    Displaced,
    /// Tensors are fetched from sessions, and there is none.
    NoSession,
}

impl fmt::Display for Refusal {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Io(error) => write!(f, "{error}"),
            Self::Protocol(what) => f.write_str(what),
            Self::Late => write!(f, "it did not say who it is within {} s", PATIENCE.as_secs()),
            Self::Unwelcome(reason) => f.write_str(reason),
            Self::Full => f.write_str("there is no room for another"),
            Self::Displaced => f.write_str("others came before it said who it is"),
            Self::NoSession => f.write_str("it asks for a tensor, and there is no session to have one"),
        }
    }
}

impl From<io::Error> for Refusal {
    fn from(error: io::Error) -> Self {
        Self::Io(error)
    }
}

/// Takes connections until it is dropped.
pub(crate) struct Front {
    doors: Arc<Doors>,
    runtime: Option<Runtime>,
}

impl Front {
    /// Lets connections to `listener` through to Burn's server at `inner`.
    pub fn open(listener: std::net::TcpListener, inner: SocketAddr) -> io::Result<Self> {
        let runtime = Builder::new_multi_thread().worker_threads(1).thread_name("front").enable_all().build()?;
        listener.set_nonblocking(true)?;
        let listener = {
            let _entered = runtime.enter();
            TcpListener::from_std(listener)?
        };
        let doors = Arc::new(Doors::new(inner));
        runtime.spawn(accept(listener, Arc::clone(&doors)));
        Ok(Self { doors, runtime: Some(runtime) })
    }

    /// What decides whom Burn's server lets in.
    pub fn doors(&self) -> Arc<Doors> {
        Arc::clone(&self.doors)
    }
}

impl Drop for Front {
    fn drop(&mut self) {
        if let Some(runtime) = self.runtime.take() {
            runtime.shutdown_background();
        }
    }
}

/// Who is inside, and who waits.
pub(crate) struct Doors {
    inner: SocketAddr,
    sessions: Mutex<Places>,
    links: Mutex<Places>,
    /// Who waits for Burn's decision, by the address from which Burn sees it.
    waiting: Mutex<HashMap<SocketAddr, oneshot::Sender<Result<(), String>>>>,
    told: Mutex<(Option<Instant>, usize)>,
}

/// Connections of one kind, oldest first.
#[derive(Default)]
struct Places {
    last: u64,
    taken: BTreeMap<u64, Place>,
}

struct Place {
    task: AbortHandle,
    peer: SocketAddr,
    /// Whether it has been let in.
    is_in: bool,
}

impl Places {
    fn take(&mut self, place: Place) -> u64 {
        self.last += 1;
        self.taken.insert(self.last, place);
        self.last
    }

    /// Ends whoever has waited longest to be let in, if anybody has.
    fn dismiss(&mut self) -> Option<SocketAddr> {
        let (&oldest, _) = self.taken.iter().find(|(_, place)| !place.is_in)?;
        let place = self.taken.remove(&oldest)?;
        place.task.abort();
        Some(place.peer)
    }
}

/// A place that is given back when this is dropped.
struct Seat<'a> {
    places: &'a Mutex<Places>,
    number: u64,
}

impl Drop for Seat<'_> {
    fn drop(&mut self) {
        lock(self.places).taken.remove(&self.number);
    }
}

impl Seat<'_> {
    fn let_in(&self) {
        if let Some(place) = lock(self.places).taken.get_mut(&self.number) {
            place.is_in = true;
        }
    }

    fn is_in(&self) -> bool {
        lock(self.places).taken.get(&self.number).is_some_and(|place| place.is_in)
    }
}

/// The contents of a mutex. Nothing that holds one panics, so that a poisoned one is as good.
fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

impl Doors {
    fn new(inner: SocketAddr) -> Self {
        Self {
            inner,
            sessions: Mutex::default(),
            links: Mutex::default(),
            waiting: Mutex::default(),
            told: Mutex::default(),
        }
    }

    /// Takes Burn's decision on the client that it sees at `address`. Who came by another way than the front is refused.
    pub fn decide(&self, address: SocketAddr, decision: Result<(), String>) -> Result<(), String> {
        let Some(waiting) = lock(&self.waiting).remove(&address) else {
            return Err(format!("{address} has not come through the front"));
        };
        // Nobody listens where the client has gone meanwhile; its connection ends, too.
        let _ = waiting.send(decision.clone());
        decision
    }

    /// A place for a new connection.
    fn seat(&self, task: AbortHandle, peer: SocketAddr) -> Option<u64> {
        let mut sessions = lock(&self.sessions);
        if sessions.taken.len() >= MOST_SESSIONS
            && let Some(dismissed) = sessions.dismiss()
        {
            self.tell(dismissed, &Refusal::Displaced);
        }
        (sessions.taken.len() < MOST_SESSIONS).then(|| sessions.take(Place { task, peer, is_in: false }))
    }

    /// A place among the links for one that sat among the sessions. Nobody has to leave for it: Burn goes on waiting for
    /// what a link has asked for.
    fn link(&self, seat: &Seat<'_>) -> Result<Seat<'_>, Refusal> {
        let mut sessions = lock(&self.sessions);
        if !sessions.taken.values().any(|place| place.is_in) {
            return Err(Refusal::NoSession);
        }
        let place = sessions.taken.remove(&seat.number).ok_or(Refusal::Full)?;
        let mut links = lock(&self.links);
        let unanswered = links.taken.values().filter(|link| link.peer.ip() == place.peer.ip() && !link.is_in).count();
        if links.taken.len() >= MOST_LINKS || unanswered >= MOST_UNANSWERED {
            return Err(Refusal::Full);
        }
        Ok(Seat { places: &self.links, number: links.take(place) })
    }

    /// Tells why a connection was closed, once a second at most.
    fn tell(&self, peer: SocketAddr, refusal: &Refusal) {
        let mut told = lock(&self.told);
        if told.0.is_some_and(|at| at.elapsed() < QUIET) {
            told.1 += 1;
            return;
        }
        let more = match std::mem::take(&mut told.1) {
            0 => String::new(),
            count => format!(" ({count} more since the last such line)"),
        };
        tracing::warn!("closed the connection from {peer}: {refusal}{more}");
        told.0 = Some(Instant::now());
    }
}

/// Takes connections for ever.
async fn accept(listener: TcpListener, doors: Arc<Doors>) {
    loop {
        let (stream, peer) = match listener.accept().await {
            Ok(accepted) => accepted,
            Err(error) => {
                // Too many files are open, or the client has gone: neither is forever.
                tracing::warn!("a connection could not be taken: {error}");
                sleep(Duration::from_millis(100)).await;
                continue;
            }
        };
        let (number, seated) = oneshot::channel();
        let own = Arc::clone(&doors);
        let task = tokio::spawn(async move {
            // Without a number there is no room.
            let Ok(number) = seated.await else { return own.tell(peer, &Refusal::Full) };
            let seat = Seat { places: &own.sessions, number };
            if let Err(refusal) = visit(stream, &own, seat).await {
                own.tell(peer, &refusal);
            }
        });
        if let Some(place) = doors.seat(task.abort_handle(), peer) {
            let _ = number.send(place);
        }
    }
}

/// A connection from its first byte to its last.
async fn visit(stream: TcpStream, doors: &Doors, seat: Seat<'_>) -> Passed {
    // As Burn's own: a client that vanishes without a word is noticed in half a minute.
    let keepalive = TcpKeepalive::new().with_time(Duration::from_secs(10));
    #[cfg(any(target_os = "linux", target_os = "macos", target_os = "windows"))]
    let keepalive = keepalive.with_interval(Duration::from_secs(5)).with_retries(4);
    SockRef::from(&stream).set_tcp_keepalive(&keepalive)?;
    stream.set_nodelay(true)?;
    let (from_client, to_client) = stream.into_split();
    let mut from_client = BufReader::with_capacity(BUFFER, from_client);

    let head = timeout(PATIENCE, read_head(&mut from_client)).await.map_err(|_| Refusal::Late)??;
    let is_link = match head.split(|&byte| byte == b' ').nth(1) {
        Some(b"/session") => false,
        Some(b"/data") => true,
        _ => return Err(Refusal::Protocol("it asks for neither a session nor a tensor")),
    };
    let mut inner = TcpStream::connect(doors.inner).await?;
    inner.set_nodelay(true)?;
    let address = inner.local_addr()?;
    // Before Burn hears of it.
    let (sender, decision) = oneshot::channel();
    let _waiting = Waiting::at(doors, address, sender);
    inner.write_all(&head).await?;
    let (from_burn, stream) = inner.into_split();
    let to_burn = ToBurn { stream, is_whole: true };
    let pipe = Pipe { from_client, to_client, from_burn: BufReader::with_capacity(BUFFER, from_burn), to_burn };
    match is_link {
        true => link(pipe, doors, seat).await,
        false => session(pipe, decision, seat).await,
    }
}

/// An address that waits for Burn's decision until this is dropped.
struct Waiting<'a> {
    doors: &'a Doors,
    address: SocketAddr,
}

impl<'a> Waiting<'a> {
    fn at(doors: &'a Doors, address: SocketAddr, decision: oneshot::Sender<Result<(), String>>) -> Self {
        lock(&doors.waiting).insert(address, decision);
        Self { doors, address }
    }
}

impl Drop for Waiting<'_> {
    fn drop(&mut self) {
        lock(&self.doors.waiting).remove(&self.address);
    }
}

/// Both directions of a connection, and of that to Burn.
struct Pipe {
    from_client: BufReader<OwnedReadHalf>,
    to_client: OwnedWriteHalf,
    from_burn: BufReader<OwnedReadHalf>,
    to_burn: ToBurn,
}

/// The way to Burn. It says goodbye on every way out, as Burn panics on a link that ends without.
struct ToBurn {
    stream: OwnedWriteHalf,
    /// Whether the last message is whole, so that another may follow.
    is_whole: bool,
}

impl ToBurn {
    /// Passes on a whole message.
    async fn send(&mut self, message: &[u8]) -> io::Result<()> {
        self.is_whole = false;
        self.stream.write_all(message).await?;
        self.is_whole = true;
        Ok(())
    }

    fn close(&mut self) {
        /// A close frame without a reason, masked by zeros.
        const CLOSE: [u8; 6] = [0x88, 0x80, 0, 0, 0, 0];
        if std::mem::take(&mut self.is_whole) {
            // There is room for six bytes, or Burn has gone before.
            let _ = self.stream.try_write(&CLOSE);
        }
    }
}

impl Drop for ToBurn {
    fn drop(&mut self) {
        self.close();
    }
}

/// A client's session: its first message, then, when Burn has let it in, whatever comes.
async fn session(mut pipe: Pipe, decision: oneshot::Receiver<Result<(), String>>, seat: Seat<'_>) -> Passed {
    let Pipe { from_client, to_client, from_burn, to_burn } = &mut pipe;
    let up = async {
        let passed = async {
            let admitted = async {
                let first = read_frame(from_client, MOST_INIT).await?.ok_or(Refusal::Protocol(SILENT))?;
                to_burn.send(&first.bytes).await?;
                decision.await.unwrap_or_else(|_| Err("Burn's server has ended".to_owned())).map_err(Refusal::Unwelcome)
            };
            timeout(PATIENCE, admitted).await.map_err(|_| Refusal::Late)??;
            seat.let_in();
            to_burn.is_whole = false;
            Ok(copy_buf(from_client, &mut to_burn.stream).await.map(drop)?)
        };
        closing(passed.await, to_burn).await
    };
    let down = async {
        copy_buf(from_burn, to_client).await?;
        match seat.is_in() {
            true => Ok(()),
            false => Err(Refusal::Protocol("what it sent first is not what a client says")),
        }
    };
    both(up, down).await
}

/// Another server's link, by which it fetches the tensors that sessions hand over to it.
async fn link(mut pipe: Pipe, doors: &Doors, seat: Seat<'_>) -> Passed {
    let Pipe { from_client, to_client, from_burn, to_burn } = &mut pipe;
    let first = async {
        to_client.write_all(&read_head(from_burn).await?).await?;
        read_request(from_client).await?.ok_or(Refusal::Protocol(SILENT))
    };
    let first = timeout(PATIENCE, first).await.map_err(|_| Refusal::Late)??;
    let seat = doors.link(&seat)?;
    let up = async {
        let passed = async {
            let mut request = Some(first);
            while let Some(bytes) = request {
                to_burn.send(&bytes).await?;
                request = read_request(from_client).await?;
            }
            Ok(())
        };
        closing(passed.await, to_burn).await
    };
    let down = async {
        if !from_burn.fill_buf().await?.is_empty() {
            seat.let_in();
        }
        Ok(copy_buf(from_burn, to_client).await.map(drop)?)
    };
    both(up, down).await
}

/// What became of a connection.
type Passed = Result<(), Refusal>;

/// Said of those that end before they have said anything.
const SILENT: &str = "it ended before it said who it is";

/// Tells Burn that nothing more comes, however the client has ended, so that Burn ends too.
async fn closing(passed: Passed, to_burn: &mut ToBurn) -> Passed {
    to_burn.close();
    let _ = to_burn.stream.shutdown().await; // it may have ended before
    passed
}

/// Runs both directions until Burn has said its last word: a client that was refused still hears so.
async fn both(up: impl Future<Output = Passed>, down: impl Future<Output = Passed>) -> Passed {
    tokio::pin!(up, down);
    tokio::select! {
        biased;
        up = &mut up => up.and(down.await),
        down = &mut down => down,
    }
}

/// The head of an HTTP request or answer, with the empty line at its end.
async fn read_head<R: AsyncBufRead + Unpin>(reader: &mut R) -> Result<Vec<u8>, Refusal> {
    let mut head = Vec::new();
    while !head.ends_with(b"\r\n\r\n") {
        let left = MOST_HEAD.saturating_sub(head.len()) as u64;
        if reader.take(left).read_until(b'\n', &mut head).await? == 0 {
            return Err(Refusal::Protocol(if left == 0 { "its request is too long" } else { SILENT }));
        }
    }
    Ok(head)
}

/// A whole message of a client: what came, and what is in it.
struct Frame {
    bytes: Vec<u8>,
    is_control: bool,
    content: Vec<u8>,
}

/// Reads a WebSocket frame with at most this much in it ([RFC 6455, 5.2](https://www.rfc-editor.org/rfc/rfc6455#section-5.2));
/// nothing at the end.
async fn read_frame<R: AsyncRead + Unpin>(reader: &mut R, most: u64) -> Result<Option<Frame>, Refusal> {
    let mut bytes = vec![0; 2];
    if reader.read(&mut bytes[..1]).await? == 0 {
        return Ok(None);
    }
    reader.read_exact(&mut bytes[1..]).await?;
    let [first, second] = [bytes[0], bytes[1]];
    let is_control = matches!(first, 0x88..=0x8a);
    if !(is_control || first == 0x82) || second < 0x80 {
        return Err(Refusal::Protocol("what it sent is no message of a client"));
    }
    let length = match second & 0x7f {
        126 => u64::from(reader.read_u16().await?),
        127 => reader.read_u64().await?,
        length => u64::from(length),
    };
    match second & 0x7f {
        126 => bytes.extend((length as u16).to_be_bytes()),
        127 => bytes.extend(length.to_be_bytes()),
        _ => {}
    }
    if length > most {
        return Err(Refusal::Protocol("its message is longer than what a client says first"));
    }
    let start = bytes.len() + 4;
    bytes.resize(start + length as usize, 0);
    reader.read_exact(&mut bytes[start - 4..]).await?;
    let (mask, masked) = bytes[start - 4..].split_at(4);
    let content = masked.iter().zip(mask.iter().cycle()).map(|(byte, mask)| byte ^ mask).collect();
    Ok(Some(Frame { bytes, is_control, content }))
}

/// Reads a request for a tensor; nothing at the end.
async fn read_request<R: AsyncRead + Unpin>(reader: &mut R) -> Result<Option<Vec<u8>>, Refusal> {
    let Some(frame) = read_frame(reader, MOST_REQUEST).await? else { return Ok(None) };
    match frame.is_control || is_request(&frame.content) {
        true => Ok(Some(frame.bytes)),
        false => Err(Refusal::Protocol("what it sent is no request for a tensor")),
    }
}

/// Whether this is a request with a number in MessagePack after it, and nothing else.
fn is_request(content: &[u8]) -> bool {
    let Some([kind, digits @ ..]) = content.strip_prefix(REQUEST) else { return false };
    let length = match kind {
        0..0x80 => 0,
        0xcc => 1,
        0xcd => 2,
        0xce => 4,
        0xcf => 8,
        _ => return false,
    };
    digits.len() == length
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn requests_for_tensors_are_told_from_what_burn_panics_on() {
        let request = |tail: &[u8]| is_request(&[REQUEST, tail].concat());
        assert!(request(&[5]) && request(&[0xcc, 200]) && request(&[0xcf, 1, 2, 3, 4, 5, 6, 7, 8]));
        assert!(!request(&[]) && !request(&[0xcf, 1]) && !request(&[5, 5]) && !request(&[0xff]));
        assert!(!is_request(b"\x81\xa6Tensor\x05") && !is_request(b""));
    }
}
