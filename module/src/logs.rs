//! The log goes to Envoy's, at Envoy's level.

use std::io;
use std::sync::Once;

use tenantgate::telemetry::log_panics;
use tracing::{Level, Metadata};
use tracing_subscriber::filter::dynamic_filter_fn;
use tracing_subscriber::fmt::{self, MakeWriter};
use tracing_subscriber::layer::SubscriberExt as _;
use tracing_subscriber::util::SubscriberInitExt as _;

use crate::abi;

static STARTED: Once = Once::new();

pub fn start() {
    STARTED.call_once(|| {
        // Libraries below `info` print headers and frames, and with them tokens and paths.
        let wanted = |metadata: &Metadata<'_>| {
            let ours = metadata.target().starts_with("tenantgate");
            (ours || *metadata.level() <= Level::INFO) && abi::log_enabled(*metadata.level())
        };
        // For the whole log: one that belongs to a layer has the fields of a line made before it is
        // asked, and a line on each request is mostly not wanted.
        let filter = dynamic_filter_fn(move |metadata, _| wanted(metadata));
        let lines = fmt::layer().without_time().with_level(false).with_ansi(false).with_writer(Log);
        if tracing_subscriber::registry().with(filter).with(lines).try_init().is_ok() {
            log_panics();
        }
    });
}

struct Log;

/// One line on its way to Envoy's log.
struct Line {
    level: Level,
    text: Vec<u8>,
}

impl<'a> MakeWriter<'a> for Log {
    type Writer = Line;

    fn make_writer(&'a self) -> Line {
        Line { level: Level::INFO, text: Vec::new() }
    }

    fn make_writer_for(&'a self, metadata: &Metadata<'_>) -> Line {
        Line { level: *metadata.level(), text: Vec::new() }
    }
}

impl io::Write for Line {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        self.text.extend_from_slice(bytes);
        Ok(bytes.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

impl Drop for Line {
    fn drop(&mut self) {
        abi::log(self.level, self.text.trim_ascii_end());
    }
}
