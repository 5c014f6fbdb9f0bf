//! A response body that is written while it is sent, so that a large exposition is never in memory as a whole.

use std::{
    future::Future,
    io::{self, BufWriter, Write},
    pin::Pin,
    sync::Arc,
    task::{Context, Poll},
    time::{Duration, Instant},
};

use flate2::{Compression, write::GzEncoder};
use hyper::body::{Body, Bytes, Frame, SizeHint};
use tokio::{
    runtime::Handle,
    sync::{OwnedSemaphorePermit, Semaphore, mpsc, mpsc::error::TrySendError},
    time::{Sleep, timeout},
};

/// Bytes per piece. One scrape holds [`PIECES`] of them, two more, and the compressor.
///
/// Each piece takes two threads a switch, so larger ones cost less. From 128 KiB on the allocator would get each from the system.
pub(super) const PIECE: usize = 120 * 1024;
const PIECES: usize = 2;

/// Where an encoder writes.
pub trait Sink: Write {
    /// Writes all of a buffer and empties it. A sink may keep the memory, and leave another buffer.
    ///
    /// # Errors
    /// Those of [`Write::write_all`].
    fn write_buffer(&mut self, buffer: &mut Vec<u8>) -> io::Result<()> {
        self.write_all(buffer)?;
        buffer.clear();
        Ok(())
    }
}

impl Sink for Vec<u8> {}

/// Why a body was not sent completely. The client sees a broken connection, never a truncated exposition.
#[derive(Debug, thiserror::Error)]
pub(super) enum BodyError {
    /// The encoder failed.
    #[error("the response was cut short, because it could not be encoded")]
    Truncated,
    /// The client took too long.
    #[error("the client did not read the response within {0:?}")]
    Slow(Duration),
}

/// The place of a response among those that are sent at the same time.
pub(super) trait SendingPlace: Send + Sync {
    /// The response begins or ends to wait for its client.
    fn waits(&self, is_waiting: bool);
}

/// How long in total one exposition may keep its permit while it waits for its client.
const PATIENCE: Duration = Duration::from_millis(100);

/// The permit to encode. Only a few expositions have one at a time. An exposition that waits for a slow client lends its
/// permit to others.
pub(super) struct EncodePermit {
    turns: Arc<Semaphore>,
    held: Option<OwnedSemaphorePermit>,
    patience: Duration,
}

impl EncodePermit {
    /// Waits for a permit. `None` after shutdown.
    pub(super) async fn wait_for(turns: &Arc<Semaphore>) -> Option<Self> {
        let turns = Arc::clone(turns);
        let held = Some(Arc::clone(&turns).acquire_owned().await.ok()?);
        Some(Self { turns, held, patience: PATIENCE })
    }

    /// Waits for a future that depends on the client.
    async fn while_waiting<T>(&mut self, wait: impl Future<Output = T>) -> T {
        let mut wait = std::pin::pin!(wait);
        let begun = Instant::now();
        let done = timeout(self.patience, wait.as_mut()).await;
        self.patience = self.patience.saturating_sub(begun.elapsed());
        if let Ok(done) = done {
            return done;
        }
        self.held = None;
        let done = wait.await;
        self.held = Arc::clone(&self.turns).acquire_owned().await.ok();
        done
    }
}

enum Piece {
    Data(Bytes),
    End,
}

/// The writing end. It fills pieces and waits for space. Use it on a thread that may block.
pub(super) struct Output(Encoding);

enum Encoding {
    Plain(PieceWriter),
    // Calls of the compressor are expensive, and encoders write a few bytes at a time.
    Gzip(Box<BufWriter<GzEncoder<PieceWriter>>>),
}

struct PieceWriter {
    pieces: mpsc::Sender<Piece>,
    place: Arc<dyn SendingPlace>,
    turn: EncodePermit,
    buffer: Vec<u8>,
}

impl PieceWriter {
    fn send(&mut self, piece: Piece) -> io::Result<()> {
        let sent = match self.pieces.try_send(piece) {
            Err(TrySendError::Full(piece)) => {
                let Self { pieces, turn, place, .. } = self;
                place.waits(true);
                let sent = Handle::current().block_on(turn.while_waiting(pieces.send(piece))).is_ok();
                place.waits(false);
                sent
            }
            result => result.is_ok(),
        };
        if sent { Ok(()) } else { Err(io::Error::new(io::ErrorKind::BrokenPipe, "the client disconnected")) }
    }

    fn send_buffer(&mut self) -> io::Result<()> {
        let full = std::mem::replace(&mut self.buffer, Vec::with_capacity(PIECE));
        self.send(Piece::Data(full.into()))
    }
}

