use std::time::Duration;

use tonic::Code;

/// Why it is not known what a client may read. The texts are for logs: they hold no code, no secret
/// and nothing of the answer's body.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[expect(missing_docs, reason = "the messages say it")]
pub enum Unavailable {
    #[error("no complete answer within the time budget")]
    Timeout,
    #[error("cannot connect: {0}")]
    Connect(String),
    #[error("no TLS connection: {cause}")]
    Tls { fault: TlsFault, cause: String },
    #[error("the connection broke off: {0}")]
    Broken(String),
    #[error("unexpected status {status}")]
    Status { status: u16, retry_after: Option<Duration> },
    #[error("unexpected gRPC status {0:?}")]
    Rpc(Code),
    #[error("a redirect (status {0}), and redirects are not followed")]
    Redirect(u16),
    #[error("the answer is larger than `max_body_bytes`")]
    TooLarge,
    #[error("the answer is not JSON")]
    NotJson,
    #[error("the answer has the wrong shape: {0}")]
    WrongShape(String),
    #[error("the answer is not complete: {0}")]
    Incomplete(String),
    #[error("the answer cannot be unpacked: {0}")]
    Packed(String),
    #[error("the provider refused our credentials with status {0}")]
    Unauthorized(&'static str),
    #[error("no token for the lookup: {0}")]
    CalloutToken(CalloutTokenError),
    #[error("too many lookups at once")]
    Busy,
    #[error("the lookup was reconfigured while it was under way")]
    Replaced,
    #[error("the lookup ended without a result")]
    Aborted,
}

impl Unavailable {
    /// The metric label.
    pub const fn as_str(&self) -> &'static str {
        match self {
            Self::Timeout => "timeout",
            Self::Connect(_) | Self::Tls { .. } => "connect",
            Self::Broken(_) => "broken",
            Self::Status { status: 429, .. } => "too_many_requests",
            Self::Status { status: 500..=599, .. } => "server_error",
            Self::Status { .. } => "unexpected_status",
            Self::Rpc(Code::ResourceExhausted) => "too_many_requests",
            Self::Rpc(Code::Unavailable | Code::Internal | Code::Unknown) => "server_error",
            Self::Rpc(_) => "unexpected_status",
            Self::Redirect(_) => "redirect",
            Self::TooLarge => "too_large",
            Self::NotJson => "not_json",
            Self::Packed(_) => "not_unpacked",
            Self::WrongShape(_) => "wrong_shape",
            Self::Incomplete(_) => "incomplete",
            Self::Unauthorized(_) => "unauthorized",
            Self::CalloutToken(_) => "callout_token",
            Self::Busy => "busy",
            Self::Replaced => "replaced",
            Self::Aborted => "aborted",
        }
    }

    /// When the provider asked to be asked again.
    pub const fn retry_after(&self) -> Option<Duration> {
        match self {
            Self::Status { retry_after, .. } => *retry_after,
            _ => None,
        }
    }

    /// Whether this is a sign that nobody gets an answer. A definite answer, of whatever kind,
    /// concerns the client that was asked about.
    pub const fn is_outage(&self) -> bool {
        match self {
            Self::Timeout | Self::Connect(_) | Self::Tls { .. } | Self::Broken(_) => true,
            Self::Status { status, .. } => *status >= 500,
            Self::Rpc(code) => {
                matches!(code, Code::Unavailable | Code::Internal | Code::Unknown)
            }
            Self::CalloutToken(_) => true,
            Self::Redirect(_)
            | Self::TooLarge
            | Self::NotJson
            | Self::Packed(_)
            | Self::WrongShape(_)
            | Self::Incomplete(_)
            | Self::Unauthorized(_)
            | Self::Busy
            | Self::Replaced
            | Self::Aborted => false,
        }
    }

    /// Whether asking again at once may help.
    pub(super) const fn is_transient(&self) -> bool {
        match self {
            Self::Connect(_) | Self::Tls { .. } | Self::Broken(_) => true,
            Self::Status { status, .. } => *status == 429 || *status >= 500,
            Self::Rpc(code) => matches!(
                code,
                Code::Unavailable | Code::Internal | Code::Unknown | Code::ResourceExhausted
            ),
            Self::CalloutToken(error) => error.is_transient(),
            Self::Timeout
            | Self::Replaced
            | Self::Redirect(_)
            | Self::TooLarge
            | Self::NotJson
            | Self::Packed(_)
            | Self::WrongShape(_)
            | Self::Incomplete(_)
            | Self::Unauthorized(_)
            | Self::Busy
            | Self::Aborted => false,
        }
    }
}

/// What keeps TLS from coming about, as far as a config can mend it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum TlsFault {
    /// Nobody that we trust has signed the server's certificate.
    UnknownCa,
    /// The certificate is for another host.
    WrongName,
    /// The server's certificate is not valid now.
    Expired,
    /// The server wants another certificate of ours, or one at all.
    ClientCertificate,
    /// What answers does not speak TLS.
    NotTls,
    /// Something else.
    Other,
}

/// Why there is no token. Nothing in here comes from the answer but the OAuth error code.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[expect(missing_docs, reason = "the messages say it")]
pub enum CalloutTokenError {
    #[error("the token endpoint did not answer in time")]
    Timeout,
    #[error("cannot connect to the token endpoint: {0}")]
    Connect(String),
    #[error("no TLS connection to the token endpoint: {cause}")]
    Tls { fault: TlsFault, cause: String },
    #[error("the connection to the token endpoint broke off: {0}")]
    Broken(String),
    #[error(
        "the token endpoint says `invalid_client`: it does not accept `client_id` or the \
         credential of tenants.lookup.auth.oauth2"
    )]
    InvalidClient,
    #[error("the token endpoint refused with status {status} and error `{error}`")]
    Refused { status: u16, error: String },
    #[error("the token endpoint answered with status {0}")]
    Status(u16),
    #[error("the token endpoint's answer cannot be used: {0}")]
    BadAnswer(&'static str),
    #[error("the client assertion cannot be signed")]
    Signing,
    #[error("the token request ended without a result")]
    Aborted,
}

impl CalloutTokenError {
    /// The word in metrics and logs.
    pub const fn as_str(&self) -> &'static str {
        match self {
            Self::Timeout => "timeout",
            Self::Connect(_) | Self::Tls { .. } => "connect",
            Self::Broken(_) => "broken",
            Self::InvalidClient => "invalid_client",
            Self::Refused { .. } => "refused",
            Self::Status(_) => "status",
            Self::BadAnswer(_) => "bad_answer",
            Self::Signing => "signing",
            Self::Aborted => "aborted",
        }
    }

    /// Whether another try may help.
    pub const fn is_transient(&self) -> bool {
        match self {
            Self::Timeout | Self::Connect(_) | Self::Tls { .. } | Self::Broken(_) => true,
            Self::Status(status) | Self::Refused { status, .. } => *status == 429 || *status >= 500,
            Self::InvalidClient | Self::BadAnswer(_) | Self::Signing | Self::Aborted => false,
        }
    }
}
