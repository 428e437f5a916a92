//! Results in base64, for clients that want raw bytes in that encoding: made piece by piece while they are read. Knows no
//! job.

use axum::body::{Body, Bytes};
use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use futures::stream;
use tokio::io::{AsyncRead, AsyncReadExt};

/// Bytes that are encoded at once; a multiple of three, so that pieces can stand one after the other.
const PIECE: usize = 3 * 64 * 1024;

/// What is read, in base64.
pub(super) fn body(source: impl AsyncRead + Unpin + Send + 'static) -> Body {
    let pieces = stream::try_unfold(source, |mut source| async move {
        let mut piece = Vec::with_capacity(PIECE);
        (&mut source).take(PIECE as u64).read_to_end(&mut piece).await?;
        if piece.is_empty() {
            return Ok::<_, std::io::Error>(None);
        }
        Ok(Some((Bytes::from(STANDARD.encode(&piece)), source)))
    });
    Body::from_stream(pieces)
}

/// Length of so many bytes in base64.
pub(super) fn encoded_len(bytes: u64) -> u64 {
    bytes.div_ceil(3).saturating_mul(4)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn pieces_make_one_text() {
        for length in [0, 1, 2, 3, PIECE - 1, PIECE, PIECE + 1, 2 * PIECE + 2] {
            let bytes: Vec<u8> = (0..length).map(|n| n.to_le_bytes()[0]).collect();
            let text =
                axum::body::to_bytes(body(std::io::Cursor::new(bytes.clone())), usize::MAX).await.unwrap();
            assert_eq!(text, STANDARD.encode(&bytes), "{length}");
            assert_eq!(text.len() as u64, encoded_len(length as u64));
        }
    }
}
