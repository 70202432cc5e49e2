//! The server's side of an encrypted connection that has no buffers while it rests: where rustls reads and writes itself, it
//! keeps four kilobytes for each, which is too much for tens of thousands of agents that say something every twenty seconds.

use std::cmp::min;
use std::io::{self, IoSlice};
use std::mem::MaybeUninit;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll, ready};

use bytes::{Buf, BytesMut};
use rustls::ServerConfig;
use rustls::server::{ServerConnectionData, UnbufferedServerConnection};
use rustls::unbuffered::{
    ConnectionState, EncodeError, EncryptError, InsufficientSizeError, UnbufferedStatus, WriteTraffic,
};
use tokio::io::{AsyncRead, AsyncWrite, AsyncWriteExt, ReadBuf};

use super::failed;

/// How much is read at once, in bytes.
const READ: usize = 8 << 10;
/// How much may have come of one message that isn't whole yet, in bytes: the longest of a handshake has 64 KB.
const UNFINISHED: usize = 80 << 10;
/// How much is encrypted at once, in bytes.
const WRITTEN: usize = 64 << 10;
/// The most that encryption adds to each record, in bytes, and how many bytes of content a record has at most.
const ADDED: usize = 32;
const RECORD: usize = 16 << 10;

/// An encrypted connection, as its server sees it.
pub struct TlsStream<T> {
    io: T,
    session: UnbufferedServerConnection,
    /// What came and makes no whole message yet.
    incoming: BytesMut,
    /// What was said and nobody has read yet.
    heard: BytesMut,
    /// What is encrypted and not sent yet.
    outgoing: BytesMut,
    /// The other side will say nothing more.
    has_ended: bool,
    /// We said that we will say nothing more.
    has_closed: bool,
    /// Something came that could not have been sent; nothing is right after it.
    is_broken: bool,
    /// What is to be told of it to who reads, after all that came before.
    problem: Option<io::Error>,
}

/// What is to be said once all that came is heard.
#[derive(Clone, Copy)]
enum Words<'a> {
    Nothing,
    Data(&'a [u8]),
    /// That nothing more will be said.
    Close,
}

impl<T: AsyncRead + AsyncWrite + Unpin> TlsStream<T> {
    /// Shakes hands.
    ///
    /// # Errors
    /// If the connection breaks, or the other side isn't one to shake hands with; it is told so.
    pub async fn accept(io: T, config: Arc<ServerConfig>) -> io::Result<Self> {
        let mut stream = Self {
            io,
            session: UnbufferedServerConnection::new(config).map_err(failed)?,
            incoming: BytesMut::new(),
            heard: BytesMut::new(),
            outgoing: BytesMut::new(),
            has_ended: false,
            has_closed: false,
            is_broken: false,
            problem: None,
        };
        while stream.session.is_handshaking() {
            let heard = std::future::poll_fn(|cx| stream.poll_hear(cx)).await;
            // What tells the other side why, too.
            let told = stream.flush().await;
            heard.and(told)?;
        }
        Ok(stream)
    }

    /// What was agreed on.
    pub fn session(&self) -> &UnbufferedServerConnection {
        &self.session
    }

    /// Reads once, and takes what came as far as it can be taken.
    fn poll_hear(&mut self, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        if self.is_broken {
            return Poll::Ready(Err(io::ErrorKind::BrokenPipe.into()));
        }
        let mut space = [MaybeUninit::uninit(); READ];
        let mut read = ReadBuf::uninit(&mut space);
        ready!(Pin::new(&mut self.io).poll_read(cx, &mut read))?;
        if read.filled().is_empty() {
            let problem = "the connection ended, and the other side had not said that it would";
            return Poll::Ready(Err(io::Error::new(io::ErrorKind::UnexpectedEof, problem)));
        }
        self.incoming.extend_from_slice(read.filled());
        let heard = self.process(Words::Nothing);
        if self.incoming.is_empty() {
            self.incoming = BytesMut::new();
        } else if self.incoming.len() > UNFINISHED {
            self.is_broken = true;
            let problem = format!("a message that has no end after {UNFINISHED} bytes");
            return Poll::Ready(Err(io::Error::new(io::ErrorKind::InvalidData, problem)));
        }
        Poll::Ready(heard)
    }

    /// Takes what came, answers what is to be answered, and says something. All that is to be sent is outgoing then.
    fn process(&mut self, words: Words) -> io::Result<()> {
        if self.is_broken {
            return Err(io::ErrorKind::BrokenPipe.into());
        }
        let processed = self.go_through(words);
        self.is_broken = processed.is_err();
        processed
    }

