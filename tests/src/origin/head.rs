//! The head of an HTTP/1.1 message: the first line and the header fields.

use std::io;

use bytes::{Buf, BytesMut};
use tokio::io::{AsyncRead, AsyncReadExt};

/// Longest head that is read, in bytes.
const MAX_HEAD_BYTES: usize = 16 * 1024;

/// A message's first line and fields.
#[derive(Debug)]
pub(crate) struct Head {
    first_line: String,
    fields: Vec<(String, String)>,
}

/// Reads the next head; `buffer` keeps what came after it. `None` at a clean end before its first byte.
pub(crate) async fn read_head(
    reader: &mut (impl AsyncRead + Unpin),
    buffer: &mut BytesMut,
) -> io::Result<Option<Head>> {
    loop {
        if let Some(end) = buffer.windows(4).position(|window| window == b"\r\n\r\n") {
            let head = Head::parse(&buffer[..end])?;
            buffer.advance(end + 4);
            return Ok(Some(head));
        }
        if buffer.len() > MAX_HEAD_BYTES {
            return Err(invalid("the head is too long"));
        }
        if reader.read_buf(buffer).await? == 0 {
            return if buffer.is_empty() {
                Ok(None)
            } else {
                Err(io::ErrorKind::UnexpectedEof.into())
            };
        }
    }
}

impl Head {
    fn parse(bytes: &[u8]) -> io::Result<Self> {
        let text = std::str::from_utf8(bytes).map_err(|_| invalid("the head is not text"))?;
        let mut lines = text.split("\r\n");
        let first_line = lines.next().unwrap_or_default().to_owned();
        let fields = lines
            .map(|line| {
                line.split_once(':')
                    .map(|(name, value)| (name.to_ascii_lowercase(), value.trim().to_owned()))
            })
            .collect::<Option<_>>()
            .ok_or_else(|| invalid("a header field has no colon"))?;
        Ok(Self { first_line, fields })
    }

    /// The words of the first line.
    pub(crate) fn words(&self) -> impl Iterator<Item = &str> {
        self.first_line.split(' ')
    }

    /// The value of the field `name` (lower case).
    pub(crate) fn field(&self, name: &str) -> Option<&str> {
        self.fields
            .iter()
            .find(|(field, _)| field == name)
            .map(|(_, value)| value.as_str())
    }

    /// The body's length in bytes, if the head names one.
    pub(crate) fn content_length(&self) -> io::Result<Option<u64>> {
        let Some(value) = self.field("content-length") else {
            return Ok(None);
        };
        value
            .parse()
            .map(Some)
            .map_err(|_| invalid("content-length is not a number"))
    }
}

fn invalid(message: &str) -> io::Error {
    io::Error::new(io::ErrorKind::InvalidData, message)
}

#[cfg(test)]
mod tests {
    #![expect(clippy::unwrap_used, reason = "tests")]
    use super::*;

    #[tokio::test]
    async fn reads_a_head_and_keeps_the_rest() {
        let mut reader: &[u8] = b"GET /a HTTP/1.1\r\nHost: x\r\nContent-Length: 12\r\n\r\nbody";
        let mut buffer = BytesMut::new();
        let head = read_head(&mut reader, &mut buffer).await.unwrap().unwrap();
        assert_eq!(head.words().collect::<Vec<_>>(), ["GET", "/a", "HTTP/1.1"]);
        assert_eq!(head.field("host"), Some("x"));
        assert_eq!(head.content_length().unwrap(), Some(12));
        assert_eq!(&buffer[..], b"body");
    }

    #[tokio::test]
    async fn tells_a_clean_end_from_a_broken_one() {
        assert!(
            read_head(&mut &b""[..], &mut BytesMut::new())
                .await
                .unwrap()
                .is_none()
        );
        assert!(
            read_head(&mut &b"GET"[..], &mut BytesMut::new())
                .await
                .is_err()
        );
        let endless = vec![b'x'; 3 * MAX_HEAD_BYTES];
        assert!(
            read_head(&mut &endless[..], &mut BytesMut::new())
                .await
                .is_err()
        );
    }
}
