use std::borrow::Borrow;
use std::fmt;
use std::sync::Arc;

use compact_str::CompactString;

/// The name of a registered app: `[A-Za-z0-9._~@:+-]{1,128}`, not all dots, so that it can
/// be in a URL's path as one segment and never climbs out of it.
#[derive(Clone, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct ClientId(Arc<str>);

impl ClientId {
    /// What a client id may be, for messages.
    pub const RULE: &str = "1 to 128 of A-Z a-z 0-9 . _ ~ @ : + -, not only dots";

    /// `None`: not a client id by [`ClientId::RULE`].
    pub fn parse(text: &str) -> Option<Self> {
        let allowed = |b: u8| b.is_ascii_alphanumeric() || b"._~@:+-".contains(&b);
        let fits = (1..=128).contains(&text.len())
            && text.bytes().all(allowed)
            && !text.bytes().all(|b| b == b'.');
        fits.then(|| Self(text.into()))
    }

    /// The id as it was given.
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl Borrow<str> for ClientId {
    fn borrow(&self) -> &str {
        &self.0
    }
}

impl fmt::Display for ClientId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl fmt::Debug for ClientId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

/// One scope of RFC 6749, section 3.3: `%x21 / %x23-5B / %x5D-7E`, at least one.
pub fn is_scope_token(text: &str) -> bool {
    !text.is_empty() && text.bytes().all(|b| matches!(b, 0x21 | 0x23..=0x5b | 0x5d..=0x7e))
}

/// Scopes in the form of the `scope` parameter and claim: separated by single spaces.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct ScopeSet(CompactString);

impl ScopeSet {
    /// A set of these tokens, each once, in their order.
    pub fn from_tokens<'a>(tokens: impl IntoIterator<Item = &'a str>) -> Self {
        let mut seen: Vec<&str> = Vec::new();
        for token in tokens {
            if !seen.contains(&token) {
                seen.push(token);
            }
        }
        Self(seen.join(" ").into())
    }

    /// `None` if a token is not a scope by RFC 6749.
    pub fn parse(text: &str) -> Option<Self> {
        let tokens = || text.split(' ').filter(|token| !token.is_empty());
        tokens().all(is_scope_token).then(|| Self::from_tokens(tokens()))
    }

    /// Separated by single spaces, as in the `scope` parameter (RFC 6749, section 3.3).
    pub fn as_str(&self) -> &str {
        &self.0
    }

    /// Whether there is no scope in it.
    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// The tokens, in their order.
    pub fn iter(&self) -> impl Iterator<Item = &str> {
        self.0.split(' ').filter(|token| !token.is_empty())
    }

    /// Those that `allowed` has too. `None`: all of them.
    pub fn narrowed_to(&self, allowed: &Self) -> Option<Self> {
        if self == allowed {
            return None;
        }
        let counts = |scope: &&str| allowed.contains(scope);
        (!self.iter().all(|scope| counts(&scope)))
            .then(|| Self::from_tokens(self.iter().filter(counts)))
    }

    /// Whether this token is in the set; compared byte by byte.
    pub fn contains(&self, scope: &str) -> bool {
        self.iter().any(|token| token == scope)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_client_id_is_one_harmless_path_segment() {
        for good in ["a", "acme-analytics", "a@b:c+d~e_f.g", &"x".repeat(128)] {
            assert!(ClientId::parse(good).is_some(), "{good}");
        }
        for bad in ["", ".", "..", "...", "a/b", "a b", "a%2fb", "a\u{e9}", "a\n", &"x".repeat(129)]
        {
            assert!(ClientId::parse(bad).is_none(), "{bad:?}");
        }
    }

    #[test]
    fn scopes_are_parsed_as_in_rfc_6749() {
        let scopes = ScopeSet::parse("a  b a").unwrap();
        assert_eq!(scopes.as_str(), "a b");
        assert!(scopes.contains("b") && !scopes.contains("c") && !scopes.contains(""));
        assert!(ScopeSet::parse("a \"b\"").is_none());
        assert!(ScopeSet::parse("a\\b").is_none());
        assert!(ScopeSet::parse("").unwrap().is_empty());
        let narrowed = |allowed| scopes.narrowed_to(&ScopeSet::parse(allowed).unwrap());
        assert_eq!(narrowed("b c a"), None);
        assert_eq!(narrowed("b c").unwrap().as_str(), "b");
        assert!(narrowed("").unwrap().is_empty());
    }
}
