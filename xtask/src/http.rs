//! Just enough of an HTTP client to measure with: one connection, one request after the other.

use std::io::{BufRead, BufReader, Read, Write};
use std::net::TcpStream;
use std::time::Duration;

use anyhow::{Context, bail};

const TIMEOUT: Duration = Duration::from_secs(30);

/// A connection that is kept.
pub struct Connection {
    stream: BufReader<TcpStream>,
    host: String,
}

impl Connection {
    /// To `http://host:port`.
    pub fn open(url: &str) -> anyhow::Result<Self> {
        let host = url.strip_prefix("http://").with_context(|| format!("{url} is not http://host:port"))?;
        let host = host.trim_end_matches('/').to_owned();
        let stream = TcpStream::connect(&host).with_context(|| format!("can't connect to {host}"))?;
        stream.set_nodelay(true)?;
        stream.set_read_timeout(Some(TIMEOUT))?;
        Ok(Self { stream: BufReader::new(stream), host })
    }

    /// Sends a request; answers status and body. `headers` end each with CR LF.
    pub fn send(
        &mut self,
        method: &str,
        path: &str,
        headers: &str,
        body: &[u8],
    ) -> anyhow::Result<(u16, Vec<u8>)> {
        let mut request = format!(
            "{method} {path} HTTP/1.1\r\nHost: {}\r\nContent-Length: {}\r\n{headers}\r\n",
            self.host,
            body.len()
        )
        .into_bytes();
        request.extend_from_slice(body);
        self.stream.get_mut().write_all(&request)?;
        let status_line = self.line()?;
        let status = status_line.split(' ').nth(1).and_then(|code| code.parse().ok());
        let status: u16 = status.with_context(|| format!("not HTTP: {status_line:?}"))?;
        let (mut length, mut is_chunked) = (0, false);
        loop {
            let line = self.line()?.to_ascii_lowercase();
            match line.split_once(':') {
                None => break,
                Some(("content-length", value)) => length = value.trim().parse()?,
                Some(("transfer-encoding", value)) => is_chunked = value.trim() == "chunked",
                Some(_) => {}
            }
        }
        let mut answer = Vec::new();
        if is_chunked {
            while self.chunk(&mut answer)? {}
        } else {
            answer.resize(length, 0);
            self.stream.read_exact(&mut answer)?;
        }
        Ok((status, answer))
    }

    /// Reads a chunk; answers whether there are more.
    fn chunk(&mut self, answer: &mut Vec<u8>) -> anyhow::Result<bool> {
        let line = self.line()?;
        let size = u64::from_str_radix(line.split(';').next().unwrap_or_default().trim(), 16)
            .with_context(|| format!("{line:?} is no size of a chunk"))?;
        self.stream.by_ref().take(size).read_to_end(answer)?;
        self.line()?;
        Ok(size > 0)
    }

    fn line(&mut self) -> anyhow::Result<String> {
        let mut line = String::new();
        if self.stream.read_line(&mut line)? == 0 {
            bail!("{} closed the connection", self.host);
        }
        Ok(line.trim_end().to_owned())
    }
}
