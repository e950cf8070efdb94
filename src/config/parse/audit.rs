use crate::config::reader::Reader;
use crate::config::{Audit, raw};
use crate::yaml::Field;

pub fn parse(reader: &mut Reader, audit: raw::Audit) -> Option<Audit> {
    let rotate = audit.rotate.value()?;
    let stdout = audit.stdout.optional(Some)?.unwrap_or(false);
    match (audit.file, stdout) {
        (Field::Broken, _) => None,
        (Field::Value(file), false) => Some(Audit::File {
            path: reader.path(&file),
            max_bytes: rotate.max_bytes.value()?,
            keep: rotate.keep.value()?,
        }),
        (Field::Absent, true) => {
            reader.without_effect("audit", &["rotate"], "with `stdout`");
            Some(Audit::Stdout)
        }
        (Field::Value(_), true) => {
            reader.problem("audit.file", "is given beside `stdout`", "keep one of the two");
            None
        }
        (Field::Absent, false) => {
            let cure = "add `file: FILE` or `stdout: true`, or remove the section";
            reader.problem("audit", "names no place for its lines", cure);
            None
        }
    }
}
