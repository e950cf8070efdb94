/// How much a client may ask for. Counting is the gateway's work; we only say who and how much.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Quota {
    /// How many requests; more than zero.
    pub requests_per_unit: u32,
    /// The window that they are counted in.
    pub unit: QuotaUnit,
}

/// The units of Envoy's rate limit override.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum QuotaUnit {
    /// One second.
    Second,
    /// One minute.
    Minute,
    /// One hour.
    Hour,
    /// One day.
    Day,
}

impl QuotaUnit {
    /// Every unit, the shortest first.
    pub const ALL: [Self; 4] = [Self::Second, Self::Minute, Self::Hour, Self::Day];

    /// Reads Envoy's name of a unit. `None`: not one of them.
    pub fn parse(text: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|unit| unit.as_str() == text)
    }

    /// Envoy's name of the unit (`envoy.type.v3.RateLimitUnit`).
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Second => "SECOND",
            Self::Minute => "MINUTE",
            Self::Hour => "HOUR",
            Self::Day => "DAY",
        }
    }
}
