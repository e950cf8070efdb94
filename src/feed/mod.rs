//! What decides inside Envoy is fed by the sidecar over a Unix socket (`proto/tenantgate/feed/v1`):
//! the sidecar tells what it decides with, and what has changed; the module tells what it would
//! like to have looked up.

mod cells;
mod fed;
mod follow;
#[cfg(feature = "server")]
mod publish;
#[cfg(feature = "server")]
mod put;
mod stage;
mod take;
#[cfg(test)]
mod tests;

use std::path::Path;

use aws_lc_rs::digest;
use bytes::Bytes;
use futures::{SinkExt, StreamExt as _};
use prost::Message;
use tokio::net::UnixStream;
use tokio_util::codec::{Framed, LengthDelimitedCodec};

pub use fed::Fed;
#[cfg(feature = "server")]
pub use publish::publish;

/// The messages.
pub(crate) mod v1 {
    include!(concat!(env!("OUT_DIR"), "/tenantgate.feed.v1.rs"));
}

impl std::fmt::Debug for v1::Rules {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Rules")
    }
}

/// Another number for every change that an older side would misread.
pub const PROTOCOL: u32 = 1;
const RELEASE: &str = env!("CARGO_PKG_VERSION");

/// Longer frames are refused before they are read.
const MAX_FRAME: usize = 8 << 20;

/// Why a connection ended.
#[derive(Debug, thiserror::Error)]
#[expect(missing_docs, reason = "the messages say it")]
pub enum FeedError {
    #[error("the connection broke: {0}")]
    Io(#[from] std::io::Error),
    #[error("the other side hung up")]
    Ended,
    #[error("a frame is not a message of the feed")]
    Unreadable(#[from] prost::DecodeError),
    #[error("{0}")]
    Wrong(&'static str),
    #[error("the other side says nothing")]
    Silent,
    #[error("the other side does not read")]
    NotRead,
    #[error(
        "the other side speaks version {theirs} of the feed (release {release}), this one version \
         {PROTOCOL} \
         (release {RELEASE}); bring both to one release"
    )]
    Version { theirs: u32, release: String },
}

/// A connection, one message a frame.
struct Wire(Framed<UnixStream, LengthDelimitedCodec>);

impl Wire {
    fn new(stream: UnixStream) -> Self {
        let codec = LengthDelimitedCodec::builder().max_frame_length(MAX_FRAME).new_codec();
        Self(Framed::new(stream, codec))
    }

    /// Puts a message into the buffer; [`Wire::flush`] sees to it that it goes out.
    async fn feed(&mut self, message: &impl Message) -> Result<(), FeedError> {
        Ok(self.0.feed(Bytes::from(message.encode_to_vec())).await?)
    }

    async fn flush(&mut self) -> Result<(), FeedError> {
        Ok(SinkExt::<Bytes>::flush(&mut self.0).await?)
    }

    /// The next message, and the length of its frame. Loses nothing when it is given up half-way.
    async fn next<M: Message + Default>(&mut self) -> Result<(M, usize), FeedError> {
        let frame = self.0.next().await.ok_or(FeedError::Ended)??;
        Ok((M::decode(&*frame)?, frame.len()))
    }
}

fn hello(config: &Path) -> v1::Hello {
    let config_fingerprint = fingerprint(config);
    v1::Hello { protocol: PROTOCOL, release: RELEASE.to_owned(), config_fingerprint }
}

/// Of the text as it is now; empty where it cannot be read.
fn fingerprint(config: &Path) -> String {
    let text = std::fs::read(config).unwrap_or_default();
    hex::encode(digest::digest(&digest::SHA256, &text))
}

/// Takes what the other side says first. Another version is an error; another config is worth a
/// line.
fn check_hello(theirs: &v1::Hello, config: &Path) -> Result<(), FeedError> {
    if theirs.protocol != PROTOCOL {
        // It is another's text and is logged.
        let release = theirs.release.chars().filter(char::is_ascii_graphic).take(32).collect();
        return Err(FeedError::Version { theirs: theirs.protocol, release });
    }
    if theirs.config_fingerprint != fingerprint(config) {
        let config = config.display();
        tracing::warn!(%config, "the other side of the feed was given another config; the \
                                 sidecar's is in force");
    }
    Ok(())
}