    fn go_through(&mut self, words: Words) -> io::Result<()> {
        loop {
            let UnbufferedStatus { discard, state, .. } =
                self.session.process_tls_records(&mut self.incoming);
            let goes_on = match state {
                Ok(ConnectionState::ReadTraffic(mut traffic)) => {
                    while let Some(record) = traffic.next_record() {
                        self.heard.extend_from_slice(record.map_err(failed)?.payload);
                    }
                    true
                }
                Ok(ConnectionState::EncodeTlsData(mut answer)) => {
                    append(&mut self.outgoing, 0, |space| Ok(answer.encode(space)?))?;
                    true
                }
                // It is in its place among what is sent.
                Ok(ConnectionState::TransmitTlsData(answers)) => {
                    answers.done();
                    true
                }
                Ok(ConnectionState::PeerClosed) => {
                    self.has_ended = true;
                    true
                }
                Ok(ConnectionState::WriteTraffic(traffic)) => {
                    say(words, traffic, &mut self.outgoing)?;
                    false
                }
                Ok(_) => match words {
                    Words::Data(_) => return Err(io::ErrorKind::NotConnected.into()),
                    Words::Nothing | Words::Close => false,
                },
                Err(error) => {
                    self.incoming.advance(discard);
                    self.tell_what_is_left()?;
                    return Err(io::Error::new(io::ErrorKind::InvalidData, error));
                }
            };
            self.incoming.advance(discard);
            if !goes_on {
                return Ok(());
            }
        }
    }

    /// Encodes what rustls has to say after an error: not all of it may have been asked for before.
    fn tell_what_is_left(&mut self) -> io::Result<()> {
        while self.session.wants_write() {
            let UnbufferedStatus { discard, state, .. } =
                self.session.process_tls_records(&mut self.incoming);
            let Ok(ConnectionState::EncodeTlsData(mut last)) = state else { break };
            append(&mut self.outgoing, 0, |space| Ok(last.encode(space)?))?;
            self.incoming.advance(discard);
        }
        Ok(())
    }

    /// Sends what is encrypted.
    fn poll_send(&mut self, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        while !self.outgoing.is_empty() {
            match ready!(Pin::new(&mut self.io).poll_write(cx, &self.outgoing))? {
                0 => return Poll::Ready(Err(io::ErrorKind::WriteZero.into())),
                sent => self.outgoing.advance(sent),
            }
        }
        self.outgoing = BytesMut::new();
        Poll::Ready(Ok(()))
    }
}

impl<T: AsyncRead + AsyncWrite + Unpin> AsyncRead for TlsStream<T> {
    /// Never writes, except what tells the other side that it must be wrong: who reads may not be who writes.
    fn poll_read(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buffer: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        let this = self.get_mut();
        while this.heard.is_empty() && !this.has_ended {
            if let Some(problem) = this.problem.take() {
                return Poll::Ready(Err(problem));
            }
            if let Err(problem) = ready!(this.poll_hear(cx)) {
                let _ = this.poll_send(cx);
                this.problem = Some(problem);
            }
        }
        let read = min(this.heard.len(), buffer.remaining());
        buffer.put_slice(this.heard.get(..read).unwrap_or_default());
        this.heard.advance(read);
        if this.heard.is_empty() {
            this.heard = BytesMut::new();
        }
        Poll::Ready(Ok(()))
    }
}

impl<T: AsyncRead + AsyncWrite + Unpin> AsyncWrite for TlsStream<T> {
    fn poll_write(self: Pin<&mut Self>, cx: &mut Context<'_>, data: &[u8]) -> Poll<io::Result<usize>> {
        let this = self.get_mut();
        ready!(this.poll_send(cx))?;
        if this.has_closed {
            return Poll::Ready(Err(io::ErrorKind::BrokenPipe.into()));
        }
        let data = data.get(..WRITTEN).unwrap_or(data);
        this.process(Words::Data(data))?;
        // What the connection does not take now goes before what comes next.
        match this.poll_send(cx) {
            Poll::Ready(Err(error)) => Poll::Ready(Err(error)),
            _ => Poll::Ready(Ok(data.len())),
        }
    }

