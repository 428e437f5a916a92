//! Under which address clients see us: the configured one, else what a trusted proxy or the client itself says.

use std::net::SocketAddr;

use axum::http::{HeaderMap, Uri, header};

use super::HttpConfig;

/// Scheme, authority and perhaps a path, without a trailing slash.
pub(super) fn base(config: &HttpConfig, headers: &HeaderMap, uri: &Uri, peer: Option<SocketAddr>) -> String {
    if let Some(url) = &config.public_url {
        return url.trim_end_matches('/').to_owned();
    }
    let text = |name: &str| headers.get(name).and_then(|value| value.to_str().ok());
    let mut scheme = config.scheme();
    let mut prefix = String::new();
    let mut authority = None;
    if peer.is_some_and(|peer| config.trusted_proxies.contains(&peer.ip().to_canonical())) {
        // A chain of proxies appends; the first entry is what the client asked for.
        let first = |name: &str| text(name).and_then(|list| list.split(',').next()).map(str::trim);
        match first("x-forwarded-proto") {
            Some(proto) if proto.eq_ignore_ascii_case("https") => scheme = "https",
            Some(proto) if proto.eq_ignore_ascii_case("http") => scheme = "http",
            _ => {}
        }
        authority = first("x-forwarded-host").filter(|host| is_authority(host)).map(str::to_owned);
        if let Some(path) = first("x-forwarded-prefix").filter(|path| is_path(path)) {
            path.trim_end_matches('/').clone_into(&mut prefix);
        }
    }
    let authority = authority
        .or_else(|| {
            uri.authority().map(|authority| authority.as_str().to_owned()).filter(|a| is_authority(a))
        })
        .or_else(|| text(header::HOST.as_str()).filter(|host| is_authority(host)).map(str::to_owned))
        .unwrap_or_else(|| config.listen.to_string());
    format!("{scheme}://{authority}{prefix}")
}

/// A host name or address with or without a port, and nothing that could end a link early.
fn is_authority(text: &str) -> bool {
    (1..=255).contains(&text.len())
        && text.bytes().all(|b| b.is_ascii_alphanumeric() || b"-._:[]".contains(&b))
        && !text.starts_with([':', '.', '-'])
}

fn is_path(text: &str) -> bool {
    text.len() <= 255
        && text.starts_with('/')
        && !text.starts_with("//")
        && text.bytes().all(|b| b.is_ascii_alphanumeric() || b"-._~/".contains(&b))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn check(config: &HttpConfig, headers: &[(&'static str, &str)], peer: &str, expected: &str) {
        let mut map = HeaderMap::new();
        for (name, value) in headers {
            map.insert(*name, value.parse().unwrap());
        }
        let uri = Uri::from_static("/wps?x=y");
        assert_eq!(base(config, &map, &uri, Some(peer.parse().unwrap())), expected);
    }

    #[test]
    fn links_follow_configuration_then_proxy_then_host() {
        let proxy = [
            ("host", "inner:8080"),
            ("x-forwarded-host", "wps.example.org, other"),
            ("x-forwarded-proto", "https"),
            ("x-forwarded-prefix", "/gis/"),
        ];
        let mut config =
            HttpConfig { trusted_proxies: vec!["10.0.0.1".parse().unwrap()], ..HttpConfig::default() };
        check(&config, &proxy, "10.0.0.1:1", "https://wps.example.org/gis");
        check(&config, &proxy, "[::ffff:10.0.0.1]:1", "https://wps.example.org/gis");
        check(&config, &proxy, "10.0.0.2:1", "http://inner:8080");
        check(&config, &[], "10.0.0.2:1", "http://127.0.0.1:8080");
        for evil in ["a/b", "a\"b", "a b", "user@host", ".", ":80", "<x>"] {
            check(&config, &[("host", evil)], "10.0.0.2:1", "http://127.0.0.1:8080");
        }
        let evil = [("host", "h"), ("x-forwarded-host", "x/y"), ("x-forwarded-prefix", "//evil")];
        check(&config, &evil, "10.0.0.1:1", "http://h");
        config.public_url = Some("https://public.example/x/".into());
        check(&config, &proxy, "10.0.0.1:1", "https://public.example/x");
    }
}
