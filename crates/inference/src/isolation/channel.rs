//! A socket on which whatever is read or written must be through by a given time, however it drips.

use std::io::{self, BufReader, BufWriter, Read, Write};
use std::os::unix::net::UnixStream;
use std::time::{Duration, Instant};

pub(super) type Reader = BufReader<Channel>;
pub(super) type Writer = BufWriter<Channel>;

/// One direction of a socket.
pub(super) struct Channel {
    socket: UnixStream,
    pub deadline: Instant,
}

impl Channel {
    /// Both directions.
    pub fn pair(socket: UnixStream) -> io::Result<(Reader, Writer)> {
        let deadline = Instant::now();
        let reader = Channel { socket: socket.try_clone()?, deadline };
        Ok((BufReader::new(reader), BufWriter::new(Channel { socket, deadline })))
    }

    /// The time that is left; never zero, which would stand for ever.
    fn left(&self) -> io::Result<Option<Duration>> {
        let left = self.deadline.saturating_duration_since(Instant::now());
        if left.is_zero() { Err(io::ErrorKind::TimedOut.into()) } else { Ok(Some(left)) }
    }
}

impl Read for Channel {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        self.socket.set_read_timeout(self.left()?)?;
        self.socket.read(buffer)
    }
}

impl Write for Channel {
    fn write(&mut self, buffer: &[u8]) -> io::Result<usize> {
        self.socket.set_write_timeout(self.left()?)?;
        self.socket.write(buffer)
    }

    fn flush(&mut self) -> io::Result<()> {
        self.socket.flush()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_peer_that_drips_or_reads_nothing_is_given_up_in_time() {
        let (ours, theirs) = UnixStream::pair().unwrap();
        let (mut reader, mut writer) = Channel::pair(ours).unwrap();
        let deadline = Instant::now() + Duration::from_millis(200);
        reader.get_mut().deadline = deadline;
        writer.get_mut().deadline = deadline;
        let dripping = std::thread::spawn(move || {
            let mut theirs = theirs;
            while theirs.write_all(b"x").is_ok() {
                std::thread::sleep(Duration::from_millis(20));
            }
        });
        let error = reader.read_exact(&mut [0; 1 << 20]).unwrap_err();
        assert!(matches!(error.kind(), io::ErrorKind::TimedOut | io::ErrorKind::WouldBlock), "{error}");
        let (ours, _theirs) = UnixStream::pair().unwrap();
        let (_, mut stuck) = Channel::pair(ours).unwrap();
        stuck.get_mut().deadline = Instant::now() + Duration::from_millis(100);
        let error = stuck.write_all(&vec![0; 16 << 20]).unwrap_err();
        assert!(matches!(error.kind(), io::ErrorKind::TimedOut | io::ErrorKind::WouldBlock), "{error}");
        drop((reader, writer, stuck));
        dripping.join().unwrap();
    }
}
