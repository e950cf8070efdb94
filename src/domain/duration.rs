use std::time::Duration;

/// A text that is not a duration. Its message ends with the cure.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct DurationError;

impl DurationError {
    /// The cure that every message on a duration ends with.
    pub const CURE: &str = "write a number with its unit (ms, s, m, h, d), such as `30s` or `5m`";
}

impl std::fmt::Display for DurationError {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "not a duration; {}", Self::CURE)
    }
}

impl std::error::Error for DurationError {}

/// The only reading of a duration: in configs, registries and on the command line.
pub fn parse_duration(text: &str) -> Result<Duration, DurationError> {
    // The library takes `M` for months.
    if text.contains(|c: char| c.is_ascii_uppercase()) {
        return Err(DurationError);
    }
    humantime::parse_duration(text).map_err(|_| DurationError)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn minutes_are_not_months() {
        assert_eq!(parse_duration("5m"), Ok(Duration::from_secs(300)));
        assert_eq!(parse_duration("1h 30m"), Ok(Duration::from_secs(5400)));
        for text in ["5M", "1H", "5", "", "soon", "-1s", "1month 2M"] {
            assert_eq!(parse_duration(text), Err(DurationError), "{text}");
        }
    }
}
