/// One thing wrong with a file: `FIELD.PATH: what is wrong; what to do`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Problem {
    /// Its path in the file, such as `apis[0].routes[1].path`.
    pub field: String,
    /// What is wrong, and after `; ` the cure.
    pub message: String,
}

impl Problem {
    /// `wrong` and `cure` become the message.
    pub fn new(field: impl Into<String>, wrong: impl AsRef<str>, cure: impl AsRef<str>) -> Self {
        let message = format!("{}; {}", wrong.as_ref(), cure.as_ref());
        Self { field: field.into(), message }
    }
}

impl std::fmt::Display for Problem {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{}: {}", self.field, self.message)
    }
}
