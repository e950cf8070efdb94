//! A local copy of what is known, so that a replica can start while the database is away. Lines of
//! JSON: a head, then records; changes are appended. No tenant code is in it: tenants are
//! references, and the clients' static ones are sealed.

use std::fs::{self, File, OpenOptions};
use std::io::{self, BufWriter, Write as _};
use std::os::unix::fs::OpenOptionsExt as _;
use std::path::{Path, PathBuf};

use serde::{Deserialize, Serialize};

use super::record::Record;
use super::store::Cursor;

/// A changed format gets another number, and an older file is not read.
const FORMAT: u32 = 1;

#[derive(Serialize, Deserialize)]
struct Head {
    format: u32,
    /// Names the key that references are made under.
    key: String,
    cursor: Cursor,
    /// What the database's clock is ahead of this process's, in microseconds.
    ahead: i64,
}

#[derive(Serialize, Deserialize)]
#[serde(untagged)]
enum Line {
    Record(Box<Record>),
    Cursor(Cursor),
}

/// What a file holds.
pub struct Image {
    pub cursor: Cursor,
    pub ahead: i64,
    /// In the order in which they came: a later one replaces an earlier one of its key.
    pub records: Vec<Record>,
}

pub struct LocalCopy {
    path: PathBuf,
    key: String,
    file: Option<File>,
    appended: usize,
}

impl LocalCopy {
    pub fn new(path: PathBuf, key: String) -> Self {
        Self { path, key, file: None, appended: 0 }
    }

    /// `None`: there is none, or not one of this key and format. A torn last line is left out.
    pub fn read(&self) -> Option<Image> {
        let text = fs::read_to_string(&self.path).ok()?;
        let mut lines = text.lines();
        let head: Head = serde_json::from_str(lines.next()?).ok()?;
        if head.format != FORMAT || head.key != self.key {
            return None;
        }
        let mut image = Image { cursor: head.cursor, ahead: head.ahead, records: Vec::new() };
        for line in lines {
            match serde_json::from_str(line) {
                Ok(Line::Record(record)) => image.records.push(*record),
                Ok(Line::Cursor(cursor)) => image.cursor = cursor,
                Err(_) => break,
            }
        }
        Some(image)
    }

    /// Replaces the file, so that there is an old or a new one at every moment.
    pub fn write<'a>(
        &mut self,
        cursor: &Cursor,
        ahead: i64,
        records: impl Iterator<Item = &'a Record>,
    ) -> io::Result<()> {
        let mut new = self.path.as_os_str().to_owned();
        new.push(".new");
        let new = Path::new(&new);
        let file =
            OpenOptions::new().write(true).create(true).truncate(true).mode(0o600).open(new)?;
        let mut out = BufWriter::new(&file);
        let (key, cursor) = (self.key.clone(), cursor.clone());
        line(&mut out, &Head { format: FORMAT, key, cursor, ahead })?;
        for record in records {
            line(&mut out, record)?;
        }
        out.flush()?;
        drop(out);
        file.sync_all()?;
        fs::rename(new, &self.path)?;
        (self.file, self.appended) = (Some(file), 0);
        Ok(())
    }

    /// Adds what has changed.
    pub fn append(&mut self, records: &[Record], cursor: Option<&Cursor>) -> io::Result<()> {
        let Some(file) = &self.file else { return Ok(()) };
        let mut text = Vec::new();
        for record in records {
            line(&mut text, record)?;
        }
        if let Some(cursor) = cursor {
            line(&mut text, cursor)?;
        }
        self.appended += records.len() + usize::from(cursor.is_some());
        let mut out: &File = file;
        out.write_all(&text)
    }

    /// Whether this process has written the file, so that it can be added to.
    pub fn is_open(&self) -> bool {
        self.file.is_some()
    }

    /// Lines since the file was last written whole.
    pub fn appended(&self) -> usize {
        self.appended
    }
}

fn line(out: &mut impl io::Write, value: &impl Serialize) -> io::Result<()> {
    serde_json::to_writer(&mut *out, value)?;
    out.write_all(b"\n")
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::PermissionsExt as _;

    use super::*;
    use crate::domain::{Holder, Target};
    use crate::state::Key;

    fn record(seq: i64) -> Record {
        Record {
            key: Key::of(Holder { issuer: "i", client: "acme" }, Target::Tokens),
            not_before: 1,
            expires_at: None,
            lifted: 0,
            body: "{\n}".to_owned(),
            seq,
            at: 2,
        }
    }

    fn cursor(seq: i64) -> Cursor {
        Cursor { seq, id: format!("id-{seq}") }
    }

    #[test]
    fn what_was_written_and_appended_is_read_even_behind_a_torn_line() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("snapshot");
        let open = |key: &str| LocalCopy::new(path.clone(), key.to_owned());
        let mut snapshot = open("k");
        assert!(snapshot.read().is_none());
        snapshot.write(&cursor(1), -5, [record(1)].iter()).unwrap();
        assert_eq!(fs::metadata(&path).unwrap().permissions().mode() & 0o777, 0o600);
        snapshot.append(&[record(2)], Some(&cursor(2))).unwrap();
        snapshot.append(&[record(3)], None).unwrap();
        assert_eq!(snapshot.appended(), 3);
        let torn = fs::read_to_string(&path).unwrap() + r#"{"kind":"gra"#;
        fs::write(&path, torn).unwrap();
        let image = open("k").read().unwrap();
        assert_eq!((image.cursor, image.ahead), (cursor(2), -5));
        assert_eq!(image.records, [record(1), record(2), record(3)]);
        assert!(open("other").read().is_none());
    }
}