    /// Whole records of what comes in pieces: HTTP/2 writes the head of each of its frames apart.
    fn poll_write_vectored(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        pieces: &[IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        if let [piece] = pieces {
            return self.poll_write(cx, piece);
        }
        // Put together once, and not each time that there is no room for it.
        ready!(self.poll_send(cx))?;
        let mut whole = Vec::new();
        for piece in pieces {
            let room = WRITTEN - whole.len();
            whole.extend_from_slice(piece.get(..room).unwrap_or(piece));
        }
        self.poll_write(cx, &whole)
    }

    fn is_write_vectored(&self) -> bool {
        true
    }

    fn poll_flush(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        let this = self.get_mut();
        ready!(this.poll_send(cx))?;
        Pin::new(&mut this.io).poll_flush(cx)
    }

    fn poll_shutdown(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        let this = self.get_mut();
        if !this.has_closed && !this.is_broken {
            this.process(Words::Close)?;
            this.has_closed = true;
        }
        ready!(this.poll_send(cx))?;
        Pin::new(&mut this.io).poll_shutdown(cx)
    }
}

fn say(
    words: Words,
    mut traffic: WriteTraffic<'_, ServerConnectionData>,
    out: &mut BytesMut,
) -> io::Result<()> {
    match words {
        Words::Nothing => Ok(()),
        Words::Data(data) => {
            let space = data.len() + (data.len() / RECORD + 1) * ADDED;
            append(out, space, |space| Ok(traffic.encrypt(data, space)?))
        }
        Words::Close => append(out, ADDED, |space| Ok(traffic.queue_close_notify(space)?)),
    }
}

/// Why something could not be written.
enum Unwritten {
    NeedsSpace(usize),
    Failed(io::Error),
}

impl From<EncodeError> for Unwritten {
    fn from(error: EncodeError) -> Self {
        match error {
            EncodeError::InsufficientSize(InsufficientSizeError { required_size }) => {
                Self::NeedsSpace(required_size)
            }
            EncodeError::AlreadyEncoded => Self::Failed(failed(error)),
        }
    }
}

impl From<EncryptError> for Unwritten {
    fn from(error: EncryptError) -> Self {
        match error {
            EncryptError::InsufficientSize(InsufficientSizeError { required_size }) => {
                Self::NeedsSpace(required_size)
            }
            EncryptError::EncryptExhausted => Self::Failed(failed(error)),
        }
    }
}

/// Appends what is written into so much space, or as much as it turns out to need.
fn append(
    out: &mut BytesMut,
    mut space: usize,
    mut write: impl FnMut(&mut [u8]) -> Result<usize, Unwritten>,
) -> io::Result<()> {
    let before = out.len();
    loop {
        out.resize(before + space, 0);
        let (_, room) = out.split_at_mut(before);
        match write(room) {
            Ok(written) => {
                out.truncate(before + written);
                return Ok(());
            }
            Err(Unwritten::NeedsSpace(needed)) if needed > space => space = needed,
            Err(unwritten) => {
                out.truncate(before);
                return Err(match unwritten {
                    Unwritten::Failed(error) => error,
                    Unwritten::NeedsSpace(_) => io::ErrorKind::WriteZero.into(),
                });
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use rustls::pki_types::ServerName;
    use rustls::version::{TLS12, TLS13};
    use rustls::{ClientConfig, SupportedProtocolVersion};
    use tokio::io::{AsyncReadExt, DuplexStream, duplex, split};
    use tokio_rustls::TlsConnector;
    use tokio_rustls::client::TlsStream as Client;

    use super::*;
    use crate::tls::{Authorities, HTTP_2, Served, Source, roots, server_for_all};

    fn configs(version: &'static SupportedProtocolVersion) -> (Arc<ServerConfig>, Arc<ClientConfig>) {
        let authorities = Authorities::open(tempfile::tempdir().unwrap().path()).unwrap();
        let trusted = roots(&authorities.stage().trusted()).unwrap();
        let source = Source::Authority { authorities, names: vec!["localhost".to_owned()] };
        let server = server_for_all(Served::open(source, crate::now()).unwrap(), &[HTTP_2]).unwrap();
        let mut client = ClientConfig::builder_with_provider(crate::tls::provider())
            .with_protocol_versions(&[version])
            .unwrap()
            .with_root_certificates(trusted)
            .with_no_client_auth();
        client.alpn_protocols = vec![HTTP_2.to_vec()];
        (server, Arc::new(client))
    }

    /// Both ends of a connection that takes so many bytes at once.
    async fn pair(
        version: &'static SupportedProtocolVersion,
        space: usize,
    ) -> (TlsStream<DuplexStream>, Client<DuplexStream>) {
        let (server, client) = configs(version);
        let (near, far) = duplex(space);
        let name = ServerName::try_from("localhost").unwrap();
        let (server, client) =
            tokio::join!(TlsStream::accept(far, server), TlsConnector::from(client).connect(name, near));
        (server.unwrap(), client.unwrap())
    }

    fn is_at_rest<T>(stream: &TlsStream<T>) -> bool {
        [&stream.incoming, &stream.heard, &stream.outgoing].iter().all(|buffer| buffer.capacity() == 0)
    }

    fn noise(length: usize) -> Vec<u8> {
        (0..length).map(|place| u8::try_from(place % 251).unwrap()).collect()
    }

    #[tokio::test]
    async fn what_is_said_is_heard_whole_whatever_the_connection_takes_at_once() {
        for (version, space) in [(&TLS13, 1 << 20), (&TLS13, 1000), (&TLS13, 600), (&TLS12, 7000)] {
            let (mut server, mut client) = pair(version, space).await;
            assert_eq!(server.session().alpn_protocol(), Some(HTTP_2));
            assert_eq!(server.session().protocol_version(), client.get_ref().1.protocol_version());
            for length in [1, 100, RECORD, RECORD + 1, WRITTEN, WRITTEN + 1, 3 * WRITTEN] {
                let said = noise(length);
                let echo = async {
                    let mut heard = vec![0; said.len()];
                    server.read_exact(&mut heard).await.unwrap();
                    server.write_all(&heard).await.unwrap();
                    server.flush().await.unwrap();
                };
                let talk = async {
                    client.write_all(&said).await.unwrap();
                    client.flush().await.unwrap();
                    let mut heard = vec![0; said.len()];
                    client.read_exact(&mut heard).await.unwrap();
                    assert!(heard == said, "{length} bytes of {version:?}, {space} at once");
                };
                tokio::join!(echo, talk);
            }
            assert!(is_at_rest(&server), "{version:?}, {space} at once");
        }
    }

    #[tokio::test]
    async fn both_sides_speak_at_once_and_keys_are_replaced_meanwhile() {
        const ALL: usize = 2 << 20;
        let (server, client) = pair(&TLS13, 5000).await;
        let (mut hears, mut says) = split(server);
        let (mut client_hears, mut client_says) = split(client);
        let hear = async {
            let mut heard = vec![0; ALL];
            hears.read_exact(&mut heard).await.unwrap();
            heard
        };
        let client_hear = async {
            let mut heard = vec![0; ALL];
            client_hears.read_exact(&mut heard).await.unwrap();
            heard
        };
        let say = async {
            says.write_all(&noise(ALL)).await.unwrap();
            says.flush().await.unwrap();
        };
        let client_say = async {
            client_says.write_all(&noise(ALL)).await.unwrap();
            client_says.flush().await.unwrap();
        };
        let (heard, (), client_heard, ()) = tokio::join!(hear, say, client_hear, client_say);
        assert!(heard == noise(ALL) && client_heard == heard);

        let (mut server, mut client) = (hears.unsplit(says), client_hears.unsplit(client_says));
        for round in 0..10 {
            client.get_mut().1.refresh_traffic_keys().unwrap();
            client.write_all(&[round]).await.unwrap();
            client.flush().await.unwrap();
            assert_eq!(server.read_u8().await.unwrap(), round);
            server.write_all(&[round]).await.unwrap();
            assert_eq!(client.read_u8().await.unwrap(), round);
        }
    }

    #[tokio::test]
    async fn each_side_closes_for_itself() {
        let (mut server, mut client) = pair(&TLS13, 1000).await;
        client.write_all(b"last").await.unwrap();
        client.shutdown().await.unwrap();
        let mut heard = Vec::new();
        server.read_to_end(&mut heard).await.unwrap();
        assert_eq!(heard, b"last");
        // Who hears nothing more may go on to speak.
        server.write_all(b"words").await.unwrap();
        server.shutdown().await.unwrap();
        heard.clear();
        client.read_to_end(&mut heard).await.unwrap();
        assert_eq!(heard, b"words");
        assert!(server.write_all(b"more").await.is_err());
    }

    #[tokio::test]
    async fn an_end_that_nobody_announced_is_an_error_after_what_came_before_it() {
        let (mut server, mut client) = pair(&TLS13, 1000).await;
        client.write_all(b"las").await.unwrap();
        client.flush().await.unwrap();
        drop(client);
        let mut heard = Vec::new();
        let cut_off = server.read_to_end(&mut heard).await.unwrap_err();
        assert_eq!((cut_off.kind(), &*heard), (io::ErrorKind::UnexpectedEof, &b"las"[..]));
    }

    #[tokio::test]
    async fn who_does_not_speak_tls_is_told_so() {
        for (said, at_most) in [(&b"GET / HTTP/1.1\r\n\r\n"[..], 7), (&[22, 3, 1, 0, 5, 9, 0, 0, 1, 9], 7)] {
            let (server, _) = configs(&TLS13);
            let (mut near, far) = duplex(1000);
            near.write_all(said).await.unwrap();
            let refused = TlsStream::accept(far, server).await.err().unwrap();
            assert_eq!(refused.kind(), io::ErrorKind::InvalidData);
            let mut heard = Vec::new();
            near.read_to_end(&mut heard).await.unwrap();
            assert_eq!((heard.first(), heard.len()), (Some(&21), at_most), "an alert");
        }
    }

    #[tokio::test]
    async fn who_speaks_no_protocol_of_ours_hears_why() {
        let (server, client) = configs(&TLS13);
        let mut client = Arc::unwrap_or_clone(client);
        client.alpn_protocols = vec![b"other".to_vec()];
        let (near, far) = duplex(1 << 16);
        let name = ServerName::try_from("localhost").unwrap();
        let (refused, told) = tokio::join!(
            TlsStream::accept(far, server),
            TlsConnector::from(Arc::new(client)).connect(name, near)
        );
        assert_eq!(refused.err().unwrap().kind(), io::ErrorKind::InvalidData);
        let told = told.unwrap_err().to_string();
        assert!(told.contains("NoApplicationProtocol"), "{told}");
    }

    #[tokio::test]
    async fn who_says_all_at_once_is_heard() {
        let (server, client) = configs(&TLS13);
        let (near, far) = duplex(1 << 16);
        let name = ServerName::try_from("localhost").unwrap();
        let all = async {
            let mut client = TlsConnector::from(client).connect(name, near).await.unwrap();
            client.write_all(b"all").await.unwrap();
            client.shutdown().await.unwrap();
            client
        };
        let (server, mut client) = tokio::join!(TlsStream::accept(far, server), all);
        let (mut server, mut heard) = (server.unwrap(), String::new());
        server.read_to_string(&mut heard).await.unwrap();
        assert_eq!(heard, "all");
        server.write_all(b"answer").await.unwrap();
        server.shutdown().await.unwrap();
        assert!(server.write_all(b"more").await.is_err());
        heard.clear();
        client.read_to_string(&mut heard).await.unwrap();
        assert_eq!(heard, "answer");
    }

    #[tokio::test]
    async fn what_comes_in_pieces_goes_as_a_whole() {
        let (mut server, mut client) = pair(&TLS13, 1 << 20).await;
        let (first, second) = (noise(9), noise(2 * WRITTEN));
        let pieces = [IoSlice::new(&first), IoSlice::new(&second), IoSlice::new(&first)];
        assert!(server.is_write_vectored());
        assert_eq!(server.write_vectored(&pieces).await.unwrap(), WRITTEN);
        let mut heard = vec![0; WRITTEN];
        client.read_exact(&mut heard).await.unwrap();
        assert!(heard == [first, second].concat()[..WRITTEN]);
    }

    #[tokio::test]
    async fn a_handshake_without_end_is_not_kept() {
        let (server, _) = configs(&TLS13);
        let (mut near, far) = duplex(1000);
        let endless = async move {
            // A greeting of 16 MB, in records of 16 KB each.
            let mut record = vec![22, 3, 1, 0x40, 0];
            record.extend([1, 0xff, 0xff, 0xff]);
            record.resize(5 + 0x4000, 0);
            while near.write_all(&record).await.is_ok() {
                record.splice(5..9, [0; 4]);
            }
        };
        let (refused, ()) = tokio::join!(TlsStream::accept(far, server), endless);
        assert_eq!(refused.err().unwrap().kind(), io::ErrorKind::InvalidData);
    }

    #[tokio::test]
    async fn what_was_changed_on_its_way_is_not_heard_and_nothing_after_it() {
        let (mut server, client) = pair(&TLS13, 1 << 16).await;
        let (mut near, mut session) = client.into_inner();
        let mut sealed = Vec::new();
        io::Write::write_all(&mut session.writer(), b"before").unwrap();
        session.write_tls(&mut sealed).unwrap();
        io::Write::write_all(&mut session.writer(), b"changed").unwrap();
        session.write_tls(&mut sealed).unwrap();
        *sealed.last_mut().unwrap() ^= 1;
        io::Write::write_all(&mut session.writer(), b"after").unwrap();
        session.write_tls(&mut sealed).unwrap();
        near.write_all(&sealed).await.unwrap();
        let mut heard = Vec::new();
        assert_eq!(server.read_to_end(&mut heard).await.unwrap_err().kind(), io::ErrorKind::InvalidData);
        assert!(server.read_u8().await.is_err() && server.write_all(b"a").await.is_err());
        assert_eq!(heard, b"before");
    }
}
