//! The sections `[http]` and `[service]`: where and how clients are served, and what they are told of us.

use std::net::{IpAddr, SocketAddr};
use std::time::Duration;

use super::{Reader, size};
use crate::http::tls::TlsFiles;
use crate::http::{HttpConfig, ServiceInfo};

impl Reader<'_> {
    fn http_tls(&mut self, public_url: Option<&str>) -> Option<TlsFiles> {
        match (self.path("http", "certificate"), self.path("http", "key")) {
            (Some(certificate), Some(key)) => {
                if public_url.is_some_and(|url| url.starts_with("http:")) {
                    self.warnings.push(
                        "[http] public_url begins with http:, but HTTPS is served ([http] certificate)"
                            .to_owned(),
                    );
                }
                Some(TlsFiles { certificate, key })
            }
            (None, None) => None,
            (given, _) => {
                let key = if given.is_some() { "key" } else { "certificate" };
                self.fault("http", key, "`certificate` and `key` are given together or not at all");
                None
            }
        }
    }

    pub(super) fn http(&mut self) -> HttpConfig {
        let listen = self.socket("http", "listen").unwrap_or(SocketAddr::from(([127, 0, 0, 1], 8080)));
        let public_url = self.text("http", "public_url");
        if let Some(url) = &public_url
            && !url::Url::parse(url).is_ok_and(|u| matches!(u.scheme(), "http" | "https") && u.has_host())
        {
            self.fault("http", "public_url", format!("`{url}` is not an http or https address"));
        }
        let mut trusted_proxies: Vec<IpAddr> = Vec::new();
        for proxy in self.settings.list("http", "trusted_proxies").iter().filter(|p| !p.is_empty()) {
            match proxy.parse() {
                Ok(address) => trusted_proxies.push(address),
                Err(_) => self.fault("http", "trusted_proxies", format!("`{proxy}` is not an IP address")),
            }
        }
        let tls = self.http_tls(public_url.as_deref());
        let bound = |reader: &Self, key: &str, usual: u64| {
            reader.per_address("http", key, listen.ip().is_loopback(), usual)
        };
        let rate = |n: u64| u32::try_from(n).unwrap_or(u32::MAX);
        let mebibytes = |reader: &Self, key: &str| reader.unsigned("http", key).saturating_mul(1 << 20);
        let service = |key: &str| self.settings.string("service", key);
        HttpConfig {
            listen,
            public_url: public_url.map(|url| url.trim_end_matches('/').to_owned()),
            trusted_proxies,
            cors_origins: self.settings.list("http", "cors_origins"),
            max_body_bytes: mebibytes(self, "max_body_mb"),
            max_inline_bytes: mebibytes(self, "max_inline_mb"),
            tls,
            max_connections: size(self.unsigned("http", "max_connections")),
            max_connections_per_address: size(bound(self, "max_connections_per_address", 256)),
            requests_per_minute: rate(bound(self, "requests_per_minute", 6000)),
            user_requests_per_minute: rate(self.unsigned("http", "user_requests_per_minute")),
            header_timeout: self.seconds("http", "header_timeout_s"),
            request_timeout: self.seconds("http", "request_timeout_s"),
            stall_timeout: self.seconds("http", "stall_timeout_s"),
            sync_timeout: self.seconds("http", "sync_timeout_s"),
            settle: Duration::from_millis(self.unsigned("http", "settle_ms")),
            service: ServiceInfo {
                title: service("title"),
                summary: service("abstract"),
                keywords: self.settings.list("service", "keywords"),
                fees: service("fees"),
                access_constraints: service("access_constraints"),
                provider: service("provider_name"),
                site: service("provider_url"),
                contact: service("contact_name"),
                position: service("contact_position"),
                phone: service("contact_phone"),
                email: service("contact_email"),
            },
        }
    }
}
