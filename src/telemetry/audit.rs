//! A stream of its own for what was issued and what was refused: JSON, one line each.

use std::fs::{self, File, OpenOptions};
use std::io::{self, Write};
use std::os::unix::fs::{MetadataExt as _, OpenOptionsExt as _};
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use serde::Serialize;
use tracing_appender::non_blocking::{ErrorCounter, NonBlocking, NonBlockingBuilder, WorkerGuard};

/// Lines that wait to be written. More are dropped, and counted.
const WAITING_LINES: usize = 64 * 1024;
/// How often the writer looks whether its file is still there.
const LOOK: Duration = Duration::from_secs(1);

/// Takes lines and never waits: a thread of its own writes them.
pub struct AuditStream {
    writer: NonBlocking,
    dropped: ErrorCounter,
    /// What waits is written when this goes.
    _guard: WorkerGuard,
}

impl AuditStream {
    /// Lines go through the thread of the log.
    pub fn to_stdout() -> Self {
        Self::to(io::stdout())
    }

    /// An error where the file cannot be opened for writing.
    pub fn to_file(path: &Path, rotation: Rotation) -> io::Result<Self> {
        Ok(Self::to(Rotated::open(path, rotation)?))
    }

    fn to(target: impl Write + Send + 'static) -> Self {
        let builder = NonBlockingBuilder::default().buffered_lines_limit(WAITING_LINES).lossy(true);
        let (writer, guard) = builder.thread_name("audit").finish(target);
        Self { dropped: writer.error_counter(), writer, _guard: guard }
    }

    /// Never blocks; what finds no place is counted.
    pub fn write(&self, line: &impl Serialize) {
        let Ok(mut text) = serde_json::to_vec(line) else { return };
        text.push(b'\n');
        // One call is one line. It does not fail: what does not fit is dropped.
        let _ = self.writer.clone().write_all(&text);
    }

    /// Lines that were dropped because the disk, or the reader, did not keep up.
    pub fn dropped_lines(&self) -> u64 {
        self.dropped.dropped_lines() as u64
    }
}

/// When a new file is begun, and how many old ones stay: `FILE.1` is the youngest.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Rotation {
    /// A file that is larger is moved away.
    pub max_bytes: u64,
    /// Files that were moved away and are kept.
    pub keep: u32,
}

/// A file for its owner only that is started again when it is full, moved away or removed.
struct Rotated {
    path: PathBuf,
    rotation: Rotation,
    file: File,
    size: u64,
    looked: Instant,
}

impl Rotated {
    fn open(path: &Path, rotation: Rotation) -> io::Result<Self> {
        let file = append_to(path)?;
        let size = file.metadata()?.len();
        Ok(Self { path: path.to_owned(), rotation, file, size, looked: now() })
    }

    fn rotate(&mut self) -> io::Result<()> {
        let name = |number: u32| {
            let mut name = self.path.clone().into_os_string();
            name.push(format!(".{number}"));
            PathBuf::from(name)
        };
        for number in (1..self.rotation.keep).rev() {
            ignore_missing(fs::rename(name(number), name(number + 1)))?;
        }
        match self.rotation.keep {
            0 => fs::remove_file(&self.path)?,
            _ => fs::rename(&self.path, name(1))?,
        }
        self.reopen()
    }

    fn reopen(&mut self) -> io::Result<()> {
        self.file = append_to(&self.path)?;
        self.size = self.file.metadata()?.len();
        Ok(())
    }

    fn is_elsewhere(&self) -> io::Result<bool> {
        let ours = self.file.metadata()?;
        Ok(match fs::metadata(&self.path) {
            Ok(there) => (there.dev(), there.ino()) != (ours.dev(), ours.ino()),
            Err(_) => true,
        })
    }
}

impl Write for Rotated {
    fn write(&mut self, line: &[u8]) -> io::Result<usize> {
        if self.looked.elapsed() >= LOOK {
            self.looked = now();
            if self.is_elsewhere()? {
                self.reopen()?;
            }
        }
        if self.size > 0 && self.size + line.len() as u64 > self.rotation.max_bytes {
            self.rotate()?;
        }
        let written = self.file.write(line)?;
        self.size += written as u64;
        Ok(written)
    }

    fn flush(&mut self) -> io::Result<()> {
        self.file.flush()
    }
}

/// The system's, because a file is looked at by the system's time.
#[expect(clippy::disallowed_methods, reason = "nothing is decided by it")]
fn now() -> Instant {
    Instant::now()
}

fn append_to(path: &Path) -> io::Result<File> {
    if let Some(folder) = path.parent() {
        fs::create_dir_all(folder)?;
    }
    OpenOptions::new().append(true).create(true).mode(0o600).open(path)
}

fn ignore_missing(done: io::Result<()>) -> io::Result<()> {
    match done {
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(()),
        done => done,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn lines(path: &Path) -> usize {
        fs::read_to_string(path).map_or(0, |text| text.lines().count())
    }

    #[test]
    fn a_full_file_makes_room_and_the_oldest_goes() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("deep/audit.jsonl");
        let mut file = Rotated::open(&path, Rotation { max_bytes: 20, keep: 2 }).unwrap();
        for number in 0..7 {
            writeln!(file, "line {number:04}").unwrap();
        }
        let old = |number| folder.path().join(format!("deep/audit.jsonl.{number}"));
        assert_eq!((lines(&path), lines(&old(1)), lines(&old(2))), (1, 2, 2));
        assert!(!old(3).exists());
        let mode = fs::metadata(&path).unwrap().mode();
        assert_eq!(mode & 0o777, 0o600);
    }

    #[test]
    fn a_file_that_was_moved_away_is_begun_anew() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("audit.jsonl");
        let mut file = Rotated::open(&path, Rotation { max_bytes: 1000, keep: 1 }).unwrap();
        writeln!(file, "one").unwrap();
        fs::rename(&path, folder.path().join("moved")).unwrap();
        file.looked -= LOOK;
        writeln!(file, "two").unwrap();
        assert_eq!((lines(&path), lines(&folder.path().join("moved"))), (1, 1));
    }

    #[test]
    fn what_was_taken_is_written_when_the_stream_ends() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("audit.jsonl");
        let rotation = Rotation { max_bytes: 1 << 20, keep: 1 };
        let stream = AuditStream::to_file(&path, rotation).unwrap();
        for number in 0..1000 {
            stream.write(&serde_json::json!({ "number": number }));
        }
        assert_eq!(stream.dropped_lines(), 0);
        drop(stream);
        assert_eq!(lines(&path), 1000);
        assert!(AuditStream::to_file(Path::new("/proc/none/x"), rotation).is_err());
    }
}
