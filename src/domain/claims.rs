/// The claim of our own tokens that says when the grants in it were looked up.
pub const GRANTS_AT: &str = "grants_at";
/// The claim of our own tokens that says that the client itself named the tenants, so that no later
/// grant widens the token.
pub const NARROWED: &str = "narrowed";

/// Claims that have a meaning of their own, and the fields of a token response, in which claims may
/// be repeated.
const RESERVED: [&str; 20] = [
    "iss",
    "sub",
    "aud",
    "exp",
    "iat",
    "nbf",
    "jti",
    "client_id",
    "scope",
    "scp",
    "cnf",
    "act",
    "may_act",
    GRANTS_AT,
    NARROWED,
    "access_token",
    "token_type",
    "expires_in",
    "refresh_token",
    "error",
];

/// Whether neither the tenant claim nor an attribute may have this name.
pub fn is_reserved_claim(name: &str) -> bool {
    RESERVED.contains(&name)
}