impl Write for PieceWriter {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        let room = PIECE.saturating_sub(self.buffer.len()).min(bytes.len());
        let (now, _) = bytes.split_at(room);
        self.buffer.extend_from_slice(now);
        if self.buffer.len() >= PIECE {
            self.send_buffer()?;
        }
        Ok(room)
    }

    // A piece goes out when it is full, not when a compressor thinks that it should.
    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

impl Output {
    /// Create this on the thread that writes, a blocking thread of the runtime: a compressor also writes when it is
    /// dropped.
    pub(super) fn new(pieces: Pieces, turn: EncodePermit, gzip: bool) -> Self {
        let Pieces { pieces, place } = pieces;
        let writer = PieceWriter { pieces, place, turn, buffer: Vec::new() };
        Self(if gzip {
            let packed = GzEncoder::new(writer, Compression::fast());
            Encoding::Gzip(Box::new(BufWriter::with_capacity(PIECE, packed)))
        } else {
            Encoding::Plain(writer)
        })
    }

    /// Sends the rest and marks the body complete.
    pub(super) fn finish(self) -> io::Result<()> {
        let mut writer = match self.0 {
            Encoding::Plain(writer) => writer,
            Encoding::Gzip(buffered) => {
                buffered.into_inner().map_err(io::IntoInnerError::into_error)?.finish()?
            }
        };
        if !writer.buffer.is_empty() {
            let rest = std::mem::take(&mut writer.buffer);
            writer.send(Piece::Data(rest.into()))?;
        }
        writer.send(Piece::End)
    }
}

impl Sink for Output {
    fn write_buffer(&mut self, buffer: &mut Vec<u8>) -> io::Result<()> {
        match &mut self.0 {
            Encoding::Plain(writer) => {
                if !writer.buffer.is_empty() {
                    writer.send_buffer()?;
                }
                let full = std::mem::replace(buffer, Vec::with_capacity(PIECE));
                if full.is_empty() { Ok(()) } else { writer.send(Piece::Data(full.into())) }
            }
            Encoding::Gzip(writer) => {
                // Large already: not copied.
                if writer.buffer().is_empty() {
                    writer.get_mut().write_all(buffer)?;
                } else {
                    writer.write_all(buffer)?;
                }
                buffer.clear();
                Ok(())
            }
        }
    }
}

impl Write for Output {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        match &mut self.0 {
            Encoding::Plain(writer) => writer.write(bytes),
            Encoding::Gzip(writer) => writer.write(bytes),
        }
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

/// The channel from an [`Output`] to the body.
pub(super) struct Pieces {
    pieces: mpsc::Sender<Piece>,
    place: Arc<dyn SendingPlace>,
}

/// A channel and its body, which the client must read within the given time. Both ends hold the place: the writing end holds the view.
pub(super) fn channel(within: Duration, place: Arc<dyn SendingPlace>) -> (Pieces, ResponseBody) {
    let (pieces, receiver) = mpsc::channel(PIECES);
    let deadline = Box::pin(tokio::time::sleep(within));
    let streamed = Streamed { receiver, deadline, within, _place: Arc::clone(&place) };
    (Pieces { pieces, place }, ResponseBody::Streamed(streamed))
}

pub(super) enum ResponseBody {
    /// A complete body; `None` after it was sent.
    Whole(Option<Bytes>),
    /// A body that is still being written.
    Streamed(Streamed),
}

pub(super) struct Streamed {
    receiver: mpsc::Receiver<Piece>,
    deadline: Pin<Box<Sleep>>,
    within: Duration,
    _place: Arc<dyn SendingPlace>,
}

impl Body for ResponseBody {
    type Data = Bytes;
    type Error = BodyError;

    fn poll_frame(
        self: Pin<&mut Self>,
        context: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, BodyError>>> {
        match self.get_mut() {
            Self::Whole(bytes) => Poll::Ready(bytes.take().map(|bytes| Ok(Frame::data(bytes)))),
            Self::Streamed(Streamed { receiver, deadline, within, .. }) => {
                if deadline.as_mut().poll(context).is_ready() {
                    return Poll::Ready(Some(Err(BodyError::Slow(*within))));
                }
                receiver.poll_recv(context).map(|piece| match piece {
                    Some(Piece::Data(bytes)) => Some(Ok(Frame::data(bytes))),
                    Some(Piece::End) => None,
                    None => Some(Err(BodyError::Truncated)),
                })
            }
        }
    }

    fn is_end_stream(&self) -> bool {
        matches!(self, Self::Whole(None))
    }

    fn size_hint(&self) -> SizeHint {
        match self {
            Self::Whole(bytes) => SizeHint::with_exact(bytes.as_ref().map_or(0, |b| b.len() as u64)),
            Self::Streamed(_) => SizeHint::default(),
        }
    }
}
