use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::{Field, FileText};

#[derive(Deserialize, Serialize, JsonSchema)]
#[serde(default, deny_unknown_fields)]
pub struct Audit {
    /// The file that lines are appended to, readable by its owner only; made if it is not there.
    /// One of `file` and `stdout`.
    pub file: Field<FileText>,
    /// Lines go to standard output. The log goes to standard error.
    pub stdout: Field<bool>,
    /// With `file`: when a new file is begun.
    pub rotate: Field<Rotate>,
}

impl Default for Audit {
    fn default() -> Self {
        Self { file: Field::Absent, stdout: Field::Absent, rotate: Field::Value(Rotate::default()) }
    }
}

#[derive(Deserialize, Serialize, JsonSchema)]
#[serde(default, deny_unknown_fields)]
pub struct Rotate {
    /// A file that would become larger is renamed to `FILE.1`.
    #[schemars(range(min = 65_536, max = 1_099_511_627_776_u64))]
    pub max_bytes: Field<u64>,
    /// How many old files stay.
    #[schemars(range(min = 0, max = 1000))]
    pub keep: Field<u32>,
}

impl Default for Rotate {
    fn default() -> Self {
        Self { max_bytes: Field::Value(104_857_600), keep: Field::Value(5) }
    }
}
