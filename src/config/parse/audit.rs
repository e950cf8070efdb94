use crate::config::reader::Reader;
use crate::config::{Audit, raw};

pub fn parse(reader: &mut Reader, audit: raw::Audit) -> Option<Audit> {
    let rotate = audit.rotate?;
    match (audit.file, audit.stdout) {
        (Some(file), None | Some(false)) => Some(Audit::File {
            path: reader.path(&file),
            max_bytes: rotate.max_bytes?,
            keep: rotate.keep?,
        }),
        (None, Some(true)) => {
            reader.without_effect("audit", &["rotate"], "with `stdout`");
            Some(Audit::Stdout)
        }
        (Some(_), Some(true)) => {
            reader.problem("audit.file", "is given beside `stdout`", "keep one of the two");
            None
        }
        (None, None | Some(false)) => {
            if !reader.given("audit.file") {
                let cure = "add `file: FILE` or `stdout: true`, or remove the section";
                reader.problem("audit", "names no place for its lines", cure);
            }
            None
        }
    }
}
