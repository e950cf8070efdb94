//! Which route a request was probably meant for when none matches. For operators: callers never see
//! it.

use super::super::path::CheckedPath;
use super::template::Segment;
use super::{RouteRule, Router};

/// From this distance on a route has too little in common with the request to be worth naming.
const FAR: usize = 5;

/// What keeps a request from a route. Holds nothing of the request.
pub struct Near<'r, T> {
    /// The data of the nearest rule.
    pub route: &'r T,
    /// Each difference in words, for logs and `explain`.
    pub differs: Vec<String>,
}

impl<T> Router<T> {
    /// The route that differs least from this request. `None`: none is close.
    pub fn nearest(&self, method: &str, path: CheckedPath<'_>) -> Option<Near<'_, T>> {
        let sent: Vec<&str> = path.segments().collect();
        let compared = self.rules.iter().map(|rule| (rule, compare(rule, method, &sent)));
        let (rule, (_, differs)) =
            compared.filter(|(_, (far, _))| *far < FAR).min_by_key(|(rule, (far, _))| {
                (*far, std::cmp::Reverse(rule.template.segments.len()))
            })?;
        Some(Near { route: &rule.data, differs })
    }
}

/// How far a request is from a route, and what differs.
fn compare<T>(rule: &RouteRule<T>, method: &str, sent: &[&str]) -> (usize, Vec<String>) {
    let (mut far, mut differs) = (0, Vec::new());
    let head = method == "HEAD" && rule.head && rule.takes("GET");
    if !rule.takes(method) && !head {
        far += 1;
        differs.push(format!("the method: it takes {}", rule.methods.join(", ")));
    }
    let template = &rule.template;
    let wanted = bare(&template.segments, |segment| segment.fixed() == Some(""));
    let bare_sent = bare(sent, |segment| segment.is_empty());
    let slash = |all: usize, bare: usize| all > bare;
    let (wants, has) =
        (slash(template.segments.len(), wanted.len()), slash(sent.len(), bare_sent.len()));
    if wants != has && !template.has_rest {
        far += 1;
        let which =
            if has { "a slash at the end that it does not have" } else { "a slash at its end" };
        differs.push(which.to_owned());
    }
    let too_many = bare_sent.len() > wanted.len() && !template.has_rest;
    if too_many || bare_sent.len() < wanted.len() {
        far += 2 * wanted.len().abs_diff(bare_sent.len());
        let rest = if template.has_rest { "or more " } else { "" };
        let (wants, has) = (wanted.len(), bare_sent.len());
        differs.push(format!("the number of segments: it has {wants} {rest}and the path {has}"));
    }
    for (place, (segment, sent)) in wanted.iter().zip(bare_sent).enumerate() {
        let place = place + 1;
        match segment {
            Segment::Exact(text) if text.eq_ignore_ascii_case(sent) && text != sent => {
                far += 1;
                differs.push(format!("the case of segment {place}, `{text}`"));
            }
            Segment::Exact(text) | Segment::IgnoreCase(text)
                if !text.eq_ignore_ascii_case(sent) =>
            {
                far += if strsim::osa_distance(text, sent) <= 2 { 1 } else { 3 };
                differs.push(format!("segment {place}, `{text}` there"));
            }
            Segment::Tenant if !crate::domain::is_tenant_code(sent) => {
                far += 1;
                differs.push(format!("segment {place}, which is not a tenant code"));
            }
            _ => {}
        }
    }
    (far, differs)
}

fn bare<S>(segments: &[S], is_empty: impl Fn(&S) -> bool) -> &[S] {
    match segments.split_last() {
        Some((last, before)) if is_empty(last) => before,
        _ => segments,
    }
}
