//! The parts of an address.

use opentelemetry_proto::tonic::common::v1::KeyValue;

use super::{
    super::compare::Any,
    Arguments, made,
    parsers::{map, pair},
};

/// The parts of an address, by the names of the semantic conventions.
pub(super) fn url(mut arguments: Arguments<'_>) -> Result<Any<'_>, String> {
    let text = arguments.text()?;
    if text.is_empty() {
        return Err("url cannot be empty".to_owned());
    }
    parts(&text).map(map).map_err(|error| format!("parse {text:?}: {error}"))
}

fn parts(text: &str) -> Result<Vec<KeyValue>, String> {
    let (rest, fragment) = text.split_once('#').unwrap_or((text, ""));
    let (scheme, after) = match rest.split_once(':') {
        Some((scheme, after)) if is_scheme(scheme) => (scheme.to_ascii_lowercase(), after),
        Some(("", _)) => return Err("missing protocol scheme".to_owned()),
        _ => (String::new(), rest),
    };
    let whole = match fragment {
        "" => format!(
            "{}{after}",
            if scheme.is_empty() { String::new() } else { format!("{scheme}:") }
        ),
        _ => format!(
            "{}{after}#{fragment}",
            if scheme.is_empty() { String::new() } else { format!("{scheme}:") }
        ),
    };
    let (before, query) = after.split_once('?').unwrap_or((after, ""));
    let (authority, path) = match before.strip_prefix("//") {
        Some(rest) => rest.split_at(rest.find('/').unwrap_or(rest.len())),
        // What has a scheme and no slash is no path.
        None if !scheme.is_empty() && !before.starts_with('/') => ("", ""),
        None => ("", before),
    };
    let (user, host) = match authority.rsplit_once('@') {
        Some((user, host)) => (Some(user), host),
        None => (None, authority),
    };
    let (host, port) = match (host.starts_with('['), host.rfind(':')) {
        (true, _) => {
            let end = host.find(']').ok_or("missing ']' in host")?;
            (&host[1..end], host[end + 1..].strip_prefix(':'))
        }
        (false, Some(colon)) => (&host[..colon], Some(&host[colon + 1..])),
        (false, None) => (host, None),
    };
    if let Some(odd) = host.chars().find(|c| c.is_ascii_control() || " \"<>^`{|}\\".contains(*c)) {
        return Err(format!("invalid character \"{odd}\" in host name"));
    }
    if let Some(port) = port.filter(|port| !port.bytes().all(|byte| byte.is_ascii_digit())) {
        return Err(format!("invalid port \":{port}\" after host"));
    }
    let decoded = |part: &str| match percent_encoding::percent_decode_str(part).decode_utf8() {
        Ok(decoded) => decoded.into_owned(),
        Err(_) => part.to_owned(),
    };
    let path = decoded(path);
    let mut pairs = vec![
        pair("url.original", made(whole)),
        pair("url.domain", made(host)),
        pair("url.scheme", made(scheme)),
        pair("url.path", made(&*path)),
    ];
    let mut given = |key, part: String| {
        if !part.is_empty() {
            pairs.push(pair(key, made(part)));
        }
    };
    given("url.fragment", decoded(fragment));
    given("url.query", query.to_owned());
    given("url.extension", path.rsplit_once('.').map_or(String::new(), |(_, end)| end.to_owned()));
    if let Some(user) = user {
        let (name, password) = user.split_once(':').map_or((user, None), |(n, p)| (n, Some(p)));
        given("url.user_info", user.to_owned());
        given("url.username", decoded(name));
        if let Some(password) = password {
            given("url.password", decoded(password));
        }
    }
    if let Some(port) = port.and_then(|port| port.parse().ok()) {
        pairs.push(pair("url.port", Any::Int(port)));
    }
    Ok(pairs)
}

fn is_scheme(text: &str) -> bool {
    text.starts_with(|c: char| c.is_ascii_alphabetic())
        && text.bytes().all(|byte| byte.is_ascii_alphanumeric() || b"+-.".contains(&byte))
}
